package hogstream

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

const vip = "id: vip\nname: VIP\nenabled: true\ncriteria: {type: property, property: plan, operator: eq, value: pro}\n"

func definitionsDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "buckets"), 0o700))
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "buckets", name), []byte(text), 0o600))
	}
	return dir
}

// appOn is an App as far as definitions need one.
func appOn(t *testing.T, db *storage.DB, cfg DefinitionsConfig, with ...Option) *App {
	t.Helper()
	a := &App{db: db}
	a.cfg.Definitions, a.cfg.Instance = cfg, "test"
	for _, option := range with {
		option(&a.added)
	}
	var err error
	a.tel, err = NewTelemetry(t.Context(), LogConfig{Level: "error", Format: "json"}, "test")
	require.NoError(t, err)
	t.Cleanup(func() { _ = a.tel.Close(t.Context()) })
	require.NoError(t, a.startDefinitions(t.Context()))
	return a
}

func (a *App) figure(t *testing.T, name string) float64 {
	t.Helper()
	families, err := a.tel.Metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no figure %s", name)
	return 0
}

func TestServeAppliesFilesOnlyWhenItIsToldToAndSaysHowTheyDiffer(t *testing.T) {
	db, dir := storagetest.New(t), definitionsDir(t, map[string]string{"vip.yaml": vip})
	a := appOn(t, db, DefinitionsConfig{Dir: dir})
	require.Zero(t, a.definitions.Set().Version)
	a.compareDefinitions(a.definitions.Set())
	require.InDelta(t, 1, a.figure(t, "hogstream_definitions_differing"), 0)

	b := appOn(t, db, DefinitionsConfig{Dir: dir, Apply: true})
	require.EqualValues(t, 1, b.definitions.Set().Version)
	require.NotNil(t, b.definitions.Set().Find("vip"))
	require.Equal(t, "test", b.definitions.Set().AppliedBy)
	b.compareDefinitions(b.definitions.Set())
	require.Zero(t, b.figure(t, "hogstream_definitions_differing"))
	require.InDelta(t, 1, b.figure(t, "hogstream_definitions_version"), 0)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "buckets", "vip.yaml"), []byte("id: vip\n"), 0o600))
	b = appOn(t, db, DefinitionsConfig{Dir: dir, Apply: true})
	require.NotNil(t, b.definitions.Set().Find("vip"), "a start with a bad file takes nothing away, and is none that fails")
	require.InDelta(t, 1, b.figure(t, "hogstream_definitions_failing_files"), 0)
	require.Positive(t, b.figure(t, "hogstream_definitions_failing_seconds"))
	problems, err := testutil.GatherAndLint(b.tel.Metrics, "hogstream_definitions_version", "hogstream_definitions_differing", "hogstream_definitions_failing_files", "hogstream_definitions_failing_seconds")
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestBucketsThatAProgramDefinesAreInUseOnceItHasStarted(t *testing.T) {
	db := storagetest.New(t)
	keen := definition.Bucket{ID: "keen", Name: "Keen", Enabled: true, Criteria: predicate.Event("catalog").Within(predicate.Days(7)).AtLeast(10)}
	a := appOn(t, db, DefinitionsConfig{}, WithBuckets(keen))
	require.NotNil(t, a.definitions.Set().Find("keen"))
	require.EqualValues(t, 1, appOn(t, db, DefinitionsConfig{}, WithBuckets(keen)).definitions.Set().Version)

	// Files of an instance that only compares are not applied with them.
	dir := definitionsDir(t, map[string]string{"vip.yaml": vip})
	a = appOn(t, db, DefinitionsConfig{Dir: dir}, WithBuckets(keen))
	require.Nil(t, a.definitions.Set().Find("vip"))
	a = appOn(t, db, DefinitionsConfig{Dir: dir, Apply: true}, WithBuckets(keen))
	require.NotNil(t, a.definitions.Set().Find("vip"))
	require.EqualValues(t, 3, appOn(t, db, DefinitionsConfig{}, WithBuckets()).definitions.Set().Version)
	a = appOn(t, db, DefinitionsConfig{}, WithBuckets(keen), WithEnrichments(definition.Enrichment{ID: "company", Name: "Company", When: predicate.Prop("domain").Exists(), Destination: "crm", Map: "."}))
	require.NotNil(t, a.definitions.Set().Find("keen"))
	require.Equal(t, "company", a.definitions.Set().Enrichments[0].ID)
}
