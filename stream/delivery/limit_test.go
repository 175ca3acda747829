package delivery

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestThreeProcessesTogetherKeepToTheRateOfTheirDestinationAndUseIt(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		const rate, lasts = 100, 12 * time.Second
		db, id := storagetest.New(t), uuid.NewString()
		var mu sync.Mutex
		var sent []time.Time
		lanes := map[string]int{}
		over := make(chan struct{})
		for p := range 3 {
			b := newParkBench(t, db, id, nil)
			defer b.stop()
			b.set(func(d Delivery) Outcome {
				mu.Lock()
				defer mu.Unlock()
				sent = append(sent, time.Now())
				lanes[fmt.Sprint(p, " ", string(d.Records[0].Key))]++
				if time.Since(sent[0]) > lasts {
					select {
					case <-over:
					default:
						close(over)
					}
				}
				return Outcome{Status: 200}
			})
			limited := b.destination(2, storage.DestinationActive)
			limited.RateLimit = rate
			require.NoError(t, b.courier.update(limited))
			for i := range 2 * rate * int(lasts/time.Second) {
				b.append(fmt.Sprint("key-", i%10))
			}
		}
		select {
		case <-over:
		case <-time.After(time.Minute):
			t.Fatal("nothing is sent")
		}
		mu.Lock()
		defer mu.Unlock()
		slices.SortFunc(sent, time.Time.Compare)
		most := func(within time.Duration) (most int) {
			for i, from := 0, 0; i < len(sent); i++ {
				for sent[i].Sub(sent[from]) >= within {
					from++
				}
				most = max(most, i-from+1)
			}
			return most
		}
		used := float64(len(sent)) / (rate * sent[len(sent)-1].Sub(sent[0]).Seconds())
		t.Logf("at most %d in a second, %d in ten, %.1f %% used", most(time.Second), most(10*time.Second), 100*used)
		require.LessOrEqual(t, most(time.Second), rate*105/100+1)
		require.LessOrEqual(t, most(10*time.Second), rate*10*101/100)
		// Moments that a busy machine comes too late for are lost, so this says only that
		// the rate is used; more than 0.98 of it on a machine that does nothing else.
		require.GreaterOrEqual(t, used, 0.5)
		require.Len(t, lanes, 30)
		for lane, n := range lanes {
			require.InDelta(t, len(sent)/30, n, float64(len(sent))/60, lane)
		}
	})
}

func TestALeaseOfRateBeginsWhereTheOneBeforeEnds(t *testing.T) {
	db, ctx, id := storagetest.New(t), context.Background(), uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{*}')`, id)
	require.NoError(t, err)
	first, err := db.LeaseRate(ctx, id, 0.01, 2)
	require.NoError(t, err)
	require.WithinDuration(t, first.Now, first.Start, time.Second)
	second, err := db.LeaseRate(ctx, id, 0.01, 1)
	require.NoError(t, err)
	require.Equal(t, first.Start.Add(200*time.Second), second.Start)
	require.False(t, second.Now.Before(first.Now))
	changed, err := db.LeaseRate(ctx, id, 100, 1)
	require.NoError(t, err)
	require.WithinDuration(t, changed.Now, changed.Start, time.Second, "a changed rate begins anew")
	_, err = db.LeaseRate(ctx, uuid.NewString(), 1, 1)
	require.Error(t, err)
}

func TestTheQuickestAnswerTellsPostgressClock(t *testing.T) {
	var clock otherClock
	now := time.Now()
	// ask takes trip, of which the other looks at its clock at the end; it is off by skew.
	ask := func(skew, trip time.Duration) time.Duration {
		asked := now
		now = now.Add(trip)
		clock.heard(now.Add(skew).Round(0), asked, now)
		return clock.here(now.Add(skew).Round(0), now).Sub(now)
	}
	require.Equal(t, -50*time.Millisecond, ask(time.Hour, 100*time.Millisecond), "nothing better is known")
	require.Equal(t, -time.Millisecond, ask(time.Hour, 2*time.Millisecond))
	require.Equal(t, -time.Millisecond, ask(time.Hour, 300*time.Millisecond), "a slow answer tells nothing new")
	require.Equal(t, -2*time.Millisecond, ask(time.Hour+time.Second, 4*time.Millisecond), "the clock was set")
	now = now.Add(2 * otherClockKeeps)
	require.Equal(t, -5*time.Millisecond, ask(time.Hour+time.Second, 10*time.Millisecond), "what was heard long ago counts no more")
}

func TestAReceiverThatAnswers429IsSentAboutAsMuchAsItTakes(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const takes = 50
			b := newCourierBench(t, func(c *Config) { c.Concurrency = 32; c.BackoffMax = 10 * time.Second })
			var second, now, accepted, refused atomic.Int64
			b.set(func(Delivery) Outcome {
				letPass(5 * time.Millisecond)
				if s := time.Now().Unix(); second.Swap(s) != s {
					now.Store(0)
				}
				if now.Add(1) > takes {
					refused.Add(1)
					return Outcome{Verdict: Retry, Status: 429}
				}
				accepted.Add(1)
				return Outcome{Status: 200}
			})
			for i := range 60_000 {
				b.append(fmt.Sprint("key-", i%300))
			}
			letPass(10 * time.Minute)
			<-b.courier.retire(b.track)
			b.courier.workers.Wait()
			t.Logf("%d accepted of %d possible, %d refused", accepted.Load(), takes*600, refused.Load())
			require.Greater(t, accepted.Load(), int64(takes*600*7/10))
			require.Less(t, refused.Load(), accepted.Load()/10)
		})
	})
}
