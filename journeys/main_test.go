package journeys_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Code that waits is left, and no coroutine of it stays.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
