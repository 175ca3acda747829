package sinks

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// receiverOf serves each connection with a script of its own, which is told how
// many there were before. What it returns from ends the connection.
func receiverOf(t testing.TB, script func(conn net.Conn, before int)) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var served sync.WaitGroup
	open := make(chan net.Conn, 1000)
	t.Cleanup(func() {
		_ = l.Close()
		for len(open) > 0 {
			_ = (<-open).Close()
		}
		served.Wait()
	})
	served.Go(func() {
		for before := 0; ; before++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open <- conn
			served.Go(func() {
				defer conn.Close()
				script(conn, before)
			})
		}
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/hook"}
}

// takeRequest reads one request to its end; false when there is none.
func takeRequest(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err == nil
}

// answering gives each request the next of the answers, the last one for ever.
func answering(answers ...string) func(net.Conn, int) {
	return func(conn net.Conn, _ int) {
		in := bufio.NewReader(conn)
		for i := 0; takeRequest(in); i++ {
			if _, err := io.WriteString(conn, answers[min(i, len(answers)-1)]); err != nil {
				return
			}
		}
	}
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

func connectionsFor(t testing.TB) *connections {
	cfg := Config{AllowLoopback: true}.withDefaults()
	cs := newConnections(cfg, NewGuard(cfg))
	t.Cleanup(cs.close)
	return cs
}

func requestTo(to *url.URL, body string) *Request {
	return &Request{URL: to, Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Hogstream/test"}}, Body: []byte(body)}
}

// dials counts the connections made.
func (cs *connections) dials() *atomic.Int64 {
	var n atomic.Int64
	dial := cs.dial
	cs.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		n.Add(1)
		return dial(ctx, network, address)
	}
	return &n
}

func TestTheBytesOfARequest(t *testing.T) {
	got := make(chan string, 1)
	to := receiverOf(t, func(conn net.Conn, _ int) {
		var all bytes.Buffer
		if takeRequest(bufio.NewReader(io.TeeReader(conn, &all))) {
			got <- all.String()
			_, _ = io.WriteString(conn, okAnswer)
		}
	})
	to.Path, to.RawQuery = "/a b", "c=d&e"
	req := requestTo(to, `{"a":1}`)
	req.Header["X-Custom"] = []string{"one\r\nInjected: yes"}
	req.Header["Authorization"] = []string{"Bearer x"}
	ans, err := connectionsFor(t).exchange(t.Context(), req, 100)
	require.NoError(t, err)
	require.Equal(t, 200, ans.Status)
	require.Equal(t, "POST /a%20b?c=d&e HTTP/1.1\r\nHost: "+to.Host+"\r\nUser-Agent: Hogstream/test\r\nContent-Length: 7\r\n"+
		"Authorization: Bearer x\r\nContent-Type: application/json\r\nX-Custom: one  Injected: yes\r\n\r\n"+`{"a":1}`, <-got)
}

func TestAConnectionServesTheNextAttemptWhenItsAnswerWasReadToTheEnd(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name, answer, body string
		status             int
		again              bool
	}{
		{"no body", okAnswer, "", 200, true},
		{"a body", head + "Content-Length: 5\r\n\r\nhello", "hello", 200, true},
		{"a body of just what is kept", head + "Content-Length: 10\r\n\r\n0123456789", "0123456789", 200, true},
		{"a body longer than what is kept", head + "Content-Length: 12\r\n\r\n0123456789ab", "0123456789", 200, true},
		{"a body longer than what is read", head + "Content-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000), "xxxxxxxxxx", 200, false},
		{"chunks", head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n you\r\n0\r\n\r\n", "hello you", 200, true},
		{"chunks and a trailer", head + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n", "hello", 200, true},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", "", 204, true},
		{"304 that names a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "", 304, true},
		{"informational answers before it", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + okAnswer, "", 200, true},
		{"the receiver wants to end it", head + "Connection: close\r\nContent-Length: 0\r\n\r\n", "", 200, false},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "", 200, false},
		{"another protocol from here on", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "", 101, false},
		{"bytes behind the answer", okAnswer + "HTTP/1.1 500 Not Asked For\r\n\r\n", "", 200, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := receiverOf(t, answering(c.answer))
			cs := connectionsFor(t)
			dials := cs.dials()
			for range 2 {
				ans, err := cs.exchange(t.Context(), requestTo(to, "{}"), 10)
				require.NoError(t, err)
				require.Equal(t, c.status, ans.Status)
				require.Equal(t, c.body, string(ans.Body))
			}
			want := int64(2)
			if c.again {
				want = 1
			}
			require.Equal(t, want, dials.Load())
		})
	}
}

func TestAnAnswerThatIsNoneFails(t *testing.T) {
	for name, c := range map[string]struct{ answer, inError string }{
		"another protocol":           {"220 mail.example.com ESMTP\r\n", "malformed"},
		"nothing":                    {"", "no answer"},
		"half a head":                {"HTTP/1.1 200 OK\r\nX: y\r\n", "EOF"},
		"one endless header":         {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100<<10), "longer than 65536"},
		"headers without end":        {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: x\r\n", 20<<10), "longer than 65536"},
		"informational without end":  {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000), "informational"},
		"two lengths":                {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "Content-Length"},
		"a length that is no number": {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "Content-Length"},
	} {
		t.Run(name, func(t *testing.T) {
			to := receiverOf(t, func(conn net.Conn, _ int) {
				if takeRequest(bufio.NewReader(conn)) {
					_, _ = io.WriteString(conn, c.answer)
				}
			})
			_, err := connectionsFor(t).exchange(t.Context(), requestTo(to, "{}"), 10)
			require.ErrorContains(t, err, c.inError)
		})
	}
}

func TestAnIdleConnectionThatTheReceiverEndedIsNotUsed(t *testing.T) {
	to := receiverOf(t, func(conn net.Conn, _ int) {
		if takeRequest(bufio.NewReader(conn)) {
			_, _ = io.WriteString(conn, okAnswer) // and ends it, without having said so
		}
	})
	cs := connectionsFor(t)
	dials := cs.dials()
	for range 20 {
		ans, err := cs.exchange(t.Context(), requestTo(to, "{}"), 10)
		require.NoError(t, err)
		require.Equal(t, 200, ans.Status)
		awaitEnd(t, cs, to)
	}
	require.Equal(t, int64(20), dials.Load())
}

// awaitEnd returns when the receiver's end of the idle connection has come here.
func awaitEnd(t *testing.T, cs *connections, to *url.URL) {
	t.Helper()
	idle := cs.idle[endpoint{to.Scheme, to.Host}]
	require.Len(t, idle, 1)
	_, _ = io.Copy(io.Discard, idle[0].socket)
}

func TestARequestOfWhichAnIdleConnectionTookNothingIsSentOnAnother(t *testing.T) {
	for name, body := range map[string]string{"small": "{}", "large": strings.Repeat("x", 1<<20)} {
		t.Run(name, func(t *testing.T) {
			to := receiverOf(t, answering(okAnswer))
			cs := connectionsFor(t)
			_, err := cs.exchange(t.Context(), requestTo(to, "{}"), 10)
			require.NoError(t, err)
			broken := cs.idle[endpoint{to.Scheme, to.Host}][0]
			broken.conn = unwritable{broken.conn}
			_, err = cs.exchange(t.Context(), requestTo(to, body), 10)
			require.NoError(t, err)
			require.NotContains(t, cs.idle[endpoint{to.Scheme, to.Host}], broken)

			// A new connection gets no second chance.
			dials := cs.dials()
			dial := cs.dial
			cs.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				return unwritable{conn}, err
			}
			to.Host = strings.Replace(to.Host, "127.0.0.1", "localhost", 1) // nothing is idle there
			short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err = cs.exchange(short, requestTo(to, body), 10)
			require.Error(t, err)
			require.Equal(t, int64(1), dials.Load())
		})
	}
}

// unwritable is a connection that takes nothing.
type unwritable struct{ net.Conn }

func (unwritable) Write([]byte) (int, error) { return 0, syscallError{} }

type syscallError struct{}

func (syscallError) Error() string { return "broken pipe" }

func TestARequestThatMayHaveArrivedIsNotSentTwice(t *testing.T) {
	var requests atomic.Int64
	to := receiverOf(t, func(conn net.Conn, _ int) {
		in := bufio.NewReader(conn)
		for first := true; takeRequest(in); first = false {
			requests.Add(1)
			if !first {
				return
			}
			_, _ = io.WriteString(conn, okAnswer)
		}
	})
	cs := connectionsFor(t)
	_, err := cs.exchange(t.Context(), requestTo(to, "{}"), 10)
	require.NoError(t, err)
	_, err = cs.exchange(t.Context(), requestTo(to, "{}"), 10)
	require.ErrorContains(t, err, "no answer")
	require.Equal(t, int64(2), requests.Load())
}

// stopwatch is a context whose time may be over before anybody has said so, as in a
// process that was stopped and runs again.
type stopwatch struct {
	context.Context
	deadline atomic.Pointer[time.Time]
}

func (s *stopwatch) Deadline() (time.Time, bool) { return *s.deadline.Load(), true }

func TestAnAttemptWhoseTimeRanOutWhileTheProcessWasStoppedSendsNothing(t *testing.T) {
	bodies := make(chan string, 2)
	to := receiverOf(t, func(conn net.Conn, _ int) {
		in := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			bodies <- string(body)
			_, _ = io.WriteString(conn, okAnswer)
		}
	})
	later, before := time.Now().Add(time.Hour), time.Now()
	ctx := &stopwatch{Context: t.Context()}
	ctx.deadline.Store(&later)
	cs := connectionsFor(t)
	dial := cs.dial
	cs.dial = func(c context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(c, network, address)
		ctx.deadline.Store(&before) // it was stopped here
		return conn, err
	}
	dials := cs.dials()
	_, err := cs.exchange(ctx, requestTo(to, "the first"), 10)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = cs.exchange(t.Context(), requestTo(to, "the second"), 10)
	require.NoError(t, err)
	require.Equal(t, "the second", <-bodies, "what the receiver got")
	require.Equal(t, int64(1), dials.Load(), "connections")
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
			silent, gone := make(chan struct{}), make(chan struct{})
			to := receiverOf(t, func(conn net.Conn, _ int) {
				in := bufio.NewReader(conn)
				if !c.reads {
					_, _ = in.Peek(1)
					close(silent)
					<-gone
					return
				}
				takeRequest(in)
				_, _ = io.WriteString(conn, c.answer)
				close(silent)
				_, _ = in.ReadByte() // until the sender ends it
				close(gone)
			})
			cs := connectionsFor(t)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-silent
				cancel()
			}()
			started := time.Now()
			ans, err := cs.exchange(ctx, requestTo(to, c.body), 100)
			require.Less(t, time.Since(started), bodyTime)
			if err == nil { // the status was read before the end came
				require.Equal(t, c.status, ans.Status)
			} else {
				require.Equal(t, "attempt was cancelled", failed(ctx, err, time.Second).Err)
			}
			if !c.reads {
				close(gone)
			}
			<-gone
			require.Empty(t, cs.idle)
		})
	}
}

func TestALargeRequestIsAnsweredBeforeItWasReadToTheEnd(t *testing.T) {
	for name, then := range map[string]func(net.Conn){
		"and the connection ended": func(conn net.Conn) { _ = conn.Close() },
		"and the rest never taken": func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			answered := make(chan struct{})
			to := receiverOf(t, func(conn net.Conn, _ int) {
				_, _ = bufio.NewReaderSize(conn, 16).Peek(1)
				_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch")
				then(conn)
				<-answered
			})
			cs := connectionsFor(t)
			ans, err := cs.exchange(t.Context(), requestTo(to, strings.Repeat("x", 32<<20)), 100)
			close(answered)
			if err != nil { // the system may throw away what was received when the connection is reset
				require.ErrorContains(t, err, "reset")
				return
			}
			require.Equal(t, 413, ans.Status)
			require.Equal(t, "much", string(ans.Body))
			require.Empty(t, cs.idle)
		})
	}
}

func TestALargeRequestArrivesWholeAndItsConnectionIsUsedAgain(t *testing.T) {
	var bodies atomic.Int64
	want := strings.Repeat("0123456789", 1<<19)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == want {
			bodies.Add(1)
		}
	}))
	defer s.Close()
	to, err := url.Parse(s.URL)
	require.NoError(t, err)
	cs := connectionsFor(t)
	dials := cs.dials()
	for range 5 {
		_, err := cs.exchange(t.Context(), requestTo(to, want), 100)
		require.NoError(t, err)
	}
	require.Equal(t, int64(5), bodies.Load())
	require.Equal(t, int64(1), dials.Load())
}

func TestIdleConnectionsAreBoundedAHostAndEndedInTime(t *testing.T) {
	gone := make(chan struct{}, 10)
	arrived := make(chan struct{}, 10)
	release := make(chan struct{})
	to := receiverOf(t, func(conn net.Conn, _ int) {
		in := bufio.NewReader(conn)
		if takeRequest(in) {
			arrived <- struct{}{}
			<-release
			_, _ = io.WriteString(conn, okAnswer)
		}
		_, _ = in.ReadByte()
		gone <- struct{}{}
	})
	cs := connectionsFor(t)
	cs.perHost = 3
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			_, err := cs.exchange(t.Context(), requestTo(to, "{}"), 10)
			require.NoError(t, err)
		})
	}
	for range 5 {
		<-arrived
	}
	close(release)
	all.Wait()
	for range 2 {
		<-gone
	}
	cs.drop(time.Now().Add(idleTime / 2))
	require.Len(t, cs.idle[endpoint{to.Scheme, to.Host}], 3)
	cs.drop(time.Now().Add(idleTime))
	require.Empty(t, cs.idle)
	for range 3 {
		<-gone
	}
}

func TestConnectionsEndWhenTheDelivererCloses(t *testing.T) {
	gone, asked, goOn := make(chan struct{}, 2), make(chan struct{}), make(chan struct{})
	to := receiverOf(t, func(conn net.Conn, before int) {
		in := bufio.NewReader(conn)
		if takeRequest(in) {
			if before == 1 {
				close(asked)
				<-goOn
			}
			_, _ = io.WriteString(conn, okAnswer)
		}
		_, _ = in.ReadByte()
		gone <- struct{}{}
	})
	cs := connectionsFor(t)
	kept, err := cs.take(t.Context(), to)
	require.NoError(t, err)
	_, whole, err := kept.exchange(requestTo(to, "{}"), 10)
	require.NoError(t, err)
	require.True(t, whole)
	result := make(chan error, 1)
	go func() {
		_, err := cs.exchange(t.Context(), requestTo(to, "{}"), 10)
		result <- err
	}()
	<-asked
	cs.keep(kept)
	cs.close()
	<-gone // the idle one
	close(goOn)
	require.NoError(t, <-result, "an attempt in flight goes on to its end")
	<-gone
	require.Empty(t, cs.idle)
}

func TestReceiversWithTLSAreVerified(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.TLS.ServerName, r.TLS.NegotiatedProtocol)
	}))
	s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	s.StartTLS()
	defer s.Close()
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	at := func(cs *connections, host string) *url.URL {
		dial := cs.dial
		cs.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			require.Equal(t, net.JoinHostPort(host, port), address)
			return dial(ctx, network, s.Listener.Addr().String())
		}
		return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
	}

	unknown := connectionsFor(t)
	_, err = unknown.exchange(t.Context(), requestTo(at(unknown, "example.com"), "{}"), 100)
	require.ErrorContains(t, err, "certificate signed by unknown authority")

	other := connectionsFor(t)
	other.tls.RootCAs = roots
	_, err = other.exchange(t.Context(), requestTo(at(other, "other.example"), "{}"), 100)
	require.ErrorContains(t, err, "other.example")

	known := connectionsFor(t)
	known.tls.RootCAs = roots
	to := at(known, "example.com")
	dials := known.dials()
	for range 5 {
		ans, err := known.exchange(t.Context(), requestTo(to, strings.Repeat("x", 100<<10)), 100)
		require.NoError(t, err)
		require.Equal(t, "example.comhttp/1.1", string(ans.Body))
	}
	require.Equal(t, int64(1), dials.Load())

	s.CloseClientConnections()
	awaitEnd(t, known, to)
	_, err = known.exchange(t.Context(), requestTo(to, "{}"), 100)
	require.NoError(t, err)
	require.Equal(t, int64(2), dials.Load())
}

func TestWhatComesBehindAnAnswerOverTLSEndsTheConnection(t *testing.T) {
	donor := httptest.NewTLSServer(nil)
	defer donor.Close()
	to := receiverOf(t, func(socket net.Conn, _ int) {
		together := &bundle{Conn: socket}
		conn := tls.Server(together, donor.TLS.Clone())
		in := bufio.NewReader(conn)
		for takeRequest(in) {
			// One record with the answer, one with what nobody asked for.
			together.hold = true
			_, _ = io.WriteString(conn, okAnswer)
			_, _ = io.WriteString(conn, "HTTP/1.1 500 Not Asked For\r\nContent-Length: 0\r\n\r\n")
			together.hold = false
			_, _ = socket.Write(together.held.Bytes())
			together.held.Reset()
		}
	})
	to.Scheme = "https"
	cs := connectionsFor(t)
	cs.tls.RootCAs = x509.NewCertPool()
	cs.tls.RootCAs.AddCert(donor.Certificate())
	for range 50 {
		ans, err := cs.exchange(t.Context(), requestTo(to, "{}"), 100)
		require.NoError(t, err)
		require.Equal(t, 200, ans.Status)
	}
}

// bundle holds writes back, for what is to arrive at once.
type bundle struct {
	net.Conn
	hold bool
	held bytes.Buffer
}

func (b *bundle) Write(p []byte) (int, error) {
	if b.hold {
		return b.held.Write(p)
	}
	return b.Conn.Write(p)
}

func TestTheTimeOfAnAttemptCoversTheHandshake(t *testing.T) {
	done := make(chan struct{})
	to := receiverOf(t, func(net.Conn, int) { <-done })
	defer close(done)
	to.Scheme = "https"
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := connectionsFor(t).exchange(ctx, requestTo(to, "{}"), 100)
	require.Error(t, err)
	require.Contains(t, failed(ctx, err, 50*time.Millisecond).Err, "timeout after")
}

func TestEveryNewConnectionIsGuarded(t *testing.T) {
	cs := newConnections(Config{MaxIdlePerHost: 1}, NewGuard(Config{}))
	for _, target := range []string{"http://127.0.0.1:8080/", "https://127.0.0.1/", "https://[::1]/", "https://localhost/", "http://169.254.169.254/"} {
		to, err := url.Parse(target)
		require.NoError(t, err)
		_, err = cs.exchange(t.Context(), requestTo(to, "{}"), 100)
		var blocked *BlockedError
		require.ErrorAs(t, err, &blocked, target)
	}
}

func TestTheAddressDialledComesFromTheURL(t *testing.T) {
	cs := connectionsFor(t)
	for target, want := range map[string]string{
		"http://example.com/": "example.com:80", "https://example.com/": "example.com:443", "https://example.com:8443/": "example.com:8443",
		"http://[::1]/": "[::1]:80", "https://[2001:db8::1]:444/": "[2001:db8::1]:444",
	} {
		to, err := url.Parse(target)
		require.NoError(t, err)
		var got string
		cs.dial = func(_ context.Context, _, address string) (net.Conn, error) {
			got = address
			return nil, io.EOF
		}
		_, err = cs.exchange(t.Context(), requestTo(to, "{}"), 100)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, want, got)
	}
}
