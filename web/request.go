package web

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
)

// What bounds a checked request: its body in bytes, and its handler's time, of which a
// test of a destination takes the most.
const (
	maxBody     = 1 << 20
	handlerTime = 25 * time.Second
)

// Request is a request that holds nothing but what its route takes.
type Request struct {
	*http.Request
	Exchange *Exchange
	// ID is {id} of the path, a UUID; empty where the route's Params say that it is
	// something else.
	ID string

	sent map[string]string // what is good of the fields or parameters, as JSON
}

// Handler is a function that answers a request, with the types of what it takes and
// answers. Its body is answered with the route's Status, or as [Answered] says. Errors
// are answered as [Exchange.FailErr] does; ErrNotFound and that of storage are 404 with
// the route's NotFound.
type Handler struct {
	in, out reflect.Type
	body    bool
	call    func(r *Request, in any) (any, error)
}

// Body makes a handler that takes the fields of a body. In is a struct; its tags say what
// there is (json), what is needed (no omitempty, or required), and what is allowed
// (minLength, maxLength, minimum, maximum, minItems, enum, nullable, default), and are
// what the description says. What a tag cannot say, a method `Check() IssuesError` of *In
// does. Times are in UTC.
func Body[In, Out any](h func(*Request, *In) (Out, error)) Handler { return handler(h, true) }

// Query makes a handler that takes the parameters of a query, by tags as [Body]; none of
// them is needed.
func Query[In, Out any](h func(*Request, *In) (Out, error)) Handler { return handler(h, false) }

// Path makes a handler that takes nothing but its path.
func Path[Out any](h func(*Request) (Out, error)) Handler {
	return handler(func(r *Request, _ *struct{}) (Out, error) { return h(r) }, false)
}

func handler[In, Out any](h func(*Request, *In) (Out, error), body bool) Handler {
	return Handler{reflect.TypeFor[In](), reflect.TypeFor[Out](), body, func(r *Request, in any) (any, error) { return h(r, in.(*In)) }}
}

// ErrNotFound is the error of a handler that did not find what the path names.
var ErrNotFound = errors.New("not found")

type answered struct {
	status int
	body   any
}

// Answered is a body under a status of its own.
func Answered(status int, body any) any { return answered{status, body} }

// Stream is an answer that is written as it is made: the body of a handler whose route
// names its media type in Answers. Its time is not limited, but that of each write is. When
// Write fails, or the client hangs up, the answer breaks off, so that nobody takes a part
// of it for the whole.
type Stream struct {
	Media Media
	Write func(ctx context.Context, w io.Writer) error
}

// Param is a part of the path as it was written.
func (r *Request) Param(name string) string { return chi.URLParam(r.Request, name) }

// TextParam is a part of the path that may be any text. The router leaves it as it was
// written when that is not how Go writes it: `a%2Fb`, `a%40b.c`.
func (r *Request) TextParam(name string) string {
	text := r.Param(name)
	if r.URL.RawPath == "" {
		return text
	}
	if plain, err := url.PathUnescape(text); err == nil {
		return plain
	}
	return text
}

// Sent are the names of the fields that were sent, sorted: a patch tells null from nothing.
func (r *Request) Sent() []string { return slices.Sorted(maps.Keys(r.sent)) }

// checked serves a route whose handler gets requests that were checked.
func (a *accepted) checked(route Route) func(*Exchange, *http.Request) {
	return func(x *Exchange, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), handlerTime)
		defer cancel()
		req, in, err := a.read(x, r.WithContext(ctx))
		if err != nil {
			x.FailErr(err)
			return
		}
		body, err := route.Handle.call(req, in)
		if err != nil && route.Errors != nil {
			err = route.Errors(err)
		}
		own, answers := body.(answered)
		long, streams := body.(Stream)
		switch {
		case err != nil:
			x.failHandled(r, err, route.NotFound)
		case streams:
			x.stream(r, long, route)
		case answers:
			x.Encode(own.status, own.body)
		default:
			x.Encode(cmp.Or(route.Status, http.StatusOK), body)
		}
	}
}

// Of an answer that is written as it is made: the size of its writes, and what each may take,
// for a client that reads no more would hold it up for ever.
const (
	streamWrite     = 32 << 10
	streamWriteTime = time.Minute
)

// stream answers with what is written as it is made. Without a byte of it there can still be
// an error; after the first the connection is all there is to say it with.
func (x *Exchange) stream(r *http.Request, s Stream, route Route) {
	x.Header().Set("Content-Type", string(s.Media))
	if r.Method == http.MethodHead {
		return
	}
	body := bufio.NewWriterSize(timedWriter{x}, streamWrite)
	err := s.Write(r.Context(), body)
	if err == nil {
		err = body.Flush()
	}
	switch {
	case err == nil:
		return
	case x.written == 0:
		x.failHandled(r, err, route.NotFound)
		return
	case r.Context().Err() == nil:
		x.edge.log.Warn("http.broken_off", zap.String("route", routeOf(r)), zap.String("request_id", x.RequestID), zap.Error(err))
	}
	x.Err = err
	panic(http.ErrAbortHandler)
}

// timedWriter gives each write its own time.
type timedWriter struct{ x *Exchange }

// Write implements io.Writer.
func (w timedWriter) Write(p []byte) (int, error) {
	_ = http.NewResponseController(w.x).SetWriteDeadline(time.Now().Add(streamWriteTime)) // a recorder has none
	return w.x.Write(p)
}

// failHandled answers with the error of a handler, telling the sender's fault from ours.
func (x *Exchange) failHandled(r *http.Request, err error, notFound string) {
	x.Err = err
	var failure *RefusalError
	var issues IssuesError
	what := []zap.Field{zap.String("route", routeOf(r)), zap.String("request_id", x.RequestID), zap.Error(err)}
	switch {
	case errors.As(err, &failure), errors.As(err, &issues):
		x.FailErr(err)
	case errors.Is(err, ErrNotFound), storage.IsNotFound(err):
		x.Fail(http.StatusNotFound, notFound, "")
	case IsOutage(err), errors.Is(err, context.DeadlineExceeded):
		x.edge.log.Warn("http.unavailable", what...)
		x.Unavailable("Service unavailable", "send the request again")
	default:
		x.edge.log.Error("http.failed", what...)
		x.Fail(http.StatusInternalServerError, "Internal Server Error", "")
	}
}

// pathID reads {id}, a UUID.
func pathID(r *http.Request) (string, bool) {
	id := strings.ToLower(chi.URLParam(r, "id"))
	parsed, err := uuid.Parse(id)
	return id, err == nil && parsed.String() == id
}
