package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A part is something that the process under test must not pay for, in a process
// of its own made from this binary. It says on its first line where it listens
// and ends when its standard input does, so it never outlives its starter.

// PartFlag is the argument that makes the binary a part; its value names which.
// The command line hands it to RunPart.
const PartFlag = "--part"

// parts by name. A part serves until stop is closed; said is its first line.
var parts = map[string]func(args []string, stop <-chan struct{}, say func(string)) error{
	"broker":   brokerPart,
	"receiver": receiverPart,
	"load":     loadPart,
	"dev":      devPart,
	"delivery": deliveryPart,
	"sleeper":  sleeperPart,

	"check": checkPart,
	"test":  testPart,

	"plain-backfill": plainBackfillPart,
}

// RunPart plays a part until standard input ends.
func RunPart(name string, args []string, in io.Reader, out io.Writer) error {
	play, ok := parts[name]
	if !ok {
		return fmt.Errorf("there is no part %q", name)
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_, _ = io.Copy(io.Discard, in)
	}()
	return play(args, stop, func(line string) { _, _ = fmt.Fprintln(out, line) })
}

// part is a running one.
type part struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	addr string
}

// partCommand is how this binary is called to be a part; tests have another.
var partCommand = []string{"bench", PartFlag}

func startPart(ctx context.Context, name string, args ...string) (*part, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	words := append(append([]string{}, partCommand...), name)
	cmd := exec.CommandContext(ctx, self, append(words, args...)...) // #nosec G204 -- this very binary
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = in.Close()
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), cmd.Wait())
	}
	return &part{cmd: cmd, in: in, addr: strings.TrimSpace(line)}, nil
}

// close ends the part and waits for it.
func (p *part) close() {
	_ = p.in.Close()
	late := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	_ = p.cmd.Wait()
}

// decodeArgs reads a part's settings, given as one JSON document.
func decodeArgs(args []string, into any) error {
	if len(args) == 0 {
		return nil
	}
	if err := json.Unmarshal([]byte(args[0]), into); err != nil {
		return fmt.Errorf("settings of the part: %w", err)
	}
	return nil
}
