package main

import (
	"strings"
	"testing"

	"github.com/hogstream/hogstream/stream/loop"

	"github.com/stretchr/testify/require"
)

func TestWhatIsStoppedIsSaidOnceForAllPartitionsWithTheCommands(t *testing.T) {
	var w strings.Builder
	d := destination{Name: "crm"}
	for _, p := range []int32{2, 0, 1, 7} {
		d.Stopped = append(d.Stopped, stoppedCursor{Topic: "events", Partition: p, Position: int64(p), Why: "made anew", Mend: "do this"})
	}
	d.Stopped = append(d.Stopped, stoppedCursor{Topic: "events", Partition: 3, ReplayID: "again", Why: "made anew", Mend: "do that"})
	d.printStopped(&w)
	require.Equal(t, "crm is stopped on events, partitions 0-2, 7: made anew\n"+
		"crm, backfill again, is stopped on events, partitions 3: made anew\n"+
		"crm: do that\ncrm: do this\n", w.String())

	w.Reset()
	at := func(partition int32, why string) loop.ProcessorPartition {
		return loop.ProcessorPartition{Processor: "identity", Partition: partition, Topics: []loop.TopicPosition{{Topic: "ingest", Stopped: why}}}
	}
	printStoppedProcessors(&w, []loop.ProcessorPartition{at(0, "made anew"), at(1, "made anew"), at(2, "")})
	require.Equal(t, "identity is stopped on ingest, partitions 0-1: made anew\n"+
		"identity: for each partition, process what the new log has with `hogstream processors accept identity --partition N --offset ingest=0`; "+
		"or, with all processors stopped, restore the state with `hogstream processors rebuild identity`\n", w.String())
	w.Reset()
	printStoppedProcessors(&w, []loop.ProcessorPartition{at(0, "")})
	require.Empty(t, w.String())
}

func TestAnAnswerIsToldWithItsStatusOnlyWhenThereWasOne(t *testing.T) {
	require.Equal(t, "rejected, HTTP 422 in 12 ms", outcomeText("rejected", 422, 12, ""))
	require.Equal(t, "retry in 8000 ms: timeout", outcomeText("retry", 0, 8000, "timeout"))
	require.Equal(t, "erased", outcomeText("erased", 0, 0, ""))
}
