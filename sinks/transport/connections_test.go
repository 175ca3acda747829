package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnIdleConnectionThatTheReceiverEndedIsNotUsed(t *testing.T) {
	to := receiverOf(t, func(conn net.Conn, _ int) {
		if takeRequest(bufio.NewReader(conn)) {
			_, _ = io.WriteString(conn, okAnswer) // and ends it, without having said so
		}
	})
	c := clientFor(t)
	d := watch(c)
	for range 20 {
		ans, err := send(t, c, requestTo(to, "{}"))
		require.NoError(t, err)
		require.Equal(t, 200, ans.Status)
		<-d.ended
	}
	require.Equal(t, int64(20), d.count.Load())
}

func TestAConnectionThatIsEndedInTheMomentOfItsUseFailsAtMostOneAttemptAndRepeatsNone(t *testing.T) {
	var taken atomic.Int64
	to := receiverOf(t, func(conn net.Conn, before int) {
		in := bufio.NewReader(conn)
		for range 1 + before%3 {
			if !takeRequest(in) {
				return
			}
			taken.Add(1)
			_, _ = io.WriteString(conn, okAnswer)
		}
	})
	c := clientFor(t)
	answered := int64(0)
	for range 500 {
		ans, err := send(t, c, requestTo(to, "{}"))
		if err == nil {
			require.Equal(t, 200, ans.Status)
			answered++
		}
	}
	require.Equal(t, answered, taken.Load(), "each that was taken was answered, and none was sent twice")
	require.Positive(t, answered)
}

// unwritable is a connection that takes nothing.
type unwritable struct {
	net.Conn
	broken *atomic.Bool
}

func (u unwritable) Write(b []byte) (int, error) {
	if u.broken.Load() {
		return 0, errors.New("broken pipe")
	}
	return u.Conn.Write(b)
}

func TestARequestOfWhichAnIdleConnectionTookNothingIsSentOnAnother(t *testing.T) {
	// Of one that does not fit into a buffer, net/http does not know what was written.
	for name, body := range map[string]string{"small": "{}", "large": strings.Repeat("x", 1<<20)} {
		t.Run(name, func(t *testing.T) {
			to := receiverOf(t, answering(okAnswer))
			c := clientFor(t)
			d := watch(c)
			dial := c.http.DialContext
			broken := new(atomic.Bool)
			c.http.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				first := broken
				broken = new(atomic.Bool)
				return unwritable{conn, first}, err
			}
			breakFirst := broken
			_, err := send(t, c, requestTo(to, "{}"))
			require.NoError(t, err)
			breakFirst.Store(true)
			_, err = send(t, c, requestTo(to, body))
			if name == "large" {
				require.ErrorContains(t, err, "broken pipe")
				return
			}
			require.NoError(t, err)
			require.Equal(t, int64(2), d.count.Load())
		})
	}
}

func TestANewConnectionThatTakesNothingFailsTheAttempt(t *testing.T) {
	to := receiverOf(t, answering(okAnswer))
	c := clientFor(t)
	d := watch(c)
	dial := c.http.DialContext
	var broken atomic.Bool
	broken.Store(true)
	c.http.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return unwritable{conn, &broken}, err
	}
	_, err := send(t, c, requestTo(to, "{}"))
	require.ErrorContains(t, err, "broken pipe")
	require.Equal(t, int64(1), d.count.Load())
}

func TestARequestThatMayHaveArrivedIsNotSentTwiceUnlessItIsNamedIdempotent(t *testing.T) {
	for header, want := range map[string]int64{"X-Other": 2, "Idempotency-Key": 3, "X-Idempotency-Key": 3} {
		t.Run(header, func(t *testing.T) {
			var requests atomic.Int64
			to := receiverOf(t, func(conn net.Conn, before int) {
				in := bufio.NewReader(conn)
				for first := true; takeRequest(in); first = false {
					requests.Add(1)
					if !first {
						return
					}
					_, _ = io.WriteString(conn, okAnswer)
				}
			})
			c := clientFor(t)
			_, err := send(t, c, requestTo(to, "{}"))
			require.NoError(t, err)
			req := requestTo(to, "{}")
			req.Header[header] = []string{"x"}
			_, err = send(t, c, req)
			if want == 2 {
				require.ErrorContains(t, err, "no answer")
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, want, requests.Load())
		})
	}
}

func TestAResetAtAnyByteOfTheRequestOrTheAnswerEndsTheAttemptAndHarmsNoOther(t *testing.T) {
	const answer = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nhello"
	head := len(answer) - len("hello")
	var cutRequest, cutAnswer, requests atomic.Int64
	to := receiverOf(t, func(conn net.Conn, _ int) {
		if n := cutRequest.Load(); n > 0 {
			_, _ = io.CopyN(io.Discard, conn, n)
			reset(conn)
			return
		}
		in := bufio.NewReader(conn)
		for takeRequest(in) {
			requests.Add(1)
			if n := cutAnswer.Load(); n >= 0 {
				_, _ = io.WriteString(conn, answer[:n])
				reset(conn)
				return
			}
			_, _ = io.WriteString(conn, answer)
		}
	})
	c := clientFor(t)
	whole := func() {
		cutRequest.Store(0)
		cutAnswer.Store(-1)
		ans, err := send(t, c, requestTo(to, "{}"))
		require.NoError(t, err)
		require.Equal(t, 503, ans.Status)
		require.Equal(t, "hello", string(ans.Body))
		c.Close() // the next one is a connection of its own
	}
	var size int
	requestSize := func() int {
		return len("POST /hook HTTP/1.1\r\nHost: \r\nUser-Agent: Hogstream/test\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}") + len(to.Host)
	}
	size = requestSize()
	for n := 1; n < size; n++ {
		cutRequest.Store(int64(n))
		_, err := send(t, c, requestTo(to, "{}"))
		require.Error(t, err, "reset after %d bytes of the request", n)
		if n%20 == 0 {
			whole()
		}
	}
	cutRequest.Store(0)
	before := requests.Load()
	for n := range len(answer) {
		cutAnswer.Store(int64(n))
		ans, err := send(t, c, requestTo(to, "{}"))
		require.Equal(t, before+1, requests.Load(), "sent once")
		if err == nil { // the reset may overtake what was sent before it
			require.GreaterOrEqual(t, n, head, "the status of a head that did not end")
			require.Equal(t, 503, ans.Status)
			require.True(t, strings.HasPrefix("hello", string(ans.Body)))
		}
		if n%20 == 0 {
			whole()
		}
		before = requests.Load()
	}
	whole()
}

// stopwatch is a context whose time may be over before anybody has said so, as in a
// process that was stopped and runs again.
type stopwatch struct {
	context.Context
	deadline atomic.Pointer[time.Time]
}

func (s *stopwatch) Deadline() (time.Time, bool) { return *s.deadline.Load(), true }

func TestAnAttemptWhoseTimeRanOutWhileTheProcessWasStoppedSendsNothing(t *testing.T) {
	for name, protocols := range map[string][]string{"http": nil, "https": {"http/1.1"}, "HTTP/2": {"h2"}} {
		t.Run(name, func(t *testing.T) {
			bodies := make(chan string, 2)
			take := func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				bodies <- string(body)
			}
			c := clientFor(t)
			var to *url.URL
			if protocols == nil {
				to = plainServer(t, take)
			} else {
				at := secureServer(t, protocols, take)
				to = at.url()
				at.reach(c)
			}
			later, before := time.Now().Add(time.Hour), time.Now()
			ctx := &stopwatch{Context: t.Context()}
			ctx.deadline.Store(&later)
			dial := c.http.DialContext
			c.http.DialContext = func(dialling context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(dialling, network, address)
				ctx.deadline.Store(&before) // it was stopped here
				return conn, err
			}
			_, err := c.Send(ctx, requestTo(to, "the first"), 10)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			_, err = send(t, c, requestTo(to, "the second"))
			require.NoError(t, err)
			require.Equal(t, "the second", <-bodies, "what the receiver got")
			require.Empty(t, bodies)
		})
	}
}

// stoppedBeforeItsFirstByte is the context of an attempt that has its connection and
// begins to write when the process is stopped.
func stoppedBeforeItsFirstByte(parent context.Context) context.Context {
	later, before := time.Now().Add(time.Hour), time.Now()
	ctx := &stopwatch{}
	ctx.deadline.Store(&later)
	ctx.Context = httptrace.WithClientTrace(parent, &httptrace.ClientTrace{
		WroteHeaderField: func(string, []string) { ctx.deadline.Store(&before) },
	})
	return ctx
}

func TestAnAttemptWhoseTimeRunsOutBeforeItsFirstByteSendsNothing(t *testing.T) {
	for name, protocols := range map[string][]string{"http": nil, "https": {"http/1.1"}} {
		t.Run(name, func(t *testing.T) {
			bodies := make(chan string, 3)
			take := func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				bodies <- string(body)
			}
			c := clientFor(t)
			var to *url.URL
			if protocols == nil {
				to = plainServer(t, take)
			} else {
				at := secureServer(t, protocols, take)
				to = at.url()
				at.reach(c)
			}
			for _, which := range []string{"a new connection", "one that was used"} {
				_, err := c.Send(stoppedBeforeItsFirstByte(t.Context()), requestTo(to, "late"), 10)
				require.ErrorIs(t, err, context.DeadlineExceeded, which)
				_, err = send(t, c, requestTo(to, which))
				require.NoError(t, err)
				require.Equal(t, which, <-bodies, "what the receiver got")
			}
			require.Empty(t, bodies)
		})
	}
}

func TestAnAttemptEndsWithItsContextAndEndsItsConnection(t *testing.T) {
	const headers = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
	for name, c := range map[string]struct {
		body   string
		answer string // what the receiver says before it falls silent
		reads  bool
		status int
	}{
		"it does not answer":        {"{}", "", true, 0},
		"it takes nothing":          {strings.Repeat("x", 32<<20), "", false, 0},
		"it answers half a header":  {"{}", headers[:20], true, 0},
		"it answers half of a body": {"{}", headers + "half", true, 200},
	} {
		t.Run(name, func(t *testing.T) {
			silent, goOn := make(chan struct{}), make(chan struct{})
			to := receiverOf(t, func(conn net.Conn, _ int) {
				in := bufio.NewReader(conn)
				if c.reads {
					takeRequest(in)
					_, _ = io.WriteString(conn, c.answer)
				} else {
					_, _ = in.Peek(1)
				}
				close(silent)
				<-goOn
				untilItEnds(conn)
			})
			client := clientFor(t)
			d := watch(client)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-silent
				cancel()
			}()
			began := time.Now()
			ans, err := client.Send(ctx, requestTo(to, c.body), 100)
			require.Less(t, time.Since(began), patience)
			<-d.ended // while the receiver still does nothing
			close(goOn)
			if err == nil { // the status was read before the end came
				require.Equal(t, c.status, ans.Status)
			} else {
				require.ErrorIs(t, err, context.Canceled)
			}
		})
	}
}

func TestTheDeadlineIsKeptWhateverTheReceiverDoesNot(t *testing.T) {
	for name, c := range map[string]struct {
		scheme string
		script func(conn net.Conn)
		body   string
	}{
		"it takes no connection":    {"http", nil, "{}"},
		"it makes no handshake":     {"https", func(net.Conn) {}, "{}"},
		"it does not answer":        {"http", func(conn net.Conn) { takeRequest(bufio.NewReader(conn)) }, "{}"},
		"it reads nothing":          {"http", func(net.Conn) {}, strings.Repeat("x", 32<<20)},
		"it says nothing of import": {"http", onlyInformational, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			to := &url.URL{Scheme: c.scheme, Host: "127.0.0.1:9999", Path: "/"}
			client := clientFor(t)
			ended := make(chan struct{})
			if c.script != nil {
				to.Host = serving(t, func(conn net.Conn, _ int) {
					c.script(conn)
					<-ended
				})
			} else {
				client.http.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ended
					return nil, ctx.Err()
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err := client.Send(ctx, requestTo(to, c.body), 100)
			close(ended)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, time.Since(began), patience/2)
		})
	}
}

func onlyInformational(conn net.Conn) {
	if takeRequest(bufio.NewReader(conn)) {
		_, _ = io.WriteString(conn, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
	}
}

func TestConnectionsEndWhenTheClientCloses(t *testing.T) {
	asked, goOn := make(chan struct{}), make(chan struct{})
	first := make(chan struct{})
	to := receiverOf(t, func(conn net.Conn, before int) {
		in := bufio.NewReader(conn)
		for takeRequest(in) {
			if before == 0 {
				<-first
			} else {
				close(asked)
				<-goOn
			}
			_, _ = io.WriteString(conn, okAnswer)
		}
	})
	c := clientFor(t)
	d := watch(c)
	results := make(chan error, 2)
	for range 2 { // two connections, of which one becomes idle
		go func() {
			_, err := c.Send(context.WithoutCancel(t.Context()), requestTo(to, "{}"), 10)
			results <- err
		}()
	}
	<-asked
	close(first)
	require.NoError(t, <-results)
	c.Close()
	<-d.ended
	close(goOn)
	require.NoError(t, <-results, "a request under way goes on to its end")
}

// TestCallersThatLeaveAtAnyMomentHarmNobodyElse: those that stay each get the answer to
// what they sent, over the same connections.
func TestCallersThatLeaveAtAnyMomentHarmNobodyElse(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		_, _ = w.Write(body[:min(len(body), 50)])
	}
	for name, protocols := range map[string][]string{"http": nil, "https": {"http/1.1"}, "HTTP/2": {"h2"}, "through a proxy": {"http/1.1"}} {
		t.Run(name, func(t *testing.T) {
			c := clientFor(t)
			var to *url.URL
			switch name {
			case "http":
				to = plainServer(t, echo)
			case "through a proxy":
				at := secureServer(t, protocols, echo)
				c = throughProxy(t, &testProxy{to: at.address})
				trust(c, at)
				to = at.url()
			default:
				at := secureServer(t, protocols, echo)
				to = at.url()
				at.reach(c)
			}
			var wg sync.WaitGroup
			for who := range 16 {
				rng := rand.New(rand.NewPCG(uint64(who), 1))
				wg.Go(func() {
					for i := range 40 {
						body := fmt.Sprintf("%d/%d ", who, i)
						want := body
						if rng.IntN(3) == 0 {
							body += strings.Repeat("x", rng.IntN(200_000))
							want = body[:min(len(body), 50)]
						}
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						stays := who%2 == 0
						if !stays {
							cancel()
							ctx, cancel = context.WithTimeout(t.Context(), time.Duration(rng.IntN(3000))*time.Microsecond)
						}
						ans, err := c.Send(ctx, requestTo(to, body), 100)
						cancel()
						if stays && err != nil {
							t.Errorf("one that stayed: %v", err)
						}
						if err == nil && len(ans.Body) > 0 && !strings.HasPrefix(want, string(ans.Body)) {
							t.Errorf("sent %.60q, got the answer %q", want, ans.Body)
						}
						if stays && err == nil && string(ans.Body) != want {
							t.Errorf("sent %.60q, got the answer %q", want, ans.Body)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
