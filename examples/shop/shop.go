// Package shop is the clickstream of an online shop, for the demo and for tests.
package shop

import (
	"bytes"
	"embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"
)

//go:embed online-shop-events.csv
var file []byte

//go:embed definitions
var definitions embed.FS

// Definitions are buckets for the shop: a directory of definitions.
func Definitions() fs.FS {
	dir, err := fs.Sub(definitions, "definitions")
	if err != nil {
		panic(err) // it is embedded
	}
	return dir
}

// Event is one line of the clickstream.
type Event struct {
	UserID string
	Name   string
	Time   time.Time
}

// Events returns all events in the order they happened; those of one instant in
// the file's order.
func Events() ([]Event, error) {
	r := csv.NewReader(bytes.NewReader(file))
	if _, err := r.Read(); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	var events []Event
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			slices.SortStableFunc(events, func(a, b Event) int { return a.Time.Compare(b.Time) })
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		t, err := time.Parse("2006-01-02 15:04:05.999999", row[2])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(events)+2, err)
		}
		events = append(events, Event{UserID: row[0], Name: row[1], Time: t})
	}
}
