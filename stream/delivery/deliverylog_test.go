package delivery_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/delivery"
)

func TestTheSettingOfTheDeliveryLogHoldsForDestinationsThatSayNothing(t *testing.T) {
	w := newWorld(t)
	silent := w.destination("silent", "contact.*")
	speaks := w.destination("speaks", "contact.*")
	_, err := storagetest.SQL(w.db).Exec(w.Context(), `UPDATE destinations SET delivery_log = 'all' WHERE id = $1`, speaks.ID)
	require.NoError(t, err)
	w.Append(facts(5, 2)...)
	w.start("one", func(c *delivery.Config) { c.DeliveryLog = "off" })
	w.waitDelivered("silent", 10)
	w.waitDelivered("speaks", 10)
	w.waitFlushed(silent)
	w.waitFlushed(speaks)
	require.Equal(t, 10, w.countAttempts("delivered"))
}
