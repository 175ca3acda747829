package delivery_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
	"github.com/hogstream/hogstream/stream/streamtest/seeds"
)

// A child is this test binary delivering in a process of its own, which can be killed.
type child struct {
	Brokers  []string
	Prefix   string
	Postgres string
	Receiver string
}

const envChild = "HOGSTREAM_DELIVERY_CHILD"

// What a child has in flight, and finished without having flushed it, at most.
const (
	childInFlight  = 16
	childUnflushed = 64
)

// maybeDeliver delivers until the process is killed when it was started as a child.
func maybeDeliver() {
	text := os.Getenv(envChild)
	if text == "" {
		return
	}
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	if err := c.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (c *child) run(ctx context.Context) error {
	db, err := storage.Open(ctx, storage.Config{URL: c.Postgres})
	if err != nil {
		return err
	}
	box, err := storage.NewBox(make([]byte, 32))
	if err != nil {
		return err
	}
	kafka, codec := stream.Config{Brokers: c.Brokers, Prefix: c.Prefix}, schemas.NewCodec()
	log, err := stream.OpenLog(ctx, kafka, codec, nil, nil)
	if err != nil {
		return err
	}
	s, err := delivery.NewSinks(delivery.Config{
		Instance: "child", InstanceID: "child", Lease: time.Hour, BackoffBase: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
		ParkedMax: 100 * time.Millisecond, RetryHorizon: time.Second, Concurrency: childInFlight, MaxUnflushed: childUnflushed,
	}, delivery.Deps{Kafka: kafka, DB: db, Appender: log, Codec: codec, Deliverer: recordPoster(c.Receiver), Destinations: storage.NewDestinations(db, box)})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// recordPoster posts a record's id to a receiver.
type recordPoster string

func (recordPoster) Batch(*storage.Destination) (int, int) { return 1, 1 << 20 }

func (p recordPoster) Deliver(ctx context.Context, d delivery.Delivery) delivery.Outcome {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, string(p), bytes.NewBufferString(d.Records[0].ID))
	if err != nil {
		return delivery.Outcome{Verdict: delivery.Reject, Err: err.Error()}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return delivery.Outcome{Verdict: delivery.Retry, Err: "network: " + err.Error()}
	}
	defer resp.Body.Close()
	out := delivery.Outcome{Status: resp.StatusCode}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnprocessableEntity:
		out.Verdict = delivery.Reject
	default:
		out.Verdict = delivery.Retry
	}
	return out
}

// start starts a child; it returns what kills it.
func (c *child) start(t *testing.T) (kill func()) {
	t.Helper()
	text, err := json.Marshal(c)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), envChild+"="+string(text))
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	var once sync.Once
	kill = func() {
		once.Do(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	t.Cleanup(kill)
	return kill
}

// A memory is a receiver that remembers what it answered to which record.
type memory struct {
	mu   sync.Mutex
	said map[string][]int
}

// fate is what a record meets, by its id.
func fate(id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return h.Sum32() % 100
}

func (m *memory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	id := string(body)
	m.mu.Lock()
	defer m.mu.Unlock()
	status := http.StatusOK
	switch n := fate(id); {
	case n < 3:
		status = http.StatusServiceUnavailable // always
	case n < 12:
		status = http.StatusUnprocessableEntity
	case n < 25 && len(m.said[id]) < 2:
		status = http.StatusServiceUnavailable
	}
	m.said[id] = append(m.said[id], status)
	w.WriteHeader(status)
}

// answered is how often a record was answered with a status.
func (m *memory) answered(id string, status int) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.said[id] {
		if s == status {
			n++
		}
	}
	return n
}

// Killed at any moment, a process leaves every record with one first receipt, for which there is
// a cause: what the receiver said, or what happened to the record, its destination or contact.
func TestFaultKillsAtAnyMomentLeaveEachRecordWithOneReceiptThatHasACause(t *testing.T) {
	seeds.Any(t, 1, 4, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 16))
		w := newWorld(t, streamtest.Partitions(3))
		m := &memory{said: map[string][]int{}}
		receiver := httptest.NewServer(m)
		defer receiver.Close()
		c := &child{Brokers: w.Config.Brokers, Prefix: w.Config.Prefix, Postgres: w.url, Receiver: receiver.URL}
		d, gone := w.destination("crm", "outbox"), w.destination("gone", "outbox")
		contacts := make([]string, 40)
		for i := range contacts {
			contacts[i] = uuid.NewString()
		}
		asked := map[string]*schemas.Outbox{}
		cancelled := map[string]bool{}
		const kills = 6
		for round := range kills {
			kill := c.start(t)
			var msgs []schemas.Message
			for range 300 {
				to, notAfter := d.ID, time.Now().Add(time.Hour)
				switch n := rng.IntN(100); {
				case n < 3:
					to = uuid.NewString()
				case n < 10:
					to = gone.ID
				case n < 15:
					notAfter = time.Now().Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
				}
				o := call(to, contacts[rng.IntN(len(contacts))], notAfter)
				asked[o.ID], msgs = o, append(msgs, o)
				if rng.IntN(20) == 0 {
					cancelled[o.ID] = true
				}
			}
			w.Append(msgs...)
			require.NoError(t, w.db.InTx(w.Context(), func(tx *storage.Tx) error {
				var ids []string
				for _, msg := range msgs {
					if cancelled[msg.Meta().ID] {
						ids = append(ids, msg.Meta().ID)
					}
				}
				return tx.CancelOutbox(w.Context(), ids)
			}))
			switch round {
			case 1:
				_, err := w.store.SetStatus(w.Context(), d.ID, storage.DestinationPaused, "")
				require.NoError(t, err)
			case 2:
				_, err := w.store.SetStatus(w.Context(), d.ID, storage.DestinationActive, "")
				require.NoError(t, err)
			case 3:
				_, err := w.store.Delete(w.Context(), gone.ID)
				require.NoError(t, err)
			case 4:
				_, err := storagetest.SQL(w.db).Exec(w.Context(), `INSERT INTO erased_contacts (contact_id) VALUES ($1)`, contacts[0])
				require.NoError(t, err)
			}
			<-time.After(time.Duration(200+rng.IntN(1500)) * time.Millisecond) // a moment of the seed
			kill()
		}
		c.start(t)
		// What always fails is given up while others are accepted: the horizon counts no other time.
		for range 200 {
			told, open := w.receipts(), 0
			for id := range asked {
				if len(told[id]) == 0 {
					open++
				}
			}
			if open == 0 {
				break
			}
			var fine []schemas.Message
			for len(fine) < 20 {
				if o := call(d.ID, uuid.NewString(), time.Now().Add(time.Hour)); fate(o.ID) >= 25 {
					asked[o.ID], fine = o, append(fine, o)
				}
			}
			w.Append(fine...)
			w.waitReceipts(fine...)
		}
		w.waitFlushed(d)

		letters := map[string]bool{}
		for _, r := range w.ReadAll(schemas.TopicDeadLetters, true) {
			l, err := w.Codec.DecodeDeadLetter(r.Value)
			require.NoError(t, err)
			letters[l.RecordID] = true
		}
		told, repeats, results := w.receipts(), 0, map[string]int{}
		for id, o := range asked {
			require.NotEmpty(t, told[id], "no receipt of %s for destination %s: fate %d, cancelled %t, not after %s, answers %v",
				id, o.Destination, fate(id), cancelled[id], o.NotAfter, m.said[id])
		}
		require.Len(t, told, len(asked))
		for id, receipts := range told {
			o, first := asked[id], receipts[0]
			results[first.Result]++
			for _, r := range receipts {
				require.False(t, r.Final)
			}
			repeats += max(0, m.answered(id, http.StatusOK)-1)
			switch first.Result {
			case schemas.ReceiptAccepted:
				require.Positive(t, m.answered(id, http.StatusOK), id)
			case schemas.ReceiptRefused:
				require.True(t, o.Destination != d.ID || m.answered(id, http.StatusUnprocessableEntity) > 0, id)
			case schemas.ReceiptGivenUp:
				require.Positive(t, m.answered(id, http.StatusServiceUnavailable), id)
				require.True(t, letters[id], id)
			case schemas.ReceiptExpired:
				require.True(t, time.Now().After(o.NotAfter), id)
			case schemas.ReceiptCancelled:
				require.True(t, cancelled[id], id)
			case schemas.ReceiptErased:
				require.Equal(t, contacts[0], o.ContactID)
			default:
				require.Fail(t, first.Result)
			}
		}
		require.LessOrEqual(t, repeats, kills*(childInFlight+childUnflushed))
		t.Logf("%d records, %d kills: %v; %d accepted again", len(asked), kills, results, repeats)
	})
}
