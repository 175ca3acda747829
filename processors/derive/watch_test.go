package derive

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

type lag map[schemas.Topic]string

func (l lag) Behind(_ context.Context, groups map[string]schemas.Topic, _ time.Time) (string, error) {
	return l[groups[simName]], nil
}

func TestARecordThatWaitsThoughBothTopicsWereReadPastItIsSeen(t *testing.T) {
	db, behind := storagetest.New(t), lag{}
	core, logs := observer.New(zap.WarnLevel)
	figures := prometheus.NewRegistry()
	w, err := NewWatch(db, behind, zap.New(core), figures)
	require.NoError(t, err)
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.SaveDerived(t.Context(), simName, &storage.DerivedChanges{Held: []storage.HeldRecord{{
			ContactID: someone, Topic: "events", Seq: 3, Value: []byte("x"), Headers: storage.HeldHeaders{AppendTime: time.Now()},
		}}})
	}))
	seen := func(after time.Duration) float64 {
		t.Helper()
		require.NoError(t, w.look(t.Context(), time.Now().Add(after)))
		families, err := figures.Gather()
		require.NoError(t, err)
		if len(families) == 0 {
			return 0
		}
		return families[0].GetMetric()[0].GetGauge().GetValue()
	}
	require.Zero(t, seen(30*time.Second), "it has not waited for long")
	behind[schemas.TopicLifecycle] = simName
	require.Zero(t, seen(2*time.Minute), "what is missing may come yet")
	require.Empty(t, logs.All())
	delete(behind, schemas.TopicLifecycle)
	require.InDelta(t, 1, seen(2*time.Minute), 0)
	require.Equal(t, someone, logs.All()[0].ContextMap()["contact"])
}
