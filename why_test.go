package hogstream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// Why somebody is in a bucket, or is not, from a program of your own.
func ExampleOpenExplainer() {
	dir, err := os.MkdirTemp("", "hogstream-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	cfg, err := hogstream.ConfigFromEnv()
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg.DataDir, cfg.HTTP.Addr, cfg.Log.Level = dir, "127.0.0.1:0", "error"
	regulars := definition.Bucket{ID: "regulars", Name: "Regulars", Enabled: true, Criteria: predicate.All(
		predicate.Event("order.completed").Within(30*24*time.Hour).AtLeast(2), predicate.Prop("plan").Eq("pro"))}

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	err = hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop() // ends RunDev
		post(r, `{"name":"order.completed","userId":"ada","contactProperties":{"plan":"pro"}}`)
		there := cfg
		r.FillIn(&there)
		explainer, err := hogstream.OpenExplainer(ctx, there)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer explainer.Close()
		for {
			answer, err := explainer.Why(ctx, "regulars", "ada")
			if err == nil && answer.Criteria != nil && *answer.Criteria.Conditions[0].Saw.Count == 1 {
				fmt.Println(answer.Member, answer.Reasons[0].Text)
				for _, line := range answer.Criteria.Lines() {
					fmt.Println(line.Tree + line.Mark() + " " + line.Text)
				}
				return
			}
			select { // it is on its way
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}, hogstream.WithBuckets(regulars))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// false it does not satisfy the criteria
	// ✗ all of
	// ├─ ✗ order.completed at least 2 within 30d
	// └─ ✓ plan is "pro"
}

func post(r *hogstream.Running, event string) {
	req, err := http.NewRequest(http.MethodPost, r.URL+"/v1/events", strings.NewReader(event))
	if err != nil {
		fmt.Println(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+r.APIKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = resp.Body.Close()
}

// asking is an instance with buckets, and somebody who asks about them.
type asking struct {
	*erasing
	explainer *hogstream.Explainer
	cfg       hogstream.Config
}

func inAsking(t *testing.T, buckets []definition.Bucket, fn func(*asking)) {
	t.Helper()
	inDev(t, devConfig(t), func(r *hogstream.Running) {
		a := &asking{erasing: &erasing{t: t, run: r}}
		var err error
		a.cfg, err = hogstream.ConfigFromEnv()
		require.NoError(t, err)
		r.FillIn(&a.cfg)
		a.explainer, err = hogstream.OpenExplainer(t.Context(), a.cfg)
		require.NoError(t, err)
		defer a.explainer.Close()
		a.eventually(func() bool { // who joins while it is filled is told nothing
			list := string(a.send("GET", "/v1/admin/buckets", ""))
			return strings.Count(list, `"is":"live"`) == len(buckets)
		}, func() string { return "the buckets are filled" })
		fn(a)
	}, hogstream.WithBuckets(buckets...))
}

// why is the answer once it is as wanted.
func (a *asking) why(bucket, user string, wanted func(*explain.Answer) bool) *explain.Answer {
	a.t.Helper()
	var answer *explain.Answer
	a.eventually(func() bool {
		var err error
		answer, err = a.explainer.Why(a.t.Context(), bucket, user)
		return err == nil && wanted(answer)
	}, func() string { return fmt.Sprintf("%+v", answer) })
	return answer
}

// requireAt requires that the record of an id stands at a place.
func (a *asking) requireAt(place *predicate.Place, id string) *stream.Record {
	a.t.Helper()
	require.NotNil(a.t, place)
	admin, err := stream.OpenAdmin(a.cfg.StreamConfig(), nil)
	require.NoError(a.t, err)
	defer admin.Close()
	r, err := reader.ReadRecord(a.t.Context(), admin, schemas.Topic(place.Topic), place.Partition, place.Offset)
	require.NoError(a.t, err)
	require.NotNil(a.t, r, "%+v", place)
	require.Equal(a.t, id, r.ID)
	require.WithinDuration(a.t, r.AppendTime, place.AppendedAt, 0)
	return r
}

func TestAnAnswerNamesTheRecordsThatTurnedItsParts(t *testing.T) {
	buyers := definition.Bucket{ID: "buyers", Name: "Buyers", Enabled: true, Criteria: predicate.All(
		predicate.Event("bought").Within(time.Hour).AtLeast(2), predicate.Prop("plan").Eq("pro"), predicate.InBucket("visitors"))}
	visitors := definition.Bucket{ID: "visitors", Name: "Visitors", Enabled: true, Criteria: predicate.Event("visited").Exists()}
	inAsking(t, []definition.Bucket{buyers, visitors}, func(a *asking) {
		for range 50 { // others are on the log, too
			a.send("POST", "/v1/events", `{"name":"bought","userId":"other","contactProperties":{"plan":"free"}}`)
		}
		a.send("POST", "/v1/events", `{"name":"visited","userId":"ada","contactProperties":{"plan":"free"}}`)
		a.send("POST", "/v1/events", `{"name":"bought","userId":"ada","contactProperties":{"plan":"pro"}}`)
		a.send("POST", "/v1/events", `{"name":"bought","userId":"ada","contactProperties":{"city":"London"}}`)
		a.send("POST", "/v1/events", `{"name":"bought","userId":"ada"}`)
		answer := a.why("buyers", "ada", func(w *explain.Answer) bool { return w.Member && *w.Criteria.Conditions[0].Saw.Count == 2 })
		require.Equal(t, "criteria", answer.Reasons[0].Code)
		require.False(t, answer.Next.IsZero())
		require.EqualValues(t, 1, answer.Membership.Epoch)

		var events struct {
			Events []struct{ ID, Event string }
		}
		a.eventually(func() bool {
			require.NoError(t, json.Unmarshal(a.send("GET", "/v1/admin/contacts/ada/events", ""), &events))
			return len(events.Events) == 4
		}, func() string { return fmt.Sprint(events) })
		answer = a.why("buyers", "ada", func(w *explain.Answer) bool { // a fact is on the log somewhat after the membership
			visitor := w.Criteria.Conditions[2].Turned
			return w.Criteria.Conditions[0].Saw.Events[0].ID.String() == events.Events[0].ID && visitor != nil && visitor.Place != nil
		})
		bought, plan, visitor := answer.Criteria.Conditions[0], answer.Criteria.Conditions[1], answer.Criteria.Conditions[2]
		require.Equal(t, events.Events[1].ID, bought.Turned.Record.String(), "the second")
		a.requireAt(bought.Turned.Place, events.Events[1].ID)
		a.requireAt(bought.Saw.Events[1].Place, bought.Saw.Events[1].ID.String())

		require.Equal(t, predicate.ByRecord, plan.Turned.By)
		require.False(t, plan.Turned.OrBefore)
		fact := a.fact(a.requireAt(plan.Turned.Place, plan.Turned.Record.String()))
		require.Equal(t, schemas.FactContactUpdated, fact.Type)
		require.Equal(t, []string{"plan"}, fact.Contact.Changed)

		fact = a.fact(a.requireAt(visitor.Turned.Place, visitor.Turned.Record.String()))
		require.Equal(t, schemas.FactBucketEntered, fact.Type)
		require.Equal(t, "visitors", fact.Bucket.BucketID)

		joined := answer.Transitions[0]
		require.Equal(t, []string{"1", "entered"}, []string{joined.Name, joined.Is})
		require.True(t, *joined.Told)
		require.Equal(t, events.Events[1].ID, joined.Cause.ID)
		a.requireAt(joined.Cause.Place, joined.Cause.ID)
		for _, name := range []string{"1", joined.Fact} {
			then, err := a.explainer.WhyAt(t.Context(), "buyers", "ada", name)
			require.NoError(t, err)
			require.Equal(t, joined.At, then.At)
			require.True(t, then.Member)
			require.Equal(t, 2, *then.Criteria.Conditions[0].Saw.Count)
			require.Equal(t, events.Events[1].ID, then.Criteria.Conditions[0].Saw.Events[0].ID.String(), "the newest then")
			require.JSONEq(t, `"pro"`, string(then.Criteria.Conditions[1].Saw.Value))
		}
		a.requireTracedBothWays(joined.Fact)
		ahead, err := a.explainer.Upcoming(t.Context(), "", 2*time.Hour)
		require.NoError(t, err)
		require.True(t, ahead.Whole)
		require.Len(t, ahead.Buckets, 1, "of all that ada and the other are in, time turns one")
		require.Equal(t, []any{"buyers", 1, 0}, []any{ahead.Buckets[0].BucketID, ahead.Buckets[0].Leaves, ahead.Buckets[0].Joins})
		require.WithinDuration(t, answer.Next, ahead.Buckets[0].First, 0)
		ahead, err = a.explainer.Upcoming(t.Context(), "buyers", time.Minute)
		require.NoError(t, err)
		require.Empty(t, ahead.Buckets)

		_, err = a.explainer.WhyAt(t.Context(), "buyers", "ada", "1/left")
		require.ErrorIs(t, err, hogstream.ErrNoTransition)
		_, err = a.explainer.Why(t.Context(), "buyers", "nobody")
		require.ErrorIs(t, err, hogstream.ErrNoContact)
		_, err = a.explainer.Why(t.Context(), "nothing", "ada")
		require.ErrorIs(t, err, hogstream.ErrNoBucket)
	})
}

// requireTracedBothWays goes from a fact on a bucket back to what was sent, and from each of
// its causes to the fact.
func (a *asking) requireTracedBothWays(fact string) {
	a.t.Helper()
	trace, err := a.explainer.Trace(a.t.Context(), fact)
	require.NoError(a.t, err)
	require.Equal(a.t, []any{schemas.FactBucketEntered, "buyers"}, []any{trace.Record.Type, trace.Record.Bucket})
	require.Empty(a.t, trace.Effects)
	var topics []string
	for _, cause := range trace.Causes {
		topics = append(topics, cause.Place.Topic)
		a.requireAt(&cause.Place, cause.ID)
		for _, name := range []string{cause.ID, fmt.Sprintf("%s-%d-%d", cause.Place.Topic, cause.Place.Partition, cause.Place.Offset)} {
			from, err := a.explainer.Trace(a.t.Context(), name)
			require.NoError(a.t, err)
			require.True(a.t, from.Whole)
			require.True(a.t, slices.ContainsFunc(from.Effects, func(e explain.Traced) bool { return e.ID == fact && e.Place == trace.Record.Place }), "%s: %+v", name, from)
		}
	}
	require.Equal(a.t, []string{"events", "resolved", "ingest"}, topics)
	_, err = a.explainer.Trace(a.t.Context(), uuid.NewString())
	require.ErrorIs(a.t, err, explain.ErrNoRecord)
	_, err = a.explainer.Trace(a.t.Context(), "lifecycle-0")
	require.ErrorIs(a.t, err, explain.ErrRecord)
}

// Time and somebody's hand have no record of anybody's behind them: a signal is where they
// begin.
func TestWhatTimeAndWhatSomebodyDidIsTracedToItsSignalAndBack(t *testing.T) {
	brief := definition.Bucket{ID: "brief", Name: "Brief", Enabled: true, Criteria: predicate.Event("seen").Within(time.Second).Exists()}
	guests := definition.Bucket{ID: "guests", Name: "Guests", Enabled: true, Kind: definition.KindManual}
	inAsking(t, []definition.Bucket{brief, guests}, func(a *asking) {
		a.send("POST", "/v1/events", `{"name":"seen","userId":"ada"}`)
		a.why("brief", "ada", func(w *explain.Answer) bool { return w.Membership != nil })
		a.send("POST", "/v1/admin/buckets/guests/members", `{"userId":"ada"}`)
		for bucket, typ := range map[string]string{"brief": schemas.FactBucketLeft, "guests": schemas.FactBucketEntered} {
			answer := a.why(bucket, "ada", func(w *explain.Answer) bool { return len(w.Transitions) > 0 && "bucket."+w.Transitions[0].Is == typ })
			turned := answer.Transitions[0]
			var trace *explain.Trace
			a.eventually(func() (found bool) { // a fact is on the log somewhat after the membership
				var err error
				trace, err = a.explainer.Trace(t.Context(), turned.Fact)
				return err == nil
			}, func() string { return turned.Fact })
			require.Equal(t, []any{typ, bucket}, []any{trace.Record.Type, trace.Record.Bucket})
			require.Len(t, trace.Causes, 1)
			signal := trace.Causes[0]
			require.Equal(t, []any{"signals", turned.Cause.ID, ""}, []any{signal.Place.Topic, signal.ID, signal.CauseID})
			a.requireAt(&signal.Place, signal.ID)
			from, err := a.explainer.Trace(t.Context(), signal.ID)
			require.NoError(t, err)
			require.True(t, slices.ContainsFunc(from.Effects, func(e explain.Traced) bool { return e.ID == turned.Fact }), "%+v", from)
		}
	})
}

// fact decodes a record.
func (a *asking) fact(r *stream.Record) *schemas.Fact {
	a.t.Helper()
	registry, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{a.cfg.Registry.URL}})
	require.NoError(a.t, err)
	fact, err := registry.Codec().DecodeFact(r.Value)
	require.NoError(a.t, err)
	return fact
}
