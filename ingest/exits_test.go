package ingest_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/schemas"
)

// declared says that journeys declare exitOn.
func declared(_ *ingest.Config, deps *ingest.Deps) { deps.Exits = func() bool { return true } }

// exitsOf is where the answer of what an input's event did to runs stands.
func exitsOf(inputID string) string { return schemas.ExitsID(schemas.EventID(inputID)) }

var (
	exited = schemas.Exits{ContactID: "c1", Exits: []schemas.Exit{{JourneyID: "cart", StateID: "r1", Exited: true}, {JourneyID: "cart", StateID: "r2"}}}
	shown  = []any{
		map[string]any{"journeyId": "cart", "stateId": "r1", "exited": true},
		map[string]any{"journeyId": "cart", "stateId": "r2", "exited": false},
	}
)

const keyed = `{"name":"n","userId":"u","idempotencyKey":"k"}`

func TestASenderThatWaitsIsToldWhichRunsItsEventEnded(t *testing.T) {
	t.Parallel()
	var s *server
	s = newAnsweringServer(t, func(in *schemas.Input) *schemas.Answer {
		s.answer(exitsOf(in.ID), exited) // before the first answer: none is missed
		return &schemas.Answer{ContactID: "c1", Stored: true}
	}, declared)
	got := s.request(http.MethodPost, "/v1/events", keyed).is(http.StatusAccepted).object()
	require.Equal(t, map[string]any{"id": s.log.last(t).ID, "stored": true, "contactId": "c1", "exits": shown}, got)
}

// What is told of the first time is told again, to each of any number of repetitions, also
// of those that come before the first was answered.
func TestARepetitionIsToldWhatTheFirstWas(t *testing.T) {
	t.Parallel()
	s := newAnsweringServer(t, firstAndAgain(), declared)
	decide, one := s.log.appended, sync.Mutex{}
	first := ""
	s.log.appended = func(in *schemas.Input) { // one is decided after the other, as by processor identity
		one.Lock()
		defer one.Unlock()
		decide(in)
		if first == "" {
			first = in.ID
		}
	}
	var all sync.WaitGroup
	answers := make(chan map[string]any, 5)
	for range cap(answers) {
		all.Go(func() { answers <- s.request(http.MethodPost, "/v1/events", keyed).is(http.StatusAccepted).object() })
	}
	require.Eventually(t, func() bool { return len(s.log.all()) == cap(answers) }, time.Minute, time.Millisecond)
	one.Lock()
	s.answer(exitsOf(first), exited)
	one.Unlock()
	all.Wait()
	close(answers)
	stored := 0
	for got := range answers {
		require.Equal(t, shown, got["exits"])
		require.NotContains(t, got, "pending")
		if got["stored"] == true {
			stored++
		}
	}
	require.Equal(t, 1, stored)
	got := s.request(http.MethodPost, "/v1/events", keyed).is(http.StatusAccepted).object()
	require.Equal(t, shown, got["exits"])
	require.Equal(t, false, got["stored"])
}

// Nobody is kept waiting for what will never be said.
func TestWhatNobodySaysIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	const answered, other = "01920000-0000-7000-8000-000000000001", "01920000-0000-7000-8000-000000000002"
	for name, c := range map[string]struct {
		answer schemas.Answer
		with   func(*ingest.Config, *ingest.Deps)
	}{
		"no journey declares exitOn":                          {schemas.Answer{Stored: true}, func(_ *ingest.Config, deps *ingest.Deps) { deps.Exits = func() bool { return false } }},
		"nobody knows of journeys":                            {schemas.Answer{Stored: true}, func(*ingest.Config, *ingest.Deps) {}},
		"the contact was erased":                              {schemas.Answer{Error: schemas.AnswerErased}, declared},
		"the first came long ago, or its sender did not wait": {schemas.Answer{ContactID: "c1", First: other}, declared},
		"a repetition of which the first is not known":        {schemas.Answer{}, declared},
		"a repetition whose contact was erased since":         {schemas.Answer{First: answered}, declared},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAnsweringServer(t, func(*schemas.Input) *schemas.Answer { return &c.answer }, func(cfg *ingest.Config, _ *ingest.Deps) {
				cfg.AnswerTimeout = time.Hour
			}, c.with)
			s.answer(answered, schemas.Answer{Stored: true})
			got := s.request(http.MethodPost, "/v1/events", keyed).is(http.StatusAccepted).object()
			require.Equal(t, []any{}, got["exits"])
			require.Equal(t, c.answer.Stored, got["stored"])
			require.NotContains(t, got, "pending")
		})
	}
}

// An event is accepted whatever comes of runs, and its sender hears in time that this is not
// known.
func TestExitsThatAreNotKnownInTimeArePending(t *testing.T) {
	t.Parallel()
	asked := func(inTime time.Duration) (known bool) {
		s := newAnsweringServer(t, firstAndAgain(), declared, func(cfg *ingest.Config, _ *ingest.Deps) { cfg.AnswerTimeout = inTime })
		for _, stored := range []bool{true, false} {
			got := s.request(http.MethodPost, "/v1/events", keyed).is(http.StatusAccepted).object()
			if got["contactId"] == nil {
				return false // this machine was too busy to know as much in time
			}
			require.Equal(t, map[string]any{"id": s.log.last(t).ID, "stored": stored, "contactId": "c1", "exits": []any{}, "pending": true}, got)
		}
		return true
	}
	inTime := 500 * time.Millisecond
	for !asked(inTime) {
		inTime *= 2
		require.Less(t, inTime, time.Minute)
	}
}

// firstAndAgain answers the first input with a key as new, and others as its repetitions.
func firstAndAgain() func(*schemas.Input) *schemas.Answer {
	first := ""
	return func(in *schemas.Input) *schemas.Answer {
		if first == "" {
			first = in.ID
			return &schemas.Answer{ContactID: "c1", Stored: true}
		}
		return &schemas.Answer{ContactID: "c1", First: first}
	}
}

// Who does not wait is told nothing, whatever runs there are.
func TestWhoDoesNotWaitIsToldOfNoRun(t *testing.T) {
	t.Parallel()
	s := newAnsweringServer(t, func(*schemas.Input) *schemas.Answer { return nil }, declared)
	got := s.request(http.MethodPost, "/v1/events", `{"name":"n","userId":"u"}`).is(http.StatusAccepted).object()
	require.Equal(t, map[string]any{"id": s.log.last(t).ID, "stored": true, "exits": []any{}}, got)
	require.False(t, s.log.last(t).Wait)
	s.request(http.MethodPost, "/v1/events/batch", `{"events":[`+keyed+`]}`).is(http.StatusAccepted)
	require.False(t, s.log.last(t).Wait)
}

// While processor journeys is away its absence holds senders up for a tenth of the time; when
// it is back they are told what it says, also when that takes longer.
func TestSendersAreNotHeldUpWhileNobodySaysWhatBecameOfRuns(t *testing.T) {
	t.Parallel()
	const inTime = 5 * time.Second
	away := true
	s := newAnsweringServer(t, func(*schemas.Input) *schemas.Answer { return &schemas.Answer{ContactID: "c1", Stored: true} }, declared,
		func(cfg *ingest.Config, _ *ingest.Deps) { cfg.AnswerTimeout = inTime })
	decide := s.log.appended
	s.log.appended = func(in *schemas.Input) {
		decide(in)
		if !away {
			s.answer(exitsOf(in.ID), exited)
		}
	}
	send := func() map[string]any {
		return s.request(http.MethodPost, "/v1/events", keyed).is(http.StatusAccepted).object()
	}
	began := time.Now()
	require.Equal(t, true, send()["pending"])
	require.GreaterOrEqual(t, time.Since(began), inTime)
	began = time.Now()
	for range 3 {
		require.Equal(t, true, send()["pending"])
	}
	require.Less(t, time.Since(began), 2*inTime, "three that wait for all of the time take longer")
	away = false
	require.Equal(t, shown, send()["exits"])

	s.log.appended = func(in *schemas.Input) {
		decide(in)
		time.AfterFunc(inTime/5, func() { s.answer(exitsOf(in.ID), exited) })
	}
	require.Equal(t, shown, send()["exits"])
}
