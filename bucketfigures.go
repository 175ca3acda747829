package hogstream

import (
	"context"
	"maps"
	"slices"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
)

// newBucketMembers tells how many members each bucket has.
func newBucketMembers(db *storage.DB, log *zap.Logger) *keptFigures {
	return newKeptFigures("hogstream_buckets_members",
		"Members of a bucket; those beyond the first 200 are one, named other. Every process that runs processors tells the same.", []string{"bucket"},
		func(err error) { log.Debug("buckets.figures_failed", zap.Error(err)) },
		func(ctx context.Context) (all []keptFigure, err error) {
			counts, err := db.BucketCounts(ctx)
			for _, id := range slices.Sorted(maps.Keys(counts)) {
				all = append(all, keptFigure{[]string{id}, counts[id].Active})
			}
			return all, err
		})
}
