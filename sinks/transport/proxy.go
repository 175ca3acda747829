package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ParseProxy reads the address of a proxy: http, https or socks5, with a user name
// and password if it wants them. Its errors never repeat the address, which may hold
// a password.
func ParseProxy(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL: write it as http://host:port; special characters in a password are written as %XX")
	case !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme):
		return nil, errors.New("names no kind of proxy: begin it with http://, https:// or socks5://")
	case u.Hostname() == "":
		return nil, errors.New("names no host: write it as http://host:port")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("holds more than a user, a host and a port: write it as http://host:port")
	}
	return u, checkProxyPort(u)
}

func checkProxyPort(u *url.URL) error {
	if u.Port() == "" {
		return nil
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return errors.New("has a port that is out of range: use 1 to 65535")
	}
	return nil
}

var errProxyAuth = errors.New("the proxy asks for credentials (407): check the user and password in DELIVERY_PROXY_URL")

// dialProxy connects to the proxy. What the proxy has to do then has a deadline, until
// a request has the connection: net/http lets it go on without the request that wanted
// it, and waits for a SOCKS proxy for ever.
func (c *Client) dialProxy(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(c.proxyTime)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// proxyAnswered says what a proxy answered that does not connect us to a receiver.
func proxyAnswered(_ context.Context, _ *url.URL, _ *http.Request, ans *http.Response) error {
	switch ans.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return errProxyAuth
	}
	return fmt.Errorf("the proxy does not connect to the receiver: it answers %d", ans.StatusCode)
}

const (
	// lookupTime bounds the resolving of a name before a request through a proxy.
	lookupTime = 2 * time.Second
	// namesTime is how long what became of a name is remembered, so that not every
	// request asks DNS.
	namesTime = 30 * time.Second
	// maxNames is how many names are remembered.
	maxNames = 1000
)

// names checks what requests through a proxy ask for. The proxy resolves the name
// again and connects by itself, so this catches names that lead into a network that
// is not allowed, but not one that answers us and the proxy differently. For the same
// reason a name that cannot be resolved here is left to the proxy: many networks that
// have one resolve no names of the outside.
type names struct {
	guard  *Guard
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

	mu    sync.Mutex
	known map[string]checkedName
}

type checkedName struct {
	err   error
	until time.Time
}

func newNames(guard *Guard) *names {
	return &names{guard: guard, lookup: net.DefaultResolver.LookupNetIP, known: map[string]checkedName{}}
}

// check says why a URL must not be asked for, nil if it may.
func (n *names) check(ctx context.Context, u *url.URL) error {
	if err := checkURLPort(u); err != nil {
		return err
	}
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil {
		return n.guard.CheckAddr(addr)
	}
	if known, ok := n.recall(host, time.Now()); ok {
		return known.err
	}
	limited, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	addrs, err := n.lookup(limited, "ip", host)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	checked := checkedName{until: time.Now().Add(namesTime)}
	if err == nil {
		checked.err = n.checkAll(addrs)
	}
	n.remember(host, checked)
	return checked.err
}

// checkAll wants all addresses to be allowed: which one the proxy takes nobody knows.
func (n *names) checkAll(addrs []netip.Addr) error {
	for _, addr := range addrs {
		if err := n.guard.CheckAddr(addr); err != nil {
			return err
		}
	}
	return nil
}

func (n *names) recall(host string, now time.Time) (checkedName, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known, ok := n.known[host]
	return known, ok && now.Before(known.until)
}

func (n *names) remember(host string, checked checkedName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxNames {
		clear(n.known)
	}
	n.known[host] = checked
}
