package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/examples/shop"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestInitWritesDefinitionsWithoutFaultsAndLeavesWhatIsThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "own")
	text, err := said(t, "init", dir)
	require.NoError(t, err)
	require.Contains(t, text, "wrote "+filepath.Join(dir, "buckets", "keen.yaml"))
	require.Contains(t, text, "wrote "+filepath.Join(dir, definition.SchemaFiles()[0].Name))
	text, err = said(t, "check", dir)
	require.NoError(t, err)
	require.Equal(t, dir+": 4 buckets, 1 enrichment, 2 journeys, 5 tests, no faults\n", text)

	keen := filepath.Join(dir, "buckets", "keen.yaml")
	require.NoError(t, os.WriteFile(keen, []byte("# mine\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, definition.SchemaFiles()[0].Name), []byte("of another release"), 0o600))
	text, err = said(t, "init", dir)
	require.NoError(t, err)
	require.NotContains(t, text, "keen.yaml")
	mine, err := os.ReadFile(keen)
	require.NoError(t, err)
	require.Equal(t, "# mine\n", string(mine))
	schema, err := os.ReadFile(filepath.Join(dir, definition.SchemaFiles()[0].Name))
	require.NoError(t, err)
	require.Equal(t, string(definition.Schema), string(schema))
}

func TestADevelopersInstanceMakesDefinitionsOnlyWhereThereIsNoDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "definitions")
	require.NoError(t, makeDefinitions(dir))
	require.FileExists(t, filepath.Join(dir, "buckets", "buyers.yaml"))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "buckets")))
	require.NoError(t, makeDefinitions(dir))
	require.NoDirExists(t, filepath.Join(dir, "buckets"), "who took them away does not want them")
}

// The definitions that the shop comes with are about its clicks.
func TestTheShopsDefinitionsAskForEventsThatItSends(t *testing.T) {
	files, err := definition.LoadFS(shop.Definitions(), "shop", new(hogstream.Config).DefinitionOptions())
	require.NoError(t, err)
	require.Empty(t, files.Faults())
	sent, err := shop.Events()
	require.NoError(t, err)
	var ids []string
	for _, b := range files.Buckets {
		ids = append(ids, b.ID)
		for _, asked := range b.Criteria.Inputs().Events {
			require.True(t, slices.ContainsFunc(sent, func(e shop.Event) bool { return e.Name == asked.Name }), "%s asks for %s", b.ID, asked.Name)
		}
	}
	require.Equal(t, []string{"buyers", "cart-abandoned", "keen", "went-quiet"}, ids)
	quiet := files.Buckets[3].Criteria.Inputs().Events
	for _, e := range sent {
		require.True(t, slices.ContainsFunc(quiet, func(asked predicate.EventInput) bool { return asked.Name == e.Name }), "%s is something done", e.Name)
	}
	require.Len(t, files.Journeys, 2)
	require.Equal(t, "bucket.entered:cart-abandoned", files.Journeys[0].Trigger.Records[0].Event)
	for _, name := range []string{files.Journeys[0].Goal.Event, files.Journeys[1].Trigger.Records[0].Event, files.Journeys[1].Steps[0].WaitFor.Any[0].Match.Event} {
		require.True(t, slices.ContainsFunc(sent, func(e shop.Event) bool { return e.Name == name }), name)
	}
}

func TestCheckAndApplyRefuseDefinitionsWithFaults(t *testing.T) {
	dir, url := filepath.Join(t.TempDir(), "definitions"), storagetest.URL(t)
	require.NoError(t, makeDefinitions(dir))
	bad := filepath.Join(dir, "buckets", "bad.yaml")
	require.NoError(t, os.WriteFile(bad, []byte("id: bad\nname: Bad\nenabled: true\nkind: dynamc\n"), 0o600))
	text, err := said(t, "check", dir)
	require.EqualError(t, err, "2 faults in the definitions")
	require.Contains(t, text, bad+`:4:7: kind: "dynamc" is not known: did you mean "dynamic"?`)
	_, err = said(t, "apply", dir, "--yes", "--database-url", url)
	require.ErrorContains(t, err, bad+":4:7")
	require.ErrorContains(t, err, "nothing was applied")

	require.NoError(t, os.Remove(bad))
	text, err = said(t, "apply", dir, "--yes", "--database-url", url)
	require.NoError(t, err)
	require.Equal(t, dir+" is in use as version 1\n  added    buyers\n  added    cart-abandoned\n  added    keen\n  added    went-quiet\n  added    enrichment company\n  added    journey abandoned-cart\n  added    journey cart-of-a-visit\n", text)
	text, err = said(t, "apply", dir, "--yes", "--database-url", url)
	require.NoError(t, err)
	require.Equal(t, dir+": nothing changed, version 1 is in use\n", text)
	text, err = said(t, "check", dir, "--events-mode", "none")
	require.Error(t, err)
	require.Contains(t, text, "EVENTS_MODE=none stores none")
}

func TestTheDoctorComparesFilesWithWhatIsInUse(t *testing.T) {
	db, err := storage.Open(t.Context(), storage.Config{URL: storagetest.URL(t)})
	require.NoError(t, err)
	defer db.Close()
	cfg := hogstream.Config{}
	require.Equal(t, finding{What: "definitions", OK: true, Note: "version 0 with 0 buckets"}, definitionsFinding(t.Context(), cfg, db))
	cfg.Definitions.Dir = filepath.Join(t.TempDir(), "definitions")
	require.False(t, definitionsFinding(t.Context(), cfg, db).OK)
	require.NoError(t, makeDefinitions(cfg.Definitions.Dir))
	require.Contains(t, definitionsFinding(t.Context(), cfg, db).Note, "differs from version 0 with 0 buckets: buyers: added")
	files, err := load("", &cfg)
	require.NoError(t, err)
	_, err = definition.Apply(t.Context(), db, files, cfg.DefinitionOptions(), "test")
	require.NoError(t, err)
	require.True(t, definitionsFinding(t.Context(), cfg, db).OK)
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Definitions.Dir, "buckets", "keen.yaml"), []byte("id: keen\n"), 0o600))
	files, err = load("", &cfg)
	require.NoError(t, err)
	_, err = definition.Apply(t.Context(), db, files, cfg.DefinitionOptions(), "test")
	require.NoError(t, err)
	found := definitionsFinding(t.Context(), cfg, db)
	require.False(t, found.OK)
	require.Contains(t, found.Note, "buckets/keen.yaml has faults since ")
}
