package buckets_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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

func TestEveryJoinLeaveAndDwellIsCounted(t *testing.T) {
	db, reg := storagetest.New(t), prometheus.NewRegistry()
	p, err := buckets.NewProcessor(buckets.Options{Limits: predicate.DefaultLimits()}, reg)
	require.NoError(t, err)
	s := newStage(t, pro(once, func(b *definition.Bucket) { b.Dwell = []definition.Dwell{{Every: time.Hour}} }))
	s.updated(`{"plan":"pro"}`)
	s.after(2 * time.Hour)
	s.updated(`{}`)
	s.updated(`{"plan":"pro"}`)
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		return p.Save(t.Context(), tx, []derive.Change[buckets.State]{{ContactID: s.id, State: s.state}})
	}))
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP hogstream_buckets_transitions_total Contacts that joined, left and dwelt in buckets, by bucket (those beyond the first 200 are one, named other), by kind (entered, left, dwell), and by whether it was told. A batch that is run again counts again.
# TYPE hogstream_buckets_transitions_total counter
hogstream_buckets_transitions_total{bucket="pro",kind="dwell",told="true"} 2
hogstream_buckets_transitions_total{bucket="pro",kind="entered",told="false"} 1
hogstream_buckets_transitions_total{bucket="pro",kind="entered",told="true"} 1
hogstream_buckets_transitions_total{bucket="pro",kind="left",told="true"} 1
`), "hogstream_buckets_transitions_total"))
}
