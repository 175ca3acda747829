package hogstream_test

import (
	"bytes"
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
)

// The program in examples/embed has a module of its own, as those who embed us have. It
// prints what its own kind of destination was delivered, shaped by a worker process.
func TestAProgramThatEmbedsHogstreamDeliversToAKindOfItsOwn(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	binary := filepath.Join(t.TempDir(), "embed")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, ".")
	build.Dir = filepath.Join("examples", "embed")
	build.Env = append(build.Environ(), "GOWORK=off", "GOPROXY=off", "GOFLAGS=-mod=readonly")
	told, err := build.CombinedOutput()
	require.NoError(t, err, "%s\n(after a change of dependencies: go mod tidy in examples/embed)", told)

	var errs bytes.Buffer
	program := exec.CommandContext(ctx, binary)
	program.Dir, program.Stderr = t.TempDir(), &errs
	program.Env = append(program.Environ(), "ENABLED_DESTINATION_PRESETS=none") // which own kinds do not need
	printed, err := program.Output()
	require.NoError(t, err, "%s", errs.String())
	lines := strings.Split(strings.TrimSpace(string(printed)), "\n")
	require.Equal(t, "served by: Acme", lines[0])
	require.ElementsMatch(t, []string{
		`delivered: Dear Ada, event.tracked {"total":42}`, `delivered: Dear Ada, journey.completed {"journey":"thanks"}`,
	}, lines[1:], "they are of two topics")
	require.Empty(t, errs.String())
}

func TestNewSaysWhatAnOwnKindLacks(t *testing.T) {
	open := func(*storage.Destination, *transport.Guard) (sinks.Sink, error) { return nil, nil }
	whole := sinks.Kind{Name: "mailbox", Records: 1, Bytes: 1024, Open: open}
	_, err := hogstream.New(servingConfig(t), hogstream.WithSinks(whole))
	require.NoError(t, err)
	for want, change := range map[string]func(*sinks.Kind){
		"lower-case letters":           func(k *sinks.Kind) { k.Name = "Mail Box" },
		"there is a kind of that name": func(k *sinks.Kind) { k.Name = "webhook" },
		"Open: is nil":                 func(k *sinks.Kind) { k.Open = nil },
		"Records 0, Bytes 1024":        func(k *sinks.Kind) { k.Records = 0 },
	} {
		kind := whole
		change(&kind)
		_, err := hogstream.New(servingConfig(t), hogstream.WithSinks(kind))
		require.ErrorContains(t, err, want)
	}
	_, err = hogstream.New(servingConfig(t), hogstream.WithSinks(whole), hogstream.WithSinks(whole))
	require.ErrorContains(t, err, "there is a kind of that name")
}

func TestMiddlewareSeesRequestsBeforeKeysAreAskedForTheFirstOutermost(t *testing.T) {
	var seen []string
	named := func(name string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen = append(seen, name+" "+r.URL.Path)
				if r.URL.Path == "/own" {
					w.WriteHeader(http.StatusTeapot)
					return
				}
				next.ServeHTTP(w, r)
			})
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	require.NoError(t, hogstream.RunDev(ctx, devConfig(t), func(r *hogstream.Running) {
		defer stop()
		for path, want := range map[string]int{"/own": http.StatusTeapot, "/v1/contacts/find": http.StatusUnauthorized} {
			seen = nil
			resp, err := http.Get(r.URL + path)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, want, resp.StatusCode)
			require.Equal(t, "outer "+path, seen[0])
			if path != "/own" {
				require.Equal(t, []string{"outer " + path, "inner " + path}, seen)
			}
		}
	}, hogstream.WithMiddleware(named("outer"), named("inner"))))
}

// servingConfig names servers that nobody asks before Run.
func servingConfig(t *testing.T) hogstream.Config {
	t.Helper()
	cfg, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	cfg.Kafka.Brokers, cfg.Registry.URL, cfg.Database.URL = []string{"localhost:9092"}, "http://localhost:8081", "postgres://localhost/hogstream"
	cfg.EncryptionKey, cfg.Instance, cfg.DataDir = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "test", t.TempDir()
	return cfg
}
