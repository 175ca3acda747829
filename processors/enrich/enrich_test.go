package enrich

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

const acme = `{"set":{"company":"Acme"}}`

func TestAConditionThatTurnsTrueIsOnePatch(t *testing.T) {
	s := newStage(t, company)
	s.is("ada", map[string]any{"plan": "pro"})
	require.Empty(t, s.all)
	s.is("ada", map[string]any{"domain": "acme.test"})
	require.Len(t, s.all, 1)
	o := s.all[0]
	require.Equal(t, target, o.Destination)
	require.Equal(t, s.now.Add(definition.DefaultWithin), o.NotAfter)
	require.JSONEq(t, fmt.Sprintf(`{"enrichment":"company","contactId":%q,"userId":"ada","properties":{"domain":"acme.test"}}`, id("ada")), o.Body)
	s.is("ada", map[string]any{"plan": "free"})
	require.Len(t, s.all, 1, "it was true before")

	s.answers("ada", schemas.ReceiptAccepted, acme)
	require.Len(t, s.sent, 1)
	in := s.sent[0]
	require.Equal(t, []any{schemas.InputContact, id("ada"), `{"company":"Acme"}`, "enrich:company", o.ID},
		[]any{in.Type, *in.ContactID, *in.ContactProperties, in.Source, *in.IdempotencyKey})
	s.tell("ada", o, schemas.Receipt{Result: schemas.ReceiptAccepted, Body: in.ContactProperties})
	require.Len(t, s.sent, 1, "a receipt that comes again")
	s.patched("ada")
	s.after(100 * 24 * time.Hour)
	require.Len(t, s.all, 1)

	s.is("ada", map[string]any{"domain": nil})
	s.is("ada", map[string]any{"domain": "other.test"})
	require.Len(t, s.all, 2, "it has turned true again")
	require.NotEqual(t, s.all[0].ID, s.all[1].ID)
}

func TestAPropertyThatIsOldIsAskedForAgain(t *testing.T) {
	const month = 30 * 24 * time.Hour
	e := company
	e.When, e.Refresh = predicate.Condition{}, &definition.Refresh{Property: "company", After: month}
	s := newStage(t, e)
	s.is("ada", map[string]any{"domain": "acme.test"})
	require.Len(t, s.all, 1, "what is not there is old")
	s.answers("ada", schemas.ReceiptAccepted, acme)
	s.patched("ada")
	s.after(month - time.Microsecond)
	require.Len(t, s.all, 1)
	s.after(time.Microsecond)
	require.Len(t, s.all, 2)
	s.answers("ada", schemas.ReceiptAccepted, acme)
	s.after(month / 2)
	s.is("ada", map[string]any{"company": "Changed by somebody"})
	s.after(month - time.Second)
	require.Len(t, s.all, 2, "its age counts from the change")
	s.after(time.Second)
	require.Len(t, s.all, 3)
	s.answers("ada", schemas.ReceiptAccepted, "")
	require.Equal(t, outcomeEmpty, s.entry("ada", "company").outcome)
	s.after(month - time.Second)
	require.Len(t, s.all, 3, "an answer without a word counts too")
	s.after(time.Second)
	require.Len(t, s.all, 4)
}

func TestWhileTheConditionIsFalseNothingIsRefreshed(t *testing.T) {
	e := company
	e.Refresh = &definition.Refresh{Property: "company", After: 2 * time.Hour}
	s := newStage(t, e)
	s.is("ada", map[string]any{"domain": "acme.test"})
	s.answers("ada", schemas.ReceiptAccepted, acme)
	s.is("ada", map[string]any{"domain": nil})
	s.after(100 * time.Hour)
	require.Len(t, s.all, 1)
}

func TestAnEntryOfABucketIsAsked(t *testing.T) {
	e := company
	e.When, e.Entered = predicate.Condition{}, "vip"
	s := newStage(t, e)
	require.True(t, s.l.Wants(schemas.FactBucketEntered))
	s.is("ada", map[string]any{"domain": "acme.test"})
	enters := func(bucket string) {
		s.step(&derive.Record[State]{ContactID: id("ada"), Fact: &schemas.Fact{
			ID: uuid.NewString(), Type: schemas.FactBucketEntered, ContactID: id("ada"), OccurredAt: s.now,
			Bucket: &schemas.BucketTransition{BucketID: bucket, BucketName: bucket, Transition: "entered"},
		}})
	}
	enters("other")
	require.Empty(t, s.all)
	enters("vip")
	require.Len(t, s.all, 1)
	s.answers("ada", schemas.ReceiptAccepted, acme)
	enters("vip")
	require.Len(t, s.all, 2)
}

func TestWhatFailsIsAskedAgainAfterLongerAndLongerPausesAndThenRests(t *testing.T) {
	e := company
	e.Attempts = 3
	for result, outcome := range map[string]string{
		schemas.ReceiptRefused: outcomeRefused, schemas.ReceiptGivenUp: outcomeGivenUp, schemas.ReceiptExpired: outcomeExpired, schemas.ReceiptAccepted: outcomeMapping,
	} {
		s := newStage(t, e)
		s.is("ada", map[string]any{"domain": "acme.test"})
		for n, pause := range []time.Duration{time.Hour, 2 * time.Hour} {
			s.answers("ada", result, "<html>")
			require.Equal(t, outcome, s.entry("ada", "company").outcome)
			require.NotEmpty(t, s.entry("ada", "company").detail)
			s.after(pause - time.Second)
			require.Len(t, s.all, n+1)
			s.after(time.Second)
			require.Len(t, s.all, n+2)
		}
		s.answers("ada", result, "<html>")
		s.after(1000 * time.Hour)
		require.Len(t, s.all, 3, "it rests")
		require.Equal(t, 3, s.entry("ada", "company").failures)
		s.is("ada", map[string]any{"domain": nil})
		s.is("ada", map[string]any{"domain": "acme.test"})
		require.Len(t, s.all, 4, "until it turns true again")
		require.Empty(t, s.sent)
	}
}

func TestWhatWasGivenUpAndIsAcceptedAfterAllIsUsed(t *testing.T) {
	s := newStage(t, company)
	s.is("ada", map[string]any{"domain": "acme.test"})
	o := s.all[0]
	s.answers("ada", schemas.ReceiptGivenUp, "")
	body := acme
	s.tell("ada", o, schemas.Receipt{Result: schemas.ReceiptAccepted, Final: true, Body: &body})
	require.Len(t, s.sent, 1)
	s.after(100 * time.Hour)
	require.Len(t, s.all, 1, "and is not asked again")

	s.is("bob", map[string]any{"domain": "acme.test"})
	o = s.all[1]
	s.answers("bob", schemas.ReceiptGivenUp, "")
	s.after(time.Hour)
	require.Len(t, s.all, 3)
	s.tell("bob", o, schemas.Receipt{Result: schemas.ReceiptAccepted, Final: true, Body: &body})
	require.Len(t, s.sent, 1, "it was asked again meanwhile")
	s.answers("bob", schemas.ReceiptAccepted, acme)
	require.Len(t, s.sent, 2)
}

func TestACallWithoutAReceiptIsLostAnHourAfterItWasTooLate(t *testing.T) {
	s := newStage(t, company)
	s.is("ada", map[string]any{"domain": "acme.test"})
	o := s.all[0]
	s.after(25*time.Hour - time.Second)
	require.True(t, func() bool { st := s.r.State(id("ada")); return st.open(st.find("company")) }())
	s.after(time.Second)
	require.Equal(t, outcomeLost, s.entry("ada", "company").outcome)
	s.after(time.Hour)
	require.Len(t, s.all, 2)
	body := acme
	s.tell("ada", o, schemas.Receipt{Result: schemas.ReceiptAccepted, Body: &body})
	require.Empty(t, s.sent, "another call is under way by now")
}

func TestWhatIsSentChangesWhileItIsUnderWay(t *testing.T) {
	s := newStage(t, company)
	s.is("ada", map[string]any{"domain": "old.test"})
	s.is("ada", map[string]any{"domain": "new.test"})
	require.Equal(t, "cancelled", s.asked[0].Kind, "it is taken back")
	require.Len(t, s.all, 1, "and its receipt is waited for")
	s.is("ada", map[string]any{"domain": "newer.test"})
	s.answers("ada", schemas.ReceiptAccepted, `{"set":{"company":"Old"}}`) // it had been sent
	require.Empty(t, s.sent, "the answer is to an old question")
	require.Len(t, s.all, 2)
	require.Contains(t, s.all[1].Body, "newer.test")
	s.answers("ada", schemas.ReceiptAccepted, acme)
	require.Len(t, s.sent, 1)
}

func TestAConditionThatTurnsFalseTakesTheCallBack(t *testing.T) {
	for _, result := range []string{schemas.ReceiptCancelled, schemas.ReceiptAccepted, schemas.ReceiptRefused} {
		s := newStage(t, company)
		s.is("ada", map[string]any{"domain": "acme.test"})
		s.is("ada", map[string]any{"domain": nil})
		require.Equal(t, "cancelled", s.asked[0].Kind)
		s.answers("ada", result, acme)
		require.Empty(t, s.sent)
		s.after(100 * time.Hour)
		require.Len(t, s.all, 1)

		s.is("ada", map[string]any{"domain": "acme.test"})
		require.Len(t, s.all, 2)
		s.is("ada", map[string]any{"domain": nil})
		s.is("ada", map[string]any{"domain": "acme.test"})
		require.Len(t, s.all, 2, "one call at a time")
		s.answers("ada", result, acme)
		require.Len(t, s.all, 3, "what is true now is asked when the receipt has come")
		s.answers("ada", schemas.ReceiptAccepted, acme)
		require.Len(t, s.sent, 1)
	}
}

func TestADestinationThatIsNotThereIsAFailure(t *testing.T) {
	s := newStage(t, company)
	s.gone = []string{"crm"}
	s.targets()
	s.is("ada", map[string]any{"domain": "acme.test"})
	require.Empty(t, s.all)
	require.Equal(t, outcomeNoDestination, s.entry("ada", "company").outcome)
	s.gone = nil
	s.targets()
	s.after(time.Hour)
	require.Len(t, s.all, 1)
}

func TestADisabledEnrichmentAsksNothingAndUsesNothing(t *testing.T) {
	s := newStage(t, company)
	s.is("ada", map[string]any{"domain": "acme.test"})
	off := inUse(company, 1)
	off.Enabled = false
	s.apply(off)
	s.is("bob", map[string]any{"domain": "acme.test"})
	require.Len(t, s.all, 1)
	s.answers("ada", schemas.ReceiptAccepted, acme)
	require.Empty(t, s.sent)
	require.Equal(t, outcomeUnused, s.entry("ada", "company").outcome)
}

// known is what Postgres has of somebody.
func (s *stage) known(name string) *derive.Known {
	c := s.contact(name)
	return &derive.Known{Contact: &storage.Contact{ID: id(name), ExternalID: name, Properties: c.Properties, FirstSeenAt: t0, LastSeenAt: s.now}}
}

func TestThoseWhoWereThereBeforeAreAskedForOverATimeOrNotAtAll(t *testing.T) {
	const many = 2000
	over := func(e definition.Enrichment) []time.Duration {
		s := newStage(t, e)
		var due []time.Duration
		for i := range many {
			name := fmt.Sprint(i)
			s.props[name] = map[string]any{"domain": "acme.test", "company": "x"}
			state, timers := s.l.TakeOver(State{}, s.known(name), s.now)
			require.True(t, state.find("company").holds)
			for _, timer := range timers {
				due = append(due, timer.Due.Sub(s.now))
			}
		}
		return due
	}
	require.Empty(t, over(company), "not at all")

	spread := company
	spread.Backfill = 10 * time.Hour
	refreshed := company
	refreshed.When, refreshed.Refresh = predicate.Condition{}, &definition.Refresh{Property: "company", After: 10 * time.Hour}
	for _, e := range []definition.Enrichment{spread, refreshed} {
		due := over(e)
		require.Len(t, due, many)
		var hours [10]int
		for _, d := range due {
			hours[int(d/time.Hour)]++
		}
		for hour, n := range hours {
			require.InDelta(t, many/10, n, 60, "hour %d", hour)
		}
	}
}

func TestAnEnrichmentThatIsNewIsFilled(t *testing.T) {
	s := newStage(t)
	s.is("ada", map[string]any{"domain": "acme.test"})
	e := company
	e.Backfill = time.Hour
	s.apply(inUse(e, 2))
	state := s.r.State(id("ada"))
	require.EqualValues(t, 1, s.l.VersionOf(state))
	require.Same(t, s.l.since(1), s.l.since(0))
	result, err := s.l.Refill(state, s.known("ada"), s.now)
	require.NoError(t, err)
	require.Empty(t, result.Outputs, "not at once")
	require.Len(t, result.Timers, 1)
	require.EqualValues(t, 2, s.l.VersionOf(result.State))

	asked, err := s.l.Step(result.State, &derive.Record[State]{ContactID: id("ada"), Timer: &derive.Timer{}}, result.Timers[0].Due)
	require.NoError(t, err)
	require.Len(t, asked.Outputs, 1)
	require.Equal(t, new(int), asked.Hops, "a chain begins")

	// It changes while that is under way.
	e.Map = ".other"
	s.apply(inUse(e, 3))
	refilled, err := s.l.Refill(asked.State, s.known("ada"), s.now)
	require.NoError(t, err)
	require.Equal(t, []string{asked.Outputs[0].(*schemas.Outbox).ID}, refilled.Cancel)

	// It is removed.
	s.apply(inUse(definition.Enrichment{ID: "z", Name: "Z", Destination: "crm", Map: ".", Entered: "b"}, 4))
	gone, err := s.l.Refill(refilled.State, s.known("ada"), s.now)
	require.NoError(t, err)
	require.Nil(t, gone.State.find("company"))
	require.Empty(t, gone.State.asks)
	require.Empty(t, gone.State.values)
}

func TestTakenOverAnewWhatWasAskedIsKnownStill(t *testing.T) {
	s := newStage(t, company)
	s.is("ada", map[string]any{"domain": "acme.test"})
	before := s.r.State(id("ada"))
	state, timers := s.l.TakeOver(before, s.known("ada"), s.now)
	require.True(t, state.open(state.find("company")))
	require.Len(t, timers, 1, "its receipt is waited for")
	body := acme
	result, err := s.l.Step(state, &derive.Record[State]{ContactID: id("ada"), Receipt: &schemas.Receipt{OutboxID: s.all[0].ID, Result: schemas.ReceiptAccepted, Body: &body}}, s.now)
	require.NoError(t, err)
	require.Len(t, result.Outputs, 1)
}

func TestAMergeAsksNobodyTwice(t *testing.T) {
	merge := func(s *stage, survivor, loser string) {
		for key, v := range s.props[loser] {
			if s.props[survivor] == nil {
				s.props[survivor] = map[string]any{}
			}
			if _, there := s.props[survivor][key]; !there {
				s.props[survivor][key] = v
			}
		}
		text, err := json.Marshal(s.props[survivor])
		require.NoError(t, err)
		s.step(&derive.Record[State]{ContactID: id(survivor), Fact: &schemas.Fact{
			ID: uuid.NewString(), Type: schemas.FactContactMerged, ContactID: id(survivor), OccurredAt: s.now, UserID: &survivor,
			Merged: &schemas.ContactMerged{LoserID: id(loser), Properties: string(text)},
		}})
	}
	t.Run("what was answered", func(t *testing.T) {
		s := newStage(t, company)
		s.is("anon", map[string]any{"domain": "acme.test"})
		s.answers("anon", schemas.ReceiptAccepted, acme)
		s.is("ada", nil)
		merge(s, "ada", "anon")
		require.Len(t, s.all, 1)
	})
	t.Run("what is under way is waited for", func(t *testing.T) {
		s := newStage(t, company)
		s.is("ada", nil)
		userID := "ada"
		s.props["anon"] = map[string]any{"domain": "acme.test"}
		s.step(&derive.Record[State]{ContactID: id("anon"), Fact: &schemas.Fact{
			ID: uuid.NewString(), Type: schemas.FactContactCreated, ContactID: id("anon"), OccurredAt: s.now, UserID: &userID, Contact: s.contact("anon"),
		}})
		merge(s, "ada", "anon")
		require.Len(t, s.all, 1)
		s.answers("ada", schemas.ReceiptAccepted, acme)
		require.Len(t, s.sent, 1)
		require.Equal(t, id("ada"), *s.sent[0].ContactID)
	})
	t.Run("what is under way of both", func(t *testing.T) {
		s := newStage(t, company)
		s.is("ada", map[string]any{"domain": "acme.test"})
		s.is("anon", map[string]any{"domain": "acme.test"})
		merge(s, "ada", "anon")
		require.Equal(t, "cancelled", s.asked[1].Kind)
		s.answers("ada", schemas.ReceiptAccepted, acme)
		s.answers("ada", schemas.ReceiptAccepted, acme)
		require.Len(t, s.sent, 1)
		require.Len(t, s.all, 2)
	})
}

// Whatever happens, each call has one use at most, one is under way at a time, and what is
// used was asked about what is true.
func TestACallIsUsedOnceAndIsAboutWhatIsTrue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := company
		if rapid.Bool().Draw(rt, "refresh") {
			e.Refresh = &definition.Refresh{Property: "company", After: 3 * time.Hour}
		}
		s := newStage(t, e)
		uses := map[string]int{}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			before := len(s.sent)
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				s.is("ada", map[string]any{"domain": rapid.SampledFrom([]any{nil, "a", "b"}).Draw(rt, "domain")})
			case 1:
				s.after(time.Duration(rapid.IntRange(1, 30*3600).Draw(rt, "seconds")) * time.Second)
			case 2:
				s.is("ada", map[string]any{"company": rapid.SampledFrom([]any{nil, "x"}).Draw(rt, "company")})
			default:
				if len(s.all) == 0 {
					continue
				}
				o := s.all[rapid.IntRange(max(0, len(s.all)-2), len(s.all)-1).Draw(rt, "which")]
				body := rapid.SampledFrom([]string{acme, "<", ""}).Draw(rt, "body")
				s.tell("ada", o, schemas.Receipt{Result: rapid.SampledFrom([]string{
					schemas.ReceiptAccepted, schemas.ReceiptAccepted, schemas.ReceiptRefused, schemas.ReceiptGivenUp, schemas.ReceiptExpired, schemas.ReceiptCancelled,
				}).Draw(rt, "result"), Body: &body, Final: rapid.Bool().Draw(rt, "final")})
			}
			for _, in := range s.sent[before:] {
				uses[*in.IdempotencyKey]++
				require.Equal(rt, 1, uses[*in.IdempotencyKey])
				var sent request
				for _, o := range s.all {
					if o.ID == *in.IdempotencyKey {
						require.NoError(rt, json.Unmarshal([]byte(o.Body), &sent))
					}
				}
				domain, _ := json.Marshal(s.props["ada"]["domain"])
				require.JSONEq(rt, string(domain), string(sent.Properties["domain"]))
			}
		}
		// What holds is asked sooner or later, and then answered.
		s.is("ada", map[string]any{"domain": nil})
		s.is("ada", map[string]any{"domain": "z"})
		state := s.r.State(id("ada"))
		if state.open(state.find("company")) && state.find("company").drop {
			s.tell("ada", s.all[len(s.all)-1], schemas.Receipt{Result: schemas.ReceiptCancelled})
		}
		body, before := acme, len(s.sent)
		s.tell("ada", s.all[len(s.all)-1], schemas.Receipt{Result: schemas.ReceiptAccepted, Body: &body})
		require.Len(rt, s.sent, before+1)
	})
}

func TestPausesDoubleUpToADay(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: time.Hour, 2: 2 * time.Hour, 5: 16 * time.Hour, 6: 24 * time.Hour, 20: 24 * time.Hour} {
		require.Equal(t, want, pause(time.Hour, failures))
	}
	require.Equal(t, 48*time.Hour, pause(48*time.Hour, 3))
}

func FuzzDecode(f *testing.F) {
	ask := id("ask")
	text, err := codec{}.Encode(State{
		known: true, version: 3, clock: 1_700_000_000_000_000, due: 5, person: person{userID: "ada"}, asks: derive.Asks{ask: derive.AskGivenUp},
		values:  []value{{name: "domain", raw: `"acme.test"`, hash: 7, since: 1_699_000_000_000_000}, {name: "gone"}},
		entries: []entry{{enrichment: "company", epoch: 2, holds: true, drop: true, due: 9, why: whyRetry, ask: ask, sent: 1, asked: 2, settled: 3, failures: 1, outcome: outcomeMapping, detail: "why"}},
	})
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := codec{}.Decode(data)
		if err != nil {
			require.ErrorIs(t, err, ErrState)
			return
		}
		text, err := codec{}.Encode(state)
		require.NoError(t, err)
		again, err := codec{}.Decode(text)
		require.NoError(t, err)
		twice, err := codec{}.Encode(again)
		require.NoError(t, err)
		require.Equal(t, text, twice)
	})
}
