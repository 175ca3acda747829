package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// The definitions of the test: %d is the threshold that changes on the way.
const bucketsAtFirst = `
id: odd
name: Odd
enabled: true
criteria: {type: property, property: seq, operator: in, value: [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]}
---
id: low
name: Low
enabled: true
criteria: {type: property, property: seq, operator: lte, value: 8}
---
id: high-and-many
name: High and many
enabled: true
criteria:
  type: composite
  operator: and
  conditions:
    - {type: property, property: seq, operator: gte, value: 16}
    - {type: bucket, bucketId: steady}
---
id: steady
name: Steady
enabled: true
criteria: {type: event, eventName: step, check: count, operator: gte, value: 5, within: 1h}
---
id: many
name: Many
enabled: true
criteria: {type: event, eventName: step, check: count, operator: gte, value: %d}
`

const bucketLater = `
id: late
name: Late
enabled: true
criteria: {type: event, eventName: step, where: {seq: {gte: 20}}, check: exists}
`

// define puts definitions in use.
func (w *world) define(dir, text string) {
	w.t.Helper()
	require.NoError(w.t, os.MkdirAll(filepath.Join(dir, "buckets"), 0o755))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "buckets", "all.yaml"), []byte(text), 0o600))
	w.cli(nil, "apply", dir, "--yes")
}

// Two processes share the work; either is killed now and then, also while definitions
// change and everybody is filled with the new ones.
func TestFaultEveryTransitionOfABucketIsToldOnceWhoeverIsKilled(t *testing.T) {
	eachSeed(t, 2, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, shortLease())
		dir := t.TempDir()
		one := w.serve("one")
		w.define(dir, fmt.Sprintf(bucketsAtFirst, 10))
		w.waitTakenOver("buckets")
		two := w.serve("two")
		l := load{name: "bucket", subjects: 24, each: 24, senders: 6}
		c := w.client()
		wait := l.start(w, c)
		const kills = 4
		for k := range kills {
			w.waitAccepted(c, l.events()*(k+1)/(kills+1))
			if k == 1 {
				w.define(dir, fmt.Sprintf(bucketsAtFirst, 12)+"---"+bucketLater)
			}
			w.waitPhase(rng)
			victim := one
			if rng.IntN(2) == 0 {
				victim = two
			}
			victim.kill()
			victim.start()
		}
		wait()
		one.waitReady()
		two.waitReady()
		w.waitFilled()
		w.waitProcessed()
		w.verifyBuckets(l)
		one.stop()
		two.stop()
		w.rebuildBuckets(one, l)
	})
}

// rebuildBuckets has everybody taken over anew by the command, and goes on: nothing is told
// meanwhile, members stay, and whoever enters again does so with the next epoch.
func (w *world) rebuildBuckets(p *process, l load) {
	t := w.t
	t.Helper()
	shown, facts := w.bucketRows(), len(w.read(schemas.TopicLifecycle))
	w.eventually("the sessions to run out", func(context.Context) error {
		_, err := w.tryCLI("processors", "rebuild", "buckets")
		return err
	})
	p.start()
	p.waitReady()
	w.waitTakenOver("buckets")
	w.waitFilled()
	require.Equal(t, shown, w.bucketRows())
	require.Len(t, w.read(schemas.TopicLifecycle), facts)

	e := l.event(0, 1)
	e.IdempotencyKey = ""
	require.NoError(t, w.client().sendBatch(w.ctx(), []event{e}))
	w.eventually("an entry with the next epoch", func(context.Context) error {
		for _, r := range w.read(schemas.TopicLifecycle) {
			if f, err := w.codec.DecodeFact(r.Value); err == nil && f.Type == schemas.FactBucketEntered && f.Bucket.BucketID == "odd" && f.Bucket.EntryCount == 13 {
				return nil
			}
		}
		return errors.New("nobody entered odd for the 13th time")
	})
	w.verifyMemberRows()
	p.stop()
}

// bucketRows are all memberships, also those that ended.
func (w *world) bucketRows() (rows string) {
	w.t.Helper()
	err := storagetest.SQL(w.db).QueryRow(w.ctx(), `
		SELECT string_agg(concat_ws(' ', bucket_id, contact_id, epoch, entered_at, left_at), E'\n' ORDER BY bucket_id, contact_id, epoch) FROM bucket_members`).Scan(&rows)
	require.NoError(w.t, err)
	return rows
}

// waitTakenOver waits until a processor has taken over all partitions.
func (w *world) waitTakenOver(processor string) {
	w.t.Helper()
	w.eventually(processor+" to have taken over", func(ctx context.Context) error {
		var through int32
		err := storagetest.SQL(w.db).QueryRow(ctx, `SELECT count(*) FROM processor_progress WHERE processor = $1 AND taking_over IS NULL`, processor).Scan(&through)
		if err == nil && through != w.cfg.Kafka.Partitions {
			err = fmt.Errorf("%d partitions are through", through)
		}
		return err
	})
}

// waitFilled waits until every bucket is live.
func (w *world) waitFilled() {
	w.t.Helper()
	w.eventually("the buckets to be filled", func(context.Context) error {
		for id, b := range w.buckets() {
			if b.State.Is != "live" {
				return fmt.Errorf("bucket %s is %s", id, b.State.Is)
			}
		}
		return nil
	})
}

type shownBucket struct {
	ID     string
	Counts struct{ Active int }
	State  struct{ Is string }
}

func (w *world) buckets() map[string]shownBucket {
	w.t.Helper()
	var list struct{ Buckets []shownBucket }
	w.cli(&list, "buckets", "ls")
	all := map[string]shownBucket{}
	for _, b := range list.Buckets {
		all[b.ID] = b
	}
	return all
}

// stay is what was told of a contact and a bucket.
type stay struct {
	member        bool
	entered, left int
	epoch         int64
}

// verifyBuckets reads what was told on lifecycle, and compares it with what the load must
// come to: each contact goes through the numbers 1 to 24, one by one.
func (w *world) verifyBuckets(l load) {
	t := w.t
	t.Helper()
	users := map[string]int{}
	for i := range l.subjects {
		users[l.subject(i)] = l.each
	}
	names := inverse(t, w.verifyEvents(users))
	told, ids, numbers := map[string]map[string]*stay{}, map[string]bool{}, map[string]int64{}
	for _, r := range w.read(schemas.TopicLifecycle) {
		if !strings.HasPrefix(r.Type, "bucket.") {
			continue
		}
		f, err := w.codec.DecodeFact(r.Value)
		require.NoError(t, err)
		user, b := names[f.ContactID], f.Bucket
		require.NotEmpty(t, user, "a fact of an unknown contact: %+v", f)
		require.False(t, ids[f.ID], "fact %s stands on its topic more than once", f.ID)
		ids[f.ID] = true
		numbers[user]++
		require.Equal(t, numbers[user], f.WriterSeq, "the writer's number of fact %s of %s", f.Type, user)
		if told[b.BucketID] == nil {
			told[b.BucketID] = map[string]*stay{}
		}
		s := told[b.BucketID][user]
		if s == nil {
			s = &stay{}
			told[b.BucketID][user] = s
		}
		s.take(t, user, f)
	}
	for _, id := range []string{"odd", "low", "high-and-many", "steady"} {
		require.Len(t, told[id], l.subjects, id)
	}
	for user := range users {
		require.Equal(t, stay{entered: 12, left: 12, epoch: 12}, *told["odd"][user], user)
		require.Equal(t, stay{entered: 1, left: 1, epoch: 1}, *told["low"][user], user)
		require.Equal(t, stay{member: true, entered: 1, epoch: 1}, *told["high-and-many"][user], user)
		require.Equal(t, stay{member: true, entered: 1, epoch: 1}, *told["steady"][user], user)
		if s := told["late"][user]; s != nil { // who was filled after his 20th step joined silently
			require.Equal(t, stay{member: true, entered: 1, epoch: 1}, *s, user)
		}
		if many := told["many"][user]; many != nil { // who reached the new threshold before he was filled joined silently
			require.LessOrEqual(t, many.left, 1, "only the change makes anybody leave")
		}
	}
	shown := w.buckets()
	for id, n := range map[string]int{"odd": 0, "low": 0, "high-and-many": 24, "steady": 24, "many": 24, "late": 24} {
		require.Equal(t, n, shown[id].Counts.Active, "members of %s", id)
	}
	w.verifyMemberRows()
}

// take goes on with what is told.
func (s *stay) take(t *testing.T, user string, f *schemas.Fact) {
	t.Helper()
	about := fmt.Sprintf("%s of %s in %s, entry %d", f.Type, user, f.Bucket.BucketID, f.Bucket.EntryCount)
	if f.Bucket.BucketID == "many" && f.Bucket.EntryCount > s.epoch { // there may have been silent ones between
		s.member, s.epoch = f.Type == schemas.FactBucketLeft, f.Bucket.EntryCount
		if !s.member {
			s.epoch--
		}
	}
	switch f.Type {
	case schemas.FactBucketEntered:
		require.False(t, s.member, "%s: is a member", about)
		require.Equal(t, s.epoch+1, f.Bucket.EntryCount, about)
		s.entered++
	case schemas.FactBucketLeft:
		require.True(t, s.member, "%s: is no member", about)
		require.Equal(t, s.epoch, f.Bucket.EntryCount, about)
		s.left++
	default:
		require.Fail(t, about)
	}
	s.member, s.epoch = f.Type == schemas.FactBucketEntered, f.Bucket.EntryCount
}

// verifyMemberRows compares the counters with the rows that they count.
func (w *world) verifyMemberRows() {
	w.t.Helper()
	var wrong int
	err := storagetest.SQL(w.db).QueryRow(w.ctx(), `
		WITH counted AS (SELECT bucket_id, partition, count(*) AS entered, count(*) FILTER (WHERE left_at IS NOT NULL) AS gone FROM bucket_members GROUP BY 1, 2)
		SELECT count(*) FROM bucket_counts AS c FULL JOIN counted AS r USING (bucket_id, partition)
		WHERE coalesce(c.entered, 0) <> coalesce(r.entered, 0) OR coalesce(c.left_, 0) <> coalesce(r.gone, 0)`).Scan(&wrong)
	require.NoError(w.t, err)
	require.Zero(w.t, wrong, "counters that differ from their rows")
}

// people is how many there are: some steps of a take-over and of a filling for each partition.
const people = 6000

const bucketsOfMany = `
id: seen
name: Seen
enabled: true
criteria: {type: event, eventName: step, check: exists}
---
id: low
name: Low
enabled: true
criteria: {type: property, property: n, operator: lt, value: %d}
`

const bucketOfAll = `---
id: all
name: All
enabled: true
criteria: {type: property, property: n, operator: gte, value: 0}
`

// The command that rebuilds contacts has everybody taken over anew. The process is killed
// while it does so, and while everybody is filled with other definitions, again and again.
func TestFaultATakeOverAndAFillingGoOnWhereTheyWereKilled(t *testing.T) {
	notShort(t)
	w := newWorld(t, withEnv("KAFKA_SESSION_TIMEOUT=7s"))
	dir := t.TempDir()
	p := w.serve("one")
	w.define(dir, fmt.Sprintf(bucketsOfMany, people/2))
	w.waitTakenOver("buckets")
	c := w.client()
	for from := 0; from < people; from += 500 {
		var batch []event
		for n := from; n < from+500; n++ {
			batch = append(batch, event{Name: "step", UserID: fmt.Sprint("p", n), ContactProperties: map[string]any{"n": n}})
		}
		require.NoError(t, c.sendBatch(w.ctx(), batch))
	}
	w.waitProcessed()
	w.waitFilled()
	require.Equal(t, map[string]int{"entered seen": people, "entered low": people / 2}, w.toldOfBuckets())
	rows := w.bucketRows()

	p.stop()
	w.eventually("contacts to be rebuilt", func(context.Context) error {
		_, err := w.tryCLI("processors", "rebuild", "contacts")
		return err
	})
	require.True(t, w.holds(`SELECT bool_and(taking_over = '00000000-0000-0000-0000-000000000000') FROM processor_progress WHERE processor = 'buckets'`), "derived state is cleared")
	p.start()
	w.killWhile(p, `SELECT bool_or(taking_over IS NOT NULL) AND bool_or(taking_over IS DISTINCT FROM '00000000-0000-0000-0000-000000000000') FROM processor_progress WHERE processor = 'buckets'`)
	p.waitReady()
	w.waitTakenOver("buckets")
	w.waitProcessed()
	require.Equal(t, map[string]int{"entered seen": people, "entered low": people / 2}, w.toldOfBuckets(), "a take-over tells nothing")
	require.Equal(t, rows, w.bucketRows())

	stop := w.keepSending(c, event{Name: "step", UserID: "p0"}) // a filling goes in small steps beside live records
	w.define(dir, fmt.Sprintf(bucketsOfMany, people/6)+bucketOfAll)
	w.killWhile(p, `SELECT coalesce(bool_or(done_at IS NULL AND passed > 0), false) FROM derived_fills WHERE processor = 'buckets'`)
	stop()
	p.waitReady()
	w.waitFilled()
	w.waitProcessed()
	require.Equal(t, map[string]int{"entered seen": people, "entered low": people / 2, "left low": people / 3}, w.toldOfBuckets(), "leaves are told, joins are not")
	shown := w.buckets()
	for id, n := range map[string]int{"seen": people, "low": people / 6, "all": people} {
		require.Equal(t, n, shown[id].Counts.Active, "members of %s", id)
	}
	w.verifyMemberRows()
	p.stop()
}

// keepSending sends an event again and again until it is told to stop.
func (w *world) keepSending(c *client, e event) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var sending sync.WaitGroup
	sending.Go(func() {
		pause := time.NewTicker(50 * time.Millisecond)
		defer pause.Stop()
		for ctx.Err() == nil {
			_ = c.sendBatch(ctx, []event{e}) // it tries until ctx ends
			<-pause.C
		}
	})
	return func() {
		cancel()
		sending.Wait()
	}
}

// killWhile kills the process each time something is under way, once at least, until it is
// so no more after a start.
func (w *world) killWhile(p *process, underWay string) {
	w.t.Helper()
	for kills := 0; ; kills++ {
		caught := false
		w.eventually("it to be under way, or over", func(context.Context) error {
			caught = w.holds(underWay)
			if caught || kills > 0 && get(w.ctx(), p.url+"/v1/health/ready") == nil {
				return nil
			}
			return errors.New("not under way")
		})
		if !caught || kills == 5 {
			w.t.Logf("killed %d times", kills)
			return
		}
		p.kill()
		p.start()
	}
}

// holds asks Postgres whether something is so.
func (w *world) holds(sql string) (is bool) {
	w.t.Helper()
	require.NoError(w.t, storagetest.SQL(w.db).QueryRow(w.ctx(), sql).Scan(&is))
	return is
}

// toldOfBuckets counts what was told, each fact once.
func (w *world) toldOfBuckets() map[string]int {
	w.t.Helper()
	told, ids := map[string]int{}, map[string]bool{}
	for _, r := range w.read(schemas.TopicLifecycle) {
		if !strings.HasPrefix(r.Type, "bucket.") {
			continue
		}
		f, err := w.codec.DecodeFact(r.Value)
		require.NoError(w.t, err)
		require.False(w.t, ids[f.ID], "fact %s stands on its topic more than once", f.ID)
		ids[f.ID] = true
		told[f.Bucket.Transition+" "+f.Bucket.BucketID]++
	}
	return told
}
