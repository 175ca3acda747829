package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testProxy is a proxy that connects to one place, whatever it is asked for.
type testProxy struct {
	to     string // where everything leads
	login  string // user:password that it wants
	status string // what it answers instead of connecting
	hangs  bool
	secure bool // is itself behind TLS
	socks  bool

	place place // when it is secure
	mu    sync.Mutex
	asked []string
}

func (p *testProxy) ask(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, target)
}

func (p *testProxy) targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.asked...)
}

// start serves the proxy and returns its address as the setting has it.
func (p *testProxy) start(t testing.TB) string {
	scheme, script := "http", p.serveHTTP
	if p.socks {
		scheme, script = "socks5", p.serveSOCKS
	}
	var address string
	if p.secure {
		scheme = "https"
		p.place = tlsServing(t, []string{"http/1.1"}, func(conn *tls.Conn, _ int) { script(conn) })
		address = p.place.address
	} else {
		address = serving(t, func(conn net.Conn, _ int) { script(conn) })
	}
	if p.login != "" {
		return scheme + "://" + p.login + "@" + address
	}
	return scheme + "://" + address
}

func (p *testProxy) serveHTTP(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		p.ask(req.Method + " " + req.RequestURI)
		wants := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.login))
		switch {
		case p.hangs:
			untilItEnds(conn)
			return
		case p.login != "" && req.Header.Get("Proxy-Authorization") != wants:
			_, _ = io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
			continue
		case p.status != "":
			_, _ = io.WriteString(conn, "HTTP/1.1 "+p.status+"\r\nContent-Length: 0\r\n\r\n")
			continue
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			return
		}
		defer out.Close()
		if req.Method == http.MethodConnect {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
			join(conn, in, out)
			return
		}
		req.Header.Del("Proxy-Authorization")
		if req.Write(out) != nil {
			return
		}
		ans, err := http.ReadResponse(bufio.NewReader(out), req)
		if err != nil {
			return
		}
		_ = ans.Write(conn)
		_ = ans.Body.Close()
	}
}

// serveSOCKS is the part of RFC 1928 and 1929 that is needed.
func (p *testProxy) serveSOCKS(conn net.Conn) {
	in := bufio.NewReader(conn)
	take := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(in, b)
		return b
	}
	take(int(take(2)[1])) // the methods
	if p.login == "" {
		_, _ = conn.Write([]byte{5, 0})
	} else {
		_, _ = conn.Write([]byte{5, 2})
		user := take(int(take(2)[1]))
		password := take(int(take(1)[0]))
		if string(user)+":"+string(password) != p.login {
			_, _ = conn.Write([]byte{1, 1})
			return
		}
		_, _ = conn.Write([]byte{1, 0})
	}
	if head := take(4); head[1] != 1 || head[3] != 3 {
		return
	}
	host := take(int(take(1)[0]))
	port := take(2)
	p.ask(fmt.Sprintf("SOCKS %s:%d", host, int(port[0])<<8|int(port[1])))
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer out.Close()
	_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	join(conn, in, out)
}

// join passes bytes between both until one side ends.
func join(conn net.Conn, in io.Reader, out net.Conn) {
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(out, in)
		_ = out.Close()
	})
	_, _ = io.Copy(conn, out)
	_ = conn.Close()
	both.Wait()
}

// throughProxy is a client behind a proxy, to whom every name is a public one.
func throughProxy(t testing.TB, p *testProxy) *Client {
	t.Helper()
	proxy, err := ParseProxy(p.start(t))
	require.NoError(t, err)
	c := New(Config{Proxy: proxy})
	t.Cleanup(c.Close)
	c.names.lookup = knowing("93.184.216.34")
	return c
}

// knowing resolves every name to these addresses.
func knowing(addresses ...string) func(context.Context, string, string) ([]netip.Addr, error) {
	return func(context.Context, string, string) ([]netip.Addr, error) {
		var addrs []netip.Addr
		for _, a := range addresses {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		return addrs, nil
	}
}

func greeting(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.Proto+" "+r.Host+r.Header.Get("Proxy-Authorization"))
}

func TestReceiversAreReachedThroughProxiesWithAndWithoutALogin(t *testing.T) {
	for name, p := range map[string]*testProxy{
		"http": {}, "http with a login": {login: "user:secret"},
		"https": {secure: true}, "https with a login": {secure: true, login: "user:secret"},
		"socks5": {socks: true}, "socks5 with a login": {socks: true, login: "user:secret"},
	} {
		t.Run(name, func(t *testing.T) {
			way := "CONNECT example.com:443"
			if p.socks {
				way = "SOCKS example.com:443"
			}
			for _, protocol := range []string{"http/1.1", "h2"} {
				at := secureServer(t, []string{protocol}, greeting)
				own := &testProxy{to: at.address, login: p.login, secure: p.secure, socks: p.socks}
				c := throughProxy(t, own)
				if trust(c, at); p.secure {
					trust(c, at, own.place)
				}
				for range 3 {
					ans, err := send(t, c, requestTo(at.url(), "{}"))
					require.NoError(t, err)
					require.Contains(t, string(ans.Body), "example.com")
					require.NotContains(t, string(ans.Body), "Basic", "the login is the proxy's alone")
				}
				require.Equal(t, []string{way}, own.targets(), "one connection")
			}
		})
	}
}

func TestWithoutTLSAProxyIsAskedForTheWholeURL(t *testing.T) {
	receiver := plainServer(t, greeting)
	p := &testProxy{to: receiver.Host, login: "user:secret"}
	c := throughProxy(t, p)
	for range 2 {
		ans, err := send(t, c, requestTo(&url.URL{Scheme: "http", Host: "example.com", Path: "/a b"}, "{}"))
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 example.com", string(ans.Body))
	}
	require.Equal(t, []string{"POST http://example.com/a%20b", "POST http://example.com/a%20b"}, p.targets())
}

func TestAProxyThatDoesNotConnectIsNamedAndItsPasswordIsNot(t *testing.T) {
	at := secureServer(t, []string{"http/1.1"}, greeting)
	gone := &testProxy{}
	for name, c := range map[string]struct {
		proxy   *testProxy
		login   string
		inError string
	}{
		"wrong login":        {&testProxy{login: "user:right"}, "user:hunter2", "the proxy asks for credentials (407)"},
		"no login":           {&testProxy{login: "user:right"}, "", "the proxy asks for credentials (407)"},
		"wrong SOCKS login":  {&testProxy{login: "user:right", socks: true}, "user:hunter2", "socks"},
		"it refuses":         {&testProxy{status: "403 Forbidden"}, "user:hunter2", "the proxy does not connect to the receiver: it answers 403"},
		"it has no way":      {&testProxy{status: "502 Bad Gateway"}, "user:hunter2", "it answers 502"},
		"it speaks no HTTP":  {&testProxy{socks: true}, "user:hunter2", "malformed"},
		"nobody is there":    {gone, "user:hunter2", "cannot connect to the proxy"},
		"its name is no one": {nil, "user:hunter2", "cannot connect to the proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, scheme := range []string{"https", "http"} {
				address := "http://nowhere.invalid:3128"
				if c.proxy != nil {
					address = (&testProxy{login: c.proxy.login, status: c.proxy.status, socks: c.proxy.socks}).start(t)
				}
				proxy, err := ParseProxy(address)
				require.NoError(t, err)
				proxy.User = nil
				if user, password, has := strings.Cut(c.login, ":"); has {
					proxy.User = url.UserPassword(user, password)
				}
				if name == "it speaks no HTTP" {
					proxy.Scheme = "http"
				}
				if c.proxy == gone {
					proxy.Host = "127.0.0.1:1"
				}
				client := New(Config{Proxy: proxy})
				t.Cleanup(client.Close)
				client.names.lookup = knowing("93.184.216.34")
				trust(client, at)
				to := at.url()
				to.Scheme = scheme
				ans, err := send(t, client, requestTo(to, "{}"))
				if c.proxy != nil && c.proxy.status != "" && scheme == "http" {
					require.NoError(t, err) // whose answer it is cannot be told
					require.Equal(t, c.proxy.status[:3], fmt.Sprint(ans.Status))
					continue
				}
				require.Error(t, err)
				require.NotContains(t, err.Error(), "hunter2")
				if scheme == "https" {
					require.ErrorContains(t, err, c.inError)
				}
			}
		})
	}
}

func TestAProxyThatHangsCostsNoMoreThanTheDeadlineAndItsConnectionEnds(t *testing.T) {
	for name, p := range map[string]*testProxy{"http": {hangs: true}, "socks5": {socks: true, hangs: true}} {
		t.Run(name, func(t *testing.T) {
			address := serving(t, func(conn net.Conn, _ int) { untilItEnds(conn) })
			proxy, err := ParseProxy(name + "://" + address)
			require.NoError(t, err, p)
			c := New(Config{Proxy: proxy})
			t.Cleanup(c.Close)
			c.names.lookup = knowing("93.184.216.34")
			c.proxyTime = 200 * time.Millisecond
			d := watch(c)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err = c.Send(ctx, requestTo(&url.URL{Scheme: "https", Host: "example.com"}, "{}"), 100)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			<-d.ended
		})
	}
}

func TestAConnectionThroughAProxyOutlivesTheTimeThatTheProxyHad(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			at := secureServer(t, []string{protocol}, greeting)
			c := throughProxy(t, &testProxy{to: at.address})
			c.proxyTime = 500 * time.Millisecond
			trust(c, at)
			d := watch(c)
			until := time.Now().Add(2 * c.proxyTime)
			for time.Now().Before(until) {
				_, err := send(t, c, requestTo(at.url(), "{}"))
				require.NoError(t, err)
			}
			require.Equal(t, int64(1), d.count.Load())
		})
	}
}

func TestBehindAProxyNamesAndAddressesAreCheckedBeforeTheRequest(t *testing.T) {
	for name, c := range map[string]struct {
		target string
		finds  []string // nil for nothing
		allow  string
		asked  bool
	}{
		"a public name":  {"https://example.com/", []string{"93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"}, "", true},
		"a private name": {"https://example.com/", []string{"10.0.0.1"}, "", false},
		"a name with a private address among them": {"https://example.com/", []string{"93.184.216.34", "169.254.169.254"}, "", false},
		"a private name that is allowed":           {"https://example.com/", []string{"10.0.0.1"}, "10.0.0.0/8", true},
		"a name that is not known here":            {"https://example.com/", nil, "", true},
		"an address of a metadata service":         {"http://169.254.169.254/", nil, "", false},
		"an address of this machine":               {"http://[::1]/", nil, "", false},
		"a public address":                         {"https://93.184.216.34/", nil, "", true},
		"another port":                             {"https://example.com:6379/", []string{"93.184.216.34"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &testProxy{status: "503 Service Unavailable"}
			client := throughProxy(t, p)
			if c.allow != "" {
				client.guard.allowed = []netip.Prefix{netip.MustParsePrefix(c.allow)}
			}
			var lookups atomic.Int64
			client.names.lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error) {
				lookups.Add(1)
				if c.finds == nil {
					return nil, errors.New("no such host")
				}
				return knowing(c.finds...)(ctx, network, host)
			}
			to, err := url.Parse(c.target)
			require.NoError(t, err)
			for range 3 {
				_, err = send(t, client, requestTo(to, "{}"))
				var blocked *BlockedError
				require.Equal(t, !c.asked, errors.As(err, &blocked), "%v", err)
			}
			require.Equal(t, c.asked, len(p.targets()) > 0)
			require.LessOrEqual(t, lookups.Load(), int64(1), "what was found is remembered")
		})
	}
}

func TestWhatWasFoundOfANameIsForgottenInTime(t *testing.T) {
	n := newNames(NewGuard(Config{}))
	now := time.Now()
	n.remember("example.com", checkedName{until: now.Add(namesTime)})
	_, known := n.recall("example.com", now.Add(namesTime-1))
	require.True(t, known)
	_, known = n.recall("example.com", now.Add(namesTime))
	require.False(t, known)
	for i := range 3 * maxNames {
		n.remember(fmt.Sprint(i), checkedName{until: now.Add(namesTime)})
		require.LessOrEqual(t, len(n.known), maxNames)
	}
}

func TestANameThatCannotBeResolvedInTimeDoesNotHoldUpARequest(t *testing.T) {
	n := newNames(NewGuard(Config{}))
	n.lookup = func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	to := &url.URL{Scheme: "https", Host: "example.com"}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, n.check(ctx, to), context.DeadlineExceeded, "the caller's time is over")
	require.NoError(t, n.check(t.Context(), to), "ours is")
}

func TestAnAddressOfAProxyIsCheckedAndNeverRepeated(t *testing.T) {
	for raw, want := range map[string]string{
		"http://proxy:3128": "", "https://proxy": "", "socks5://user:hunter2@10.0.0.1:1080/": "", "socks5h://proxy:1080": "", "http://[::1]:3128": "",
		"proxy:3128":                      "begin it with http://",
		"user:hunter2@proxy:3128":         "begin it with http://",
		"ftp://user:hunter2@proxy":        "begin it with http://",
		"http://":                         "names no host",
		"http://user:hunter2@proxy/path":  "holds more than",
		"http://user:hunter2@proxy?x=y":   "holds more than",
		"http://user:hunter2@proxy:99999": "out of range",
		"http://user:hunter2@proxy:0":     "out of range",
		"http://user:hunter2%@proxy":      "is not a URL",
		"http://user:hun/ter2@proxy":      "is not a URL",
	} {
		_, err := ParseProxy(raw)
		if want == "" {
			require.NoError(t, err, raw)
			continue
		}
		require.ErrorContains(t, err, want, raw)
		require.NotContains(t, err.Error(), "hunter2")
		require.NotContains(t, err.Error(), "ter2")
	}
}
