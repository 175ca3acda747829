package sinks_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest/seeds"
)

// impatient keeps pauses short: what they are for is tested in virtual time.
func impatient(c *delivery.Config) { c.ParkedMax = c.BackoffMax }

// numbered is event seq of a contact.
func numbered(contact string, seq int, name string) *schemas.Event {
	now := time.Now()
	return &schemas.Event{
		ID: uuid.Must(uuid.NewV7()).String(), ContactID: contact, Name: name,
		Properties: fmt.Sprintf(`{"seq":%d}`, seq), OccurredAt: now, ReceivedAt: now, Source: "api",
	}
}

// An oracle answers by its seed: what it says depends on the contact, the number
// of its record and the attempt alone, so a run can be repeated.
type oracle struct {
	seed uint64

	mu       sync.Mutex
	rejected map[string]string // by record id, its contact
	said     map[string]int
}

// chance is a number in [0, n) for one attempt, or one record when attempt is 0.
func (o *oracle) chance(contact string, seq int64, attempt int, n uint64) uint64 {
	h := fnv.New64a()
	b := binary.LittleEndian.AppendUint64(nil, o.seed)
	b = binary.LittleEndian.AppendUint64(append(b, contact...), uint64(seq))
	_, _ = h.Write(binary.LittleEndian.AppendUint64(b, uint64(attempt)))
	return rand.New(rand.NewPCG(h.Sum64(), o.seed)).Uint64N(n)
}

func (o *oracle) script(m *sinktest.Message) sinktest.Answer {
	contact, seq, _ := bySeq(m)
	answer, name := sinktest.Answer{}, "200"
	switch n := o.chance(contact, seq, m.Arrival, 2000); {
	// A few records fail for long, so that their contact is parked.
	case m.Arrival <= 20 && o.chance(contact, seq, 0, 1000) == 0:
		answer, name = sinktest.Answer{Status: 503}, "503, twenty times"
	case n < 4 && m.Arrival == 1:
		answer, name = sinktest.Answer{Status: 400, Body: "no"}, "400"
		o.mu.Lock()
		o.rejected[m.ID] = contact
		o.mu.Unlock()
	case n < 30:
		answer, name = sinktest.Answer{Status: 429, RetryAfter: "0.02"}, "429"
	case n < 32: // the other form has whole seconds
		answer, name = sinktest.Answer{Status: 429, RetryAfter: time.Now().Add(time.Second).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}, "429 until"
	case n < 80:
		answer, name = sinktest.Answer{Status: 500}, "500"
	case n < 82:
		answer, name = sinktest.Answer{Hang: true}, "hang"
	case n < 110:
		answer, name = sinktest.Answer{Reset: true}, "reset"
	case n < 112:
		answer, name = sinktest.Answer{Status: 200, SlowBody: true}, "200, slow body"
	case n < 114:
		answer, name = sinktest.Answer{Status: 500, SlowBody: true}, "500, slow body"
	case n < 140:
		answer, name = sinktest.Answer{Garbage: true}, "garbage"
	}
	o.mu.Lock()
	o.said[name]++
	o.mu.Unlock()
	return answer
}

// dead are the ids that the oracle rejected, with their contacts.
func (o *oracle) dead() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.rejected)
}

func TestFaultAReceiverWithEveryKindOfAnswerSeesNoInversionAndNoGap(t *testing.T) {
	seeds.Each(t, 1, func(t *testing.T, seed uint64) {
		contacts, each, hot := 100, 20, 1000
		if os.Getenv("HOGSTREAM_FAULT_SEEDS")+os.Getenv("HOGSTREAM_FAULT_SEED") != "" && seed%25 == 1 {
			contacts, each, hot = 1000, 200, 50_000 // takes minutes, so few seeds have it
		}
		p := newPathWithin(t, 500*time.Millisecond, impatient)
		o := &oracle{seed: seed, rejected: map[string]string{}, said: map[string]int{}}
		r, err := sinktest.New(sinktest.Options{Sequence: bySeq, Script: o.script})
		require.NoError(t, err)
		defer r.Close()
		url, err := r.Start("127.0.0.1:0")
		require.NoError(t, err)
		made, err := p.ops.Create(t.Context(), destinations.Settings{Name: "oracle", URL: url, EventTypes: []string{"event.tracked"}})
		require.NoError(t, err)
		require.NoError(t, r.SetSecrets(made.Secret))

		// The hot contact comes between the others all along.
		started := time.Now()
		var batch []schemas.Message
		for seq := range hot {
			batch = append(batch, numbered("hot", seq, "step"))
			if seq%(hot/each) == 0 {
				for c := range contacts {
					batch = append(batch, numbered(fmt.Sprint("contact-", c), seq*each/hot, "step"))
				}
			}
			if len(batch) > 5000 {
				p.Append(batch...)
				batch = nil
			}
		}
		p.Append(batch...)

		total := contacts*each + hot
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		require.NoError(t, r.Wait(ctx, func(s sinktest.Stats) bool { return s.Unique+len(o.dead()) >= total }))
		s := r.Stats()
		dead := o.dead()
		t.Logf("%d records in %s: %d taken (%d again), %d rejected, %d requests: %v",
			total, time.Since(started).Round(time.Millisecond), s.Unique, s.Duplicates, len(dead), s.Requests, o.said)
		require.Zero(t, s.OrderViolations, s.FirstViolation)
		require.Equal(t, total, s.Unique+len(dead), "no gap")
		require.Zero(t, s.BadSignatures+s.Malformed)
		for _, letter := range p.WaitRecords(schemas.TopicDeadLetters, len(dead)) {
			l, err := p.Codec.DecodeDeadLetter(letter.Value)
			require.NoError(t, err)
			require.Equal(t, "rejected", l.Reason)
			require.Equal(t, 400, *l.ResponseCode)
			require.Equal(t, dead["msg_"+l.RecordID], string(l.RecordKey), "a dead letter of a record that was not rejected")
			delete(dead, "msg_"+l.RecordID)
		}
		require.Empty(t, dead, "each record that was not delivered is a dead letter")
	})
}

func TestFaultASecretRotatedAtTheReceiverOnlyStopsTheDestinationAtItsPlace(t *testing.T) {
	seeds.Each(t, 2, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		// A request that ran into its deadline would be sent again and count as a repeat.
		p := newPath(t, impatient)
		r, err := sinktest.New(sinktest.Options{Sequence: bySeq, Latency: time.Millisecond})
		require.NoError(t, err)
		defer r.Close()
		url, err := r.Start("127.0.0.1:0")
		require.NoError(t, err)
		made, err := p.ops.Create(t.Context(), destinations.Settings{Name: "crm", URL: url, EventTypes: []string{"event.tracked"}})
		require.NoError(t, err)
		require.NoError(t, r.SetSecrets(made.Secret))
		p.Append(sequenced(40, 50)...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		at := rng.IntN(1500)
		require.NoError(t, r.Wait(ctx, func(s sinktest.Stats) bool { return s.Unique >= at }))
		r.SetScript(func(*sinktest.Message) sinktest.Answer { return sinktest.Answer{Status: 401} })
		p.Eventually(func(ctx context.Context) (bool, error) {
			v, err := p.ops.Get(ctx, "crm")
			return err == nil && v.State == storage.DestinationSuspended, err
		}, "suspended")
		stands := r.Stats().Unique
		if rng.IntN(2) == 0 { // both sides change over to a new one
			rotated, err := p.ops.RotateSecret(t.Context(), "crm", destinations.Rotation{})
			require.NoError(t, err)
			require.NoError(t, r.SetSecrets(rotated.Secret))
		}
		require.Equal(t, stands, r.Stats().Unique)
		r.SetScript(nil)
		_, err = p.ops.Resume(t.Context(), "crm")
		require.NoError(t, err)
		require.NoError(t, r.Wait(ctx, func(s sinktest.Stats) bool { return s.Unique >= 2000 }))
		s := r.Stats()
		require.Zero(t, s.OrderViolations, s.FirstViolation)
		require.Zero(t, s.BadSignatures)
		require.Zero(t, s.Duplicates)
		require.Empty(t, p.ReadAll(schemas.TopicDeadLetters, true))
	})
}

// An edit changes a destination while deliveries are in flight.
func (e *editing) edit(rng *rand.Rand) string {
	t, ctx := e.t, e.t.Context()
	update := func(p destinations.Patch) {
		_, err := e.p.ops.Update(ctx, "crm", p)
		require.NoError(t, err)
	}
	switch rng.IntN(7) {
	case 0:
		_, err := e.p.ops.Pause(ctx, "crm", "maintenance")
		require.NoError(t, err)
		return "pause"
	case 1:
		_, err := e.p.ops.Resume(ctx, "crm")
		require.NoError(t, err)
		return "resume"
	case 2:
		update(destinations.Patch{URL: &e.urls[rng.IntN(len(e.urls))]})
		return "url"
	case 3:
		filter := []string{"", `.data.event == "step"`, `.data.event != "extra"`}[rng.IntN(3)]
		update(destinations.Patch{Filter: &destinations.Filter{JQ: filter}})
		return "filter " + filter
	case 4:
		types := [][]string{{"event.tracked"}, {"event.tracked:step"}, {"event.tracked", "contact.*"}}[rng.IntN(3)]
		update(destinations.Patch{EventTypes: types})
		return fmt.Sprint("subscription ", types)
	case 5:
		rotated, err := e.p.ops.RotateSecret(ctx, "crm", destinations.Rotation{Force: true})
		require.NoError(t, err)
		e.secrets = append(e.secrets, rotated.Secret)
		require.NoError(t, e.r.SetSecrets(e.secrets...))
		return "rotate"
	default:
		update(destinations.Patch{Concurrency: new(1 + rng.IntN(32))})
		return "concurrency"
	}
}

type editing struct {
	t       *testing.T
	p       *path
	r       *sinktest.Receiver
	urls    []string
	secrets []string
}

func TestFaultADestinationThatIsEditedWhileDeliveringLosesRepeatsAndReordersNothing(t *testing.T) {
	seeds.Each(t, 2, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 2))
		e := &editing{t: t, p: newPath(t, impatient)}
		var err error
		var steps atomic.Int64
		// What every edit leaves wanted is numbered; the rest may come or not.
		e.r, err = sinktest.New(sinktest.Options{Latency: time.Millisecond, Sequence: func(m *sinktest.Message) (string, int64, bool) {
			if m.Event != "step" {
				return "", 0, false
			}
			steps.Add(1) // it is called when a record is taken for the first time
			return bySeq(m)
		}})
		require.NoError(t, err)
		defer e.r.Close()
		url, err := e.r.Start("127.0.0.1:0")
		require.NoError(t, err)
		second := httptest.NewServer(e.r)
		defer second.Close()
		e.urls = []string{url, second.URL}
		made, err := e.p.ops.Create(t.Context(), destinations.Settings{Name: "crm", URL: url, EventTypes: []string{"event.tracked"}})
		require.NoError(t, err)
		e.secrets = []string{made.Secret}
		require.NoError(t, e.r.SetSecrets(made.Secret))

		const contacts, each = 40, 50
		var msgs []schemas.Message
		for seq := range each {
			for c := range contacts {
				msgs = append(msgs, numbered(fmt.Sprint("contact-", c), seq, "step"), numbered(fmt.Sprint("contact-", c), seq, "extra"))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var edits []string
		for part := range slices.Chunk(msgs, len(msgs)/20) {
			e.p.Append(part...)
			for range 1 + rng.IntN(2) {
				edits = append(edits, e.edit(rng))
			}
			if edits[len(edits)-1] != "pause" { // some edits meet deliveries, some nothing
				now, more := e.r.Stats().Requests, rng.IntN(30)
				near, enough := context.WithTimeout(ctx, 50*time.Millisecond)
				_ = e.r.Wait(near, func(s sinktest.Stats) bool { return s.Requests >= now+more })
				enough()
			}
		}
		_, err = e.p.ops.Resume(t.Context(), "crm")
		require.NoError(t, err)
		require.NoError(t, e.r.Wait(ctx, func(sinktest.Stats) bool { return steps.Load() >= contacts*each }), "%v", edits)
		s := e.r.Stats()
		require.Zero(t, s.OrderViolations, "%s after %v", s.FirstViolation, edits)
		require.Zero(t, s.BadSignatures, "%v", edits)
		require.Zero(t, s.Duplicates, "%v", edits)
		require.Empty(t, e.p.ReadAll(schemas.TopicDeadLetters, true))
	})
}

func TestFaultADestinationDeletedInFlightIsSentNothingMoreAndLeavesNothingBehind(t *testing.T) {
	seeds.Each(t, 2, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		p := newPath(t, impatient)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		receivers := map[string]*sinktest.Receiver{}
		ids := map[string]string{}
		for _, name := range []string{"goes", "stays"} {
			r, err := sinktest.New(sinktest.Options{Sequence: bySeq, Latency: time.Duration(rng.IntN(3)) * time.Millisecond})
			require.NoError(t, err)
			defer r.Close()
			url, err := r.Start("127.0.0.1:0")
			require.NoError(t, err)
			made, err := p.ops.Create(ctx, destinations.Settings{Name: name, URL: url, EventTypes: []string{"event.tracked"}})
			require.NoError(t, err)
			require.NoError(t, r.SetSecrets(made.Secret))
			receivers[name], ids[name] = r, made.ID
		}
		goes, stays := receivers["goes"], receivers["stays"]
		if rng.IntN(2) == 0 { // some of it waits for its next attempt
			goes.SetScript(func(m *sinktest.Message) sinktest.Answer {
				if rand.IntN(3) == 0 {
					return sinktest.Answer{Status: 503}
				}
				return sinktest.Answer{}
			})
		}
		p.Append(sequenced(40, 50)...)
		at := rng.IntN(1500)
		require.NoError(t, goes.Wait(ctx, func(s sinktest.Stats) bool { return s.Requests >= at }))
		require.NoError(t, p.ops.Delete(ctx, "goes"))
		// Every instance has heard of it within a second; what is in flight ends.
		heard, enough := context.WithTimeout(ctx, time.Second)
		defer enough()
		<-heard.Done()
		require.NoError(t, goes.Wait(ctx, func(s sinktest.Stats) bool { return s.InFlight == 0 }))
		requests := goes.Stats().Requests
		p.Append(sequenced(40, 10)...)
		require.NoError(t, stays.Wait(ctx, func(s sinktest.Stats) bool { return s.Unique >= 2400 }))
		require.Equal(t, requests, goes.Stats().Requests, "sent after its deletion")
		var rows int
		require.NoError(t, storagetest.SQL(p.db).QueryRow(ctx, `
			SELECT (SELECT count(*) FROM destinations WHERE id = $1) + (SELECT count(*) FROM cursors WHERE destination_id = $1)
			     + (SELECT count(*) FROM parked_keys WHERE destination_id = $1) + (SELECT count(*) FROM parked_records WHERE destination_id = $1)`,
			ids["goes"]).Scan(&rows))
		require.Zero(t, rows)
		require.Empty(t, p.ReadAll(schemas.TopicDeadLetters, true))
	})
}
