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

// maxBucketFigures bounds how many buckets have a series of their own.
const maxBucketFigures = 200

// bucketMembers tells how many members each bucket has, from the counters that are kept
// beside them.
type bucketMembers struct {
	db      *storage.DB
	log     *zap.Logger
	members *prometheus.Desc
}

func newBucketMembers(db *storage.DB, log *zap.Logger) *bucketMembers {
	return &bucketMembers{db: db, log: log, members: prometheus.NewDesc("hogstream_buckets_members",
		"Members of a bucket; those beyond the first 200 are one, named other. Every process that runs processors tells the same.", []string{"bucket"}, nil)}
}

// Describe implements prometheus.Collector.
func (b *bucketMembers) Describe(out chan<- *prometheus.Desc) { out <- b.members }

// Collect implements prometheus.Collector. While Postgres does not answer there are no figures.
func (b *bucketMembers) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	counts, err := b.db.BucketCounts(ctx)
	if err != nil {
		b.log.Debug("buckets.figures_failed", zap.Error(err))
		return
	}
	other := int64(0)
	ids := slices.Sorted(maps.Keys(counts))
	for i, id := range ids {
		if i >= maxBucketFigures {
			other += counts[id].Active
			continue
		}
		out <- prometheus.MustNewConstMetric(b.members, prometheus.GaugeValue, float64(counts[id].Active), id)
	}
	if len(ids) > maxBucketFigures {
		out <- prometheus.MustNewConstMetric(b.members, prometheus.GaugeValue, float64(other), "other")
	}
}
