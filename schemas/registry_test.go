package schemas

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"go.uber.org/zap"
)

func newRegistry(t *testing.T, cfg RegistryConfig) *Registry {
	t.Helper()
	r, err := NewRegistry(cfg)
	require.NoError(t, err)
	return r
}

func fakeRegistry(t *testing.T, opts ...srfake.Option) *srfake.Registry {
	t.Helper()
	fake := srfake.New(opts...)
	t.Cleanup(fake.Close)
	return fake
}

// answer is an interceptor's way to say no.
func answer(w http.ResponseWriter, status int, body string) bool {
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
	return true
}

func TestRegisterGivesEverySubjectTheStrictestLevelBeforeItsSchema(t *testing.T) {
	fake := fakeRegistry(t)
	var mu sync.Mutex
	var writes []string
	fake.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			mu.Lock()
			defer mu.Unlock()
			writes = append(writes, r.Method+" "+r.URL.Path)
		}
		return false
	})
	fake.SeedSchema("taken", 1, 41, sr.Schema{Schema: `"string"`})
	r := newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}, Prefix: "hogstream."})
	require.NoError(t, r.Ping(t.Context()))
	require.NoError(t, r.Register(t.Context()))
	require.Equal(t, []string{"PUT /config/hogstream.ingest-value", "POST /subjects/hogstream.ingest-value/versions"}, writes[:2])
	require.Len(t, writes, 2*len(Topics()))
	for i, topic := range Topics() {
		got, ok := fake.GetSchema(Subject("hogstream.", topic.Topic), 1)
		require.True(t, ok)
		require.Equal(t, 42+i, got.ID)
	}
	value, err := r.Codec().Encode(sampleEvent())
	require.NoError(t, err)
	require.Equal(t, []byte{0, 0, 0, 0, 44}, value[:5])
	got, err := r.Codec().DecodeEvent(value)
	require.NoError(t, err)
	require.Equal(t, sampleEvent(), got)

	// A second start changes nothing.
	writes = nil
	require.NoError(t, r.Register(t.Context()))
	require.Len(t, writes, len(Topics()))
}

func TestRegisterSetsTheLevelAfterwardsWhereASubjectMustExistFirst(t *testing.T) {
	fake := fakeRegistry(t)
	fake.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		subject, put := strings.CutPrefix(r.URL.Path, "/config/")
		if !put || r.Method != http.MethodPut || fake.SubjectExists(subject) {
			return false
		}
		return answer(w, 404, `{"error_code":40401,"message":"no such subject"}`)
	})
	r := newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}})
	require.NoError(t, r.Register(t.Context()))
	for _, topic := range Topics() {
		require.Equal(t, sr.CompatFullTransitive, r.client.Compatibility(t.Context(), Subject("", topic.Topic))[0].Level)
	}
}

func TestRegisterWaitsForARegistryThatIsDown(t *testing.T) {
	fake := fakeRegistry(t)
	var refused atomic.Int32
	fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		if refused.Add(1) > 4 {
			return false
		}
		return answer(w, 503, `starting`)
	})
	var seen []error
	r := newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}, Retrying: func(err error, _ time.Duration) { seen = append(seen, err) }})
	require.NoError(t, r.Register(t.Context()))
	require.NotEmpty(t, seen)
	require.ErrorIs(t, seen[0], ErrRegistryUnavailable)
}

func TestThatAnotherInstanceRegistersTheSameIsNoOutage(t *testing.T) {
	fake := fakeRegistry(t)
	var asked atomic.Int32
	fake.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || asked.Add(1) > 2 {
			return false
		}
		return answer(w, 409, `{"error_code":409,"message":"An artifact with ID 'x' already exists."}`)
	})
	var seen []error
	r := newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}, Retrying: func(err error, _ time.Duration) { seen = append(seen, err) }})
	require.NoError(t, r.Register(t.Context()))
	require.Greater(t, asked.Load(), int32(2))
	require.Empty(t, seen, "two processes that start together warn of nothing")
}

func TestAnIncompatibleSchemaEndsRegistrationWithTheSubjectAndTheReason(t *testing.T) {
	fake := fakeRegistry(t)
	fake.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/subjects/hogstream.events-value/versions" {
			return false
		}
		return answer(w, 409, `{"error_code":409,"message":"READER_FIELD_MISSING_DEFAULT_VALUE: hops"}`)
	})
	r := newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}, Prefix: "hogstream."})
	err := r.Register(t.Context())
	require.ErrorIs(t, err, ErrIncompatible)
	require.ErrorContains(t, err, "hogstream.events-value")
	require.ErrorContains(t, err, "READER_FIELD_MISSING_DEFAULT_VALUE: hops")
}

func TestTwoInstancesThatRegisterAtOnceBothSucceed(t *testing.T) {
	fake, raced := fakeRegistry(t), false
	fake.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if raced || r.Method != http.MethodPut || r.URL.Path != "/config/hogstream.events-value" {
			return false
		}
		raced = true
		return answer(w, 409, `{"error_code":409,"message":"A rule named 'COMPATIBILITY' already exists."}`)
	})
	require.NoError(t, newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}, Prefix: "hogstream."}).Register(t.Context()))
	require.True(t, raced)
}

func TestARefusedClientIsToldSoAtOnce(t *testing.T) {
	fake := fakeRegistry(t, srfake.WithAuth("Basic dTpw"))
	err := newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}}).Register(t.Context())
	require.ErrorContains(t, err, "401")
	require.NotErrorIs(t, err, ErrRegistryUnavailable)
	require.NoError(t, newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}, User: "u", Password: "p"}).Register(t.Context()))
}

func TestAnUnknownIDIsAskedForOnceAndAnOutageIsNoVerdict(t *testing.T) {
	fake := fakeRegistry(t)
	r := newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}})
	require.NoError(t, r.Register(t.Context()))
	var asked, down atomic.Int32
	fake.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasPrefix(req.URL.Path, "/schemas/ids/") {
			return false
		}
		asked.Add(1)
		return down.Load() == 1 && answer(w, 502, `bad gateway`)
	})
	stranger := []byte{0, 0, 0, 0, 99, 0}
	down.Store(1)
	_, err := r.Codec().DecodeEvent(stranger)
	require.ErrorIs(t, err, ErrRegistryUnavailable)
	require.NotErrorIs(t, err, ErrUndecodable)
	down.Store(0)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := r.Codec().DecodeEvent(stranger); !errors.Is(err, ErrUndecodable) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	_, err = r.Codec().DecodeEvent(stranger)
	require.ErrorContains(t, err, "unknown schema id 99")
	// One for the outage; the rest met in one flight or found the answer kept.
	require.Less(t, asked.Load(), int32(10))
}

func TestAForeignRecordIsUndecodable(t *testing.T) {
	fake := fakeRegistry(t)
	fake.SeedSchema("x", 1, 7, sr.Schema{Schema: `{"type":"record","name":"Event","namespace":"elsewhere","fields":[]}`})
	fake.SeedSchema("x", 2, 8, sr.Schema{Schema: `"string"`})
	fake.SeedSchema("x", 3, 9, sr.Schema{Schema: `{}`, Type: sr.TypeJSON})
	fake.SeedSchema("x", 4, 10, sr.Schema{Schema: `{"type":"record","name":"Event","namespace":"hogstream","fields":[{"name":"id","type":"int"}]}`})
	fake.SeedSchema("x", 5, 11, sr.Schema{Schema: `{"type":"record","name":"Event","namespace":"hogstream","fields":[{"name":"id","type":["null","Event"]}]}`})
	r := newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}})
	for id, reason := range map[byte]string{7: "elsewhere.Event", 8: "not a record", 9: "self-contained Avro", 10: "not compatible", 11: "recursive"} {
		_, err := r.Codec().DecodeEvent([]byte{0, 0, 0, 0, id, 0})
		require.ErrorIs(t, err, ErrUndecodable)
		require.ErrorContains(t, err, reason)
	}
}

func TestBeforeRegistrationEncodingIsAnOutage(t *testing.T) {
	r := newRegistry(t, RegistryConfig{URLs: []string{"http://127.0.0.1:1"}})
	_, err := r.Codec().Encode(sampleEvent())
	require.ErrorIs(t, err, ErrRegistryUnavailable)
}

// A registry with a certificate of a private CA could not be used.
func TestARegistryBehindAPrivateCAIsTrustedByItsFile(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"compatibilityLevel":"FULL_TRANSITIVE"}`))
	}))
	t.Cleanup(server.Close)
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	require.ErrorIs(t, newRegistry(t, RegistryConfig{URLs: []string{server.URL}}).Ping(t.Context()), ErrRegistryUnavailable)

	var certificate *tls.CertificateVerificationError
	err := newRegistry(t, RegistryConfig{URLs: []string{server.URL}}).Register(t.Context())
	require.ErrorAs(t, err, &certificate, "no waiting mends it")
	require.NotErrorIs(t, err, ErrRegistryUnavailable)

	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	require.NoError(t, newRegistry(t, RegistryConfig{URLs: []string{server.URL}, TLSCAFile: file}).Ping(t.Context()))

	require.NoError(t, os.WriteFile(file, []byte("nothing"), 0o600))
	_, err = NewRegistry(RegistryConfig{URLs: []string{server.URL}, TLSCAFile: file})
	require.ErrorContains(t, err, "has no PEM certificate")
	_, err = NewRegistry(RegistryConfig{URLs: []string{server.URL}, TLSCAFile: file + ".not"})
	require.ErrorIs(t, err, os.ErrNotExist)
}
