package hogstream_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schedule"
	"github.com/hogstream/hogstream/schemas"
)

// J18: a run that sleeps is a row and a timer. It is no goroutine, and holds up no stop.
func TestRunsThatSleepAreRowsAndTimersAndHoldUpNoStop(t *testing.T) {
	const runs = 3000
	code := journeys.Define("sleeps", "1", func(r *journeys.Run) error {
		r.Wait("month", schedule.Until{After: 30 * 24 * time.Hour})
		return nil
	})
	code.Trigger.Records = []journeys.Match{{Event: "go"}}
	cfg := devConfig(t)
	asleep := func(r *hogstream.Running) {
		e := within(t, r)
		e.eventually(func() bool { return e.rows("journey_runs WHERE node = 'month' AND status = 'waiting'") == runs }, func() string {
			return fmt.Sprint(e.rows("journey_runs"), " runs")
		})
		require.Equal(t, runs, e.rows("timers WHERE owner = 'journeys' AND sent_at IS NULL"))
	}
	inDev(t, cfg, func(r *hogstream.Running) {
		e := within(t, r)
		e.send("POST", "/v1/events", `{"name":"opened","userId":"u0"}`)
		before := runtime.NumGoroutine()
		for from := 0; from < runs; from += 500 {
			var events []string
			for i := from; i < from+500; i++ {
				events = append(events, fmt.Sprintf(`{"name":"go","userId":"u%d"}`, i))
			}
			e.send("POST", "/v1/events/batch", `{"events":[`+strings.Join(events, ",")+`]}`)
		}
		asleep(r)
		require.Less(t, runtime.NumGoroutine(), before+runs/10)
	}, hogstream.WithJourneys(code))
	inDev(t, cfg, asleep, hogstream.WithJourneys(code))
}

// B16: what a journey sets of a contact goes the usual road, so a bucket on it moves, and
// another journey follows from that. A circle of these ends, in a dead letter.
func TestWhatAJourneySetsMovesABucketOnIt(t *testing.T) {
	cfg := devConfig(t)
	cfg.Definitions.Dir = t.TempDir()
	for name, text := range map[string]string{
		"buckets/pro.yaml":   "id: pro\nname: Pro\nenabled: true\ncriteria: {type: property, property: plan, operator: eq, value: pro}\n",
		"journeys/up.yaml":   "id: up\nname: Up\nenabled: true\nentryLimit: unlimited\ntrigger: [{event: go}, {event: \"bucket.left:pro\"}]\nsteps: [{set: {plan: pro}}]\n",
		"journeys/down.yaml": "id: down\nname: Down\nenabled: true\nentryLimit: unlimited\ntrigger: {event: \"bucket.entered:pro\"}\nsteps: [{set: {plan: free}}]\n",
	} {
		path := filepath.Join(cfg.Definitions.Dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	applied := make(chan *definition.Outcome, 100)
	inDev(t, cfg, func(r *hogstream.Running) {
		for out := range applied {
			require.Empty(t, out.Set.Failing)
			if len(out.Set.Journeys) == 2 {
				break
			}
		}
		e := within(t, r)
		e.send("POST", "/v1/events", `{"name":"go","userId":"u1"}`)
		var entered, left int
		onTopic(t, r, schemas.TopicLifecycle, schemas.NewCodec().DecodeFact, func(facts []*schemas.Fact) bool {
			entered, left = 0, 0
			for _, f := range facts {
				switch f.Type {
				case schemas.FactBucketEntered:
					entered++
				case schemas.FactBucketLeft:
					left++
				}
			}
			return entered >= 2 && left >= 1
		})
		letters := onTopic(t, r, schemas.TopicDeadLetters, schemas.NewCodec().DecodeDeadLetter, func(all []*schemas.DeadLetter) bool { return len(all) > 0 })
		require.Equal(t, "loop", letters[0].Reason)
	}, hogstream.WithDefinitionsApplied(func(out *definition.Outcome, err error) {
		if err == nil {
			applied <- out
		}
	}))
}
