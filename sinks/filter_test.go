package sinks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

func TestADestinationIsSentWhatItsConditionTakesWithoutAWorker(t *testing.T) {
	r, dest := receiving(t, sinktest.Options{})
	d := newDeliverer(t, Config{AllowLoopback: true})
	dest.Selector = `[{"event":"order.completed","where":{"z":{"gte":1}}},{"event":"email.*","where":{"templateKey":"welcome"}},{"event":"contact.updated","where":{"e":{"gt":99}}}]`
	for typ, want := range map[string]delivery.Verdict{
		schemas.FactEmailSent: delivery.Delivered, schemas.FactContactUpdated: delivery.Delivered,
		schemas.FactContactCreated: delivery.Skipped, schemas.FactBucketEntered: delivery.Skipped,
	} {
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(sinktest.Fact(typ), 1)}})
		require.Equal(t, want, out.Verdict, "%s: %+v", typ, out)
	}
	event := sinktest.Event()
	deliver := func() delivery.Outcome {
		return d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(event, 2)}})
	}
	require.Equal(t, delivery.Delivered, deliver().Verdict)
	event.Properties = `{"z":0}`
	require.Equal(t, delivery.Skipped, deliver().Verdict)
	require.Equal(t, 3, r.Stats().Requests)
	require.Nil(t, d.open(dest).program)
}

func TestACalendarDateInAFilterIsOfTheDeploymentsZone(t *testing.T) {
	zone, err := time.LoadLocation("Pacific/Auckland")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		zone *time.Location
		want delivery.Verdict
	}{"UTC": {nil, delivery.Skipped}, "Auckland": {zone, delivery.Delivered}} {
		_, dest := receiving(t, sinktest.Options{})
		dest.Selector = `{"event":"order.completed","where":{"at":{"on_date":"2026-03-10"}}}`
		event := sinktest.Event()
		event.Properties = `{"at":"2026-03-09T12:00:00Z"}` // the 10th has begun in Auckland
		d := newDeliverer(t, Config{AllowLoopback: true, Zone: c.zone})
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(event, 1)}})
		require.Equal(t, c.want, out.Verdict, name)
	}
}

func TestABatchIsSentWithoutWhatItsConditionDrops(t *testing.T) {
	v := sinktest.NewPosthog("k")
	dest := vendor(t, "posthog", v, map[string]any{"apiKey": "k"})
	dest.Selector, dest.Transform = `{"event":"email.*"}`, `.data |= {to}`
	d := newDeliverer(t, Config{AllowLoopback: true})
	records := sinktest.Records()
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records})
	require.Equal(t, delivery.Partial, out.Verdict, "%+v", out)
	for i, r := range records {
		want := delivery.Skipped
		if strings.HasPrefix(r.Type, "email.") {
			want = delivery.Delivered
		}
		require.Equal(t, delivery.Result{Verdict: want}, out.Results[i], r.Type)
	}
	require.Len(t, v.Items(), 6)
	require.Equal(t, "ann@example.com", v.Items()[0].Fields["to"], "jq transforms what the condition takes")
}

func TestMembershipsAreLookedUpOnceForAFlightAndOnlyWhenTheyDecide(t *testing.T) {
	var asked []string
	var broken error
	d := newDeliverer(t, Config{AllowLoopback: true, Memberships: func(_ context.Context, contacts, buckets []string) (map[string][]string, error) {
		asked = append(asked, strings.Join(contacts, " ")+" in "+strings.Join(buckets, " "))
		return map[string][]string{sinktest.ContactID: {"keen"}}, broken
	}})
	dest := vendor(t, "posthog", sinktest.NewPosthog("k"), map[string]any{"apiKey": "k"})
	dest.Selector = `[{"event":"email.*","bucket":"keen"},{"event":"contact.created","notBucket":"keen"}]`
	records := sinktest.Records()
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records})
	require.Equal(t, delivery.Partial, out.Verdict, "%+v", out)
	for i, r := range records {
		require.Equal(t, strings.HasPrefix(r.Type, "email."), out.Results[i].Verdict == delivery.Delivered, r.Type)
	}
	require.Equal(t, []string{sinktest.ContactID + " in keen"}, asked)

	event := []*stream.Record{sinktest.Record(sinktest.Event(), 1)}
	require.Equal(t, delivery.Skipped, d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: event}).Verdict)
	require.Len(t, asked, 1, "no membership makes a difference")

	broken = errors.New("postgres is away")
	out = d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records})
	require.Equal(t, delivery.Retry, out.Verdict)
	require.Equal(t, "filter: postgres is away", out.Err)
}

func TestAConditionThatCannotBeUsedRefusesTheDestination(t *testing.T) {
	d := newDeliverer(t, Config{AllowLoopback: true})
	for selector, want := range map[string]string{
		`{"event":"a","bucket":"keen"}`: "filter: asks for members of a bucket, which nobody can look up here",
		`{"evnt":"a"}`:                  `filter: 1:2: evnt: "evnt" is not known: did you mean "event"?`,
	} {
		_, dest := receiving(t, sinktest.Options{})
		dest.Selector = selector
		require.ErrorContains(t, d.CheckSettings(dest), want)
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(sinktest.Event(), 1)}})
		require.Equal(t, delivery.Refuse, out.Verdict)
	}
	_, dest := receiving(t, sinktest.Options{})
	dest.Selector, dest.Filter = `{"event":"a"}`, "true"
	require.ErrorContains(t, d.CheckSettings(dest), "filter: is both jq and a condition")
}

func TestATrialTellsWhatTheConditionLeavesOut(t *testing.T) {
	_, dest := receiving(t, sinktest.Options{})
	d := newDeliverer(t, Config{AllowLoopback: true, Memberships: func(context.Context, []string, []string) (map[string][]string, error) {
		return map[string][]string{sinktest.ContactID: {"keen"}}, nil
	}})
	dest.Selector = `{"event":"order.completed","bucket":"keen"}`
	for m, want := range map[schemas.Message]delivery.Verdict{sinktest.Event(): delivery.Delivered, sinktest.Fact(schemas.FactEmailSent): delivery.Skipped} {
		p, err := PayloadOf(m)
		require.NoError(t, err)
		trial := d.Try(t.Context(), dest, p, true, true)
		require.Equal(t, want, trial.Send(t.Context()).Verdict)
		trial.Close()
	}
}

func TestAttemptsThatWaitForMembershipsShareTheNextStatement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers, asked := make(chan error), [][]string{}
		l := newLookUps(func(ctx context.Context, contacts, buckets []string) (map[string][]string, error) {
			asked = append(asked, append(slices.Clone(contacts), buckets...))
			found := map[string][]string{}
			for _, contact := range contacts {
				found[contact] = []string{"of " + contact}
			}
			select {
			case err := <-answers:
				return found, err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		type result struct {
			of  []string
			err error
		}
		start := func(ctx context.Context, contact, bucket string) chan result {
			out := make(chan result, 1)
			go func() {
				found, err := l.of(ctx, []string{contact}, []string{bucket})
				out <- result{found[contact], err}
			}()
			synctest.Wait()
			return out
		}
		ended, end := context.WithCancel(t.Context())
		first := start(ended, "c1", "b1")
		second, third, again := start(t.Context(), "c3", "b1"), start(t.Context(), "c2", "b2"), start(t.Context(), "c3", "b1")
		gone := start(ended, "c4", "b1")
		end() // the statement that is under way is of others too, and goes on
		synctest.Wait()
		require.ErrorIs(t, (<-gone).err, context.Canceled)
		answers <- nil
		require.Equal(t, result{of: []string{"of c1"}}, <-first)
		broken := errors.New("postgres is away")
		answers <- broken
		for contact, out := range map[string]chan result{"c3": second, "c2": third} {
			require.Equal(t, result{[]string{"of " + contact}, broken}, <-out)
		}
		<-again
		require.Equal(t, [][]string{{"c1", "b1"}, {"c2", "c3", "c4", "b1", "b2"}}, asked)

		late := start(t.Context(), "c5", "b1")
		require.ErrorIs(t, (<-late).err, context.DeadlineExceeded, "nobody waits for ever")
	})
}

func TestMembershipsAreLookedUpAtMostEverySoOftenAndForOneWhoComesAloneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []int // contacts of each statement
		l := newLookUps(func(_ context.Context, contacts, _ []string) (map[string][]string, error) {
			asked = append(asked, len(contacts))
			return map[string][]string{}, nil
		})
		began := time.Now()
		of := func(contact string) {
			_, err := l.of(t.Context(), []string{contact}, []string{"b"})
			require.NoError(t, err)
		}
		of("alone")
		require.Zero(t, time.Since(began), "nobody waits who comes alone")
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				<-time.After(time.Duration(i) * lookUpEvery / 25)
				of(fmt.Sprint("c", i))
			})
		}
		all.Wait()
		require.LessOrEqual(t, len(asked), 1+5)
		require.LessOrEqual(t, time.Since(began), 5*lookUpEvery)
		total := 0
		for _, n := range asked {
			total += n
		}
		require.Equal(t, 101, total, "each once")
	})
}
