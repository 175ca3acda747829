package streamtest

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Network stands between clients and brokers and can be broken. Safe for
// concurrent use.
type Network struct {
	direct func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex
	cut     bool
	stalled chan struct{} // closed when the network flows again; nil while it flows
	conns   map[*conn]bool
	dials   int
}

var errCut = errors.New("the test cut the network")

func newNetwork(dial func(ctx context.Context, network, address string) (net.Conn, error)) *Network {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	return &Network{direct: dial, conns: make(map[*conn]bool)}
}

// Dial is a Config.Dialer.
func (n *Network) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	cut := n.cut
	n.mu.Unlock()
	if cut {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errCut}
	}
	inner, err := n.direct(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, network: n, closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c] = true
	return c, nil
}

// Cut closes all connections and refuses new ones until Heal.
func (n *Network) Cut() {
	n.mu.Lock()
	n.cut = true
	n.mu.Unlock()
	n.Reset()
}

// Reset closes all connections; new ones work.
func (n *Network) Reset() {
	n.mu.Lock()
	conns := n.conns
	n.conns = make(map[*conn]bool)
	n.mu.Unlock()
	for c := range conns {
		c.Close()
	}
}

// Stall swallows answers: requests reach the brokers, nothing comes back until
// Heal.
func (n *Network) Stall() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stalled == nil {
		n.stalled = make(chan struct{})
	}
}

// Heal undoes Cut and Stall.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = false
	if n.stalled != nil {
		close(n.stalled)
		n.stalled = nil
	}
}

// Dials counts the connections asked for so far.
func (n *Network) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

type conn struct {
	net.Conn
	network *Network
	once    sync.Once
	closed  chan struct{}
}

// Read holds an answer back while the network is stalled.
func (c *conn) Read(b []byte) (int, error) {
	read, err := c.Conn.Read(b)
	c.network.mu.Lock()
	stalled := c.network.stalled
	c.network.mu.Unlock()
	if stalled == nil || err != nil {
		return read, err
	}
	select {
	case <-stalled:
		return read, nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.network.mu.Lock()
		delete(c.network.conns, c)
		c.network.mu.Unlock()
	})
	return c.Conn.Close()
}
