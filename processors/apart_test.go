package processors_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
)

// What identity and contacts say of people who change, act and turn out to be one is read
// by processor buckets with one topic an hour behind the other. Whoever is in which bucket,
// and all that is told of it, is as when it is read in order.
func TestTopicsThatAreReadAnHourApartGiveTheSameMembersAndFacts(t *testing.T) {
	list := apartBuckets()
	in := newLive(t, list...)
	in.ready(50)
	in.run(identity.Name, 1000)
	in.run(contacts.Name, 1000)
	for i, inputs := range apartInputs(rand.New(rand.NewPCG(1, 2))) {
		in.receive(time.Now().Add(-20*time.Minute).Add(time.Duration(i)*time.Second).Truncate(time.Microsecond), inputs)
	}
	in.drained()
	members, facts := in.members(), in.history()
	require.Greater(t, len(members), 20)
	kinds := map[string]int{}
	for _, f := range in.told() {
		kinds[f.Type+" "+f.Bucket.BucketID]++
	}
	for _, b := range list {
		require.Positive(t, kinds["bucket.entered "+b.ID], "%v", kinds)
	}
	require.Positive(t, kinds["bucket.left pro"], "%v", kinds)

	for name, behind := range map[string]schemas.Topic{"events behind lifecycle": schemas.TopicEvents, "lifecycle behind events": schemas.TopicLifecycle} {
		t.Run(name, func(t *testing.T) {
			apart := newLive(t, list...)
			apart.ready(50).stop()
			var records []*kgo.Record
			for _, m := range in.said() {
				at := time.Now().Add(-2 * time.Hour)
				if m.Topic() == behind {
					at = at.Add(time.Hour)
				}
				records = append(records, apart.record(m, at))
			}
			apart.Produce(records...)
			r := apart.run(buckets.Name, 50)
			apart.WaitDrained(buckets.Name, schemas.TopicEvents, schemas.TopicLifecycle, schemas.TopicSignals)
			apart.WaitDrained(buckets.Name, schemas.TopicSignals) // what was handed over meanwhile
			require.Positive(t, r.held(), "some had to wait, though what is fetched is taken in the order of the numbers")
			require.Equal(t, members, apart.members())
			require.Equal(t, facts, apart.history())
			t.Logf("%v of %d records waited", r.held(), len(records))
		})
	}
}

func apartBuckets() []definition.Bucket {
	view, buy := predicate.Event("view"), predicate.Event("buy")
	var list []definition.Bucket
	for id, c := range map[string]predicate.Condition{
		"pro":    predicate.Prop("plan").Eq("pro"),
		"keen":   view.Within(time.Hour).AtLeast(5),
		"vip":    predicate.All(predicate.InBucket("pro"), predicate.InBucket("keen")),
		"again":  predicate.Event("bucket:entered:pro").AtLeast(2),
		"buyer":  view.Then(buy).Within(time.Hour),
		"paying": predicate.All(predicate.Prop("plan").Exists(), buy.Total("amount").Gte(100)),
	} {
		list = append(list, definition.Bucket{ID: id, Name: id, Enabled: true, Criteria: c})
	}
	return list
}

// apartInputs are what forty people do. Some begin as a device of which it turns out later
// whose it is.
func apartInputs(rng *rand.Rand) (all []*schemas.Input) {
	for range 600 {
		n := rng.IntN(40)
		user, device := fmt.Sprint("u", n), fmt.Sprint("d", n)
		in := &schemas.Input{Type: schemas.InputEvent, UserID: &user}
		switch rng.IntN(10) {
		case 0, 1, 2:
			in.Event = new("view")
		case 3, 4:
			in.UserID, in.AnonymousID, in.Event = nil, &device, new("view")
		case 5, 6:
			in.Event, in.EventProperties = new("buy"), new(fmt.Sprintf(`{"amount":%d}`, rng.IntN(60)))
		case 7:
			in.Event, in.ContactProperties = new("plan.changed"), new(`{"plan":"pro"}`)
		case 8:
			in.Type, in.ContactProperties = schemas.InputContact, new(`{"plan":"free"}`)
		case 9:
			if n < 20 {
				in.AnonymousID, in.Event = &device, new("login")
			} else {
				in.Event = new("login")
			}
		}
		all = append(all, in)
	}
	return all
}

// said is what identity and contacts said on the topics that processor buckets reads.
func (l *live) said() (all []schemas.Message) {
	l.t.Helper()
	for _, r := range l.ReadAll(schemas.TopicEvents, true) {
		e, err := l.Codec.DecodeEvent(r.Value)
		require.NoError(l.t, err)
		all = append(all, e)
	}
	for _, r := range l.ReadAll(schemas.TopicLifecycle, true) {
		f, err := l.Codec.DecodeFact(r.Value)
		require.NoError(l.t, err)
		if !strings.HasPrefix(f.Type, "bucket.") {
			all = append(all, f)
		}
	}
	for _, r := range l.ReadAll(schemas.TopicSignals, true) {
		s, err := l.Codec.DecodeSignal(r.Value)
		require.NoError(l.t, err)
		if s.Type == schemas.SignalMerged || s.Type == schemas.SignalDeleted {
			all = append(all, s)
		}
	}
	return all
}

// history is what was told of each contact, in its order. When a merge was handled is not
// in it: that is no time of the records.
func (l *live) history() map[string][]string {
	l.t.Helper()
	all, merged := map[string][]string{}, map[string]bool{}
	for _, r := range l.ReadAll(schemas.TopicLifecycle, true) {
		merged[string(r.Key)] = merged[string(r.Key)] || r.Type == schemas.FactContactMerged
	}
	for _, f := range l.told() {
		b, reason, at := f.Bucket, "", f.OccurredAt.Format(time.RFC3339Nano)
		if b.Reason != nil {
			reason = *b.Reason
		}
		if reason == "merged" || merged[f.ContactID] {
			at = ""
		}
		all[f.ContactID] = append(all[f.ContactID], fmt.Sprint(f.ID, f.WriterSeq, f.CauseSeq, f.Type, b.BucketID, b.EntryCount, b.Source, reason, at))
	}
	return all
}
