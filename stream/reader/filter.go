package reader

import (
	"bytes"
	"errors"
	"slices"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

type LogRange struct {
	Key      LogKey
	ID       uuid.UUID // of the topic; zero when the brokers report none
	From, To int64
}

// Wanted is which records a destination or a backfill takes.
type Wanted struct {
	Subscription schemas.Subscription
	Types        *schemas.Subscription // narrows it further
	Keys         [][]byte
	// Ranges of offsets [from, to) that were delivered are not wanted.
	Finished map[LogKey][]int64
}

func (w *Wanted) TakesType(typ string) bool {
	return w.Subscription.Matches(typ) && (w.Types == nil || w.Types.Matches(typ))
}

func (w *Wanted) TakesKey(key []byte) bool {
	return len(w.Keys) == 0 || slices.ContainsFunc(w.Keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

func (w *Wanted) TakesOffset(key LogKey, offset int64) bool {
	pairs := w.Finished[key]
	i, found := slices.BinarySearch(pairs, offset)
	return found && i%2 == 1 || !found && i%2 == 0
}

func IsOutOfRange(err error) bool { return errors.Is(err, kerr.OffsetOutOfRange) }

func OffsetIn(places []storage.CursorStart, like storage.CursorStart) int64 {
	for _, p := range places {
		if p.Topic == like.Topic && p.Partition == like.Partition {
			return p.Offset
		}
	}
	return like.Offset
}
