package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// process is the binary, running.
type process struct {
	w    *world
	t    testing.TB
	name string
	url  string
	args []string
	env  []string
	log  string
	// binary is what runs instead of the program as it is; "" for that.
	binary string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// serve starts `hogstream serve` under an instance name and waits until it is
// ready. It ends with the test.
func (w *world) serve(name string, env ...string) *process {
	w.t.Helper()
	p := w.newProcess(name, []string{"serve"}, env...)
	p.start()
	p.waitReady()
	return p
}

// newProcess prepares a process without starting it.
func (w *world) newProcess(name string, args []string, env ...string) *process {
	w.t.Helper()
	addr := freeAddr(w.t)
	p := &process{
		w: w, t: w.t, name: name, url: "http://" + addr, args: args,
		log: filepath.Join(w.dir, name+".log"),
		env: append([]string{
			"HOGSTREAM_ADDR=" + addr, "HOGSTREAM_INSTANCE=" + name, "HOGSTREAM_DATA_DIR=" + filepath.Join(w.dir, name),
		}, env...),
	}
	w.serving = append(w.serving, p)
	w.t.Cleanup(func() {
		p.kill()
		if w.t.Failed() {
			w.t.Logf("the last that %s wrote:\n%s", name, p.tail(60))
		}
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(p.t, err)
	defer out.Close()
	binary := p.binary
	if binary == "" {
		binary = hogstreamBinary(p.t)
	}
	cmd := exec.Command(binary, p.args...)
	cmd.Env = append(append(os.Environ(), p.w.env...), p.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(p.t, cmd.Start())
	done := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.done = cmd, done
	go func() {
		cmd.Wait() //nolint:errcheck // how it ended is seen in its log
		close(done)
	}()
}

// signal sends a signal to the process, if it runs.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.cmd.Process.Signal(s) //nolint:errcheck // it may have ended
	}
}

// freeze stops the process, and returns when none of its threads runs any more.
func (p *process) freeze() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	for {
		err := unix.Waitid(unix.P_PID, p.pid(), nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			require.NoError(p.t, err, "%s to stop", p.name)
			return
		}
	}
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.cmd = nil
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-done
}

// stop ends the process as an operator does.
func (p *process) stop() {
	p.t.Helper()
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.cmd = nil
	p.mu.Unlock()
	require.NotNil(p.t, cmd)
	require.NoError(p.t, cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-done:
	case <-p.w.ctx().Done():
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		p.t.Fatalf("%s did not stop", p.name)
	}
	require.Equal(p.t, 0, cmd.ProcessState.ExitCode(), "exit code of %s", p.name)
}

// ended is closed when the process has ended by itself.
func (p *process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// pid is the process's number.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// waitReady waits until the process takes events.
func (p *process) waitReady() {
	p.t.Helper()
	done := p.ended()
	p.w.eventually(p.name+" to be ready", func(ctx context.Context) error {
		select {
		case <-done:
			p.t.Fatalf("%s ended by itself:\n%s", p.name, p.tail(40))
		default:
		}
		return get(ctx, p.url+"/v1/health/ready")
	})
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var body bytes.Buffer
		_, _ = body.ReadFrom(res.Body)
		return fmt.Errorf("%s: %s", res.Status, body.String())
	}
	return nil
}

// tail is the end of what the process wrote.
func (p *process) tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
