package stream

import "syscall"

// threadNice is by how much a thread of a Workshop is nicer than its process. On a
// machine where all cores are wanted it still gets a tenth of one: the process stops
// all its threads for moments (garbage collection), and must not wait long for this
// one to notice.
const threadNice = 10

// yieldThread gives the thread that calls it less priority; false when it may not.
// Linux knows priorities of threads: 0 stands for the one that asks.
func yieldThread() bool {
	const lowest = 19
	raw, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0) // the system call gives 20 - nice
	if err != nil {
		return false
	}
	return syscall.Setpriority(syscall.PRIO_PROCESS, 0, min(20-raw+threadNice, lowest)) == nil
}
