package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// loadSettings of the load part: what it sends, and for how long.
type loadSettings struct {
	Addr        string  `json:"addr"`
	Path        string  `json:"path"`
	Key         string  `json:"key"`   // bearer token
	Batch       int     `json:"batch"` // events a request; 1 sends single events
	Connections int     `json:"connections"`
	Seconds     float64 `json:"seconds"`
	// Rate is requests a second over all connections; 0 means as fast as answers
	// come. With a rate, latency counts from when a request was due.
	Rate float64 `json:"rate"`
	// Users, when given, sends events that happen as they arrive instead: nine of ten
	// are of the first so many contacts, in an order that repeats none soon, and each tenth is
	// of the contact Joiner and of those after it, one after the other, who join joinedBucket.
	Users  int `json:"users,omitempty"`
	Joiner int `json:"joiner,omitempty"`
	// Joins is the name of the event after which a contact joins; empty is that of the others.
	Joins string `json:"joins,omitempty"`
	// Requests ends it after so many, whatever Seconds says; 0 means no such end. First is how
	// many came before, in another load: with Users, what comes again is then another event.
	Requests int `json:"requests,omitempty"`
	First    int `json:"first,omitempty"`
}

// loadResult is the load part's first line.
type loadResult struct {
	Requests int           `json:"requests"` // answered with 2xx
	Refused  int           `json:"refused"`
	Joins    int           `json:"joins,omitempty"` // events after which a contact joins
	Took     time.Duration `json:"took"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	CPU      time.Duration `json:"cpu"` // of the generator
	Err      string        `json:"err,omitempty"`
}

// loadPart sends requests that were written beforehand over plain connections:
// net/http's client would take as much CPU as the server under test.
func loadPart(args []string, _ <-chan struct{}, say func(string)) error {
	var settings loadSettings
	if err := decodeArgs(args, &settings); err != nil {
		return err
	}
	text, err := json.Marshal(settings.run())
	if err != nil {
		return fmt.Errorf("report the load: %w", err)
	}
	say(string(text))
	return nil
}

// load runs the load part and returns what it measured.
func load(ctx context.Context, settings loadSettings) (loadResult, error) {
	text, err := json.Marshal(settings)
	if err != nil {
		return loadResult{}, fmt.Errorf("start load: %w", err)
	}
	p, err := startPart(ctx, "load", string(text))
	if err != nil {
		return loadResult{}, err
	}
	p.close()
	var result loadResult
	if err := json.Unmarshal([]byte(p.addr), &result); err != nil {
		return loadResult{}, fmt.Errorf("read the load's result: %w", err)
	}
	if result.Err == "" && result.Refused > 0 {
		result.Err = fmt.Sprintf("%d of %d requests were refused", result.Refused, result.Requests+result.Refused)
	}
	if result.Err != "" {
		return result, errors.New("load: " + result.Err)
	}
	return result, nil
}

func (s loadSettings) run() loadResult {
	different := 64
	if s.Batch == 1 {
		different = 4000 // a multiple of joinEvery
	}
	requests := s.requests(different)
	conns := make([]*loadConn, s.Connections)
	before, begun := cpuTime(), time.Now()
	end := begun.Add(time.Duration(s.Seconds * float64(time.Second)))
	var wg sync.WaitGroup
	for i := range conns {
		c := &loadConn{settings: s, requests: requests, number: i}
		conns[i] = c
		wg.Go(func() { c.err = c.run(begun, end) })
	}
	wg.Wait()
	result := loadResult{Took: time.Since(begun), CPU: cpuTime() - before}
	var latencies []time.Duration
	var errs []error
	for _, c := range conns {
		result.Requests += len(c.latencies)
		result.Refused += c.refused
		result.Joins += c.joins
		latencies = append(latencies, c.latencies...)
		errs = append(errs, c.err)
	}
	slices.Sort(latencies)
	result.P50, result.P99 = quantile(latencies, 0.5), quantile(latencies, 0.99)
	if err := errors.Join(errs...); err != nil {
		result.Err = err.Error()
	}
	return result
}

// loadConn is one connection with one request under way at a time.
type loadConn struct {
	settings  loadSettings
	requests  [][]byte
	number    int
	latencies []time.Duration
	refused   int
	joins     int
	buf       []byte
	err       error
}

// joinEvery is how many live events there are to one after which a contact joins.
const joinEvery = 10

// request is the n-th of the connection, and after how many of its events a contact joins.
func (c *loadConn) request(n int) (text []byte, joins int) {
	if c.settings.Users == 0 {
		return c.requests[(c.number+n)%len(c.requests)], 0
	}
	n = c.settings.First + n*c.settings.Connections + c.number // of all
	c.buf = append(c.buf[:0], c.requests[n%len(c.requests)]...)
	rest := c.buf
	for i := n * c.settings.Batch; i < (n+1)*c.settings.Batch; i++ {
		user := i * 7919 % c.settings.Users
		if i%joinEvery == 0 {
			user = c.settings.Joiner + (i-c.settings.First*c.settings.Batch)/joinEvery
			joins++
		}
		rest = rest[bytes.Index(rest, []byte(contactUser(0))):]
		rest = rest[copy(rest, contactUser(user)):]
	}
	return c.buf, joins
}

func (c *loadConn) run(begun, end time.Time) error {
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", c.settings.Addr)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	answers := bufio.NewReaderSize(conn, 8<<10)
	var every time.Duration
	due := time.Now()
	if c.settings.Rate > 0 {
		every = time.Duration(float64(c.settings.Connections) / c.settings.Rate * float64(time.Second))
		due = begun.Add(every * time.Duration(c.number) / time.Duration(c.settings.Connections))
	}
	for n := 0; ; n++ {
		if every == 0 {
			due = time.Now()
		} else if wait := time.Until(due); wait > 0 {
			<-time.After(wait)
		}
		if c.settings.ends(n*c.settings.Connections+c.number, due, end) {
			return nil
		}
		request, joins := c.request(n)
		if _, err := conn.Write(request); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		status, err := readAnswer(answers)
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		if status/100 == 2 {
			c.latencies = append(c.latencies, time.Since(due))
			c.joins += joins
		} else {
			c.refused++
		}
		due = due.Add(every)
	}
}

// ends says that the n-th request of all, which is due at a time, is not sent any more.
func (s loadSettings) ends(n int, due, end time.Time) bool {
	if s.Requests > 0 {
		return n >= s.Requests
	}
	return !due.Before(end) || time.Now().After(end.Add(time.Second))
}

// readAnswer reads an answer with a Content-Length and returns its status.
func readAnswer(r *bufio.Reader) (status int, err error) {
	head, err := peekHead(r)
	if err != nil {
		return 0, err
	}
	if status, err = strconv.Atoi(string(head[min(9, len(head)):min(12, len(head))])); err != nil {
		return 0, fmt.Errorf("not an answer: %q", head)
	}
	_, after, _ := bytes.Cut(head, []byte("\r\nContent-Length: "))
	text, _, _ := bytes.Cut(after, []byte("\r\n"))
	length, err := strconv.Atoi(string(text))
	if err != nil {
		return 0, fmt.Errorf("an answer without a length: %q", head)
	}
	_, err = r.Discard(len(head) + length)
	return status, err
}

// peekHead returns the head of an answer, which stays in r.
func peekHead(r *bufio.Reader) ([]byte, error) {
	for n := 1; ; n = r.Buffered() + 1 {
		if _, err := r.Peek(n); err != nil {
			return nil, err
		}
		all, err := r.Peek(r.Buffered())
		if err != nil {
			return nil, err
		}
		if end := bytes.Index(all, []byte("\r\n\r\n")); end >= 0 {
			return all[:end+4], nil
		}
	}
}

// requests are n different ones, written out.
func (s loadSettings) requests(n int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	all := make([][]byte, n)
	for i := range all {
		var body []byte
		if s.Batch == 1 {
			body = s.appendOne(body, rng, i)
		} else {
			body = append(body, `{"events":[`...)
			for j := range s.Batch {
				if j > 0 {
					body = append(body, ',')
				}
				body = s.appendOne(body, rng, i*s.Batch+j)
			}
			body = append(body, `]}`...)
		}
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", s.Path, s.Addr, s.Key, len(body))
		all[i] = append([]byte(head), body...)
	}
	return all
}

// appendOne appends the i-th event of those that are prepared.
func (s loadSettings) appendOne(b []byte, rng *rand.Rand, i int) []byte {
	switch {
	case s.Users == 0:
		return appendEvent(b, rng)
	case i%joinEvery == 0:
		return appendLiveEvent(b, rng, cmp.Or(s.Joins, liveEvent), joinedPrice)
	}
	return appendLiveEvent(b, rng, liveEvent, 0)
}

var words = []string{"trousers", "blue", "summer", "collection", "newsletter", "campaign", "linen", "checkout", "basket", "discount",
	"return", "delivery", "express", "wishlist", "viewed", "compared", "size", "medium", "organic", "cotton"}

// appendEvent appends a product event of about one KiB.
func appendEvent(b []byte, rng *rand.Rand) []byte {
	start, user := len(b), rng.IntN(benchContacts)
	b = fmt.Appendf(b, `{"name":"product.viewed","userId":"user-%06d","email":"user%d@example.com","timestamp":"2026-01-31T12:00:00.123Z","eventProperties":{"productId":"p-%d","price":%d.5,"currency":"EUR","position":%d,"sessionId":"%016x%016x"`,
		user, user, rng.IntN(9999), rng.IntN(300), rng.IntN(40), rng.Uint64(), rng.Uint64())
	return fmt.Appendf(appendAttributes(b, start, rng), `},"contactProperties":{"plan":"pro","visits":%d}}`, rng.IntN(1000))
}

// liveEvent is the name of live events.
const liveEvent = "product.viewed"

// appendLiveEvent is one that happens as it arrives, of the contact 0, whose place others
// take. At a high price it makes its contact join joinedBucket.
func appendLiveEvent(b []byte, rng *rand.Rand, name string, from int) []byte {
	start := len(b)
	b = fmt.Appendf(b, `{"name":%q,"userId":%q,"eventProperties":{"productId":"p-%d","price":%d.5,"currency":"EUR","category":"trousers","position":%d`,
		name, contactUser(0), rng.IntN(9999), from+rng.IntN(joinedPrice), rng.IntN(40))
	return fmt.Appendf(appendAttributes(b, start, rng), `},"contactProperties":{"plan":"pro","visits":%d}}`, rng.Uint32())
}

// appendAttributes fills an event up to about one KiB.
func appendAttributes(b []byte, start int, rng *rand.Rand) []byte {
	for i := 0; len(b)-start < 920; i++ {
		b = fmt.Appendf(b, `,"attribute%d":"%s %s %s %d"`, i, words[rng.IntN(len(words))], words[rng.IntN(len(words))], words[rng.IntN(len(words))], rng.IntN(1e6))
	}
	return b
}
