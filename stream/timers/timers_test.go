package timers_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/streamtest"
	"github.com/hogstream/hogstream/stream/timers"
)

// log keeps what is appended, with the time at which it was.
type log struct {
	mu    sync.Mutex
	sent  []*schemas.Signal
	at    []time.Time
	fails int // so many appends
	more  chan struct{}
}

func newLog() *log { return &log{more: make(chan struct{}, 5000)} }

func (l *log) Append(_ context.Context, msgs ...schemas.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return errors.New("the broker is away")
	}
	for _, m := range msgs {
		l.sent, l.at = append(l.sent, m.(*schemas.Signal)), append(l.at, time.Now())
		l.more <- struct{}{}
	}
	return nil
}

// await waits until n signals were appended in all.
func (l *log) await(t *testing.T, n int) []*schemas.Signal {
	t.Helper()
	patience := time.After(streamtest.Patience)
	for {
		l.mu.Lock()
		sent := l.sent
		l.mu.Unlock()
		if len(sent) >= n {
			return sent
		}
		select {
		case <-l.more:
		case <-patience:
			t.Fatalf("%d of %d timers were sent", len(sent), n)
		}
	}
}

func arm(t *testing.T, db *storage.DB, armed ...storage.Timer) {
	t.Helper()
	for i := range armed {
		armed[i].ArmedAt = time.Now()
	}
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.SaveDerived(t.Context(), "tally", &storage.DerivedChanges{Armed: armed})
	}))
}

func contact(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// run runs a ticker, and returns its figures.
func run(t *testing.T, db *storage.DB, l *log, behind func() string) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewRegistry()
	ticker, err := timers.New(timers.Config{DB: db, Log: l, Logger: zaptest.NewLogger(t), Registerer: reg,
		Behind: func(context.Context, time.Time) (string, error) { return behind(), nil }})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ticker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return reg
}

// overdue is the figure of the timer that has been due for longest, in seconds.
func overdue(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "hogstream_timers_overdue_seconds" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("there is no such figure")
	return 0
}

func nobody() string { return "" }

func TestATimerIsSentWithinASecondAfterItIsDueAlsoOneThatIsArmedLater(t *testing.T) {
	db, l := storagetest.New(t), newLog()
	now := time.Now()
	arm(t, db, storage.Timer{ContactID: contact(1), What: "far", Due: now.Add(time.Hour), Epoch: 1})
	run(t, db, l, nobody)
	due := time.Now().Add(700 * time.Millisecond).Truncate(time.Microsecond)
	arm(t, db, storage.Timer{ContactID: contact(2), What: "leave", Due: due, Epoch: 7})
	s := l.await(t, 1)[0]
	require.Equal(t, schemas.Signal{ID: s.ID, Type: schemas.SignalTimer, For: "tally", ContactID: contact(2), What: "leave", Epoch: 7, OccurredAt: due.UTC()}, *s)
	require.False(t, l.at[0].Before(due), "not before it is due")
	require.Less(t, l.at[0].Sub(due), time.Second)
}

func TestTimersWaitForIdentityAndContactsForAnHourAtMost(t *testing.T) {
	db, l := storagetest.New(t), newLog()
	var behind atomic.Bool
	behind.Store(true)
	now := time.Now()
	arm(t, db,
		storage.Timer{ContactID: contact(1), What: "leave", Due: now.Add(-time.Minute), Epoch: 1},
		storage.Timer{ContactID: contact(2), What: "leave", Due: now.Add(-61 * time.Minute), Epoch: 1})
	reg := run(t, db, l, func() string {
		if behind.Load() {
			return "contacts, partition 3"
		}
		return ""
	})
	require.Equal(t, contact(2), l.await(t, 1)[0].ContactID, "an hour is the longest")
	require.Eventually(t, func() bool { // that it was sent is committed after it was appended
		due, _, err := db.NextTimer(t.Context())
		return err == nil && due.Sub(now.Add(-time.Minute)).Abs() < time.Millisecond
	}, streamtest.Patience, 10*time.Millisecond, "the other waits")
	is := func(want func(float64) bool) {
		t.Helper()
		require.Eventually(t, func() bool { return want(overdue(t, reg)) }, streamtest.Patience, 10*time.Millisecond, "it is said for how long")
	}
	is(func(s float64) bool { return s >= 60 && s < 61*60 })
	behind.Store(false)
	require.Equal(t, contact(1), l.await(t, 2)[1].ContactID)
	is(func(s float64) bool { return s == 0 })
}

func TestATimerThatCouldNotBeAppendedIsSentAgain(t *testing.T) {
	db, l := storagetest.New(t), newLog()
	l.fails = 1
	arm(t, db, storage.Timer{ContactID: contact(1), What: "leave", Due: time.Now().Add(-time.Second), Epoch: 1})
	run(t, db, l, nobody)
	l.await(t, 1)
}

func TestTickersShareTheWorkAndSendEachTimerOnce(t *testing.T) {
	db, l := storagetest.New(t), newLog()
	const n = 300
	armed := make([]storage.Timer, n)
	for i := range armed {
		armed[i] = storage.Timer{ContactID: contact(i), What: "leave", Due: time.Now().Add(-time.Second), Epoch: 1}
	}
	arm(t, db, armed...)
	run(t, db, l, nobody)
	run(t, db, l, nobody)
	seen := map[string]bool{}
	for _, s := range l.await(t, n) {
		require.False(t, seen[s.ContactID], s.ContactID)
		seen[s.ContactID] = true
	}
	require.Eventually(t, func() bool { // a ticker commits after it appended
		due, _, err := db.NextTimer(t.Context())
		require.NoError(t, err)
		return due.IsZero()
	}, streamtest.Patience, 10*time.Millisecond)
}

func TestATimerThatWasSentAndIsNotTakenForAnHourIsSentAgain(t *testing.T) {
	db, l := storagetest.New(t), newLog()
	due := time.Now().Add(-2 * time.Hour)
	arm(t, db,
		storage.Timer{ContactID: contact(1), What: "leave", Due: due, Epoch: 1},
		storage.Timer{ContactID: contact(2), What: "leave", Due: due, Epoch: 1})
	_, err := storagetest.SQL(db).Exec(t.Context(), `
UPDATE timers SET sent_at = now() - CASE contact_id WHEN $1::uuid THEN interval '61 minutes' ELSE interval '59 minutes' END`, contact(1))
	require.NoError(t, err)
	run(t, db, l, nobody)
	require.Equal(t, contact(1), l.await(t, 1)[0].ContactID)
	arm(t, db, storage.Timer{ContactID: contact(3), What: "leave", Due: time.Now(), Epoch: 1})
	require.Equal(t, contact(3), l.await(t, 2)[1].ContactID, "one that may still be on its way is not")
}

// A midnight: whatever was appended behind all of them would wait for all of them.
func TestOfManyTimersSomeHundredsAreUnderWayAtOnce(t *testing.T) {
	t.Parallel()
	db, l := storagetest.New(t), newLog()
	due, many := time.Now().Add(-time.Second), make([]storage.Timer, 1200)
	for i := range many {
		many[i] = storage.Timer{ContactID: contact(i), What: "due", Due: due, Epoch: 1}
	}
	arm(t, db, many...)
	run(t, db, l, nobody)
	sent := 0
	for sent < len(many) {
		signals := l.await(t, sent+1)
		require.LessOrEqual(t, len(signals)-sent, 500, "what nobody has taken")
		taken := make([]storage.Timer, 0, len(signals)-sent)
		for _, s := range signals[sent:] {
			taken = append(taken, storage.Timer{ContactID: s.ContactID, What: s.What})
		}
		sent = len(signals)
		require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
			return tx.SaveDerived(t.Context(), "tally", &storage.DerivedChanges{Disarmed: taken})
		}))
	}
	require.Len(t, l.await(t, len(many)), len(many), "each once")
}
