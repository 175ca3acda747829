package hogstream_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
)

func TestNewSaysWhatIsWrongWithOwnBuckets(t *testing.T) {
	cfg := servingConfig(t)
	keen := definition.Bucket{ID: "keen", Name: "Keen", Enabled: true, Criteria: predicate.Event("catalog").Exists()}
	_, err := hogstream.New(cfg, hogstream.WithBuckets(keen))
	require.NoError(t, err)
	_, err = hogstream.New(cfg, hogstream.WithBuckets(keen), hogstream.WithBuckets(keen))
	require.ErrorContains(t, err, `bucket "keen": id: stands in another bucket built in Go too`)

	cfg.Definitions.Dir = t.TempDir()
	save := func(text string) {
		require.NoError(t, os.MkdirAll(filepath.Join(cfg.Definitions.Dir, "buckets"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(cfg.Definitions.Dir, "buckets", "b.yaml"), []byte(text), 0o600))
	}
	save("id: keen\nname: Keen\nenabled: true\nkind: manual\n")
	_, err = hogstream.New(cfg, hogstream.WithBuckets(keen))
	require.ErrorContains(t, err, filepath.Join("buckets", "b.yaml")+" too: ids are unique")
	save("id: other\n")
	_, err = hogstream.New(cfg, hogstream.WithBuckets(keen))
	require.NoError(t, err, "a fault of a file is no reason not to start")
	cfg.Database.EventsMode = "none"
	_, err = hogstream.New(cfg, hogstream.WithBuckets(keen))
	require.ErrorContains(t, err, "EVENTS_MODE=none stores none")
	cfg.Definitions.Dir = filepath.Join(cfg.Definitions.Dir, "none")
	_, err = hogstream.New(cfg)
	require.ErrorContains(t, err, "no directory of definitions")
	cfg.Definitions.Dir, cfg.Definitions.Apply = "", true
	_, err = hogstream.New(cfg)
	require.ErrorContains(t, err, "DEFINITIONS_DIR is not")
}

func TestATimeZoneThatIsNoneIsNamedBeforeServing(t *testing.T) {
	cfg := servingConfig(t)
	zone, err := cfg.Zone()
	require.NoError(t, err)
	require.Equal(t, time.UTC, zone)
	for _, name := range []string{"Local", "", "Europe/Bärlin", "+02:00"} {
		cfg.Data.TimeZone = name
		require.ErrorContains(t, cfg.ValidateServing(), "TIME_ZONE: \""+name+"\" is no time zone: write an IANA name such as Europe/Berlin")
	}
}

func TestADevelopersInstanceAppliesDefinitionsAtEachSave(t *testing.T) {
	cfg := devConfig(t)
	cfg.Roles = []hogstream.Role{hogstream.RoleIngest}
	cfg.Definitions.Dir = t.TempDir()
	buckets := filepath.Join(cfg.Definitions.Dir, "buckets")
	require.NoError(t, os.Mkdir(buckets, 0o700))
	save := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(buckets, name), []byte(text), 0o600))
	}
	const staff = "id: staff\nname: Staff\nenabled: true\nkind: manual\n"
	save("staff.yaml", staff)
	applied := make(chan *definition.Outcome, 100)
	until := func(what string, is func(*definition.Outcome) bool) {
		for deadline := time.After(20 * time.Second); ; {
			select {
			case out := <-applied:
				if is(out) {
					return
				}
			case <-deadline:
				require.Fail(t, "not applied", what)
			}
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	own := definition.Bucket{ID: "own", Name: "Own", Enabled: true, Kind: definition.KindManual}
	require.NoError(t, hogstream.RunDev(ctx, cfg, func(*hogstream.Running) {
		defer stop()
		until("at the start", func(o *definition.Outcome) bool {
			return o.Set.Version == 1 && o.Set.Find("staff") != nil && o.Set.Find("own") != nil
		})
		save("friends.yaml", "id: friends\nname: Friends\nenabled: true\nkind: manual\n")
		until("another file", func(o *definition.Outcome) bool {
			return len(o.Changes) == 1 && o.Changes[0].String() == "friends: added"
		})
		save("pros.yaml", "id: pros\nname: Pros\nenabled: true\ncriteria: {type: property, property: plan, operator: eq, value: pro}\n")
		until("with who would enter", func(o *definition.Outcome) bool {
			return len(o.Changes) == 1 && o.Members != nil && o.Members.Whole && len(o.Members.Effects) == 1 && o.Members.Effects[0].Bucket == "pros"
		})
		save("staff.yaml", staff+"enbled: true\n")
		until("a fault", func(o *definition.Outcome) bool {
			return !o.Changed && o.Set.FailingOf(definition.BucketRef("staff")) != nil && o.Set.Find("staff") != nil
		})
		save("staff.yaml", staff+"maxDwell: 1h\n")
		until("mended", func(o *definition.Outcome) bool {
			return len(o.Changes) == 1 && o.Changes[0].String() == "staff: changed (maxDwell)" && len(o.Set.Failing) == 0
		})
		require.NoError(t, os.Remove(filepath.Join(buckets, "friends.yaml")))
		until("removed", func(o *definition.Outcome) bool {
			return len(o.Changes) == 1 && o.Changes[0].String() == "friends: removed"
		})
	}, hogstream.WithBuckets(own), hogstream.WithDefinitionsApplied(func(out *definition.Outcome, err error) {
		if err == nil {
			applied <- out
		}
	})))
}
