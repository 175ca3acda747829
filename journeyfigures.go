package hogstream

import (
	"context"
	"maps"
	"slices"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
)

// newLiveRuns tells how many runs of each version of a journey live.
func newLiveRuns(db *storage.DB, log *zap.Logger) *keptFigures {
	return newKeptFigures("hogstream_journeys_live_runs",
		"Runs that live, by journey and version; of the versions those beyond the first 200 are one, named other. Every process that runs processors tells the same.", []string{"journey", "version"},
		func(err error) { log.Debug("journeys.figures_failed", zap.Error(err)) },
		func(ctx context.Context) (all []keptFigure, err error) {
			counts, err := db.JourneyCounts(ctx, "")
			live := liveByVersion(counts)
			for _, v := range slices.SortedFunc(maps.Keys(live), compareVersions) {
				all = append(all, keptFigure{v[:], live[v]})
			}
			return all, err
		})
}

func compareVersions(a, b [2]string) int { return slices.Compare(a[:], b[:]) }

// liveByVersion is how many runs live, by journey and version.
func liveByVersion(counts []storage.JourneyCount) map[[2]string]int64 {
	live := map[[2]string]int64{}
	for i := range counts {
		n := &counts[i]
		version := [2]string{n.JourneyID, n.Version}
		switch n.What {
		case storage.RunStarted, storage.RunRetried:
			live[version] += n.N
		case storage.RunCompleted, storage.RunExited, storage.RunFailed:
			live[version] -= n.N
		}
	}
	return live
}
