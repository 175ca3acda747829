package delivery_test

import (
	"os"
	"testing"

	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestMain(m *testing.M) {
	streamtest.MaybeServe()
	maybeDeliver()
	os.Exit(m.Run())
}
