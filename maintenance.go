package hogstream

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// maintain makes the partitions of the days to come and removes what is no
// longer needed: each kind of row by bounded statements of its own, so that no
// table is locked long.
func (a *App) maintain(ctx context.Context) error {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		a.maintainOnce(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

const (
	answersKept = 10 * time.Minute
	// Runs of journeys that ended are shown so long; their counters stay, and their story
	// stands on the log. A version that was just superseded may still be given a run.
	runsKept     = 90 * 24 * time.Hour
	versionsKept = time.Hour
	// What guards against a record outlives its topic's retention, which brokers
	// apply late.
	beyondRetention      = 7 * 24 * time.Hour
	cleanAtOnce          = 10_000
	partitionsAhead      = 3
	mostPartitionsBehind = 31 // days
)

// ages say how old each kind of row gets; forever is never removed.
type ages struct {
	keys    time.Duration // idempotency keys
	removed time.Duration // what a merge is not to bring back
	erased  time.Duration // hashes of erased identifiers
	marks   time.Duration // of contacts that ended
	letters time.Duration // marks of dead letters
	outbox  time.Duration // notes that outbox records were taken back
	events  time.Duration
}

const forever time.Duration = -1

// longest is the longest of retentions, of which a negative one is for ever.
func longest(retentions ...time.Duration) time.Duration {
	var most time.Duration
	for _, r := range retentions {
		if r < 0 {
			return forever
		}
		most = max(most, r)
	}
	return most
}

// plus adds to a retention; for ever stays so.
func plus(retention, more time.Duration) time.Duration {
	if retention < 0 {
		return forever
	}
	return retention + more
}

// ages follow from the retentions of topics: a row is needed as long as a record can
// come that it is about, from the log or redriven from a dead letter.
func (c *Config) ages() ages {
	k := c.Kafka
	topics := slices.Collect(maps.Values(k.Retention()))
	return ages{
		// Keys bear the time of their record, which may have waited on the log.
		keys:    plus(longest(k.RetentionIngest), cmp.Or(c.HTTP.IdempotencyTime, 24*time.Hour)+time.Hour),
		removed: plus(longest(k.RetentionResolved), beyondRetention),
		erased:  plus(longest(k.RetentionIngest, k.RetentionLetters), beyondRetention),
		marks:   plus(longest(topics...), beyondRetention),
		letters: plus(longest(k.RetentionLetters), beyondRetention),
		outbox:  plus(longest(k.RetentionEvents), beyondRetention),
		events:  longest(c.Database.EventsRetention),
	}
}

// daysBehind is how long ago an event may have been received that is still to be
// stored, in days.
func (c *Config) daysBehind() int {
	const day = 24 * time.Hour
	behind := mostPartitionsBehind
	for _, d := range []time.Duration{c.Kafka.RetentionIngest, c.Database.EventsRetention} {
		if d >= 0 {
			behind = min(behind, int(d/day))
		}
	}
	return behind
}

// clearErased clears what tables still hold of people who were erased: at once when
// somebody is, again when what was under way then has ended and is written, and once more
// a while later. It reads the whole delivery log, so it rests for long after it took long.
func (a *App) clearErased(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	var hearing sync.WaitGroup
	defer hearing.Wait()
	hearing.Go(func() {
		_ = a.db.Listen(ctx, storage.ChannelErased, func(string) {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
	})
	const written = 2 * time.Second // after an attempt ended
	for next := time.Minute; ; {
		began := time.Now()
		if _, err := a.db.ClearErased(ctx, began); err != nil && ctx.Err() == nil {
			a.tel.Logger.Warn("erasure.not_cleared", zap.Error(err))
		}
		rest := time.NewTimer(clearingRests * time.Since(began))
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
		again := time.NewTimer(next)
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			next = time.Minute
		case <-wake:
			next = a.cfg.Delivery.Timeout + written
		}
	}
}

// placeContacts fills in the partitions of contacts and marks that a release before wrote,
// which may still run beside this one.
func (a *App) placeContacts(ctx context.Context) error {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		if err := a.placeOnce(ctx); err != nil && ctx.Err() == nil {
			a.tel.Logger.Warn("contacts.not_placed", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (a *App) placeOnce(ctx context.Context) error {
	n, err := a.admin.ContactPartitions(ctx)
	if err != nil {
		return err
	}
	for placed := 1; placed > 0 && err == nil; {
		placed, err = a.db.PlaceContacts(ctx, func(id string) int32 { return stream.PartitionOf([]byte(id), n) }, cleanAtOnce)
	}
	return err
}

// clearingRests is how many times as long as it took the clearing rests.
const clearingRests = 9

func (a *App) maintainOnce(ctx context.Context, now time.Time) {
	keep, behind := a.cfg.ages(), a.cfg.daysBehind()
	for _, task := range []struct {
		what string
		run  func() error
	}{
		{"partitions of events", func() error {
			return a.db.CreateEventPartitions(ctx, now.AddDate(0, 0, -behind), behind+partitionsAhead)
		}},
		{"answers", a.clean(ctx, now, answersKept, a.db.CleanAnswers)},
		{"properties removed by merges", a.clean(ctx, now, keep.removed, a.db.CleanPendingAnswers)},
		{"idempotency keys", a.clean(ctx, now, keep.keys, a.db.CleanIdempotencyKeys)},
		{"erased identifiers", a.clean(ctx, now, keep.erased, a.db.CleanErasedIdentifiers)},
		{"contact marks", a.clean(ctx, now, keep.marks, a.db.CleanContactMarks)},
		{"marks of derived processors", a.clean(ctx, now, keep.marks, a.db.CleanDerivedMarks)},
		{"marks of dead letters", a.clean(ctx, now, keep.letters, a.db.CleanLetterMarks)},
		{"what is left of outbox records", a.clean(ctx, now, keep.outbox, a.db.CleanOutbox)},
		{"partitions of old events", func() error {
			if keep.events < 0 {
				return nil
			}
			_, err := a.db.DropEventPartitions(ctx, now.Add(-keep.events))
			return err
		}},
		{"finished runs of journeys", a.clean(ctx, now, runsKept, a.db.CleanJourneyRuns)},
		{"versions of journeys", func() error {
			_, err := a.db.DropJourneyVersions(ctx, now.Add(-versionsKept))
			return err
		}},
		{"audit entries", a.clean(ctx, now, longest(a.cfg.Database.AuditRetention), a.db.CleanAudit)},
		{"events outside of partitions", a.clean(ctx, now, keep.events, a.db.CleanUnpartitionedEvents)},
	} {
		if err := task.run(); err != nil && ctx.Err() == nil {
			a.tel.Logger.Warn("maintenance.failed", zap.String("what", task.what), zap.Error(err))
		}
	}
}

// clean calls a function, of rows that get so old, until it finds nothing more, or
// ctx ends.
func (a *App) clean(ctx context.Context, now time.Time, age time.Duration, f func(ctx context.Context, before time.Time, limit int) (int64, error)) func() error {
	return func() error {
		if age < 0 {
			return nil
		}
		for {
			n, err := f(ctx, now.Add(-age), cleanAtOnce)
			if err != nil || n < cleanAtOnce {
				return err
			}
		}
	}
}
