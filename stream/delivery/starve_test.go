package delivery

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/reader"
)

// Keys that fail and are due are more than can be tried. One that only waits because it
// had too many records for memory does not wait for them.
func TestAKeyThatSpilledIsNotDelayedByManyThatFailAndAreDue(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		change := func(c *Config) { c.Window = 1000 }
		inVirtualTime(t, change, func(t *testing.T, b *parkBench) {
			const bad, hot = 1000, 1200
			_, err := storagetest.SQL(b.db).Exec(context.Background(), `
			INSERT INTO parked_records (destination_id, partition, record_key, topic, "offset", append_time, record_id, record_type,
				trace_parent, trace_state, value, since_ms)
			SELECT $1, 0, 'bad-' || o, 'lifecycle', o, now(), '', 'contact.updated', '', '', '', 0 FROM generate_series(0, $2 - 1) o`, b.id, bad)
			require.NoError(t, err)
			_, err = storagetest.SQL(b.db).Exec(context.Background(), `
			INSERT INTO parked_keys (destination_id, partition, record_key, reason, attempts, next_attempt_at)
			SELECT destination_id, partition, record_key, 'failing', 5, $1 FROM parked_records`, time.Now().Add(-time.Minute))
			require.NoError(t, err)
			b.begin()
			b.set(func(d Delivery) Outcome {
				if strings.HasPrefix(string(d.Records[0].Key), "bad-") {
					letPass(15 * time.Second)
					return Outcome{Verdict: Retry, Err: "timeout after 15s"}
				}
				letPass(10 * time.Millisecond)
				return Outcome{Status: 200}
			})
			log := &reader.Chunk{From: bad, To: bad + hot, Kinds: b.kinds(), Kind: make([]uint16, hot)}
			for i := range int64(hot) {
				log.Records = append(log.Records, b.record(bad+i, "hot"))
			}
			b.next = log.To
			b.courier.mu.Lock()
			b.track.places[0].advance(bad)
			b.courier.mu.Unlock()
			for read := false; !read; letPass(10 * time.Millisecond) {
				b.courier.mu.Lock()
				read = b.track.admit(b.track.places[0], log)
				b.courier.enqueue(b.track)
				b.courier.dispatch()
				b.courier.mu.Unlock()
			}
			for range 60 {
				b.append("good")
				letPass(time.Second)
			}
			synctest.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			require.Len(t, b.took["hot"], hot)
			require.IsIncreasing(t, b.took["hot"])
		})
	})
}
