package ingest

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"unsafe"

	"github.com/klauspost/compress/gzip"

	"github.com/hogstream/hogstream/schemas"
)

// Limits of bodies, in bytes after decompression.
const (
	maxBatchBody   = 5 << 20
	maxBatch       = 1000 // events
	maxContactBody = schemas.MaxProperties + 16<<10
	maxDeleteBody  = 16 << 10
)

// readBody reads a JSON body of at most limit bytes into buf, which it returns,
// possibly grown. The error is a *failure.
func readBody(x *exchange, r *http.Request, buf []byte, limit int) ([]byte, error) {
	if err := requireJSON(r); err != nil {
		return buf, err
	}
	var from io.Reader = r.Body
	tooLarge := &failure{http.StatusRequestEntityTooLarge, failureBody{Error: fmt.Sprintf("Request body is larger than %d bytes", limit), Fix: "send less in one request"}}
	switch strings.ToLower(r.Header.Get("Content-Encoding")) { // names of codings have no case
	case "", "identity":
		if r.ContentLength > int64(limit) {
			return buf, tooLarge
		}
		if n := int(r.ContentLength); n >= cap(buf) {
			buf = make([]byte, 0, n+1) // room to see the end
		}
	case "gzip", "x-gzip":
		gz, err := gunzip(http.MaxBytesReader(x.w, r.Body, int64(limit)))
		if err != nil {
			return buf, badGzip(err, tooLarge)
		}
		defer gunzipPool.Put(gz)
		from = gz
	default:
		return buf, &failure{http.StatusUnsupportedMediaType, failureBody{Error: "Unsupported Content-Encoding", Fix: "send the body as gzip or without encoding"}}
	}
	buf, err := readAll(buf[:0], from, limit)
	switch {
	case errors.Is(err, errTooLarge):
		return buf, tooLarge
	case err != nil && from != r.Body:
		return buf, badGzip(err, tooLarge)
	case err != nil:
		return buf, &failure{http.StatusBadRequest, failureBody{Error: "The request body could not be read to its end", Fix: "send the body within 30 seconds"}}
	case len(buf) == 0:
		return buf, &failure{http.StatusBadRequest, failureBody{Error: malformedJSON, Detail: "the body is empty", Fix: "send a JSON object"}}
	}
	return buf, nil
}

func badGzip(err error, tooLarge *failure) error {
	var limit *http.MaxBytesError
	if errors.As(err, &limit) {
		return tooLarge
	}
	return &failure{http.StatusBadRequest, failureBody{Error: "The request body is not gzip", Fix: "send what Content-Encoding says"}}
}

var gunzipPool sync.Pool

func gunzip(from io.Reader) (*gzip.Reader, error) {
	if gz, ok := gunzipPool.Get().(*gzip.Reader); ok {
		if err := gz.Reset(from); err != nil {
			gunzipPool.Put(gz)
			return nil, err
		}
		return gz, nil
	}
	return gzip.NewReader(from)
}

var errTooLarge = errors.New("body too large")

func readAll(buf []byte, from io.Reader, limit int) ([]byte, error) {
	for {
		if len(buf) > limit {
			return buf, errTooLarge
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := from.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			if len(buf) > limit {
				return buf, errTooLarge
			}
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// requireJSON refuses a body that is not said to be JSON: it would be ignored by
// what clients know, and fail in stranger ways.
func requireJSON(r *http.Request) error {
	given := r.Header.Get("Content-Type")
	if given == "application/json" {
		return nil
	}
	kind, params, err := mime.ParseMediaType(given)
	isJSON := kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")
	if charset := params["charset"]; err != nil || !isJSON || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return &failure{http.StatusUnsupportedMediaType, failureBody{Error: "Content-Type must be application/json", Fix: "send Content-Type: application/json, in UTF-8"}}
	}
	return nil
}

const malformedJSON = "Malformed JSON in request body"

// malformed is the failure of a body that is not JSON, near a field.
func malformed(err error, field string) error {
	f := &failure{http.StatusBadRequest, failureBody{Error: malformedJSON, Fix: "send valid JSON in UTF-8"}}
	var doc *schemas.DocumentError
	if errors.As(err, &doc) {
		f.body.Detail = fmt.Sprintf("%s (at byte %d)", doc.Reason, doc.Offset)
	}
	if field != "" {
		f.body.Path = []any{strings.ToValidUTF8(field, "�")}
	}
	return f
}

// asText lets a body be cut into strings without copying. Nobody writes to it
// before it is used again, and nobody keeps a string of it that long.
func asText(body []byte) string { return unsafe.String(unsafe.SliceData(body), len(body)) }
