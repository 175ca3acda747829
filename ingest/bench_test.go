package ingest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

type nowhere struct{}

func (nowhere) Append(context.Context, ...schemas.Message) error { return nil }

// benchEvent is an event of about a kibibyte.
func benchEvent(i int) string {
	return fmt.Sprintf(`{"name":"page.viewed","userId":"user-%d","timestamp":"2026-01-31T12:00:00.123Z","eventProperties":{"url":"https://shop.example.com/p/%d","price":12.5,"tags":["a","b"],"text":"%s"},"contactProperties":{"plan":"pro","visits":%d}}`,
		i, i, strings.Repeat("lorem ipsum ", 66), i)
}

type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

func benchmark(b *testing.B, path, body string, events int) {
	api, err := New(Config{AdminKey: "bench-key", RateLimit: 1 << 30}, Deps{Appender: nowhere{}, DB: &storage.DB{}})
	require.NoError(b, err)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		reader := strings.NewReader(body)
		w := &discard{h: http.Header{}}
		for pb.Next() {
			reader.Reset(body)
			r := httptest.NewRequest(http.MethodPost, path, reader)
			r.Header.Set("Authorization", "Bearer bench-key")
			r.Header.Set("Content-Type", "application/json")
			clear(w.h)
			api.ServeHTTP(w, r)
		}
	})
	b.ReportMetric(float64(b.N)*float64(events)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkSingleEvent(b *testing.B) { benchmark(b, "/v1/events", benchEvent(1), 1) }

func BenchmarkBatchOf100(b *testing.B) {
	var body bytes.Buffer
	body.WriteString(`{"events":[`)
	for i := range 100 {
		if i > 0 {
			body.WriteByte(',')
		}
		body.WriteString(benchEvent(i))
	}
	body.WriteString(`]}`)
	benchmark(b, "/v1/events/batch", body.String(), 100)
}
