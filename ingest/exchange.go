package ingest

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// exchange is one request and its response: the response writer that handlers
// get, with what the log line and the metrics say about it in the end.
type exchange struct {
	w         http.ResponseWriter
	requestID string
	caller    *Caller
	gzipOK    bool // the client takes gzip

	status   int
	written  int64
	gz       *gzip.Writer
	inputID  string // of a single input
	accepted int    // events
	rejected int
	err      error // why it failed, for the log

	out []byte // the body, while it is written
}

// exchangeOf finds the exchange that exchanges made; nothing of ours wraps it.
func exchangeOf(w http.ResponseWriter) *exchange {
	x, ok := w.(*exchange)
	if !ok {
		panic("ingest: a handler is called outside its router")
	}
	return x
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

// exchanges is around every route: common headers, CORS, compression, the
// request id, the log line, metrics, and the end of panics.
func (a *API) exchanges(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		for name, values := range securityHeaders {
			header[name] = values
		}
		switch foreign := r.URL.Path != metricsPath; {
		case !foreign:
			header.Del("Access-Control-Allow-Origin") // metrics are for no page
		case r.Method == http.MethodOptions && preflight(w, r):
			return
		case r.Header["Origin"] != nil:
			header["Access-Control-Expose-Headers"] = exposedHeaders
		}
		start := time.Now()
		x := &exchange{w: w, requestID: requestID(r), gzipOK: acceptsGzip(r)}
		header["X-Request-Id"] = []string{x.requestID}
		defer func() {
			panicked := recover()
			if panicked != nil && panicked != http.ErrAbortHandler { //nolint:errorlint // the panic's own value
				a.log.Error("http.panic", zap.Any("panic", panicked), zap.String("method", r.Method), zap.String("route", routeOf(r)),
					zap.String("request_id", x.requestID), zap.ByteString("stack", debug.Stack()))
				if x.status == 0 {
					x.fail(http.StatusInternalServerError, "Internal Server Error", "")
				}
			}
			x.finish()
			a.finished(x, r, time.Since(start))
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
func (x *exchange) Header() http.Header { return x.w.Header() }

// Unwrap lets http.ResponseController through.
func (x *exchange) Unwrap() http.ResponseWriter { return x.w }

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
}

// compressFrom is the size of a first write from which on compression pays.
const compressFrom = 1 << 10

// Write implements http.ResponseWriter. Whether the body is compressed is
// decided by its first write: handlers write a body at once.
func (x *exchange) Write(p []byte) (int, error) {
	if x.written == 0 {
		x.begin(len(p))
	}
	x.written += int64(len(p))
	if x.gz != nil {
		return x.gz.Write(p)
	}
	return x.w.Write(p)
}

func (x *exchange) begin(size int) {
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
func (x *exchange) finish() {
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

// json answers with a body that is JSON already.
func (x *exchange) json(status int, body []byte) {
	x.w.Header()["Content-Type"] = jsonType
	x.WriteHeader(status)
	_, _ = x.Write(body) // the client went away
}

// routeOf is the pattern of the route that a request took.
func routeOf(r *http.Request) string { return chi.RouteContext(r.Context()).RoutePattern() }

// finished counts a request and writes its log line.
func (a *API) finished(x *exchange, r *http.Request, took time.Duration) {
	route := routeOf(r)
	if route == "" || strings.Contains(route, "*") && x.status == http.StatusNotFound {
		route = "unmatched"
	}
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetName(r.Method + " " + route)
	}
	a.metrics.request(r.Method, route, x.status, took)
	level := zap.InfoLevel
	if x.status >= 500 {
		level = zap.WarnLevel
	}
	if a.cfg.AccessLog == "off" || a.cfg.AccessLog == "failures" && x.status < 400 {
		return
	}
	line := a.log.Check(level, "http.request")
	if line == nil {
		return
	}
	var room [16]zap.Field
	fields := append(room[:0],
		zap.String("method", r.Method), zap.String("route", route), // a path may name a person
		zap.Int("status", x.status), zap.Float64("duration_ms", float64(took.Microseconds())/1000),
		zap.String("request_id", x.requestID), zap.Int64("bytes_in", r.ContentLength), zap.Int64("bytes_out", x.written))
	if x.caller != nil {
		fields = append(fields, zap.String("key_id", x.caller.ID), zap.String("key_name", x.caller.Name))
	} else {
		fields = append(fields, zap.String("address", a.clientAddress(r)))
	}
	if x.inputID != "" {
		fields = append(fields, zap.String("input_id", x.inputID))
	}
	if x.accepted > 0 || x.rejected > 0 {
		fields = append(fields, zap.Int("accepted", x.accepted), zap.Int("rejected", x.rejected))
	}
	if sc := trace.SpanContextFromContext(r.Context()); sc.IsValid() {
		fields = append(fields, zap.Stringer("trace_id", sc.TraceID()))
	}
	if x.err != nil {
		fields = append(fields, zap.Error(x.err))
	}
	line.Write(fields...)
}

// clientAddress is the address of the client: the nearest one that is no proxy
// of ours.
func (a *API) clientAddress(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr := peer.Addr().Unmap()
	if len(a.cfg.TrustedProxies) == 0 {
		return addr.String()
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !a.isProxy(addr) {
			break
		}
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		addr = next.Unmap()
	}
	return addr.String()
}

func (a *API) isProxy(addr netip.Addr) bool {
	return slices.ContainsFunc(a.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// bounded is the request's context with the deadline of ordinary work.
func (a *API) bounded(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), a.cfg.RequestTimeout)
}
