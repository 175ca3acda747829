package hogstream

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/stream"
)

// Role is a part of Hogstream that a process can play.
type Role string

// The roles. A process plays any of them; all in one is where everybody starts.
const (
	RoleIngest     Role = "ingest"     // HTTP in, and the admin API
	RoleProcessors Role = "processors" // identity and contacts
	RoleSinks      Role = "sinks"      // delivery to destinations
)

// Roles lists all roles.
func Roles() []Role { return []Role{RoleIngest, RoleProcessors, RoleSinks} }

// Config is all there is to set. Its tags are the flags and the environment
// variables; nothing else in Hogstream reads the environment. An empty variable
// is as one that is not set.
type Config struct {
	Kafka    KafkaConfig    `embed:"" group:"Kafka"`
	Registry RegistryConfig `embed:"" group:"Schema registry"`
	Database DatabaseConfig `embed:"" group:"Postgres"`
	HTTP     HTTPConfig     `embed:"" group:"HTTP"`
	Data     DataConfig     `embed:"" group:"Processing"`
	Delivery DeliveryConfig `embed:"" group:"Delivery"`
	Presets  PresetsConfig  `embed:"" group:"Destinations"`
	Log      LogConfig      `embed:"" group:"Telemetry"`
	Local    LocalConfig    `embed:"" group:"Developer's instance"`

	Definitions DefinitionsConfig `embed:"" group:"Definitions"`

	Roles         []Role `help:"Roles this process plays." env:"HOGSTREAM_ROLES" default:"ingest,processors,sinks" enum:"ingest,processors,sinks" group:"Process"`
	Instance      string `help:"Name of this instance, stable over restarts and unique among running ones. Generated and kept in the data directory when not set." env:"HOGSTREAM_INSTANCE" group:"Process"`
	DataDir       string `help:"Where the process keeps its instance name and the proof that a restart is the same instance, and dev mode everything. One process each." env:"HOGSTREAM_DATA_DIR" default:".hogstream" type:"path" group:"Process"`
	EncryptionKey string `help:"Key for secrets at rest: 32 bytes, base64. Further keys behind commas open what older keys sealed." env:"HOGSTREAM_ENCRYPTION_KEY" group:"Process"`
	AdminAPIKey   string `help:"A bearer token with all scopes, to bootstrap." env:"ADMIN_API_KEY" group:"Process"`

	// Dev relaxes what only a developer's machine may relax: destinations on
	// loopback, plain http. Set by dev mode, not by a flag.
	Dev bool `kong:"-"`
}

// KafkaConfig says how to reach Kafka and what its topics are like.
type KafkaConfig struct {
	Brokers           []string          `name:"kafka-brokers" help:"Bootstrap brokers, host:port." env:"KAFKA_BROKERS"`
	Prefix            string            `name:"kafka-prefix" help:"Prefix of topics and groups." env:"KAFKA_PREFIX" default:"hogstream."`
	TLS               bool              `name:"kafka-tls" help:"Connect with TLS." env:"KAFKA_TLS"`
	TLSCA             string            `name:"kafka-tls-ca" help:"File with the CA certificates of the brokers (PEM)." env:"KAFKA_TLS_CA" type:"path"`
	SASLMechanism     string            `name:"kafka-sasl-mechanism" help:"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM." env:"KAFKA_SASL_MECHANISM"`
	SASLUsername      string            `name:"kafka-sasl-username" env:"KAFKA_SASL_USERNAME" help:"SASL user; of OAUTHBEARER the client id, of AWS_MSK_IAM an access key (when not set, what the AWS SDK finds)."`
	SASLPassword      string            `name:"kafka-sasl-password" env:"KAFKA_SASL_PASSWORD" help:"SASL password; of OAUTHBEARER the client secret, of AWS_MSK_IAM the secret access key."`
	OAuthTokenURL     string            `name:"kafka-oauth-token-url" env:"KAFKA_OAUTH_TOKEN_URL" help:"Where OAUTHBEARER gets its tokens (client credentials grant)."`
	OAuthScopes       []string          `name:"kafka-oauth-scopes" env:"KAFKA_OAUTH_SCOPES" help:"Scopes to ask for with a token."`
	OAuthExtensions   map[string]string `name:"kafka-oauth-extensions" env:"KAFKA_OAUTH_EXTENSIONS" mapsep:"," help:"Extensions to send with a token, name=value, separated by commas; for Confluent Cloud logicalCluster and identityPoolId."`
	Partitions        int32             `name:"kafka-partitions" help:"Partitions of every topic; cannot change later." env:"KAFKA_PARTITIONS" default:"12"`
	ReplicationFactor int16             `name:"kafka-replication-factor" help:"Replicas of every topic; 3 in production." env:"KAFKA_REPLICATION_FACTOR" default:"1"`
	MinInSync         int               `name:"kafka-min-insync" help:"min.insync.replicas of every topic; 0 leaves it to the broker." env:"KAFKA_MIN_INSYNC" default:"0"`
	Compression       string            `name:"kafka-compression" help:"Compression of produced batches: snappy, lz4, zstd or none." env:"KAFKA_COMPRESSION" default:"snappy" enum:"snappy,lz4,zstd,none"`
	AppendTimeout     time.Duration     `name:"kafka-append-timeout" help:"How long a request waits for the brokers' acknowledgement before it is answered 503." env:"KAFKA_APPEND_TIMEOUT" default:"5s"`
	RetentionIngest   time.Duration     `name:"retention-ingest" help:"Retention of topic ingest; negative for ever." env:"RETENTION_INGEST" default:"168h"`
	RetentionResolved time.Duration     `name:"retention-resolved" help:"Retention of topic resolved; negative for ever." env:"RETENTION_RESOLVED" default:"168h"`
	RetentionEvents   time.Duration     `name:"retention-events" help:"Retention of topics events, signals and outbox; negative for ever." env:"RETENTION_EVENTS" default:"720h"`
	RetentionFacts    time.Duration     `name:"retention-lifecycle" help:"Retention of topic lifecycle; negative for ever." env:"RETENTION_LIFECYCLE" default:"2160h"`
	RetentionEmails   time.Duration     `name:"retention-email-requests" help:"Retention of topic email-requests; negative for ever." env:"RETENTION_EMAIL_REQUESTS" default:"168h"`
	RetentionLetters  time.Duration     `name:"retention-dead-letters" help:"Retention of topic dead-letters; negative for ever." env:"RETENTION_DEAD_LETTERS" default:"2160h"`
	SessionTimeout    time.Duration     `name:"kafka-session-timeout" help:"How long a restart may take before its partitions go to others." env:"KAFKA_SESSION_TIMEOUT" default:"10s"`
}

// RegistryConfig says how to reach the schema registry.
type RegistryConfig struct {
	URL      string `name:"schema-registry-url" help:"URL of the schema registry (Confluent API)." env:"SCHEMA_REGISTRY_URL"`
	TLSCA    string `name:"schema-registry-tls-ca" help:"File with the CA certificates of the registry (PEM)." env:"SCHEMA_REGISTRY_TLS_CA" type:"path"`
	Username string `name:"schema-registry-username" env:"SCHEMA_REGISTRY_USERNAME" help:"Basic auth user."`
	Password string `name:"schema-registry-password" env:"SCHEMA_REGISTRY_PASSWORD" help:"Basic auth password."`
}

// DatabaseConfig says how to reach Postgres.
type DatabaseConfig struct {
	URL             string        `name:"database-url" help:"Postgres URL." env:"DATABASE_URL"`
	MaxConns        int32         `name:"database-max-conns" help:"Connections of this process." env:"DATABASE_MAX_CONNS" default:"20"`
	SkipSchemaCheck bool          `name:"skip-schema-check" help:"Serve although the schema is behind." env:"SKIP_SCHEMA_CHECK"`
	EventsMode      string        `name:"events-mode" help:"Which events are stored in Postgres: all, referenced (by a definition) or none." env:"EVENTS_MODE" default:"all" enum:"all,referenced,none"`
	AuditRetention  time.Duration `name:"audit-retention" help:"How long it is kept who changed what through the admin API; negative for ever." env:"AUDIT_RETENTION" default:"8760h"`
	EventsRetention time.Duration `name:"events-retention" help:"How long events are stored in Postgres; negative for ever." env:"EVENTS_RETENTION" default:"9360h"`
}

// HTTPConfig is about the API.
type HTTPConfig struct {
	Addr            string        `name:"addr" help:"Address to listen on; wins over the port." env:"HOGSTREAM_ADDR"`
	Port            int           `name:"port" help:"Port to listen on." env:"PORT" default:"3002"`
	MetricsAddr     string        `name:"metrics-addr" help:"Separate address for /metrics, without a key; on the API's own when not set, with one." env:"METRICS_ADDR"`
	PublicURL       string        `name:"public-url" help:"URL the API is reached at from outside." env:"API_PUBLIC_URL"`
	RateLimit       int           `name:"rate-limit" help:"Requests a minute for each API key on data routes; 0 for no limit." env:"RATE_LIMIT" default:"60000"`
	AdminRateLimit  int           `name:"admin-rate-limit" help:"Requests a minute for each API key on admin routes." env:"ADMIN_RATE_LIMIT" default:"600"`
	PublicRateLimit int           `name:"public-rate-limit" help:"Requests a minute for each client address without a known key; 0 for no limit." env:"PUBLIC_RATE_LIMIT" default:"600"`
	TrustedProxies  []string      `name:"trusted-proxies" help:"Networks of proxies whose X-Forwarded-For is believed, e.g. 10.0.0.0/8." env:"TRUSTED_PROXIES"`
	HideDocs        bool          `name:"hide-docs" help:"Do not serve the API's description (/docs, /openapi.json)." env:"HIDE_DOCS"`
	AnswerTimeout   time.Duration `name:"answer-timeout" help:"How long a synchronous request waits for its answer." env:"ANSWER_TIMEOUT" default:"5s"`
	IdempotencyTime time.Duration `name:"idempotency-window" help:"How long an idempotency key is remembered." env:"IDEMPOTENCY_WINDOW" default:"24h"`
}

// DataConfig is about processors.
type DataConfig struct {
	Workers      int `name:"workers" aliases:"threads" help:"Members each processor runs in this process." env:"PROCESSOR_WORKERS,PROCESSOR_THREADS" default:"1"`
	BatchRecords int `name:"batch-records" help:"Records a processor applies at once, at most." env:"PROCESSOR_BATCH_RECORDS" default:"5000"`
	JourneyJobs  int `name:"journey-jobs" help:"Functions of journeys in Go that run at once in this process." env:"JOURNEY_JOBS" default:"64"`
	// TimeZone is the deployment's: the same for all processes.
	TimeZone string `name:"time-zone" help:"IANA time zone of calendar dates in conditions that name none, of contacts without property timezone." env:"TIME_ZONE" default:"UTC"`
}

// DeliveryConfig is about destinations.
type DeliveryConfig struct {
	Timeout      time.Duration `name:"delivery-timeout" help:"Deadline of one attempt." env:"DELIVERY_TIMEOUT" default:"8s"`
	Lease        time.Duration `name:"lease" help:"How long the lease of a partition number lasts without renewal; more than an attempt and a renewal together." env:"DELIVERY_LEASE" default:"15s"`
	LeaseRenewal time.Duration `name:"lease-renewal" help:"How often leases are renewed." env:"DELIVERY_LEASE_RENEWAL" default:"3s"`
	RetryHorizon time.Duration `name:"retry-horizon" help:"How long a record is retried before it becomes a dead letter." env:"RETRY_HORIZON" default:"72h"`
	Concurrency  int           `name:"delivery-concurrency" help:"Requests in flight for each destination." env:"DELIVERY_CONCURRENCY" default:"64"`
	Log          string        `name:"delivery-log" help:"Which attempts are logged: all, failures or off." env:"DELIVERY_LOG" default:"all" enum:"all,failures,off"`
	LogRetention time.Duration `name:"delivery-log-retention" help:"How long attempts are kept." env:"DELIVERY_LOG_RETENTION" default:"720h"`
	AllowCIDRs   []string      `name:"delivery-allow-cidrs" help:"Private networks that destinations may be in." env:"DELIVERY_ALLOW_CIDRS"`
	ProxyURL     string        `name:"delivery-proxy-url" help:"Proxy that requests to destinations go through: http, https or socks5, with user:password@ if it wants them." env:"DELIVERY_PROXY_URL"`
}

// DefinitionsConfig is about files of definitions, of buckets for now.
type DefinitionsConfig struct {
	Dir   string `name:"definitions-dir" help:"Directory of definitions (buckets/*.yaml). dev watches and applies it (./definitions when not set); serve says how it differs from what is in use." env:"DEFINITIONS_DIR" type:"path"`
	Apply bool   `name:"definitions-apply" help:"Apply the definitions of that directory when serve starts." env:"DEFINITIONS_APPLY"`
}

// PresetsConfig says which kinds of destination there are, and which destinations
// are made at a start.
type PresetsConfig struct {
	Kinds       string `name:"destination-presets" help:"Kinds of destination that may be used, beside webhook and posthog: names, * or none. All when not set." env:"ENABLED_DESTINATION_PRESETS"`
	SeedPosthog bool   `name:"enable-posthog-destination" help:"Make a destination of kind posthog once." env:"ENABLE_POSTHOG_DESTINATION"`
	PosthogKey  string `name:"posthog-api-key" help:"Key of its project." env:"POSTHOG_API_KEY"`
	PosthogHost string `name:"posthog-host" help:"Its host, e.g. https://eu.i.posthog.com." env:"POSTHOG_HOST"`
}

// LogConfig is about logs and traces.
type LogConfig struct {
	Level        string `name:"log-level" help:"debug, info, warn or error." env:"LOG_LEVEL" default:"info" enum:"debug,info,warn,error"`
	Format       string `name:"log-format" help:"json, console, or auto (console on a terminal)." env:"LOG_FORMAT" default:"auto" enum:"json,console,auto"`
	File         string `name:"log-file" help:"File that logs are appended to, instead of standard error." env:"LOG_FILE" type:"path"`
	Attempts     string `name:"attempt-log" help:"Which attempts to deliver are log lines: failures, all or off." env:"ATTEMPT_LOG" default:"failures" enum:"failures,all,off"`
	Access       string `name:"access-log" help:"Which requests are logged: all, failures or off." env:"ACCESS_LOG" default:"all" enum:"all,failures,off"`
	OTLPEndpoint string `name:"otlp-endpoint" help:"OTLP/HTTP endpoint for traces, e.g. http://localhost:4318." env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
}

// LocalConfig is about the servers that dev mode starts.
type LocalConfig struct {
	BrokerPort   int `name:"broker-port" help:"Port of the broker that dev mode starts; when not set, that of its last start, or a free one." env:"HOGSTREAM_BROKER_PORT"`
	RegistryPort int `name:"registry-port" help:"Port of the schema registry that dev mode starts; when not set, that of its last start, or a free one." env:"HOGSTREAM_REGISTRY_PORT"`
}

// IgnoreEmptyVariables takes variables that are empty out of this process's
// environment, so that `KAFKA_TLS=` means what an unset KAFKA_TLS does. Programs
// call it once, before they read settings or start anything.
func IgnoreEmptyVariables() {
	for _, v := range os.Environ() {
		if name, ok := strings.CutSuffix(v, "="); ok && name != "" && !strings.Contains(name, "=") {
			_ = os.Unsetenv(name) // fails for names that cannot stand there
		}
	}
}

// ConfigFromEnv reads the settings from the environment, with the defaults of
// what is not set. The command line does the same and adds its flags.
func ConfigFromEnv() (Config, error) {
	var c Config
	if err := kong.ApplyDefaults(&c, Booleans()); err != nil {
		return Config{}, fmt.Errorf("read settings from the environment: %w", err)
	}
	return c, nil
}

// leastAdminKey is how many characters a key with all scopes has at least.
const leastAdminKey = 24

// ListenAddr is where the API listens.
func (c *Config) ListenAddr() string {
	if c.HTTP.Addr != "" {
		return c.HTTP.Addr
	}
	return fmt.Sprintf(":%d", c.HTTP.Port)
}

// Plays says whether the process plays a role.
func (c *Config) Plays(r Role) bool { return slices.Contains(c.Roles, r) }

// ValidateServing says everything that is wrong with the settings for serving, each
// with the variable to set. (Named so that the command line does not call it for
// commands that need less.)
func (c *Config) ValidateServing() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(len(c.Kafka.Brokers) > 0, "KAFKA_BROKERS is not set: give the brokers as host:port, separated by commas")
	need(c.Registry.URL != "", "SCHEMA_REGISTRY_URL is not set: give the URL of a Confluent-compatible schema registry")
	need(c.Database.URL != "", "DATABASE_URL is not set: give a postgres:// URL")
	need(c.Kafka.Partitions > 0, "KAFKA_PARTITIONS is %d: it must be at least 1", c.Kafka.Partitions)
	need(c.Kafka.ReplicationFactor > 0, "KAFKA_REPLICATION_FACTOR is %d: it must be at least 1", c.Kafka.ReplicationFactor)
	need(c.Kafka.AppendTimeout >= stream.MinAppendTimeout, "KAFKA_APPEND_TIMEOUT is %s: it must be at least %s", c.Kafka.AppendTimeout, stream.MinAppendTimeout)
	need(c.Data.Workers > 0, "PROCESSOR_WORKERS is %d: it must be at least 1", c.Data.Workers)
	need(c.Data.BatchRecords > 0, "PROCESSOR_BATCH_RECORDS is %d: it must be at least 1", c.Data.BatchRecords)
	need(c.Data.JourneyJobs > 0, "JOURNEY_JOBS is %d: it must be at least 1", c.Data.JourneyJobs)
	errs = append(errs, c.checkTakeover())
	for _, r := range []struct {
		variable string
		d, least time.Duration
	}{
		{"RETENTION_INGEST", c.Kafka.RetentionIngest, time.Minute}, {"RETENTION_EVENTS", c.Kafka.RetentionEvents, time.Minute},
		{"RETENTION_RESOLVED", c.Kafka.RetentionResolved, time.Minute},
		{"RETENTION_EMAIL_REQUESTS", c.Kafka.RetentionEmails, time.Minute}, {"RETENTION_DEAD_LETTERS", c.Kafka.RetentionLetters, time.Minute},
		{"RETENTION_LIFECYCLE", c.Kafka.RetentionFacts, time.Minute}, {"EVENTS_RETENTION", c.Database.EventsRetention, 24 * time.Hour},
		{"AUDIT_RETENTION", c.Database.AuditRetention, 24 * time.Hour},
	} {
		need(r.d < 0 || r.d >= r.least, "%s is %s: it must be at least %s, or negative for ever", r.variable, r.d, r.least)
	}
	need(c.Delivery.LogRetention >= 24*time.Hour, "DELIVERY_LOG_RETENTION is %s: it must be at least 24h", c.Delivery.LogRetention)
	need(c.HTTP.IdempotencyTime >= 0, "IDEMPOTENCY_WINDOW is %s: it must not be negative", c.HTTP.IdempotencyTime)
	need(len(c.Roles) > 0, "HOGSTREAM_ROLES is empty: name at least one of %v", Roles())
	need(c.AdminAPIKey == "" || len(c.AdminAPIKey) >= leastAdminKey, "ADMIN_API_KEY has %d characters: it must have at least %d, for example from `openssl rand -hex 32`", len(c.AdminAPIKey), leastAdminKey)
	need(!c.Definitions.Apply || c.Definitions.Dir != "", "DEFINITIONS_APPLY is set and DEFINITIONS_DIR is not: name the directory whose definitions are to be applied")
	if _, err := c.Zone(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.Keys(); err != nil {
		errs = append(errs, err)
	}
	if err := c.checkPresets(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.AllowedNetworks(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.DeliveryProxy(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.TrustedProxies(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkTakeover checks the times that decide when another instance may go on in the
// place of one that is silent. They depend on one another.
func (c *Config) checkTakeover() error {
	d := c.Delivery
	var errs []error
	for _, t := range []struct {
		variable string
		d, least time.Duration
		why      string
	}{
		{"DELIVERY_TIMEOUT", d.Timeout, time.Millisecond, ""},
		{"DELIVERY_LEASE_RENEWAL", d.LeaseRenewal, 100 * time.Millisecond, ""},
		{"KAFKA_SESSION_TIMEOUT", c.Kafka.SessionTimeout, time.Second, " (and brokers take 6s to 30m, unless their group.min.session.timeout.ms and group.max.session.timeout.ms say otherwise)"},
	} {
		if t.d < t.least {
			errs = append(errs, fmt.Errorf("%s is %s: it must be at least %s%s", t.variable, t.d, t.least, t.why))
		}
	}
	if least := d.Timeout + d.LeaseRenewal; d.Lease <= least {
		errs = append(errs, fmt.Errorf("DELIVERY_LEASE is %s: it must be longer than DELIVERY_TIMEOUT (%s) and DELIVERY_LEASE_RENEWAL (%s) together, or no attempt may start between two renewals; set it to %s or more, or shorten those", d.Lease, d.Timeout, d.LeaseRenewal, least+time.Second))
	}
	return errors.Join(errs...)
}

// Retention is how long each topic that deletes keeps its records; a negative one
// is for ever. Signals and outbox are kept as long as events: a processor that begins or
// catches up reads both, and what it asks for may follow late.
func (k *KafkaConfig) Retention() map[schemas.Topic]time.Duration {
	return map[schemas.Topic]time.Duration{
		schemas.TopicIngest: k.RetentionIngest, schemas.TopicResolved: k.RetentionResolved, schemas.TopicEvents: k.RetentionEvents,
		schemas.TopicLifecycle: k.RetentionFacts, schemas.TopicSignals: k.RetentionEvents, schemas.TopicOutbox: k.RetentionEvents,
		schemas.TopicEmailRequests: k.RetentionEmails, schemas.TopicDeadLetters: k.RetentionLetters,
	}
}

// DefinitionOptions are what definitions are checked against.
func (c *Config) DefinitionOptions() definition.Options {
	limits := predicate.DefaultLimits()
	limits.Retention = max(0, c.Database.EventsRetention) // a negative one is for ever
	return definition.Options{Limits: limits, Outbox: max(0, c.Kafka.RetentionEvents), NoEvents: c.Database.EventsMode == contacts.EventsNone, Referenced: c.Database.EventsMode == contacts.EventsReferenced}
}

// Zone is the deployment's time zone.
func (c *Config) Zone() (*time.Location, error) {
	zone, err := predicate.LoadZone(c.Data.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("TIME_ZONE: %w", err)
	}
	return zone, nil
}

// Keys are the encryption keys, the one that seals first.
func (c *Config) Keys() ([][]byte, error) {
	if strings.TrimSpace(c.EncryptionKey) == "" {
		return nil, errors.New("HOGSTREAM_ENCRYPTION_KEY is not set: give 32 random bytes as base64, e.g. from `openssl rand -base64 32`")
	}
	var keys [][]byte
	for i, s := range strings.Split(c.EncryptionKey, ",") {
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("HOGSTREAM_ENCRYPTION_KEY: key %d is not 32 bytes in base64: make one with `openssl rand -base64 32`", i+1)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// AllowedNetworks are the private networks that destinations may be in.
func (c *Config) AllowedNetworks() ([]netip.Prefix, error) {
	return networks("DELIVERY_ALLOW_CIDRS", c.Delivery.AllowCIDRs)
}

// DeliveryProxy is what requests to destinations go through; nil for none. Its error
// does not repeat the setting, which may hold a password.
func (c *Config) DeliveryProxy() (*url.URL, error) {
	if c.Delivery.ProxyURL == "" {
		return nil, nil
	}
	proxy, err := transport.ParseProxy(c.Delivery.ProxyURL)
	if err != nil {
		return nil, fmt.Errorf("DELIVERY_PROXY_URL %w", err)
	}
	return proxy, nil
}

// TrustedProxies are the networks whose X-Forwarded-For is believed.
func (c *Config) TrustedProxies() ([]netip.Prefix, error) {
	return networks("TRUSTED_PROXIES", c.HTTP.TrustedProxies)
}

func networks(variable string, texts []string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, s := range texts {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not a network such as 10.1.0.0/16", variable, s)
		}
		nets = append(nets, p)
	}
	return nets, nil
}

// keptInFile returns the content of a file of the data directory, or makes the
// file with what generate returns.
func keptInFile(dir, name string, generate func() (string, error)) (string, error) {
	path := filepath.Join(dir, name)
	if b, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	value, err := generate()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the data directory: %w", err)
	}
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep %s: %w", name, err)
	}
	return value, nil
}
