// Package sinks delivers records to destinations: one file a kind of destination, and
// the payloads that leave. Package transport below it makes the requests, package
// destinations above it has the operations on destinations.
//
// What the package promises the others:
//   - An attempt always ends in a [delivery.Outcome], within its deadline, whatever
//     the receiver does. The lanes of package stream decide what follows.
//   - The same record gives the same bytes and the same id at every attempt,
//     replay and rebuild; customer properties leave byte for byte as they came.
//   - No connection is made to an address that the operator has not allowed:
//     the check is on the address dialled, after DNS. Redirects are not followed.
//   - A wrong setting is told apart from a wrong record: the first refuses (the
//     destination waits for its mend), the second is rejected.
//   - Secrets and payloads are in no log and no error.
package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/program"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// Config is what can be set. The zero value of a duration or a size means its default.
type Config struct {
	// Version of the product, for the User-Agent.
	Version string
	// Timeout bounds one attempt: connecting, sending, and the answer; 8 s by default.
	Timeout time.Duration
	// AllowLoopback permits receivers on this machine. For development.
	AllowLoopback bool
	// AllowHTTP permits receivers without TLS. Receivers on loopback and on
	// allowed networks may always do without.
	AllowHTTP bool
	// AllowNetworks are private networks in which receivers may stand.
	AllowNetworks []netip.Prefix
	// Lines says which attempts are log lines: failures ("failures", the default), all, or
	// none ("off").
	Lines string
	// Kinds are those that may be used here; nil means all. A destination of
	// another kind keeps its place and is refused.
	Kinds []string
	// OwnKinds are kinds beside those of this package, from a program that embeds it.
	OwnKinds []Kind
	// Proxy is what all requests over HTTP go through, see [transport.ParseProxy];
	// nil for none.
	Proxy *url.URL
	// Memberships looks up who is a member of which buckets, for filters that ask for it;
	// nil refuses these.
	Memberships Memberships
	// Zone is the deployment's, of calendar dates in filters that name none; nil is UTC.
	Zone *time.Location
	// Own is the Kafka that this deployment lives on; nil lets destinations of kind
	// kafka write to any topic.
	Own *OwnKafka
}

// OwnKafka tells what must not be written to: what a destination appended to a topic of
// the deployment would be an input of processors that did not ask for it, or come back
// as a record to be delivered, for ever.
type OwnKafka struct {
	// Owns says whether a topic of this name on the cluster is the deployment's.
	Owns func(topic string) bool
	// ClusterID is the id of the cluster.
	ClusterID func(context.Context) (string, error)
}

// Validate reports everything that is wrong, one line a field.
func (c Config) Validate() error {
	var errs []error
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("sinks: Timeout %s: must be positive, or 0 for the default", c.Timeout))
	}
	own, err := builtIn.with(c.OwnKinds)
	if err != nil {
		errs = append(errs, fmt.Errorf("sinks: OwnKinds: %w", err))
	}
	for _, k := range c.Kinds {
		if _, err := own.find(k); err != nil {
			errs = append(errs, fmt.Errorf("sinks: Kinds: %w", err))
		}
	}
	for _, p := range c.AllowNetworks {
		if !p.IsValid() {
			errs = append(errs, errors.New("sinks: AllowNetworks: not a network: write an address and a length, for example 10.1.0.0/16"))
		}
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Timeout = cmp.Or(c.Timeout, 8*time.Second)
	c.Version = cmp.Or(c.Version, "dev")
	return c
}

// Kind is a row of the table of kinds: a sort of receiver.
type Kind struct {
	Name string
	// Signed kinds sign their requests with a secret of the destination.
	Signed bool
	// NeedsURL says that the destination's URL says where the receiver is;
	// other kinds find it in their config.
	NeedsURL bool
	// SecretURL says that whoever knows the URL may post to it, so that it is
	// hidden like a secret.
	SecretURL bool
	// Records and Bytes bound one request. Records is 1 for kinds that deliver
	// one by one.
	Records, Bytes int
	// Answer is how much of an answer is read, for kinds whose receivers say more in
	// it than fits into 1 KiB, the default.
	Answer int
	// DefaultRate is the rate limit of a new destination that names none, in
	// requests a second; 0 for no limit.
	DefaultRate float64
	// Open checks the settings of a destination and prepares what is the same
	// for every attempt. Its error names the field and the fix. It is called
	// once for each revision of a destination.
	Open func(dest *storage.Destination, guard *transport.Guard) (Sink, error)
	// Receivers are the URLs that the secrets of a destination's config are sent to; what
	// their schemes https and tls name is encrypted. Whoever changes one must give the
	// secrets again. nil for kinds whose only secret is the address.
	Receivers func(dest *storage.Destination) []string
}

// Sink is a destination of some kind, ready to be delivered to. It is immutable
// and safe for concurrent use.
type Sink interface {
	// Build makes the request that carries the payloads, in order. An error is
	// the fault of a payload.
	Build(a *Attempt) (*transport.Request, error)
	// Judge says what an answer means, and why when the status does not say it.
	// Most kinds return [JudgeStatus].
	Judge(a *Attempt, ans *transport.Answer) (verdict delivery.Verdict, reason string)
}

// Caller is a Sink that takes outbox records too: Build makes the request of a payload with
// a Call. Its kind delivers one by one.
type Caller interface {
	Sink
	TakesCalls()
}

// ItemJudge is a Sink whose receiver answers for each payload by itself: its Judge
// returns [delivery.Partial] then.
type ItemJudge interface {
	Sink
	// JudgeItems says what an answer means for each payload of the attempt, in their
	// order: Delivered, Reject, or Retry. What is to be sent again is sent with what
	// follows it of the same contact.
	JudgeItems(a *Attempt, ans *transport.Answer) []delivery.Result
}

// Sender is a Sink that does not speak HTTP: it makes the attempt itself, within
// the deadline of ctx. Build serves its previews. A Sender that is an [io.Closer]
// is closed when its destination was changed or deleted. Its outcome may be Partial,
// with a result for each payload.
type Sender interface {
	Sink
	Send(ctx context.Context, a *Attempt) delivery.Outcome
}

// catalog are kinds of destination, each under a name of its own.
type catalog []Kind

// builtIn is the table. A new kind is a file that defines it and a line here.
var builtIn = catalog{
	webhookKind,
	posthogKind,
	segmentKind,
	slackKind,
	kafkaKind,
}

// Kinds are the names of all kinds, in the table's order.
func Kinds() []string {
	return builtIn.names()
}

func (c catalog) names() []string {
	names := make([]string, len(c))
	for i, k := range c {
		names[i] = k.Name
	}
	return names
}

// find finds a kind by its name.
func (c catalog) find(name string) (*Kind, error) {
	for i := range c {
		if c[i].Name == name {
			return &c[i], nil
		}
	}
	return nil, fmt.Errorf("kind: %q is unknown: use one of %v", name, c.names())
}

// validKind is what a kind may be called.
var validKind = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// with is the catalog with kinds of a program that embeds this package. The error names
// what is wrong with one.
func (c catalog) with(own []Kind) (catalog, error) {
	all := slices.Clone(c)
	var errs []error
	for _, k := range own {
		wrong := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("kind %q: "+format, append([]any{k.Name}, args...)...))
		}
		if !validKind.MatchString(k.Name) {
			wrong("Name: use 1 to 32 lower-case letters, digits, dashes and underscores, beginning with a letter")
		}
		if slices.ContainsFunc(all, func(other Kind) bool { return other.Name == k.Name }) {
			wrong("Name: there is a kind of that name")
		}
		if k.Open == nil {
			wrong("Open: is nil: give the function that makes a Sink of a destination")
		}
		if k.Records < 1 || k.Bytes < 1 {
			wrong("Records %d, Bytes %d: say how many records (1 to deliver one by one) and bytes a request may carry", k.Records, k.Bytes)
		}
		all = append(all, k)
	}
	return all, errors.Join(errs...)
}

// Kind finds a kind by its name. The error begins with the field.
func (d *Deliverer) Kind(name string) (*Kind, error) { return d.kinds.find(name) }

// enabled says whether a kind may be used here.
func (d *Deliverer) enabled(kind string) error {
	if d.cfg.Kinds == nil || slices.Contains(d.cfg.Kinds, kind) {
		return nil
	}
	if _, err := d.kinds.find(kind); err != nil {
		return err
	}
	return fmt.Errorf("kind: %q is not enabled here: ENABLED_DESTINATION_PRESETS names %s", kind, strings.Join(d.cfg.Kinds, ", "))
}

// Attempt is what a request is built from.
type Attempt struct {
	// Now is the time of the attempt.
	Now      time.Time
	Payloads []*Payload
	// ReplayID is set when the records are delivered again by a backfill.
	ReplayID string
	// Test says that an operator tries the destination out.
	Test bool
	// Number is 1 for the first attempt.
	Number int
}

// Decoder turns values of topics of [schemas.Feeds] into messages. Implemented by
// *schemas.Codec.
type Decoder interface {
	DecodeSent(topic schemas.Topic, value []byte) (schemas.Message, error)
}

// Deliverer makes attempts for the lanes. It is safe for concurrent use.
type Deliverer struct {
	cfg     Config
	kinds   catalog
	codec   Decoder
	log     *zap.Logger
	client  *transport.Client
	agent   []string // the User-Agent, as a header's values
	metrics *metrics
	workers *program.Workers
	lookUps *lookUps // of memberships

	opening sync.Mutex
	opened  sync.Map // destination id → *opened
	memo    memo
}

var _ delivery.Lingerer = (*Deliverer)(nil)

// New makes a Deliverer. Close releases its idle connections.
func New(cfg Config, codec Decoder, log *zap.Logger, reg prometheus.Registerer) (*Deliverer, error) {
	if log == nil {
		log = zap.NewNop()
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	kinds, err := builtIn.with(cfg.OwnKinds)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("register metrics of sinks: %w", err)
	}
	workers, err := program.New(log, reg)
	if err != nil {
		return nil, fmt.Errorf("prepare for filters and transforms: %w", err)
	}
	return &Deliverer{
		cfg: cfg, kinds: kinds, codec: codec, log: log, metrics: m, workers: workers, lookUps: newLookUps(cfg.Memberships),
		client: transport.New(transport.Config{
			AllowLoopback: cfg.AllowLoopback, AllowHTTP: cfg.AllowHTTP, AllowNetworks: cfg.AllowNetworks, Proxy: cfg.Proxy,
		}),
		agent: []string{"Hogstream/" + cfg.Version},
	}, nil
}

// Close closes idle connections, and ends the workers of filters and transforms.
// Attempts in flight over HTTP go on to their end.
func (d *Deliverer) Close() {
	d.workers.Close()
	d.client.Close()
	d.opened.Range(func(id, _ any) bool {
		d.close(id.(string))
		return true
	})
}
