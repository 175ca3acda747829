package embedded

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// janitor waits until nobody holds the other end of its input, then ends the
// server and removes its directories. When it comes between the start of a
// server and its pid file, removing the data ends the server: Postgres checks
// every minute that its pid file is still there.
const janitor = `
cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
	kill -QUIT "$pid"; kill -CONT "$pid"
	n=0
	while kill -0 "$pid" && [ $n -lt 80 ]; do sleep 0.1; n=$((n+1)); done
fi
rm -rf "$1" "$2"
`

// tether ends a server with this process: the kernel closes the pipe at every
// kind of end, so a test binary that panics, times out or is killed leaks none.
type tether struct {
	end     *os.File
	janitor *exec.Cmd
}

// tied keeps every uncut tether reachable: a file that is garbage is closed,
// which would end the server of a caller who kept only its URL.
var tied sync.Map

func tie(home, dir string) (*tether, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	defer read.Close()
	cmd := exec.Command("sh", "-c", janitor, "hogstream-postgres-janitor", home, dir)
	cmd.Dir = "/"
	cmd.Stdin = read
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = write.Close()
		return nil, fmt.Errorf("embedded postgres: start the janitor: %w", err)
	}
	t := &tether{end: write, janitor: cmd}
	tied.Store(t, true)
	return t, nil
}

// cut lets the janitor work and waits for it. It does nothing on nil or twice.
func (t *tether) cut() {
	if t == nil || t.janitor == nil {
		return
	}
	tied.Delete(t)
	_ = t.end.Close()
	_ = t.janitor.Wait()
	t.janitor = nil
}
