package hogstream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func devConfig(t *testing.T) hogstream.Config {
	t.Helper()
	cfg, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	cfg.DataDir = reachableDir(t)
	cfg.HTTP.Addr, cfg.HTTP.Port = "", 0
	cfg.Log.Level = "warn"
	return cfg
}

// reachableDir is a temporary directory that Postgres can reach also when the
// tests run as root and it runs as another user.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hogstream-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o711))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// inDev runs f while a developer's instance runs on cfg, and expects it to stop cleanly.
func inDev(t *testing.T, cfg hogstream.Config, f func(*hogstream.Running), with ...hogstream.Option) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	reached := false
	err := hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop()
		reached = true
		f(r)
	}, with...)
	require.NoError(t, err)
	require.True(t, reached, "the instance must become ready within a minute")
}

func TestADevelopersInstanceWithoutProcessorsHasThemRebuilt(t *testing.T) {
	cfg := devConfig(t)
	cfg.Roles = []hogstream.Role{hogstream.RoleIngest, hogstream.RoleSinks}
	inDev(t, cfg, func(r *hogstream.Running) {
		at := cfg
		at.Kafka.Brokers, at.Registry.URL, at.Database.URL = r.Brokers, r.Registry, r.Database
		at.EncryptionKey, at.Kafka.Partitions = r.EncryptionKey, r.Partitions
		require.NoError(t, at.Rebuild(t.Context(), "contacts", func(int) {}))
	})
}

func TestADevelopersInstanceDescribesItselfAndItsStateSurvivesARestart(t *testing.T) {
	cfg := devConfig(t)
	var key string
	inDev(t, cfg, func(r *hogstream.Running) {
		key = r.APIKey
		require.Regexp(t, `^http://127\.0\.0\.1:\d+$`, r.URL, "it listens on loopback alone unless told otherwise")
		resp, err := http.Get(r.URL + "/openapi.json")
		require.NoError(t, err)
		defer resp.Body.Close()
		var doc struct {
			OpenAPI string         `json:"openapi"`
			Paths   map[string]any `json:"paths"`
		}
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&doc))
		require.Equal(t, "3.1.0", doc.OpenAPI)
		require.Contains(t, doc.Paths, "/v1/events/batch")
		require.Contains(t, doc.Paths, "/v1/admin/webhooks")

		other := cfg
		err = hogstream.RunDev(t.Context(), other, func(*hogstream.Running) {})
		require.ErrorContains(t, err, "is held by process", "a second instance on the directory says who holds it")
	})
	inDev(t, cfg, func(r *hogstream.Running) {
		require.Equal(t, key, r.APIKey)
	})
}

func TestATraceGoesFromTheRequestThroughKafkaToTheDelivery(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	otel.SetTracerProvider(provider)
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })

	receiver, err := sinktest.New(sinktest.Options{Keep: 10})
	require.NoError(t, err)
	hook, err := receiver.Start("127.0.0.1:0")
	require.NoError(t, err)
	defer receiver.Close()

	const trace = "0af7651916cd43dd8448eb211c80319c"
	inDev(t, devConfig(t), func(r *hogstream.Running) {
		call(t, r, "/v1/admin/webhooks", "", `{"url":"`+hook+`","eventTypes":["contact.created","event.tracked"]}`, 201)
		call(t, r, "/v1/events", "00-"+trace+"-b7ad6b7169203331-01", `{"name":"clicked","userId":"u1"}`, 202)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		require.NoError(t, receiver.Wait(ctx, func(s sinktest.Stats) bool { return s.Taken >= 2 }))
	})
	for _, m := range receiver.Messages() {
		require.Contains(t, m.Header.Get("Traceparent"), trace, "the receiver can go on with the trace")
	}
	names := map[string]int{}
	for _, s := range spans.GetSpans() {
		if s.SpanContext.TraceID().String() == trace {
			names[s.Name]++
		}
	}
	require.Equal(t, 1, names["POST /v1/events"], "%v", names)
	require.Equal(t, 1, names["process identity"], "%v", names)
	require.Equal(t, 1, names["process contacts"], "%v", names)
	require.Equal(t, 2, names["deliver webhook"], "%v", names)
}

// call posts a body and expects a status.
func call(t *testing.T, r *hogstream.Running, path, traceparent, body string, status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+r.APIKey)
	req.Header.Set("Content-Type", "application/json")
	if traceparent != "" {
		req.Header.Set("Traceparent", traceparent)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, status, resp.StatusCode, "%s", answer)
}

func TestAProcessThatPlaysNoIngestServesItsHealthAndMetricsAndNothingElse(t *testing.T) {
	inDev(t, devConfig(t), func(r *hogstream.Running) {
		for _, role := range []hogstream.Role{hogstream.RoleSinks, hogstream.RoleProcessors} {
			cfg := devConfig(t)
			r.FillIn(&cfg)
			cfg.Roles, cfg.Instance = []hogstream.Role{role}, "worker-"+string(role)
			app, err := hogstream.New(cfg)
			require.NoError(t, err)
			ctx, stop := context.WithCancel(t.Context())
			addr, done := make(chan net.Addr, 1), make(chan error, 1)
			go func() {
				done <- app.Run(ctx, func(a net.Addr) error { addr <- a; return nil })
			}()
			var at net.Addr
			select {
			case at = <-addr:
			case err := <-done:
				t.Fatalf("%s ended: %v", role, err)
			}
			get := func(path string) (int, string) {
				resp, err := http.Get("http://" + at.String() + path)
				require.NoError(t, err)
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				return resp.StatusCode, string(body)
			}
			for path, want := range map[string]string{
				"/v1/health/live": `"live"`, "/v1/health/ready": `"ready"`, "/v1/health": `"identity":{"lag":`,
			} {
				require.EventuallyWithT(t, func(c *assert.CollectT) {
					status, body := get(path)
					assert.Equal(c, http.StatusOK, status, "%s: %s", path, body)
					assert.Contains(c, body, want, path)
				}, 20*time.Second, 200*time.Millisecond)
			}
			status, _ := get("/metrics")
			require.Equal(t, http.StatusUnauthorized, status)
			for _, path := range []string{"/v1/events", "/v1/contacts/find?userId=u", "/v1/admin/webhooks", "/docs"} {
				status, body := get(path)
				require.Equal(t, http.StatusNotFound, status, "%s: %s", path, body)
			}
			stop()
			require.NoError(t, <-done)
		}
	})
}

func TestDevStopsWithinFiveSecondsAlthoughAReceiverHangs(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Do(func() { close(asked) })
		<-release
	}))
	defer receiver.Close()
	defer close(release)
	var stopping time.Time
	inDev(t, devConfig(t), func(r *hogstream.Running) {
		call(t, r, "/v1/admin/webhooks", "", `{"url":"`+receiver.URL+`","eventTypes":["*","event.tracked"]}`, 201)
		for _, user := range []string{"a", "b", "c", "d"} {
			call(t, r, "/v1/events", "", `{"name":"n","userId":"`+user+`"}`, 202)
		}
		select {
		case <-asked:
		case <-time.After(30 * time.Second):
			t.Error("nothing was delivered")
		}
		stopping = time.Now()
	})
	require.Less(t, time.Since(stopping), 5*time.Second)
}

// A connection to Postgres that broke while the schema was looked at ended the process.
func TestAStartSurvivesAConnectionThatBreaks(t *testing.T) {
	cfg := devConfig(t)
	var cut atomic.Bool
	cfg.Database.URL = breakingOnce(t, storagetest.NewServer(t).URL(), "schema_versions", &cut)
	inDev(t, cfg, func(*hogstream.Running) {})
	require.True(t, cut.Load(), "no connection was cut")
}

// breakingOnce stands before a Postgres and ends the first connection on which a
// client says word.
func breakingOnce(t *testing.T, database, word string, cut *atomic.Bool) (url string) {
	t.Helper()
	behind, err := pgx.ParseConfig(database)
	require.NoError(t, err)
	network, address := pgconn.NetworkAddress(behind.Host, behind.Port)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(network, address)
			if err != nil {
				_ = client.Close()
				return
			}
			pass := func(to, from net.Conn, heard func([]byte) bool) {
				defer to.Close()
				defer from.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := from.Read(buf)
					if err != nil || heard(buf[:n]) {
						return
					}
					if _, err := to.Write(buf[:n]); err != nil {
						return
					}
				}
			}
			go pass(client, server, func([]byte) bool { return false })
			go pass(server, client, func(said []byte) bool {
				return bytes.Contains(said, []byte(word)) && cut.CompareAndSwap(false, true)
			})
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", behind.User, behind.Password, port, behind.Database)
}

// Health was green while partitions waited for an operator.
func TestHealthSaysThatPartitionsWaitForAnOperator(t *testing.T) {
	cfg := devConfig(t)
	inDev(t, cfg, func(r *hogstream.Running) {
		for _, user := range []string{"a", "b", "c", "d"} {
			call(t, r, "/v1/events", "", `{"name":"n","userId":"`+user+`","idempotencyKey":"k"}`, 202) // waits for identity
		}
	})
	cfg.Database.URL = storagetest.NewServer(t).URL() // its database is lost
	inDev(t, cfg, func(r *hogstream.Running) {
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			resp, err := http.Get(r.URL + "/v1/health")
			require.NoError(c, err)
			defer resp.Body.Close()
			var report struct {
				Status     string
				Components map[string]struct{ Status, Detail string }
			}
			require.NoError(c, json.NewDecoder(resp.Body).Decode(&report))
			require.Equal(c, http.StatusServiceUnavailable, resp.StatusCode)
			require.Equal(c, "degraded", report.Status)
			require.Equal(c, "down", report.Components["processor identity"].Status)
			require.Contains(c, report.Components["processor identity"].Detail, "wait for an operator")
		}, 30*time.Second, 200*time.Millisecond)
	})
}
