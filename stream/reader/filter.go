package reader

import (
	"bytes"
	"errors"
	"slices"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// LogRange is the offsets [From, To) of a log.
type LogRange struct {
	Key      stream.TopicPartition
	ID       uuid.UUID // of the topic; zero when the brokers report none
	From, To int64
}

// Wanted is which records a destination or a backfill takes.
type Wanted struct {
	Subscription schemas.Subscription
	Types        *schemas.Subscription // narrows it further
	Keys         [][]byte
	// Ranges of offsets [from, to) that were delivered are not wanted.
	Finished map[stream.TopicPartition][]int64
}

// TakesType says whether records of a type are wanted.
func (w *Wanted) TakesType(typ string) bool {
	return w.Subscription.Matches(typ) && (w.Types == nil || w.Types.Matches(typ))
}

// TakesKey says whether records of a key are wanted.
func (w *Wanted) TakesKey(key []byte) bool {
	return len(w.Keys) == 0 || slices.ContainsFunc(w.Keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

// TakesOffset says whether what stands at an offset is still to be delivered.
func (w *Wanted) TakesOffset(key stream.TopicPartition, offset int64) bool {
	pairs := w.Finished[key]
	i, found := slices.BinarySearch(pairs, offset)
	return found && i%2 == 1 || !found && i%2 == 0
}

// IsOutOfRange says that an offset lies outside the log: retention was faster.
func IsOutOfRange(err error) bool { return errors.Is(err, kerr.OffsetOutOfRange) }

// OffsetIn is the offset of places for the log of like; that of like when it is not among them.
func OffsetIn(places []storage.CursorStart, like storage.CursorStart) int64 {
	for _, p := range places {
		if p.Topic == like.Topic && p.Partition == like.Partition {
			return p.Offset
		}
	}
	return like.Offset
}
