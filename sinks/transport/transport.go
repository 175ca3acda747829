// Package transport makes the requests of destinations, over net/http, and guards
// the connections they go over.
//
// What it promises:
//   - A request ends in an answer or an error by the deadline of its context.
//     Nothing of it is sent once that has passed.
//   - No connection is made to an address that the operator has not allowed: the
//     check is on the address dialled, after DNS. Behind a proxy, which resolves
//     names itself, names and addresses are checked before the request.
//   - Redirects are not followed, cookies are not kept, and proxies of the
//     environment (HTTP_PROXY and the like) are not used.
//   - Of an answer no more is held in memory than the caller asks for, and a head of
//     64 KiB.
//
// # When a request is sent a second time
//
// The rules of net/http hold. A request is sent again, on another connection, when
// none of it was written to one that had been idle (which is known of requests that
// fit into a buffer of 4 KiB), or when an HTTP/2 receiver says
// that it has not processed it (GOAWAY below its stream, REFUSED_STREAM) or ends its
// stream with PROTOCOL_ERROR, as servers do that are shutting down. Any other failure
// is the caller's to judge: what was written may have arrived.
//
// There is one exception, and it is the user's choice: net/http regards a request
// with a header Idempotency-Key or X-Idempotency-Key as safe to repeat, and sends it
// again when an idle connection ends before the answer begins.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"sync/atomic"
	"time"
)

const (
	dialTime      = 10 * time.Second
	handshakeTime = 10 * time.Second
	// proxyTime is how long a proxy may take until it has connected us to a receiver,
	// the handshake with that included.
	proxyTime = 20 * time.Second
	// idleTime is how long a connection is kept without being used.
	idleTime = 90 * time.Second
	// idlePerHost bounds the idle connections to one host. Connections in use are
	// bounded by the concurrency of the destinations.
	idlePerHost = 512
	// answerHead bounds the status line and the headers of an answer, with the
	// informational answers before it.
	answerHead = 64 << 10
	// bodyTime bounds the reading of the body once the status is known: the
	// status decides, and nobody should wait for a receiver that drips.
	bodyTime = 2 * time.Second
	// drainedOfAnswer is how much more of a body is read than is kept, in the hope
	// of its end, so that the connection can be used again.
	drainedOfAnswer = 16 << 10
	// pingAfter is how long an HTTP/2 connection may be silent before it is asked
	// whether anybody is there, and pingTime how long the answer may take. Many
	// requests share one, so one that is dead would fail them all.
	pingAfter = 10 * time.Second
	pingTime  = 5 * time.Second
)

// Config says where connections may lead, and which way they take.
type Config struct {
	// AllowLoopback permits receivers on this machine. For development.
	AllowLoopback bool
	// AllowHTTP permits receivers without TLS. Receivers on loopback and on
	// allowed networks may always do without.
	AllowHTTP bool
	// AllowNetworks are private networks in which receivers may stand.
	AllowNetworks []netip.Prefix
	// Proxy is what all requests go through, as [ParseProxy] returns it; nil for
	// none. It may stand anywhere: the operator has named it.
	Proxy *url.URL
}

// Client sends requests, over HTTP/1.1 or, where the receiver speaks it over TLS,
// HTTP/2. It is safe for concurrent use.
type Client struct {
	guard *Guard
	http  *http.Transport
	proxy *url.URL
	names *names // nil without a proxy

	proxyTime time.Duration
}

// New makes a client. Close releases its idle connections.
func New(cfg Config) *Client {
	c := &Client{guard: NewGuard(cfg), proxy: cfg.Proxy, proxyTime: proxyTime}
	c.http = &http.Transport{
		DialContext:            c.guard.Dialer(dialTime).DialContext,
		TLSHandshakeTimeout:    handshakeTime,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTime, MaxReceiveBufferPerStream: answerHead},
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: answerHead,
		DisableCompression:     true,
	}
	if cfg.Proxy != nil {
		c.names = newNames(c.guard)
		c.http.Proxy = http.ProxyURL(cfg.Proxy)
		c.http.DialContext = c.dialProxy
		c.http.OnProxyConnectResponse = proxyAnswered
	}
	dial := c.http.DialContext
	c.http.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		inner, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: inner}, nil
	}
	return c
}

// Guard is the guard on the client's connections.
func (c *Client) Guard() *Guard { return c.guard }

// Close closes idle connections. Requests under way go on to their end.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Send makes the request and reads its answer, of the body at most keep bytes. The
// status decides: a body that breaks off or drips is cut, and is no error. An
// address that is not allowed is a [*BlockedError]. The request must not change
// afterwards: it may still be read for a moment when the answer came early.
func (c *Client) Send(ctx context.Context, req *Request, keep int) (*Answer, error) {
	if c.names != nil {
		if err := c.names.check(ctx, req.URL); err != nil {
			return nil, err
		}
	}
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.http.RoundTrip(req.outgoing(c.connected(bounded, cancel)))
	if err != nil {
		return nil, explain(ctx, err)
	}
	defer resp.Body.Close()
	if c.proxy != nil && resp.StatusCode == http.StatusProxyAuthRequired {
		return nil, errProxyAuth // the proxy's word, not the receiver's
	}
	return readAnswer(resp, keep, cancel), nil
}

// connected looks at a request when it has its connection, and gives it up when its
// time is over. Its own timer may not have run yet: a process that was stopped wakes
// up in the middle of what it was about to send, and somebody else may be delivering
// in its place by now.
func (c *Client) connected(ctx context.Context, cancel context.CancelFunc) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if c.proxy != nil {
			_ = got.Conn.SetDeadline(time.Time{}) // see dialProxy; fails when it has ended
		}
		// An HTTP/2 stream looks at its context before it writes, and shares its
		// connection with others. HTTP/1 writes at once.
		secure, ok := got.Conn.(*tls.Conn)
		shared := ok && secure.ConnectionState().NegotiatedProtocol == "h2"
		if !shared {
			of(got.Conn).serve(ctx)
		}
		if !tooLate(ctx) {
			return
		}
		cancel()
		if !shared {
			_ = got.Conn.Close()
		}
	}})
}

// A conn is a connection that writes nothing of an HTTP/1 request whose time is over:
// between the look at it when it had its connection and its first byte the process may
// be stopped too.
type conn struct {
	net.Conn
	late atomic.Pointer[func() bool] // of the request that it is for; nil for none yet
}

// of is the conn beneath a connection, whose TLS may lie in that of a proxy; nil when
// there is none.
func of(connection net.Conn) *conn {
	for {
		secure, ok := connection.(*tls.Conn)
		if !ok {
			c, _ := connection.(*conn)
			return c
		}
		connection = secure.NetConn()
	}
}

// serve says whose request is written from now on.
func (c *conn) serve(ctx context.Context) {
	if c != nil {
		late := func() bool { return tooLate(ctx) }
		c.late.Store(&late)
	}
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	if late := c.late.Load(); late != nil && (*late)() {
		return 0, os.ErrDeadlineExceeded
	}
	return c.Conn.Write(b)
}

// tooLate says whether the time of ctx is over.
func tooLate(ctx context.Context) bool {
	deadline, bounded := ctx.Deadline()
	return ctx.Err() != nil || bounded && !time.Now().Before(deadline)
}

// explain names what the errors of net/http leave out.
func explain(ctx context.Context, err error) error {
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case tooLate(ctx):
		return context.DeadlineExceeded
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return fmt.Errorf("cannot connect to the proxy: %w", op.Err)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("no answer: the receiver ended the connection: %w", err)
	}
	return err
}
