package hogstream

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestFiguresOfRunsAreThoseThatLiveByVersion(t *testing.T) {
	t.Parallel()
	db, at := storagetest.New(t), time.Now()
	var changes []storage.JourneyChange
	happens := func(version string, kinds ...string) {
		id := uuid.NewString()
		for _, kind := range kinds {
			changes = append(changes, storage.JourneyChange{Kind: kind, At: at, EnteredAt: at, Since: at, ContactID: id, RunID: id, JourneyID: "cart", Version: version, Step: "one", TriggerID: id})
		}
	}
	happens("1", storage.RunStarted)
	happens("1", storage.RunStarted, storage.RunFailed)
	happens("2", storage.RunStarted, storage.RunFailed, storage.RunRetried)
	happens("2", storage.RunStarted)
	happens("2", storage.RunStarted, storage.RunExited)
	happens("3", storage.RunStarted, storage.RunCompleted)
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.SaveJourneyChanges(t.Context(), changes, nil, nil) }))
	require.NoError(t, testutil.CollectAndCompare(newLiveRuns(db, zap.NewNop()), strings.NewReader(`
# HELP hogstream_journeys_live_runs Runs that live, by journey and version; of the versions those beyond the first 200 are one, named other. Every process that runs processors tells the same.
# TYPE hogstream_journeys_live_runs gauge
hogstream_journeys_live_runs{journey="cart",version="1"} 1
hogstream_journeys_live_runs{journey="cart",version="2"} 2
hogstream_journeys_live_runs{journey="cart",version="3"} 0
`)))
}
