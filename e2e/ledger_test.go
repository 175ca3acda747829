package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
)

// A ledger is a receiver that knows every record it is to be sent: it checks the
// order of each contact, and knows of each record how often a kill may have it
// repeated: when it was in flight as the owner of its partition died, or had
// finished and was not written down yet.
type ledger struct {
	latency time.Duration

	mu         sync.Mutex
	records    map[string]*entry  // by record id
	last       map[string]int     // number last taken, by contact
	open       map[int32]int      // requests under way, by partition
	dying      map[int32]deathbed // partitions whose owner was just killed
	requests   int
	taken      int // different records
	again      int // taken once more
	violations []string

	kills   int
	flying  int // requests under way at kills
	unsaved int // records that had finished and were not written down at kills
}

type entry struct {
	contact   string
	seq       int
	partition int32

	flying    int
	taken     int
	at        []time.Time // of each time it was taken
	mayRepeat int
	counted   int // the last kill that it was counted for
}

// A deathbed is a time in which what arrives of a partition was sent by the
// process that was killed: nobody else can have its lease so soon.
type deathbed struct {
	kill  int
	until time.Time
}

// addLedger starts one and makes it a destination of product events.
func (w *world) addLedger(latency time.Duration) *ledger {
	t := w.t
	t.Helper()
	l := &ledger{latency: latency, records: map[string]*entry{}, last: map[string]int{}, open: map[int32]int{}, dying: map[int32]deathbed{}}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	require.NoError(t, w.admin.EnsureTopics(w.ctx()))
	_, err := w.ops.Create(w.ctx(), destinations.Settings{Name: "ledger", URL: server.URL, EventTypes: []string{"event.tracked"}})
	require.NoError(t, err)
	return l
}

// ServeHTTP implements [http.Handler].
func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := l.arrived(strings.TrimPrefix(r.Header.Get("Webhook-Id"), "msg_"))
	if e == nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(time.Duration(rand.Int64N(int64(l.latency)))):
	case <-r.Context().Done():
	}
	if l.ended(e, r.Context().Err() == nil) {
		w.WriteHeader(http.StatusNoContent)
	}
}

func (l *ledger) arrived(id string) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	e := l.records[id]
	if e == nil {
		l.violations = append(l.violations, "a request for unknown record "+id)
		return nil
	}
	e.flying++
	l.open[e.partition]++
	if d := l.dying[e.partition]; time.Now().Before(d.until) {
		l.mayRepeat(e, d.kill)
	}
	return e
}

func (l *ledger) ended(e *entry, alive bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.flying--
	l.open[e.partition]--
	if !alive {
		return false
	}
	e.taken++
	e.at = append(e.at, time.Now())
	if e.taken > 1 {
		l.again++
		return true
	}
	l.taken++
	if e.seq <= l.last[e.contact] {
		l.violations = append(l.violations, fmt.Sprintf("%s: %d was taken after %d", e.contact, e.seq, l.last[e.contact]))
	}
	l.last[e.contact] = e.seq
	return true
}

// mayRepeat counts a record that a kill may have repeated. The mutex is held.
func (l *ledger) mayRepeat(e *entry, kill int) {
	if e.counted == kill {
		return
	}
	e.mayRepeat, e.counted = e.mayRepeat+1, kill
	if e.taken > 0 && e.flying == 0 {
		l.unsaved++
	}
}

// kill lets a process end, or stops it, and counts what that may repeat.
func (l *ledger) kill(w *world, p *process, end func()) {
	w.t.Helper()
	partitions := w.owned(p)
	l.mu.Lock()
	for n := range partitions {
		l.flying += l.open[n]
	}
	l.mu.Unlock()
	end()
	partitions = w.owned(p) // it may have got more meanwhile
	l.mu.Lock()
	l.kills++
	kill := l.kills
	for n, lease := range partitions {
		l.dying[n] = deathbed{kill, lastWords(lease)}
	}
	l.mu.Unlock()
	// What the dead process had asked Postgres to commit may still become so; that
	// makes fewer repeats, not more.
	written := w.writtenDown()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.records {
		if (e.flying > 0 || e.taken > 0) && !written[id] {
			if _, met := partitions[e.partition]; met {
				l.mayRepeat(e, kill)
			}
		}
	}
}

// writtenDown are the records noted as delivered.
func (w *world) writtenDown() map[string]bool {
	w.t.Helper()
	rows, err := storagetest.SQL(w.db).Query(w.ctx(), `SELECT record_id FROM delivery_attempts WHERE outcome = 'delivered'`)
	require.NoError(w.t, err)
	defer rows.Close()
	written := map[string]bool{}
	for rows.Next() {
		var id string
		require.NoError(w.t, rows.Scan(&id))
		written[id] = true
	}
	require.NoError(w.t, rows.Err())
	return written
}

// counts are the requests, the different records taken, and those under way.
func (l *ledger) counts() (requests, taken, flying int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.open {
		flying += n
	}
	return l.requests, l.taken, flying
}

// waitTaken waits until so many records were taken.
func (l *ledger) waitTaken(w *world, n int) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%d records to be taken", n), func(context.Context) error {
		if _, taken, _ := l.counts(); taken < n {
			l.mu.Lock()
			defer l.mu.Unlock()
			return fmt.Errorf("%d of %d so far; %v", taken, len(l.records), l.violations)
		}
		return nil
	})
}

// allowLate counts the attempts whose answer came after their deadline: the sender
// cannot know that they were taken. A machine that is short of breath makes some.
func (l *ledger) allowLate(w *world) (late int) {
	w.t.Helper()
	rows, err := storagetest.SQL(w.db).Query(w.ctx(), `SELECT record_id FROM delivery_attempts WHERE outcome <> 'delivered'`)
	require.NoError(w.t, err)
	defer rows.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for rows.Next() {
		var id string
		require.NoError(w.t, rows.Scan(&id))
		if e := l.records[id]; e.taken > 1 {
			e.mayRepeat++
			late++
		}
	}
	require.NoError(w.t, rows.Err())
	return late
}

// requireKept says what was lost, repeated or out of order.
func (l *ledger) requireKept(t *testing.T, w *world) {
	t.Helper()
	late := l.allowLate(w)
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(t, l.violations)
	lost, allowed := 0, 0
	var unmet []string
	for id, e := range l.records {
		if e.taken == 0 {
			lost++
		}
		allowed += e.mayRepeat
		if e.taken > 1+e.mayRepeat {
			unmet = append(unmet, fmt.Sprintf("%s of %s, partition %d: %v", id, e.contact, e.partition, e.at))
		}
	}
	t.Logf("%d kills: %d records, %d requests, %d repeated; in flight at the kills %d, finished after the last flush %d; answered too late %d",
		l.kills, len(l.records), l.requests, l.again, l.flying, l.unsaved, late)
	if len(unmet) > 0 {
		t.Fatalf("%d records were repeated although no kill met them: %v", len(unmet), unmet[:min(5, len(unmet))])
	}
	require.Zero(t, lost, "lost")
	require.LessOrEqual(t, l.again, allowed)
}

// An appender puts numbered records of contacts on the log.
type appender struct {
	w   *world
	l   *ledger
	log *stream.Log
	seq []int
}

func (w *world) appender(l *ledger, contacts int) *appender {
	w.t.Helper()
	registry, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{w.cfg.Registry.URL}, Prefix: w.cfg.Kafka.Prefix})
	require.NoError(w.t, err)
	require.NoError(w.t, registry.Register(w.ctx()))
	log, err := stream.OpenLog(w.ctx(), w.cfg.StreamConfig(), registry.Codec(), nil, nil)
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		log.Close(ctx)
	})
	return &appender{w: w, l: l, log: log, seq: make([]int, contacts)}
}

// append adds the next record of every contact, several times.
func (a *appender) append(ctx context.Context, each int) error {
	var msgs []schemas.Message
	a.l.mu.Lock()
	for range each {
		for c := range a.seq {
			a.seq[c]++
			now := time.Now()
			contact := fmt.Sprintf("contact-%d", c)
			e := &schemas.Event{ID: uuid.Must(uuid.NewV7()).String(), ContactID: contact, Name: "step",
				Properties: fmt.Sprintf(`{"seq":%d}`, a.seq[c]), OccurredAt: now, ReceivedAt: now, Source: "api"}
			a.l.records[e.ID] = &entry{contact: contact, seq: a.seq[c], partition: stream.PartitionOf([]byte(contact), partitions)}
			msgs = append(msgs, e)
		}
	}
	a.l.mu.Unlock()
	return a.log.Append(ctx, msgs...)
}

// keepUp appends until the test says stop; what it returns waits for its end.
func (a *appender) keepUp(each int, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(a.w.t.Context())
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			if err := a.append(context.WithoutCancel(ctx), each); err != nil {
				done <- err
				return
			}
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		a.w.t.Helper()
		cancel()
		require.NoError(a.w.t, <-done)
	}
}
