package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
)

// book knows what arrived at a receiver and what of it was written down as
// delivered when a process was killed, and so what the kill may repeat: what was
// in flight, and what finished after the last flush that committed.
type book struct {
	mu       sync.Mutex
	arrivals map[string]time.Time // by record id, since the last kill
	dying    map[int32]time.Time  // partitions whose owner was just killed: what arrives until then is its

	kills   int
	allowed int             // repeats that the kills may cause
	ages    []time.Duration // at each kill, the age of the oldest delivery not written down
}

func newBook() *book {
	return &book{arrivals: map[string]time.Time{}, dying: map[int32]time.Time{}}
}

// script notes an arrival and takes the message.
func (b *book) script(m *sinktest.Message) sinktest.Answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := strings.TrimPrefix(m.ID, "msg_")
	if _, again := b.arrivals[id]; again {
		return sinktest.Answer{}
	}
	b.arrivals[id] = m.ArrivedAt
	if m.ArrivedAt.Before(b.dying[stream.PartitionOf([]byte(m.ContactID), partitions)]) {
		b.allowed++
	}
	return sinktest.Answer{}
}

// killed is called when a process has died, or is stopped, and before it runs
// again. What another process has in flight at that moment is counted too, for it
// cannot be told apart.
func (b *book) killed(w *world, p *process) {
	w.t.Helper()
	now := time.Now()
	owned := w.owned(p)
	w.eventually("what is in flight to arrive", func(context.Context) error {
		if n := w.receiver.Stats().InFlight; n > 0 {
			return fmt.Errorf("%d in flight", n)
		}
		return nil
	})
	written := map[string]bool{}
	rows, err := storagetest.SQL(w.db).Query(w.ctx(), `SELECT record_id FROM delivery_attempts WHERE outcome = 'delivered'`)
	require.NoError(w.t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		require.NoError(w.t, rows.Scan(&id))
		written[id] = true
	}
	require.NoError(w.t, rows.Err())

	b.mu.Lock()
	defer b.mu.Unlock()
	b.kills++
	oldest := now
	for id, at := range b.arrivals {
		if written[id] {
			continue
		}
		b.allowed++
		if at.Before(oldest) {
			oldest = at
		}
	}
	b.ages = append(b.ages, now.Sub(oldest))
	clear(b.arrivals)
	for n, lease := range owned {
		b.dying[n] = lastWords(lease)
	}
}

// requireBounded says how much was repeated and that it is no more than allowed.
func (b *book) requireBounded(t *testing.T, stats sinktest.Stats) {
	t.Helper()
	slices.Sort(b.ages)
	p99 := time.Duration(0) // where nobody was killed
	if n := len(b.ages); n > 0 {
		p99 = b.ages[n*99/100]
	}
	t.Logf("%d kills: %d webhooks taken, %d repeated; %d may have been (in flight, or finished after the last flush); oldest delivery not written down at a kill: p99 %s",
		b.kills, stats.Unique, stats.Duplicates, b.allowed, p99)
	require.LessOrEqual(t, stats.Duplicates, b.allowed, "webhooks repeated")
}
