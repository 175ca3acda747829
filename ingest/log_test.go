package ingest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestWhatIsAcceptedStandsOnTheTopicUnderItsSubjectsKey(t *testing.T) {
	t.Parallel()
	env := streamtest.New(t)
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) { deps.Appender = env.Log() })
	const properties = `{"z": 1, "a": [12345678901234567890, "\u0000", "é"]}`
	// The second request uses the memory of the first.
	first := s.request(http.MethodPost, "/v1/events", `{"name":"first","userId":"u1","eventProperties":`+properties+`}`).is(http.StatusAccepted).object()
	s.request(http.MethodPost, "/v1/events", `{"name":"`+strings.Repeat("x", 200)+`","email":"B@example.com"}`).is(http.StatusAccepted)
	s.request(http.MethodPost, "/v1/events/batch", `[{"name":"third","anonymousId":"a1"},{"name":"fourth","userId":"u1"}]`).is(http.StatusAccepted)

	byName := map[string]*stream.Record{}
	inputs := map[string]*schemas.Input{}
	for _, r := range env.WaitRecords(schemas.TopicIngest, 4) {
		in, err := env.Codec.DecodeInput(r.Value)
		require.NoError(t, err)
		byName[*in.Event], inputs[*in.Event] = r, in
	}
	require.Equal(t, "u:u1", string(byName["first"].Key))
	require.Equal(t, "e:b@example.com", string(byName[strings.Repeat("x", 200)].Key))
	require.Equal(t, "a:a1", string(byName["third"].Key))
	require.Equal(t, "u:u1", string(byName["fourth"].Key))
	require.Equal(t, properties, *inputs["first"].EventProperties)
	require.Equal(t, first["id"], byName["first"].ID)
	require.Equal(t, schemas.InputEvent, byName["first"].Type)
	require.Nil(t, inputs["fourth"].EventProperties)
}

func TestAStalledBrokerIs503AndNothingIsSaidToBeAccepted(t *testing.T) {
	t.Parallel()
	env := streamtest.New(t, streamtest.WithConfig(func(c *stream.Config) { c.AppendTimeout = 300 * time.Millisecond }))
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) { deps.Appender = env.Log() })
	s.request(http.MethodPost, "/v1/events", event).is(http.StatusAccepted)
	env.Network.Stall()
	s.request(http.MethodPost, "/v1/events", event).is(http.StatusServiceUnavailable)
	got := s.request(http.MethodPost, "/v1/events/batch", "["+event+"]").is(http.StatusServiceUnavailable)
	require.NotEmpty(t, got.header.Get("Retry-After"))
	env.Network.Heal()
	require.Eventually(t, func() bool {
		return s.request(http.MethodPost, "/v1/events", event).status == http.StatusAccepted
	}, streamtest.Patience, 50*time.Millisecond)
}
