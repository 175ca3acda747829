package hogstream

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
)

// maxVersionFigures bounds how many versions of journeys have a series of their own.
const maxVersionFigures = 200

// liveRuns tells how many runs of each version of a journey live, from the counters that are
// kept beside them.
type liveRuns struct {
	db   *storage.DB
	log  *zap.Logger
	live *prometheus.Desc
}

func newLiveRuns(db *storage.DB, log *zap.Logger) *liveRuns {
	return &liveRuns{db: db, log: log, live: prometheus.NewDesc("hogstream_journeys_live_runs",
		"Runs that live, by journey and version; of the versions those beyond the first 200 are one, named other. Every process that runs processors tells the same.", []string{"journey", "version"}, nil)}
}

// Describe implements prometheus.Collector.
func (l *liveRuns) Describe(out chan<- *prometheus.Desc) { out <- l.live }

// Collect implements prometheus.Collector. While Postgres does not answer there are no figures.
func (l *liveRuns) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	counts, err := l.db.JourneyCounts(ctx, "")
	if err != nil {
		l.log.Debug("journeys.figures_failed", zap.Error(err))
		return
	}
	other := int64(0)
	live := liveByVersion(counts)
	versions := slices.SortedFunc(maps.Keys(live), compareVersions)
	for i, v := range versions {
		if i >= maxVersionFigures {
			other += live[v]
			continue
		}
		out <- prometheus.MustNewConstMetric(l.live, prometheus.GaugeValue, float64(live[v]), v[0], v[1])
	}
	if len(versions) > maxVersionFigures {
		out <- prometheus.MustNewConstMetric(l.live, prometheus.GaugeValue, float64(other), "other", "other")
	}
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
