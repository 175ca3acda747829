package hogstream

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/opentelemetry-go-extra/otelzap"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

const day = 24 * time.Hour

// maintained runs the maintenance of now once over a database whose rows fill made.
func maintained(t *testing.T, now time.Time, change func(*Config), fill func(db *storage.DB)) func(table string) int {
	t.Helper()
	cfg, err := ConfigFromEnv()
	require.NoError(t, err)
	if change != nil {
		change(&cfg)
	}
	db := storagetest.New(t)
	fill(db)
	core, logs := observer.New(zap.WarnLevel)
	a := &App{cfg: cfg, db: db, tel: &Telemetry{Logger: otelzap.New(zap.New(core))}}
	a.maintainOnce(t.Context(), now)
	require.Empty(t, logs.All())
	return func(table string) int {
		var n int
		require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n))
		return n
	}
}

// agedRows puts a row of each kind at each age.
func agedRows(t *testing.T, now time.Time, ages ...time.Duration) func(db *storage.DB) {
	return func(db *storage.DB) {
		for i, age := range ages {
			for _, sql := range []string{
				`INSERT INTO idempotency_keys (scope, key, input_id, created_at) VALUES ('s', $2, $3::text::uuid, $1)`,
				`INSERT INTO erased_identifiers (kind, hash, erased_at, partition, "offset") SELECT 'email', $2::bytea, $1, 0, 0 WHERE $3::text <> ''`,
				`INSERT INTO contact_marks (contact_id, marked_at) SELECT $3::text::uuid, $1 WHERE $2::text <> ''`,
				`INSERT INTO identities (contact_id, first_seen_at, deleted_at) SELECT $3::text::uuid, $1, $1 WHERE $2::text <> ''`,
				`INSERT INTO pending_answers (input_id, contact_id, removed, losers, created_at) SELECT $3::text::uuid, $3::text::uuid, '{"a":null}', '{}', $1 WHERE $2::text <> ''`,
				`INSERT INTO events (id, contact_id, name, properties, occurred_at, received_at, source) SELECT $3::text::uuid, $3::text::uuid, $2::text, '{}', $1, $1, 'test'`,
			} {
				_, err := storagetest.SQL(db).Exec(t.Context(), sql, now.Add(-age), fmt.Sprint("k", i), uuid.NewString())
				require.NoError(t, err)
			}
		}
	}
}

var agedTables = []string{"idempotency_keys", "erased_identifiers", "contact_marks", "identities", "pending_answers", "events"}

func TestRetentionForEverForgetsNothingThatGuardsAgainstARecord(t *testing.T) {
	now := time.Now()
	count := maintained(t, now, func(c *Config) {
		c.Kafka.RetentionIngest, c.Database.EventsRetention = -1, -1
	}, agedRows(t, now, time.Minute, 30*day, 900*day))
	for _, table := range agedTables {
		want := 3
		if table == "pending_answers" {
			want = 1 // topic resolved has a retention of its own
		}
		require.Equal(t, want, count(table), table)
	}
}

func TestWhatGuardsAgainstARecordOutlivesTheTopicsItCanComeFrom(t *testing.T) {
	now := time.Now()
	count := maintained(t, now, nil, agedRows(t, now, time.Hour, 7*day, 89*day, 98*day, 400*day))
	require.Equal(t, 2, count("idempotency_keys"), "a key outlives the time that its record may wait on topic ingest, and its window")
	require.Equal(t, 3, count("erased_identifiers"), "an input may be redriven from a dead letter")
	require.Equal(t, 3, count("contact_marks"))
	require.Equal(t, 3, count("identities"))
	require.Equal(t, 2, count("pending_answers"), "the loser may come as late as topic resolved is kept")
	require.Equal(t, 4, count("events"))
}

func TestAnAnswerNobodyWaitsForAnyMoreIsForgottenSoonAndWhatAMergeRemovesIsNot(t *testing.T) {
	now := time.Now()
	count := maintained(t, now, nil, func(db *storage.DB) {
		for _, removed := range []*string{nil, new(string)} {
			if removed != nil {
				*removed = `{"plan":null}`
			}
			_, err := storagetest.SQL(db).Exec(t.Context(), `INSERT INTO pending_answers (input_id, contact_id, answer, removed, losers, created_at)
				VALUES ($1, $1, '{}', $2, '{}', $3)`, uuid.NewString(), removed, now.Add(-time.Hour))
			require.NoError(t, err)
		}
	})
	require.Equal(t, 1, count("pending_answers WHERE removed IS NOT NULL"))
	require.Equal(t, 1, count("pending_answers"))
}

func TestEventsOfPastDaysHavePartitionsAndThoseOutsideThemAreCleanedInOneGo(t *testing.T) {
	now := time.Now()
	count := maintained(t, now, func(c *Config) { c.Database.EventsRetention = 10 * day }, func(db *storage.DB) {
		_, err := storagetest.SQL(db).Exec(t.Context(), `INSERT INTO events (id, contact_id, name, properties, occurred_at, received_at, source)
			SELECT gen_random_uuid(), gen_random_uuid(), 'x', '{}', $1, $1, 'test' FROM generate_series(1, 25000)`, now.Add(-20*day))
		require.NoError(t, err)
	})
	require.Zero(t, count("events"))
	require.Equal(t, 7+1+partitionsAhead, count("pg_inherits WHERE inhparent = 'events'::regclass AND inhrelid <> 'events_default'::regclass"))
}

func TestRetentionsThatWouldForgetTooSoonAreRefused(t *testing.T) {
	cfg, err := ConfigFromEnv()
	require.NoError(t, err)
	cfg.Kafka.RetentionIngest, cfg.Kafka.RetentionEvents, cfg.Database.EventsRetention = time.Second, -1, time.Hour
	cfg.Delivery.LogRetention, cfg.HTTP.IdempotencyTime = -1, -1
	err = cfg.ValidateServing()
	for _, v := range []string{"RETENTION_INGEST", "EVENTS_RETENTION", "DELIVERY_LOG_RETENTION", "IDEMPOTENCY_WINDOW"} {
		require.ErrorContains(t, err, v+" is")
	}
	require.NotContains(t, err.Error(), "RETENTION_EVENTS")
}

func TestTheTimesThatDecideATakeoverAreCheckedTogether(t *testing.T) {
	for name, c := range map[string]struct {
		timeout, renewal, lease, session time.Duration
		wrong                            []string // none when it may serve
	}{
		"the defaults":                        {8 * time.Second, 3 * time.Second, 15 * time.Second, 10 * time.Second, nil},
		"longer ones":                         {time.Minute, 3 * time.Second, 70 * time.Second, time.Minute, nil},
		"an attempt that outlasts the lease":  {20 * time.Second, 3 * time.Second, 15 * time.Second, 10 * time.Second, []string{"DELIVERY_LEASE is 15s: it must be longer than DELIVERY_TIMEOUT (20s) and DELIVERY_LEASE_RENEWAL (3s) together", "set it to 24s or more"}},
		"a lease with no time between":        {8 * time.Second, 7 * time.Second, 15 * time.Second, 10 * time.Second, []string{"DELIVERY_LEASE is 15s", "set it to 16s or more"}},
		"no time at all":                      {0, 0, time.Second, 0, []string{"DELIVERY_TIMEOUT is 0s", "DELIVERY_LEASE_RENEWAL is 0s", "KAFKA_SESSION_TIMEOUT is 0s: it must be at least 1s (and brokers take 6s to 30m"}},
		"a session that no broker would take": {time.Second, time.Second, 3 * time.Second, time.Millisecond, []string{"KAFKA_SESSION_TIMEOUT is 1ms"}},
	} {
		cfg, err := ConfigFromEnv()
		require.NoError(t, err)
		require.NoError(t, cfg.checkTakeover(), "as it is when nothing is set")
		cfg.Delivery.Timeout, cfg.Delivery.LeaseRenewal, cfg.Delivery.Lease, cfg.Kafka.SessionTimeout = c.timeout, c.renewal, c.lease, c.session
		err = cfg.checkTakeover()
		if len(c.wrong) == 0 {
			require.NoError(t, err, name)
			continue
		}
		served := cfg.ValidateServing()
		for _, w := range c.wrong {
			require.ErrorContains(t, err, w, name)
			require.ErrorContains(t, served, w, name)
		}
	}
}

func TestWhoChangedWhatIsKeptForAYearUnlessSetOtherwise(t *testing.T) {
	now := time.Now()
	fill := func(db *storage.DB) {
		for _, age := range []time.Duration{time.Hour, 364 * day, 366 * day} {
			require.NoError(t, db.InsertAudit(t.Context(), storage.AuditEntry{Actor: "a", Action: "x.post", Resource: "x", CreatedAt: now.Add(-age)}))
		}
	}
	require.Equal(t, 2, maintained(t, now, nil, fill)("audit_logs"))
	require.Equal(t, 1, maintained(t, now, func(c *Config) { c.Database.AuditRetention = 30 * day }, fill)("audit_logs"))
	require.Equal(t, 3, maintained(t, now, func(c *Config) { c.Database.AuditRetention = -1 }, fill)("audit_logs"))
}
