package transport

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
	req.Header["Authorization"] = []string{"Bearer x"}
	ans, err := send(t, clientFor(t), req)
	require.NoError(t, err)
	require.Equal(t, 200, ans.Status)
	require.Equal(t, "POST /a%20b?c=d&e HTTP/1.1\r\nHost: "+to.Host+"\r\nUser-Agent: Hogstream/test\r\nContent-Length: 7\r\n"+
		"Authorization: Bearer x\r\nContent-Type: application/json\r\n\r\n"+`{"a":1}`, <-got)
}

func TestAHeaderThatWouldEndTheHeadIsNotSent(t *testing.T) {
	c := clientFor(t)
	d := watch(c)
	for name, value := range map[string]string{"X-Custom": "one\r\nInjected: yes", "X-Nul": "\x00", "X Space": "v"} {
		req := requestTo(&url.URL{Scheme: "http", Host: "127.0.0.1:1"}, "{}")
		req.Header[name] = []string{value}
		_, err := send(t, c, req)
		require.ErrorContains(t, err, "invalid header")
	}
	require.Zero(t, d.count.Load())
}

func TestAnAnswerIsReadAsFarAsItIsKeptAndItsConnectionUsedAgainWhenItEnds(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\n"
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
		{"a body that is no text", head + "Content-Length: 3\r\n\r\na\x00\xff", "a\uFFFD\uFFFD", 200, true},
		{"a character that is cut in two", head + "Content-Length: 11\r\n\r\n012345678é", "012345678", 200, true},
		{"chunks", head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n you\r\n0\r\n\r\n", "hello you", 200, true},
		{"chunks and a trailer", head + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n", "hello", 200, true},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", "", 204, true},
		{"304 that names a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "", 304, true},
		{"100 before it", "HTTP/1.1 100 Continue\r\n\r\n" + okAnswer, "", 200, true},
		{"103 before it", "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n" + okAnswer, "", 200, true},
		{"several before it", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + okAnswer, "", 200, true},
		{"a redirect", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n", "", 302, true},
		{"the receiver wants to end it", head + "Connection: close\r\nContent-Length: 0\r\n\r\n", "", 200, false},
		{"the end of the connection ends it", head + "Connection: close\r\n\r\nhello", "hello", 200, false},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "", 200, false},
		{"another protocol from here on", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello", "", 101, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var cookies atomic.Int64
			to := receiverOf(t, func(conn net.Conn, _ int) {
				in := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					cookies.Add(int64(len(req.Cookies())))
					_, _ = io.Copy(io.Discard, req.Body)
					_, _ = io.WriteString(conn, c.answer)
					if strings.Contains(c.answer, "close") && !strings.Contains(c.answer, "Length") {
						return
					}
				}
			})
			client := clientFor(t)
			d := watch(client)
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				ans, err := client.Send(ctx, requestTo(to, "{}"), 10)
				cancel()
				require.NoError(t, err)
				require.Equal(t, c.status, ans.Status)
				require.Equal(t, c.body, string(ans.Body))
				if !c.again {
					<-d.ended
				}
			}
			want := int64(2)
			if c.again {
				want = 1
			}
			require.Equal(t, want, d.count.Load())
			require.Zero(t, cookies.Load())
		})
	}
}

func TestAnAnswerThatIsNoneFails(t *testing.T) {
	for name, c := range map[string]struct{ answer, inError string }{
		"another protocol":           {"220 mail.example.com ESMTP\r\n", "malformed"},
		"nothing":                    {"", "no answer"},
		"half a head":                {"HTTP/1.1 200 OK\r\nX: y\r\n", "EOF"},
		"one endless header":         {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100<<10), "exceeded"},
		"headers without end":        {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: x\r\n", 20<<10), "exceeded"},
		"informational without end":  {strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 10_000), "exceeded"},
		"two lengths":                {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "Content-Length"},
		"a length that is no number": {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "Content-Length"},
	} {
		t.Run(name, func(t *testing.T) {
			to := receiverOf(t, func(conn net.Conn, _ int) {
				if takeRequest(bufio.NewReader(conn)) {
					_, _ = io.WriteString(conn, c.answer)
				}
			})
			_, err := send(t, clientFor(t), requestTo(to, "{}"))
			require.ErrorContains(t, err, c.inError)
		})
	}
}

func TestABodyThatDripsOrNeverEndsIsCutAndItsConnectionEnded(t *testing.T) {
	t.Parallel()
	for name, drips := range map[string]bool{"drips": true, "never ends": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := receiverOf(t, func(conn net.Conn, _ int) {
				if !takeRequest(bufio.NewReader(conn)) {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
				if drips {
					untilItEnds(conn)
				}
				for err := error(nil); err == nil; {
					_, err = io.WriteString(conn, "4\r\nmore\r\n")
				}
			})
			c := clientFor(t)
			d := watch(c)
			began := time.Now()
			ans, err := send(t, c, requestTo(to, "{}"))
			require.NoError(t, err)
			require.Equal(t, 503, ans.Status)
			require.True(t, strings.HasPrefix(string(ans.Body), "half"))
			require.LessOrEqual(t, len(ans.Body), 100)
			require.Less(t, time.Since(began), patience/2)
			<-d.ended
		})
	}
}

func TestALargeRequestMayBeAnsweredBeforeItWasReadToTheEnd(t *testing.T) {
	for name, then := range map[string]func(net.Conn){
		"and the connection ended":       func(conn net.Conn) { _ = conn.(*net.TCPConn).CloseWrite(); untilItEnds(conn) },
		"and the connection reset":       reset,
		"and the rest taken":             untilItEnds,
		"and the rest of it never taken": nil,
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			to := receiverOf(t, func(conn net.Conn, _ int) {
				_, _ = bufio.NewReaderSize(conn, 16).Peek(1)
				_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch")
				if then != nil {
					then(conn)
				}
				<-done
			})
			c := clientFor(t)
			d := watch(c)
			ans, err := send(t, c, requestTo(to, strings.Repeat("x", 32<<20)))
			close(done)
			c.Close() // it may be idle already
			<-d.ended
			if err != nil { // the system may throw away what was received when the connection is reset
				require.Contains(t, name, "reset")
				return
			}
			require.Equal(t, 413, ans.Status)
			require.Equal(t, "much", string(ans.Body))
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
	c := clientFor(t)
	d := watch(c)
	for range 5 {
		_, err := send(t, c, requestTo(to, want))
		require.NoError(t, err)
	}
	require.Equal(t, int64(5), bodies.Load())
	require.Equal(t, int64(1), d.count.Load())
}
