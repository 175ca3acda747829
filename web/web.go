// Package web is the HTTP edge that ingest and console share: the envelope of an exchange,
// errors, bodies, compression, the request log, CORS, the client's address, routes as
// values, and the API's description that follows from them.
//
// What it promises:
//   - A route is one value ([Route]): method, path, scopes, parameters, request and
//     answer types, description, example and handler. Serving it, reading its requests
//     and describing it all follow from that value.
//   - Every answer has the common headers and a request id, errors have one envelope,
//     and what is wrong with fields is named with its path and its fix.
//   - A panic is a 500 that tells nothing; every request is counted and logged once.
//
// Who may call a route is for whoever mounts it to find out.
package web

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// MetricsPath is where the metrics are, unless they have an address of their own.
const MetricsPath = "/metrics"

// Config is what can be set; the zero value logs every request and believes no proxy.
type Config struct {
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// AccessLog is which requests are logged: "all" (or empty), "failures", "off".
	AccessLog string
}

// Edge is what is around every route. It is safe for concurrent use.
type Edge struct {
	cfg     Config
	log     *zap.Logger
	metrics *metrics
}

// NewEdge makes an edge that logs to logger.
func NewEdge(cfg Config, logger *zap.Logger) *Edge {
	return &Edge{cfg: cfg, log: logger, metrics: newMetrics()}
}

// Collectors are what it measures.
func (e *Edge) Collectors() []prometheus.Collector {
	return []prometheus.Collector{e.metrics.requests}
}
