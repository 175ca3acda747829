package delivery

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// OnEveryFeed runs a test of a rule for records that have receipts and for others.
func OnEveryFeed(t *testing.T, run func(t *testing.T)) {
	for _, topic := range []schemas.Topic{schemas.TopicLifecycle, schemas.TopicOutbox} {
		t.Run(string(topic), run)
	}
}

// FeedUnder is the topic that a test is run for.
func FeedUnder(t testing.TB) schemas.Topic {
	if strings.Contains(t.Name()+"/", "/"+string(schemas.TopicOutbox)+"/") {
		return schemas.TopicOutbox
	}
	return schemas.TopicLifecycle
}

func (b *courierBench) answers() bool { return b.topic == schemas.TopicOutbox }

// record is the one at an offset of the topic that the test is run for. What is asked for has
// an id that says its offset.
func (b *courierBench) record(offset int64, key string) stream.Record {
	r := stream.Record{Topic: b.topic, Offset: offset, Key: []byte(key), Type: b.kinds()[0]}
	if b.answers() {
		o := &schemas.Outbox{
			ID: b.recordID(offset), ContactID: key, Destination: b.id, Kind: schemas.OutboxCall,
			NotAfter: b.began.Add(b.lasts), Asker: "asker",
		}
		value, err := b.courier.env.codec.Encode(o)
		require.NoError(b.t, err)
		r.ID, r.Value = o.ID, value
	}
	return r
}

func (b *courierBench) recordID(offset int64) string {
	return schemas.Derive(b.id, "record", int(offset))
}

// rejected are the offsets of records that the receiver will not take: they are dead letters,
// or have a receipt that says so.
func (b *courierBench) rejected() (offsets []int64) {
	b.courier.mu.Lock()
	defer b.courier.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.letters {
		offsets = append(offsets, l.Offset)
	}
	refused := map[string]bool{}
	for _, r := range b.track.receipts { // a bench without Postgres keeps them there
		refused[r.Receipt.OutboxID] = r.Receipt.Result == schemas.ReceiptRefused
	}
	for offset := range b.next {
		if refused[b.recordID(offset)] {
			offsets = append(offsets, offset)
		}
	}
	return offsets
}

// kinds are the types of the records.
func (b *courierBench) kinds() []string {
	if b.answers() {
		return []string{schemas.OutboxCall + ":" + b.id}
	}
	return []string{schemas.FactContactUpdated}
}

// requireReceipts says that every record that was delivered has the receipt that says so, and
// every one that was given up the one that says that; and that nothing else has any.
func (b *courierBench) requireReceipts() {
	b.t.Helper()
	if !b.answers() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	want := map[string]string{}
	for _, offsets := range b.took {
		for _, offset := range offsets {
			want[b.recordID(offset)] = schemas.ReceiptAccepted
		}
	}
	for _, l := range b.letters {
		want[l.RecordID] = schemas.ReceiptGivenUp
	}
	got := map[string]string{}
	for _, r := range b.receipts {
		if _, repeated := got[r.OutboxID]; !repeated {
			got[r.OutboxID] = r.Result
		}
	}
	require.Equal(b.t, want, got)
}

// lasting is how long what is asked for may be sent, for tests of other rules.
const lasting = 100_000 * time.Hour
