package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asCommand has the test's binary be the program.
const asCommand = "HOGSTREAM_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// hour is a directory in which README's first hour is gone through.
type hour struct {
	t     *testing.T
	dir   string
	env   []string
	ports []string // what of README's commands is replaced, and by what
}

func newHour(t *testing.T) *hour {
	dir := reachable(t)
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bin", "hogstream"), fmt.Appendf(nil, "#!/bin/bash\n%s=1 exec -a bin/hogstream %s \"$@\"\n", asCommand, self), 0o755))
	// make run builds bin/hogstream, which is here already.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Makefile"), []byte("run:\n\t@exec bin/hogstream dev\n"), 0o600))
	return &hour{t: t, dir: dir, env: append(os.Environ(), "PORT=0"), ports: []string{"hogstream listen", "hogstream listen --port 0"}}
}

// instead has commands use another port than README names, which may be taken where tests run:
// the one that a program says it listens on.
func (h *hour) instead(of string, s *screen, says string) {
	h.t.Helper()
	m := regexp.MustCompile(says).FindStringSubmatch(s.String())
	require.NotNil(h.t, m, s)
	h.ports = append(h.ports, of, m[1])
}

// reachable is a directory that Postgres gets to when it runs as somebody else than root.
func reachable(t *testing.T) string {
	dir, err := os.MkdirTemp("", "hogstream-readme-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (h *hour) command(ctx context.Context, text string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", strings.NewReplacer(h.ports...).Replace(text))
	cmd.Dir, cmd.Env = h.dir, h.env
	return cmd
}

// screen is what a command in the foreground of another terminal has printed.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// terminal starts a command that stays in the foreground of a terminal of its own, until the
// test ends it with Ctrl-C.
func (h *hour) terminal(text string) *screen {
	s := &screen{}
	cmd := h.command(context.Background(), "exec "+text)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s, s, &syscall.SysProcAttr{Setpgid: true}
	require.NoError(h.t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	h.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) // as a terminal does: to all of them
		select {
		case err := <-ended:
			h.t.Logf("%s ended: %v", text, err)
		case <-time.After(time.Minute):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			h.t.Errorf("%s does not end", text)
		}
		if h.t.Failed() {
			h.t.Logf("%s\n%s", text, s)
		}
	})
	return s
}

func (h *hour) shows(s fmt.Stringer, parts ...string) {
	h.t.Helper()
	require.Eventually(h.t, func() bool { return inTurn(s.String(), parts) }, 2*time.Minute, 10*time.Millisecond, "%v in\n%s", parts, s)
}

// inTurn says whether a text has the parts, one after the other.
func inTurn(text string, parts []string) bool {
	for _, p := range parts {
		_, rest, found := strings.Cut(text, p)
		if !found {
			return false
		}
		text = rest
	}
	return true
}

// runs runs a command until it shows what it must: what was sent a moment ago may be on its way.
func (h *hour) runs(text string, parts ...string) {
	h.t.Helper()
	var out []byte
	require.Eventually(h.t, func() bool {
		var err error
		out, err = h.command(h.t.Context(), text).CombinedOutput()
		return err == nil && inTurn(string(out), parts)
	}, 2*time.Minute, 100*time.Millisecond, "%s: %v", text, parts)
	h.t.Logf("$ %s\n%s", text, out)
}

// The README's first hour is run command by command; what each has to show stands here.
func TestTheFirstHourOfTheREADME(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	require.NoError(t, err)
	_, story, found := strings.Cut(string(readme), "## The first hour\n")
	require.True(t, found)
	story, _, _ = strings.Cut(story, "\n## ")
	var commands []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)\n```").FindAllStringSubmatch(story, -1) {
		commands = append(commands, m[1])
	}
	require.Len(t, commands, 9)

	h := newHour(t)
	run := h.terminal(commands[0])
	h.shows(run, "Hogstream is ready", "hogstream.log", "Next", "hogstream listen")
	h.instead("localhost:3002", run, `API +http://(\S+)`)
	listen := h.terminal(commands[1])
	h.shows(listen, "destinations add http://127.0.0.1:", ".hogstream/listen-secret")
	h.instead("127.0.0.1:9000", listen, `http://(127[0-9.:]+)`)
	h.once(commands[2], "listener → http://127.0.0.1:", "Next", "events send")
	h.once(commands[3], `"stored":true`)
	h.shows(listen, "204  contact.created", "(verified)")
	h.shows(listen, "204  event.tracked", "(verified)")
	h.runs(commands[4], "u1", "ada@example.com", "#1", "contact.created", "#2", "signed_up", "newsletter", "delivered → listener", "Next", "replay listener --rewind")
	h.once(commands[5], "rewound; 2 records are on their way")
	h.shows(listen, "again, for the 2nd time", "again, for the 2nd time") // two topics: in any order
	h.runs(commands[6], "delivered → listener", "delivered → listener", "delivered → listener", "delivered → listener")
	h.once(commands[7], "contact.created")
	h.once(commands[7], "event.tracked:signed_up") // two topics: in any order
	h.runs(commands[8], "u1 is not in keen", "it does not satisfy the criteria", "catalog")

	// Beyond the README: a record that is made by hand goes the way of all others.
	record := `{"id":"0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01","type":"event","receivedAt":"2026-01-02T03:04:05Z","occurredAt":"2026-01-02T03:04:05Z","source":"hand","userId":"u1","event":"mended","eventProperties":{"by":"hand"}}`
	require.NoError(t, os.WriteFile(filepath.Join(h.dir, "records"), []byte(record+"\n"), 0o600))
	h.once("bin/hogstream topics produce ingest records", "1 records appended to ingest")
	h.runs("bin/hogstream events ls u1", "signed_up", `{"from":"newsletter"}`, "mended", `{"by":"hand"}`)
	h.once("bin/hogstream topics check-order", "3")
	out, err := h.command(t.Context(), "bin/hogstream topics produce lifecycle records").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "line 1: a record of topic lifecycle: field event: is not in the schema")
}

// once runs a command that shows at once what it must.
func (h *hour) once(text string, parts ...string) {
	h.t.Helper()
	out, err := h.command(h.t.Context(), text).CombinedOutput()
	require.NoError(h.t, err, "%s\n%s", text, out)
	require.True(h.t, inTurn(string(out), parts), "%s: %v in\n%s", text, parts, out)
	h.t.Logf("$ %s\n%s", text, out)
}
