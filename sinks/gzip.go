package sinks

import (
	"bytes"
	"compress/gzip"
	"sync"
)

// Requests are compressed where the settings ask for it (config.gzip of posthog and
// segment). Not by default: it costs a core some nine milliseconds a megabyte and
// saves four fifths of the traffic, which is worth it or not by where the receiver stands.

// compressFrom is the size below which compressing is not worth its header.
const compressFrom = 1 << 10

// compressor is a writer with the buffer it fills; both are large and used again.
type compressor struct {
	out bytes.Buffer
	w   *gzip.Writer
}

var compressors = sync.Pool{New: func() any {
	c := &compressor{}
	c.w, _ = gzip.NewWriterLevel(&c.out, gzip.BestSpeed) // fails for a wrong level only
	return c
}}

// encode compresses the body of a request that asks for it.
func (r *Request) encode() {
	if !r.Gzip || len(r.Body) < compressFrom {
		return
	}
	c := compressors.Get().(*compressor)
	defer compressors.Put(c)
	c.out.Reset()
	c.w.Reset(&c.out)
	_, _ = c.w.Write(r.Body) // into memory
	_ = c.w.Close()
	r.Body = bytes.Clone(c.out.Bytes())
	r.Header["Content-Encoding"] = []string{"gzip"}
}
