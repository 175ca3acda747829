package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/replay"
)

// Nobody delivers, and there is a backlog. Every way of going on beyond it says how many
// records that leaves out and is refused; told so, dead letters are made of them, also
// when the process that makes them is killed meanwhile, and each can be redriven.
func TestWhatARewindForwardLeavesOutIsRefusedThenListedAndRedriven(t *testing.T) {
	notShort(t)
	beside(t)
	const contacts, each = 30, 4
	w := newWorld(t, shortLease(), shortSession())
	w.serve("one", "HOGSTREAM_ROLES=ingest")
	l := w.addLedger(2 * time.Millisecond)
	a := w.appender(l, contacts)
	require.NoError(t, a.append(w.ctx(), each))

	for _, args := range [][]string{
		{"replay", "ledger", "--rewind", "--to", "latest", "--yes"},
		{"replay", "ledger", "--rewind", "--to", "2062-01-31T12:00:00Z", "--yes"},
		{"destinations", "skip", "ledger", "--yes"},
		{"destinations", "resume", "ledger", "--skip-to-now"},
	} {
		_, err := w.tryCLI(args...)
		require.ErrorContains(t, err, fmt.Sprintf("%d records before", contacts*each), "%v", args)
		require.ErrorContains(t, err, "--skip-undelivered", "%v", args)
	}
	var r replay.Rewound
	w.cli(&r, "replay", "ledger", "--rewind", "--to", "latest", "--dry-run")
	require.EqualValues(t, contacts*each, r.Undelivered)
	require.True(t, r.UndeliveredExact)

	w.cli(&r, "destinations", "skip", "ledger", "--skip-undelivered", "--yes")
	require.True(t, r.Applied)
	p := w.newProcess("two", []string{"serve"}, "HOGSTREAM_ROLES=sinks")
	p.start()
	w.eventually("the process to begin with the dead letters", func(context.Context) error {
		if n := len(w.read(schemas.TopicDeadLetters)); n == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	p.kill()
	p.start()
	w.eventually("dead letters of all of it", func(context.Context) error {
		out, err := w.tryCLI("deadletters", "ls", "--destination", "ledger", "--reason", "skipped", "--limit", "1000")
		if err != nil {
			return err
		}
		var letters []struct {
			Partition int32
			Offset    int64
		}
		if err := json.Unmarshal(out, &letters); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		seen := map[string]bool{} // a kill may repeat a letter
		for _, letter := range letters {
			seen[fmt.Sprint(letter.Partition, letter.Offset)] = true
		}
		if len(seen) != contacts*each {
			return fmt.Errorf("%d letters", len(seen))
		}
		return nil
	})
	w.cli(nil, "destinations", "resume", "ledger")
	require.NoError(t, a.append(w.ctx(), 1))
	l.waitTaken(w, contacts)
	w.waitSettled()

	w.cli(nil, "deadletters", "redrive", "--destination", "ledger", "--reason", "skipped", "--yes")
	l.waitTaken(w, contacts*(each+1))
}
