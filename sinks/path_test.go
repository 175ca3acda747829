package sinks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// path is everything from the log to the receiver.
type path struct {
	*streamtest.Env
	ops *destinations.Operations
	db  *storage.DB
}

// newPath starts delivery with as much time for each attempt as no machine needs; it
// stops with the test.
func newPath(t *testing.T, change ...func(*delivery.Config)) *path {
	t.Helper()
	return newPathWithin(t, 15*time.Second, change...)
}

// newPathWithin is newPath with another time for each attempt: a short one where a
// receiver hangs.
func newPathWithin(t *testing.T, timeout time.Duration, change ...func(*delivery.Config)) *path {
	t.Helper()
	return newPathTelling(t, timeout, zap.NewNop(), nil, change...)
}

// newPathTelling is newPathWithin with a place for logs and metrics.
func newPathTelling(t *testing.T, timeout time.Duration, log *zap.Logger, reg prometheus.Registerer, change ...func(*delivery.Config)) *path {
	t.Helper()
	env := streamtest.New(t, streamtest.Partitions(3))
	db := storagetest.New(t)
	box, err := storage.NewBox(bytes.Repeat([]byte{1}, storage.KeySize))
	require.NoError(t, err)
	store := storage.NewDestinations(db, box)
	d, err := sinks.New(sinks.Config{AllowLoopback: true, Timeout: timeout}, env.Codec, log, reg)
	require.NoError(t, err)
	admin, err := stream.OpenAdmin(env.Config, nil)
	require.NoError(t, err)
	cfg := delivery.Config{
		Instance: "one", Lease: 30 * time.Second, Renew: 10 * time.Second, Deadline: 15 * time.Second,
		BackoffBase: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := delivery.NewSinks(cfg, delivery.Deps{Kafka: env.Config, DB: db, Appender: env.Log(), Codec: env.Codec, Deliverer: d, Destinations: store, Log: log, Registerer: reg})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
		admin.Close()
		d.Close()
	})
	return &path{Env: env, ops: destinations.New(db, store, admin, d, log), db: db}
}

// sequenced are events of each contact, numbered.
func sequenced(contacts, each int) []schemas.Message {
	var msgs []schemas.Message
	for seq := range each {
		for c := range contacts {
			now := time.Now()
			msgs = append(msgs, &schemas.Event{
				ID: uuid.Must(uuid.NewV7()).String(), ContactID: fmt.Sprint("contact-", c), Name: "step",
				Properties: fmt.Sprintf(`{"seq":%d}`, seq), OccurredAt: now, ReceivedAt: now, Source: "api",
			})
		}
	}
	return msgs
}

// bySeq is the order within a contact.
func bySeq(m *sinktest.Message) (string, int64, bool) {
	var data struct {
		Properties struct{ Seq int64 }
	}
	if json.Unmarshal(m.Data, &data) != nil || m.Event == "" {
		return "", 0, false
	}
	return m.ContactID, data.Properties.Seq, true
}

func TestWhatIsAppendedRightAfterTheCreationArrivesSignedInOrderAndOnceThroughATroubledReceiver(t *testing.T) {
	p := newPathWithin(t, 500*time.Millisecond)
	// A third of the messages fails once, in one of the ways that receivers have.
	trouble := []sinktest.Answer{{Status: 500}, {Status: 429, RetryAfter: "0.01"}, {Reset: true}, {Status: 503}, {Garbage: true}, {Status: 408}, {Hang: true}}
	var hung atomic.Int64
	r, err := sinktest.New(sinktest.Options{Sequence: bySeq, Script: func(m *sinktest.Message) sinktest.Answer {
		h := fnv.New32()
		_, _ = h.Write([]byte(m.ID))
		if n := h.Sum32(); m.Arrival == 1 && n%3 == 0 {
			answer := trouble[n/3%uint32(len(trouble))]
			if answer.Hang {
				hung.Add(1)
			}
			return answer
		}
		return sinktest.Answer{}
	}})
	require.NoError(t, err)
	defer r.Close()
	url, err := r.Start("127.0.0.1:0")
	require.NoError(t, err)

	p.Append(sequenced(5, 2)...) // before: not for it
	made, err := p.ops.Create(t.Context(), destinations.Settings{URL: url, EventTypes: []string{"event.tracked", "contact.*"}})
	require.NoError(t, err)
	require.NoError(t, r.SetSecrets(made.Secret))
	p.Append(sequenced(50, 10)...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, r.Wait(ctx, func(s sinktest.Stats) bool { return s.Unique >= 500 }))
	s := r.Stats()
	require.Equal(t, 500, s.Unique)
	require.Zero(t, s.OrderViolations, s.FirstViolation)
	require.Zero(t, s.BadSignatures)
	require.Zero(t, s.Malformed)
	require.LessOrEqual(t, s.Duplicates, p.timeouts(t, 500)-int(hung.Load()), "a machine that is short of breath answers too late at times")
	require.Greater(t, s.Requests, 550, "the trouble did happen")
	require.Len(t, r.Latencies(), 500)
}

// timeouts are the attempts that ran out of time, once so many records are written
// down as delivered.
func (p *path) timeouts(t *testing.T, delivered int) (n int) {
	t.Helper()
	p.Eventually(func(ctx context.Context) (bool, error) {
		var done int
		err := storagetest.SQL(p.db).QueryRow(ctx, `
			SELECT count(*) FILTER (WHERE outcome = 'delivered'), count(*) FILTER (WHERE error LIKE 'timeout after%')
			FROM delivery_attempts`).Scan(&done, &n)
		return done >= delivered, err
	}, "%d records written down as delivered", delivered)
	return n
}

func TestARotatedSecretAtTheReceiverOnlySuspendsAndLosesNothing(t *testing.T) {
	p := newPath(t)
	r, err := sinktest.New(sinktest.Options{Sequence: bySeq})
	require.NoError(t, err)
	defer r.Close()
	url, err := r.Start("127.0.0.1:0")
	require.NoError(t, err)
	made, err := p.ops.Create(t.Context(), destinations.Settings{Name: "crm", URL: url, EventTypes: []string{"event.tracked"}})
	require.NoError(t, err)
	r.SetScript(func(*sinktest.Message) sinktest.Answer { return sinktest.Answer{Status: 401} })
	p.Append(sequenced(10, 5)...)
	p.Eventually(func(ctx context.Context) (bool, error) {
		v, err := p.ops.Get(ctx, "crm")
		return err == nil && v.State == storage.DestinationSuspended, err
	}, "suspended")

	r.SetScript(nil)
	require.NoError(t, r.SetSecrets(made.Secret))
	_, err = p.ops.Resume(t.Context(), "crm")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, r.Wait(ctx, func(s sinktest.Stats) bool { return s.Unique >= 50 }))
	require.Zero(t, r.Stats().OrderViolations, r.Stats().FirstViolation)
	require.Empty(t, p.ReadAll(schemas.TopicDeadLetters, true))
}

func TestABatchKindDeliversAllButThePoisonWhichIsADeadLetter(t *testing.T) {
	p := newPath(t)
	v := sinktest.NewPosthog("k")
	msgs := sequenced(40, 25)
	v.Poison = msgs[777].Meta().ID
	dest := sinks.VendorDestination(t, "posthog", v, map[string]any{"apiKey": "k"})
	_, err := p.ops.Create(t.Context(), destinations.Settings{Kind: "posthog", EventTypes: []string{"event.tracked:step"}, Config: dest.Config})
	require.NoError(t, err)
	p.Append(msgs...)
	p.Eventually(func(context.Context) (bool, error) { return len(v.Items()) >= len(msgs)-1, nil }, "%d items", len(msgs)-1)
	dead := p.WaitRecords(schemas.TopicDeadLetters, 1)
	require.Len(t, dead, 1)
	letter, err := p.Codec.DecodeDeadLetter(dead[0].Value)
	require.NoError(t, err)
	require.Equal(t, v.Poison, letter.RecordID)
	require.Equal(t, "rejected", letter.Reason)
	require.Len(t, v.Items(), len(msgs)-1)
	require.Less(t, v.Requests(), 400, "many records a request")
	last := map[string]float64{}
	for _, item := range v.Items() {
		seq := item.Fields["seq"].(float64)
		before, seen := last[item.Person]
		require.False(t, seen && seq <= before, "%s: %v after %v", item.Person, seq, before)
		last[item.Person] = seq
	}
}

// What stands in an event that anybody may send ends no more than the worker that runs a
// destination's programs.
func TestHostileRecordsAreDeadLettersAndEverythingElseIsDelivered(t *testing.T) {
	p := newPath(t)
	const transform = `.data.properties as $p | if $p.evil == "memory" then {x: ("x" * $p.n)}
		elif $p.evil == "stack" then null | setpath([range($p.n) | "a"]; 1)
		elif $p.evil == "time" then last(range($p.n))
		elif $p.evil == "error" then error($p.secret)
		else . end`
	reasons := map[string]string{
		"memory": "needs more than 128 MiB of memory|ended by exit status 2", "stack": "nested too deeply|took longer|CPU time", "time": "took longer|CPU time", "error": "it ended with error",
	}
	evil := []schemas.Message{}
	for kind, properties := range map[string]string{
		"memory": `{"evil":"memory","n":1e9}`, "stack": `{"evil":"stack","n":300000}`, "time": `{"evil":"time","n":1e18}`, "error": `{"evil":"error","secret":"sesame"}`,
	} {
		e := numbered("contact-evil-"+kind, 0, "step")
		e.Properties = properties
		evil = append(evil, e)
	}
	good := sequenced(20, 5)
	msgs := slices.Concat(good[:50], evil, good[50:])

	r, err := sinktest.New(sinktest.Options{Sequence: bySeq})
	require.NoError(t, err)
	defer r.Close()
	url, err := r.Start("127.0.0.1:0")
	require.NoError(t, err)
	hook, err := p.ops.Create(t.Context(), destinations.Settings{Name: "hook", URL: url, EventTypes: []string{"event.tracked"}, Transform: transform})
	require.NoError(t, err)
	require.NoError(t, r.SetSecrets(hook.Secret))
	v := sinktest.NewPosthog("k")
	dest := sinks.VendorDestination(t, "posthog", v, map[string]any{"apiKey": "k"})
	_, err = p.ops.Create(t.Context(), destinations.Settings{Name: "batches", Kind: "posthog", EventTypes: []string{"event.tracked"}, Config: dest.Config, Transform: transform})
	require.NoError(t, err)
	p.Append(msgs...)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	require.NoError(t, r.Wait(ctx, func(s sinktest.Stats) bool { return s.Unique >= len(good) }))
	p.Eventually(func(context.Context) (bool, error) { return len(v.Items()) >= len(good), nil }, "%d items", len(good))
	dead := p.WaitRecords(schemas.TopicDeadLetters, 2*len(evil))
	require.Len(t, dead, 2*len(evil))
	for _, record := range dead {
		letter, err := p.Codec.DecodeDeadLetter(record.Value)
		require.NoError(t, err)
		require.Equal(t, "rejected", letter.Reason)
		i := slices.IndexFunc(evil, func(m schemas.Message) bool { return m.Meta().ID == letter.RecordID })
		require.GreaterOrEqual(t, i, 0, "%+v", letter)
		kind := strings.TrimPrefix(evil[i].(*schemas.Event).ContactID, "contact-evil-")
		require.Regexp(t, reasons[kind], letter.Error, "which limit comes first depends on the machine")
		require.NotContains(t, letter.Error, "sesame")
	}
	require.Equal(t, len(good), r.Stats().Unique)
	require.Zero(t, r.Stats().OrderViolations, r.Stats().FirstViolation)
	require.Len(t, v.Items(), len(good))
}

func TestTheDeliveryLogSaysOfADeliveredRecordWhatItDidNotCarryAndOfNoOther(t *testing.T) {
	p := newPath(t)
	v := sinktest.NewSegment("wk")
	dest := sinks.VendorDestination(t, "segment", v, map[string]any{"writeKey": "wk"})
	_, err := p.ops.Create(t.Context(), destinations.Settings{Kind: "segment", EventTypes: []string{"*"}, Config: dest.Config})
	require.NoError(t, err)
	var msgs []schemas.Message
	for i := range 20 {
		f := sinktest.Fact(schemas.FactContactUpdated)
		f.ID, f.ContactID = uuid.Must(uuid.NewV7()).String(), fmt.Sprint("contact-", i)
		if i == 7 {
			f.Contact.Properties = `{"small":1,"large":"` + strings.Repeat("x", 40<<10) + `"}`
		}
		msgs = append(msgs, f)
	}
	p.Append(msgs...)
	var delivered, told int
	p.Eventually(func(ctx context.Context) (bool, error) {
		err := storagetest.SQL(p.db).QueryRow(ctx, `
			SELECT count(*), count(*) FILTER (WHERE record_id = $1 AND error LIKE '1 of 2 traits were left out%' OR record_id <> $1 AND COALESCE(error, '') = '')
			FROM delivery_attempts WHERE outcome = 'delivered'`, msgs[7].Meta().ID).Scan(&delivered, &told)
		return delivered >= 20, err
	}, "all delivered")
	require.Equal(t, 20, delivered)
	require.Equal(t, delivered, told)
	require.Empty(t, p.ReadAll(schemas.TopicDeadLetters, true))
	require.Empty(t, v.Problems())
}
