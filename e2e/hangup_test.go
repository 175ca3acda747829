package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// hangupVariable is for how long clients come and go; a few seconds without it.
const hangupVariable = "HOGSTREAM_HANGUP_DURATION"

func hangupDuration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(hangupVariable)
	switch {
	case text != "":
		d, err := time.ParseDuration(text)
		require.NoError(t, err, hangupVariable)
		return d
	case thorough():
		return 30 * time.Second
	}
	return 12 * time.Second
}

// Clients hang up at any moment: before the body, within it, before the answer, by
// a timeout while the process is stopped. Beside them others wait for their answers.
// What anybody was told is accepted stands on `ingest` and on `events` once, nothing
// stands there twice or was never sent, and those that wait see no 5xx.
func TestFaultClientsThatHangUpLoseDoubleAndChangeNothing(t *testing.T) {
	notShort(t)
	eachLongSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t)
		p := w.serve("one")
		o := &hangups{w: w, p: p, sent: map[string]bool{}, accepted: map[string]bool{}}
		ctx, cancel := context.WithTimeout(t.Context(), hangupDuration(t))
		defer cancel()
		var crowd sync.WaitGroup
		for n := range 4 {
			crowd.Go(func() { o.wait(ctx, fmt.Sprint("w", n), n%2 == 0) })
		}
		for n := range 24 {
			own := rand.New(rand.NewPCG(rng.Uint64(), uint64(n)))
			crowd.Go(func() { o.leave(ctx, fmt.Sprint("l", n), own) })
		}
		crowd.Go(func() { o.freeze(ctx, rng) })
		crowd.Wait()

		require.Empty(t, o.failures, "answers to clients that wait")
		select {
		case <-p.ended():
			t.Fatalf("the process ended by itself:\n%s", p.tail(60))
		default:
		}
		w.settled(o)
		text, err := os.ReadFile(p.log)
		require.NoError(t, err)
		require.NotRegexp(t, `panic|SIGSEGV|fatal error`, string(text))
		t.Logf("%d requests of clients that waited, %d of clients that left; %d events accepted", o.waited.Load(), o.left.Load(), len(o.accepted))
		require.NotEmpty(t, o.accepted)
		p.stop()
	})
}

// hangups keeps account of what clients sent and what they were told.
type hangups struct {
	w            *world
	p            *process
	waited, left atomic.Int64

	mu       sync.Mutex
	sent     map[string]bool // subjects, of one event each
	accepted map[string]bool
	failures []string
}

func (o *hangups) note(sent []string, accepted bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range sent {
		o.sent[s] = true
		if accepted {
			o.accepted[s] = true
		}
	}
}

// wait sends one request after the other and waits for each answer.
func (o *hangups) wait(ctx context.Context, name string, batches bool) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		subjects := []string{fmt.Sprint(name, "-", n)}
		if batches {
			subjects = append(subjects, subjects[0]+"b", subjects[0]+"c")
		}
		path, body := hangupBody(subjects, batches)
		o.note(subjects, false)
		req, err := http.NewRequestWithContext(o.w.t.Context(), http.MethodPost, o.p.url+path, strings.NewReader(body))
		if err != nil {
			o.fail("%s: %v", name, err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+adminKey)
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			o.fail("%s, request %d: %v", name, n, err)
			return
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusAccepted || batches && !strings.Contains(string(text), `"accepted":3,`) {
			o.fail("%s, request %d: %d %v %s", name, n, res.StatusCode, err, text)
			return
		}
		o.waited.Add(1)
		o.note(subjects, true)
	}
}

func (o *hangups) fail(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failures = append(o.failures, fmt.Sprintf(format, args...))
}

// leave sends requests, whole or in part, and hangs up at any moment. A client that
// has read the answer before counts what it was told.
func (o *hangups) leave(ctx context.Context, name string, rng *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		subjects := []string{fmt.Sprint(name, "-", n)}
		batch := rng.IntN(3) == 0
		for k := 1; batch && k < 1+rng.IntN(5); k++ {
			subjects = append(subjects, fmt.Sprint(subjects[0], "-", k))
		}
		path, body := hangupBody(subjects, batch)
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, adminKey, len(body))
		o.note(subjects, false)
		conn, err := net.Dial("tcp", strings.TrimPrefix(o.p.url, "http://"))
		if err != nil {
			o.fail("%s, request %d: %v", name, n, err)
			return
		}
		status := o.part(conn, head, body, rng)
		if rng.IntN(2) == 0 {
			conn.(*net.TCPConn).SetLinger(0) //nolint:errcheck // a reset instead of an end
		}
		conn.Close()
		o.left.Add(1)
		o.note(subjects, strings.HasPrefix(status, "HTTP/1.1 202"))
	}
}

// part does as much of a request as the client cares to, and returns what it read of
// the answer.
func (o *hangups) part(conn net.Conn, head, body string, rng *rand.Rand) (status string) {
	pause := time.Duration(rng.IntN(4000)) * time.Microsecond
	switch rng.IntN(5) {
	case 0: // before the body
		io.WriteString(conn, head) //nolint:errcheck // the server may be quicker
	case 1: // within the body
		io.WriteString(conn, head+body[:rng.IntN(len(body))]) //nolint:errcheck // as above
	case 2: // before the answer
		io.WriteString(conn, head+body) //nolint:errcheck // as above
	default: // before the answer, or after it
		io.WriteString(conn, head+body) //nolint:errcheck // as above
		conn.SetReadDeadline(time.Now().Add(20 * pause))
		buf := make([]byte, 16)
		n, _ := conn.Read(buf)
		return string(buf[:n])
	}
	<-time.After(pause)
	return ""
}

// freeze stops the process now and then: mostly for less than appends may take, and
// once for longer.
func (o *hangups) freeze(ctx context.Context, rng *rand.Rand) {
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(500+rng.IntN(1000)) * time.Millisecond):
		}
		o.p.freeze()
		lasts := time.Duration(rng.IntN(1000)) * time.Millisecond
		if n%10 == 0 {
			lasts = stream.DefaultAppendTimeout + 3*time.Second
		}
		<-time.After(lasts)
		o.p.signal(syscall.SIGCONT)
	}
}

func hangupBody(subjects []string, batch bool) (path, body string) {
	events := make([]event, len(subjects))
	for i, s := range subjects {
		events[i] = event{Name: "left", UserID: s, EventProperties: map[string]any{"of": s}}
	}
	var text []byte
	if batch {
		path = "/v1/events/batch"
		text, _ = json.Marshal(map[string]any{"events": events})
	} else {
		path = "/v1/events"
		text, _ = json.Marshal(events[0])
	}
	return path, string(text)
}

// settled waits until nothing is on its way any more, and compares both topics with
// what was sent and accepted.
func (w *world) settled(o *hangups) {
	t := w.t
	t.Helper()
	w.waitProcessed()
	taken := map[string]bool{}
	for _, r := range w.read(schemas.TopicIngest) {
		in, err := w.codec.DecodeInput(r.Value)
		require.NoError(t, err)
		require.Equal(t, in.ID, r.ID)
		require.NotNil(t, in.UserID)
		once(t, "ingest", taken, o.sent, *in.UserID, *in.EventProperties)
	}
	published := map[string]bool{}
	for _, r := range w.read(schemas.TopicEvents) {
		e, err := w.codec.DecodeEvent(r.Value)
		require.NoError(t, err)
		var properties struct {
			Of string `json:"of"`
		}
		require.NoError(t, json.Unmarshal([]byte(e.Properties), &properties))
		once(t, "events", published, taken, properties.Of, e.Properties)
	}
	require.Len(t, published, len(taken), "inputs and events")
	for s := range o.accepted {
		require.True(t, taken[s] && published[s], "%s was accepted and is lost", s)
	}
	w.verifyOrder()
	require.Empty(t, w.read(schemas.TopicDeadLetters))
}

func once(t *testing.T, topic string, seen, sent map[string]bool, subject, properties string) {
	t.Helper()
	require.JSONEq(t, fmt.Sprintf(`{"of":%q}`, subject), properties)
	require.True(t, sent[subject], "%s: nobody sent %q", topic, subject)
	require.False(t, seen[subject], "%s: %s stands there twice", topic, subject)
	seen[subject] = true
}
