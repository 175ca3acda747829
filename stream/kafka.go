package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
)

// IsUnavailable reports whether an error says that no broker could be reached, or
// that none could serve for now: waiting may mend it, unlike a refused login.
func IsUnavailable(err error) bool {
	var network *net.OpError
	dial := errors.As(err, &network) && network.Op == "dial" // franz-go leaves it to its caller to dial again
	return dial || kgo.IsRetryableBrokerErr(err) || kerr.IsRetriable(err) || errors.Is(err, context.DeadlineExceeded)
}

// Config says where Kafka is and how the deployment's topics are made. It is a
// value: copies are independent, and it is not changed after Validate.
type Config struct {
	// Brokers are the seed brokers, host:port. Required.
	Brokers []string
	// Prefix stands before the name of every topic, group and transactional id.
	// Default "hogstream.".
	Prefix string
	// Instance names this process among others of the deployment; it is part of
	// transactional ids and of static membership. Users that need one
	// refuse an empty name.
	Instance string

	// TLSEnabled encrypts all connections and trusts the system's roots;
	// TLSCAFile (PEM) does the same with its own.
	TLSEnabled bool
	TLSCAFile  string

	// Login is how clients log in; the zero value for brokers that ask for none.
	Login Login

	// Partitions of topics that are created. Default 12.
	Partitions int32
	// ReplicationFactor of topics that are created. Default 1; 3 is recommended.
	ReplicationFactor int16
	// MinInSync is min.insync.replicas of topics that are created; 0 leaves it
	// to the broker.
	MinInSync int
	// Retention overrides the default retention of topics that delete; a
	// negative one keeps records for ever.
	Retention map[schemas.Topic]time.Duration

	// AppendTimeout is how long Append waits for the broker. Default 5 s.
	AppendTimeout time.Duration
	// Compression of produced batches: snappy (default), lz4, zstd or none.
	Compression string

	// Contents, when set, says what records are whose headers do not.
	Contents Contents

	// Dialer replaces net.Dialer, for a guard on addresses or a network in memory.
	// TLS is its business then.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
	// ClientMetrics, when set, gets the Kafka clients' own metrics, labelled by
	// client.
	ClientMetrics prometheus.Registerer
}

// Defaults of Config.
const (
	DefaultPrefix        = "hogstream."
	DefaultPartitions    = 12
	DefaultAppendTimeout = 5 * time.Second
)

// MinAppendTimeout is the least AppendTimeout.
const MinAppendTimeout = 100 * time.Millisecond

// clientID begins the name by which brokers know a client.
const clientID = "hogstream"

// WithDefaults fills in what is not set.
func (c Config) WithDefaults() Config {
	SetDefault(&c.Prefix, DefaultPrefix)
	SetDefault(&c.Partitions, DefaultPartitions)
	SetDefault(&c.ReplicationFactor, 1)
	SetDefault(&c.AppendTimeout, DefaultAppendTimeout)
	SetDefault(&c.Compression, "snappy")
	return c
}

// SetDefault gives a setting that is not set, for it is the zero value, its default.
func SetDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports every field that cannot work, each named. Fields that are
// not set stand for their defaults.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("kafka config %s: %s", field, fmt.Sprintf(format, args...)))
	}
	if len(c.Brokers) == 0 {
		bad("Brokers", "no broker given")
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			bad("Brokers", "%q is not host:port", b)
		}
	}
	if i := strings.IndexFunc(c.Prefix, notInTopicName); i >= 0 {
		bad("Prefix", "%q has %q, which no topic name may have (letters, digits, '.', '_', '-')", c.Prefix, c.Prefix[i:i+1])
	}
	if len(c.Prefix) > 200 {
		bad("Prefix", "%d characters; at most 200 leave room for a topic's name", len(c.Prefix))
	}
	if c.Partitions < 1 {
		bad("Partitions", "%d; at least 1", c.Partitions)
	}
	if c.ReplicationFactor < 1 {
		bad("ReplicationFactor", "%d; at least 1", c.ReplicationFactor)
	}
	if c.MinInSync < 0 || c.MinInSync > int(c.ReplicationFactor) {
		bad("MinInSync", "%d with replication factor %d: nothing could be appended", c.MinInSync, c.ReplicationFactor)
	}
	for t, d := range c.Retention {
		if spec, ok := topicSpec(t); !ok {
			bad("Retention", "there is no topic %q", t)
		} else if spec.Compact {
			bad("Retention", "topic %q keeps the newest record of each key for ever", t)
		} else if d >= 0 && d < time.Minute {
			bad("Retention", "%s for %q; at least a minute, or negative for ever", d, t)
		}
	}
	if c.AppendTimeout < MinAppendTimeout {
		bad("AppendTimeout", "%s; at least %s", c.AppendTimeout, MinAppendTimeout)
	}
	if _, err := c.codecs(); err != nil {
		bad("Compression", "%v", err)
	}
	if _, err := c.tlsConfig(); err != nil {
		bad("TLSCAFile", "%v", err)
	}
	if err := c.checkLogin(); err != nil {
		bad("Login", "%v", err)
	}
	return errors.Join(errs...)
}

func notInTopicName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
}

func topicSpec(t schemas.Topic) (schemas.TopicSpec, bool) {
	for _, s := range schemas.Topics() {
		if s.Topic == t {
			return s, true
		}
	}
	return schemas.TopicSpec{}, false
}

// Topic returns the topic's name on the brokers.
func (c Config) Topic(t schemas.Topic) string { return c.prefix() + string(t) }

// TopicOf is the inverse of Topic; ok is false for a name without the prefix.
func (c Config) TopicOf(name string) (t schemas.Topic, ok bool) {
	bare, ok := strings.CutPrefix(name, c.prefix())
	return schemas.Topic(bare), ok
}

// Owns says whether a topic of this name on the same cluster is the deployment's: its
// prefix is reserved for it.
func (c Config) Owns(name string) bool { return strings.HasPrefix(name, c.prefix()) }

// Group returns a consumer group's name on the brokers.
func (c Config) Group(name string) string { return c.prefix() + name }

func (c Config) prefix() string {
	if c.Prefix == "" {
		return DefaultPrefix
	}
	return c.Prefix
}

// ClientOptions returns what all Kafka clients have in common:
// brokers, encryption, authentication, logging, the partitioner, and sizes.
// role names the client in logs and metrics (`hogstream.<role>` on the broker).
// Options given after these override them.
func (c Config) ClientOptions(role string, logger *zap.Logger) ([]kgo.Opt, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	codecs, err := c.codecs()
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(clientID + "." + role),
		// A keyed record goes to murmur2(key) mod partitions, as with the Java
		// client's default partitioner: others can produce and look up by key.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchMaxBytes(schemas.MaxRecord),
		kgo.ProducerBatchCompression(codecs...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Reconnect soon after an outage; the default backs off for up to 5 s.
		kgo.RetryBackoffFn(retryBackoff),
		// Look for moved leaders soon: until it is found, a partition stands still.
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(time.Minute),
	}
	if logger != nil {
		opts = append(opts, kgo.WithLogger(kzap.New(logger.Named("kafka."+role), kzap.Level(kgo.LogLevelWarn))))
	}
	secure, err := c.securityOptions()
	if err != nil {
		return nil, err
	}
	opts = append(opts, secure...)
	if c.ClientMetrics != nil {
		opts = append(opts, kgo.WithHooks(clientMetrics(c.ClientMetrics, role)...))
	}
	return opts, nil
}

// NewClient makes a client of the common options and more of its own.
func (c Config) NewClient(role string, logger *zap.Logger, more ...kgo.Opt) (*kgo.Client, error) {
	opts, err := c.ClientOptions(role, logger)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client %s: %w", role, err)
	}
	return cl, nil
}

// retryBackoff grows from 50 ms to 1 s.
func retryBackoff(failures int) time.Duration {
	return min(50*time.Millisecond<<min(max(failures-1, 0), 5), time.Second)
}

func (c Config) securityOptions() ([]kgo.Opt, error) {
	var opts []kgo.Opt
	conf, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	switch {
	case c.Dialer != nil:
		opts = append(opts, kgo.Dialer(c.Dialer))
	case conf != nil:
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	auth, err := c.Login.option()
	if err != nil {
		return nil, err
	}
	if auth != nil {
		opts = append(opts, auth)
	}
	return opts, nil
}

func (c Config) tlsConfig() (*tls.Config, error) {
	if !c.TLSEnabled && c.TLSCAFile == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCAFile == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(c.TLSCAFile)
	if err != nil {
		return nil, err
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no PEM certificate", c.TLSCAFile)
	}
	return conf, nil
}

// checkLogin says what is wrong with the login. Tokens and signatures of AWS are not
// sent in the clear: its brokers take them over TLS alone.
func (c Config) checkLogin() error {
	if _, err := c.Login.mechanism(); err != nil {
		return err
	}
	if strings.EqualFold(c.Login.Mechanism, "AWS_MSK_IAM") && !c.TLSEnabled && c.TLSCAFile == "" && c.Dialer == nil {
		return errors.New("AWS_MSK_IAM is spoken over TLS alone: turn TLS on")
	}
	return nil
}

func (c Config) codecs() ([]kgo.CompressionCodec, error) {
	switch c.Compression {
	case "", "snappy":
		return []kgo.CompressionCodec{kgo.SnappyCompression(), kgo.NoCompression()}, nil
	case "lz4":
		return []kgo.CompressionCodec{kgo.Lz4Compression(), kgo.NoCompression()}, nil
	case "zstd":
		return []kgo.CompressionCodec{kgo.ZstdCompression(), kgo.SnappyCompression(), kgo.NoCompression()}, nil
	case "none":
		return []kgo.CompressionCodec{kgo.NoCompression()}, nil
	}
	return nil, fmt.Errorf("%q; snappy, lz4, zstd or none", c.Compression)
}
