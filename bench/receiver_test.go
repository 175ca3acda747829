package bench

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func startReceiver(t *testing.T, s receiverSettings) (url string) {
	r, err := newWebhookReceiver(s)
	require.NoError(t, err)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		require.NoError(t, r.close())
	})
	return "http://" + r.listener.Addr().String()
}

func post(t *testing.T, url string, body io.Reader) (status int, text string) {
	resp, err := http.Post(url, "application/json", body)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(answer)
}

func TestTheReceiverAnswersEachRequestAfterItsDelay(t *testing.T) {
	url := startReceiver(t, receiverSettings{DelayMillis: 5})
	for _, size := range []int{0, 1, 1000, 100_000} {
		begun := time.Now()
		status, text := post(t, url, bytes.NewReader(make([]byte, size)))
		require.Equal(t, http.StatusOK, status)
		require.Empty(t, text)
		require.GreaterOrEqual(t, time.Since(begun), 5*time.Millisecond)
	}
}

func TestTheReceiverReportsLatenciesAndForgetsThem(t *testing.T) {
	url := startReceiver(t, receiverSettings{Latencies: true})
	accepted := time.Now().Add(-time.Second).UTC().Format(time.RFC3339Nano)
	for range 3 {
		status, _ := post(t, url, strings.NewReader(`{"data":{"receivedAt":"`+accepted+`"}}`))
		require.Equal(t, http.StatusOK, status)
	}
	post(t, url, strings.NewReader(`{"data":{}}`))
	var seen receiverReport
	require.NoError(t, ask(t.Context(), http.MethodGet, strings.TrimPrefix(url, "http://"), &seen))
	require.Equal(t, 3, seen.Events)
	require.GreaterOrEqual(t, seen.P50, time.Second)
	require.NoError(t, forget(t.Context(), strings.TrimPrefix(url, "http://")))
	require.NoError(t, ask(t.Context(), http.MethodGet, strings.TrimPrefix(url, "http://"), &seen))
	require.Zero(t, seen.Events)
}

func TestTheReceiverRefusesWhatItDoesNotUnderstand(t *testing.T) {
	url := startReceiver(t, receiverSettings{})
	status, text := post(t, url, io.MultiReader(strings.NewReader("of no known length")))
	require.Equal(t, http.StatusNotImplemented, status)
	require.Equal(t, "Transfer-Encoding: chunked is not understood", text)
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, strings.NewReader("x"))
	require.NoError(t, err)
	req.Header.Set("Expect", "100-continue")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusNotImplemented, resp.StatusCode)
}
