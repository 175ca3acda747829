package journeys_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// J12: a version that runs may belong to and that a process does not have is a figure.
func TestAVersionThatAProcessCannotRunIsAFigure(t *testing.T) {
	t.Parallel()
	db, reg := storagetest.New(t), prometheus.NewRegistry()
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	files, err := definition.Read([]definition.Text{{Name: "journeys/b.yaml", Text: written("b", "version: \"2\"\ntrigger: {event: start}\nsteps: [{wait: 1h}]\n")}}, opts)
	require.NoError(t, err)
	_, err = definition.Apply(t.Context(), db, files, opts, "test")
	require.NoError(t, err)
	frame, err := journeys.New(journeys.Options{Limits: opts.Limits}, schemas.NewCodec(), reg)
	require.NoError(t, err)
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		_, _, err := tx.KeepJourneyVersions(t.Context(), []storage.JourneyVersion{{JourneyID: "b", Version: "1", Definition: `{"of":"another release"}`}})
		return err
	}))
	var filling derive.Filling = frame
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		_, err := filling.FillVersion(t.Context(), tx)
		return err
	}))
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP hogstream_journeys_version_missing Whether this process cannot run a version of a journey that is in use or that runs may belong to: 1, or 0. At most 200 versions.
# TYPE hogstream_journeys_version_missing gauge
hogstream_journeys_version_missing{journey="b",version="1"} 1
hogstream_journeys_version_missing{journey="b",version="2"} 0
`), "hogstream_journeys_version_missing"))
	kept, err := db.JourneyVersions(t.Context())
	require.NoError(t, err)
	missing := journeys.Missing(kept, journeys.Options{Limits: opts.Limits})
	require.Len(t, missing, 1)
	require.Error(t, missing["b@1"])
}

func TestExitsAndSkipsAreCountedByReason(t *testing.T) {
	t.Parallel()
	db, reg := storagetest.New(t), prometheus.NewRegistry()
	p, err := journeys.NewProcessor(journeys.Options{Limits: predicate.DefaultLimits()}, reg)
	require.NoError(t, err)
	s := newStage(t, strings.Replace(written("b", "trigger: {event: start}\nexitOn: [{event: paid}]\nsteps: [{wait: 1h}]\n"), "unlimited", "once", 1))
	for _, name := range []string{"start", "start", "paid"} {
		s.event(name)
		require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
			return p.Save(t.Context(), tx, []derive.Change[journeys.State]{{ContactID: s.id, State: s.stepped}})
		}))
	}
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP hogstream_journeys_reasons_total Runs that exited and triggers that did not enrol (kind exited, skipped), by journey and reason; of these pairs those beyond the first 200 have the reason other. A batch that is run again counts again.
# TYPE hogstream_journeys_reasons_total counter
hogstream_journeys_reasons_total{journey="b",kind="exited",reason="paid"} 1
hogstream_journeys_reasons_total{journey="b",kind="skipped",reason="already_entered_once"} 1
`), "hogstream_journeys_reasons_total"))
}
