package loop

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
)

// The table of recovery. `c` is what the group has, a row is
// what Postgres has; logs run from 0 to 100 unless a case says otherwise.
func TestRecoveryTable(t *testing.T) {
	const x, y = "x", "y"
	one, two := []string{x}, []string{x, y}
	row := func(published bool, ranges storage.Ranges) *storage.Progress {
		return &storage.Progress{Ranges: ranges, Published: published}
	}
	accepted := func(ranges storage.Ranges) *storage.Progress {
		return &storage.Progress{Ranges: ranges, Published: true, Accepted: true}
	}
	formatted := func(format int32, ranges storage.Ranges) *storage.Progress {
		return &storage.Progress{Ranges: ranges, Format: format}
	}
	takingOver := func(ranges storage.Ranges) *storage.Progress {
		return &storage.Progress{Ranges: ranges, Published: true, TakingOver: new(uuid.UUID)}
	}
	type c = map[string]int64
	type ids = map[string]uuid.UUID
	was, is := uuid.New(), uuid.New()
	for name, tc := range map[string]struct {
		topics    []string
		committed c
		takesOver bool
		row       *storage.Progress
		starts    c
		ends      c
		ids       map[string]uuid.UUID
		want      act
		seeds     storage.Ranges
		says      string
	}{
		"no offset and no row: first start": {
			topics: one, committed: c{x: none}, want: actSeed, seeds: storage.Ranges{x: {From: 0, Next: 0}}},
		"first start of a log that does not begin at 0": {
			topics: one, committed: c{x: none}, starts: c{x: 7}, want: actSeed, seeds: storage.Ranges{x: {From: 7, Next: 7}}},
		"the first start of a processor that takes over": {
			topics: two, committed: c{x: none, y: none}, takesOver: true, want: actNote},
		"the rows are noted, and the group has no offset yet": {
			topics: one, committed: c{x: none}, takesOver: true, row: takingOver(storage.Ranges{x: {From: 9, Next: 9}}), want: actCommit},
		"a take-over goes on where it was": {
			topics: one, committed: c{x: 9}, takesOver: true, row: takingOver(storage.Ranges{x: {From: 9, Next: 9}}), want: actTakeOver},
		"retention passed the noted end before the take-over was through": {
			topics: one, committed: c{x: 9}, takesOver: true, row: takingOver(storage.Ranges{x: {From: 9, Next: 9}}), starts: c{x: 10}, want: actStop, says: "starts at 10"},
		"the row of a first start, before the group has its offset": {
			topics: one, committed: c{x: none}, row: row(true, storage.Ranges{x: {From: 0, Next: 0}}), want: actCommit},
		"the group stands at next: go on": {
			topics: one, committed: c{x: 3}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}}), want: actBegin},
		"the group stands at next of a published row: go on": {
			topics: one, committed: c{x: 3}, row: row(true, storage.Ranges{x: {From: 3, Next: 3}}), want: actBegin},
		"the group stands at from: publish what is pending": {
			topics: one, committed: c{x: 1}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}}), want: actPublish},
		"the offsets expired and the row is published: commit next": {
			topics: one, committed: c{x: none}, row: row(true, storage.Ranges{x: {From: 3, Next: 3}}), want: actCommit},
		"the offsets expired while a range waited: nobody knows whether it was published": {
			topics: one, committed: c{x: none}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}}), want: actStop, says: "no offset, the row at [1,3)"},
		"an offset and no row: a lost database": {
			topics: one, committed: c{x: 3}, want: actStop, says: "the group stands at 3, no row"},
		"an offset moved back by hand": {
			topics: one, committed: c{x: 0}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}}), want: actStop, says: "stands at 0, the row at [1,3)"},
		"an offset moved to from of a row that is published": {
			topics: one, committed: c{x: 1}, row: row(true, storage.Ranges{x: {From: 1, Next: 3}}), want: actStop, says: "stands at 1"},
		"an offset moved forward by hand": {
			topics: one, committed: c{x: 5}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}}), want: actStop, says: "stands at 5"},
		"retention passed next": {
			topics: one, committed: c{x: 3}, row: row(true, storage.Ranges{x: {From: 3, Next: 3}}), starts: c{x: 4}, want: actStop, says: "starts at 4"},
		"retention passed next, and the offsets expired": {
			topics: one, committed: c{x: none}, row: row(true, storage.Ranges{x: {From: 3, Next: 3}}), starts: c{x: 4}, want: actStop, says: "starts at 4"},
		"the topic was made anew": {
			topics: one, committed: c{x: none}, row: row(true, storage.Ranges{x: {From: 30, Next: 30}}), ends: c{x: 2}, want: actStop, says: "ends at 2"},

		"the topic was made anew and has grown beyond next": {
			topics: one, committed: c{x: 30}, row: row(true, storage.Ranges{x: {From: 30, Next: 30, TopicID: was}}), ids: ids{x: is}, want: actStop, says: "topic x was deleted and made anew"},
		"the topic was made anew and the group's offsets went with it: next is not committed again": {
			topics: one, committed: c{x: none}, row: row(true, storage.Ranges{x: {From: 30, Next: 30, TopicID: was}}), ids: ids{x: is}, want: actStop, says: "made anew"},
		"the topic was made anew while a range of it waits: it is not published": {
			topics: one, committed: c{x: 20}, row: row(false, storage.Ranges{x: {From: 20, Next: 30, TopicID: was}}), ids: ids{x: is}, want: actStop, says: "made anew"},
		"the topic was made anew after an operator named a place": {
			topics: one, committed: c{x: 30}, row: accepted(storage.Ranges{x: {From: 8, Next: 8, TopicID: was}}), ids: ids{x: is}, want: actStop, says: "made anew"},
		"an operator named a place on the log made anew": {
			topics: one, committed: c{x: 30}, row: accepted(storage.Ranges{x: {From: 8, Next: 8, TopicID: is}}), ids: ids{x: is}, want: actCommit},
		"a row from before ids were kept says nothing": {
			topics: one, committed: c{x: 3}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}}), ids: ids{x: is}, want: actBegin},
		"a broker without ids says nothing": {
			topics: one, committed: c{x: 3}, row: row(false, storage.Ranges{x: {From: 1, Next: 3, TopicID: was}}), want: actBegin},
		"a first start keeps the id": {
			topics: one, committed: c{x: none}, ids: ids{x: is}, want: actSeed, seeds: storage.Ranges{x: {From: 0, Next: 0, TopicID: is}}},
		"of two topics one was made anew": {
			topics: two, committed: c{x: 3, y: 9}, row: row(false, storage.Ranges{x: {From: 3, Next: 3, TopicID: was}, y: {From: 9, Next: 9, TopicID: was}}), ids: ids{x: was, y: is}, want: actStop, says: "topic y was deleted"},

		"two topics, all at next": {
			topics: two, committed: c{x: 3, y: 9}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}, y: {From: 9, Next: 9}}), want: actBegin},
		"two topics, the one that was read at from, the other at next": {
			topics: two, committed: c{x: 1, y: 9}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}, y: {From: 9, Next: 9}}), want: actPublish},
		"two topics, both read and both at from": {
			topics: two, committed: c{x: 1, y: 7}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}, y: {From: 7, Next: 9}}), want: actPublish},
		"two topics, both read, one at from and one at next: one transaction moves both": {
			topics: two, committed: c{x: 1, y: 9}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}, y: {From: 7, Next: 9}}), want: actStop, says: "x: the group stands at 1"},
		"two topics, no offsets, published": {
			topics: two, committed: c{x: none, y: none}, row: row(true, storage.Ranges{x: {From: 3, Next: 3}, y: {From: 9, Next: 9}}), want: actCommit},
		"a topic was added": {
			topics: two, committed: c{x: 3, y: none}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}}), starts: c{y: 4}, want: actSeed, seeds: storage.Ranges{y: {From: 4, Next: 4}}},
		"a topic was added while a range of the other waits": {
			topics: two, committed: c{x: 1, y: none}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}}), want: actSeed, seeds: storage.Ranges{y: {From: 0, Next: 0}}},
		"an added topic is in the row and the group has no offset for it": {
			topics: two, committed: c{x: 3, y: none}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}, y: {From: 4, Next: 4}}), want: actCommit},
		"the same while a range of the other waits: the transaction commits both": {
			topics: two, committed: c{x: 1, y: none}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}, y: {From: 4, Next: 4}}), want: actPublish},
		"an offset for a topic that the row does not know": {
			topics: two, committed: c{x: 3, y: 5}, row: row(false, storage.Ranges{x: {From: 1, Next: 3}}), want: actStop, says: "the row has no entry"},

		"the row is of a newer release: it is left alone": {
			topics: one, committed: c{x: 3}, row: formatted(3, storage.Ranges{x: {From: 1, Next: 3}}), want: actLeave, says: "its state is in format 3, which a newer release writes, and this one knows up to 2"},
		"the same while a range waits: it is not published": {
			topics: one, committed: c{x: 1}, row: formatted(3, storage.Ranges{x: {From: 1, Next: 3}}), want: actLeave, says: "newer release"},
		"the same when nothing else fits: it is no mismatch": {
			topics: two, committed: c{x: 77, y: 5}, row: formatted(3, storage.Ranges{x: {From: 1, Next: 3, TopicID: was}}), ids: ids{x: is}, want: actLeave, says: "newer release"},
		"the row is of the highest format that is known: go on": {
			topics: one, committed: c{x: 3}, row: formatted(2, storage.Ranges{x: {From: 1, Next: 3}}), want: actBegin},

		"an operator named another place": {
			topics: one, committed: c{x: 3}, row: accepted(storage.Ranges{x: {From: 8, Next: 8}}), want: actCommit},
		"the group stands where the operator wants it": {
			topics: one, committed: c{x: 8}, row: accepted(storage.Ranges{x: {From: 8, Next: 8}}), want: actBegin},
		"an operator named a place that the log does not have": {
			topics: one, committed: c{x: 3}, row: accepted(storage.Ranges{x: {From: 8, Next: 8}}), starts: c{x: 9}, want: actStop, says: "starts at 9"},
	} {
		t.Run(name, func(t *testing.T) {
			f := found{knows: 2, takesOver: tc.takesOver, row: tc.row, committed: tc.committed, ids: tc.ids, starts: c{x: 0, y: 0}, ends: c{x: 100, y: 100}}
			for topic, at := range tc.starts {
				f.starts[topic] = at
			}
			for topic, at := range tc.ends {
				f.ends[topic] = at
			}
			d := decide(tc.topics, f, 0)
			require.Equal(t, tc.want, d.act, d.why)
			if tc.want == actSeed {
				require.Equal(t, tc.seeds, d.starts)
			}
			require.Contains(t, d.why, tc.says)
		})
	}
}
