package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// oldestMajor is the oldest Postgres that the migrations are tested with.
const oldestMajor = 14

// binaries is one installation of Postgres.
type binaries struct {
	dir          string
	major, minor int
}

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// binDirs are where the usual packagings put their binaries; PATH comes first.
var binDirs = []string{
	"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
	"/usr/pgsql-*/bin",          // Red Hat from postgresql.org
	"/usr/libexec/postgresql*",  // Alpine
	"/usr/local/pgsql/bin",
	"/opt/postgresql*/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// findBinaries returns the newest installation that as can run: of the major
// version given, or any when that is 0.
func findBinaries(ctx context.Context, opts Options, as account, major int) (binaries, error) {
	var best binaries
	for _, dir := range candidates(opts) {
		b, err := inspect(ctx, dir)
		if err != nil || b.major < oldestMajor || !as.reaches(dir) {
			continue
		}
		if major != 0 && b.major != major {
			continue
		}
		if b.major > best.major || b.major == best.major && b.minor > best.minor {
			best = b
		}
	}
	switch {
	case best.dir != "":
		return best, nil
	case opts.BinDir != "":
		return best, fmt.Errorf("embedded postgres: no usable Postgres %s in %s", wanted(major), opts.BinDir)
	}
	return fetch(ctx, opts, as, major)
}

func wanted(major int) string {
	if major == 0 {
		return fmt.Sprintf("%d or newer", oldestMajor)
	}
	return strconv.Itoa(major)
}

func candidates(opts Options) []string {
	if opts.BinDir != "" {
		return []string{opts.BinDir}
	}
	var dirs []string
	seen := map[string]bool{}
	add := func(postgres string) {
		real, err := filepath.EvalSymlinks(postgres)
		if err != nil {
			return
		}
		dir := filepath.Dir(real)
		// initdb must stand beside postgres; some packages ship the server alone.
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil && !seen[dir] {
			seen[dir] = true
			dirs = append(dirs, dir)
		}
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		add(path)
	}
	for _, pattern := range binDirs {
		found, _ := filepath.Glob(pattern)
		for _, dir := range found {
			add(filepath.Join(dir, "postgres"))
		}
	}
	return dirs
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)(?:\.(\d+))?`)

func inspect(ctx context.Context, dir string) (binaries, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return binaries{}, fmt.Errorf("run postgres --version in %s: %w", dir, err)
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return binaries{}, fmt.Errorf("unknown version in %s: %s", dir, out)
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	return binaries{dir: dir, major: major, minor: minor}, nil
}

// fetchable are the versions to fetch; the first is the one for new clusters.
var fetchable = []struct {
	major   int
	version embeddedpostgres.PostgresVersion
}{
	{17, embeddedpostgres.V17},
	{18, embeddedpostgres.V18},
	{16, embeddedpostgres.V16},
	{15, embeddedpostgres.V15},
	{14, embeddedpostgres.V14},
}

// fetch downloads and unpacks binaries once into the cache. The library can
// only do so on the way to a server of its own, on which initdb fails as root;
// all that counts here is whether the binaries are there afterwards.
func fetch(ctx context.Context, opts Options, as account, major int) (binaries, error) {
	version := fetchable[0].version
	if major != 0 {
		version = ""
		for _, f := range fetchable {
			if f.major == major {
				version = f.version
			}
		}
		if version == "" {
			return binaries{}, fmt.Errorf("embedded postgres: the data is of Postgres %d, which is neither installed nor can be fetched", major)
		}
	}
	cache, err := cacheDir(opts, as)
	if err != nil {
		return binaries{}, err
	}
	target := filepath.Join(cache, "postgres-"+string(version))
	if b, err := inspect(ctx, filepath.Join(target, "bin")); err == nil {
		return b, nil
	}
	fmt.Fprintf(opts.Progress, "Fetching Postgres %s (once, into %s)\n", version, target)
	fetchErr := fetchInto(cache, target, version, opts.FetchFrom)
	b, err := inspect(ctx, filepath.Join(target, "bin"))
	if err != nil {
		return b, fmt.Errorf("embedded postgres: no Postgres %s found on this machine, and fetching one failed: install postgresql, or set DATABASE_URL to a server: %w",
			wanted(major), errors.Join(fetchErr, err))
	}
	return b, nil
}

// fetchInto unpacks beside and renames, so that a fetch that was killed leaves
// nothing that looks complete.
func fetchInto(cache, target string, version embeddedpostgres.PostgresVersion, from string) error {
	part, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part)
	if err := os.Chmod(part, 0o755); err != nil {
		return err
	}
	startErr := unpackBySideEffect(cache, part, version, from)
	if _, err := os.Stat(filepath.Join(part, "bin", "initdb")); err != nil {
		return errors.Join(startErr, err)
	}
	if err := os.Rename(part, target); err != nil && !errors.Is(err, fs.ErrExist) {
		return err // ErrExist: another process was faster
	}
	return nil
}

func unpackBySideEffect(cache, target string, version embeddedpostgres.PostgresVersion, from string) error {
	scratch, err := os.MkdirTemp("", "hogstream-fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	port, err := freePort()
	if err != nil {
		return err
	}
	config := embeddedpostgres.DefaultConfig().Version(version).Port(port).
		CachePath(cache).BinariesPath(target).
		RuntimePath(filepath.Join(scratch, "runtime")).DataPath(filepath.Join(scratch, "data")).
		Logger(io.Discard)
	if from != "" {
		config = config.BinaryRepositoryURL(from)
	}
	server := embeddedpostgres.NewDatabase(config)
	if err := server.Start(); err != nil {
		return err
	}
	return server.Stop()
}

func cacheDir(opts Options, as account) (string, error) {
	dir := opts.CacheDir
	switch {
	case dir != "":
	case as.drop:
		dir = filepath.Join(rootBase, "cache")
	default:
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("embedded postgres: no place for fetched binaries: %w", err)
		}
		dir = filepath.Join(user, "hogstream")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("embedded postgres: %w", err)
	}
	if !as.reaches(dir) {
		return "", fmt.Errorf("embedded postgres: user %d, as whom Postgres will run, cannot reach the cache %s", as.uid, dir)
	}
	return dir, nil
}

func freePort() (uint32, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return uint32(listener.Addr().(*net.TCPAddr).Port), nil
}
