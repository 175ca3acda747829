package buckets_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/predicate/predicatetest"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// failing is a test, or a case of rapid's.
type failing interface {
	require.TestingT
	Helper()
}

// plans is a deployment on Postgres, without a log: contacts with stored events, and the
// frame, which is given the signals that a filling consists of.
type plans struct {
	t     failing
	ctx   context.Context
	db    *storage.DB
	opts  definition.Options
	frame *derive.Frame[buckets.State]
	told  []string // facts: entered keen <contact>
}

// keptTables are those that a plan could touch.
var keptTables = []string{"derived_contacts", "derived_fills", "bucket_members", "bucket_counts", "bucket_days", "timers", "definition_sets", "definition_faults", "contacts", "events", "processor_progress"}

func newPlans(ctx context.Context, t failing, db *storage.DB) *plans {
	p := &plans{t: t, ctx: ctx, db: db, opts: definition.Options{Limits: simLimits}}
	_, err := storagetest.SQL(db).Exec(ctx, "TRUNCATE "+strings.Join(keptTables, ", "))
	require.NoError(t, err)
	p.frame, err = buckets.New(buckets.Options{Limits: simLimits}, schemas.NewCodec(), nil)
	require.NoError(t, err)
	return p
}

func contactID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i+1) }

// store stores contacts with their events.
func (p *plans) store(contacts []*storage.Contact, events []storage.StoredEvent) {
	p.t.Helper()
	now := time.Now()
	for _, c := range contacts {
		c.CreatedAt, c.UpdatedAt, c.Seq = now, now, 1
	}
	require.NoError(p.t, p.db.InTx(p.ctx, func(tx *storage.Tx) error {
		return errors.Join(tx.SaveContacts(p.ctx, &storage.ContactChanges{Saved: contacts}, now), tx.StoreEvents(p.ctx, events))
	}))
}

// takeOver has the processor know everybody.
func (p *plans) takeOver() {
	p.t.Helper()
	require.NoError(p.t, p.db.StartTakeOver(p.ctx, buckets.Name, map[int32]storage.Ranges{0: {}}))
	require.NoError(p.t, p.db.InBatch(p.ctx, func(tx *storage.Tx) error {
		last, err := p.frame.TakeOver(p.ctx, tx, loop.NewBatch(schemas.NewCodec(), time.Now(), nil), 0, uuid.Nil)
		require.Equal(p.t, uuid.Nil, last)
		return errors.Join(err, tx.MoveTakeOver(p.ctx, buckets.Name, 0, nil, 1))
	}))
}

// fill passes everybody with the definitions in use.
func (p *plans) fill() {
	p.t.Helper()
	version, err := p.db.DefinitionVersion(p.ctx)
	require.NoError(p.t, err)
	codec := schemas.NewCodec()
	signal := &schemas.Signal{ID: uuid.NewString(), Type: schemas.SignalFill, For: buckets.Name, ContactID: contactID(0), Epoch: version}
	for signal != nil {
		value, err := codec.Encode(signal)
		require.NoError(p.t, err)
		b := loop.NewBatch(codec, time.Now(), []*stream.Record{{Topic: signal.Topic(), Key: []byte(signal.Key()), Value: value, Type: signal.Type, ID: signal.ID}})
		require.NoError(p.t, p.db.InBatch(p.ctx, func(tx *storage.Tx) error { return p.frame.Apply(p.ctx, tx, b) }))
		signal = nil
		for _, o := range b.Outputs() {
			if o.Topic == schemas.TopicSignals {
				signal, err = codec.DecodeSignal(o.Value)
				require.NoError(p.t, err)
				continue
			}
			f, err := codec.DecodeFact(o.Value)
			require.NoError(p.t, err)
			p.told = append(p.told, f.Bucket.Transition+" "+f.Bucket.BucketID+" "+f.ContactID)
		}
	}
}

func (p *plans) plan(want definition.Wanted) *definition.Plan {
	p.t.Helper()
	inUse, err := definition.Current(p.ctx, p.db)
	require.NoError(p.t, err)
	plan, err := definition.NewPlan(inUse, want, p.opts)
	require.NoError(p.t, err)
	return plan
}

// foresee also says who moves, as: entered keen <contact>.
func (p *plans) foresee(plan *definition.Plan) (*definition.Forecast, map[string]bool) {
	p.t.Helper()
	moves := map[string]bool{}
	f := buckets.Foresight{DB: p.db, Options: buckets.Options{Limits: simLimits}, Workers: 3, Sample: 2, Each: func(m definition.Move) error {
		text := m.Bucket + " " + m.ContactID
		require.NotContains(p.t, moves, text, "told once")
		moves[text] = m.Move == definition.Enters
		return nil
	}}
	forecast, err := f.Foresee(p.ctx, plan)
	require.NoError(p.t, err)
	require.True(p.t, forecast.Whole)
	return forecast, moves
}

// apply puts it in use and fills everybody.
func (p *plans) apply(want definition.Wanted, plan *definition.Plan) {
	p.t.Helper()
	_, err := definition.ApplyPlan(p.ctx, p.db, want, p.opts, "test", plan.Basis)
	require.NoError(p.t, err)
	p.told = nil
	p.fill()
}

// members are those of all buckets, as: keen <contact>.
func (p *plans) members() map[string]bool {
	p.t.Helper()
	rows, err := storagetest.SQL(p.db).Query(p.ctx, `SELECT bucket_id || ' ' || contact_id FROM bucket_members WHERE left_at IS NULL`)
	require.NoError(p.t, err)
	defer rows.Close()
	out := map[string]bool{}
	for rows.Next() {
		var text string
		require.NoError(p.t, rows.Scan(&text))
		out[text] = true
	}
	require.NoError(p.t, rows.Err())
	return out
}

// content is all that a plan could touch.
func (p *plans) content() string {
	p.t.Helper()
	var out strings.Builder
	for _, table := range keptTables {
		var sum string
		require.NoError(p.t, storagetest.SQL(p.db).QueryRow(p.ctx, `SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '' ORDER BY t::text)), '') FROM `+table+` AS t`).Scan(&sum))
		fmt.Fprintf(&out, "%s %s\n", table, sum)
	}
	return out.String()
}

func (p *plans) built(list ...definition.Bucket) *definition.Files {
	p.t.Helper()
	files, err := definition.Built(list, p.opts)
	require.NoError(p.t, err)
	return files
}

// moved are the members after, by what was foreseen.
func moved(before, moves map[string]bool) map[string]bool {
	after := maps.Clone(before)
	for text, enters := range moves {
		if enters {
			after[text] = true
		} else {
			delete(after, text)
		}
	}
	return after
}

func TestAPlanIsWhatApplyingItThenDoes(t *testing.T) {
	db := storagetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		// Events lie around whole hours before the base, so that nothing turns by time meanwhile.
		l := &predicatetest.Language{T: rt, Base: time.Now().UTC().Truncate(time.Microsecond).Add(-20 * time.Minute), NoMail: true}
		p := newPlans(t.Context(), rt, db)
		var contacts []*storage.Contact
		var events []storage.StoredEvent
		for i := range rapid.IntRange(1, 12).Draw(rt, "contacts") {
			seen := l.Base.Add(-predicatetest.Duration(predicatetest.Draw(rt, "seen", predicatetest.Spans)))
			c := &storage.Contact{ID: contactID(i), Properties: marshal(l.Properties()), FirstSeenAt: seen, LastSeenAt: seen}
			owners := []string{c.ID}
			if predicatetest.Chance(rt, "has taken in another") {
				c.Merged = []string{contactID(1000 + i)}
				owners = append(owners, c.Merged...)
			}
			for range rapid.IntRange(0, 6).Draw(rt, "events") {
				events = append(events, storage.StoredEvent{
					ID: uuid.NewString(), ContactID: predicatetest.Draw(rt, "owner", owners), Name: predicatetest.Draw(rt, "event", predicatetest.EventNames),
					Properties: marshal(l.Properties()), OccurredAt: l.Instant(), ReceivedAt: seen, Source: "test",
				})
			}
			contacts = append(contacts, c)
		}
		p.store(contacts, events)
		known := rapid.Bool().Draw(rt, "the processor knows everybody")
		if known {
			p.takeOver()
		}
		var last []definition.Bucket
		for range rapid.IntRange(1, 3).Draw(rt, "sets") {
			last = drawBuckets(rt, l, last)
			files := p.built(last...)
			plan, before, content := p.plan(files), p.members(), p.content()
			forecast, moves := p.foresee(plan)
			require.Equal(rt, content, p.content(), "a plan touches nothing")
			if known {
				p.apply(files, plan)
			} else {
				_, err := definition.ApplyPlan(t.Context(), db, files, p.opts, "test", plan.Basis)
				require.NoError(rt, err)
				p.takeOver()
				known = true
			}
			require.Equal(rt, moved(before, moves), p.members())
			agreeOn(rt, forecast, moves, p.told)
		}
	})
}

// drawBuckets draws the next definitions: some stay, some are others, some go.
func drawBuckets(rt *rapid.T, l *predicatetest.Language, before []definition.Bucket) (out []definition.Bucket) {
	l.Buckets = nil
	for _, id := range bucketIDs {
		i := slices.IndexFunc(before, func(b definition.Bucket) bool { return b.ID == id })
		var b definition.Bucket
		what := predicatetest.Draw(rt, "what", []string{"stays", "changes", "changes", "goes", "switched"})
		stays := i >= 0 && !slices.ContainsFunc(before[i].Criteria.Inputs().Buckets, func(asked string) bool { return !slices.Contains(l.Buckets, asked) })
		switch {
		case what == "goes":
			continue
		case stays && what == "stays":
			b = before[i]
		case stays && what == "switched":
			b = before[i]
			b.Enabled = !b.Enabled
		default:
			b = definition.Bucket{ID: id, Name: id, Enabled: true, Joins: predicatetest.Draw(rt, "joins", []string{"", definition.JoinsTold})}
			text := marshal(l.Condition(2))
			require.NoError(rt, json.Unmarshal([]byte(text), &b.Criteria), text)
			if b.Criteria.OnlyNegative() || predicatetest.Chance(rt, "min dwell") {
				b.Criteria = predicate.Any(b.Criteria, predicate.Prop("never").Eq("set"))
				b.MinDwell = time.Hour
			}
		}
		l.Buckets = append(l.Buckets, id)
		out = append(out, b)
	}
	return out
}

// agreeOn compares the numbers with who moved, and with what was told.
func agreeOn(t failing, forecast *definition.Forecast, moves map[string]bool, told []string) {
	t.Helper()
	facts := int64(0)
	for _, e := range forecast.Effects {
		var entering, leaving []string
		for text, enters := range moves {
			bucket, contact, _ := strings.Cut(text, " ")
			switch {
			case bucket != e.Bucket:
			case enters:
				entering = append(entering, contact)
			default:
				leaving = append(leaving, contact)
			}
		}
		require.Len(t, entering, int(e.Enter))
		require.Len(t, leaving, int(e.Leave))
		for sample, all := range map[*[]definition.Move][]string{&e.Entering: entering, &e.Leaving: leaving} {
			slices.Sort(all)
			require.Len(t, *sample, min(2, len(all)))
			for i, m := range *sample {
				require.Equal(t, all[i], m.ContactID)
			}
		}
		facts += e.Told
	}
	require.Len(t, told, int(facts))
}

// storedPlans is a deployment with contacts, each with properties.
func storedPlans(t *testing.T, properties ...string) *plans {
	p := newPlans(t.Context(), t, storagetest.New(t))
	var contacts []*storage.Contact
	for i, text := range properties {
		contacts = append(contacts, &storage.Contact{ID: contactID(i), Properties: text, FirstSeenAt: start, LastSeenAt: start})
	}
	p.store(contacts, nil)
	p.takeOver()
	return p
}

func numbers(f *definition.Forecast) (out []string) {
	for _, e := range f.Effects {
		out = append(out, fmt.Sprintf("%s: %d+%d-%d told %d", e.Bucket, e.Members, e.Enter, e.Leave, e.Told))
	}
	return out
}

func TestARollbackGivesTheOldMembersBack(t *testing.T) {
	p := storedPlans(t, `{"plan":"pro"}`, `{"plan":"free"}`, `{"plan":"pro"}`)
	pros, free := bucket("b", predicate.Prop("plan").Eq("pro")), bucket("b", predicate.Prop("plan").Eq("free"))
	first := p.built(pros, bucket("same", predicate.Prop("plan").Eq("free")))
	p.apply(first, p.plan(first))
	before := p.members()
	require.Len(t, before, 3)
	second := p.built(free)
	forecast, _ := p.foresee(p.plan(second))
	require.Equal(t, []string{"b: 2+1-2 told 2"}, numbers(forecast))
	p.apply(second, p.plan(second))
	require.NotEqual(t, before, p.members())

	old, err := definition.Version(p.ctx, p.db, 1)
	require.NoError(t, err)
	back := &definition.Former{Set: old}
	forecast, moves := p.foresee(p.plan(back))
	require.Equal(t, []string{"b: 1+2-1 told 1", "same: 1+0-0 told 0"}, numbers(forecast))
	require.Len(t, moves, 3)
	p.apply(back, p.plan(back))
	require.Equal(t, before, p.members())
}

func TestAPlanSaysThatTheSetInUseIsStillBeingFilled(t *testing.T) {
	p := storedPlans(t, `{"plan":"pro"}`, `{"plan":"free"}`)
	first := p.built(bucket("b", predicate.Prop("plan").Eq("pro")))
	_, err := definition.ApplyPlan(p.ctx, p.db, first, p.opts, "test", p.plan(first).Basis)
	require.NoError(t, err)
	second := p.built(bucket("b", predicate.Prop("plan").Eq("pro")), bucket("c", predicate.InBucket("b")))
	forecast, _ := p.foresee(p.plan(second))
	require.Equal(t, &definition.Filling{Passed: 0, Total: 2}, forecast.Filling)
	require.Equal(t, []string{"c: 0+1-0 told 0"}, numbers(forecast), "with what is still to be filled, but of what the plan changes alone")
	p.apply(second, p.plan(second))
	forecast, _ = p.foresee(p.plan(p.built(bucket("b", predicate.Prop("plan").Eq("x")))))
	require.Nil(t, forecast.Filling)
	require.Equal(t, []string{"b: 1+0-1 told 1"}, numbers(forecast))
}

func TestAPlanCountsContactsOfWhichRecordsAreUnderWay(t *testing.T) {
	p := storedPlans(t, `{}`, `{"plan":"pro"}`)
	_, err := storagetest.SQL(p.db).Exec(p.ctx, `UPDATE contacts SET seq = seq + 1 WHERE id = $1`, contactID(1))
	require.NoError(t, err)
	forecast, _ := p.foresee(p.plan(p.built(bucket("b", predicate.Prop("plan").Eq("pro")))))
	require.Equal(t, int64(1), forecast.Waiting)
	require.Equal(t, []string{"b: 0+1-0 told 0"}, numbers(forecast))
}

func TestAPlanForWhichThereIsNoTimeSaysSo(t *testing.T) {
	p := storedPlans(t, `{"plan":"pro"}`)
	f := buckets.Foresight{DB: p.db, Options: buckets.Options{Limits: simLimits}, Until: time.Now().Add(-time.Second)}
	forecast, err := f.Foresee(p.ctx, p.plan(p.built(bucket("b", predicate.Prop("plan").Eq("pro")))))
	require.NoError(t, err)
	require.False(t, forecast.Whole)
	require.Zero(t, forecast.Contacts)
	require.Equal(t, int64(1), forecast.Total)
}

func TestAnExportThatFailsEndsThePlan(t *testing.T) {
	p := storedPlans(t, `{"plan":"pro"}`, `{"plan":"pro"}`)
	full := errors.New("disk full")
	calls := 0
	f := buckets.Foresight{DB: p.db, Options: buckets.Options{Limits: simLimits}, Each: func(definition.Move) error { calls++; return full }}
	_, err := f.Foresee(p.ctx, p.plan(p.built(bucket("b", predicate.Prop("plan").Eq("pro")))))
	require.ErrorIs(t, err, full)
	require.Equal(t, 1, calls)
}

func TestAPlanReadsContactsWithManyEventsOneAfterTheOther(t *testing.T) {
	p := storedPlans(t, `{}`, `{}`, `{}`)
	_, err := storagetest.SQL(p.db).Exec(p.ctx, `
INSERT INTO events (id, contact_id, name, properties, occurred_at, received_at, source, seq, era)
SELECT gen_random_uuid(), c.id, 'big', json_build_object('text', repeat('x', 250000)), now(), now(), 'test', n, 0
FROM contacts AS c, generate_series(1, 140) AS n WHERE c.id <> $1`, contactID(2))
	require.NoError(t, err)
	forecast, _ := p.foresee(p.plan(p.built(bucket("b", predicate.Event("big").AtLeast(5)))))
	require.Equal(t, []string{"b: 0+2-0 told 0"}, numbers(forecast))
}
