package program_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hogstream/hogstream/program"
)

const envParent = "HOGSTREAM_PROGRAM_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(envParent) != "" {
		beParent()
	}
	os.Exit(m.Run())
}

// beParent starts a worker and waits to be killed.
func beParent() {
	w, err := program.New(nil, nil)
	if err == nil {
		_, err = w.Open("test", program.Source{Filter: "."}).Run(context.Background(), [][]byte{[]byte(`{}`)})
	}
	fmt.Println("ready", err)
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// workersOf are the worker processes that a process has started.
func workersOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, path := range commands {
		command, _ := os.ReadFile(path) // it may have ended
		if !bytes.HasPrefix(command, []byte(program.Title)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		require.NoError(t, err)
		if fields := stat(pid); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stat is what /proc says of a process from its state on; nothing when it is gone.
func stat(pid int) []string { return statAt(fmt.Sprintf("/proc/%d/stat", pid)) }

func statAt(path string) []string {
	line, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
}

func theWorker(t *testing.T) int {
	t.Helper()
	pids := workersOf(t, os.Getpid())
	require.Len(t, pids, 1)
	return pids[0]
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, s))
}

func eventually(t *testing.T, is func() bool, what string) {
	t.Helper()
	require.Eventually(t, is, time.Minute, time.Millisecond, what)
}

// stopped stops the worker in the midst of what it does. It stands when all its threads
// do: one that still ran would read the message that is to wait.
func stopped(t *testing.T) int {
	t.Helper()
	pid := theWorker(t)
	signal(t, pid, syscall.SIGSTOP)
	eventually(t, func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return err == nil && len(threads) > 0 && !slices.ContainsFunc(threads, func(path string) bool {
			f := statAt(path)
			return len(f) == 0 || f[0] != "T"
		})
	}, "it stands")
	return pid
}

func TestAWorkerThatIsKilledInTheMidstOfAMessageCostsNoRecord(t *testing.T) {
	p := newWorkers(t).Open("test", program.Source{Transform: "{n}"})
	var documents [][]byte
	for i := range 200 {
		documents = append(documents, fmt.Appendf(nil, `{"n":%d}`, i))
	}
	_, err := p.Run(t.Context(), documents[:1])
	require.NoError(t, err)
	for range 3 {
		pid := stopped(t)
		type answer struct {
			results []program.Result
			err     error
		}
		answered := make(chan answer, 1)
		go func() {
			results, err := p.Run(t.Context(), documents)
			answered <- answer{results, err}
		}()
		// The message is in the pipe once its writer has nothing more to do but wait.
		eventually(t, func() bool { return waiting(t, pid) > 0 }, "the message is in the pipe")
		signal(t, pid, syscall.SIGKILL)
		a := <-answered
		require.NoError(t, a.err)
		for i, r := range a.results {
			require.NoError(t, r.Err)
			require.Equal(t, fmt.Sprintf(`{"n":%d}`, i), string(r.Shaped.Envelope))
		}
	}
}

// waiting is how many bytes wait in the input of a process.
func waiting(t *testing.T, pid int) int {
	t.Helper()
	in, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/0", pid), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	defer in.Close()
	n, err := unix.IoctlGetInt(int(in.Fd()), unix.TIOCINQ)
	require.NoError(t, err)
	return n
}

func TestAWorkerThatStandsStillIsEndedAndItsRecordsRunAgain(t *testing.T) {
	p := newWorkers(t).Open("test", program.Source{Filter: "true"})
	documents := [][]byte{[]byte(`{}`), []byte(`{}`)}
	_, err := p.Run(t.Context(), documents)
	require.NoError(t, err)
	pid := stopped(t)
	results, err := p.Run(t.Context(), documents)
	require.NoError(t, err)
	require.Equal(t, []program.Result{{Keep: true}, {Keep: true}}, results)
	require.NotEqual(t, pid, theWorker(t))
}

func TestAWorkerHasNeitherEnvironmentNorFilesAndEndsFirstWithoutMemory(t *testing.T) {
	t.Setenv("HOG_SECRET", "sesame")
	open, err := os.CreateTemp(t.TempDir(), "open")
	require.NoError(t, err)
	defer open.Close()
	p := newWorkers(t).Open("test", program.Source{Filter: "true"})
	_, err = p.Run(t.Context(), [][]byte{[]byte(`{}`)})
	require.NoError(t, err)
	pid := theWorker(t)
	read := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		require.NoError(t, err)
		return string(b)
	}
	require.Equal(t, "HOGSTREAM_PROGRAM_WORKER_PIPE=1\x00", read("environ"))
	require.Equal(t, "1000\n", read("oom_score_adj"))
	require.Regexp(t, `Max core file size +0 +0`, read("limits"))
	require.Regexp(t, `Max file size +0 +0`, read("limits"))
	require.Regexp(t, `Max address space +\d+ +\d+`, read("limits"))
	require.Regexp(t, `Max cpu time +\d+ +unlimited`, read("limits"))
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	require.NoError(t, err)
	for _, link := range links {
		to, err := os.Readlink(link)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(to, "pipe:") || strings.HasPrefix(to, "anon_inode:"), "%s is %s", link, to)
	}
}

func TestAWorkerEndsWithItsParent(t *testing.T) {
	for _, standing := range []bool{false, true} {
		parent := exec.Command(os.Args[0])
		parent.Env = append(os.Environ(), envParent+"=1")
		in, err := parent.StdinPipe()
		require.NoError(t, err)
		defer in.Close()
		out, err := parent.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, parent.Start())
		line := make([]byte, len("ready <nil>"))
		_, err = io.ReadFull(out, line)
		require.NoError(t, err)
		require.Equal(t, "ready <nil>", string(line))
		pids := workersOf(t, parent.Process.Pid)
		require.Len(t, pids, 1)
		if standing {
			signal(t, pids[0], syscall.SIGSTOP)
		}
		require.NoError(t, parent.Process.Kill())
		_ = parent.Wait()
		eventually(t, func() bool { f := stat(pids[0]); return len(f) == 0 || slices.Contains([]string{"Z", "X"}, f[0]) }, "the worker ends")
	}
}

func TestAWorkerIsNotEndedByWhatEndsItsParentInGoodOrder(t *testing.T) {
	p := newWorkers(t).Open("test", program.Source{Filter: "true"})
	_, err := p.Run(t.Context(), [][]byte{[]byte(`{}`)})
	require.NoError(t, err)
	pid := theWorker(t)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		signal(t, pid, s)
	}
	_, err = p.Run(t.Context(), [][]byte{[]byte(`{}`)})
	require.NoError(t, err)
	require.Equal(t, pid, theWorker(t))
	group, err := syscall.Getpgid(pid)
	require.NoError(t, err)
	require.NotEqual(t, syscall.Getpgrp(), group, "what a terminal sends does not reach it")
}

// another is a program that is started instead of a worker.
func another(t *testing.T, script string) *program.Workers {
	t.Helper()
	path := filepath.Join(t.TempDir(), "worker")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	w := newWorkers(t)
	w.StartFrom(path)
	return w
}

func TestGarbageOnThePipeBlamesNoRecord(t *testing.T) {
	for name, script := range map[string]string{
		"text":                 `echo "panic: what is this"; sleep 60`,
		"a frame too long":     `printf '\377\377\377\377'; sleep 60`,
		"a part too long":      `printf '\000\000\000\003\001k\000\000\000\000\002\177k'; sleep 60`,
		"an unknown answer":    `printf '\000\000\000\002\001k\000\000\000\002\001z'; sleep 60`,
		"an answer in part":    `printf '\000\000\000\002\001k\000\000\000\002\001s'; sleep 60`,
		"an answer too many":   `printf '\000\000\000\002\001k\000\000\000\006\001k\001k\001k'; sleep 60`,
		"nothing, and an end":  `exit 0`,
		"the end of an answer": `printf '\000\000\000\002\001k\000\000'`,
	} {
		t.Run(name, func(t *testing.T) {
			w := another(t, script)
			results, err := w.Open("test", program.Source{Filter: "."}).Run(t.Context(), [][]byte{[]byte(`{}`)})
			if err == nil {
				err = results[0].Err
			}
			require.Error(t, err)
			var wrong *program.SourceError
			require.NotErrorAs(t, err, &wrong)
			require.Regexp(t, "cannot be read|ended by exit status 0", err)
		})
	}
}

func TestAProgramAtWhichTheCompilerEndsIsRefused(t *testing.T) {
	w := another(t, `head -c 8 >/dev/null; echo "runtime: goroutine stack exceeds 33554432-byte limit" >&2; exit 2`)
	for _, src := range []program.Source{{Filter: "."}, {Transform: "."}} {
		var wrong *program.SourceError
		require.ErrorAs(t, w.Check(t.Context(), src), &wrong)
		require.Equal(t, src.Filter != "", wrong.Field == "filter")
		require.Equal(t, "cannot be compiled: it is nested too deeply, or calls itself without end", wrong.Reason)
	}
}

func TestAWorkerThatCannotBeStartedBlamesNothing(t *testing.T) {
	w := newWorkers(t)
	w.StartFrom(filepath.Join(t.TempDir(), "nothing"))
	_, err := w.Open("test", program.Source{Filter: "."}).Run(t.Context(), [][]byte{[]byte(`{}`)})
	var wrong *program.SourceError
	require.ErrorContains(t, err, "a worker for filters and transforms cannot be started")
	require.NotErrorAs(t, err, &wrong)
	err = w.Check(t.Context(), program.Source{Filter: "."})
	require.ErrorContains(t, err, "a worker for filters and transforms cannot be started")
	require.NotErrorAs(t, err, &wrong)
}
