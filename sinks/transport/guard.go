package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"code.dny.dev/ssrf"
)

// Guard keeps destinations from being used to reach into the network that
// Hogstream runs in. It decides on the address that is dialled, after DNS and
// for each connection, so a name that changes its address gains nothing. It is
// immutable and safe for concurrent use.
type Guard struct {
	table         *ssrf.Guardian
	allowed       []netip.Prefix
	allowLoopback bool
	allowHTTP     bool
}

// NewGuard makes a guard with the exceptions of cfg.
func NewGuard(cfg Config) *Guard {
	g := &Guard{
		table:         ssrf.New(ssrf.WithAnyPort()),
		allowLoopback: cfg.AllowLoopback, allowHTTP: cfg.AllowHTTP,
	}
	for _, p := range cfg.AllowNetworks {
		g.allowed = append(g.allowed, p.Masked())
	}
	return g
}

// BlockedError says that an address is not one to connect to.
type BlockedError struct{ Reason string }

// Error implements error.
func (e *BlockedError) Error() string { return "blocked by the guard on connections: " + e.Reason }

func blocked(format string, args ...any) error {
	return &BlockedError{Reason: fmt.Sprintf(format, args...)}
}

// Networks that are special within what the table of package ssrf regards as
// public.
var specialNetworks = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("168.63.129.16/32"), "Azure's platform and metadata service"},
	{netip.MustParsePrefix("2001::/32"), "Teredo, which carries an IPv4 address"},
	{netip.MustParsePrefix("2002::/16"), "6to4, which carries an IPv4 address"},
}

// nat64 are the prefixes under which an IPv4 address is reached from IPv6.
var nat64 = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48")}

// CheckAddr reports why an address must not be connected to, nil if it may.
func (g *Guard) CheckAddr(addr netip.Addr) error {
	if !addr.IsValid() {
		return blocked("not an IP address")
	}
	if addr.Zone() != "" {
		return blocked("%s has a zone, so it is local to a link", addr)
	}
	addr = addr.Unmap() // ::ffff:10.0.0.1 is 10.0.0.1
	if g.allowLoopback && addr.IsLoopback() {
		return nil
	}
	if g.isAllowed(addr) {
		return g.checkEmbedded(addr)
	}
	for _, n := range specialNetworks {
		if n.prefix.Contains(addr) {
			return blocked("%s is %s", addr, n.what)
		}
	}
	if isISATAP(addr) {
		return blocked("%s carries an IPv4 address (ISATAP)", addr)
	}
	if err := g.table.SafeAddr(addr); err != nil {
		return blocked("%s is not a public address (private, loopback, link-local, carrier-grade NAT, metadata or reserved): a network of yours is allowed by DELIVERY_ALLOW_CIDRS", addr)
	}
	return nil
}

func (g *Guard) isAllowed(addr netip.Addr) bool {
	return slices.ContainsFunc(g.allowed, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// checkEmbedded looks through NAT64: an operator who allows its prefix, because
// the network has no other way to IPv4, does not thereby allow 10.0.0.1 behind it.
func (g *Guard) checkEmbedded(addr netip.Addr) error {
	for _, p := range nat64 {
		if p.Contains(addr) {
			b := addr.As16()
			return g.CheckAddr(netip.AddrFrom4([4]byte(b[12:])))
		}
	}
	return nil
}

// isISATAP recognises the interface identifiers of RFC 5214, which stand in any
// prefix.
func isISATAP(addr netip.Addr) bool {
	if !addr.Is6() {
		return false
	}
	b := addr.As16()
	return (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// badPorts are those of other protocols, which an HTTP request can be made to
// speak to. After the list of the Fetch standard.
var badPorts = []uint16{
	1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
	111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532,
	540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061,
	6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211,
}

// checkPort refuses what is no port of an HTTP server.
func checkPort(port uint16) error {
	if port == 0 {
		return blocked("port 0 is none")
	}
	if slices.Contains(badPorts, port) {
		return blocked("port %d belongs to another protocol than HTTP", port)
	}
	return nil
}

// control is called by the dialer with the address it is about to connect to.
func (g *Guard) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return blocked("%s is not TCP", network)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return blocked("%q is not an address with a port", address)
	}
	if err := checkPort(ap.Port()); err != nil {
		return err
	}
	return g.CheckAddr(ap.Addr())
}

// Dialer connects only to where the guard lets it.
func (g *Guard) Dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second, ControlContext: g.control}
}

const maxURL = 2048

// CheckURL checks the address of a receiver when it is configured, so that a
// mistake is told at once. It looks nothing up: what a name resolves to is
// checked at each connection. Errors begin with the name of the field and say
// what to write instead; they never repeat the URL, which may hold a secret.
func (g *Guard) CheckURL(field, raw string) (*url.URL, error) {
	u, err := parseURL(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	if err := g.checkHost(u); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return u, nil
}

func parseURL(raw string) (*url.URL, error) {
	switch {
	case raw == "":
		return nil, errors.New("is empty: write the address of the receiver, for example https://example.com/hook")
	case len(raw) > maxURL:
		return nil, fmt.Errorf("has %d characters: at most %d are allowed", len(raw), maxURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("is not a URL (%w): write it as https://host/path", err)
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("the scheme %q is not supported: use https", u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("names no host: write it as https://host/path")
	case u.User != nil:
		return nil, errors.New("holds a user name or password: put an Authorization header into config.headers instead")
	case u.Fragment != "":
		return nil, errors.New("holds a fragment (#…), which is never sent: remove it")
	}
	return u, checkQuery(u.RawQuery)
}

// checkQuery refuses what would break the request line: unlike the path, a query is
// sent as it was written.
func checkQuery(query string) error {
	for i, c := range query {
		_, size := utf8.DecodeRuneInString(query[i:])
		if c > ' ' && c < 0x7f {
			continue
		}
		written := ""
		for _, b := range []byte(query[i : i+size]) {
			written += fmt.Sprintf("%%%02X", b)
		}
		what := strconv.QuoteRune(c)
		if c == ' ' {
			what = "a space"
		}
		return fmt.Errorf("the query holds %s: write it as %s", what, written)
	}
	return nil
}

func (g *Guard) checkHost(u *url.URL) error {
	if err := checkURLPort(u); err != nil {
		return err
	}
	local, addr, err := g.checkName(u.Hostname())
	if err != nil {
		return err
	}
	if u.Scheme == "http" && !g.allowHTTP && !local && !(addr.IsValid() && (addr.Unmap().IsLoopback() || g.isAllowed(addr.Unmap()))) {
		return errors.New("is not encrypted: use https")
	}
	return nil
}

// checkName checks the name or address of a host, and says whether it is this machine by
// name, or which address it is.
func (g *Guard) checkName(host string) (local bool, addr netip.Addr, err error) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	local = host == "localhost" || strings.HasSuffix(host, ".localhost")
	addr, notAddr := netip.ParseAddr(host)
	switch {
	case notAddr == nil:
		if err := g.CheckAddr(addr); err != nil {
			return local, addr, fmt.Errorf("%w: use a public address, or let the operator allow the network", err)
		}
	case local && !g.allowLoopback:
		return local, addr, fmt.Errorf("%w: use a public host name", blocked("%s is this machine", host))
	case endsInNumber(host):
		return local, addr, fmt.Errorf("%q is an IPv4 address in an unusual form: write four decimal numbers", host)
	case !local && !validName(host):
		return local, addr, fmt.Errorf("%q is not a host name", host)
	}
	return local, addr, nil
}

func checkURLPort(u *url.URL) error {
	if strings.HasSuffix(u.Host, ":") {
		return errors.New("has an empty port: remove the colon")
	}
	if u.Port() == "" {
		return nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return fmt.Errorf("the port %s is out of range: use 1 to 65535", u.Port())
	}
	return checkPort(uint16(port))
}

// CheckHostPort checks an address, host:port, when it is configured, as [Guard.CheckURL]
// does for URLs: it looks nothing up.
func (g *Guard) CheckHostPort(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return fmt.Errorf("%q is not host:port", address)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("the port %q is out of range: use 1 to 65535", port)
	}
	if err := checkPort(uint16(n)); err != nil {
		return err
	}
	_, _, err = g.checkName(host)
	return err
}

// endsInNumber recognises what the resolvers of C libraries read as an IPv4
// address although it is not in the usual form: 127.1, 0177.0.0.1, 0x7f000001,
// 2130706433.
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" {
		return false
	}
	if _, err := strconv.ParseUint(last, 10, 64); err == nil {
		return true
	}
	hex, isHex := strings.CutPrefix(last, "0x")
	if !isHex {
		return false
	}
	_, err := strconv.ParseUint(hex, 16, 64)
	return hex == "" || err == nil
}

// validName accepts host names in ASCII; others are written in punycode.
func validName(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}
