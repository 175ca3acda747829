package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/examples/shop"
)

// bucketMoves is what became of a bucket over the whole clickstream.
type bucketMoves struct {
	Bucket  string    `json:"bucket"`
	Entered int       `json:"entered"`
	Left    int       `json:"left"`
	Members int       `json:"members"` // at the time of the last event
	Live    liveMoves `json:"live"`
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
