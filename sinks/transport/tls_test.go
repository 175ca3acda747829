package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestReceiversWithTLSAreVerified(t *testing.T) {
	greet := func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.TLS.ServerName, " ", r.Proto) }
	for name, c := range map[string]struct {
		protocols []string
		want      string
	}{
		"HTTP/1.1":      {[]string{"http/1.1"}, "example.com HTTP/1.1"},
		"HTTP/2 or 1.1": {[]string{"h2", "http/1.1"}, "example.com HTTP/2.0"},
		"HTTP/2 only":   {[]string{"h2"}, "example.com HTTP/2.0"},
		"no ALPN":       {nil, "example.com HTTP/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			at := secureServer(t, c.protocols, greet)
			client := at.reach(clientFor(t))
			d := watch(client)
			for range 5 {
				ans, err := send(t, client, requestTo(at.url(), strings.Repeat("x", 100<<10)))
				require.NoError(t, err)
				require.Equal(t, c.want, string(ans.Body))
			}
			require.Equal(t, int64(1), d.count.Load())

			unknown := clientFor(t)
			lead(unknown, at.address)
			_, err := send(t, unknown, requestTo(at.url(), "{}"))
			require.ErrorContains(t, err, "certificate signed by unknown authority")

			other := at.reach(clientFor(t))
			_, err = send(t, other, requestTo(&url.URL{Scheme: "https", Host: "other.example"}, "{}"))
			require.ErrorContains(t, err, "other.example")
		})
	}
}

func TestACertificateThatHasExpiredIsRefused(t *testing.T) {
	cert := certificate(t, time.Now().Add(-time.Hour), "example.com")
	var got atomic.Int64
	address := serving(t, func(raw net.Conn, _ int) {
		conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
		n, _ := io.Copy(io.Discard, conn)
		got.Add(n)
	})
	c := place{address, cert.Leaf}.reach(clientFor(t))
	_, err := send(t, c, requestTo(&url.URL{Scheme: "https", Host: "example.com"}, "{}"))
	require.ErrorContains(t, err, "expired")
	require.Zero(t, got.Load())
}

func TestAReceiverWithOldTLSOrNoneIsRefused(t *testing.T) {
	cert := certificate(t, time.Now().Add(time.Hour), "example.com")
	for name, script := range map[string]func(net.Conn, int){
		"TLS 1.1": func(raw net.Conn, _ int) {
			_ = tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).HandshakeContext(context.Background())
		},
		"HTTP without TLS": answering(okAnswer),
	} {
		t.Run(name, func(t *testing.T) {
			c := place{serving(t, script), cert.Leaf}.reach(clientFor(t))
			_, err := send(t, c, requestTo(&url.URL{Scheme: "https", Host: "example.com"}, "{}"))
			require.Error(t, err)
		})
	}
}

func TestManyRequestsShareAConnectionOfHTTP2(t *testing.T) {
	arrived := make(chan struct{}, 100)
	goOn := make(chan struct{})
	at := secureServer(t, []string{"h2"}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) != "first" {
			arrived <- struct{}{}
			<-goOn
		}
		w.Header().Set("Trailer", "X-Sum")
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", "1")
	})
	c := at.reach(clientFor(t))
	d := watch(c)
	_, err := send(t, c, requestTo(at.url(), "first"))
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			body := fmt.Sprint("request ", i)
			ans, err := c.Send(t.Context(), requestTo(at.url(), body), 100)
			if err != nil || string(ans.Body) != body {
				t.Errorf("%v: %v", ans, err)
			}
		})
	}
	for range 50 {
		<-arrived
	}
	close(goOn)
	wg.Wait()
	require.Equal(t, int64(1), d.count.Load())
}

// framed is the receiver's side of an HTTP/2 connection, frame by frame.
type framed struct {
	*http2.Framer
	conn net.Conn
}

// accept reads what a connection begins with.
func accept(conn net.Conn) (*framed, bool) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return nil, false
	}
	f := &framed{http2.NewFramer(conn, conn), conn}
	return f, f.WriteSettings() == nil
}

// request reads up to the end of the next request.
func (f *framed) request() (stream uint32, ok bool) {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return 0, false
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			_ = f.WritePing(true, frame.Data)
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return frame.StreamID, true
			}
		}
	}
}

// answer answers with a status and a body; without its end when it is to go on.
func (f *framed) answer(stream uint32, status, body string, ends bool) {
	var head strings.Builder
	_ = hpack.NewEncoder(&head).WriteField(hpack.HeaderField{Name: ":status", Value: status})
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(head.String()), EndHeaders: true})
	_ = f.WriteData(stream, ends, []byte(body))
}

func TestWhatAReceiverOfHTTP2DoesToAStream(t *testing.T) {
	for name, c := range map[string]struct {
		first    func(f *framed, stream uint32) // what becomes of the first request
		requests int64                          // that arrive
		status   int                            // 0 for an error
		body     string
	}{
		"answers": {func(f *framed, s uint32) { f.answer(s, "200", "hello", true) }, 1, 200, "hello"},
		"shuts down before it": {func(f *framed, _ uint32) {
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
		}, 2, 201, "second"},
		"shuts down after it": {func(f *framed, s uint32) {
			_ = f.WriteGoAway(s, http2.ErrCodeNo, nil)
			f.answer(s, "200", "hello", true)
		}, 1, 200, "hello"},
		"refuses it": {func(f *framed, s uint32) { _ = f.WriteRSTStream(s, http2.ErrCodeRefusedStream) }, 2, 201, "second"},
		"fails it":   {func(f *framed, s uint32) { _ = f.WriteRSTStream(s, http2.ErrCodeInternal) }, 1, 0, ""},
		"cancels it in the middle of its answer": {func(f *framed, s uint32) {
			f.answer(s, "503", "hal", false)
			_ = f.WriteRSTStream(s, http2.ErrCodeCancel)
		}, 1, 503, "hal"},
		"ends the connection":                             {func(f *framed, _ uint32) { _ = f.conn.Close() }, 1, 0, ""},
		"ends the connection in the middle of its answer": {func(f *framed, s uint32) { f.answer(s, "503", "hal", false); _ = f.conn.Close() }, 1, 503, "hal"},
		"breaks the protocol":                             {func(f *framed, _ uint32) { _ = f.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{1}) }, 1, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int64
			at := tlsServing(t, []string{"h2"}, func(conn *tls.Conn, _ int) {
				f, ok := accept(conn)
				if !ok {
					return
				}
				for {
					stream, ok := f.request()
					if !ok {
						return
					}
					if requests.Add(1) == 1 {
						c.first(f, stream)
					} else {
						f.answer(stream, "201", "second", true)
					}
				}
			})
			client := at.reach(clientFor(t))
			ans, err := send(t, client, requestTo(at.url(), "{}"))
			require.Equal(t, c.requests, requests.Load())
			if c.status == 0 {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.status, ans.Status)
			require.True(t, strings.HasPrefix(c.body, string(ans.Body)), "%q", ans.Body)
		})
	}
}

func TestTheDeadlineIsKeptOverHTTP2AndOthersGoOn(t *testing.T) {
	at := tlsServing(t, []string{"h2"}, func(conn *tls.Conn, _ int) {
		f, ok := accept(conn)
		for first := true; ok; first = false {
			var stream uint32
			if stream, ok = f.request(); ok && !first {
				f.answer(stream, "200", "", true)
			}
		}
	})
	c := at.reach(clientFor(t))
	d := watch(c)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.Send(ctx, requestTo(at.url(), "{}"), 100)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	ans, err := send(t, c, requestTo(at.url(), "{}"))
	require.NoError(t, err)
	require.Equal(t, 200, ans.Status)
	require.Equal(t, int64(1), d.count.Load())
}

func TestAnAnswerOverHTTP2HasABoundedHead(t *testing.T) {
	at := secureServer(t, []string{"h2"}, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 100 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1<<10))
		}
	})
	_, err := send(t, at.reach(clientFor(t)), requestTo(at.url(), "{}"))
	require.Error(t, err)
}

func TestEveryNewConnectionIsGuarded(t *testing.T) {
	c := New(Config{})
	for _, target := range []string{"http://127.0.0.1:8080/", "https://127.0.0.1/", "https://[::1]/", "https://localhost/", "http://169.254.169.254/"} {
		to, err := url.Parse(target)
		require.NoError(t, err)
		_, err = send(t, c, requestTo(to, "{}"))
		var blocked *BlockedError
		require.ErrorAs(t, err, &blocked, target)
	}
}

func TestTheAddressDialledComesFromTheURL(t *testing.T) {
	// Proxies of the environment are not used.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	for target, want := range map[string]string{
		"http://example.com/": "example.com:80", "https://example.com/": "example.com:443", "https://example.com:8443/": "example.com:8443",
		"http://[::1]/": "[::1]:80", "https://[2001:db8::1]:444/": "[2001:db8::1]:444",
	} {
		to, err := url.Parse(target)
		require.NoError(t, err)
		c := clientFor(t)
		var got string
		c.http.DialContext = func(_ context.Context, _, address string) (net.Conn, error) {
			got = address
			return nil, io.EOF
		}
		_, err = send(t, c, requestTo(to, "{}"))
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, want, got)
	}
}
