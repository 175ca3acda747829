package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// cartJourney has a step of each kind that leaves something behind, two waits, and two ways out.
const cartJourney = `
id: cart
name: Cart
enabled: true
trigger: {event: cart.left}
key: cartId
entryLimit: unlimited
exitOn: [{event: cart.emptied, where: {cartId: {run: key}}, reason: emptied}]
steps:
  - email: {template: cart-1, props: {cart: {run: key}}}
  - wait: 1s
  - id: ask
    call: {destination: shop, body: {cart: {run: key}}, timeout: 1h}
  - email: {template: cart-2, props: {cart: {run: key}, offer: {step: ask, path: [body, offer]}}}
  - trigger: {event: cart.reminded, properties: {cart: {run: key}}}
  - id: paid
    waitFor: {any: [{event: order.paid, where: {cartId: {run: key}}}], timeout: 2s}
    then: {timeout: [{email: {template: cart-3, props: {cart: {run: key}}}}]}
  - bucket: {add: reminded}
`

// cartJourneyLater is another version of it, for the runs that begin with it.
const cartJourneyLater = cartJourney + "  - set: {reminded: {run: key}}\n"

// heldJourney waits until it is told to go on.
const heldJourney = `
id: held
name: Held
enabled: true
trigger: {event: held.began}
key: cartId
entryLimit: unlimited
steps:
  - waitFor: {any: [{event: held.freed}], timeout: 30d}
  - email: {template: held, props: {cart: {run: key}}}
`

const remindedBucket = "id: reminded\nname: Reminded\nenabled: true\nkind: manual\n"

// apply puts files of definitions in use.
func (w *world) apply(files map[string]string) {
	w.t.Helper()
	dir := w.t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(w.t, os.WriteFile(path, []byte(text), 0o600))
	}
	w.cli(nil, "apply", dir, "--yes")
}

// shop answers calls, now and then only at the second time, and remembers their ids.
type shop struct {
	mu    sync.Mutex
	came  map[string]bool
	carts map[string]string // by the id of the call
}

// ServeHTTP answers a call: its offer is the id under which it was asked.
func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	var asked struct{ Cart string }
	id := strings.TrimPrefix(r.Header.Get("webhook-id"), "msg_")
	s.mu.Lock()
	defer s.mu.Unlock()
	again := s.came[id]
	s.came[id] = true
	switch {
	case err != nil || json.Unmarshal(text, &asked) != nil:
		w.WriteHeader(http.StatusBadRequest)
	case !again && rand.IntN(8) == 0:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		s.carts[id] = asked.Cart
		fmt.Fprintf(w, `{"offer":%q}`, id)
	}
}

// shoppers are what a test of journeys sends, each event under a key of its own.
type shoppers struct {
	w *world
	c *client
	n int
}

func (s *shoppers) event(name, user, anon, cart string) event {
	s.n++
	e := event{Name: name, UserID: user, AnonymousID: anon, IdempotencyKey: fmt.Sprint("key", s.n)}
	if cart != "" {
		e.EventProperties = map[string]any{"cartId": cart}
	}
	return e
}

func (s *shoppers) send(events ...event) {
	s.w.t.Helper()
	require.NoError(s.w.t, s.c.sendBatch(s.w.ctx(), events))
}

// Sizes of the test.
const (
	cartRounds, cartUsers = 4, 20 // users begin in each round, with two carts
	heldPairs, heldErased = 6, 6
	heldRuns              = 3*heldPairs + heldErased
)

// round has users leave carts a and b, and those of the round before pay a or empty b.
func (s *shoppers) round(round int) {
	s.w.t.Helper()
	var first, second []event
	for i := range cartUsers {
		user := fmt.Sprintf("u%d-%d", round, i)
		first = append(first, s.event("cart.left", user, "", "a"))
		second = append(second, s.event("cart.left", user, "", "b"))
		before := fmt.Sprintf("u%d-%d", round-1, i)
		switch {
		case round == 0:
		case i%3 == 0:
			first = append(first, s.event("order.paid", before, "", "a"))
		case i%3 == 1:
			second = append(second, s.event("cart.emptied", before, "", "b"))
		}
	}
	s.send(first...)
	s.send(second...)
}

// hold begins runs that go on when they are told to: of pairs who are merged later, both with
// cart x, and of those who are erased later.
func (s *shoppers) hold() {
	s.w.t.Helper()
	var users, anons, others []event
	for i := range heldPairs {
		users = append(users, s.event("held.began", fmt.Sprint("m", i), "", "x"))
		anons = append(anons, s.event("held.began", "", fmt.Sprint("an", i), "x"))
		others = append(others, s.event("held.began", "", fmt.Sprint("an", i), "y"))
	}
	for i := range heldErased {
		users = append(users, s.event("held.began", fmt.Sprint("e", i), "", "x"))
	}
	s.send(users...)
	s.send(anons...)
	s.send(others...)
	s.w.eventually("runs that are held", func(ctx context.Context) error {
		var n int
		err := storagetest.SQL(s.w.db).QueryRow(ctx, `SELECT count(*) FROM journey_runs WHERE journey_id = 'held'`).Scan(&n)
		if err == nil && n != heldRuns {
			err = fmt.Errorf("there are %d", n)
		}
		return err
	})
}

// meet merges the pairs, and free has all go on, also those who were erased and are new.
func (s *shoppers) meet() {
	s.w.t.Helper()
	for i := range heldPairs {
		s.send(s.event("met", fmt.Sprint("m", i), fmt.Sprint("an", i), ""))
	}
}

func (s *shoppers) erase() {
	s.w.t.Helper()
	for i := range heldErased {
		p := &person{n: i}
		require.NoError(s.w.t, p.answered(s.w.ctx(), s.c, http.MethodDelete, map[string]any{"userId": fmt.Sprint("e", i)}, http.StatusOK, http.StatusNotFound))
	}
}

func (s *shoppers) free() {
	s.w.t.Helper()
	var events []event
	for i := range heldPairs {
		events = append(events, s.event("held.freed", fmt.Sprint("m", i), "", ""))
	}
	for i := range heldErased {
		events = append(events, s.event("held.freed", fmt.Sprint("e", i), "", ""))
	}
	s.send(events...)
}

// J8: no step is done twice. Two processes share the work, for a while three; either of the first is killed now and then,
// also while contacts with runs are merged and erased, and a journey is changed.
func TestFaultEveryStepOfARunHappensOnceWhoeverIsKilled(t *testing.T) {
	eachSeed(t, 2, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, shortLease(), shortSession())
		asked := &shop{came: map[string]bool{}, carts: map[string]string{}}
		server := httptest.NewServer(asked)
		defer server.Close()
		processes := []*process{w.serve("one")}
		_, err := w.ops.Create(w.ctx(), destinations.Settings{Name: "shop", URL: server.URL, EventTypes: []string{schemas.SubscribeOutbox}})
		require.NoError(t, err)
		w.apply(map[string]string{"buckets/reminded.yaml": remindedBucket, "journeys/cart.yaml": cartJourney, "journeys/held.yaml": heldJourney})
		w.waitTakenOver("journeys")
		processes = append(processes, w.serve("two"))
		s := &shoppers{w: w, c: w.client()}
		s.hold()
		var third *process
		for round := range cartRounds {
			s.round(round)
			switch round {
			case 1:
				third = w.serve("three")
				s.meet()
			case 2:
				s.erase()
				w.apply(map[string]string{"buckets/reminded.yaml": remindedBucket, "journeys/cart.yaml": cartJourneyLater, "journeys/held.yaml": heldJourney})
			case 3:
				third.stop()
				s.free()
			}
			w.waitPhase(rng)
			victim := processes[rng.IntN(2)]
			victim.kill()
			victim.start()
		}
		for _, p := range processes {
			p.waitReady()
		}
		w.verifyRuns(asked)
		for _, p := range processes {
			p.stop()
		}
	})
}

// The command that rebuilds the processor has everybody taken over anew: runs go on where they
// stood, and nothing that they did is done again.
func TestRunsGoOnWhenTheirProcessorWasRebuilt(t *testing.T) {
	beside(t)
	w := newWorld(t, shortLease(), shortSession())
	p := w.serve("one")
	w.apply(map[string]string{"journeys/held.yaml": heldJourney})
	w.waitTakenOver("journeys")
	s := &shoppers{w: w, c: w.client()}
	s.hold()
	w.waitProcessed()
	p.stop()
	told := len(w.read(schemas.TopicLifecycle))
	w.eventually("the sessions to run out", func(context.Context) error {
		_, err := w.tryCLI("processors", "rebuild", "journeys")
		return err
	})
	p.start()
	p.waitReady()
	w.waitTakenOver("journeys")
	require.Len(t, w.read(schemas.TopicLifecycle), told, "a take-over tells nothing")
	s.free()
	var anons []event
	for i := range heldPairs {
		anons = append(anons, s.event("held.freed", "", fmt.Sprint("an", i), ""))
	}
	s.send(anons...)
	w.eventually("a mail of each run", func(context.Context) error { return w.wantRecords(schemas.TopicEmailRequests, heldRuns) })
	w.eventually("all ends to be told", func(context.Context) error {
		ends := 0
		for _, f := range w.journeyFacts() {
			if f.Type == schemas.FactJourneyCompleted {
				ends++
			}
		}
		if ends != heldRuns {
			return fmt.Errorf("%d of %d are", ends, heldRuns)
		}
		return nil
	})
	runs := map[string]bool{}
	for _, r := range w.read(schemas.TopicEmailRequests) {
		m, err := w.codec.DecodeEmailRequest(r.Value)
		require.NoError(t, err)
		runs[*m.JourneyStateID] = true
	}
	require.Len(t, runs, heldRuns, "each run asks for its mail once")
	require.Empty(t, w.read(schemas.TopicDeadLetters))
	p.stop()
}

// runStory is what was told of a run.
type runStory struct {
	journey, version, key, user string

	at            int // the node where it stands
	came          map[string]time.Time
	ended, reason string
	left          []string // what steps left behind: cart-1, cart.reminded, …
}

const endedRuns = 2*cartRounds*cartUsers + 3*heldPairs

// verifyRuns waits until all runs have ended, and compares what was told, kept, counted and
// left behind.
func (w *world) verifyRuns(asked *shop) {
	t := w.t
	t.Helper()
	w.eventually("all runs to end, and to be told of", func(ctx context.Context) error {
		var live, all int
		if err := storagetest.SQL(w.db).QueryRow(ctx, `SELECT count(*) FILTER (WHERE ended_at IS NULL), count(*) FROM journey_runs`).Scan(&live, &all); err != nil {
			return err
		}
		if live != 0 || all != endedRuns {
			return fmt.Errorf("%d of %d live", live, all)
		}
		ends, entered := 0, 0
		for _, r := range w.read(schemas.TopicLifecycle) {
			switch r.Type {
			case schemas.FactJourneyCompleted, schemas.FactJourneyExited, schemas.FactJourneyFailed:
				ends++
			case schemas.FactBucketEntered:
				entered++
			}
		}
		if ends < endedRuns || entered < cartRounds*cartUsers {
			return fmt.Errorf("%d of %d ends are told, %d are in the bucket", ends, endedRuns, entered)
		}
		return nil
	})
	w.waitProcessed()
	require.Empty(t, w.read(schemas.TopicDeadLetters))
	stories := w.runStories()
	w.verifyKept(stories)
	w.verifyCounters(stories)
	w.verifyLeft(stories, asked)
	w.verifyHeld(stories)
}

// runStories reads what was told: each fact once, in the order of its contact, and a path of
// the graph, of each user and key one.
func (w *world) runStories() map[string]*runStory {
	t := w.t
	t.Helper()
	programs := map[string]*journeys.Program{}
	for _, text := range []string{cartJourney, cartJourneyLater, heldJourney} {
		j, err := journeys.ParseYAML("", []byte(text))
		require.NoError(t, err)
		p, err := journeys.Compile(j, journeys.Options{})
		require.NoError(t, err)
		programs[p.Version()] = p
	}
	stories, ids, numbers := map[string]*runStory{}, map[string]bool{}, map[string]int64{}
	begun, versions := map[string]string{}, map[string]bool{}
	for _, f := range w.journeyFacts() {
		require.False(t, ids[f.ID], "fact %s stands on its topic more than once", f.ID)
		ids[f.ID] = true
		numbers[f.ContactID]++
		require.Equal(t, numbers[f.ContactID], f.WriterSeq, "the writer's number of %s", f.Type)
		s := stories[f.Journey.StateID]
		if f.Type == schemas.FactJourneyStarted {
			require.Nil(t, s, "a run that begins twice")
			s = &runStory{journey: f.Journey.JourneyID, version: *f.Journey.Version, key: *f.Journey.Key, came: map[string]time.Time{}}
			if f.UserID != nil {
				s.user = *f.UserID
			} else {
				s.user = *f.AnonymousID
			}
			stories[f.Journey.StateID] = s
			one := fmt.Sprint(s.journey, s.user, s.key)
			require.Empty(t, begun[one], "a second run of %s", one)
			begun[one] = f.Journey.StateID
		}
		require.NotNil(t, s, "a fact of a run that did not begin: %+v", f.Journey)
		s.take(t, programs[s.version], f)
		versions[s.version] = true
	}
	require.Len(t, versions, len(programs), "runs of each version")
	return stories
}

// journeyFacts are what was told of runs, in its order: that of a contact stands on one
// partition, and the survivor of a merge goes on after its loser.
func (w *world) journeyFacts() (all []*schemas.Fact) {
	w.t.Helper()
	for _, r := range w.read(schemas.TopicLifecycle) {
		if strings.HasPrefix(r.Type, "journey.") {
			f, err := w.codec.DecodeFact(r.Value)
			require.NoError(w.t, err)
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b *schemas.Fact) int { return a.OccurredAt.Compare(b.OccurredAt) })
	return all
}

// take goes on with what is told: from a node there is an edge for the outcome, or an end.
func (s *runStory) take(t *testing.T, p *journeys.Program, f *schemas.Fact) {
	t.Helper()
	about := fmt.Sprintf("%s of %s, key %s: %v", f.Type, s.user, s.key, f.Journey)
	require.Empty(t, s.ended, "%s: it has ended", about)
	require.Equal(t, []string{s.version, s.key}, []string{*f.Journey.Version, *f.Journey.Key}, about)
	switch f.Type {
	case schemas.FactJourneyStarted:
		s.came[p.Nodes()[0].ID] = f.OccurredAt
	case schemas.FactJourneyStep:
		n := p.Nodes()[s.at]
		require.Equal(t, n.ID, *f.Journey.Step, about)
		require.Equal(t, s.came[n.ID], *f.Journey.Since, about)
		s.spent(t, n.ID, *f.Journey.Outcome, f.OccurredAt.Sub(*f.Journey.Since))
		to, known := -2, false
		for _, e := range n.Next {
			if e.Outcome == *f.Journey.Outcome {
				to, known = e.To, true
			}
		}
		require.True(t, known, "%s: no such outcome", about)
		if s.at = to; to >= 0 {
			s.came[p.Nodes()[to].ID] = f.OccurredAt
		}
	case schemas.FactJourneyCompleted:
		require.Equal(t, -1, s.at, "%s: it stands at a step", about)
		s.ended = "completed"
	case schemas.FactJourneyExited:
		require.Equal(t, p.Nodes()[s.at].ID, *f.Journey.Step, about)
		s.ended, s.reason = "exited", *f.Journey.Reason
	default:
		require.Fail(t, about)
	}
}

// spent compares how long a step took with what it says, and notes what it leaves.
func (s *runStory) spent(t *testing.T, step, outcome string, took time.Duration) {
	t.Helper()
	switch step {
	case "wait-1":
		require.Equal(t, time.Second, took, "whenever it was handled")
	case "paid":
		if outcome == journeys.OutcomeTimeout {
			require.Equal(t, 2*time.Second, took)
		}
	}
	leaves := map[string]string{
		"email-0": "cart-1", "email-3": "cart-2", "trigger-4": "cart.reminded", "paid.timeout.email-0": "cart-3", "bucket-6": "reminded", "email-1": "held",
	}
	if what := leaves[step]; what != "" {
		s.left = append(s.left, what)
	}
}

// verifyKept compares the rows of runs with what was told, and looks for timers that are left.
func (w *world) verifyKept(stories map[string]*runStory) {
	t := w.t
	t.Helper()
	rows, err := storagetest.SQL(w.db).Query(w.ctx(), `SELECT run_id::text, status, coalesce(reason, '') FROM journey_runs`)
	require.NoError(t, err)
	defer rows.Close()
	kept := 0
	for rows.Next() {
		var run, status, reason string
		require.NoError(t, rows.Scan(&run, &status, &reason))
		s := stories[run]
		require.NotNil(t, s, "run %s, of which nothing was told", run)
		require.Equal(t, []string{s.ended, s.reason}, []string{status, reason}, "run %s", run)
		kept++
	}
	require.NoError(t, rows.Err())
	require.Equal(t, endedRuns, kept)
	require.Len(t, stories, endedRuns+heldErased, "those of the erased have begun")
	w.eventually("what is due to be told, though nobody waits for it any more", func(context.Context) error {
		if w.holds(`SELECT EXISTS (SELECT FROM timers WHERE owner = 'journeys' AND due < now())`) {
			return errors.New("there are timers")
		}
		return nil
	})
}

// verifyCounters compares counters with what was told; runs of the erased are counted alone.
func (w *world) verifyCounters(stories map[string]*runStory) {
	t := w.t
	t.Helper()
	want := map[string]int{}
	for _, s := range stories {
		want["started "+s.journey]++
		for _, what := range s.left {
			if strings.HasPrefix(what, "cart-") || what == "held" {
				want["mailed "+s.journey]++
			}
		}
		if s.ended == "" {
			want["exited "+s.journey+" erased"]++
		} else {
			want[strings.TrimSpace(s.ended+" "+s.journey+" "+s.reason)]++
		}
	}
	rows, err := storagetest.SQL(w.db).Query(w.ctx(), `
		SELECT rtrim(concat_ws(' ', what, journey_id, detail)), sum(n)::int FROM journey_counters WHERE node = '' GROUP BY 1`)
	require.NoError(t, err)
	defer rows.Close()
	got := map[string]int{}
	for rows.Next() {
		var what string
		var n int
		require.NoError(t, rows.Scan(&what, &n))
		got[what] = n
	}
	require.NoError(t, rows.Err())
	require.Equal(t, want, got)
	require.False(t, w.holds(`
		SELECT EXISTS (SELECT FROM journey_counters WHERE node <> '' GROUP BY journey_id, version, node
		               HAVING sum(n) FILTER (WHERE what = 'came') <> sum(n) FILTER (WHERE what IN ('step', 'exited', 'failed')))`),
		"at each step those who came went on or ended")
}

// verifyLeft compares what steps left on the topics with what was told that they did.
func (w *world) verifyLeft(stories map[string]*runStory, asked *shop) {
	t := w.t
	t.Helper()
	want, got, ids := map[string]int{}, map[string]int{}, map[string]bool{}
	calls := 0
	for run, s := range stories {
		for _, what := range s.left {
			if what != "reminded" {
				want[what+" "+run]++
			}
		}
		if _, came := s.came["ask"]; came {
			calls++
		}
	}
	once := func(id string) {
		require.False(t, ids[id], "%s stands on its topic more than once", id)
		ids[id] = true
	}
	carts, offered := map[string]string{}, map[string]string{}
	for _, r := range w.read(schemas.TopicOutbox) {
		o, err := w.codec.DecodeOutbox(r.Value)
		require.NoError(t, err)
		once(o.ID)
		var body struct{ Cart string }
		require.NoError(t, json.Unmarshal([]byte(o.Body), &body))
		carts[o.ID] = body.Cart
	}
	require.Len(t, carts, calls)
	for id, cart := range asked.carts {
		require.Equal(t, carts[id], cart, "call %s, that nobody made", id)
	}
	for _, r := range w.read(schemas.TopicEmailRequests) {
		m, err := w.codec.DecodeEmailRequest(r.Value)
		require.NoError(t, err)
		once(m.ID)
		run := *m.JourneyStateID
		got[m.Template+" "+run]++
		var props struct{ Cart, Offer string }
		require.NoError(t, json.Unmarshal([]byte(m.Props), &props))
		require.Equal(t, stories[run].key, props.Cart, "a mail of another run")
		if m.Template == "cart-2" {
			require.Equal(t, props.Cart, carts[props.Offer], "the answer of another run")
			require.Empty(t, offered[props.Offer], "an answer that two runs have")
			offered[props.Offer] = run
		}
	}
	reminded := 0
	for _, r := range w.read(schemas.TopicEvents) {
		if e, err := w.codec.DecodeEvent(r.Value); err == nil && e.Name == "cart.reminded" {
			once(e.ID)
			reminded++
		}
	}
	for what := range want {
		if strings.HasPrefix(what, "cart.reminded ") {
			reminded--
			delete(want, what)
		}
	}
	require.Zero(t, reminded, "events that steps triggered")
	require.Equal(t, want, got, "mails by run")
}

// verifyHeld looks at those who were merged: of two runs of one key one went on.
func (w *world) verifyHeld(stories map[string]*runStory) {
	t := w.t
	t.Helper()
	ends := map[string]int{}
	for _, s := range stories {
		switch {
		case s.journey != "held":
		case strings.HasPrefix(s.user, "e"):
			require.Empty(t, s.ended, "nothing is told of the erased")
			ends["erased"]++
		default:
			ends[strings.TrimSpace(s.key+" "+s.ended+" "+s.reason)]++
		}
	}
	require.Equal(t, map[string]int{"erased": heldErased, "x completed": heldPairs, "x exited merged": heldPairs, "y completed": heldPairs}, ends)
}
