package transport

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is more than anything here takes, and less than what would be a hang.
const patience = 20 * time.Second

// serving accepts connections and gives each a script of its own, which is told how
// many there were before. What it returns from ends the connection; the end of the
// test ends all of them.
func serving(t testing.TB, script func(conn net.Conn, before int)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var served sync.WaitGroup
	var mu sync.Mutex
	open, closed := map[net.Conn]bool{}, false
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		closed = true
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		served.Wait()
	})
	served.Go(func() {
		for before := 0; ; before++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			if closed {
				_ = conn.Close()
			}
			mu.Unlock()
			served.Go(func() {
				defer func() {
					_ = conn.Close()
					mu.Lock()
					delete(open, conn)
					mu.Unlock()
				}()
				script(conn, before)
			})
		}
	})
	return l.Addr().String()
}

// receiverOf is a receiver without TLS.
func receiverOf(t testing.TB, script func(conn net.Conn, before int)) *url.URL {
	return &url.URL{Scheme: "http", Host: serving(t, script), Path: "/hook"}
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

// untilItEnds returns when the other side has ended the connection.
func untilItEnds(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// reset ends a connection the hard way, with an RST.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// dialled are the connections that a client has made.
type dialled struct {
	count atomic.Int64
	ended chan struct{} // one for each that the client has ended
}

// watch counts the connections of a client that has made none yet.
func watch(c *Client) *dialled {
	d := &dialled{ended: make(chan struct{}, 10_000)}
	dial := c.http.DialContext
	c.http.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		d.count.Add(1)
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &watched{Conn: conn, ended: sync.OnceFunc(func() { d.ended <- struct{}{} })}, nil
	}
	return d
}

type watched struct {
	net.Conn
	ended func()
}

func (w *watched) Close() error {
	err := w.Conn.Close()
	w.ended()
	return err
}

func clientFor(t testing.TB) *Client {
	c := New(Config{AllowLoopback: true})
	t.Cleanup(c.Close)
	return c
}

// lead has all connections of a client lead to an address, whatever they are for.
func lead(c *Client, address string) {
	dial := c.http.DialContext
	c.http.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dial(ctx, network, address)
	}
}

func requestTo(to *url.URL, body string) *Request {
	return &Request{URL: to, Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Hogstream/test"}}, Body: []byte(body)}
}

// send sends with more time than it takes.
func send(t testing.TB, c *Client, req *Request) (*Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	ans, err := c.Send(ctx, req, 100)
	require.Less(t, time.Since(began), patience)
	return ans, err
}

// certificate is one that vouches for itself, until then.
func certificate(t testing.TB, until time.Time, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, IPAddresses: []net.IP{{127, 0, 0, 1}}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: until.Add(-24 * time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// A place is where something serves over TLS as example.com.
type place struct {
	address string
	cert    *x509.Certificate
}

func (p place) url() *url.URL { return &url.URL{Scheme: "https", Host: "example.com", Path: "/hook"} }

// reach has a client find example.com there and trust its certificate.
func (p place) reach(c *Client) *Client {
	trust(c, p)
	lead(c, p.address)
	return c
}

// trust has a client know the certificates of these places, and no others.
func trust(c *Client, places ...place) {
	c.http.TLSClientConfig.RootCAs = x509.NewCertPool()
	for _, p := range places {
		c.http.TLSClientConfig.RootCAs.AddCert(p.cert)
	}
}

// tlsServing gives each connection over TLS, with these protocols, a script of its own.
func tlsServing(t testing.TB, protocols []string, script func(conn *tls.Conn, before int)) place {
	t.Helper()
	cert := certificate(t, time.Now().Add(time.Hour), "example.com")
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols, MinVersion: tls.VersionTLS12}
	return place{cert: cert.Leaf, address: serving(t, func(raw net.Conn, before int) {
		conn := tls.Server(raw, cfg)
		if conn.HandshakeContext(context.Background()) == nil {
			script(conn, before)
		}
	})}
}

// secureServer serves HTTP over TLS with these protocols.
func secureServer(t testing.TB, protocols []string, handler http.HandlerFunc) place {
	t.Helper()
	cert := certificate(t, time.Now().Add(time.Hour), "example.com")
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = slices.Contains(protocols, "h2")
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols, MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	s.StartTLS()
	t.Cleanup(s.Close)
	return place{s.Listener.Addr().String(), cert.Leaf}
}

// plainServer serves HTTP without TLS.
func plainServer(t testing.TB, handler http.HandlerFunc) *url.URL {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	to, err := url.Parse(s.URL + "/hook")
	require.NoError(t, err)
	return to
}
