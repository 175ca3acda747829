package schemas

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/sr"
	"golang.org/x/sync/singleflight"

	"github.com/hogstream/hogstream/schemas/document"
)

// ErrIncompatible marks a schema that the registry refuses because it breaks
// readers or writers of an earlier version. Trying again does not help.
var ErrIncompatible = errors.New("incompatible schema")

// RegistryConfig says where the schema registry is.
type RegistryConfig struct {
	URLs     []string // at least one; tried in turn
	User     string   // basic authentication, when not empty
	Password string
	// TLSCAFile names the CA certificates (PEM) that the registry's is signed by;
	// empty: the system's.
	TLSCAFile string
	Prefix    string // of the topics' names, and so of the subjects
	// Retrying is called with every failed attempt of Register and the wait
	// before the next one; nil for nobody.
	Retrying func(err error, wait time.Duration)
}

// Registry is the client of a Confluent-compatible schema registry (Confluent,
// Redpanda, Apicurio's ccompat v7). It is safe for concurrent use.
type Registry struct {
	cfg    RegistryConfig
	client *sr.Client
	codec  *Codec
	flight singleflight.Group

	mu      sync.Mutex
	unknown map[int]time.Time // ids the registry did not know, until when
}

const (
	askTimeout    = 5 * time.Second
	unknownFor    = 5 * time.Second // an id that is asked for again is not asked of the registry
	unknownAtMost = 1024            // ids remembered; hostile bytes may name 2^32
)

// NewRegistry returns a client; it does not connect.
func NewRegistry(cfg RegistryConfig) (*Registry, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("schema registry: no URL")
	}
	opts := []sr.ClientOpt{
		sr.URLs(slices.Clone(cfg.URLs)...),
		sr.UserAgent("hogstream"),
		sr.HTTPClient(&http.Client{Timeout: askTimeout}),
	}
	if cfg.User != "" {
		opts = append(opts, sr.BasicAuth(cfg.User, cfg.Password))
	}
	if cfg.TLSCAFile != "" {
		conf, err := trusting(cfg.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("schema registry: CA certificates: %w", err)
		}
		opts = append(opts, sr.DialTLSConfig(conf))
	}
	client, err := sr.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("schema registry: %w", err)
	}
	r := &Registry{cfg: cfg, client: client, codec: &Codec{}, unknown: make(map[int]time.Time)}
	r.codec.fetch = r.fetch
	return r, nil
}

// trusting is for connections to who shows a certificate signed by one of a file.
func trusting(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no PEM certificate", file)
	}
	return conf, nil
}

// Codec returns the codec that works with this registry, always the same one.
// It decodes at once and encodes after Register.
func (r *Registry) Codec() *Codec { return r.codec }

// Ping asks the registry for something small.
func (r *Registry) Ping(ctx context.Context) error {
	if err := r.client.Compatibility(ctx)[0].Err; err != nil {
		return fmt.Errorf("%w: %w", ErrRegistryUnavailable, err)
	}
	return nil
}

// Register registers the schema of every topic under FULL_TRANSITIVE and gives
// the codec their ids. While the registry is down it tries again until ctx
// ends. It fails at once with ErrIncompatible, when the registry refuses the
// client, and when its certificate is not trusted. It may be called again.
func (r *Registry) Register(ctx context.Context) error {
	ids := make(map[Topic]int)
	for _, t := range Topics() {
		var last error // what a deadline that ends the waiting would hide
		id, err := backoff.Retry(ctx, func() (id int, err error) {
			id, err = r.register(ctx, t.Topic)
			last = err
			return id, err
		}, backoff.WithMaxElapsedTime(0), backoff.WithBackOff(waits()), backoff.WithNotify(r.retrying))
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("register the schema of topic %s: %w: %w", t.Topic, err, last)
		}
		if err != nil {
			return fmt.Errorf("register the schema of topic %s: %w", t.Topic, err)
		}
		ids[t.Topic] = id
	}
	r.codec.setIDs(ids)
	return nil
}

func waits() backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 100 * time.Millisecond
	b.MaxInterval = 5 * time.Second
	return b
}

// errRegisteredNow says that another instance registers the same, which is no outage.
var errRegisteredNow = errors.New("another registers it")

func (r *Registry) retrying(err error, wait time.Duration) {
	if r.cfg.Retrying != nil && !errors.Is(err, errRegisteredNow) {
		r.cfg.Retrying(err, wait)
	}
}

// register registers one schema. The level comes first, so that no version is
// ever accepted under a weaker one; a registry that knows no level of a subject
// that does not exist yet (Apicurio) gets it after the first version.
func (r *Registry) register(ctx context.Context, topic Topic) (int, error) {
	subject := Subject(r.cfg.Prefix, topic)
	levelErr := r.setLevel(ctx, subject)
	if levelErr != nil && !isStatus(levelErr, http.StatusNotFound, http.StatusUnprocessableEntity) {
		return 0, final(subject, levelErr)
	}
	schema := sr.Schema{Schema: document.Compact(layouts[topic].text), Type: sr.TypeAvro}
	id, err := r.client.RegisterSchema(ctx, subject, schema, -1, -1)
	if err != nil {
		return 0, final(subject, err)
	}
	if levelErr != nil {
		if err := r.setLevel(ctx, subject); err != nil {
			return 0, final(subject, err)
		}
	}
	return id, nil
}

// setLevel sets a subject's compatibility level unless it is set already: a
// client that may only read can then still start.
func (r *Registry) setLevel(ctx context.Context, subject string) error {
	// The subject's own level, not the registry's default that it falls back to.
	own := sr.WithParams(ctx, sr.RawParams(map[string][]string{"defaultToGlobal": {"false"}}))
	if got := r.client.Compatibility(own, subject)[0]; got.Err == nil && got.Level == sr.CompatFullTransitive {
		return nil
	}
	return r.client.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatFullTransitive}, subject)[0].Err
}

// final sorts an error of a registration: what the registry decided is
// permanent, everything else is an outage.
func final(subject string, err error) error {
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return backoff.Permanent(fmt.Errorf("the certificate of the schema registry is not trusted: %w", err))
	}
	var answer *sr.ResponseError
	if !errors.As(err, &answer) {
		return fmt.Errorf("%w: subject %s: %w", ErrRegistryUnavailable, subject, err)
	}
	switch code := answer.StatusCode; {
	case code == http.StatusConflict && strings.Contains(answer.Message, "already exists"):
		// Apicurio says so when two instances register at the same moment.
		return fmt.Errorf("%w: subject %s: %w: %w", ErrRegistryUnavailable, subject, errRegisteredNow, answer)
	case code == http.StatusConflict:
		return backoff.Permanent(fmt.Errorf("%w: subject %s: %w", ErrIncompatible, subject, answer))
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
		return fmt.Errorf("%w: subject %s: status %d: %w", ErrRegistryUnavailable, subject, code, answer)
	default:
		return backoff.Permanent(fmt.Errorf("schema registry refused subject %s with status %d: %w", subject, code, answer))
	}
}

func isStatus(err error, codes ...int) bool {
	var answer *sr.ResponseError
	return errors.As(err, &answer) && slices.Contains(codes, answer.StatusCode)
}

// fetch returns the text of the schema with an id that is not ours: of another
// version of Hogstream, or of no version at all. Concurrent calls ask once.
func (r *Registry) fetch(id int) (string, error) {
	if r.isUnknown(id) {
		return "", unknownID(id)
	}
	text, err, _ := r.flight.Do(fmt.Sprint(id), func() (any, error) { return r.ask(id) })
	if err != nil {
		return "", err
	}
	return text.(string), nil
}

func (r *Registry) ask(id int) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	schema, err := r.client.SchemaByID(ctx, id)
	switch {
	case notFound(err):
		r.noteUnknown(id)
		return "", unknownID(id)
	case err != nil:
		return "", fmt.Errorf("%w: schema id %d: %w", ErrRegistryUnavailable, id, err)
	case schema.Type != sr.TypeAvro || len(schema.References) > 0:
		r.noteUnknown(id)
		return "", undecodable(fmt.Errorf("schema id %d is not a self-contained Avro schema", id))
	}
	return schema.Schema, nil
}

// notFound tells the registry's own "no such schema" from the 404 of a proxy or
// of a wrong path, which says nothing about the record.
func notFound(err error) bool {
	var answer *sr.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound &&
		answer.ErrorCode >= 40400 && answer.ErrorCode < 40500
}

func (r *Registry) isUnknown(id int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.unknown[id]
	if ok && time.Now().After(until) {
		delete(r.unknown, id)
		return false
	}
	return ok
}

func (r *Registry) noteUnknown(id int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.unknown) >= unknownAtMost {
		clear(r.unknown)
	}
	r.unknown[id] = time.Now().Add(unknownFor)
}
