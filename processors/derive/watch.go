package derive

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Watch tells which processors hold records for those before them that do not come: a
// fault that nobody would see otherwise, for the processor has no lag.
type Watch struct {
	db      *storage.DB
	lag     Lag
	log     *zap.Logger
	waiting *prometheus.GaugeVec
}

// Lag says which group has not read everything of a topic that was appended before a time,
// and "" when all have. Implemented by *stream.Admin.
type Lag interface {
	Behind(ctx context.Context, groups map[string]schemas.Topic, before time.Time) (string, error)
}

// NewWatch makes a Watch. Its figure is registered on reg unless that is nil.
func NewWatch(db *storage.DB, lag Lag, log *zap.Logger, reg prometheus.Registerer) (*Watch, error) {
	w := &Watch{db: db, lag: lag, log: log, waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "hogstream", Subsystem: "derive", Name: "waiting_records",
		Help: "Records that have waited a minute for those before them in the order of their contact, though both topics were read past them.",
	}, []string{"processor"})}
	if reg != nil {
		if err := reg.Register(w.waiting); err != nil {
			return nil, fmt.Errorf("derive: register figures: %w", err)
		}
	}
	return w, nil
}

// waitsLong is after how long it is a fault that a record waits, and how often it is looked for.
const waitsLong = time.Minute

// Run looks once a minute until ctx ends, and returns nil then.
func (w *Watch) Run(ctx context.Context) error {
	ticker := time.NewTicker(waitsLong)
	defer ticker.Stop()
	for {
		if err := w.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			w.log.Warn("derive.watch_failed", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (w *Watch) look(ctx context.Context, now time.Time) error {
	all, err := Waiting(ctx, w.db, w.lag, now)
	if err != nil {
		return err
	}
	w.waiting.Reset()
	for _, waiting := range all {
		w.waiting.WithLabelValues(waiting.Processor).Set(float64(waiting.Records))
		w.log.Warn("derive.records_wait", zap.String("processor", waiting.Processor), zap.Int64("records", waiting.Records),
			zap.String("contact", waiting.ContactID), zap.Time("appended", waiting.Appended))
	}
	return nil
}

// Waiting are the processors of which records have waited for a minute, by then, for those
// before them in the order of their contact, though both topics were read past them.
func Waiting(ctx context.Context, db *storage.DB, lag Lag, now time.Time) (faults []storage.Waiting, err error) {
	all, err := db.WaitingRecords(ctx, now.Add(-waitsLong))
	if err != nil {
		return nil, err
	}
	for _, waiting := range all {
		comes, err := mayCome(ctx, lag, waiting)
		if err != nil {
			return nil, err
		}
		if !comes {
			faults = append(faults, waiting)
		}
	}
	return faults, nil
}

// mayCome says that a topic was not yet read past what waits longest.
func mayCome(ctx context.Context, lag Lag, waiting storage.Waiting) (bool, error) {
	for _, topic := range Topics() {
		behind, err := lag.Behind(ctx, map[string]schemas.Topic{waiting.Processor: topic}, waiting.Appended)
		if err != nil || behind != "" {
			return behind != "", err
		}
	}
	return false, nil
}
