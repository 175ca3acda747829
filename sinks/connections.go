package sinks

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"syscall"
	"time"
)

const (
	dialTime      = 10 * time.Second
	handshakeTime = 10 * time.Second
	// idleTime is how long a connection is kept without being used.
	idleTime = 90 * time.Second
	// idleLook is the time between two looks at idle connections, for those that
	// are too old or that the receiver has ended.
	idleLook = 30 * time.Second
)

// connections are those to receivers, of all destinations. An attempt takes one
// for itself, writes its request and reads the answer.
//
// net/http's Transport serves each connection with two goroutines and hands every
// request and answer over between three; that was a third of what an attempt
// cost. Nobody watches an idle connection here: the attempt that takes it looks
// whether the receiver has ended it, see alive.
//
// They speak HTTP/1.1, with and without TLS. There is no proxy: a proxy would dial
// in our place, behind the guard.
type connections struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	tls     *tls.Config
	perHost int

	mu     sync.Mutex
	idle   map[endpoint][]*connection // the one used last at the end
	look   *time.Timer                // runs while any is idle
	closed bool
}

// endpoint is where a connection leads, as URLs write it.
type endpoint struct{ scheme, host string }

func newConnections(cfg Config, guard *Guard) *connections {
	return &connections{
		dial:    guard.Dialer(dialTime).DialContext,
		tls:     &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		perHost: cfg.MaxIdlePerHost,
		idle:    map[endpoint][]*connection{},
	}
}

// A connection is used by one attempt at a time.
type connection struct {
	conn    net.Conn // what is written to: TLS, or the socket itself
	socket  net.Conn
	raw     syscall.RawConn
	in      *bufio.Reader
	mayRead int64 // how much more of the answer may be read
	to      endpoint
	reused  bool
	since   time.Time // when it became idle

	// Made once: a function value a request is an allocation a request.
	stop  func()                // interrupt
	look  func(fd uintptr) bool // lookAt, which uses the two below
	quiet bool
	one   [1]byte
}

// take gives an idle connection that leads there, or else a new one.
func (cs *connections) take(ctx context.Context, to *url.URL) (*connection, error) {
	for {
		c := cs.pop(endpoint{to.Scheme, to.Host})
		if c == nil {
			return cs.connect(ctx, to)
		}
		if c.alive() {
			c.reused = true
			return c, nil
		}
		c.end()
	}
}

func (cs *connections) pop(to endpoint) *connection {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	kept := cs.idle[to]
	n := len(kept)
	if n == 0 {
		return nil
	}
	c := kept[n-1]
	kept[n-1], cs.idle[to] = nil, kept[:n-1]
	return c
}

// keep takes a connection back whose answer was read to its end.
func (cs *connections) keep(c *connection) {
	if !cs.put(c) {
		c.end()
	}
}

func (cs *connections) put(c *connection) bool {
	c.since = time.Now()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed || len(cs.idle[c.to]) >= cs.perHost {
		return false
	}
	cs.idle[c.to] = append(cs.idle[c.to], c)
	if cs.look == nil {
		cs.look = time.AfterFunc(idleLook, func() { cs.drop(time.Now()) })
	}
	return true
}

// drop ends the idle connections that nobody used for long, or that the receiver
// has ended.
func (cs *connections) drop(now time.Time) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for to, idle := range cs.idle {
		kept := idle[:0]
		for _, c := range idle {
			if now.Sub(c.since) < idleTime && c.alive() {
				kept = append(kept, c)
			} else {
				c.end()
			}
		}
		clear(idle[len(kept):])
		if cs.idle[to] = kept; len(kept) == 0 {
			delete(cs.idle, to)
		}
	}
	if cs.look = nil; len(cs.idle) > 0 && !cs.closed {
		cs.look = time.AfterFunc(idleLook, func() { cs.drop(time.Now()) })
	}
}

// close ends the idle connections; those in use end with their attempts.
func (cs *connections) close() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for _, idle := range cs.idle {
		for _, c := range idle {
			c.end()
		}
	}
	clear(cs.idle)
	if cs.look != nil {
		cs.look.Stop()
	}
}

// connect dials, and for https makes the handshake, within the time of ctx.
func (cs *connections) connect(ctx context.Context, to *url.URL) (*connection, error) {
	port := to.Port()
	if port == "" {
		port = "80"
		if to.Scheme == "https" {
			port = "443"
		}
	}
	socket, err := cs.dial(ctx, "tcp", net.JoinHostPort(to.Hostname(), port))
	if err != nil {
		return nil, err
	}
	c := &connection{conn: socket, socket: socket, to: endpoint{to.Scheme, to.Host}}
	if to.Scheme == "https" {
		if c.conn, err = handshake(ctx, socket, cs.tls, to.Hostname()); err != nil {
			_ = socket.Close() // the error before counts
			return nil, err
		}
	}
	if s, ok := socket.(syscall.Conn); ok {
		if c.raw, err = s.SyscallConn(); err != nil {
			_ = socket.Close()
			return nil, fmt.Errorf("connection to %s: %w", to.Host, err)
		}
	}
	c.in, c.stop, c.look = bufio.NewReader(c), c.interrupt, c.lookAt
	return c, nil
}

func handshake(ctx context.Context, socket net.Conn, shared *tls.Config, host string) (net.Conn, error) {
	own := shared.Clone()
	own.ServerName = host
	conn := tls.Client(socket, own)
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return conn, nil
}

// alive says whether an idle connection can take a request. One that the receiver
// has ended can be read from, and so can one on which it says something unasked;
// neither is used again. The socket is asked without waiting.
func (c *connection) alive() bool {
	if c.raw == nil {
		return true
	}
	err := c.raw.Read(c.look)
	return err == nil && c.quiet
}

// lookAt is what the look does: it notes whether there is nothing to read.
func (c *connection) lookAt(fd uintptr) bool {
	_, err := syscall.Read(int(fd), c.one[:])
	c.quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK || err == syscall.EINTR
	return true // it does not wait
}

var errTooMuch = errors.New("the limit of what is read of an answer is reached")

// Read implements [io.Reader] for the connection's own reader, within mayRead.
func (c *connection) Read(p []byte) (int, error) {
	if c.mayRead <= 0 {
		return 0, errTooMuch
	}
	if int64(len(p)) > c.mayRead {
		p = p[:c.mayRead]
	}
	n, err := c.conn.Read(p)
	c.mayRead -= int64(n)
	return n, err
}

// interrupt has whatever waits on the connection fail at once, and what comes
// after it. It may be called while others use the connection.
func (c *connection) interrupt() {
	_ = c.socket.SetDeadline(past) // fails when it has ended, which is as well
}

var past = time.Unix(1, 0)

// abandon ends the connection in the middle of something, without a word to the
// receiver: one that reads nothing would keep us waiting.
func (c *connection) abandon() { _ = c.socket.Close() }

// end closes a connection on which nothing is under way.
func (c *connection) end() { _ = c.conn.Close() }

// drained says whether nothing was received behind the answer. TLS may have
// decrypted, or hold, what the socket no longer shows; with its deadline passed,
// reading gives that and nothing else.
func (c *connection) drained() bool {
	if c.in.Buffered() > 0 {
		return false
	}
	if c.conn == c.socket {
		return true
	}
	if c.conn.SetReadDeadline(past) != nil {
		return false
	}
	n, err := c.conn.Read(c.one[:])
	var netErr net.Error
	return n == 0 && errors.As(err, &netErr) && netErr.Timeout() && c.conn.SetReadDeadline(time.Time{}) == nil
}
