package processors_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// outage is one of processors that are away for 50 minutes, in which everybody is active all
// the time. When they are back timers have been due for 20 minutes.
type outage struct {
	*live
	began time.Time
}

const people = 20

func newOutage(t *testing.T) *outage {
	o := &outage{live: newLive(t, idle()), began: time.Now().Add(-50 * time.Minute).Truncate(time.Millisecond)}
	first := []*running{o.ready(1000), o.run(identity.Name, 1000), o.run(contacts.Name, 1000)}
	o.everybody(o.began)
	o.Eventually(func(context.Context) (bool, error) { return o.armed(o.began.Add(30*time.Minute)) == people, nil }, "timers of everybody")
	for _, r := range first {
		r.stop()
	}
	for minute := 10; minute <= 49; minute += 13 {
		o.everybody(o.began.Add(time.Duration(minute) * time.Minute))
	}
	o.ready(7)
	return o
}

// everybody is active.
func (o *outage) everybody(at time.Time) {
	var inputs []*schemas.Input
	for i := range people {
		inputs = append(inputs, active(fmt.Sprint("u", i)))
	}
	o.receive(at, inputs...)
}

// Timers wait until what was sent is applied, and nobody is told to have gone quiet.
func TestNobodyWentQuietBecauseOfAnOutage(t *testing.T) {
	o := newOutage(t)
	ticker := o.runTicker(o.behind)
	o.awaitLine(ticker, "timers.wait")
	require.Equal(t, people, o.armed(o.began.Add(30*time.Minute)), "they were due 20 minutes ago")
	o.run(identity.Name, 7)
	o.run(contacts.Name, 7)
	o.awaitLine(ticker, "timers.go_on")
	last := o.began.Add(49 * time.Minute)
	o.Eventually(func(context.Context) (bool, error) {
		o.drained()
		return o.armed(last.Add(30*time.Minute)) == people, nil
	}, "timers that count from the last event of everybody")
	require.Empty(t, o.told())
	require.Empty(t, o.members())
}

// That is what the wait is for.
func TestEverybodyWouldHaveGoneQuietIfTimersDidNotWait(t *testing.T) {
	o := newOutage(t)
	o.runTicker(func(context.Context, time.Time) (string, error) { return "", nil })
	o.Eventually(func(context.Context) (bool, error) { return len(o.told()) == people, nil }, "false facts on everybody")
}

// armed is how many timers are due at that instant, or a microsecond later.
func (l *live) armed(due time.Time) (n int) {
	l.t.Helper()
	require.NoError(l.t, storagetest.SQL(l.db).QueryRow(l.t.Context(),
		`SELECT count(*) FROM timers WHERE due BETWEEN $1 AND $1 + interval '1 microsecond'`, due).Scan(&n))
	return n
}

// Postgres's clock, by which timers go, is set forward by an hour and back. Who was told to
// be quiet too early leaves with the next event, what is told alternates, goes by the clock
// as it was, and never back.
func TestAClockThatJumpsTellsEachTransitionOnce(t *testing.T) {
	l := newLive(t, idle())
	l.ready(1000)
	l.run(identity.Name, 1000)
	l.run(contacts.Name, 1000)
	l.runTicker(l.behind)
	lasted := 30*time.Minute + time.Microsecond
	awaitTold := func(n int) {
		l.t.Helper()
		l.Eventually(func(context.Context) (bool, error) { return len(l.told()) == n, nil }, "%d facts", n)
		l.drained()
	}

	first := time.Now().Truncate(time.Microsecond)
	l.receive(first, active("u"))
	l.Eventually(func(context.Context) (bool, error) { return l.armed(first.Add(lasted)) == 1, nil }, "a timer")
	l.setClock(time.Hour)
	awaitTold(1)
	l.setClock(-time.Hour)
	second := time.Now().Truncate(time.Microsecond)
	l.receive(second, active("u"))
	awaitTold(2)
	require.Empty(t, l.members())
	l.setClock(0)
	l.setClock(2 * time.Hour)
	awaitTold(3)
	l.setClock(0)
	l.drained()

	var said []string
	for _, f := range l.told() {
		said = append(said, fmt.Sprintf("%s %d", f.Type, f.Bucket.EntryCount))
	}
	require.Equal(t, []string{"bucket.entered 1", "bucket.left 1", "bucket.entered 2"}, said)
	told := l.told()
	require.Equal(t, first.Add(lasted).UTC(), told[0].OccurredAt)
	require.False(t, told[1].OccurredAt.Before(told[0].OccurredAt))
	require.Equal(t, second.Add(lasted).UTC(), told[2].OccurredAt)
	require.Len(t, l.members(), 1)
}
