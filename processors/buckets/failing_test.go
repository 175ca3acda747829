package buckets_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestABucketThatAProcessCannotEvaluateIsAFigure(t *testing.T) {
	db, reg := storagetest.New(t), prometheus.NewRegistry()
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	files, err := definition.Built([]definition.Bucket{bucket("b", predicate.Event("a").Within(48*time.Hour).Exists())}, opts)
	require.NoError(t, err)
	_, err = definition.Apply(t.Context(), db, files, opts, "test")
	require.NoError(t, err)
	opts.Limits.Retention = 24 * time.Hour
	frame, err := buckets.New(buckets.Options{Limits: opts.Limits}, schemas.NewCodec(), reg)
	require.NoError(t, err)
	var filling derive.Filling = frame
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		_, err := filling.FillVersion(t.Context(), tx)
		return err
	}))
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "hogstream_buckets_failing" {
			require.InDelta(t, 1, f.GetMetric()[0].GetGauge().GetValue(), 0)
			return
		}
	}
	t.Fatal("there is no such figure")
}
