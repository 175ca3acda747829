package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/hogstream/hogstream/schemas/document"
)

// ReadJSON reads a JSON body of at most limit bytes, counted after decompression. The
// error is a *RefusalError. That the body is JSON is for the caller to see.
func ReadJSON(x *Exchange, r *http.Request, limit int) (string, error) {
	if err := requireJSON(r); err != nil {
		return "", err
	}
	body, err := readBody(x, r, limit)
	if err == nil && len(body) == 0 {
		err = Refuse(http.StatusBadRequest, FailureBody{Error: MalformedJSON, Detail: "the body is empty", Fix: "send a JSON object"})
	}
	return string(body), err
}

// readBody reads a body of at most limit bytes, also a compressed one.
func readBody(x *Exchange, r *http.Request, limit int) ([]byte, error) {
	tooLarge := Refuse(http.StatusRequestEntityTooLarge, FailureBody{Error: fmt.Sprintf("Request body is larger than %d bytes", limit), Fix: "send less in one request"})
	var body []byte
	var err error
	switch strings.ToLower(r.Header.Get("Content-Encoding")) { // names of codings have no case
	case "", "identity":
		if r.ContentLength > int64(limit) {
			return nil, tooLarge
		}
		body, err = readAll(r.Body, limit, r.ContentLength)
		if err != nil && !errors.Is(err, errTooLarge) {
			err = Refuse(http.StatusBadRequest, FailureBody{Error: "The request body could not be read to its end", Fix: "send the body within 30 seconds"})
		}
	case "gzip", "x-gzip":
		body, err = gunzip(http.MaxBytesReader(x.w, r.Body, int64(limit)), limit)
		if err != nil && !errors.Is(err, errTooLarge) {
			err = Refuse(http.StatusBadRequest, FailureBody{Error: "The request body is not gzip", Fix: "send what Content-Encoding says"})
		}
	default:
		return nil, Refuse(http.StatusUnsupportedMediaType, FailureBody{Error: "Unsupported Content-Encoding", Fix: "send the body as gzip or without encoding"})
	}
	if errors.Is(err, errTooLarge) {
		err = tooLarge
	}
	return body, err
}

func gunzip(from io.Reader, limit int) ([]byte, error) {
	gz, err := gzip.NewReader(from)
	if err != nil {
		return nil, orTooLarge(err)
	}
	body, err := readAll(gz, limit, -1)
	return body, orTooLarge(err)
}

// orTooLarge tells a packed body that is too large already.
func orTooLarge(err error) error {
	var packed *http.MaxBytesError
	if errors.As(err, &packed) {
		return errTooLarge
	}
	return err
}

var errTooLarge = errors.New("body too large")

// startSize is how much memory a body gets before any of it has come.
const startSize = 64 << 10

// readAll reads at most limit bytes; size is how many the sender says there are, -1
// when it does not.
func readAll(from io.Reader, limit int, size int64) ([]byte, error) {
	var body bytes.Buffer
	if size > 0 {
		body.Grow(int(min(size, startSize)) + bytes.MinRead)
	}
	n, err := body.ReadFrom(io.LimitReader(from, int64(limit)+1))
	if err == nil && n > int64(limit) {
		err = errTooLarge
	}
	return body.Bytes(), err
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
		return Refuse(http.StatusUnsupportedMediaType, FailureBody{Error: "Content-Type must be application/json", Fix: "send Content-Type: application/json, in UTF-8"})
	}
	return nil
}

// MalformedJSON is the text of the failure of a body that is not JSON.
const MalformedJSON = "Malformed JSON in request body"

// Malformed is the failure of a body that is not JSON, near a field.
func Malformed(err error, field string) error {
	f := Refuse(http.StatusBadRequest, FailureBody{Error: MalformedJSON, Fix: "send valid JSON in UTF-8"})
	var doc *document.Error
	if errors.As(err, &doc) {
		f.Body.Detail = fmt.Sprintf("%s (at byte %d)", doc.Reason, doc.Offset)
	}
	if field != "" {
		f.Body.Path = []any{strings.ToValidUTF8(field, "�")}
	}
	return f
}
