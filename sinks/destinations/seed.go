package destinations

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hogstream/hogstream/storage"
)

// Seed is a destination that the settings of the deployment ask for.
type Seed struct {
	// Name is that of the seed, and of the destination unless it is taken.
	Name, Kind, Description string
	EventTypes              []string
	// Config is what the destination begins with.
	Config map[string]any
	// Follow are the texts in Config that go on following the deployment's settings,
	// for as long as nobody else changed them.
	Follow []string
}

// Seeded is what became of a seed.
type Seeded string

// What becomes of a seed.
const (
	SeedMade    Seeded = "made"
	SeedChanged Seeded = "changed" // settings of the deployment were changed
	SeedKept    Seeded = "kept"    // all is as it was, or as an operator made it
	SeedExists  Seeded = "exists"  // there was one of its kind before
	SeedDeleted Seeded = "deleted" // an operator deleted it: it is not made again
)

// Seed makes a destination once and for all: whatever an operator changes stays,
// also that it was deleted, and when there is one of its kind already nothing is
// made. Settings that the seed follows are changed when the deployment's were, and
// nobody else changed them. It may be called by many processes at once.
func (o *Operations) Seed(ctx context.Context, s Seed) (done Seeded, err error) {
	err = o.db.InRetriedTx(ctx, func(tx *storage.Tx) error {
		before, err := tx.LockSeed(ctx, s.Name)
		switch {
		case err != nil:
			return err
		case before == nil:
			done, err = o.plant(ctx, tx, s)
		case before.DestinationID == nil:
			done = SeedExists
		default:
			done, err = o.tend(ctx, tx, s, before)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("seed destination %s: %w", s.Name, err)
	}
	return done, nil
}

// plant makes the destination and notes what it was given.
func (o *Operations) plant(ctx context.Context, tx *storage.Tx, s Seed) (Seeded, error) {
	list, err := o.store.List(ctx)
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(list, func(d *storage.Destination) bool { return d.Kind == s.Kind }) {
		return SeedExists, tx.SaveSeed(ctx, &storage.Seed{Name: s.Name, Settings: map[string]string{}})
	}
	config, err := json.Marshal(s.Config)
	if err != nil {
		return "", err
	}
	d := o.destinationOf(Settings{Name: s.Name, Kind: s.Kind, Description: &s.Description, EventTypes: s.EventTypes, Config: config})
	for n := 2; slices.ContainsFunc(list, func(other *storage.Destination) bool { return other.Name == d.Name }); n++ {
		d.Name = fmt.Sprintf("%s-%d", s.Name, n)
	}
	sub, err := o.check(ctx, d)
	if err != nil {
		return "", err
	}
	starts, err := o.ends.EndOffsets(ctx, sub.Topics()...)
	if err != nil {
		return "", fmt.Errorf("read ends of topics: %w", err)
	}
	if err := o.store.Insert(ctx, tx, d); err != nil {
		return "", err
	}
	if err := tx.CreateCursors(ctx, d.ID, starts); err != nil {
		return "", err
	}
	return SeedMade, tx.SaveSeed(ctx, &storage.Seed{Name: s.Name, DestinationID: &d.ID, Settings: s.hashes(d.ID)})
}

// tend follows the deployment's settings where the destination still has what it
// was given last.
func (o *Operations) tend(ctx context.Context, tx *storage.Tx, s Seed, before *storage.Seed) (Seeded, error) {
	d, err := o.find(ctx, *before.DestinationID)
	if errors.Is(err, ErrNotFound) {
		return SeedDeleted, nil
	}
	if err != nil || d.Unreadable != "" || d.Kind != s.Kind {
		return SeedKept, err
	}
	var config map[string]any
	if len(d.Config) > 0 {
		if err := json.Unmarshal(d.Config, &config); err != nil {
			return SeedKept, nil // an operator's
		}
	}
	done := SeedKept
	for _, name := range s.Follow {
		has, want := config[name], s.Config[name]
		if has == want || seedHash(d.ID, name, has) != before.Settings[name] {
			continue
		}
		if done = SeedChanged; want == nil {
			delete(config, name)
		} else {
			config[name] = want
		}
	}
	if done == SeedChanged {
		changed, err := json.Marshal(config)
		if err != nil {
			return "", err
		}
		d.Config = changed
		if _, err := o.check(ctx, d); err != nil {
			return "", err
		}
		if err := o.store.Update(ctx, tx, d); err != nil {
			return "", err
		}
		// What an operator changed is not followed any more, so its old hash stays.
		given := s.hashes(d.ID)
		for _, name := range s.Follow {
			if seedHash(d.ID, name, config[name]) == given[name] {
				before.Settings[name] = given[name]
			}
		}
		return done, tx.SaveSeed(ctx, before)
	}
	return done, nil
}

func (s *Seed) hashes(destinationID string) map[string]string {
	hashes := map[string]string{}
	for _, name := range s.Follow {
		hashes[name] = seedHash(destinationID, name, s.Config[name])
	}
	return hashes
}

// seedHash tells whether a value is the one that was given, without keeping it.
func seedHash(destinationID, name string, value any) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%v", destinationID, name, value))
	return hex.EncodeToString(sum[:])
}
