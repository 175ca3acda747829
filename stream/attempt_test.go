package stream

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
)

func testHolding(t *testing.T) *holding {
	h := newHolding(storage.Lease{}, time.Now(), time.Hour)
	t.Cleanup(h.cancel)
	return h
}

func TestTheContextOfASuccessServesTheNextAttemptWithADeadlineOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := testHolding(t)
		first := h.attempt(time.Now().Add(time.Second))
		h.attempted(first, true)
		<-time.After(time.Minute) // virtual
		second := h.attempt(time.Now().Add(time.Second))
		require.Same(t, first, second)
		require.NoError(t, second.Err())
		deadline, ok := second.Deadline()
		require.True(t, ok)
		require.Equal(t, time.Now().Add(time.Second), deadline)
		below, cancel := context.WithCancel(second)
		defer cancel()
		<-below.Done()
		require.Equal(t, deadline, time.Now())
		require.ErrorIs(t, second.Err(), context.DeadlineExceeded)
		require.ErrorIs(t, context.Cause(below), context.DeadlineExceeded)
		h.attempted(second, true)
		require.NotSame(t, second, h.attempt(time.Now().Add(time.Second)))
	})
}

func TestTheContextOfAFailedAttemptEndsAndIsNotUsedAgain(t *testing.T) {
	h := testHolding(t)
	failed := h.attempt(time.Now().Add(time.Hour))
	h.attempted(failed, false)
	require.ErrorIs(t, failed.Err(), context.Canceled)
	require.NotSame(t, failed, h.attempt(time.Now().Add(time.Hour)))
}

func TestTheContextsOfAttemptsEndWithTheirHolding(t *testing.T) {
	h := testHolding(t)
	flying, idle := h.attempt(time.Now().Add(time.Hour)), h.attempt(time.Now().Add(time.Hour))
	h.attempted(idle, true)
	h.cancel()
	require.ErrorIs(t, flying.Err(), context.Canceled)
	require.ErrorIs(t, h.attempt(time.Now().Add(time.Hour)).Err(), context.Canceled)
}
