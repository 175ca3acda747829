package streamtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/localbroker"
)

const (
	envServe    = "HOGSTREAM_STREAMTEST_SERVE"
	servingLine = "streamtest broker at "
)

// MaybeServe turns the test binary into a broker when StartProcess started it;
// it then never returns. Call it first in TestMain.
func MaybeServe() {
	dir := os.Getenv(envServe)
	if dir == "" {
		return
	}
	broker, err := localbroker.Start(localbroker.Config{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(servingLine + broker.Addr())
	io.Copy(io.Discard, os.Stdin) //nolint:errcheck // ends when the parent closes it or dies
	if err := broker.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Process is a broker in a process of its own, with its data on disk.
type Process struct {
	*Env

	t     testing.TB
	dir   string
	cmd   *exec.Cmd
	stdin io.Closer
}

// StartProcess starts a broker in a process of its own, with all topics. The
// test's package must call MaybeServe in TestMain.
func StartProcess(t testing.TB, opts ...Option) *Process {
	t.Helper()
	s := settings{partitions: 3}
	for _, o := range opts {
		o(&s)
	}
	p := &Process{t: t, dir: t.TempDir()}
	addr := p.start()
	t.Cleanup(p.Kill)
	p.Env = newEnv(t, s, nil, stream.Config{Brokers: []string{addr}})
	return p
}

// Kill ends the broker at once, as a power cut of the process would (SIGKILL).
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill() //nolint:errcheck // it may be dead already
	p.cmd.Wait()         //nolint:errcheck // killed
	p.cmd = nil
}

// Stop ends the broker in an orderly way.
func (p *Process) Stop() {
	p.t.Helper()
	require.NoError(p.t, p.stdin.Close())
	require.NoError(p.t, p.cmd.Wait())
	p.cmd = nil
}

// Restart starts the broker again, at the same address and with its data.
func (p *Process) Restart() {
	p.t.Helper()
	require.Equal(p.t, p.Config.Brokers[0], p.start())
}

func (p *Process) start() (addr string) {
	p.t.Helper()
	exe, err := os.Executable()
	require.NoError(p.t, err)
	p.cmd = exec.Command(exe, "-test.run=^$")
	p.cmd.Env = append(os.Environ(), envServe+"="+p.dir)
	p.cmd.Stderr = os.Stderr
	stdin, err := p.cmd.StdinPipe()
	require.NoError(p.t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, p.cmd.Start())
	p.stdin = stdin
	line, err := bufio.NewReader(stdout).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), servingLine)
	if err != nil || !ok {
		p.Kill()
		p.t.Fatalf("the broker did not start; does TestMain call streamtest.MaybeServe? (%q, %v)", line, err)
	}
	return addr
}
