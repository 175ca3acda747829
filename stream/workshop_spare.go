package stream

import (
	"runtime"
	"sync"
)

// spare counts the threads of less priority of all workshops of the process. Go runs
// as many threads at once as there are cores (GOMAXPROCS), and counts one from which
// the kernel has taken its core as running: live deliveries would wait for it all the
// same. So there may be one more for each of them while it lives.
var spare struct {
	sync.Mutex
	threads int
	before  int // GOMAXPROCS without them
}

// addSpare makes room for one more running thread.
func addSpare() {
	spare.Lock()
	defer spare.Unlock()
	if spare.threads == 0 {
		spare.before = runtime.GOMAXPROCS(0)
	}
	spare.threads++
	runtime.GOMAXPROCS(spare.before + spare.threads)
}

// dropSpare takes it away again. What Go would choose is left to Go, which follows
// the limits of the container as they change.
func dropSpare() {
	spare.Lock()
	defer spare.Unlock()
	if spare.threads--; spare.threads == 0 {
		runtime.SetDefaultGOMAXPROCS()
	}
	if most := spare.before + spare.threads; runtime.GOMAXPROCS(0) != most {
		runtime.GOMAXPROCS(most)
	}
}
