package buckets_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// compiled is the logic of a set of a version, of buckets that look at event seen, and of
// manual ones.
func compiled(version int64, revisions map[string]int64) *buckets.Logic {
	set := &definition.Set{Version: version}
	for _, id := range []string{"lookers", "manual"} {
		if revisions[id] == 0 {
			continue
		}
		b := definition.Bucket{ID: id, Name: id, Enabled: true, Kind: definition.KindDynamic, Criteria: predicate.Event("seen").Exists()}
		if id == "manual" {
			b.Kind, b.Criteria = definition.KindManual, predicate.Condition{}
		}
		set.Buckets = append(set.Buckets, definition.BucketInUse{Bucket: b, InUse: definition.InUse{Revision: revisions[id]}})
	}
	return buckets.Compile(set, buckets.Options{Limits: predicate.DefaultLimits()})
}

func TestABucketThatWasPurgedIsForgottenAndAddedAgainItsMembersJoinForTheFirstTime(t *testing.T) {
	t.Parallel()
	now, contact := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC), uuid.NewString()
	step := func(l *buckets.Logic, s buckets.State, r *derive.Record[buckets.State]) derive.Result[buckets.State] {
		now = now.Add(time.Hour)
		r.ID, r.ContactID, r.OccurredAt = uuid.NewString(), contact, now
		result, err := l.Step(s, r, now)
		require.NoError(t, err)
		return result
	}
	seen := func() *derive.Record[buckets.State] {
		return &derive.Record[buckets.State]{Seq: 1, Event: &schemas.Event{ID: uuid.NewString(), ContactID: contact, Name: "seen", OccurredAt: now, ReceivedAt: now, Properties: "{}"}}
	}
	command := func(what, text string) *derive.Record[buckets.State] {
		return &derive.Record[buckets.State]{Command: &derive.Command{What: what, JSON: text}}
	}
	defined := compiled(1, map[string]int64{"lookers": 1, "manual": 1})
	s := step(defined, buckets.State{}, seen()).State
	s = step(defined, s, command("member", `{"bucket":"manual","member":true}`)).State
	require.Len(t, s.Memberships(), 2)

	removed := compiled(2, nil)
	s = step(removed, s, seen()).State
	require.Len(t, s.Memberships(), 2, "what is defined no more is kept")
	for _, id := range []string{"lookers", "manual", "nothing"} {
		forgotten := step(removed, s, command("forget", `{"bucket":"`+id+`"}`))
		require.Empty(t, forgotten.Outputs, "nothing is told")
		s = forgotten.State
	}
	require.Empty(t, s.Memberships())

	again := compiled(3, map[string]int64{"lookers": 3, "manual": 3})
	refilled, err := again.Refill(s, &derive.Known{Contact: &storage.Contact{ID: contact, Properties: "{}"}}, now)
	require.NoError(t, err)
	joined := step(again, refilled.State, seen())
	require.Len(t, joined.State.Memberships(), 1)
	require.EqualValues(t, 1, joined.State.Memberships()[0].Epoch)
	require.Len(t, joined.Outputs, 1)

	// Defined again before the command came, it is as if it were new.
	anew := step(again, joined.State, command("forget", `{"bucket":"lookers"}`))
	require.EqualValues(t, 1, anew.State.Memberships()[0].Epoch)
	require.Len(t, anew.Outputs, 1)
	for what, text := range map[string]string{"forget": `{"name":"x"}`, "destroy": `{}`, "member": `{"bucket":"lookers","member":true}`} {
		_, err := again.Step(anew.State, command(what, text), now)
		require.ErrorContains(t, err, what)
	}
}
