package web

import (
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
)

// Exchange is one request and its response: the response writer that handlers
// get, with what the log line and the metrics say about it in the end. It belongs to
// the goroutine of its request.
type Exchange struct {
	RequestID string
	Caller    *Caller // nil while nobody showed a key
	InputID   string  // of a single input
	Accepted  int     // events
	Rejected  int
	Err       error // why it failed, for the log

	edge    *Edge
	w       http.ResponseWriter
	gzipOK  bool // the client takes gzip
	status  int
	written int64
	gz      *gzip.Writer
}

// ExchangeOf finds the exchange that [Edge.Exchanges] made; nothing of ours wraps it.
func ExchangeOf(w http.ResponseWriter) *Exchange {
	x, ok := w.(*Exchange)
	if !ok {
		panic("web: a handler is called outside its edge")
	}
	return x
}

// Handle makes a handler of an exchange one of net/http's.
func Handle(h func(*Exchange, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { h(ExchangeOf(w), r) }
}

// Values that are the same on every response, shared by all of them.
var securityHeaders = func() map[string][]string {
	h := map[string][]string{}
	for name, value := range map[string]string{
		"Cross-Origin-Opener-Policy":        "same-origin",
		"Cross-Origin-Resource-Policy":      "same-origin",
		"Origin-Agent-Cluster":              "?1",
		"Referrer-Policy":                   "no-referrer",
		"Strict-Transport-Security":         "max-age=15552000; includeSubDomains",
		"X-Content-Type-Options":            "nosniff",
		"X-Dns-Prefetch-Control":            "off",
		"X-Download-Options":                "noopen",
		"X-Frame-Options":                   "SAMEORIGIN",
		"X-Permitted-Cross-Domain-Policies": "none",
		"X-Xss-Protection":                  "0",
		"Access-Control-Allow-Origin":       "*",
	} {
		h[name] = []string{value}
	}
	return h
}()

var jsonType = []string{"application/json"}

// exposedHeaders may be read by scripts of other origins. Browsers name the
// origin in each such request; nobody else needs to be told.
var exposedHeaders = []string{"X-Request-Id, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, RateLimit-Policy"}

// Exchanges is around every route: common headers, CORS, compression, the
// request id, the log line, metrics, and the end of panics.
func (e *Edge) Exchanges(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		for name, values := range securityHeaders {
			header[name] = values
		}
		switch foreign := r.URL.Path != MetricsPath; {
		case !foreign:
			header.Del("Access-Control-Allow-Origin") // metrics are for no page
		case r.Method == http.MethodOptions && preflight(w, r):
			return
		case r.Header["Origin"] != nil:
			header["Access-Control-Expose-Headers"] = exposedHeaders
		}
		start := time.Now()
		x := &Exchange{edge: e, w: w, RequestID: requestID(r), gzipOK: acceptsGzip(r)}
		header["X-Request-Id"] = []string{x.RequestID}
		defer func() {
			panicked := recover()
			if panicked != nil && panicked != http.ErrAbortHandler { //nolint:errorlint // the panic's own value
				e.log.Error("http.panic", zap.String("panic", schemas.PanicText(panicked)), zap.String("method", methodOf(r)), zap.String("route", routeOf(r)),
					zap.String("request_id", x.RequestID), zap.ByteString("stack", debug.Stack()))
				if x.status == 0 {
					x.Fail(http.StatusInternalServerError, "Internal Server Error", "")
				}
			}
			x.finish()
			e.finished(x, r, time.Since(start))
			if panicked == http.ErrAbortHandler { //nolint:errorlint // the panic's own value
				panic(panicked)
			}
		}()
		next.ServeHTTP(x, r)
	})
}

// preflight answers a CORS preflight request; it has no request id.
func preflight(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Origin") == "" && r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET,HEAD,PUT,POST,DELETE,PATCH")
	if wanted := r.Header.Get("Access-Control-Request-Headers"); wanted != "" {
		h.Set("Access-Control-Allow-Headers", wanted)
		h.Add("Vary", "Access-Control-Request-Headers")
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}

// requestID keeps the sender's id when it is a plain word, else makes one.
func requestID(r *http.Request) string {
	if given := r.Header["X-Request-Id"]; len(given) > 0 && plainWord(given[0]) {
		return given[0]
	}
	var id uuid.UUID // a name for logs, not a secret
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id.String()
}

func plainWord(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '=') {
			return false
		}
	}
	return true
}

func acceptsGzip(r *http.Request) bool {
	for _, line := range r.Header["Accept-Encoding"] {
		for part := range strings.SplitSeq(line, ",") {
			name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
			if name == "gzip" && strings.ReplaceAll(q, " ", "") != "q=0" {
				return true
			}
		}
	}
	return false
}

// Header implements http.ResponseWriter.
func (x *Exchange) Header() http.Header { return x.w.Header() }

// Unwrap lets http.ResponseController through.
func (x *Exchange) Unwrap() http.ResponseWriter { return x.w }

// WriteHeader implements http.ResponseWriter.
func (x *Exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
}

// compressFrom is the size of a first write from which on compression pays.
const compressFrom = 1 << 10

// Write implements http.ResponseWriter. Whether the body is compressed is
// decided by its first write: handlers write a body at once.
func (x *Exchange) Write(p []byte) (int, error) {
	if x.written == 0 {
		x.begin(len(p))
	}
	x.written += int64(len(p))
	if x.gz != nil {
		return x.gz.Write(p)
	}
	return x.w.Write(p)
}

func (x *Exchange) begin(size int) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	h := x.w.Header()
	if size >= compressFrom {
		h.Add("Vary", "Accept-Encoding")
		if x.gzipOK && h.Get("Content-Encoding") == "" {
			h.Set("Content-Encoding", "gzip")
			h.Del("Content-Length")
			x.gz, _ = gzip.NewWriterLevel(x.w, gzip.BestSpeed) // the level is one of the package's
		}
	}
	x.w.WriteHeader(x.status)
}

// finish sends what is still to be sent.
func (x *Exchange) finish() {
	if x.written == 0 {
		if x.status == 0 {
			x.status = http.StatusOK
		}
		x.w.WriteHeader(x.status)
	}
	if x.gz != nil {
		_ = x.gz.Close() // the client went away
	}
}

// JSON answers with a body that is JSON already.
func (x *Exchange) JSON(status int, body []byte) {
	x.w.Header()["Content-Type"] = jsonType
	x.WriteHeader(status)
	_, _ = x.Write(body) // the client went away
}

// Page answers with a page of ours, which loads nothing and runs nothing.
func (x *Exchange) Page(html []byte) {
	h := x.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write(html) // the client went away
}
