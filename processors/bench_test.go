package processors_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

const (
	benchContacts = 50_000
	benchBatch    = 2_000
)

// crowd makes contacts that are known already, in both processors' tables.
func crowd(t testing.TB, db *storage.DB, n int) {
	t.Helper()
	for _, sql := range []string{
		`INSERT INTO identities (contact_id, external_id, email, first_seen_at)
		 SELECT md5('c' || i)::uuid, 'user-' || i, 'user-' || i || '@example.com', now() FROM generate_series(0, $1::int - 1) AS i`,
		`INSERT INTO identifiers (kind, value, contact_id) SELECT 'external', external_id, contact_id FROM identities WHERE $1::int > 0`,
		`INSERT INTO identifiers (kind, value, contact_id) SELECT 'email', email, contact_id FROM identities WHERE $1::int > 0`,
		`INSERT INTO contacts (id, external_id, email, identifiers, properties, version, first_seen_at, last_seen_at, created_at, updated_at)
		 SELECT contact_id, external_id, email, json_build_array(json_build_array('external', external_id), json_build_array('email', email)),
		        '{"plan":"free","country":"NL","visits":0,"company":"Example B.V.","utm_source":"newsletter"}', 1, now(), now(), now(), now()
		 FROM identities WHERE $1::int > 0`,
	} {
		_, err := storagetest.SQL(db).Exec(t.Context(), sql, n)
		require.NoError(t, err)
	}
	_, err := storagetest.SQL(db).Exec(t.Context(), `ANALYZE identities, identifiers, contacts`)
	require.NoError(t, err)
	require.NoError(t, db.CreateEventPartitions(t.Context(), time.Now(), 1))
}

// visits are events that change one property each, of random contacts: the same
// for the same seed, with other values for another round.
func visits(rnd *rand.Rand, n, contacts, round int) []*schemas.Input {
	inputs := make([]*schemas.Input, n)
	for i := range inputs {
		c := rnd.IntN(contacts)
		in := event("page viewed", user(fmt.Sprintf("user-%d", c)), email(fmt.Sprintf("user-%d@example.com", c)),
			props(fmt.Sprintf(`{"visits":%d}`, 2*rnd.IntN(1<<40)+round)))
		in.EventProperties = text(`{"path":"/products/42","referrer":"https://example.com/","price":19.95,"tags":["a","b"]}`)
		in.ID, in.ReceivedAt, in.OccurredAt, in.Source = schemas.Derive("visit", "bench", 2*rnd.IntN(1<<40)+round), time.Now(), time.Now(), "api"
		inputs[i] = in
	}
	return inputs
}

func encoded(t testing.TB, codec *schemas.Codec, topic schemas.Topic, ms ...schemas.Message) []*stream.Record {
	t.Helper()
	records := make([]*stream.Record, len(ms))
	for i, m := range ms {
		value, err := codec.Encode(m)
		require.NoError(t, err)
		records[i] = &stream.Record{Topic: topic, Offset: int64(i), Key: []byte(m.Key()), Value: value, AppendTime: time.Now()}
	}
	return records
}

func messages(inputs []*schemas.Input) []schemas.Message {
	ms := make([]schemas.Message, len(inputs))
	for i, in := range inputs {
		ms[i] = in
	}
	return ms
}

func applyBatch(ctx context.Context, db *storage.DB, p loop.Processor, codec *schemas.Codec, records []*stream.Record) ([]loop.Output, error) {
	b := loop.NewBatch(codec, time.Now(), records)
	err := db.InTx(ctx, func(tx *storage.Tx) error { return p.Apply(ctx, tx, b) })
	return b.Outputs(), err
}

func resolvedOf(outputs []loop.Output) []*stream.Record {
	var records []*stream.Record
	for i, o := range outputs {
		if o.Topic == schemas.TopicResolved {
			records = append(records, &stream.Record{Topic: o.Topic, Offset: int64(i), Key: []byte(o.Key), Value: o.Value, AppendTime: time.Now()})
		}
	}
	return records
}

// cpu is what this process has used; the database is another.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverCPU is what the server's sessions have used, as /proc says; 0 elsewhere.
func serverCPU(b *testing.B, db *storage.DB) time.Duration {
	var pids []int
	err := storagetest.SQL(db).QueryRow(b.Context(), `SELECT array_agg(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'`).Scan(&pids)
	require.NoError(b, err)
	ticks := 0
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		ticks += user + system
	}
	return time.Duration(ticks) * time.Second / 100
}

func measure(b *testing.B, db *storage.DB, batches int, run func(i int)) {
	b.ReportAllocs()
	for i := range batches { // prepared statements, generic plans, a warm cache
		run(i)
	}
	used, usedByServer := cpu(), serverCPU(b, db)
	n := 0
	for b.Loop() {
		run(n % batches)
		n++
	}
	records := float64(n * benchBatch)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/records, "ns/record")
	b.ReportMetric(float64((cpu()-used).Nanoseconds())/records, "cpu-ns/record")
	b.ReportMetric(float64((serverCPU(b, db)-usedByServer).Nanoseconds())/records, "postgres-cpu-ns/record")
}

// visitBatches are two rounds of the same contacts with different values, so that
// every event changes something however often they are gone through.
func visitBatches(b *testing.B, p *pump, n int) [][]*stream.Record {
	b.Helper()
	var batches [][]*stream.Record
	for round := range 2 {
		rnd := rand.New(rand.NewPCG(1, 1))
		for range n / 2 {
			batches = append(batches, encoded(b, p.codec, schemas.TopicIngest, messages(visits(rnd, benchBatch, benchContacts, round))...))
		}
	}
	return batches
}

func BenchmarkIdentityApply(b *testing.B) {
	p := newPump(b, contacts.Config{})
	crowd(b, p.db, benchContacts)
	batches := visitBatches(b, p, 8)
	measure(b, p.db, len(batches), func(i int) {
		_, err := applyBatch(b.Context(), p.db, p.identity, p.codec, batches[i])
		require.NoError(b, err)
	})
}

func BenchmarkContactsApply(b *testing.B) {
	p := newPump(b, contacts.Config{})
	crowd(b, p.db, benchContacts)
	batches := visitBatches(b, p, 32)
	for i := range batches {
		outputs, err := applyBatch(b.Context(), p.db, p.identity, p.codec, batches[i])
		require.NoError(b, err)
		batches[i] = resolvedOf(outputs)
	}
	outputs := 0
	measure(b, p.db, len(batches), func(i int) {
		out, err := applyBatch(b.Context(), p.db, p.contacts, p.codec, batches[i])
		require.NoError(b, err)
		outputs = len(out)
	})
	b.ReportMetric(float64(outputs)/benchBatch, "outputs/record")
}

// Statements are counted at the driver: as many for 3 records as for 300, of
// whatever kind.
func TestABatchTakesAConstantNumberOfStatements(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
	db, err := storage.Open(t.Context(), storage.Config{URL: storagetest.URL(t)}, storage.WithTracerProvider(tracer))
	require.NoError(t, err)
	t.Cleanup(db.Close)
	p := newPumpOn(t.Context(), t, db, contacts.Config{Followers: []string{"buckets"}})

	statements := func(proc loop.Processor, records []*stream.Record) (int, []loop.Output) {
		before := len(spans.Ended())
		ctx, span := tracer.Tracer("test").Start(t.Context(), "batch")
		outputs, err := applyBatch(ctx, db, proc, p.codec, records)
		span.End()
		require.NoError(t, err)
		// Preparing a statement happens once a connection, and copying asks for
		// the columns each time, always once.
		return len(slices.DeleteFunc(spans.Ended()[before:], func(s trace.ReadOnlySpan) bool {
			name := s.Name()
			return name == "batch" || len(name) > 7 && name[:7] == "prepare" || name == "pool.acquire"
		})), outputs
	}
	everything := func(n int, run string) []*schemas.Input {
		var inputs []*schemas.Input
		for i := range n {
			u, e, a := fmt.Sprint("u", i, run), fmt.Sprint("e", i, run, "@b.co"), fmt.Sprint("a", i, run)
			subscribe := lists(map[string]bool{"news": false})
			inputs = append(inputs, event("x", user(u), props(`{"a":1}`), key(u), waits), event("x", email(e), subscribe), event("x", anon(a)),
				put(user(u), email(e), anon(a), waits), event("x", user(u), key(u)), put(user(u), props(`{"a":2}`), waits), event("y", user(u)),
				event("x", email("gone"+e)), remove(email("gone"+e), waits), remove(user("never"+u), waits))
		}
		for i, in := range inputs {
			in.ID = schemas.Derive(run, "input", i)
			in.ReceivedAt, in.OccurredAt = start, start
		}
		return inputs
	}
	count := func(n int, run string) [2]int {
		id, out := statements(p.identity, encoded(t, p.codec, schemas.TopicIngest, messages(everything(n, run))...))
		co, out := statements(p.contacts, resolvedOf(out))
		more, _ := statements(p.contacts, resolvedOf(out)) // the absorbs
		t.Logf("%d inputs: identity %d statements, contacts %d and %d", 10*n, id, co, more)
		return [2]int{id, co + more}
	}
	count(2, "warm")
	few, many := count(3, "few"), count(300, "many")
	require.Equal(t, few, many)
	require.Less(t, many[0], 22)
	require.Less(t, many[1], 40)
}
