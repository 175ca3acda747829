package sinks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// kafkaKind forwards envelopes to a topic of this or another cluster: keyed by
// contact id, with the headers id, type and occurred-at. It is the example of a
// kind that does not speak HTTP.
var kafkaKind = Kind{Name: "kafka", Records: 500, Bytes: 1 << 20, Open: openKafka, Receivers: brokers}

// kafkaConfig is the config of kind kafka.
type kafkaConfig struct {
	Brokers   []string `json:"brokers"` // host:port
	Topic     string   `json:"topic"`
	TLS       bool     `json:"tls"`
	Mechanism string   `json:"mechanism"` // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, or none
	Username  string   `json:"username"`
	Password  string   `json:"password"`
	batching
}

// kafka opens its client at the first attempt: settings are also checked where
// nothing is sent.
type kafka struct {
	cfg   kafkaConfig
	guard *transport.Guard

	mu        sync.Mutex
	forwarder *delivery.Forwarder
	closed    bool
	underWay  map[*context.CancelCauseFunc]struct{} // attempts
}

var validTopic = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// brokers are the receivers of the kind's password.
func brokers(dest *storage.Destination) (urls []string) {
	var cfg kafkaConfig
	if ReadConfig(dest.Config, &cfg) != nil {
		return nil
	}
	scheme := "tcp://"
	if cfg.TLS {
		scheme = "tls://"
	}
	for _, broker := range cfg.Brokers {
		urls = append(urls, scheme+broker)
	}
	return urls
}

func openKafka(dest *storage.Destination, guard *transport.Guard) (Sink, error) {
	k := &kafka{guard: guard}
	if err := ReadConfig(dest.Config, &k.cfg); err != nil {
		return nil, err
	}
	if !validTopic.MatchString(k.cfg.Topic) {
		return nil, errors.New("config.topic: write the name of a topic: letters, digits, dots, dashes and underscores")
	}
	if err := k.cfg.check(); err != nil {
		return nil, err
	}
	if len(k.cfg.Brokers) == 0 {
		return nil, errors.New(`config.brokers: is empty: write at least one "host:port"`)
	}
	for i, b := range k.cfg.Brokers {
		if err := guard.CheckHostPort(b); err != nil {
			return nil, fmt.Errorf("config.brokers[%d]: %w", i, err)
		}
	}
	if !slices.Contains([]string{"", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}, k.cfg.Mechanism) {
		return nil, errors.New("config.mechanism: use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, or leave it out")
	}
	if err := k.streamConfig().Validate(); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return k, nil
}

// idTimeout bounds how long a cluster is asked for its id.
const idTimeout = 3 * time.Second

// CheckLoop refuses a destination that would append to a topic of this deployment. The
// name decides, unless the destination's cluster is known to be another one.
func (d *Deliverer) CheckLoop(ctx context.Context, dest *storage.Destination) error {
	if d.cfg.Own == nil || dest.Kind != kafkaKind.Name {
		return nil
	}
	o := d.newOpened(dest)
	if o.err != nil {
		return o.err
	}
	defer o.close()
	k := o.sink.(*kafka)
	if !d.cfg.Own.Owns(k.cfg.Topic) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, idTimeout)
	defer cancel()
	own, err := d.cfg.Own.ClusterID(ctx)
	if err == nil && own != "" {
		if other := k.clusterID(ctx); other != "" && other != own {
			return nil
		}
	}
	return fmt.Errorf("config.topic: %q is a topic of this deployment (KAFKA_PREFIX), which would read again what it delivers: choose a name without that prefix, or another cluster", k.cfg.Topic)
}

// clusterID is the id of the destination's cluster; empty when it is not known now.
func (k *kafka) clusterID(ctx context.Context) string {
	f, err := k.open()
	if err != nil {
		return ""
	}
	ctx, done := k.begin(ctx)
	defer done()
	id, _ := f.ClusterID(ctx) // what is not known is refused
	return id
}

func (k *kafka) streamConfig() stream.Config {
	cfg := stream.Config{
		Brokers: k.cfg.Brokers, Login: stream.Login{Mechanism: k.cfg.Mechanism, Username: k.cfg.Username, Password: k.cfg.Password},
		Dialer: k.dial,
	}
	if k.cfg.TLS {
		cfg.Dialer = k.dialTLS
	}
	return cfg
}

// dial connects behind the guard. What the guard refuses no other try mends, and a broker
// may announce any address: attempts under way end at once.
func (k *kafka) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := k.guard.Dialer(10*time.Second).DialContext(ctx, network, address)
	var blocked *transport.BlockedError
	if errors.As(err, &blocked) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for cancel := range k.underWay {
			(*cancel)(blocked)
		}
	}
	return conn, err
}

// begin gives an attempt a context that ends when the guard refuses a broker.
func (k *kafka) begin(ctx context.Context) (attempt context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.underWay == nil {
		k.underWay = map[*context.CancelCauseFunc]struct{}{}
	}
	k.underWay[&cancel] = struct{}{}
	return ctx, func() {
		cancel(nil)
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.underWay, &cancel)
	}
}

// dialTLS encrypts behind the guard.
func (k *kafka) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	raw, err := k.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// Build implements [Sink]: what a record would look like, for a preview.
func (k *kafka) Build(a *Attempt) (*transport.Request, error) {
	p := a.Payloads[0]
	header := http.Header{}
	for _, h := range kafkaHeaders(p, a) {
		header[h[0]] = []string{h[1]}
	}
	target := &url.URL{Scheme: "kafka", Host: strings.Join(k.cfg.Brokers, ","), Path: "/" + k.cfg.Topic}
	return &transport.Request{URL: target, Header: header, Body: p.Envelope}, nil
}

func kafkaHeaders(p *Payload, a *Attempt) [][2]string {
	headers := [][2]string{
		{"id", p.MessageID()}, {"type", p.Type}, {"occurred-at", p.OccurredAt.UTC().Format("2006-01-02T15:04:05.000Z")},
		{"content-type", "application/json"},
	}
	if p.Seq > 0 {
		headers = append(headers, [2]string{stream.HeaderSeq, strconv.FormatInt(p.Seq, 10)}, [2]string{stream.HeaderEra, strconv.FormatInt(p.Era, 10)})
	}
	if a.ReplayID != "" {
		headers = append(headers, [2]string{"hogstream-replay", a.ReplayID})
	}
	if a.Test {
		headers = append(headers, [2]string{"hogstream-test", "true"})
	}
	return headers
}

// Send implements [Sender].
func (k *kafka) Send(ctx context.Context, a *Attempt) delivery.Outcome {
	f, err := k.open()
	if err != nil {
		return delivery.Outcome{Verdict: delivery.Refuse, Err: err.Error()}
	}
	records := make([]delivery.Forwarded, len(a.Payloads))
	for i, p := range a.Payloads {
		records[i] = delivery.Forwarded{
			Key: []byte(p.Person.ContactID), Value: p.Envelope, Headers: kafkaHeaders(p, a), Timestamp: p.OccurredAt,
		}
	}
	ctx, done := k.begin(ctx)
	defer done()
	out := f.Forward(ctx, records)
	var blocked *transport.BlockedError
	if out.Verdict != delivery.Delivered && errors.As(context.Cause(ctx), &blocked) {
		return delivery.Outcome{Verdict: delivery.Refuse, Latency: out.Latency, Err: delivery.FailureBlocked + ": " + blocked.Reason}
	}
	return out
}

func (k *kafka) open() (*delivery.Forwarder, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, errors.New("the settings were changed meanwhile")
	}
	if k.forwarder != nil {
		return k.forwarder, nil
	}
	f, err := delivery.OpenForwarder(k.streamConfig(), k.cfg.Topic, nil)
	k.forwarder = f
	return f, err
}

// Judge implements [Sink]; there are no answers of HTTP to judge.
func (k *kafka) Judge(_ *Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	return JudgeStatus(ans.Status), ""
}

// Close implements [io.Closer].
func (k *kafka) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.forwarder != nil {
		k.forwarder.Close()
	}
	return nil
}
