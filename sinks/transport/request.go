package transport

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/url"
)

// Request is a POST to be made. Header belongs to the attempt: what all of them
// say (User-Agent, Hogstream-Replay) is added to it. Body is only read.
type Request struct {
	URL    *url.URL
	Header http.Header
	Body   []byte
	// Notes say, by the index of a payload, what of it the request does not carry. They
	// are for the delivery log.
	Notes map[int]string
	// Gzip has Compress compress the body, unless it is small.
	Gzip bool
}

// Note adds to Notes; an empty text says nothing.
func (r *Request) Note(payload int, text string) {
	switch {
	case text == "":
	case r.Notes == nil:
		r.Notes = map[int]string{payload: text}
	case r.Notes[payload] == "":
		r.Notes[payload] = text
	default:
		r.Notes[payload] += "; " + text
	}
}

// outgoing is the request as net/http sends it.
func (r *Request) outgoing(ctx context.Context) *http.Request {
	out := &http.Request{
		Method: http.MethodPost, URL: r.URL, Host: r.URL.Host, Header: r.Header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if len(r.Body) > 0 {
		out.ContentLength = int64(len(r.Body))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil }
		out.Body = io.NopCloser(bytes.NewReader(r.Body))
	}
	return out.WithContext(ctx)
}

// Requests are compressed where the settings ask for it (config.gzip of posthog and
// segment). Not by default: it costs a core some nine milliseconds a megabyte and
// saves four fifths of the traffic, which is worth it or not by where the receiver stands.

// compressFrom is the size below which compressing is not worth its header.
const compressFrom = 1 << 10

// Compress compresses the body of a request that asks for it. It is called once.
func (r *Request) Compress() {
	if !r.Gzip || len(r.Body) < compressFrom {
		return
	}
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // fails for a wrong level only
	_, _ = w.Write(r.Body)                            // into memory
	_ = w.Close()
	r.Body = out.Bytes()
	r.Header["Content-Encoding"] = []string{"gzip"}
}
