package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestTheDoctorSaysWhatStandsStillOfDerivedState(t *testing.T) {
	for name, c := range map[string]struct {
		found finding
		says  string // what is wrong; "" for nothing
		note  string // when nothing is
	}{
		"timers in time":           {judgeTimers(time.Second, "identity, partition 1"), "", "none is late"},
		"timers late":              {judgeTimers(31*time.Second, ""), "due for 31s and not sent", ""},
		"timers wait":              {judgeTimers(31*time.Second, "identity, partition 1"), "waiting for identity, partition 1, an hour at most", ""},
		"taken over":               {judgeTakeOver("buckets", []loop.ProcessorPartition{{}}), "", "nothing waits"},
		"a take-over goes on":      {judgeTakeOver("buckets", []loop.ProcessorPartition{{TakingOver: true}, {}}), "", "on 1 partition"},
		"a take-over waits":        {judgeTakeOver("buckets", []loop.ProcessorPartition{{TakingOver: true, Waits: "that"}}), "buckets waits: that", ""},
		"nobody to fill":           {judgeFilling("buckets", []storage.FillPart{{}}, 3), "", "as the definitions in use say"},
		"no definitions":           {judgeFilling("buckets", []storage.FillPart{{First: "c"}}, 0), "", "as the definitions in use say"},
		"filled":                   {judgeFilling("buckets", parts(5, 5, 0, true, time.Hour), 3), "", "as the definitions in use say"},
		"a filling goes on":        {judgeFilling("buckets", parts(2, 5, 0, false, 10*time.Second), 3), "", "at 2 of 5 contacts with version 3, on 1 partition still"},
		"a filling has not begun":  {judgeFilling("buckets", []storage.FillPart{{First: "c"}}, 3), "", "on 1 partition still"},
		"a filling stands still":   {judgeFilling("buckets", parts(2, 5, 0, false, 3*time.Minute), 3), "buckets has not moved for 3m0s on partition 0, at 2 of 5 contacts", ""},
		"some could not be filled": {judgeFilling("buckets", parts(5, 5, 2, true, time.Hour), 3), "2 contacts could not be filled by buckets", ""},
		"it is being taken over":   {judgeFilling("buckets", []storage.FillPart{{Fill: storage.Fill{Version: 3}, First: "c", TakingOver: true, Still: time.Hour}}, 3), "", "still"},
	} {
		if c.says == "" {
			require.True(t, c.found.OK, "%s: %+v", name, c.found)
			require.Contains(t, c.found.Note, c.note, name)
			continue
		}
		require.False(t, c.found.OK, name)
		require.Contains(t, c.found.Note, c.says, name)
		require.NotEmpty(t, c.found.Fix, name)
	}
}

// parts is one partition that is passed with version 3.
func parts(passed, total, behind int64, done bool, still time.Duration) []storage.FillPart {
	return []storage.FillPart{{Fill: storage.Fill{Version: 3, Passed: passed, Total: total, Behind: behind, Done: done}, First: "c", Still: still}}
}

// A timer that was due an hour ago, and a record that waits for one that never comes.
func TestTheDoctorFindsLateTimersAndRecordsThatWait(t *testing.T) {
	env := streamtest.New(t, streamtest.FakeOnly(), streamtest.Partitions(1))
	cfg, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	cfg.Kafka.Brokers, cfg.Kafka.Prefix, cfg.Kafka.Partitions, cfg.Database.URL = env.Config.Brokers, env.Config.Prefix, 1, storagetest.URL(t)
	db, err := storage.Open(t.Context(), storage.Config{URL: cfg.Database.URL})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	ill := func() map[string]string {
		found := map[string]string{}
		for _, f := range derivedFindings(t.Context(), cfg, db) {
			if !f.OK {
				found[f.What] = f.Note
			}
		}
		return found
	}
	require.Empty(t, ill())

	const contact = "00000000-0000-4000-8000-000000000001"
	hour := time.Now().Add(-time.Hour)
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.SaveDerived(t.Context(), buckets.Name, &storage.DerivedChanges{
			Contacts: []*storage.Derived{{ContactID: contact, Seq: 1}},
			Armed:    []storage.Timer{{ContactID: contact, What: "due", Due: hour, ArmedAt: hour, Epoch: 1}},
			Held:     []storage.HeldRecord{{ContactID: contact, Topic: string(schemas.TopicEvents), Seq: 3, Headers: storage.HeldHeaders{AppendTime: hour}}},
		})
	}))
	_, err = storagetest.SQL(db).Exec(t.Context(), `UPDATE derived_held SET held_at = $1`, hour)
	require.NoError(t, err)
	found := ill()
	require.Len(t, found, 2)
	require.Contains(t, found["timers"], "due for 1h0m0s and not sent")
	require.Contains(t, found["held"], "1 record of buckets waited more than a minute for those before them, longest of contact "+contact)
}
