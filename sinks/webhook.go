package sinks

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// webhookKind sends the envelope, signed as Standard Webhooks 1.0.0 says, one
// record a request.
var webhookKind = Kind{
	Name: Webhook, Signed: true, NeedsURL: true, Records: 1, Bytes: 8 << 20, Open: openWebhook,
	Receivers: func(dest *storage.Destination) []string { return []string{dest.URL} },
}

// Webhook is the kind of a destination that names none.
const Webhook = "webhook"

// webhookConfig is the config of kind webhook.
type webhookConfig struct {
	// Headers are sent with every request.
	Headers map[string]string `json:"headers"`
	// Ed25519 adds the asymmetric signature (v1a) to that with the secret (v1).
	Ed25519 bool `json:"ed25519"`
}

type webhook struct {
	url      *url.URL
	header   http.Header // what is the same for every attempt
	current  *signing.Secret
	previous *signing.Secret // signs beside current until previousUntil
	until    time.Time

	key, previousKey *signing.Key // nil unless it signs with one
}

func openWebhook(dest *storage.Destination, guard *transport.Guard) (Sink, error) {
	target, err := guard.CheckURL("url", dest.URL)
	if err != nil {
		return nil, err
	}
	var cfg webhookConfig
	if err := ReadConfig(dest.Config, &cfg); err != nil {
		return nil, err
	}
	w := &webhook{url: target, header: http.Header{"Content-Type": {"application/json"}}}
	if err := addHeaders(w.header, cfg.Headers); err != nil {
		return nil, err
	}
	if w.current, err = signing.OpenSecret(dest.Secret); err != nil {
		return nil, err
	}
	if cfg.Ed25519 {
		if w.key, err = signing.OpenKey(dest.SigningKey); err != nil {
			return nil, err
		}
	}
	if dest.PreviousSecret != "" && dest.PreviousSecretUntil != nil {
		// A previous secret that cannot be used is no reason to stop signing
		// with the one that can.
		w.previous, _ = signing.OpenSecret(dest.PreviousSecret)
		w.until = *dest.PreviousSecretUntil
		if key, err := signing.OpenKey(dest.PreviousSigningKey); err == nil && cfg.Ed25519 {
			w.previousKey = key
		}
	}
	return w, nil
}

// Build implements [Sink]. The header names are written Title-Case, as the
// reference does; names of headers are the same in any case.
func (w *webhook) Build(a *Attempt) (*transport.Request, error) {
	p := a.Payloads[0]
	id, timestamp := p.MessageID(), strconv.FormatInt(a.Now.Unix(), 10)
	var buf [128]byte
	sig := w.current.Append(buf[:0], id, timestamp, p.Envelope)
	rotating := a.Now.Before(w.until)
	if w.previous != nil && rotating {
		sig = w.previous.Append(append(sig, ' '), id, timestamp, p.Envelope)
	}
	if w.key != nil {
		sig = w.key.Append(append(sig, ' '), id, timestamp, p.Envelope)
	}
	if w.previousKey != nil && rotating {
		sig = w.previousKey.Append(append(sig, ' '), id, timestamp, p.Envelope)
	}
	header := make(http.Header, len(w.header)+5)
	for name, values := range w.header {
		header[name] = values
	}
	if p.Call != nil {
		if err := addCallHeaders(header, p.Call.Headers); err != nil {
			return nil, err
		}
	}
	header["Webhook-Id"] = []string{id}
	header["Webhook-Timestamp"] = []string{timestamp}
	header["Webhook-Signature"] = []string{string(sig)}
	return &transport.Request{URL: w.url, Header: header, Body: p.Envelope}, nil
}

// TakesCalls implements [Caller].
func (w *webhook) TakesCalls() {}

// Judge implements [Sink].
func (w *webhook) Judge(_ *Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	return JudgeStatus(ans.Status), ""
}

// addCallHeaders adds the headers of a call; it may name the type of its body.
func addCallHeaders(to http.Header, headers map[string]string) error {
	own := make(map[string]string, len(headers))
	for name, value := range headers {
		if http.CanonicalHeaderKey(name) == "Content-Type" && httpguts.ValidHeaderFieldValue(value) {
			to["Content-Type"] = []string{value}
			continue
		}
		own[name] = value
	}
	if err := addHeaders(to, own); err != nil {
		return fmt.Errorf(delivery.FailureHeaders+": %w", err)
	}
	return nil
}

// reservedHeaders are ours or the protocol's to set.
var reservedHeaders = []string{
	"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Host", "Hogstream-Replay", "Hogstream-Test", "Keep-Alive",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "User-Agent",
}

// addHeaders checks headers that a user configured and adds them.
func addHeaders(to http.Header, custom map[string]string) error {
	for name, value := range custom {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return fmt.Errorf("config.headers: %q is no name of a header", name)
		case !httpguts.ValidHeaderFieldValue(value):
			return fmt.Errorf("config.headers.%s: the value holds a line break or a control character", name)
		case strings.HasPrefix(canonical, "Webhook-"), slices.Contains(reservedHeaders, canonical):
			return fmt.Errorf("config.headers.%s: is set by Hogstream: remove it", name)
		}
		to[canonical] = []string{value}
	}
	return nil
}
