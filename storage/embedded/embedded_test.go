package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage/embedded"
)

// A test that needs another process runs this binary again with these set.
const (
	envHolder   = "HOGSTREAM_TEST_HOLD_DIR"
	envTethered = "HOGSTREAM_TEST_TETHERED"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envHolder); dir != "" {
		hold(dir)
		return
	}
	code := func() int {
		base, err := os.MkdirTemp("", "hogstream-rootbase-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(base)
		if err := os.Chmod(base, 0o755); err != nil {
			panic(err)
		}
		embedded.SetRootBase(base)
		return m.Run()
	}()
	os.Exit(code)
}

// hold starts a server, stores a row, reports, and goes on until its input ends
// (it is killed before).
func hold(dir string) {
	opts := options(dir)
	opts.Tethered = os.Getenv(envTethered) != ""
	server, err := embedded.Start(context.Background(), opts)
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	if err := runSQL(server, `CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)`); err != nil {
		fmt.Println("error:", err)
		_ = server.Stop(context.Background())
		return
	}
	fmt.Println("ready", server.PID())
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = server.Stop(context.Background())
}

// options avoid initdb where that is not the subject.
func options(dir string) embedded.Options {
	return embedded.Options{
		Dir:        dir,
		Disposable: true,
		Template:   filepath.Join(os.TempDir(), fmt.Sprintf("hogstream-pg-templates-%d", os.Getuid())),
	}
}

func runSQL(server *embedded.Server, sql string) error {
	conn, err := pgx.Connect(context.Background(), server.URL("hogstream"))
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), sql)
	return err
}

func readKept(t *testing.T, server *embedded.Server) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.URL("hogstream"))
	require.NoError(t, err)
	defer conn.Close(context.Background())
	var n int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT n FROM kept`).Scan(&n))
	return n
}

// reachableDir is a directory that the server's user can reach also when the
// tests run as root.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hogstream-embedded-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "postgres")
}

func start(t *testing.T, opts embedded.Options) *embedded.Server {
	t.Helper()
	server, err := embedded.Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.Background())) })
	return server
}

// holder is another process that has started a server on dir.
type holder struct {
	cmd       *exec.Cmd
	serverPID int
}

func startHolder(t *testing.T, cmd *exec.Cmd, dir string, env ...string) holder {
	t.Helper()
	cmd.Env = append(append(os.Environ(), envHolder+"="+dir), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close() // stops its server and ends, unless the test has killed it
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "ready ")))
	require.NoError(t, err, line)
	return holder{cmd: cmd, serverPID: pid}
}

func (h holder) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, h.cmd.Process.Kill())
	require.Error(t, h.cmd.Wait())
}

func self(t *testing.T) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return exec.Command(path)
}

func TestAServerOrphanedByKillNineIsAdoptedWithItsData(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	h := startHolder(t, self(t), dir)
	h.kill(t)
	require.NoError(t, syscall.Kill(h.serverPID, 0), "the server outlives its starter")

	server := start(t, options(dir))
	require.True(t, server.Adopted)
	require.Equal(t, h.serverPID, server.PID())
	require.Equal(t, 42, readKept(t, server))
	require.NoError(t, server.Stop(t.Context()))
	require.ErrorIs(t, syscall.Kill(h.serverPID, 0), syscall.ESRCH, "an adopted server can be stopped")
}

func TestAnOrphanWhoseSocketIsGoneIsRestarted(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	h := startHolder(t, self(t), dir)
	h.kill(t)
	require.NoError(t, os.Remove(filepath.Join(dir, "run", ".s.PGSQL.5432")))

	server := start(t, options(dir))
	require.False(t, server.Adopted)
	require.NotEqual(t, h.serverPID, server.PID())
	require.Equal(t, 42, readKept(t, server))
}

func TestASecondStartNamesTheHolder(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	h := startHolder(t, self(t), dir)
	_, err := embedded.Start(t.Context(), options(dir))
	var held *embedded.HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, h.cmd.Process.Pid, held.PID)
	require.ErrorContains(t, err, fmt.Sprintf("in use by process %d", h.cmd.Process.Pid))
}

func TestDataSurvivesAStopAndACrashOfTheServer(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	opts := embedded.Options{Dir: dir} // as in development: initdb, fsync
	server := start(t, opts)
	require.NoError(t, runSQL(server, `CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)`))
	require.NoError(t, server.Stop(t.Context()))
	require.NoError(t, server.Stop(t.Context()), "stopping twice is fine")

	began := time.Now()
	server = start(t, opts)
	t.Logf("start on existing data: %s", time.Since(began))
	require.False(t, server.Adopted)
	require.Equal(t, 42, readKept(t, server))
	require.NoError(t, syscall.Kill(server.PID(), syscall.SIGQUIT)) // without a checkpoint
	require.NoError(t, server.Halt(t.Context()))
	require.Error(t, runSQL(server, `SELECT`))
	require.NoError(t, server.Relaunch(t.Context()))
	require.Equal(t, 42, readKept(t, server))
}

// What initdb had said until it was killed was told as if it had failed.
func TestAFirstStartThatIsInterruptedSaysNoMore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	opts := embedded.Options{Dir: reachableDir(t), Disposable: true, Progress: writerFunc(func([]byte) { cancel() })}
	_, err := embedded.Start(ctx, opts)
	require.ErrorIs(t, err, context.Canceled)
	require.NotContains(t, err.Error(), "\n")
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestAKilledFirstStartAndAReusedProcessNumberDoNotStandInTheWay(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data.new", "base"), 0o700))
	server := start(t, options(dir))
	require.NoError(t, runSQL(server, `CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)`))
	require.NoError(t, server.Stop(t.Context()))

	// As after a power cut: the number in the pid file is now somebody else's.
	pidFile := filepath.Join(server.Dir(), "data", "postmaster.pid")
	require.NoError(t, os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getppid())+"\n"), 0o600))
	server = start(t, options(dir))
	require.False(t, server.Adopted)
	require.Equal(t, 42, readKept(t, server))
}

func TestATetheredServerEndsWithItsStarterAndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	h := startHolder(t, self(t), dir, envTethered+"=1")
	h.kill(t)
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist) && errors.Is(syscall.Kill(h.serverPID, 0), syscall.ESRCH)
	}, 20*time.Second, 20*time.Millisecond)
}

func TestADirTooDeepForASocketStillWorks(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachableDir(t), strings.Repeat("deep/", 30), "with space")
	server := start(t, options(dir))
	require.NoError(t, runSQL(server, `SELECT`))
}

func TestAsRootADirThatTheServersUserCannotReachIsKeptElsewhere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	t.Parallel()
	home := t.TempDir()
	require.NoError(t, os.Chmod(home, 0o700))
	dir := filepath.Join(home, "postgres")
	server := start(t, options(dir))
	require.NotEqual(t, dir, server.Dir())
	require.NoError(t, runSQL(server, `CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)`))
	require.NoError(t, server.Stop(t.Context()))
	server = start(t, options(dir))
	require.Equal(t, 42, readKept(t, server))
	require.NoError(t, server.Stop(t.Context()))

	// Who removes the directory means the data.
	require.NoError(t, os.RemoveAll(dir))
	server = start(t, options(dir))
	require.ErrorContains(t, runSQL(server, `SELECT n FROM kept`), "does not exist")
}

func TestADirectoryThatWasLetGoIsFreeThoughAChildStillHasItsLockOpen(t *testing.T) {
	t.Parallel()
	require.NoError(t, embedded.LockTwice(filepath.Join(t.TempDir(), "lock")))
}

func TestANormalUserStartsAServerAndAnotherUsersDataIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else; the other tests have just run as a normal user")
	}
	t.Parallel()
	nobody, err := user.Lookup("nobody")
	require.NoError(t, err)
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	dir := reachableDir(t)
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.Chown(dir, uid, gid))

	cmd := publicCopyOfSelf(t)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	h := startHolder(t, cmd, dir)
	h.kill(t)

	// Root adopts and then restarts it as its owner.
	server := start(t, options(dir))
	require.True(t, server.Adopted)
	require.Equal(t, 42, readKept(t, server))
	require.NoError(t, server.Stop(t.Context()))
	server = start(t, options(dir))
	require.Equal(t, 42, readKept(t, server))
	require.NoError(t, server.Stop(t.Context()))

	// And the owner can start it again after root has.
	again := publicCopyOfSelf(t)
	again.Dir, again.SysProcAttr = "/", cmd.SysProcAttr
	again.Env = append(os.Environ(), envHolder+"="+dir)
	out, err := again.CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), `"kept" already exists`, "it started and found the table")

	foreign := filepath.Join(filepath.Dir(dir), "foreign")
	require.NoError(t, os.MkdirAll(filepath.Join(foreign, "data"), 0o755))
	require.NoError(t, os.Chown(foreign, uid, gid))
	again = publicCopyOfSelf(t)
	again.Dir, again.SysProcAttr = "/", cmd.SysProcAttr
	again.Env = append(os.Environ(), envHolder+"="+foreign)
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "data", "PG_VERSION"), []byte("15\n"), 0o644))
	out, err = again.CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), "belongs to user 0")
}

// publicCopyOfSelf is this binary where every user can run it.
func publicCopyOfSelf(t *testing.T) *exec.Cmd {
	t.Helper()
	path := filepath.Join(filepath.Dir(reachableDir(t)), "embedded.test")
	// In a process of its own: a child that another test starts meanwhile would have
	// the copy open for writing too, and a file that is being written does not run.
	out, err := exec.Command("cp", self(t).Path, path).CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, os.Chmod(path, 0o755))
	return exec.Command(path)
}
