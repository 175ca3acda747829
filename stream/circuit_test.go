package stream

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

func TestInAnOutageOfAnHourTheCircuitOpensWithinTenSecondsProbesRarelyAndThenDrainsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCourierBench(t, func(c *SinksConfig) { c.Concurrency = 16; c.Window = 400 })
		start := time.Now()
		var calls, late atomic.Int64
		const calm = time.Minute
		b.set(func(Delivery) Outcome {
			switch since := time.Since(start) - calm; {
			case since < 0 || since > time.Hour:
				letPass(5 * time.Millisecond)
				return Outcome{Status: 200}
			case since > 10*time.Second:
				late.Add(1)
			}
			calls.Add(1)
			return Outcome{Verdict: Retry, Err: "connection refused"}
		})
		const rate = 20
		log := &chunk{kinds: []string{schemas.FactContactUpdated}}
		for i := range int64(rate * 4000) {
			log.records = append(log.records, Record{Topic: schemas.TopicLifecycle, Offset: i, Key: fmt.Append(nil, "key-", i%100), Type: schemas.FactContactUpdated})
			log.kind = append(log.kind, 0)
		}
		feed := func() {
			b.courier.mu.Lock()
			defer b.courier.mu.Unlock()
			if !b.track.full {
				log.to = min(int64(len(log.records)), int64(time.Since(start).Seconds()*rate))
				now := *log
				now.records = log.records[:log.to]
				b.track.places[0].seen = nil
				b.track.admit(b.track.places[0], &now)
				b.courier.enqueue(b.track)
				b.courier.dispatch()
			}
		}
		opened := time.Time{}
		most := 0
		for time.Since(start) < calm+time.Hour {
			feed()
			letPass(time.Second / rate)
			b.courier.mu.Lock()
			if b.courier.circuit.open {
				if opened.IsZero() {
					opened = time.Now()
				}
				most = max(most, b.track.open)
			}
			b.courier.mu.Unlock()
		}
		require.LessOrEqual(t, opened.Sub(start)-calm, 10*time.Second)
		require.LessOrEqual(t, most, 200, "Kafka is the buffer")
		require.LessOrEqual(t, calls.Load(), int64(rate*3600/100))
		require.LessOrEqual(t, late.Load(), int64(80), "after the first seconds")
		b.courier.mu.Lock()
		require.Less(t, b.courier.openTime(time.Now()), calm+10*time.Second, "the retry horizon stands still")
		b.courier.mu.Unlock()
		for b.position() < int64(len(log.records)) {
			feed()
			letPass(time.Second / rate)
			require.Less(t, time.Since(start), 3*time.Hour)
		}
		synctest.Wait()
		require.Less(t, time.Since(start), 4030*time.Second, "it caught up by itself")
		for k, offsets := range b.took {
			require.IsIncreasing(t, offsets, k)
			require.Len(t, offsets, len(log.records)/100, k)
		}
		require.Empty(t, b.letters)
	})
}

func TestAFewContactsThatFailDoNotOpenTheCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCourierBench(t, nil)
		b.set(func(d Delivery) Outcome {
			if string(d.Records[0].Key) != "good" {
				return Outcome{Verdict: Retry, Status: 500}
			}
			return Outcome{Status: 200}
		})
		b.append("a", "b", "c", "d")
		for range 600 {
			letPass(100 * time.Millisecond)
			at := b.next
			b.append("good")
			synctest.Wait()
			require.Contains(t, b.at, at)
		}
	})
}
