package storage_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestClearedBucketsHaveNoMembersAndNoCounts(t *testing.T) {
	db := storagetest.New(t)
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.SaveBucketTransitions(t.Context(), []storage.BucketTransition{{
			ContactID: "00000000-0000-4000-8000-000000000001", BucketID: "b", Epoch: 1, Entered: true, At: time.Now(), Source: "event",
		}}, nil)
	}))
	counts, err := db.BucketCounts(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, counts["b"].Active)
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.ClearBuckets(t.Context()) }))
	counts, err = db.BucketCounts(t.Context())
	require.NoError(t, err)
	require.Empty(t, counts)
}
