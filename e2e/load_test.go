package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/order"
)

// load is a known stream of events: each subject sends 1..each in order, and
// each event sets the property seq of its contact to its number.
type load struct {
	name     string // distinguishes the subjects of several loads
	subjects int
	each     int
	senders  int
}

func (l load) subject(i int) string { return fmt.Sprintf("%s-%d", l.name, i) }

func (l load) event(subject, seq int) event {
	user := l.subject(subject)
	return event{
		Name: "step", UserID: user,
		EventProperties:   map[string]any{"seq": seq, "of": user},
		ContactProperties: map[string]any{"seq": seq},
		IdempotencyKey:    fmt.Sprintf("%s/%d", user, seq),
	}
}

// events is how many there are.
func (l load) events() int { return l.subjects * l.each }

// run sends everything. Each sender has subjects of its own and goes on to the
// next number when the one before was accepted; every third number goes through
// the route that waits for the processors.
func (l load) run(ctx context.Context, c *client) error {
	group, ctx := errgroup.WithContext(ctx)
	for s := range l.senders {
		group.Go(func() error {
			for seq := 1; seq <= l.each; seq++ {
				if err := l.sendFrom(ctx, c, s, seq); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// sendFrom sends a number of the subjects of a sender.
func (l load) sendFrom(ctx context.Context, c *client, sender, seq int) error {
	var batch []event
	for i := sender; i < l.subjects; i += l.senders {
		batch = append(batch, l.event(i, seq))
	}
	if seq%3 != 0 {
		return c.sendBatch(ctx, batch)
	}
	for _, e := range batch {
		if err := c.sendOne(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// start runs the load beside the test; wait fails it when an event was not
// accepted.
func (l load) start(w *world, c *client) (wait func()) {
	done := make(chan error, 1)
	ctx := w.ctx()
	go func() { done <- l.run(ctx, c) }()
	return func() {
		w.t.Helper()
		require.NoError(w.t, <-done, "the load")
	}
}

// bySeq is the order within a contact and topic, as a receiver checks it.
func bySeq(m *sinktest.Message) (key string, seq int64, ok bool) {
	var data struct {
		Properties struct{ Seq int64 }
	}
	if json.Unmarshal(m.Data, &data) != nil || data.Properties.Seq == 0 {
		return "", 0, false
	}
	topic := "facts"
	if m.Event != "" {
		topic = "events"
	}
	return m.ContactID + "/" + topic, data.Properties.Seq, true
}

// verify reads everything that loads left behind and compares it with what a run
// without faults leaves: topics, read committed, and Postgres. It waits for the
// processors first, and returns what was seen of the order of contacts.
func (w *world) verify(loads ...load) order.Report {
	t := w.t
	t.Helper()
	w.waitProcessed()
	users := map[string]int{}
	for _, l := range loads {
		for i := range l.subjects {
			users[l.subject(i)] = l.each
		}
	}
	contacts := w.verifyEvents(users)
	w.verifyFacts(users, contacts)
	w.verifySnapshots(users, contacts)
	w.verifyState(users, contacts)
	require.Empty(t, w.read(schemas.TopicDeadLetters), "dead letters")
	return w.verifyOrder()
}

// verifyEvents returns the contact of each user.
func (w *world) verifyEvents(users map[string]int) map[string]string {
	t := w.t
	t.Helper()
	contacts := map[string]string{}
	got := map[string][]int{}
	ids := map[string]int{}
	for _, r := range w.once(schemas.TopicEvents) {
		e, err := w.codec.DecodeEvent(r.Value)
		require.NoError(t, err)
		require.NotNil(t, e.UserID)
		var p struct{ Seq int }
		require.NoError(t, json.Unmarshal([]byte(e.Properties), &p))
		user := *e.UserID
		if known, ok := contacts[user]; ok {
			require.Equal(t, known, e.ContactID, "user %s is two contacts", user)
		}
		require.Equal(t, e.ContactID, string(r.Key))
		contacts[user] = e.ContactID
		got[user] = append(got[user], p.Seq)
		ids[e.ID]++
	}
	requireOneToN(t, "events", users, got)
	for id, n := range ids {
		require.Equal(t, 1, n, "event %s stands on its topic more than once", id)
	}
	return contacts
}

func (w *world) verifyFacts(users map[string]int, contacts map[string]string) {
	t := w.t
	t.Helper()
	names := inverse(t, contacts)
	got := map[string][]int{}
	for _, r := range w.once(schemas.TopicLifecycle) {
		f, err := w.codec.DecodeFact(r.Value)
		require.NoError(t, err)
		user := names[f.ContactID]
		require.NotEmpty(t, user, "a fact of an unknown contact: %+v", f)
		require.NotNil(t, f.Contact, "fact %s", f.Type)
		want := schemas.FactContactUpdated
		if len(got[user]) == 0 {
			want = schemas.FactContactCreated
		}
		require.Equal(t, want, f.Type, "fact %d of %s", len(got[user])+1, user)
		require.EqualValues(t, len(got[user])+1, f.Contact.Version, "version in fact %s of %s", f.Type, user)
		got[user] = append(got[user], seqOf(t, f.Contact.Properties))
	}
	requireOneToN(t, "lifecycle", users, got)
}

func (w *world) verifySnapshots(users map[string]int, contacts map[string]string) {
	t := w.t
	t.Helper()
	names := inverse(t, contacts)
	got := map[string][]int{}
	for _, r := range w.once(schemas.TopicContacts) {
		require.NotNil(t, r.Value, "a tombstone of %s", r.Key)
		c, err := w.codec.DecodeContact(r.Value)
		require.NoError(t, err)
		user := names[c.ID]
		got[user] = append(got[user], seqOf(t, c.Properties))
		require.EqualValues(t, len(got[user]), c.Version, "version of the snapshot of %s", user)
	}
	if realKafka() {
		// Compaction may have taken older ones: the newest must be there.
		for user, n := range users {
			require.NotEmpty(t, got[user], "snapshots of %s", user)
			require.Equal(t, n, got[user][len(got[user])-1], "newest snapshot of %s", user)
		}
		return
	}
	requireOneToN(t, "contacts", users, got)
}

// verifyState compares Postgres with the model.
func (w *world) verifyState(users map[string]int, contacts map[string]string) {
	t := w.t
	t.Helper()
	rows, err := storagetest.SQL(w.db).Query(w.ctx(), `
		SELECT c.external_id, c.id::text, c.version, c.properties::text, i.contact_id::text,
		       (SELECT count(*) FROM events e WHERE e.contact_id = c.id),
		       (SELECT count(DISTINCT e.id) FROM events e WHERE e.contact_id = c.id)
		FROM contacts c
		LEFT JOIN identifiers i ON i.kind = 'external' AND i.value = c.external_id`)
	require.NoError(t, err)
	defer rows.Close()
	seen := map[string]bool{}
	for rows.Next() {
		var user, id, properties, identified string
		var version, stored, distinct int
		require.NoError(t, rows.Scan(&user, &id, &version, &properties, &identified, &stored, &distinct))
		n := users[user]
		require.NotZero(t, n, "a contact %s that nobody sent", user)
		require.Equal(t, contacts[user], id, "contact of %s in Postgres", user)
		require.Equal(t, id, identified, "identity of %s", user)
		require.Equal(t, n, version, "version of %s", user)
		require.Equal(t, n, seqOf(t, properties), "last value of %s", user)
		require.Equal(t, n, stored, "events of %s in Postgres", user)
		require.Equal(t, n, distinct, "different events of %s in Postgres", user)
		seen[user] = true
	}
	require.NoError(t, rows.Err())
	require.Len(t, seen, len(users), "contacts in Postgres")
}

// waitDelivered waits until the receiver has taken every record of events and
// lifecycle, and checks signatures and order.
func (w *world) waitDelivered(records int) sinktest.Stats {
	t := w.t
	t.Helper()
	err := w.receiver.Wait(w.ctx(), func(s sinktest.Stats) bool { return s.Unique >= records })
	if err != nil {
		w.describe()
	}
	require.NoError(t, err)
	stats := w.receiver.Stats()
	require.Equal(t, records, stats.Unique)
	require.Zero(t, stats.BadSignatures)
	require.Zero(t, stats.Malformed)
	require.Zero(t, stats.OrderViolations, stats.FirstViolation)
	return stats
}

// describe logs how far everything is, for a test that waited in vain.
func (w *world) describe() {
	w.t.Helper()
	for _, s := range schemas.Topics() {
		w.t.Logf("%s: %d records", s.Topic, len(w.read(s.Topic)))
	}
	lags, err := w.admin.Lag(w.ctx())
	w.t.Logf("lag (%v):", err)
	for _, g := range lags {
		w.t.Logf("  %s %s %+v", g.Group, g.State, g.Partitions)
	}
	for what, sql := range map[string]string{
		"progress": `SELECT processor || '/' || partition || ' ' || ranges::text || ' published ' || published || ' pending ' || coalesce(length(pending), 0) FROM processor_progress ORDER BY 1`,
		"cursor":   `SELECT topic || '/' || partition || ' ' || position || ' finished ' || encode(finished, 'hex') FROM cursors ORDER BY 1`,
		"lease":    `SELECT partition || ' ' || holder || ' ' || (expires_at - now()) FROM leases ORDER BY 1`,
	} {
		rows, err := storagetest.SQL(w.db).Query(w.ctx(), sql)
		require.NoError(w.t, err)
		for rows.Next() {
			var line string
			require.NoError(w.t, rows.Scan(&line))
			w.t.Logf("%s: %s", what, line)
		}
		rows.Close()
	}
}

// requireOneToN says which numbers of whom are missing, repeated or out of order.
func requireOneToN(t *testing.T, topic string, users map[string]int, got map[string][]int) {
	t.Helper()
	var wrong []string
	for _, user := range slices.Sorted(maps.Keys(users)) {
		for i := range max(users[user], len(got[user])) {
			if i >= len(got[user]) || i >= users[user] || got[user][i] != i+1 {
				wrong = append(wrong, fmt.Sprintf("%s: want 1..%d, got %v", user, users[user], got[user]))
				break
			}
		}
	}
	for user := range got {
		if users[user] == 0 {
			wrong = append(wrong, "an unknown user "+user)
		}
	}
	require.Empty(t, wrong, "on topic %s:\n%s", topic, strings.Join(wrong, "\n"))
}

func inverse(t *testing.T, m map[string]string) map[string]string {
	t.Helper()
	inverse := map[string]string{}
	for k, v := range m {
		require.Empty(t, inverse[v], "contact %s has two users", v)
		inverse[v] = k
	}
	return inverse
}

func seqOf(t *testing.T, properties string) int {
	t.Helper()
	var p struct{ Seq int }
	require.NoError(t, json.Unmarshal([]byte(properties), &p))
	return p.Seq
}

// once is read, without what a killed dev process may have repeated: records of
// the same bytes. Where nothing may be repeated, it is read.
func (w *world) once(topic schemas.Topic) []*stream.Record {
	w.t.Helper()
	records := w.read(topic)
	if !w.mayRepeat {
		return records
	}
	seen := map[string]bool{}
	first := slices.DeleteFunc(slices.Clone(records), func(r *stream.Record) bool {
		if seen[string(r.Value)] {
			return true
		}
		seen[string(r.Value)] = true
		return false
	})
	w.t.Logf("%s: %d records, %d of them repeated", topic, len(records), len(records)-len(first))
	return first
}
