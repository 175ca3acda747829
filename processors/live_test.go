package processors_test

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
	"github.com/hogstream/hogstream/stream/timers"
)

// live is all processors, as they run, on a broker whose records say themselves when they
// were appended, and on a Postgres whose clock can be set.
type live struct {
	*streamtest.Env
	t      *testing.T
	db     *storage.DB
	admin  *stream.Admin
	inputs int
	zone   *time.Location // the deployment's; nil is UTC
}

func newLive(t *testing.T, list ...definition.Bucket) *live {
	t.Helper()
	l := &live{Env: streamtest.New(t, streamtest.Partitions(2), streamtest.OwnTimes()), t: t, db: withClock(t)}
	var err error
	l.admin, err = stream.OpenAdmin(l.Config, l.Logger)
	require.NoError(t, err)
	t.Cleanup(l.admin.Close)
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	files, err := definition.Built(list, opts)
	require.NoError(t, err)
	_, err = definition.Apply(t.Context(), l.db, files, opts, "test")
	require.NoError(t, err)
	return l
}

// withClock is a database of its own, whose clock setClock moves: what statements ask for
// is found in its schema before it is in Postgres's own.
func withClock(t *testing.T) *storage.DB {
	t.Helper()
	at, err := url.Parse(storagetest.URL(t))
	require.NoError(t, err)
	query := at.Query()
	query.Set("search_path", query.Get("search_path")+",pg_catalog")
	at.RawQuery = query.Encode()
	db, err := storage.Open(t.Context(), storage.Config{URL: at.String()})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	for _, sql := range []string{
		`CREATE TABLE set_clock (shift interval NOT NULL)`, `INSERT INTO set_clock VALUES ('0')`,
		`CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT pg_catalog.clock_timestamp() + shift FROM set_clock $$`,
	} {
		_, err := storagetest.SQL(db).Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	return db
}

// setClock has Postgres's clock be so far from the true one, and the ticker look at it,
// which it would within a minute.
func (l *live) setClock(by time.Duration) {
	l.t.Helper()
	_, err := storagetest.SQL(l.db).Exec(l.t.Context(), `UPDATE set_clock SET shift = make_interval(secs => $1)`, by.Seconds())
	require.NoError(l.t, err)
	require.NoError(l.t, l.db.InTx(l.t.Context(), func(tx *storage.Tx) error { return tx.Notify(l.t.Context(), storage.ChannelTimers, "") }))
}

// running is a processor, or the ticker, that runs until it is stopped.
type running struct {
	t       *testing.T
	figures *prometheus.Registry
	logged  *observer.ObservedLogs
	stop    func()
}

func (l *live) begin(r *running, run func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	r.t = l.t
	r.stop = func() {
		cancel()
		select {
		case err := <-ended:
			ended <- nil
			require.NoError(l.t, err)
		case <-time.After(streamtest.Patience):
			require.FailNow(l.t, "it does not end")
		}
	}
	l.t.Cleanup(r.stop)
	return r
}

// run starts a processor, which takes at most that many records at once.
func (l *live) run(name string, atOnce int) *running {
	l.t.Helper()
	line, err := processors.Find(name)
	require.NoError(l.t, err)
	r := &running{figures: prometheus.NewRegistry()}
	p, err := line.New(processors.Deps{
		Settings: processors.Settings{Zone: l.zone},
		Codec:    l.Codec, Definitions: definition.NewWatcher(l.db), Registerer: r.figures, Followers: processors.Followers(),
	})
	require.NoError(l.t, err)
	loop, err := loop.New(loop.Config{Kafka: l.Config, DB: l.db, Encoder: l.Codec, Processor: p, MaxBatchRecords: atOnce, Logger: l.Logger})
	require.NoError(l.t, err)
	return l.begin(r, loop.Run)
}

// behind says who of identity and contacts is.
func (l *live) behind(ctx context.Context, before time.Time) (string, error) {
	return l.admin.Behind(ctx, processors.Numbering(), before)
}

// runTicker starts what sends timers, which waits for who is behind.
func (l *live) runTicker(behind func(context.Context, time.Time) (string, error)) *running {
	l.t.Helper()
	core, logged := observer.New(zap.InfoLevel)
	ticker, err := timers.New(timers.Config{DB: l.db, Log: l.Log(), Logger: zap.New(core), Behind: behind})
	require.NoError(l.t, err)
	return l.begin(&running{logged: logged}, ticker.Run)
}

// awaitLine waits for a log line.
func (l *live) awaitLine(r *running, line string) {
	l.t.Helper()
	l.Eventually(func(context.Context) (bool, error) { return r.logged.FilterMessage(line).Len() > 0, nil }, "log line %s", line)
}

// held is how many records had to wait as rows for earlier ones of their contact.
func (r *running) held() (n float64) {
	families, err := r.figures.Gather()
	require.NoError(r.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if f.GetName() == "hogstream_derive_records_total" && label.GetValue() == "held" {
					n = m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// ready starts processor buckets and waits until it has taken over everybody.
func (l *live) ready(atOnce int) *running {
	l.t.Helper()
	r := l.run(buckets.Name, atOnce)
	l.Eventually(func(ctx context.Context) (bool, error) {
		rows, err := l.db.LoadProgress(ctx, buckets.Name, nil)
		through := len(rows) == int(l.Config.Partitions)
		for _, row := range rows {
			through = through && row.TakingOver == nil
		}
		return through, err
	}, "it has taken over")
	return r
}

// receive appends inputs as if they had been received then.
func (l *live) receive(at time.Time, inputs ...*schemas.Input) {
	l.t.Helper()
	var records []*kgo.Record
	for _, in := range inputs {
		l.inputs++
		in.ID, in.Source = uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, l.inputs)).String(), "test"
		in.ReceivedAt, in.OccurredAt = at, at
		records = append(records, l.record(in, at))
	}
	l.Produce(records...)
}

// record is a message as it stands on its topic, appended then.
func (l *live) record(m schemas.Message, at time.Time) *kgo.Record {
	l.t.Helper()
	value, err := l.Codec.Encode(m)
	require.NoError(l.t, err)
	r := stream.NewKafkaRecord(l.Config.Topic(m.Topic()), m.Key(), value, m.Meta(), stream.Trace{})
	r.Partition, r.Timestamp = l.PartitionOf(m.Key()), at
	return r
}

// drained waits until everything that was appended, and what followed from it, is handled.
func (l *live) drained() {
	l.t.Helper()
	l.WaitDrained(identity.Name, schemas.TopicIngest)
	l.WaitDrained(contacts.Name, schemas.TopicResolved)
	l.WaitDrained(buckets.Name, schemas.TopicEvents, schemas.TopicLifecycle, schemas.TopicSignals)
}

// told are the facts on buckets, in their order.
func (l *live) told() (facts []*schemas.Fact) {
	l.t.Helper()
	for _, r := range l.ReadAll(schemas.TopicLifecycle, true) {
		f, err := l.Codec.DecodeFact(r.Value)
		require.NoError(l.t, err)
		if f.Bucket != nil {
			facts = append(facts, f)
		}
	}
	return facts
}

// members are who is in which bucket now, and how often they joined.
func (l *live) members() (all []string) {
	l.t.Helper()
	rows, err := storagetest.SQL(l.db).Query(l.t.Context(), `SELECT concat_ws(' ', bucket_id, contact_id, epoch) FROM bucket_members WHERE left_at IS NULL ORDER BY 1`)
	require.NoError(l.t, err)
	defer rows.Close()
	for rows.Next() {
		var one string
		require.NoError(l.t, rows.Scan(&one))
		all = append(all, one)
	}
	require.NoError(l.t, rows.Err())
	return all
}

// idle is who was active, and was not within the last half an hour.
func idle() definition.Bucket {
	active := predicate.Event("active")
	return definition.Bucket{ID: "idle", Name: "Idle", Enabled: true, Criteria: predicate.All(active.Exists(), active.Within(30*time.Minute).NotExists())}
}

func active(user string) *schemas.Input {
	return &schemas.Input{Type: schemas.InputEvent, UserID: &user, Event: new("active")}
}
