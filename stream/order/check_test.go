package order_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/order"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestMain(m *testing.M) {
	streamtest.MaybeServe()
	os.Exit(m.Run())
}

// message is a product event or a fact of a contact with a number.
func message(t *testing.T, topic schemas.Topic, contact int, seq int64) schemas.Message {
	t.Helper()
	id, at := schemas.Derive(contactID(contact), string(topic), int(seq)), time.Now().UTC()
	if topic == schemas.TopicEvents {
		return &schemas.Event{ID: id, ContactID: contactID(contact), Name: "seen", Properties: "{}", OccurredAt: at, ReceivedAt: at, Source: "test", Seq: seq}
	}
	return &schemas.Fact{ID: id, Type: schemas.FactContactUpdated, ContactID: contactID(contact), OccurredAt: at, CauseID: id, Seq: seq}
}

func record(t *testing.T, e *streamtest.Env, topic schemas.Topic, contact int, seq int64) *kgo.Record {
	t.Helper()
	m := message(t, topic, contact, seq)
	value, err := e.Codec.Encode(m)
	require.NoError(t, err)
	r := stream.NewKafkaRecord(e.Config.Topic(topic), m.Key(), value, m.Meta(), stream.Trace{})
	r.Partition = e.PartitionOf(m.Key())
	return r
}

// produce writes the numbers of a contact, those that are even as events.
func produce(t *testing.T, e *streamtest.Env, contact int, seqs ...int64) {
	t.Helper()
	var records []*kgo.Record
	for _, seq := range seqs {
		records = append(records, record(t, e, both[seq%2], contact, seq))
	}
	e.Produce(records...)
}

func check(t *testing.T, e *streamtest.Env, opts order.Options) order.Report {
	t.Helper()
	report, err := order.Check(e.Context(), e.Config, opts, e.Logger)
	require.NoError(t, err)
	return report
}

func TestACheckReadsBothTopicsToTheirEnds(t *testing.T) {
	e := streamtest.New(t)
	for contact := range 20 {
		produce(t, e, contact, 1, 2, 3, 4, 5)
	}
	report := check(t, e, order.Options{})
	require.NoError(t, report.Err())
	require.Equal(t, []int64{100, 20, 100}, []int64{report.Records, report.Contacts, report.Numbers})
	require.Equal(t, []int{3, 0, 1}, []int{report.Partitions, report.Cut, report.Passes})
	require.Nil(t, report.From)

	produce(t, e, 7, 8)
	produce(t, e, 8, 4)
	report = check(t, e, order.Options{})
	require.Equal(t, []int64{2, 1, 0}, []int64{report.Missing, report.Repeated, report.Disorder})
	require.Equal(t, contactID(7), report.Findings[0].Contact)
	require.Equal(t, e.PartitionOf(contactID(7)), report.Findings[0].Before.Partition)
	require.Equal(t, []int64{6, 7}, []int64{report.Findings[0].Seq, report.Findings[0].To})

	report = check(t, e, order.Options{Contact: contactID(8)})
	require.Equal(t, []int64{0, 1, 6, 1}, []int64{report.Missing, report.Repeated, report.Records, report.Contacts})
	require.Equal(t, 1, report.Partitions)
}

func TestARecordWithoutHeadersIsJudgedByItsContent(t *testing.T) {
	e := streamtest.New(t)
	for _, seq := range []int64{1, 3} {
		r := record(t, e, schemas.TopicEvents, 1, seq)
		r.Headers = nil
		e.Produce(r)
	}
	e.Config.Contents = e.Codec
	require.EqualValues(t, 1, check(t, e, order.Options{}).Missing)
}

func TestMoreContactsThanFitAreJudgedInSeveralPassesWithTheSameReport(t *testing.T) {
	e := streamtest.New(t, streamtest.Partitions(2))
	for contact := range 200 {
		switch contact % 50 {
		case 0:
			produce(t, e, contact, 1, 2, 5, 4)
		case 1:
			produce(t, e, contact, 1, 2, 2)
		default:
			produce(t, e, contact, 1, 2, 3)
		}
	}
	whole := check(t, e, order.Options{})
	require.Equal(t, []int64{4, 4, 200}, []int64{whole.Missing, whole.Repeated, whole.Contacts})
	require.Equal(t, 1, whole.Passes)
	for _, most := range []int{1, 7, 50} {
		parts := check(t, e, order.Options{MaxContacts: most})
		require.Greater(t, parts.Passes, 1, "%d at once", most)
		parts.Passes = whole.Passes
		require.Equal(t, whole, parts, "%d at once", most)
	}
}

// A transaction's records become visible on one topic before the other; so may records that
// were written while the ends were noted.
func TestWhatIsNotVisibleYetAtTheEndIsNoHole(t *testing.T) {
	for what, end := range map[string]kgo.TransactionEndTry{"committed": kgo.TryCommit, "aborted": kgo.TryAbort} {
		t.Run(what, func(t *testing.T) {
			e := streamtest.New(t, streamtest.FakeOnly())
			cl, err := e.Config.NewClient("txn", nil, kgo.TransactionalID(e.Config.Group("t")))
			require.NoError(t, err)
			defer cl.Close()
			require.NoError(t, cl.BeginTransaction())
			require.NoError(t, cl.ProduceSync(e.Context(), record(t, e, schemas.TopicEvents, 1, 2)).FirstErr())
			e.Produce(record(t, e, schemas.TopicLifecycle, 1, 1), record(t, e, schemas.TopicLifecycle, 1, 3))

			read := make(chan struct{}, 1)
			e.Cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Observe: true, Count: -1, When: func(req kmsg.Request) bool {
				if asked(req, e.Config.Topic(schemas.TopicEvents)) {
					select {
					case read <- struct{}{}:
					default:
					}
				}
				return false
			}})
			ctx := e.Context()
			go func() {
				select {
				case <-read: // the ends are noted
					_ = cl.EndTransaction(context.WithoutCancel(ctx), end)
				case <-ctx.Done():
				}
			}()
			report := check(t, e, order.Options{})
			require.EqualValues(t, map[string]int{"committed": 0, "aborted": 1}[what], report.Missing)
			require.EqualValues(t, 2, report.Records)
		})
	}
}

// asked says whether a fetch reads a topic, by name or id; events are asked for second.
func asked(req kmsg.Request, name string) bool {
	f, ok := req.(*kmsg.FetchRequest)
	if !ok {
		return false
	}
	for _, topic := range f.Topics {
		for _, p := range topic.Partitions {
			if (topic.Topic == name || topic.Topic == "") && p.FetchOffset == 0 {
				return true
			}
		}
	}
	return false
}

func TestACheckBeginsOnBothTopicsAtTheLaterOfTheirStarts(t *testing.T) {
	e := streamtest.New(t, streamtest.Partitions(1))
	produce(t, e, 1, 1, 2, 3, 4, 5)
	produce(t, e, 2, 1, 2)
	cutAt := e.Ends(schemas.TopicEvents)[0]
	awaitClock(t, e)
	produce(t, e, 1, 6, 7, 8)
	awaitClock(t, e)
	produce(t, e, 1, 9, 11, 12)

	trim := kadm.Offsets{}
	trim.AddOffset(e.Config.Topic(schemas.TopicEvents), 0, cutAt, -1)
	_, err := e.Admin().DeleteRecords(e.Context(), trim)
	require.NoError(t, err)
	report := check(t, e, order.Options{}.WithSpread(time.Millisecond))
	require.EqualValues(t, 1, report.Missing, "10: %v", report.Findings)
	require.Zero(t, report.Unproven)
	require.EqualValues(t, 6, report.Numbers, "from 6 on")
	require.Equal(t, 1, report.Cut)
	require.Equal(t, e.ReadAll(schemas.TopicEvents, true)[0].AppendTime, *report.From)

	report = check(t, e, order.Options{}.WithSpread(time.Hour))
	require.NoError(t, report.Err())
	require.EqualValues(t, 1, report.Unproven, "what is not known for certain is said")

	report = check(t, e, order.Options{From: time.Now().Add(time.Hour)})
	require.NoError(t, report.Err())
	require.Zero(t, report.Records)
	long := check(t, e, order.Options{From: time.Now().Add(-time.Hour)}.WithSpread(time.Millisecond))
	require.EqualValues(t, 6, long.Numbers, "a time before the later start changes nothing")
}

func TestFromATimeBeforeBothLogsAllIsProven(t *testing.T) {
	e := streamtest.New(t, streamtest.Partitions(1))
	produce(t, e, 1, 2, 3)
	report := check(t, e, order.Options{From: time.Now().Add(-time.Hour)})
	require.EqualValues(t, 1, report.Missing)
	require.Zero(t, report.Cut)
}

func TestTopicsOfDifferentPartitionCountsAreRefused(t *testing.T) {
	e := streamtest.New(t)
	_, err := e.Admin().CreatePartitions(e.Context(), 1, e.Config.Topic(schemas.TopicEvents))
	require.NoError(t, err)
	_, err = order.Check(e.Context(), e.Config, order.Options{}, e.Logger)
	require.ErrorContains(t, err, "4 partitions")
	require.True(t, strings.HasPrefix(err.Error(), "check order: "))
}

// awaitClock lets the broker's clock move on.
func awaitClock(t *testing.T, e *streamtest.Env) {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < 5*time.Millisecond; {
		e.Ends(schemas.TopicEvents)
	}
}
