package delivery_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// call is what processor "asker" asks a destination for.
func call(destination, contact string, notAfter time.Time) *schemas.Outbox {
	return &schemas.Outbox{
		ID: uuid.NewString(), ContactID: contact, OccurredAt: time.Now(), Destination: destination, Kind: schemas.OutboxCall,
		Body: `{"ask":1}`, Headers: map[string]string{"X-Ask": "1"}, NotAfter: notAfter, Asker: "asker", Epoch: 7, Hops: 2,
	}
}

func calls(destination string, contacts, each int) (msgs []schemas.Message) {
	for range each {
		for c := range contacts {
			msgs = append(msgs, call(destination, fmt.Sprint("contact-", c), time.Now().Add(time.Hour)))
		}
	}
	return msgs
}

// receipts are those on topic signals, by the outbox record's id.
func (w *world) receipts() map[string][]*schemas.Receipt {
	w.t.Helper()
	got := map[string][]*schemas.Receipt{}
	for _, r := range w.ReadAll(schemas.TopicSignals, true) {
		s, err := w.Codec.DecodeSignal(r.Value)
		require.NoError(w.t, err)
		require.Equal(w.t, schemas.SignalReceipt, s.Type)
		require.Equal(w.t, "asker", s.For)
		require.EqualValues(w.t, 7, s.Epoch)
		require.Equal(w.t, 2, s.Receipt.Hops)
		require.Equal(w.t, string(r.Key), s.ContactID)
		ordinal := 0
		if s.Receipt.Final {
			ordinal = 1
		}
		require.Equal(w.t, schemas.Derive(s.Receipt.OutboxID, schemas.SignalReceipt, ordinal), s.ID)
		got[s.Receipt.OutboxID] = append(got[s.Receipt.OutboxID], s.Receipt)
	}
	return got
}

// waitReceipts waits until each of the records has a receipt, and returns the first of each.
func (w *world) waitReceipts(asked ...schemas.Message) map[string]*schemas.Receipt {
	w.t.Helper()
	first := map[string]*schemas.Receipt{}
	w.Eventually(func(context.Context) (bool, error) {
		got := w.receipts()
		for _, m := range asked {
			if len(got[m.Meta().ID]) == 0 {
				return false, nil
			}
		}
		for id, rs := range got {
			first[id] = rs[0]
		}
		return true, nil
	}, "a receipt of each of %d records", len(asked))
	return first
}

// requireResult says that each of the records has one receipt, with this result.
func (w *world) requireResult(result string, asked ...schemas.Message) {
	w.t.Helper()
	w.waitReceipts(asked...)
	got := w.receipts()
	for _, m := range asked {
		require.Len(w.t, got[m.Meta().ID], 1)
		require.Equal(w.t, result, got[m.Meta().ID][0].Result)
	}
}

func TestWhatAProcessorAsksForIsDeliveredInOrderAndEachHasItsReceipt(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "outbox", "contact.*")
	other := w.destination("other", "outbox")
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if string(dv.Records[0].Key) == "contact-3" && dv.Records[0].Topic == schemas.TopicOutbox {
			return delivery.Outcome{Verdict: delivery.Reject, Status: 422, Answer: []byte(`{"error":"no"}`)}
		}
		return delivery.Outcome{Status: 201, Answer: []byte(`{"id":"rcv_1"}`)}
	}
	w.start("one")
	asked := calls(d.ID, 10, 5)
	w.Append(asked...)
	w.Append(facts(10, 1)...)
	w.waitDelivered("crm", 9*5+10)
	w.waitFlushed(d)
	got := w.waitReceipts(asked...)
	for _, m := range asked {
		r := got[m.Meta().ID]
		require.Equal(t, 1, r.Attempts)
		require.Equal(t, d.ID, r.Destination)
		if m.Key() == "contact-3" {
			require.Equal(t, schemas.ReceiptRefused, r.Result)
			require.Equal(t, 422, *r.Status)
			require.Equal(t, `{"error":"no"}`, *r.Body)
			require.Equal(t, "HTTP 422", r.Reason)
			continue
		}
		require.Equal(t, schemas.ReceiptAccepted, r.Result)
		require.Equal(t, 201, *r.Status)
		require.Equal(t, "rcv_1", *r.ReceiverID)
	}
	require.Len(t, w.receipts(), len(asked))
	require.Zero(t, w.r.count("other"))
	require.Empty(t, w.ReadAll(schemas.TopicDeadLetters, true), "the receipt says all")
	w.waitFlushed(other)
}

func TestARecordForNobodyIsRefused(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "*")
	w.start("one")
	taken := w.destination("later", "outbox")
	stray, unsubscribed, fine := call(uuid.NewString(), "a", time.Now().Add(time.Hour)), call(d.ID, "b", time.Now().Add(time.Hour)), call(taken.ID, "c", time.Now().Add(time.Hour))
	w.Append(stray, unsubscribed, fine)
	w.requireResult(schemas.ReceiptRefused, stray, unsubscribed)
	w.requireResult(schemas.ReceiptAccepted, fine)
	require.Contains(t, w.receipts()[stray.ID][0].Reason, "no destination")

	w.Append(&schemas.Outbox{ID: "x", ContactID: "d", Kind: "call", Destination: "nonsense", OccurredAt: time.Now(), NotAfter: time.Now()})
	letter, err := w.Codec.DecodeDeadLetter(w.WaitRecords(schemas.TopicDeadLetters, 1)[0].Value)
	require.NoError(t, err)
	require.Equal(t, "undecodable", letter.Reason)
}

func TestWhatADeletedDestinationLeavesOpenIsRefusedWhereverItWaits(t *testing.T) {
	for _, how := range []string{"deleted", "unsubscribed"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, streamtest.Partitions(2))
			d := w.destination("crm", "outbox", "*")
			hangs, arrived := make(chan struct{}), make(chan struct{}, 1)
			w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
				switch string(dv.Records[0].Key) {
				case "contact-0":
					return delivery.Outcome{Verdict: delivery.Retry, Status: 503}
				case "hangs":
					arrived <- struct{}{}
					<-hangs
				}
				return delivery.Outcome{Status: 200}
			}
			w.start("one", func(c *delivery.Config) { c.Deadline = 2 * time.Second })
			failing, done := calls(d.ID, 1, 5), calls(d.ID, 20, 1)[1:]
			w.Append(failing...)
			w.Append(done...)
			for w.parkedRecords() == 0 { // others are accepted between its failures
				more := calls(d.ID, 20, 1)[1:]
				w.Append(more...)
				done = append(done, more...)
				w.waitReceipts(done...)
			}
			inFlight := call(d.ID, "hangs", time.Now().Add(time.Hour))
			w.Append(inFlight)
			<-arrived
			if how == "deleted" {
				_, err := w.store.Delete(w.Context(), d.ID)
				require.NoError(t, err)
			} else {
				now, err := w.store.Get(w.Context(), d.ID)
				require.NoError(t, err)
				now.EventTypes = []string{"*"}
				require.NoError(t, w.db.InTx(w.Context(), func(tx *storage.Tx) error {
					if err := w.store.Update(w.Context(), tx, now); err != nil {
						return err
					}
					return tx.DeleteCursors(w.Context(), d.ID, string(schemas.TopicOutbox))
				}))
			}
			close(hangs)
			w.requireResult(schemas.ReceiptRefused, failing...)
			w.requireResult(schemas.ReceiptAccepted, append(done, inFlight)...)
			w.Eventually(func(ctx context.Context) (bool, error) {
				var left int
				err := storagetest.SQL(w.db).QueryRow(ctx, `SELECT (SELECT count(*) FROM skips) + (SELECT count(*) FROM parked_records)`).Scan(&left)
				return left == 0, err
			}, "nothing is left")
			late := call(d.ID, "late", time.Now().Add(time.Hour))
			w.Append(late)
			w.requireResult(schemas.ReceiptRefused, late)
			require.Empty(t, w.ReadAll(schemas.TopicDeadLetters, true))
		})
	}
}

func (w *world) parkedRecords() (n int) {
	w.t.Helper()
	require.NoError(w.t, storagetest.SQL(w.db).QueryRow(w.Context(), `SELECT count(*) FROM parked_records`).Scan(&n))
	return n
}

func TestWhatIsTooLateEndsWhileItsDestinationStandsStill(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(2))
	d := w.destination("crm", "outbox", "*")
	_, err := w.store.SetStatus(w.Context(), d.ID, storage.DestinationPaused, "")
	require.NoError(t, err)
	w.start("one")
	soon := time.Now().Add(2 * time.Second)
	late, inTime, gone := call(d.ID, "a", soon), call(d.ID, "a", time.Now().Add(time.Hour)), call(d.ID, "b", soon)
	cancelled := call(d.ID, "c", time.Now().Add(time.Hour))
	w.Append(late, inTime, gone, cancelled)
	w.requireResult(schemas.ReceiptExpired, late, gone)
	require.NoError(t, w.db.InTx(w.Context(), func(tx *storage.Tx) error { return tx.CancelOutbox(w.Context(), []string{cancelled.ID}) }))
	w.requireResult(schemas.ReceiptCancelled, cancelled)
	require.Empty(t, w.receipts()[inTime.ID])

	_, err = w.store.SetStatus(w.Context(), d.ID, storage.DestinationActive, "")
	require.NoError(t, err)
	w.requireResult(schemas.ReceiptAccepted, inTime)
	w.waitFlushed(d)
	require.Equal(t, 1, w.r.count("crm"))
	require.Len(t, w.receipts(), 4)
	var left int
	require.NoError(t, storagetest.SQL(w.db).QueryRow(w.Context(), `SELECT count(*) FROM outbox_cancels`).Scan(&left))
	require.Zero(t, left)
}

func TestWhatIsTooLateEndsWhileTheCircuitIsOpenOrItsKeyIsParked(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(1))
	d := w.destination("crm", "outbox")
	var away atomic.Bool
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if away.Load() || string(dv.Records[0].Key) == "contact-0" {
			return delivery.Outcome{Verdict: delivery.Retry, Status: 503}
		}
		return delivery.Outcome{Status: 200}
	}
	w.start("one", func(c *delivery.Config) { c.Window = 40 })
	soon := time.Now().Add(8 * time.Second)
	var parked, asked []schemas.Message
	for range 5 {
		parked = append(parked, call(d.ID, "contact-0", soon))
	}
	w.Append(parked...)
	for w.parkedRecords() == 0 {
		more := calls(d.ID, 20, 1)[1:]
		w.Append(more...)
		w.waitReceipts(more...)
	}
	away.Store(true)
	for i := range 300 {
		notAfter := soon
		if i%10 == 0 {
			notAfter = time.Now().Add(time.Hour)
		}
		asked = append(asked, call(d.ID, fmt.Sprint("contact-", 1+i%20), notAfter))
	}
	w.Append(asked...)
	var late, inTime []schemas.Message
	for i, m := range asked {
		if i%10 == 0 {
			inTime = append(inTime, m)
		} else {
			late = append(late, m)
		}
	}
	w.requireResult(schemas.ReceiptExpired, append(late, parked...)...)
	away.Store(false)
	w.requireResult(schemas.ReceiptAccepted, inTime...)
	w.waitFlushed(d)
	require.Zero(t, w.parkedRecords())
}
