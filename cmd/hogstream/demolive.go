package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// liveMoves is what became of a bucket while the clicks came in at once, all of them dated
// back: what time ended between two of them was over when they came, and is not told. Nor
// is who joined by clicks that came before the processor had begun.
type liveMoves struct {
	Entered int `json:"entered"`
	Left    int `json:"left"`
	Members int `json:"members"`
	// P50 and P99 are how long after its event was accepted bucket.entered was on lifecycle.
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

// liveRuns is what became of a journey meanwhile; its waits go on from now.
type liveRuns struct {
	Started int `json:"started"`
	// P50 and P99 are how long after the event behind its trigger was accepted journey.started
	// was on lifecycle.
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

// live is what stands on the log about buckets and journeys.
type live struct {
	kafka   stream.Config
	codec   *schemas.Codec
	buckets map[string]*liveMoves
	runs    map[string]*liveRuns

	accepted map[string]time.Time       // when each event was
	causes   map[string]string          // the event behind each bucket.entered
	after    map[string][]time.Duration // how long after its event a fact was there, by bucket or journey
}

// addLive waits until everything is handled, and reads from the log what was told.
func addLive(ctx context.Context, cfg hogstream.Config, running *hogstream.Running, moves []bucketMoves, went []journeyMoves) error {
	running.FillIn(&cfg)
	codec, err := cfg.Codec()
	if err != nil {
		return err
	}
	l := &live{
		kafka: cfg.StreamConfig(), codec: codec, buckets: map[string]*liveMoves{}, runs: map[string]*liveRuns{},
		accepted: map[string]time.Time{}, causes: map[string]string{}, after: map[string][]time.Duration{},
	}
	l.kafka.Contents = codec
	for i := range moves {
		l.buckets[moves[i].Bucket] = &moves[i].Live
	}
	for i := range went {
		l.runs[went[i].Journey] = &went[i].Live
	}
	if err := l.wait(ctx); err != nil {
		return err
	}
	if err := l.read(ctx); err != nil {
		return err
	}
	l.sum()
	return countMembers(ctx, running, l.buckets)
}

// wait waits until buckets have handled the clicks, and journeys those and what buckets said.
func (l *live) wait(ctx context.Context) error {
	for _, reads := range []map[string]schemas.Topic{
		{buckets.Name: schemas.TopicEvents}, {journeys.Name: schemas.TopicEvents}, {journeys.Name: schemas.TopicLifecycle},
	} {
		if err := waitFor(ctx, l.kafka, reads, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// waitFor waits until processors have handled what was appended before a time.
func waitFor(ctx context.Context, kafka stream.Config, reads map[string]schemas.Topic, before time.Time) error {
	admin, err := stream.OpenAdmin(kafka, zap.NewNop())
	if err != nil {
		return err
	}
	defer admin.Close()
	for {
		behind, err := admin.Behind(ctx, reads, before)
		if err != nil || behind == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for processor %s: %w", behind, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// read reads the events, and then what was told after them.
func (l *live) read(ctx context.Context) error {
	err := l.tail(ctx, schemas.TopicEvents, func(r *stream.Record) error {
		e, err := l.codec.DecodeEvent(r.Value)
		if err == nil {
			l.accepted[e.ID] = e.ReceivedAt
		}
		return err
	})
	if err != nil {
		return err
	}
	return l.tail(ctx, schemas.TopicLifecycle, func(r *stream.Record) error {
		f, err := l.codec.DecodeFact(r.Value)
		if err == nil {
			l.take(f, r.AppendTime)
		}
		return err
	})
}

func (l *live) tail(ctx context.Context, topic schemas.Topic, fn func(*stream.Record) error) error {
	return reader.Tail(ctx, l.kafka, reader.TailOptions{Topics: []schemas.Topic{topic}}, zap.NewNop(), fn)
}

// take counts a fact. What a journey begins with stands before its start: on the log, facts of
// a contact are in order.
func (l *live) take(f *schemas.Fact, appended time.Time) {
	switch {
	case f.Bucket != nil && l.buckets[f.Bucket.BucketID] != nil:
		moves := l.buckets[f.Bucket.BucketID]
		switch f.Type {
		case schemas.FactBucketEntered:
			moves.Entered++
			l.causes[f.ID] = f.CauseID
			l.time("bucket "+f.Bucket.BucketID, f.CauseID, appended)
		case schemas.FactBucketLeft:
			moves.Left++
		}
	case f.Type == schemas.FactJourneyStarted && l.runs[f.Journey.JourneyID] != nil:
		l.runs[f.Journey.JourneyID].Started++
		event := *f.Journey.Trigger
		if cause, is := l.causes[event]; is {
			event = cause
		}
		l.time("journey "+f.Journey.JourneyID, event, appended)
	}
}

// time notes how long after an event something was there; not of what time brought about.
func (l *live) time(what, event string, appended time.Time) {
	if at, known := l.accepted[event]; known {
		l.after[what] = append(l.after[what], appended.Sub(at))
	}
}

func (l *live) sum() {
	for id, moves := range l.buckets {
		p := percentiles(l.after["bucket "+id], 0.50, 0.99)
		moves.P50, moves.P99 = p[0], p[1]
	}
	for id, runs := range l.runs {
		p := percentiles(l.after["journey "+id], 0.50, 0.99)
		runs.P50, runs.P99 = p[0], p[1]
	}
}

// countMembers asks how many members there are: those, too, who joined silently because
// their first events came before the processor began.
func countMembers(ctx context.Context, running *hogstream.Running, live map[string]*liveMoves) error {
	api, err := apiFlags{URL: running.URL, Key: running.APIKey}.client()
	if err != nil {
		return err
	}
	var list struct {
		Buckets []struct {
			ID     string `json:"id"`
			Counts struct {
				Active int `json:"active"`
			} `json:"counts"`
		} `json:"buckets"`
	}
	if err := api.call(ctx, "GET", "/v1/admin/buckets", nil, nil, &list); err != nil {
		return err
	}
	for _, b := range list.Buckets {
		if live[b.ID] != nil {
			live[b.ID].Members = b.Counts.Active
		}
	}
	return nil
}

// percentiles are those of latencies, which are sorted; zero without any.
func percentiles(latencies []time.Duration, of ...float64) []time.Duration {
	out := make([]time.Duration, len(of))
	slices.Sort(latencies)
	for i, q := range of {
		if len(latencies) > 0 {
			out[i] = latencies[min(len(latencies)-1, int(q*float64(len(latencies))))].Round(100 * time.Microsecond)
		}
	}
	return out
}
