package ingest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/web"
)

const adminKey = "a-bootstrap-key-for-tests"

// memoryLog is an Appender that keeps copies of the inputs, for a message's
// memory is used again.
type memoryLog struct {
	mu     sync.Mutex
	inputs []*schemas.Input
	// fail, when set, decides what is not confirmed.
	fail func(msgs []schemas.Message) error
	// appended, when set, is told of each input after it was kept.
	appended func(*schemas.Input)
}

func (l *memoryLog) Append(_ context.Context, msgs ...schemas.Message) error {
	if l.fail != nil {
		if err := l.fail(msgs); err != nil {
			return err
		}
	}
	for _, m := range msgs {
		text, err := json.Marshal(m)
		if err != nil {
			return err
		}
		in := &schemas.Input{}
		if err := json.Unmarshal(text, in); err != nil {
			return err
		}
		l.mu.Lock()
		l.inputs = append(l.inputs, in)
		l.mu.Unlock()
		if l.appended != nil {
			l.appended(in)
		}
	}
	return nil
}

func (l *memoryLog) all() []*schemas.Input {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*schemas.Input(nil), l.inputs...)
}

func (l *memoryLog) last(t *testing.T) *schemas.Input {
	t.Helper()
	all := l.all()
	require.NotEmpty(t, all)
	return all[len(all)-1]
}

// server is an API with a log and a database.
type server struct {
	t   *testing.T
	api *ingest.API
	log *memoryLog
	db  *storage.DB
}

func newServer(t *testing.T, change ...func(*ingest.Config, *ingest.Deps)) *server {
	t.Helper()
	s := &server{t: t, log: &memoryLog{}, db: storagetest.New(t)}
	cfg, deps := ingest.Config{AdminKey: adminKey}, ingest.Deps{Appender: s.log, DB: s.db}
	for _, c := range change {
		c(&cfg, &deps)
	}
	api, err := ingest.New(cfg, deps)
	require.NoError(t, err)
	s.api = api
	return s
}

// response is what came back.
type response struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

// do sends a request as it is.
func (s *server) do(r *http.Request) *response {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.api.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	require.NoError(s.t, err)
	return &response{t: s.t, status: w.Code, header: w.Header(), body: body}
}

// request makes a request with the bootstrap key and a JSON body; headers are
// pairs of name and value and win, an empty value removes.
func (s *server) request(method, path, body string, headers ...string) *response {
	s.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(s.t.Context(), method, path, reader)
	r.Header.Set("Authorization", "Bearer "+adminKey)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "-" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	return s.do(r)
}

func (s *server) key(scopes ...string) (*storage.APIKey, string) {
	s.t.Helper()
	key, text, err := s.db.CreateAPIKey(s.t.Context(), storage.NewAPIKey{Name: "test", Scopes: scopes}, time.Now())
	require.NoError(s.t, err)
	return key, text
}

func (r *response) is(status int) *response {
	r.t.Helper()
	require.Equal(r.t, status, r.status, "%s", r.body)
	return r
}

func (r *response) into(v any) {
	r.t.Helper()
	require.NoError(r.t, json.Unmarshal(r.body, v), "%s", r.body)
}

// object is the body as a JSON object.
func (r *response) object() map[string]any {
	r.t.Helper()
	var m map[string]any
	r.into(&m)
	return m
}

// issues are the issues of the validation envelope.
func (r *response) issues() []web.Issue {
	r.t.Helper()
	var body struct {
		Success *bool `json:"success"`
		Error   struct{ Name, Message string }
	}
	r.into(&body)
	require.NotNil(r.t, body.Success, "%s", r.body)
	require.False(r.t, *body.Success)
	require.Equal(r.t, "ZodError", body.Error.Name)
	var issues []web.Issue
	dec := json.NewDecoder(bytes.NewReader([]byte(body.Error.Message)))
	require.NoError(r.t, dec.Decode(&issues))
	return issues
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}
