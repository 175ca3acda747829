package transport

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/ssrf.md anew")

// guardCase is a row of docs/ssrf.md. A target with a scheme is a URL, checked
// when it is configured; another one is an address, checked when it is dialled.
type guardCase struct {
	target string
	what   string
	allow  string // the operator's exceptions: "loopback", "http", or networks
	ok     bool
}

var guardTable = []struct {
	title string
	cases []guardCase
}{
	{"Public receivers", []guardCase{
		{"93.184.216.34:443", "public IPv4", "", true},
		{"[2606:2800:220:1:248:1893:25c8:1946]:443", "public IPv6", "", true},
		{"1.1.1.1:8443", "public IPv4, another port", "", true},
		{"https://example.com/hook?x=1", "public name", "", true},
		{"https://example.com:8443/hook", "public name, another port", "", true},
		{"https://xn--bcher-kva.example/hook", "punycode", "", true},
		{"https://93.184.216.34/hook", "public address as host", "", true},
		{"https://[2606:2800:220:1:248:1893:25c8:1946]/hook", "public IPv6 as host", "", true},
	}},
	{"This machine", []guardCase{
		{"127.0.0.1:443", "loopback", "", false},
		{"127.8.9.10:443", "loopback, another address of it", "", false},
		{"[::1]:443", "loopback v6", "", false},
		{"0.0.0.0:443", "unspecified: reaches this machine", "", false},
		{"0.1.2.3:443", "“this network”", "", false},
		{"[::]:443", "unspecified v6", "", false},
		{"https://localhost/", "localhost", "", false},
		{"https://LOCALHOST./", "localhost, upper case, with a dot", "", false},
		{"https://api.localhost/", "a name under localhost", "", false},
		{"https://127.0.0.1/", "loopback as host", "", false},
		{"https://[::1]/", "loopback v6 as host", "", false},
	}},
	{"Private networks", []guardCase{
		{"10.0.0.1:443", "private 10/8", "", false},
		{"10.255.255.255:443", "private 10/8, its end", "", false},
		{"172.16.0.1:443", "private 172.16/12", "", false},
		{"172.31.255.255:443", "private 172.16/12, its end", "", false},
		{"172.32.0.1:443", "public, just beyond 172.16/12", "", true},
		{"192.168.1.1:443", "private 192.168/16", "", false},
		{"[fd00::1]:443", "unique local v6", "", false},
		{"[fc00::1]:443", "unique local v6", "", false},
		{"[fec0::1]:443", "site-local v6 (deprecated)", "", false},
		{"100.64.0.1:443", "carrier-grade NAT", "", false},
		{"100.127.255.255:443", "carrier-grade NAT, its end", "", false},
		{"100.128.0.1:443", "public, just beyond carrier-grade NAT", "", true},
		{"https://10.0.0.1/", "private as host", "", false},
	}},
	{"Link-local and metadata services", []guardCase{
		{"169.254.0.1:80", "link-local", "", false},
		{"169.254.169.254:80", "metadata (AWS, GCP, Azure, …)", "", false},
		{"169.254.170.2:80", "metadata of ECS tasks", "", false},
		{"100.100.100.200:80", "metadata of Alibaba", "", false},
		{"192.0.0.192:80", "metadata of Oracle", "", false},
		{"168.63.129.16:80", "Azure's platform service, in a public range", "", false},
		{"[fd00:ec2::254]:80", "metadata of AWS v6", "", false},
		{"[fd20:ce::254]:80", "metadata of GCP v6", "", false},
		{"[fe80::1]:443", "link-local v6", "", false},
		{"[fe80::1%eth0]:443", "link-local v6 with a zone", "", false},
		{"[2606:2800:220:1:248:1893:25c8:1946%eth0]:443", "public v6 with a zone", "", false},
		{"https://[fe80::1%25eth0]/", "zone in a URL", "", false},
		{"https://169.254.169.254/latest/meta-data/", "metadata as host", "", false},
	}},
	{"IPv4 within IPv6", []guardCase{
		{"[::ffff:127.0.0.1]:443", "v4-mapped loopback", "", false},
		{"[::ffff:10.0.0.1]:443", "v4-mapped private", "", false},
		{"[::ffff:169.254.169.254]:80", "v4-mapped metadata", "", false},
		{"[::ffff:a9fe:a9fe]:80", "v4-mapped metadata, in hex", "", false},
		{"[::ffff:93.184.216.34]:443", "v4-mapped public", "", true},
		{"[::127.0.0.1]:443", "v4-compatible (deprecated)", "", false},
		{"[64:ff9b::7f00:1]:443", "NAT64 of loopback", "", false},
		{"[64:ff9b::a9fe:a9fe]:80", "NAT64 of metadata", "", false},
		{"[64:ff9b::5db8:d822]:443", "NAT64 of a public address", "", false},
		{"[64:ff9b:1::a00:1]:443", "local-use NAT64 of private", "", false},
		{"[2002:7f00:1::1]:443", "6to4 of loopback", "", false},
		{"[2002:a00:1::1]:443", "6to4 of private", "", false},
		{"[2001:0:7f00:1::1]:443", "Teredo", "", false},
		{"[2606:4700::5efe:10.0.0.1]:443", "ISATAP of private", "", false},
		{"[2606:4700::200:5efe:a00:1]:443", "ISATAP of private, with the universal bit", "", false},
		{"https://[::ffff:127.0.0.1]/", "v4-mapped loopback as host", "", false},
	}},
	{"Reserved ranges", []guardCase{
		{"192.0.0.1:443", "protocol assignments", "", false},
		{"192.0.2.1:443", "documentation", "", false},
		{"198.51.100.1:443", "documentation", "", false},
		{"203.0.113.1:443", "documentation", "", false},
		{"198.18.0.1:443", "benchmarking", "", false},
		{"192.88.99.1:443", "6to4 relay", "", false},
		{"224.0.0.1:443", "multicast", "", false},
		{"240.0.0.1:443", "reserved", "", false},
		{"255.255.255.255:443", "broadcast", "", false},
		{"[ff02::1]:443", "multicast v6", "", false},
		{"[2001:db8::1]:443", "documentation v6", "", false},
		{"[3fff::1]:443", "documentation v6", "", false},
		{"[100::1]:443", "discard-only v6", "", false},
		{"[5f00::1]:443", "segment routing v6", "", false},
		{"[2001:20::1]:443", "ORCHID v6", "", false},
	}},
	{"Unusual ways to write an address", []guardCase{
		{"https://2130706433/", "decimal", "", false},
		{"https://0x7f000001/", "hexadecimal", "", false},
		{"https://0x7f.0.0.1/", "hexadecimal part", "", false},
		{"https://0177.0.0.1/", "octal", "", false},
		{"https://017700000001/", "octal, in one", "", false},
		{"https://127.1/", "short", "", false},
		{"https://127.0.1/", "short", "", false},
		{"https://127.0.0.1./", "with a dot at the end", "", false},
		{"https://①②⑦.⓪.⓪.①/", "circled digits", "", false},
		{"https://１２７.０.０.１/", "full-width digits", "", false},
		{"https://127。0。0。1/", "ideographic full stops", "", false},
		{"https://%31%32%37.0.0.1/", "percent-encoded", "", false},
	}},
	{"Tricks with the URL", []guardCase{
		{"https://user:secret@example.com/", "user and password", "", false},
		{"https://example.com@127.0.0.1/", "a host before @", "", false},
		{`https://example.com\@127.0.0.1/`, "backslash", "", false},
		{"https://127.0.0.1#@example.com/", "fragment", "", false},
		{"https://example.com/#x", "fragment", "", false},
		{"https://exa mple.com/", "space", "", false},
		{"https://example.com\r\nX: y/", "line break", "", false},
		{"https:///hook", "no host", "", false},
		{"https:example.com", "opaque", "", false},
		{"//example.com/", "no scheme", "", false},
		{"", "empty", "", false},
		{"http://example.com/", "not encrypted", "", false},
		{"ftp://example.com/", "ftp", "", false},
		{"file:///etc/passwd", "file", "", false},
		{"gopher://example.com/", "gopher", "", false},
		{"javascript:alert(1)", "javascript", "", false},
		{"unix:///var/run/docker.sock", "unix socket", "", false},
		{"https://example.com:0/", "port 0", "", false},
		{"https://example.com:99999/", "port out of range", "", false},
		{"https://example.com:/", "empty port", "", false},
		{"https://example.com:25/", "port of SMTP", "", false},
		{"https://example.com:6379/", "port of Redis", "", false},
		{"93.184.216.34:22", "port of SSH, when dialled", "", false},
	}},
	{"What the operator allows", []guardCase{
		{"10.1.2.3:443", "private, in an allowed network", "10.1.0.0/16", true},
		{"10.2.2.3:443", "private, beside the allowed network", "10.1.0.0/16", false},
		{"[::ffff:10.1.2.3]:443", "v4-mapped, in an allowed network", "10.1.0.0/16", true},
		{"[fd12::1]:443", "unique local, in an allowed network", "fd12::/16", true},
		{"http://10.1.2.3/", "not encrypted, in an allowed network", "10.1.0.0/16", true},
		{"http://example.com/", "not encrypted", "http", true},
		{"http://10.0.0.1/", "private, though http is allowed", "http", false},
		{"127.0.0.1:8080", "loopback", "loopback", true},
		{"[::1]:8080", "loopback v6", "loopback", true},
		{"[::ffff:127.0.0.1]:8080", "v4-mapped loopback", "loopback", true},
		{"http://localhost:8080/", "localhost", "loopback", true},
		{"10.0.0.1:443", "private, though loopback is allowed", "loopback", false},
		{"0.0.0.0:443", "unspecified, though loopback is allowed", "loopback", false},
		{"[64:ff9b::5db8:d822]:443", "NAT64 of a public address", "64:ff9b::/96", true},
		{"[64:ff9b::a00:1]:443", "NAT64 of private, though the prefix is allowed", "64:ff9b::/96", false},
		{"[64:ff9b::a9fe:a9fe]:80", "NAT64 of metadata, though the prefix is allowed", "64:ff9b::/96", false},
	}},
}

func guardOf(t *testing.T, allow string) *Guard {
	t.Helper()
	cfg := Config{AllowLoopback: allow == "loopback", AllowHTTP: allow == "http"}
	if strings.Contains(allow, "/") {
		cfg.AllowNetworks = []netip.Prefix{netip.MustParsePrefix(allow)}
	}
	return NewGuard(cfg)
}

// tryGuard is what happens to a case: at configuration, or at dial time.
func tryGuard(t *testing.T, c guardCase) error {
	g := guardOf(t, c.allow)
	if _, err := netip.ParseAddrPort(c.target); err == nil {
		network := "tcp4"
		if strings.HasPrefix(c.target, "[") {
			network = "tcp6"
		}
		return g.control(t.Context(), network, c.target, nil)
	}
	_, err := g.CheckURL("url", c.target)
	return err
}

func TestTheGuardDecidesAsPublished(t *testing.T) {
	var doc strings.Builder
	doc.WriteString(guardPreamble)
	n := 0
	for _, section := range guardTable {
		fmt.Fprintf(&doc, "\n## %s\n\n| target | what it is | allowed by the operator | result |\n|---|---|---|---|\n", section.title)
		for _, c := range section.cases {
			n++
			err := tryGuard(t, c)
			require.Equal(t, c.ok, err == nil, "%s (%s): %v", c.target, c.what, err)
			result := "refused"
			if c.ok {
				result = "connects"
			} else if c.target != "" {
				require.NotContains(t, strings.ToLower(err.Error()), "secret@")
			}
			fmt.Fprintf(&doc, "| `%s` | %s | %s | %s |\n", strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(c.target), c.what, c.allow, result)
		}
	}
	require.GreaterOrEqual(t, n, 60)
	path := filepath.Join("..", "..", "docs", "ssrf.md")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(doc.String()), 0o644))
	}
	published, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(published), doc.String(), "run: go test ./sinks/transport -run TestTheGuardDecidesAsPublished -update")
}

const guardPreamble = `# Where destinations may not point

Destinations are configured by users, so a URL may be an attempt to reach into
the network that Hogstream runs in (server-side request forgery). A URL is
checked when it is configured, so that a mistake is told at once; what counts is
the check of each address just before it is dialled, after DNS, for each
connection. A name that changes its address gains nothing. Redirects are not
followed, proxies of the environment (` + "`HTTP_PROXY`" + ` and the like) are not used,
user names in URLs are refused, and ports of other protocols than HTTP are refused.

Operators allow private networks with ` + "`DELIVERY_ALLOW_CIDRS`" + `; ` + "`hogstream dev`" + ` allows
loopback and http.

## Behind a proxy

With ` + "`DELIVERY_PROXY_URL`" + ` every request of a destination over HTTP goes through that
proxy, which resolves the receiver's name by itself and makes the connection. So the
check of the address that is dialled is the proxy's to make: **have it refuse private
networks, loopback and metadata services**, except for those that receivers may stand in.
Hogstream checks what it can before each request: the scheme and the port, an address
in the URL against the table below, and a name by resolving it here, where every
address must be allowed (what was found counts for 30 seconds). That leaves to the proxy:

- a name that answers the proxy with another address than Hogstream;
- a name that cannot be resolved here. It is let through, since many networks that
  have a proxy resolve no names of the outside;
- the port and address that a name leads to by other means than DNS, such as the
  proxy's own rules.

The proxy itself may stand anywhere, also in a private network. Destinations of kind
` + "`kafka`" + ` do not go through it: their connections are checked when they are dialled.

This table is checked by a test, and written by it:
` + "`go test ./sinks/transport -run TestTheGuardDecidesAsPublished -update`" + `.
`

func TestANameThatTurnsIntoAPrivateAddressIsNotConnectedTo(t *testing.T) {
	hit := false
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hit = true }))
	defer srv.Close()
	// localhost stands for a name whose answer is private by the time of the
	// connection: the resolver is asked by the dialer, after every other check.
	_, port, err := net.SplitHostPort(strings.TrimPrefix(srv.URL, "http://"))
	require.NoError(t, err)
	dialer := NewGuard(Config{}).Dialer(time.Second)
	_, err = dialer.DialContext(context.Background(), "tcp", net.JoinHostPort("localhost", port))
	var b *BlockedError
	require.ErrorAs(t, err, &b)
	require.False(t, hit)
}

func TestOnlyTCPIsDialled(t *testing.T) {
	g := NewGuard(Config{AllowLoopback: true})
	for _, network := range []string{"udp4", "unix", "ip4"} {
		require.Error(t, g.control(t.Context(), network, "127.0.0.1:80", nil), network)
	}
}

func TestErrorsOfURLsNameTheFieldAndTheFix(t *testing.T) {
	g := NewGuard(Config{})
	for raw, want := range map[string]string{
		"":                                     "url: is empty: write",
		"http://example.com":                   "url: is not encrypted: use https",
		"https://a:b@example.com":              "url: holds a user name or password: put an Authorization header into config.headers",
		"https://10.0.0.1/":                    "let the operator allow the network",
		"https://127.1/":                       "write four decimal numbers",
		"https://" + strings.Repeat("a", 3000): "at most 2048",
	} {
		_, err := g.CheckURL("url", raw)
		require.ErrorContains(t, err, want)
	}
}
