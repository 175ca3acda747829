package ingest_test

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// Each process counted for itself, so n of them let a key do n times its limit.
func TestTheLimitOfAKeyHoldsForAllProcessesTogether(t *testing.T) {
	t.Parallel()
	const limit = 300 // a token comes back every 200 ms; a run is 6
	pg := storagetest.NewServer(t)
	var running sync.WaitGroup
	start := func() (*server, context.CancelFunc) {
		s := &server{t: t, log: &memoryLog{}, db: pg.DB()}
		var err error
		s.api, err = ingest.New(ingest.Config{RateLimit: limit, PublicRateLimit: 40_000}, ingest.Deps{Appender: s.log, DB: s.db})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		running.Go(func() { assert.NoError(t, s.api.Run(ctx)) })
		return s, stop
	}
	limitOfAddresses := func(s *server, want string) {
		t.Helper()
		require.Eventually(t, func() bool {
			return s.request(http.MethodGet, "/docs", "").header.Get("RateLimit-Limit") == want
		}, 20*time.Second, 100*time.Millisecond)
	}
	send := func(s *server, key string, n int) (taken int) {
		t.Helper()
		for range n {
			got := s.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+key)
			if got.status == http.StatusAccepted {
				taken++
				continue
			}
			got.is(http.StatusTooManyRequests)
			require.NotEmpty(t, got.header.Get("Retry-After"))
		}
		return taken
	}
	began := time.Now()
	cameBack := func() int { return int(time.Since(began)/(200*time.Millisecond)) + 1 }

	a, stopA := start()
	defer stopA()
	_, early := a.key(storage.ScopeIngest)
	require.Equal(t, 100, send(a, early, 100), "alone")

	b, stopB := start()
	defer stopB()
	limitOfAddresses(a, "20000") // both know of each other, and halve what addresses may do
	limitOfAddresses(b, "20000")

	taken := 100 + send(a, early, limit)
	taken += send(b, early, limit)
	require.LessOrEqual(t, taken, limit+cameBack(), "what one let through while it was alone counts")

	_, one := a.key(storage.ScopeIngest)
	began = time.Now()
	got := a.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+one).is(http.StatusAccepted)
	require.Equal(t, strconv.Itoa(limit), got.header.Get("X-RateLimit-Limit"))
	require.Equal(t, strconv.Itoa(limit-1), got.header.Get("X-RateLimit-Remaining"))
	taken = send(a, one, limit/2)
	var mu sync.Mutex
	var both sync.WaitGroup
	for _, s := range []*server{a, b} {
		for range 3 {
			both.Go(func() {
				n := send(s, one, limit)
				mu.Lock()
				defer mu.Unlock()
				taken += n
			})
		}
	}
	both.Wait()
	require.LessOrEqual(t, taken, limit+cameBack())
	require.GreaterOrEqual(t, taken, limit-15, "a run that the other process holds is all that is missing")

	_, all := a.key(storage.ScopeIngest)
	require.GreaterOrEqual(t, send(a, all, limit), limit-6, "a client that keeps to one process has the whole limit")

	_, outage := a.key(storage.ScopeIngest)
	send(a, outage, 1)
	send(b, outage, 1)
	pg.Stop()
	began = time.Now()
	taken = send(a, outage, limit) + send(b, outage, limit)
	require.LessOrEqual(t, taken, limit+2*6+2*cameBack(), "without Postgres each allows its half, beside the run it has")
	require.GreaterOrEqual(t, taken, limit/2)

	pg.Start()
	limitOfAddresses(b, "20000")
	stopB()
	limitOfAddresses(a, "40000")
	_, alone := a.key(storage.ScopeIngest)
	require.Equal(t, limit, send(a, alone, limit), "alone again")
	stopA()
	running.Wait()
}
