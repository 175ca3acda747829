package hogstream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/journeys"
)

// What a run does one after another is no circle, however much it is: functions, and
// questions that another journey answers. What begins itself again is one.
func TestALongRunIsNoCircle(t *testing.T) {
	const rounds = 20
	named := func(what string, n int) string { return fmt.Sprintf("%s-%d", what, n) }
	on := func(id, event string, f func(r *journeys.Run) error) journeys.Journey {
		code := journeys.Define(id, "1", f)
		code.Trigger.Records, code.EntryLimit, code.Key = []journeys.Match{{Event: event}}, journeys.EntryUnlimited, []string{"n"}
		return code
	}
	event := func(name string, n int) journeys.Event {
		return journeys.Event{Name: name, Properties: new(journeys.Literal(map[string]any{"n": n}))}
	}
	all := []journeys.Journey{
		on("works", "go", func(r *journeys.Run) error {
			for n := range rounds {
				if _, err := journeys.Do(r, named("work", n), journeys.Job{}, func(context.Context, journeys.Attempt) (int, error) { return n, nil }); err != nil {
					return err
				}
			}
			return nil
		}),
		on("asks", "go", func(r *journeys.Run) error {
			for n := range rounds {
				r.Send(named("ask", n), event("asked", n))
				r.WaitFor(named("answer", n), journeys.WaitFor{Any: []journeys.Alternative{{Match: journeys.Match{Event: "answered"}}}, Timeout: time.Hour})
			}
			return nil
		}),
		on("answers", "asked", func(r *journeys.Run) error {
			r.Send("answer", event("answered", 0))
			return nil
		}),
	}
	circle := on("circle", "round", func(r *journeys.Run) error {
		r.Send("again", event("round", 0))
		return nil
	})
	circle.Key = nil
	inDev(t, devConfig(t), func(r *hogstream.Running) {
		e := within(t, r)
		e.send("POST", "/v1/events", `{"name":"go","userId":"u1","eventProperties":{"n":0}}`)
		e.send("POST", "/v1/events", `{"name":"round","userId":"u1"}`)
		letters := func() string { return string(e.send("GET", "/v1/admin/dlq?limit=100", "")) }
		e.eventually(func() bool { return strings.Contains(letters(), `"loop"`) }, letters)
		counts := func() string {
			return strings.Join(e.ids(`SELECT journey_id || ' ' || status || ' ' || count(*) FROM journey_runs WHERE journey_id <> 'circle' GROUP BY journey_id, status ORDER BY 1, status`), ", ")
		}
		e.eventually(func() bool {
			return counts() == "answers completed 20, asks completed 1, works completed 1"
		}, func() string { return counts() + "\n" + letters() })
		require.Equal(t, 1, strings.Count(letters(), `"loop"`), letters())
	}, hogstream.WithJourneys(append(all, circle)...))
}
