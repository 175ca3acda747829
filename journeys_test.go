package hogstream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// onTopic are the records of a topic that were committed, until enough says there are enough
// of them.
func onTopic[T any](t *testing.T, run *hogstream.Running, topic schemas.Topic, decode func([]byte) (T, error), enough func([]T) bool) (found []T) {
	t.Helper()
	cfg := hogstream.Config{}
	run.FillIn(&cfg)
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Kafka.Brokers...), kgo.ConsumeTopics(stream.Config{}.Topic(topic)), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !enough(found) {
		fetches := client.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "%d records: %+v", len(found), found)
		fetches.EachRecord(func(r *kgo.Record) {
			m, err := decode(r.Value)
			require.NoError(t, err)
			found = append(found, m)
		})
	}
	return found
}

// stories are what journeys told of a run each, in order.
func stories(facts []*schemas.Fact) map[string]string {
	out := map[string]string{}
	for _, f := range facts {
		if f.Journey == nil {
			continue
		}
		words := []string{strings.TrimPrefix(f.Type, "journey.")}
		for _, word := range []*string{f.Journey.Step, f.Journey.Outcome, f.Journey.Reason, f.Journey.Error} {
			if word != nil {
				words = append(words, *word)
			}
		}
		key := f.Journey.JourneyID
		if f.Journey.Key != nil {
			key += " " + *f.Journey.Key
		}
		out[key] = strings.TrimPrefix(out[key]+", "+strings.Join(words, " "), ", ")
	}
	return out
}

// A cart is filled, a mail is asked for, the shop's own system is asked and answers, the
// cart's owner becomes a member of a bucket, and the order ends the run of that cart alone.
func TestAJourneyFromItsFileToItsEffects(t *testing.T) {
	asked := make(chan string, 100)
	crm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- string(body)
		_, _ = io.WriteString(w, `{"discount":15}`)
	}))
	defer crm.Close()
	cfg := devConfig(t)
	cfg.Definitions.Dir = t.TempDir()
	save := func(name, text string) {
		path := filepath.Join(cfg.Definitions.Dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	save("buckets/asked.yaml", "id: asked\nname: Asked\nenabled: true\nkind: manual\n")
	applied := make(chan *definition.Outcome, 100)
	inDev(t, cfg, func(r *hogstream.Running) {
		e := &erasing{t: t, run: r}
		db, err := pgx.Connect(t.Context(), r.Database)
		require.NoError(t, err)
		defer func() { _ = db.Close(context.WithoutCancel(t.Context())) }()
		e.send("POST", "/v1/admin/webhooks", `{"name":"crm","url":"`+crm.URL+`","eventTypes":["outbox"]}`)
		save("journeys/cart.yaml", `
id: cart
name: Abandoned cart
enabled: true
trigger: {event: cart.added}
key: cartId
exitOn: [{event: order.paid, where: {cartId: {run: key}}}]
steps:
  - email: {template: cart-1, props: {cart: {run: key}, total: {trigger: total}}}
  - id: ask
    call: {destination: crm, body: {cart: {run: key}}}
  - set: {discount: {step: ask, path: [body, discount]}}
  - bucket: {add: asked}
  - trigger: {event: cart.reminded, properties: {cart: {run: key}}}
  - wait: 30d
`)
		save("journeys/asked.yaml", `
id: followed
name: Followed
enabled: true
trigger: {event: "bucket.entered:asked"}
steps: [{waitFor: {any: [{event: cart.reminded}], timeout: 1h, lookback: 10m}}]
`)
		for deadline := time.After(30 * time.Second); ; {
			select {
			case out := <-applied:
				require.Empty(t, out.Set.Failing)
				if len(out.Set.Journeys) < 2 {
					continue
				}
			case <-deadline:
				require.Fail(t, "the journeys were not applied")
			}
			break
		}
		e.send("POST", "/v1/events", `{"name":"cart.added","userId":"u1","email":"ada@example.com","eventProperties":{"cartId":"a","total":20}}`)
		e.send("POST", "/v1/events", `{"name":"cart.added","userId":"u1","eventProperties":{"cartId":"b","total":30}}`)
		codec := schemas.NewCodec()
		mails := onTopic(t, r, schemas.TopicEmailRequests, codec.DecodeEmailRequest, func(all []*schemas.EmailRequest) bool { return len(all) >= 2 })
		require.Equal(t, "cart-1", mails[0].Template)
		require.Equal(t, "ada@example.com", *mails[0].To)
		require.JSONEq(t, `{"cart":"a","total":20}`, mails[0].Props)

		const upToTheWait = "started, step email-0 next, step ask accepted, step set-2 next, step bucket-3 next, step trigger-4 next"
		done := func(want map[string]string) {
			t.Helper()
			var have map[string]string
			onTopic(t, r, schemas.TopicLifecycle, codec.DecodeFact, func(facts []*schemas.Fact) bool {
				have = stories(facts)
				return len(have) >= len(want) && fmt.Sprint(have) == fmt.Sprint(want)
			})
		}
		done(map[string]string{"cart a": upToTheWait, "cart b": upToTheWait, "followed": "started, step waitFor-0 cart.reminded, completed"})
		e.send("POST", "/v1/events", `{"name":"order.paid","userId":"u1","eventProperties":{"cartId":"b"}}`)
		done(map[string]string{"cart a": upToTheWait, "cart b": upToTheWait + ", exited wait-5 order.paid", "followed": "started, step waitFor-0 cart.reminded, completed"})

		bodies := []string{<-asked, <-asked}
		slices.Sort(bodies)
		require.Equal(t, []string{`{"cart":"a"}`, `{"cart":"b"}`}, bodies)
		require.Empty(t, asked, "each was asked once")
		var contact struct {
			Contact struct{ Properties map[string]any }
		}
		e.eventually(func() bool {
			var text string
			require.NoError(t, db.QueryRow(t.Context(), `SELECT properties::text FROM contacts WHERE external_id = 'u1'`).Scan(&text))
			require.NoError(t, json.Unmarshal([]byte(text), &contact.Contact.Properties))
			return contact.Contact.Properties["discount"] == 15.0
		}, func() string { return fmt.Sprint(contact) })
		rows, err := db.Query(t.Context(), `SELECT coalesce(key, '') || ' ' || status || ' ' || node || ' ' || coalesce(reason, '') FROM journey_runs WHERE journey_id = 'cart' ORDER BY 1`)
		require.NoError(t, err)
		runs, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Equal(t, []string{`"a" waiting wait-5 `, `"b" exited wait-5 order.paid`}, runs)
		e.operateJourneys()
	}, hogstream.WithDefinitionsApplied(func(out *definition.Outcome, err error) {
		if err == nil {
			applied <- out
		}
	}))
}

// runState is a run as the API shows it.
type runState struct{ ID, Status, Reason, CurrentNodeID, Key string }

// operateManyRuns enrols a batch and ends what it began, each in steps of two, which are sent
// twice.
func (e *erasing) operateManyRuns(states func(string) []runState) {
	t := e.t
	t.Helper()
	users := `[{"userId":"nobody"}`
	for i := range 5 {
		users += fmt.Sprintf(`,{"userId":"u1","properties":{"cartId":"many%d"}}`, i)
	}
	batch := func(dryRun bool) (out struct {
		Enrolled, Skipped int
		Results           []struct{ UserID, Reason string }
	}) {
		body := fmt.Sprintf(`{"users":%s],"batch":"spring","dryRun":%t}`, users, dryRun)
		require.NoError(t, json.Unmarshal(e.send("POST", "/v1/admin/journeys/cart/enroll/batch", body), &out))
		return out
	}
	for _, dryRun := range []bool{true, false} {
		out := batch(dryRun)
		require.Equal(t, [2]int{5, 1}, [2]int{out.Enrolled, out.Skipped})
		require.Equal(t, "contact_not_found", out.Results[0].Reason)
	}
	batch(false) // before or after the first was obeyed
	standing := "?status=waiting&step=wait-5"
	e.eventually(func() bool { return len(states(standing)) == 5 }, func() string { return fmt.Sprint(states("")) })
	again := batch(false)
	require.Equal(t, [2]int{0, 6}, [2]int{again.Enrolled, again.Skipped})
	require.Equal(t, "already_enrolled", again.Results[1].Reason)

	many := func(what, fields string) (out struct {
		Total, Told int
		Sample      []runState
		NextCursor  string
	}) {
		require.NoError(t, json.Unmarshal(e.send("POST", "/v1/admin/journeys/cart/states/"+what, `{"limit":2`+fields+`}`), &out))
		return out
	}
	preview := many("cancel", `,"step":"wait-5","dryRun":true`)
	require.Equal(t, 5, preview.Total)
	require.Len(t, preview.Sample, 5)
	require.Zero(t, many("retry", `,"dryRun":true`).Total, "none failed")
	require.Zero(t, many("cancel", `,"until":"2020-01-01T00:00:00Z","dryRun":true`).Total)
	require.Zero(t, many("cancel", `,"userId":"nobody"`).Told)
	told := 0
	for cursor, more := "", true; more; more = cursor != "" {
		part := many("cancel", `,"step":"wait-5","cursor":"`+cursor+`"`)
		told, cursor = told+part.Told, part.NextCursor
	}
	require.Equal(t, 5, told)
	many("cancel", `,"step":"wait-5"`) // some may be obeyed by now
	e.eventually(func() bool { return len(states(standing)) == 0 }, func() string { return fmt.Sprint(states("")) })
	require.Len(t, states("?reason=cancelled"), 6)
	status, _ := e.request("POST", "/v1/admin/journeys/none/states/cancel", "{}")
	require.Equal(t, http.StatusNotFound, status)
}

// operateJourneys looks at the runs of cart, ends the one that waits, and enrols by hand.
func (e *erasing) operateJourneys() {
	t := e.t
	t.Helper()
	var list struct {
		Journeys []struct {
			ID     string
			Counts map[string]int
		}
	}
	require.NoError(t, json.Unmarshal(e.send("GET", "/v1/admin/journeys", ""), &list))
	require.Len(t, list.Journeys, 2)
	require.Equal(t, map[string]int{"active": 0, "waiting": 1, "completed": 0, "failed": 0, "exited": 1, "skipped": 0, "converted": 0}, list.Journeys[0].Counts)
	states := func(filter string) (found []runState) {
		var page struct{ States []runState }
		require.NoError(t, json.Unmarshal(e.send("GET", "/v1/admin/journeys/cart/states"+filter, ""), &page))
		return page.States
	}
	var ids []string
	for cursor := ""; ; {
		var page struct {
			States     []struct{ ID string }
			NextCursor string
		}
		require.NoError(t, json.Unmarshal(e.send("GET", "/v1/admin/journeys/cart/states?limit=1&cursor="+cursor, ""), &page))
		for _, s := range page.States {
			ids = append(ids, s.ID)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	var all []string
	for _, s := range states("") {
		all = append(all, s.ID)
	}
	require.Equal(t, all, ids, "one by one, by cursor")
	waiting := states("?status=waiting&userId=u1")
	require.Len(t, waiting, 1)
	require.Equal(t, "wait-5", waiting[0].CurrentNodeID)
	run := "/v1/admin/journeys/cart/states/" + waiting[0].ID
	status, _ := e.request("POST", run+"/retry", `{}`)
	require.Equal(t, http.StatusConflict, status, "it did not fail")
	var shown struct {
		State struct{ Context map[string]any }
		Logs  []struct{ Action, FromNodeID, ToNodeID string }
	}
	require.NoError(t, json.Unmarshal(e.send("GET", run, ""), &shown))
	require.Equal(t, map[string]any{"total": 20.0}, shown.State.Context)
	require.Len(t, shown.Logs, 6)
	require.Equal(t, struct{ Action, FromNodeID, ToNodeID string }{"step", "email-0", "ask"}, shown.Logs[1])
	require.Contains(t, string(e.send("DELETE", run, "")), `"status":"exited"`)
	e.eventually(func() bool { s := states("?reason=cancelled"); return len(s) == 1 && s[0].ID == waiting[0].ID }, func() string { return fmt.Sprint(states("")) })
	status, _ = e.request("DELETE", run, "")
	require.Equal(t, http.StatusConflict, status)

	e.send("POST", "/v1/admin/journeys/cart/enroll", `{"userId":"u1","properties":{"cartId":"c"}}`)
	e.eventually(func() bool { return len(states("?step=wait-5&status=waiting")) == 1 }, func() string { return fmt.Sprint(states("")) })
	e.send("POST", "/v1/admin/journeys/cart/states/"+states("?status=waiting")[0].ID+"/skip", "")
	e.eventually(func() bool { return len(states("?status=completed")) == 1 }, func() string { return fmt.Sprint(states("")) })

	e.operateManyRuns(states)
	e.send("PATCH", "/v1/admin/journeys/cart", `{"paused":true}`)
	e.send("POST", "/v1/admin/journeys/cart/enroll", `{"userId":"u1","properties":{"cartId":"d"}}`)
	var paused struct {
		Journey struct {
			Paused   bool
			Counters []struct {
				What, Detail string
				Count        int
			}
		}
	}
	e.eventually(func() bool {
		require.NoError(t, json.Unmarshal(e.send("GET", "/v1/admin/journeys/cart", ""), &paused))
		for _, n := range paused.Journey.Counters {
			if n.What == "skipped" && n.Detail == "journey_paused" {
				return paused.Journey.Paused && n.Count == 1
			}
		}
		return false
	}, func() string { return fmt.Sprint(paused) })
	var why struct {
		Text    string
		Entries []struct{ Key, Queued string }
	}
	require.NoError(t, json.Unmarshal(e.send("GET", "/v1/admin/journeys/cart/why/u1", ""), &why))
	require.Contains(t, why.Text, "did not enrol")
	require.Contains(t, why.Text, "journey_paused")
	require.NotEmpty(t, why.Entries)
	e.send("POST", "/v1/events", `{"name":"other","userId":"u2"}`)
	e.eventually(func() bool {
		status, text := e.request("GET", "/v1/admin/journeys/cart/why/u2", "")
		return status == http.StatusOK && strings.Contains(string(text), "nothing of this kind ever came")
	}, func() string { return "an answer for somebody to whom nothing came" })
	status, _ = e.request("GET", "/v1/admin/journeys/cart/why/nobody", "")
	require.Equal(t, http.StatusNotFound, status)
	require.Contains(t, string(e.send("GET", "/v1/admin/contacts/u1", "")), `"journeyId":"cart"`)
	status, _ = e.request("GET", "/v1/admin/journeys/none", "")
	require.Equal(t, http.StatusNotFound, status)
}
