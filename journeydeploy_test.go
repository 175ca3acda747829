package hogstream_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
)

// owning runs a process of processors beside a developer's instance, until it is stopped.
func owning(t *testing.T, r *hogstream.Running, code ...journeys.Journey) (stop func()) {
	t.Helper()
	cfg := devConfig(t)
	r.FillIn(&cfg)
	cfg.Roles, cfg.HTTP.Addr = []hogstream.Role{hogstream.RoleProcessors}, "127.0.0.1:0"
	app, err := hogstream.New(cfg, hogstream.WithJourneys(code...))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- app.Run(ctx, func(net.Addr) error {
			close(ready)
			return nil
		})
	}()
	select {
	case <-ready:
	case err := <-ended:
		require.NoError(t, err)
	}
	return func() {
		cancel()
		require.NoError(t, <-ended)
	}
}

// A deploy in the middle of runs, with two processes of which each has the code of one
// version alone: whoever has a contact, no trigger and nothing that a run waits for is lost,
// and each run goes on with its own code, once, where that is.
func TestADeployOfOtherCodeInTheMiddleOfRunsLosesNothing(t *testing.T) {
	version := func(name, template string) journeys.Journey {
		code := journeys.Define("deployed", name, func(r *journeys.Run) error {
			r.WaitFor("paid", journeys.WaitFor{Any: []journeys.Alternative{{Match: journeys.Match{Event: "paid"}}}, Timeout: 24 * time.Hour})
			r.Email("mail", journeys.Email{Template: template})
			return nil
		})
		code.Trigger.Records = []journeys.Match{{Event: "go"}}
		return code
	}
	one, two := version("1", "one"), version("2", "two")
	cfg := devConfig(t)
	cfg.Roles, cfg.Kafka.Partitions = []hogstream.Role{hogstream.RoleIngest, hogstream.RoleSinks}, 4
	ctx, stop := context.WithTimeout(t.Context(), 4*time.Minute)
	defer stop()
	require.NoError(t, hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop()
		e := within(t, r)
		send := func(name string, from, to int) {
			for i := from; i < to; i++ {
				e.send("POST", "/v1/events", fmt.Sprintf(`{"name":"%s","userId":"u%d"}`, name, i))
			}
		}
		await := func(n int, where string) {
			t.Helper()
			e.eventually(func() bool { return e.rows("journey_runs WHERE "+where) == n }, func() string {
				return where + ": " + strings.Join(e.ids(`SELECT version || ' ' || status || ' ' || node FROM journey_runs ORDER BY 1`), ", ")
			})
		}
		stopOld := owning(t, r, one)
		send("go", 0, 12)
		await(12, `version = '1' AND node = 'paid'`)
		stopNew := owning(t, r, two)
		e.eventually(func() bool { return e.rows("journey_versions WHERE version = '2' AND superseded_at IS NULL") == 1 }, func() string { return "version 2 is in use" })
		send("paid", 0, 6)
		send("go", 12, 24)
		send("paid", 12, 18)
		e.settled(2, "identity", "contacts", "journeys")
		stopOld()
		await(6, `version = '2' AND status = 'completed'`) // nobody sends anything more: contacts are looked at again
		await(6, `version = '2' AND node = 'paid' AND status = 'waiting'`)
		stopBoth := owning(t, r, one, two)
		e.settled(2, "identity", "contacts", "journeys")
		stopNew()
		send("ping", 0, 24)
		await(6, `version = '1' AND status = 'completed'`)
		send("paid", 6, 12)
		send("paid", 18, 24)
		await(24, `status = 'completed'`)
		mails := map[string]int{}
		for _, m := range onTopic(t, r, schemas.TopicEmailRequests, schemas.NewCodec().DecodeEmailRequest, func(all []*schemas.EmailRequest) bool { return len(all) >= 24 }) {
			mails[m.Template]++
		}
		require.Equal(t, map[string]int{"one": 12, "two": 12}, mails)
		require.Equal(t, 24, e.rows(`(SELECT sum(n) AS n FROM journey_counters WHERE node = 'paid' AND what = 'came') AS c WHERE n = 24`)*24, "each has come to its first step once")
		stopBoth()
	}))
}
