package web

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ClientAddress is the address of the client: the nearest one that is no proxy
// of ours.
func (e *Edge) ClientAddress(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr := peer.Addr().Unmap()
	if len(e.cfg.TrustedProxies) == 0 {
		return addr.String()
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !e.isProxy(addr) {
			break
		}
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		addr = next.Unmap()
	}
	return addr.String()
}

func (e *Edge) isProxy(addr netip.Addr) bool {
	return slices.ContainsFunc(e.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// ClientAddress is [Edge.ClientAddress].
func (x *Exchange) ClientAddress(r *http.Request) string { return x.edge.ClientAddress(r) }
