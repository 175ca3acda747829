package ingest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// newAnsweringServer is a server whose inputs are decided by decide; nil leaves
// an input without an answer.
func newAnsweringServer(t *testing.T, decide func(*schemas.Input) *schemas.Answer, with ...func(*ingest.Config, *ingest.Deps)) *server {
	t.Helper()
	s := newServer(t, func(cfg *ingest.Config, deps *ingest.Deps) {
		cfg.AnswerTimeout = time.Minute
		deps.Answers = storage.NewAnswers(deps.DB)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- deps.Answers.Run(ctx) }()
		t.Cleanup(func() { stop(); require.NoError(t, <-done) })
		for _, change := range with {
			change(cfg, deps)
		}
	})
	s.log.appended = func(in *schemas.Input) {
		decided := decide(in)
		if decided == nil || !in.Wait {
			return
		}
		s.answer(in.ID, decided)
	}
	return s
}

// answer gives an answer, which who waits for it is told.
func (s *server) answer(id string, said any) {
	text, err := json.Marshal(said)
	if err != nil {
		s.t.Error(err)
	}
	err = s.db.InTx(s.t.Context(), func(tx *storage.Tx) error {
		return tx.SaveAnswers(s.t.Context(), []storage.Answer{{InputID: id, JSON: text}}, time.Now())
	})
	if err != nil {
		s.t.Error(err)
	}
}

// 14. Given two posts with the same Idempotency-Key header, then first
// stored:true, second 202 stored:false.
func TestAnEventWithAKeyIsAnsweredByWhoKnowsTheKeys(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	s := newAnsweringServer(t, func(in *schemas.Input) *schemas.Answer {
		a := &schemas.Answer{ContactID: "c1", Stored: !seen[*in.IdempotencyKey]}
		seen[*in.IdempotencyKey] = true
		return a
	})
	event := `{"name":"n","userId":"u"}`
	first := s.request(http.MethodPost, "/v1/events", event, "Idempotency-Key", "k").is(http.StatusAccepted).object()
	require.Equal(t, true, first["stored"])
	require.Equal(t, "c1", first["contactId"])
	require.Equal(t, s.log.last(t).ID, first["id"])
	second := s.request(http.MethodPost, "/v1/events", event, "Idempotency-Key", "k").is(http.StatusAccepted).object()
	require.Equal(t, false, second["stored"])
	require.Equal(t, []any{}, second["exits"])
}

// 1. Given no contact, when PUT /v1/contacts, then 200 created:true, linked:false.
func TestAContactChangeAnswersWithWhatCameOfIt(t *testing.T) {
	t.Parallel()
	other := "c2"
	s := newAnsweringServer(t, func(in *schemas.Input) *schemas.Answer {
		return &schemas.Answer{ContactID: "c1", Created: true, Conflicts: []schemas.Conflict{{Kind: "email", Value: *in.Email, Reason: "taken", OtherContactID: &other}}}
	})
	got := s.request(http.MethodPut, "/v1/contacts", `{"email":"Ada@example.com","userId":"u","properties":{"plan":"pro","old":null},"lists":{"news":true}}`).is(http.StatusOK).object()
	require.Equal(t, "c1", got["id"])
	require.Equal(t, true, got["created"])
	require.Equal(t, false, got["linked"])
	require.Len(t, got["conflicts"], 1)
	in := s.log.last(t)
	require.Equal(t, schemas.InputContact, in.Type)
	require.Equal(t, `{"plan":"pro","old":null}`, *in.ContactProperties)
	require.Equal(t, "ada@example.com", *in.Email)
	require.Equal(t, map[string]bool{"news": true}, in.Lists)
	require.Nil(t, in.Event)
	require.True(t, in.Wait)
}

// 12. DELETE answers deleted:true; an unknown email gives 404.
func TestADeletionAnswersWhetherThereWasSomebody(t *testing.T) {
	t.Parallel()
	answers := map[string]*schemas.Answer{
		"known":    {Deleted: true},
		"unknown":  {Error: schemas.AnswerNotFound},
		"disputed": {Error: schemas.AnswerConflict, Conflicts: []schemas.Conflict{{Kind: "email", Value: "x", Reason: "another contact"}}},
	}
	s := newAnsweringServer(t, func(in *schemas.Input) *schemas.Answer { return answers[*in.UserID] })
	require.Equal(t, map[string]any{"deleted": true}, s.request(http.MethodDelete, "/v1/contacts", `{"userId":"known"}`).is(http.StatusOK).object())
	require.Equal(t, schemas.InputDelete, s.log.last(t).Type)
	require.Equal(t, "Contact not found", s.request(http.MethodDelete, "/v1/contacts", `{"userId":"unknown"}`).is(http.StatusNotFound).object()["error"])
	require.Len(t, s.request(http.MethodDelete, "/v1/contacts", `{"userId":"disputed","email":"x@y.zz"}`).is(http.StatusConflict).object()["conflicts"], 1)
	s.request(http.MethodDelete, "/v1/contacts", `{}`).is(http.StatusBadRequest)
	s.request(http.MethodDelete, "/v1/contacts", `{"userId":" "}`).is(http.StatusBadRequest)
}

func TestAnAnswerThatTakesTooLongIs202WithTheInputsID(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(cfg *ingest.Config, deps *ingest.Deps) {
		cfg.AnswerTimeout = time.Millisecond
		deps.Answers = storage.NewAnswers(deps.DB) // nobody runs it
	})
	got := s.request(http.MethodPut, "/v1/contacts", `{"userId":"u"}`).is(http.StatusAccepted).object()
	require.Equal(t, map[string]any{"inputId": s.log.last(t).ID, "pending": true}, got)
	got = s.request(http.MethodPost, "/v1/events", `{"name":"n","userId":"u","idempotencyKey":"k"}`).is(http.StatusAccepted).object()
	require.Equal(t, true, got["pending"])
	require.Equal(t, s.log.last(t).ID, got["id"])
}

// 11. Given a contact, when find by email and by userId, then the same contact
// is returned; without a query key 400.
func TestAContactIsFoundByEveryNameItEverHad(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id, at := uuid.NewString(), time.Date(2026, 1, 31, 12, 0, 0, 123_456_000, time.UTC)
	_, err := storagetest.SQL(s.db).Exec(t.Context(), `INSERT INTO contacts (id, external_id, email, properties, version, first_seen_at, last_seen_at, created_at, updated_at)
		VALUES ($1::text::uuid, 'u1', 'ada@example.com', '{"b": 12345678901234567890, "a": "<&>"}', 1, $2, $2, $2, $2)`, id, at)
	require.NoError(t, err)
	_, err = storagetest.SQL(s.db).Exec(t.Context(), `INSERT INTO identifiers (kind, value, contact_id) VALUES
		('external', 'u1', $1::text::uuid), ('email', 'ada@example.com', $1::text::uuid), ('email', 'old@example.com', $1::text::uuid), ('anonymous', 'a1', $1::text::uuid)`, id)
	require.NoError(t, err)
	want := `{"contacts":[{"id":"` + id + `","externalId":"u1","email":"ada@example.com","anonymousId":null,"properties":{"b":12345678901234567890,"a":"<&>"},` +
		`"firstSeenAt":"2026-01-31T12:00:00.123Z","lastSeenAt":"2026-01-31T12:00:00.123Z","createdAt":"2026-01-31T12:00:00.123Z","updatedAt":"2026-01-31T12:00:00.123Z"}]}`
	for _, query := range []string{"email=Ada@Example.com", "email=old@example.com", "userId=u1", "anonymousId=a1", "id=" + id, "id=urn:uuid:" + strings.ToUpper(id), "userId=u1&email=ada@example.com&id=" + id} {
		require.Equal(t, want, string(s.request(http.MethodGet, "/v1/contacts/find?"+query, "").is(http.StatusOK).body), query)
	}
	require.JSONEq(t, `{"contacts":[]}`, string(s.request(http.MethodGet, "/v1/contacts/find?userId=nobody", "").is(http.StatusOK).body))
	s.request(http.MethodGet, "/v1/contacts/find", "").is(http.StatusBadRequest)
	require.Equal(t, []any{"userId"}, s.request(http.MethodGet, "/v1/contacts/find?userId=a%00b", "").is(http.StatusBadRequest).issues()[0].Path)
	require.Equal(t, []any{"id"}, s.request(http.MethodGet, "/v1/contacts/find?id=7", "").is(http.StatusBadRequest).issues()[0].Path)
	_, reader := s.key(storage.ScopeRead)
	s.request(http.MethodGet, "/v1/contacts/find?userId=u1", "", "Authorization", "Bearer "+reader).is(http.StatusOK)
}

func TestNobodyIsChangedOrErasedByAnIDThatIsSentByMistake(t *testing.T) {
	t.Parallel()
	s := newAnsweringServer(t, func(*schemas.Input) *schemas.Answer { return &schemas.Answer{ContactID: "c1", Deleted: true} })
	for _, method := range []string{http.MethodPut, http.MethodDelete} {
		got := s.request(method, "/v1/contacts", `{"userId":"undefined","anonymousId":"'null'"}`).is(http.StatusBadRequest).body
		require.Contains(t, string(got), "userId")
		require.Contains(t, string(got), "anonymousId")
		require.Contains(t, string(got), "by mistake")
		require.Contains(t, string(got), "name them by email")
		s.request(method, "/v1/contacts", `{"userId":"undefined","email":"a@b.co"}`).is(http.StatusOK)
		s.request(method, "/v1/contacts", `{"userId":"undefined","anonymousId":"a-1"}`).is(http.StatusOK)
	}
	s.request(http.MethodPost, "/v1/events", `{"name":"n","userId":"undefined"}`).is(http.StatusAccepted)
	require.Equal(t, "i:"+s.log.last(t).ID, s.log.last(t).Key(), "events of nobody do not crowd in one partition")
}
