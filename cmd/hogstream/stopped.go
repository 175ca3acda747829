package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hogstream/hogstream/stream/loop"
)

// stop is why positions of a destination or processor wait for an operator.
type stop struct{ who, topic, replay, why string }

// stops are the partitions that wait, by why.
type stops map[stop][]int32

// print writes a line for each reason: a topic has many partitions, and what happened to
// one has mostly happened to all of them.
func (s stops) print(w io.Writer) {
	inOrder := func(a, b stop) int {
		return cmp.Or(cmp.Compare(a.who, b.who), cmp.Compare(a.topic, b.topic), cmp.Compare(a.replay, b.replay), cmp.Compare(a.why, b.why))
	}
	for _, at := range slices.SortedFunc(maps.Keys(s), inOrder) {
		who := at.who
		if at.replay != "" {
			who += ", backfill " + at.replay + ","
		}
		fmt.Fprintf(w, "%s is stopped on %s, partitions %s: %s\n", who, at.topic, numberRanges(s[at]), at.why)
	}
}

// numberRanges writes numbers in their order, neighbours as a range: 0-3, 7.
func numberRanges(numbers []int32) string {
	slices.Sort(numbers)
	var ranges []string
	for i := 0; i < len(numbers); {
		last := i
		for last+1 < len(numbers) && numbers[last+1] == numbers[last]+1 {
			last++
		}
		text := strconv.Itoa(int(numbers[i]))
		if last > i {
			text += "-" + strconv.Itoa(int(numbers[last]))
		}
		ranges = append(ranges, text)
		i = last + 1
	}
	return strings.Join(ranges, ", ")
}

// printStopped says where a destination waits, and for which commands.
func (d *destination) printStopped(w io.Writer) {
	waiting, mends := stops{}, map[string]bool{}
	for _, s := range d.Stopped {
		at := stop{d.Name, s.Topic, s.ReplayID, s.Why}
		waiting[at] = append(waiting[at], s.Partition)
		mends[s.Mend] = true
	}
	waiting.print(w)
	for _, mend := range slices.Sorted(maps.Keys(mends)) {
		fmt.Fprintf(w, "%s: %s\n", d.Name, mend)
	}
}

// printStoppedProcessors says which partitions of processors wait, and for which commands.
func printStoppedProcessors(w io.Writer, partitions []loop.ProcessorPartition) {
	waiting, mends := stops{}, map[string]bool{}
	for _, p := range partitions {
		for _, t := range p.Topics {
			if t.Stopped == "" {
				continue
			}
			at := stop{who: p.Processor, topic: string(t.Topic), why: t.Stopped}
			waiting[at] = append(waiting[at], p.Partition)
			mends[fmt.Sprintf("%s: for each partition, process what the new log has with `hogstream processors accept %s --partition N --offset %s=%d`; or, with all processors stopped, restore the state with `hogstream processors rebuild %s`",
				p.Processor, p.Processor, t.Topic, t.Start, p.Processor)] = true
		}
	}
	waiting.print(w)
	for _, mend := range slices.Sorted(maps.Keys(mends)) {
		fmt.Fprintln(w, mend)
	}
}

// printWaitingProcessors says which partitions of processors that derive are not read yet,
// and why.
func printWaitingProcessors(w io.Writer, partitions []loop.ProcessorPartition) {
	waiting := map[string][]int32{}
	for _, p := range partitions {
		switch {
		case p.Waits != "":
			line := fmt.Sprintf("%s waits on partitions %%s: %s", p.Processor, p.Waits)
			waiting[line] = append(waiting[line], p.Partition)
		case p.TakingOver:
			line := p.Processor + " takes over what is known of contacts on partitions %s"
			waiting[line] = append(waiting[line], p.Partition)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(waiting)) {
		fmt.Fprintln(w, strings.Replace(line, "%s", numberRanges(waiting[line]), 1))
	}
}
