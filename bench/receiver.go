package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// receiverSettings of the receiver part.
type receiverSettings struct {
	DelayMillis int `json:"delayMillis"`
	// Spread makes each request wait differently long: from 0 to DelayMillis,
	// evenly spread.
	Spread bool `json:"spread"`
	// Arrivals makes it note when each request arrived.
	Arrivals bool `json:"arrivals"`
	// Latencies makes it read when product events were accepted.
	Latencies bool `json:"latencies"`
}

// receiverReport is its answer to GET.
type receiverReport struct {
	Events int           `json:"events"` // product events
	Bytes  int64         `json:"bytes"`  // of all bodies
	P50    time.Duration `json:"p50"`
	P99    time.Duration `json:"p99"`
	// Arrivals are when requests arrived, in order.
	Arrivals []time.Duration `json:"arrivals,omitempty"` // since 1970
}

// webhookReceiver reads each request's body, waits, and answers 200; what is
// sent to hangPath gets no answer. GET answers with a report; DELETE forgets what
// it is about.
//
// It stands on the same machine as the process under test, so what it uses is
// missing there: net/http's server and a timer a request took as much CPU as
// sending. It reads from its connections directly, a goroutine each, and one
// goroutine writes all answers when they are due. It understands what our side
// and plain code send: HTTP/1.1, one request at a time, bodies with a length.
// Anything else is refused with a reason, which ends the bench.
type webhookReceiver struct {
	receiverSettings
	listener net.Listener
	due      chan dueAnswer // in the order of their moments, for all wait as long
	ok       []byte
	served   sync.WaitGroup

	mu        sync.Mutex
	open      map[net.Conn]struct{}
	stopped   bool
	latencies []time.Duration
	arrivals  []time.Duration
	bytes     int64
}

// hangPath is that of a receiver that accepts and never answers.
const hangPath = "/hang"

// dueAnswer is a connection to be answered.
type dueAnswer struct {
	conn net.Conn
	at   time.Time
}

func receiverPart(args []string, stop <-chan struct{}, say func(string)) error {
	var settings receiverSettings
	if err := decodeArgs(args, &settings); err != nil {
		return err
	}
	r, err := newWebhookReceiver(settings)
	if err != nil {
		return err
	}
	// It uses half a core, and idle threads that look for work would be more of it.
	runtime.GOMAXPROCS(1)
	say(r.listener.Addr().String())
	<-stop
	return r.close()
}

// newWebhookReceiver starts one; close ends it.
func newWebhookReceiver(settings receiverSettings) (*webhookReceiver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	r := &webhookReceiver{
		receiverSettings: settings, listener: listener, open: map[net.Conn]struct{}{},
		due: make(chan dueAnswer, 4096),
		ok:  []byte("HTTP/1.1 200 OK\r\nDate: " + time.Now().UTC().Format(http.TimeFormat) + "\r\nContent-Length: 0\r\n\r\n"),
	}
	r.served.Go(r.accept)
	go r.answerDue()
	return r, nil
}

// close ends all connections and waits for what served them.
func (r *webhookReceiver) close() error {
	err := r.listener.Close()
	r.mu.Lock()
	r.stopped = true
	for conn := range r.open {
		_ = conn.Close()
	}
	r.mu.Unlock()
	r.served.Wait()
	close(r.due)
	return err
}

func (r *webhookReceiver) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		if !r.keep(conn) {
			_ = conn.Close()
			return
		}
		r.served.Go(func() {
			defer r.drop(conn)
			if err := r.serve(conn); err != nil {
				// The starter shares this stream; the sender sees the status.
				_, _ = fmt.Fprintln(os.Stderr, "receiver:", err)
				_, _ = conn.Write(answer(http.StatusNotImplemented, []byte(err.Error())))
			}
		})
	}
}

func (r *webhookReceiver) keep(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[conn] = struct{}{}
	return !r.stopped
}

func (r *webhookReceiver) drop(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, conn)
	_ = conn.Close()
}

// serve answers the requests of a connection until the sender ends it. The error
// is a request that it does not understand.
func (r *webhookReceiver) serve(conn net.Conn) error {
	buf := make([]byte, 0, 4<<10)
	for {
		head, body, rest, room, err := readRequest(conn, buf)
		if err != nil {
			return err
		}
		if head.method == "" {
			return nil // ended
		}
		if head.method == http.MethodPost {
			r.arrived(len(body), time.Now())
		}
		switch {
		case head.path == hangPath:
			// The sender gives up, and the read below sees it.
		case head.method != http.MethodPost:
			if _, err := conn.Write(r.report(head.method == http.MethodDelete)); err != nil {
				return nil
			}
		case r.Spread:
			<-time.After(time.Duration(rand.Int64N(int64(r.DelayMillis) * int64(time.Millisecond))))
			if _, err := conn.Write(r.ok); err != nil {
				return nil
			}
		case r.DelayMillis > 0:
			r.due <- dueAnswer{conn, time.Now().Add(time.Duration(r.DelayMillis) * time.Millisecond)}
		default:
			if r.Latencies {
				r.note(body, time.Now())
			}
			if _, err := conn.Write(r.ok); err != nil {
				return nil
			}
		}
		buf = append(room[:0], rest...)
	}
}

// answerDue writes the answers that wait. One timer serves all of them.
func (r *webhookReceiver) answerDue() {
	for d := range r.due {
		if wait := time.Until(d.at); wait > 0 {
			<-time.After(wait)
		}
		// A sender that is gone needs no answer, and its reader has seen it.
		_, _ = d.conn.Write(r.ok)
	}
}

// requestHead is what of a request's head matters here.
type requestHead struct {
	method, path string
	length       int
}

// readRequest reads one request; buf holds what was read before, and rest what
// was read of the next. room is the memory of both, to be used again. A method of
// "" means that the connection has ended.
func readRequest(conn net.Conn, buf []byte) (head requestHead, body, rest, room []byte, err error) {
	end := -1
	for {
		if end < 0 {
			if at := bytes.Index(buf, []byte("\r\n\r\n")); at >= 0 {
				if head, err = parseHead(string(buf[:at])); err != nil {
					return requestHead{}, nil, nil, nil, err
				}
				end = at + 4
				buf = slices.Grow(buf, max(0, end+head.length-len(buf)))
			}
		}
		if end >= 0 && len(buf) >= end+head.length {
			return head, buf[end : end+head.length], buf[end+head.length:], buf, nil
		}
		buf = slices.Grow(buf, 1<<10)
		n, err := conn.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return requestHead{}, nil, nil, nil, nil
		}
		buf = buf[:len(buf)+n]
	}
}

// parseHead reads the request line and the headers that matter.
func parseHead(text string) (requestHead, error) {
	line, fields, _ := strings.Cut(text, "\r\n")
	method, target, _ := strings.Cut(line, " ")
	path, ok := strings.CutSuffix(target, " HTTP/1.1")
	if !ok {
		return requestHead{}, fmt.Errorf("%q is no HTTP/1.1 request", line)
	}
	head := requestHead{method: method, path: path}
	for field := range strings.SplitSeq(fields, "\r\n") {
		name, value, _ := strings.Cut(field, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Content-Length"):
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 || n > 64<<20 {
				return requestHead{}, fmt.Errorf("a body of %q bytes is not understood", value)
			}
			head.length = n
		case strings.EqualFold(name, "Transfer-Encoding"), strings.EqualFold(name, "Expect"), strings.EqualFold(name, "Upgrade"):
			return requestHead{}, fmt.Errorf("%s: %s is not understood", name, value)
		}
	}
	return head, nil
}

// answer writes out an answer with a body, after which the connection may go on
// when it is a success.
func answer(status int, body []byte) []byte {
	ending := ""
	if status != http.StatusOK {
		ending = "Connection: close\r\n"
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Length: %d\r\n%s\r\n%s", status, http.StatusText(status), len(body), ending, body)
}

// note takes the time since a product event was accepted.
func (r *webhookReceiver) note(body []byte, now time.Time) {
	const mark = `"receivedAt":"`
	at := bytes.LastIndex(body, []byte(mark)) // after the customer's properties
	if at < 0 {
		return
	}
	text, _, _ := bytes.Cut(body[at+len(mark):], []byte{'"'})
	accepted, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latencies = append(r.latencies, now.Sub(accepted))
}

func (r *webhookReceiver) arrived(size int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += int64(size)
	if r.Arrivals {
		r.arrivals = append(r.arrivals, time.Duration(now.UnixNano()))
	}
}

// report is the answer about what was noted.
func (r *webhookReceiver) report(forget bool) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if forget {
		r.latencies, r.arrivals, r.bytes = nil, nil, 0
	}
	sorted := slices.Sorted(slices.Values(r.latencies))
	text, err := json.Marshal(receiverReport{Events: len(sorted), Bytes: r.bytes, P50: quantile(sorted, 0.5), P99: quantile(sorted, 0.99), Arrivals: slices.Sorted(slices.Values(r.arrivals))})
	if err != nil {
		return answer(http.StatusInternalServerError, []byte(errors.Join(errors.New("report"), err).Error()))
	}
	return answer(http.StatusOK, text)
}
