package stream

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// While the process stood still some messages of a call were given up before they
// were sent, one was refused, and the others were sent.
func TestOnlyMessagesThatWereNeverSentAreSentAgain(t *testing.T) {
	tooOld := new(Log).classify(kgo.ErrRecordTimeout)
	first := &AppendError{Total: 6, Failed: []AppendFailure{{1, tooOld}, {2, ErrTooLarge}, {4, tooOld}, {5, kerr.NotLeaderForPartition}}}
	again := unsent(first)
	require.Equal(t, []int{1, 4}, again)
	require.Equal(t, &AppendError{Total: 6, Failed: []AppendFailure{{2, ErrTooLarge}, {5, kerr.NotLeaderForPartition}}}, resent(6, first, again, nil))
	require.Equal(t, &AppendError{Total: 6, Failed: []AppendFailure{{2, ErrTooLarge}, {4, ErrBusy}, {5, kerr.NotLeaderForPartition}}},
		resent(6, first, again, &AppendError{Total: 2, Failed: []AppendFailure{{1, ErrBusy}}}))

	all := &AppendError{Total: 2, Failed: []AppendFailure{{0, tooOld}, {1, tooOld}}}
	require.NoError(t, resent(2, all, unsent(all), nil))
	require.Empty(t, unsent(nil))
	require.Empty(t, unsent(ErrClosed))
}
