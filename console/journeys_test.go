package console_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// journey puts one in use.
func (s *server) journey(text string) {
	s.t.Helper()
	files, err := definition.Read([]definition.Text{{Name: "journeys/cart.yaml", Text: text}}, definitionOptions)
	require.NoError(s.t, err)
	require.Empty(s.t, files.Faulty)
	_, err = definition.Apply(s.t.Context(), s.db, files, definitionOptions, "test")
	require.NoError(s.t, err)
}

const cart = `
id: cart
name: Abandoned cart
enabled: true
trigger: [{event: cart.left, where: {total: {gt: 10}}}, {event: cart.kept}]
key: cartId
exitOn: [{event: order.paid}]
steps: [{wait: 4h}, {id: ask, call: {destination: crm}}]
`

// known has the processor of journeys know whom that of buckets knows.
func (s *server) known() {
	s.t.Helper()
	s.exec(`INSERT INTO derived_contacts (processor, contact_id, partition, seq, era, written, epoch, took, heard, last_seq, last_era)
		SELECT 'journeys', contact_id, 0, 1, 0, 0, 0, '{}', '{}', 0, 0 FROM derived_contacts WHERE processor = 'buckets' ON CONFLICT DO NOTHING`)
}

// happened to runs of journey cart.
func (s *server) happened(changes ...storage.JourneyChange) {
	s.t.Helper()
	for i := range changes {
		changes[i].JourneyID, changes[i].Version = "cart", "1"
	}
	require.NoError(s.t, s.db.InTx(s.t.Context(), func(tx *storage.Tx) error {
		return tx.SaveJourneyChanges(s.t.Context(), changes, nil, nil)
	}))
}

// started is a run that stands at a step, a minute after the one before.
func started(contact string, n int, step string) storage.JourneyChange {
	at := entered.Add(time.Duration(n)*time.Minute + 123456*time.Microsecond)
	return storage.JourneyChange{
		Kind: storage.RunStarted, At: at, EnteredAt: at, ContactID: contact, RunID: uuid.NewSHA1(uuid.Nil, []byte{byte(n)}).String(), Entry: 1, Next: step, TriggerID: uuid.NewString(),
	}
}

func commandsOf(t *testing.T, signals []*schemas.Signal) (out []journeys.Command) {
	t.Helper()
	for _, s := range signals {
		var c journeys.Command
		require.NoError(t, json.Unmarshal([]byte(*s.State), &c))
		require.Equal(t, c.What, s.What)
		require.Equal(t, journeys.Name, s.For)
		out = append(out, c)
	}
	return out
}

func TestContactsAreEnrolledByAnyIDThatTheyHave(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.journey(cart)
	ada, bob, unnamed := s.person("u/1", "", ""), s.person("", "anon-2", ""), s.person("", "", "")
	both := s.person("", ada, "") // whose anonymous id is the id of another contact
	s.known()
	late := s.person("late", "", "")
	names := map[string]string{"u/1": ada, "anon-2": bob, unnamed: unnamed, ada: ada, both: both, "nobody": "", uuid.NewString(): "", "late": late}
	var users []map[string]any
	for name := range names {
		users = append(users, map[string]any{"userId": name, "properties": map[string]any{"cartId": name}})
	}
	body, err := json.Marshal(map[string]any{"users": users})
	require.NoError(t, err)
	answer := s.request(http.MethodPost, "/journeys/cart/enroll/batch", string(body), http.StatusOK)
	require.InDelta(t, 5, answer["enrolled"], 0)
	require.InDelta(t, 3, answer["skipped"], 0)
	told := map[string]string{}
	for i, c := range commandsOf(t, s.told.signals) {
		var properties struct{ CartID string }
		require.NoError(t, json.Unmarshal([]byte(c.Properties), &properties))
		told[properties.CartID] = s.told.signals[i].ContactID
	}
	for i, user := range users {
		name := user["userId"].(string)
		result := at(t, answer, "results", i).(map[string]any)
		require.Equal(t, name, result["userId"])
		one, err := s.db.ContactNamed(t.Context(), name, schemas.KindExternal, schemas.KindAnonymous)
		require.NoError(t, err)
		switch {
		case names[name] == "":
			require.Nil(t, one)
			require.Equal(t, "contact_not_found", result["reason"])
		case name == "late":
			require.Equal(t, "contact_not_seen_yet", result["reason"])
		default:
			require.Equal(t, one.ID, names[name])
			require.Equal(t, names[name], told[name])
			require.Equal(t, true, result["enrolled"])
		}
	}
	one := s.request(http.MethodPost, "/journeys/cart/enroll", `{"userId":"u/1","userEmail":"ada@example.com","properties":{"cartId":12345678901234567890}}`, http.StatusAccepted)
	require.Equal(t, []any{true, "cart.left", "u/1", "cart", ada}, []any{one["enrolled"], one["event"], one["userId"], one["journeyId"], one["contactId"]})
	require.Equal(t, `{"cartId":12345678901234567890}`, commandsOf(t, s.told.signals)[5].Properties)
	s.request(http.MethodPost, "/journeys/cart/enroll", `{"userId":"nobody"}`, http.StatusNotFound)
	s.request(http.MethodPost, "/journeys/cart/enroll", `{"userId":"late"}`, http.StatusServiceUnavailable)
	require.Equal(t, "Journey not found", s.request(http.MethodPost, "/journeys/none/enroll/batch", `{"users":[{"userId":"u"}]}`, http.StatusNotFound)["error"])
	s.request(http.MethodPost, "/journeys/cart/enroll/batch", `{"users":[]}`, http.StatusBadRequest)
}

func TestABatchOfEnrolmentsSaysTheSameWhenItIsSentAgain(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.journey(cart)
	ada := s.person("u1", "", "")
	s.known()
	const batch = `{"batch":"spring","users":[{"userId":"u1","properties":{"cartId":"a"}},{"userId":"u1","properties":{"cartId":"b"}}]}`
	s.request(http.MethodPost, "/journeys/cart/enroll/batch", batch, http.StatusOK)
	s.request(http.MethodPost, "/journeys/cart/enroll/batch", batch, http.StatusOK)
	ids := []string{}
	for _, signal := range s.told.signals {
		ids = append(ids, signal.ID)
	}
	require.Equal(t, ids[:2], ids[2:])
	require.NotEqual(t, ids[0], ids[1])
	begun := started(ada, 1, "wait-0")
	begun.TriggerID = ids[0]
	s.happened(begun)
	again := s.request(http.MethodPost, "/journeys/cart/enroll/batch", batch, http.StatusOK)
	require.Equal(t, "already_enrolled", at(t, again, "results", 0, "reason"))
	require.Equal(t, true, at(t, again, "results", 1, "enrolled"))
}

// Many runs are taken in steps; what each is told names where it stood.
func TestManyRunsAreToldWhereTheyStood(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.journey(cart)
	ada := s.person("u1", "", "")
	var changes []storage.JourneyChange
	for n := range 7 {
		changes = append(changes, started(ada, n, "wait-0"))
	}
	failed := changes[6]
	failed.Kind, failed.Step, failed.Since, failed.At, failed.Error = storage.RunFailed, "ask", failed.At.Add(time.Second), failed.At.Add(time.Hour), "HTTP 500"
	s.happened(append(changes, failed)...)
	act := func(what, fields string) map[string]any {
		status := http.StatusAccepted
		if fields == `"dryRun":true` {
			status = http.StatusOK
		}
		return s.request(http.MethodPost, "/journeys/cart/states/"+what, "{"+fields+"}", status)
	}
	preview := act("skip", `"dryRun":true`)
	require.InDelta(t, 6, preview["total"], 0)
	require.Len(t, preview["sample"], 6)
	require.Empty(t, s.told.signals)
	require.Empty(t, s.audit())
	until := entered.Add(5 * time.Minute).Format(time.RFC3339)
	cursor, pages := "", 0
	for more := true; more; pages++ {
		part := act("skip", fmt.Sprintf(`"limit":2,"since":%q,"until":%q,"cursor":%q`, entered.Add(time.Minute).Format(time.RFC3339), until, cursor))
		cursor, more = part["nextCursor"].(string)
	}
	require.Equal(t, 2, pages)
	commands := commandsOf(t, s.told.signals)
	require.Len(t, commands, 4)
	for i, c := range commands {
		run := changes[4-i]
		require.Equal(t, journeys.Command{What: "skip", Run: run.RunID, Step: "wait-0", Since: run.At}, c)
		require.Equal(t, ada, s.told.signals[i].ContactID)
	}
	require.Len(t, s.audit(), 2)
	s.told.signals = nil
	require.InDelta(t, 1, act("retry", `"fromStart":true,"step":"ask","endedSince":"2026-03-10T00:00:00Z"`)["told"], 0)
	require.Equal(t, []journeys.Command{{What: "retry", Run: failed.RunID, FromStart: true, Since: failed.Since}}, commandsOf(t, s.told.signals))
	require.InDelta(t, 0, act("cancel", `"version":"2"`)["told"], 0)
	require.Equal(t, []string{"cursor"}, paths(t, s.request(http.MethodPost, "/journeys/cart/states/cancel", `{"cursor":"x"}`, http.StatusBadRequest)))
	s.request(http.MethodPost, "/journeys/none/states/skip", `{}`, http.StatusNotFound)
}

func TestARunIsShownWithWhatHappenedToIt(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.journey(cart)
	ada := s.person("u1", "", "ada@example.com")
	run := started(ada, 1, "wait-0")
	stepped, failed := run, run
	stepped.Kind, stepped.Step, stepped.Next, stepped.Outcome, stepped.At, stepped.Since = storage.RunStepped, "wait-0", "ask", "next", run.At.Add(4*time.Hour), run.At
	failed.Kind, failed.Step, failed.Next, failed.Error, failed.At, failed.Since, failed.Does = storage.RunFailed, "ask", "", "HTTP 500", run.At.Add(5*time.Hour), stepped.At, "call"
	s.happened(run, stepped, failed)
	shown := s.request(http.MethodGet, "/journeys/cart/states/"+run.RunID, "", http.StatusOK)
	state := shown["state"].(map[string]any)
	for field, want := range map[string]any{
		"id": run.RunID, "userId": "u1", "userEmail": "ada@example.com", "journeyId": "cart", "currentNodeId": "ask", "status": "failed", "hatchetRunId": nil,
		"context": map[string]any{}, "errorMessage": "HTTP 500", "entryCount": 1.0, "completedAt": nil, "exitedAt": nil,
		"createdAt": "2026-03-10T12:01:00.123Z", "updatedAt": "2026-03-10T17:01:00.123Z",
	} {
		require.Equal(t, want, state[field], field)
	}
	logs := shown["logs"].([]any)
	require.Len(t, logs, 3)
	for i, want := range []map[string]any{
		{"fromNodeId": nil, "toNodeId": "wait-0", "action": "started", "detail": nil, "createdAt": "2026-03-10T12:01:00.123Z"},
		{"fromNodeId": "wait-0", "toNodeId": "ask", "action": "step", "detail": map[string]any{"outcome": "next"}, "createdAt": "2026-03-10T16:01:00.123Z"},
		{"fromNodeId": "ask", "toNodeId": nil, "action": "failed", "detail": map[string]any{"error": "HTTP 500"}, "createdAt": "2026-03-10T17:01:00.123Z"},
	} {
		line := logs[i].(map[string]any)
		require.NotEmpty(t, line["id"])
		delete(line, "id")
		require.Equal(t, want, line)
	}
	require.Equal(t, shown["state"], s.request(http.MethodGet, "/journey-logs/"+run.RunID, "", http.StatusOK)["state"])
	require.Equal(t, "Journey state not found", s.request(http.MethodGet, "/journey-logs/"+uuid.NewString(), "", http.StatusNotFound)["error"])
	require.Equal(t, "State not found", s.request(http.MethodGet, "/journeys/other/states/"+run.RunID, "", http.StatusNotFound)["error"])
	again := s.request(http.MethodPost, "/journeys/cart/states/retry", `{"fromStart":true,"dryRun":true}`, http.StatusOK)
	require.InDelta(t, 1, again["effects"], 0)
}

// A run is cancelled when its processor has obeyed, and so says the answer.
func TestACancelledRunIsAnsweredWhenItHasEnded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.journey(cart)
	ada := s.person("u1", "", "")
	run, other := started(ada, 1, "wait-0"), started(ada, 2, "wait-0")
	s.happened(run, other)
	ends := func(kind string) {
		ended := run
		ended.Kind, ended.At, ended.Next, ended.Step, ended.Since = kind, run.At.Add(time.Hour), "", "wait-0", run.At
		s.happened(ended)
	}
	s.told.appended = func() { ends(storage.RunExited) }
	answer := s.request(http.MethodDelete, "/journeys/cart/states/"+run.RunID, "", http.StatusOK)
	require.Equal(t, map[string]any{
		"state": map[string]any{"id": run.RunID, "status": "exited", "exitedAt": "2026-03-10T13:01:00.123Z"}, "hatchetCancelled": true,
	}, answer)
	refused := s.request(http.MethodDelete, "/journeys/cart/states/"+run.RunID, "", http.StatusConflict)
	require.Equal(t, "Cannot cancel journey in 'exited' status", refused["error"])
	run = other
	s.told.appended = func() { ends(storage.RunCompleted) }
	refused = s.request(http.MethodDelete, "/journeys/cart/states/"+run.RunID, "", http.StatusConflict)
	require.Equal(t, "Cannot cancel journey in 'completed' status", refused["error"])
	s.request(http.MethodDelete, "/journeys/cart/states/"+uuid.NewString(), "", http.StatusNotFound)
}

func TestJourneysAreListedShownAndSummedUp(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.journey(cart)
	ada := s.person("u1", "", "")
	var changes []storage.JourneyChange
	ends := map[int]string{0: storage.RunCompleted, 1: storage.RunExited, 2: storage.RunFailed, 3: storage.RunFailed}
	for n := range 6 {
		run := started(ada, n, "wait-0")
		changes = append(changes, run)
		if ends[n] == "" {
			continue
		}
		run.Kind, run.At, run.Next, run.Step, run.Since = ends[n], run.At.Add(time.Duration(n+1)*time.Hour), "", "wait-0", run.At
		changes = append(changes, run)
	}
	retried := changes[len(changes)-1]
	retried.RunID, retried.Kind, retried.Next = changes[4].RunID, storage.RunRetried, "wait-0"
	mailed := retried
	mailed.Kind, mailed.Step, mailed.Outcome, mailed.Does = storage.RunStepped, "wait-0", "next", "email"
	s.happened(append(changes, retried, mailed)...)
	listed := s.request(http.MethodGet, "/journeys", "", http.StatusOK)
	require.Equal(t, map[string]any{"event": "cart.left", "others": []any{"cart.kept"}}, at(t, listed, "journeys", 0, "trigger"))
	require.Equal(t, map[string]any{"active": 0.0, "waiting": 3.0, "completed": 1.0, "failed": 1.0, "exited": 1.0, "skipped": 0.0, "converted": 0.0}, at(t, listed, "journeys", 0, "counts"))
	shown := s.request(http.MethodGet, "/journeys/cart", "", http.StatusOK)["journey"].(map[string]any)
	require.Equal(t, "cart.left", at(t, shown, "trigger", "event"))
	require.NotNil(t, at(t, shown, "trigger", "where"))
	require.Equal(t, "order.paid", at(t, shown, "exitOn", 0, "event"))
	require.Contains(t, shown, "suppress")
	require.Empty(t, s.request(http.MethodGet, "/journeys/cart/states?status=active", "", http.StatusOK)["states"])

	all := s.request(http.MethodGet, "/metrics/journeys", "", http.StatusOK)
	require.Equal(t, map[string]any{
		"journeyId": "cart", "name": "Abandoned cart", "enrolled": 6.0, "completed": 1.0, "failed": 1.0, "exited": 1.0, "active": 3.0,
		"completionRate": 0.1667, "avgDurationSecs": 5400.0,
	}, at(t, all, "journeys", 0))
	one := s.request(http.MethodGet, "/metrics/journeys/cart", "", http.StatusOK)
	require.Equal(t, map[string]any{
		"journeyId": "cart", "enrolled": 6.0, "emailSent": 1.0, "emailOpened": nil, "emailClicked": nil, "completed": 1.0, "failed": 1.0, "exited": 1.0,
	}, one)
	s.request(http.MethodGet, "/metrics/journeys/none", "", http.StatusNotFound)
}

// J12: versions that runs belong to and that a process cannot run are listed.
func TestVersionsOfJourneysAreListedWithThoseThatAreUnknown(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.journey(cart)
	s.missing = map[string]error{"cart@1": errors.New("is not in this program")}
	keep := func(versions ...string) {
		var inUse []storage.JourneyVersion
		for _, v := range versions {
			inUse = append(inUse, storage.JourneyVersion{JourneyID: "cart", Version: v, Definition: "{}"})
		}
		require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error {
			_, _, err := tx.KeepJourneyVersions(t.Context(), inUse)
			return err
		}))
	}
	keep("1")
	keep("2")
	s.happened(started(s.person("u1", "", ""), 1, "wait-0"))
	versions := s.request(http.MethodGet, "/journey-versions", "", http.StatusOK)["versions"].([]any)
	require.Len(t, versions, 2)
	for i, want := range []map[string]any{
		{"journeyId": "cart", "version": "2", "inUse": true, "live": 0.0, "known": true},
		{"journeyId": "cart", "version": "1", "inUse": false, "live": 1.0, "known": false, "why": "is not in this program"},
	} {
		for field, value := range want {
			require.Equal(t, value, versions[i].(map[string]any)[field], field)
		}
	}
}

func TestARunThatWaitsForAFunctionIsShownWithHowItStandsWithThat(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.journey(cart)
	run := started(s.person("u1", "", ""), 1, "charge")
	s.happened(run)
	job := func() any {
		return s.request(http.MethodGet, "/journeys/cart/states/"+run.RunID, "", http.StatusOK)["job"]
	}
	require.Nil(t, job())
	ref := storage.JourneyJobRef{RunID: run.RunID, Epoch: 1}
	require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.SaveJourneyJobs(t.Context(), &storage.JourneyJobChanges{Begun: []storage.NewJourneyJob{{JourneyJobRef: ref, ContactID: run.ContactID, JourneyID: "cart", Version: "1", Step: "charge"}}})
	}))
	attempt := func(note storage.JourneyJobNote) {
		taken, err := s.db.TakeJourneyJobs(t.Context(), "journeys", []storage.JourneyCode{{JourneyID: "cart", Version: "1"}}, uuid.NewString(), 1, time.Hour)
		require.NoError(t, err)
		require.Len(t, taken, 1)
		require.Equal(t, true, at(t, job(), "running"))
		note.JourneyJobInHand = storage.JourneyJobInHand{JourneyJobRef: ref, Token: taken[0].Token}
		_, err = s.db.NoteJourneyJobs(t.Context(), []storage.JourneyJobNote{note})
		require.NoError(t, err)
	}
	attempt(storage.JourneyJobNote{Error: "HTTP 503"})
	shown := job().(map[string]any)
	require.NotEmpty(t, shown["due"])
	delete(shown, "due")
	require.Equal(t, map[string]any{"step": "charge", "attempts": 1.0, "running": false, "error": "HTTP 503"}, shown)
	attempt(storage.JourneyJobNote{Done: true, Result: "1"})
	require.Nil(t, job(), "what came of it is known")
}
