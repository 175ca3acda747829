package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABatchThatIsDeliveredInPartLeavesItsErrorAndEndsTheFailuresInARow(t *testing.T) {
	h, now := health{failures: 7}, time.Unix(1, 0)
	h.note(Outcome{Verdict: Skipped}, now)
	require.EqualValues(t, 7, h.failures, "nothing was sent")
	h.note(Outcome{Verdict: Reject, Err: "no\x00 such field"}, now)
	require.EqualValues(t, 8, h.failures)
	require.Equal(t, "failed", h.lastError)
	h.note(Outcome{Verdict: Partial, Status: 200, Results: []Result{{Verdict: Delivered}, {Verdict: Retry, Err: "busy"}}}, now.Add(1))
	require.Zero(t, h.failures)
	require.Equal(t, "HTTP 200: records refused", h.lastError)
	require.Equal(t, now.Add(1), h.lastErrorAt)
}
