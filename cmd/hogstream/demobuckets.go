package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/examples/shop"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// bucketMoves is what became of a bucket over the whole clickstream.
type bucketMoves struct {
	Bucket  string    `json:"bucket"`
	Entered int       `json:"entered"`
	Left    int       `json:"left"`
	Members int       `json:"members"` // at the time of the last event
	Live    liveMoves `json:"live"`
}

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

// countMoves sums the transitions of each bucket, in the order of the set.
func countMoves(set *definition.Set, moved []transition) []bucketMoves {
	counts := make([]bucketMoves, len(set.Buckets))
	at := map[string]*bucketMoves{}
	for i, b := range set.Buckets {
		counts[i].Bucket = b.ID
		at[b.ID] = &counts[i]
	}
	for _, m := range moved {
		switch c := at[m.bucket]; m.what {
		case "entered":
			c.Entered++
			c.Members++
		case "left":
			c.Left++
			c.Members--
		}
	}
	return counts
}

// lastIsNow dates the clicks so that the last one is now.
func lastIsNow(events []shop.Event, now time.Time) []shop.Event {
	events = slices.Clone(events)
	shift := now.Sub(events[len(events)-1].Time)
	for i := range events {
		events[i].Time = events[i].Time.Add(shift)
	}
	return events
}

// addLive waits until processor buckets has handled everything, and reads from the log who
// entered and left.
func addLive(ctx context.Context, cfg hogstream.Config, running *hogstream.Running, moves []bucketMoves) error {
	running.FillIn(&cfg)
	codec, err := cfg.Codec()
	if err != nil {
		return err
	}
	kafka := cfg.StreamConfig()
	kafka.Contents = codec
	if err := waitForBuckets(ctx, kafka, time.Now()); err != nil {
		return err
	}
	accepted := map[string]time.Time{} // by event
	entered := map[string][]time.Duration{}
	byID := map[string]*liveMoves{}
	for i := range moves {
		byID[moves[i].Bucket] = &moves[i].Live
	}
	read := func(topic schemas.Topic, fn func(*stream.Record) error) error {
		return reader.Tail(ctx, kafka, reader.TailOptions{Topics: []schemas.Topic{topic}}, zap.NewNop(), fn)
	}
	if err := read(schemas.TopicEvents, func(r *stream.Record) error {
		e, err := codec.DecodeEvent(r.Value)
		if err == nil {
			accepted[e.ID] = e.ReceivedAt
		}
		return err
	}); err != nil {
		return err
	}
	if err := read(schemas.TopicLifecycle, func(r *stream.Record) error {
		f, err := codec.DecodeFact(r.Value)
		if err != nil || f.Bucket == nil || byID[f.Bucket.BucketID] == nil {
			return err
		}
		live := byID[f.Bucket.BucketID]
		switch f.Type {
		case schemas.FactBucketEntered:
			live.Entered++
			if at, known := accepted[f.CauseID]; known {
				entered[f.Bucket.BucketID] = append(entered[f.Bucket.BucketID], r.AppendTime.Sub(at))
			}
		case schemas.FactBucketLeft:
			live.Left++
		}
		return nil
	}); err != nil {
		return err
	}
	for id, live := range byID {
		p := percentiles(entered[id], 0.50, 0.99)
		live.P50, live.P99 = p[0], p[1]
	}
	return countMembers(ctx, running, byID)
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

// waitForBuckets waits until what was appended before a time is handled.
func waitForBuckets(ctx context.Context, kafka stream.Config, before time.Time) error {
	admin, err := stream.OpenAdmin(kafka, zap.NewNop())
	if err != nil {
		return err
	}
	defer admin.Close()
	for {
		behind, err := admin.Behind(ctx, map[string]schemas.Topic{buckets.Name: schemas.TopicEvents}, before)
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

func printMoves(w io.Writer, moves []bucketMoves) {
	rows := make([][]string, len(moves))
	for i, m := range moves {
		rows[i] = []string{
			m.Bucket, fmt.Sprint(m.Entered), fmt.Sprint(m.Left), fmt.Sprint(m.Members),
			fmt.Sprint(m.Live.Entered), fmt.Sprint(m.Live.Left), fmt.Sprint(m.Live.Members), m.Live.P50.String(), m.Live.P99.String(),
		}
	}
	table(w, []string{"bucket", "entered", "left", "members", "live: entered", "left", "members", "event to bucket.entered p50", "p99"}, rows)
}
