package ingest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// Clients that hang up before, within and after their request, beside clients that
// wait for the answer: what was accepted is on the log once, and nothing is there
// that nobody sent.
func TestClientsThatHangUpAtAnyMomentLoseDoubleAndChangeNothing(t *testing.T) {
	e := streamtest.New(t)
	log := e.Log()
	s := newServer(t, func(c *ingest.Config, d *ingest.Deps) {
		d.Appender = log
		c.RateLimit, c.PublicRateLimit = 0, 0
	})
	server := httptest.NewServer(s.api)
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")

	const senders, rounds = 4, 80
	var mu sync.Mutex
	accepted := map[string]bool{}
	var wg sync.WaitGroup
	for n := range senders {
		wg.Go(func() {
			for i := range rounds {
				id := fmt.Sprintf("stays-%d-%d", n, i)
				r := postRequest(t, server.URL, "/v1/events", oneEvent(id))
				res, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				text, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != http.StatusAccepted {
					t.Errorf("%d %s", res.StatusCode, text)
					return
				}
				mu.Lock()
				accepted[id] = true
				mu.Unlock()
			}
		})
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 3))
			for i := range rounds {
				path, body := "/v1/events", oneEvent(fmt.Sprintf("leaves-%d-%d", n, i))
				if i%2 == 0 {
					path = "/v1/events/batch"
					body = fmt.Sprintf(`{"events":[%s,%s]}`, oneEvent(fmt.Sprintf("leaves-%d-%d-a", n, i)), oneEvent(fmt.Sprintf("leaves-%d-%d-b", n, i)))
				}
				leaveWithin(t, address, path, body, rng)
			}
		})
	}
	wg.Wait()
	server.Close() // when no handler works any more
	require.NoError(t, log.Close(e.Context()))

	seen := map[string]int{}
	for _, r := range e.ReadAll(schemas.TopicIngest, false) {
		in, err := e.Codec.DecodeInput(r.Value)
		require.NoError(t, err)
		require.Equal(t, in.ID, r.ID)
		require.Equal(t, fmt.Sprintf(`{"of":%q}`, *in.UserID), *in.EventProperties)
		require.Equal(t, "u:"+*in.UserID, string(r.Key))
		seen[*in.UserID]++
		require.Equal(t, 1, seen[*in.UserID], "%s is on the log more than once", *in.UserID)
	}
	require.Len(t, accepted, senders*rounds)
	for id := range accepted {
		require.Equal(t, 1, seen[id], "%s was accepted and is lost", id)
	}
}

func oneEvent(userID string) string {
	text, _ := json.Marshal(map[string]any{"name": "left", "userId": userID, "eventProperties": map[string]string{"of": userID}})
	return string(text)
}

func postRequest(t *testing.T, url, path, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+adminKey)
	r.Header.Set("Content-Type", "application/json")
	return r
}

// leaveWithin sends a part of a request, or all of it, and hangs up within 3 ms.
func leaveWithin(t *testing.T, address, path, body string, rng *rand.Rand) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, adminKey, len(body), body)
	if rng.IntN(4) == 0 {
		request = request[:rng.IntN(len(request))]
	}
	io.WriteString(conn, request) //nolint:errcheck // the server may be quicker
	<-time.After(time.Duration(rng.IntN(3000)) * time.Microsecond)
}
