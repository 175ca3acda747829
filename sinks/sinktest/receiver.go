// Package sinktest is a receiver of webhooks that checks what it is sent: every
// signature with the public Standard Webhooks library, duplicates, and the order
// of each key. Answers can be scripted. It serves tests, the demo and the
// benchmark, so nothing in it depends on package testing.
package sinktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Message is a webhook as it arrived.
type Message struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Data      json.RawMessage `json:"data"`

	// Fields of data that are looked at often; empty when absent.
	ContactID  string    `json:"-"`
	Event      string    `json:"-"`
	ReceivedAt time.Time `json:"-"` // when Hogstream accepted the event

	Header    http.Header `json:"-"`
	Body      []byte      `json:"-"`
	ArrivedAt time.Time   `json:"-"`
	// Arrival counts how often this id has arrived, 1 for the first time.
	Arrival int `json:"-"`
	// Problem says what was wrong with the request, "" for nothing.
	Problem string `json:"-"`
}

// Answer is a scripted answer. The zero value is a 204.
type Answer struct {
	Status     int
	RetryAfter string // the header's value, "" for none
	Body       string
	Delay      time.Duration // before the answer

	Hang     bool // never answer
	Reset    bool // reset the connection
	SlowBody bool // answer the status, then drip a body without end
	Garbage  bool // answer something that is not HTTP
}

// Options of a Receiver.
type Options struct {
	// Secrets verify signatures; any of them may match. Without one, signatures
	// are not checked.
	Secrets []string
	// Script decides the answer; without it every message is taken. It is called
	// concurrently.
	Script func(*Message) Answer
	// Sequence tells the order within a key: messages of one key must be taken
	// with a growing seq. Without it order is not checked.
	Sequence func(*Message) (key string, seq int64, ok bool)
	// Keep bounds the messages kept for Messages; 0 keeps none.
	Keep int
	// Latency is waited before each answer.
	Latency time.Duration
}

// Stats are the figures of a Receiver.
type Stats struct {
	Requests        int // all requests
	Taken           int // messages answered with 2xx, repeats included
	Unique          int // different ids taken
	Duplicates      int // messages taken again
	BadSignatures   int
	Malformed       int // not an envelope, or headers that contradict it
	OrderViolations int // messages taken after a later one of their key
	ByType          map[string]int
	FirstViolation  string // describes the first, for people
	// InFlight and MaxInFlight count requests being answered.
	InFlight, MaxInFlight int
}

// Receiver takes webhooks. It is safe for concurrent use.
type Receiver struct {
	opts      Options
	verifiers []*standardwebhooks.Webhook

	mu        sync.Mutex
	stats     Stats
	arrivals  map[string]int
	taken     map[string]bool
	sequence  map[string]int64
	messages  []*Message
	latencies []time.Duration
	changed   chan struct{} // closed and renewed at every change

	server *http.Server
	url    string
	done   chan struct{}
}

// New makes a Receiver that is not listening yet; it is an [http.Handler].
func New(opts Options) (*Receiver, error) {
	r := &Receiver{
		opts: opts, arrivals: map[string]int{}, taken: map[string]bool{}, sequence: map[string]int64{},
		changed: make(chan struct{}), done: make(chan struct{}),
	}
	r.stats.ByType = map[string]int{}
	if err := r.SetSecrets(opts.Secrets...); err != nil {
		return nil, err
	}
	return r, nil
}

// SetSecrets replaces the secrets that signatures are verified with.
func (r *Receiver) SetSecrets(secrets ...string) error {
	verifiers := make([]*standardwebhooks.Webhook, 0, len(secrets))
	for _, s := range secrets {
		v, err := standardwebhooks.NewWebhook(s)
		if err != nil {
			return fmt.Errorf("secret of receiver: %w", err)
		}
		verifiers = append(verifiers, v)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verifiers = verifiers
	return nil
}

// SetScript replaces the script.
func (r *Receiver) SetScript(script func(*Message) Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts.Script = script
}

// Start listens on addr, for example "127.0.0.1:0", and serves until Close.
func (r *Receiver) Start(addr string) (url string, err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("listen for webhooks on %s: %w", addr, err)
	}
	r.url = "http://" + l.Addr().String() + "/"
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(l) }()
	return r.url, nil
}

// URL is where it listens after Start.
func (r *Receiver) URL() string { return r.url }

// Close stops listening and ends hanging answers. It may be called once.
func (r *Receiver) Close() {
	close(r.done)
	if r.server != nil {
		_ = r.server.Close()
	}
}

// ServeHTTP implements [http.Handler].
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 32<<20))
	if err != nil {
		return // the sender went away
	}
	m := parse(req.Header, body)
	script := r.arrived(m)
	defer r.left()
	answer := Answer{}
	switch {
	case m.Problem != "":
		answer = Answer{Status: http.StatusBadRequest, Body: m.Problem}
	case script != nil:
		answer = script(m)
	}
	if answer.Status == 0 {
		answer.Status = http.StatusNoContent
	}
	if !wait(req.Context(), r.done, answer.Delay+r.opts.Latency) {
		return
	}
	// Booked before the answer leaves, so that whoever has seen the answer also
	// finds it in the figures.
	if answer.Status/100 == 2 && !answer.Hang && !answer.Reset && !answer.Garbage {
		r.take(m)
	}
	r.answer(w, req, answer)
}

// parse reads an envelope and checks it against the headers.
func parse(header http.Header, body []byte) *Message {
	m := &Message{Header: header, Body: body, ArrivedAt: time.Now()}
	if err := json.Unmarshal(body, m); err != nil {
		m.Problem = "body is no envelope: " + err.Error()
		return m
	}
	var data struct {
		ContactID  string    `json:"contactId"`
		Event      string    `json:"event"`
		ReceivedAt time.Time `json:"receivedAt"`
	}
	if err := json.Unmarshal(m.Data, &data); err != nil {
		m.Problem = "data of the envelope: " + err.Error()
		return m
	}
	m.ContactID, m.Event, m.ReceivedAt = data.ContactID, data.Event, data.ReceivedAt
	switch {
	case m.ID == "" || m.Type == "" || m.Timestamp.IsZero():
		m.Problem = "envelope lacks id, type or timestamp"
	case header.Get("Webhook-Id") != m.ID:
		m.Problem = "Webhook-Id is not the envelope's id"
	case header.Get("Content-Type") != "application/json":
		m.Problem = "Content-Type is not application/json"
	}
	return m
}

// arrived counts a request, verifies it, and returns the script to answer by.
func (r *Receiver) arrived(m *Message) func(*Message) Answer {
	r.mu.Lock()
	verifiers, script := r.verifiers, r.opts.Script
	r.mu.Unlock()
	signed := len(verifiers) == 0 || verified(verifiers, m)

	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.notify()
	s := &r.stats
	s.Requests++
	s.InFlight++
	s.MaxInFlight = max(s.MaxInFlight, s.InFlight)
	r.arrivals[m.ID]++
	m.Arrival = r.arrivals[m.ID]
	switch {
	case !signed:
		s.BadSignatures++
		m.Problem = "signature does not verify"
	case m.Problem != "":
		s.Malformed++
	}
	if len(r.messages) < r.opts.Keep {
		r.messages = append(r.messages, m)
	}
	return script
}

func verified(verifiers []*standardwebhooks.Webhook, m *Message) bool {
	for _, v := range verifiers {
		if v.Verify(m.Body, m.Header) == nil {
			return true
		}
	}
	return false
}

// take books a message that is answered with 2xx.
func (r *Receiver) take(m *Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.notify()
	s := &r.stats
	s.Taken++
	if r.taken[m.ID] {
		s.Duplicates++
		return
	}
	r.taken[m.ID] = true
	s.Unique++
	s.ByType[m.Type]++
	if !m.ReceivedAt.IsZero() {
		r.latencies = append(r.latencies, time.Since(m.ReceivedAt))
	}
	r.checkOrder(m)
}

// checkOrder is called under the lock, the first time a message is taken.
func (r *Receiver) checkOrder(m *Message) {
	if r.opts.Sequence == nil {
		return
	}
	key, seq, ok := r.opts.Sequence(m)
	if !ok {
		return
	}
	last, seen := r.sequence[key]
	if seen && seq <= last {
		r.stats.OrderViolations++
		if r.stats.FirstViolation == "" {
			r.stats.FirstViolation = fmt.Sprintf("key %s: %d (%s) was taken after %d", key, seq, m.ID, last)
		}
		return
	}
	r.sequence[key] = seq
}

func (r *Receiver) left() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.InFlight--
	r.notify()
}

// notify is called under the lock.
func (r *Receiver) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Receiver) answer(w http.ResponseWriter, req *http.Request, a Answer) {
	switch {
	case a.Hang:
		wait(req.Context(), r.done, time.Hour)
		return
	case a.Reset:
		reset(w)
		return
	case a.Garbage:
		garbage(w)
		return
	}
	if a.RetryAfter != "" {
		w.Header().Set("Retry-After", a.RetryAfter)
	}
	w.WriteHeader(a.Status)
	if a.SlowBody {
		r.drip(w, req)
		return
	}
	_, _ = io.WriteString(w, a.Body)
}

// drip sends a byte now and then until the sender has had enough.
func (r *Receiver) drip(w http.ResponseWriter, req *http.Request) {
	flush := http.NewResponseController(w)
	for {
		if _, err := w.Write([]byte(".")); err != nil || flush.Flush() != nil {
			return
		}
		if !wait(req.Context(), r.done, 20*time.Millisecond) {
			return
		}
	}
}

// reset ends the connection with RST instead of an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func garbage(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte("\x00\xff\x13 not http at all\r\n\r\n"))
	_ = conn.Close()
}

// wait reports whether d passed before the sender or the receiver went away.
func wait(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-done:
	}
	return false
}

// Stats are the figures so far.
func (r *Receiver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.snapshot()
}

func (r *Receiver) snapshot() Stats {
	s := r.stats
	s.ByType = maps.Clone(s.ByType)
	return s
}

// Messages are the messages kept, in the order of their arrival.
func (r *Receiver) Messages() []*Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Message(nil), r.messages...)
}

// Latencies are the times from acceptance of each product event to its being
// taken here, in no order that matters.
func (r *Receiver) Latencies() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Duration(nil), r.latencies...)
}

// ErrClosed is returned by Wait when the receiver was closed meanwhile.
var ErrClosed = errors.New("receiver of webhooks is closed")

// Wait returns when the figures satisfy until, or with an error that shows them
// when ctx ends before.
func (r *Receiver) Wait(ctx context.Context, until func(Stats) bool) error {
	for {
		r.mu.Lock()
		changed, s := r.changed, r.snapshot()
		r.mu.Unlock()
		if until(s) {
			return nil
		}
		select {
		case <-changed:
		case <-r.done:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("wait for webhooks, so far %+v: %w", s, ctx.Err())
		}
	}
}
