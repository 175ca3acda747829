package sinks_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// receiver is a receiver of a path and what it is sent, by type.
func (p *path) receiver(t *testing.T, s destinations.Settings, script func(*sinktest.Message) sinktest.Answer) (*destinations.Created, *sinktest.Receiver) {
	t.Helper()
	r, err := sinktest.New(sinktest.Options{Keep: 100, Script: script})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	s.URL, err = r.Start("127.0.0.1:0")
	require.NoError(t, err)
	made, err := p.ops.Create(t.Context(), s)
	require.NoError(t, err)
	require.NoError(t, r.SetSecrets(made.Secret))
	return made, r
}

func TestAFactOfEachTypeReachesWhoSubscribedToItOnceAndNobodyElse(t *testing.T) {
	p := newPath(t)
	var troubled sync.Map // by type, the first attempt fails so
	troubled.Store(schemas.FactEmailBounced, sinktest.Answer{Status: 503})
	troubled.Store(schemas.FactBucketLeft, sinktest.Answer{Reset: true})
	all, everything := p.receiver(t, destinations.Settings{Name: "all", EventTypes: schemas.Catalog()[:13]}, func(m *sinktest.Message) sinktest.Answer {
		if answer, first := troubled.LoadAndDelete(m.Type); first {
			return answer.(sinktest.Answer)
		}
		return sinktest.Answer{}
	})
	one, created := p.receiver(t, destinations.Settings{Name: "one", EventTypes: []string{schemas.FactContactCreated}}, nil)
	off, nothing := p.receiver(t, destinations.Settings{Name: "off", EventTypes: []string{"*"}, Disabled: true}, nil)

	var facts []schemas.Message
	want := map[string]string{} // envelopes by id
	add := func(typ string) {
		f := sinktest.Fact(typ)
		f.ID = uuid.NewString()
		facts = append(facts, f)
		payload, err := sinks.PayloadOf(f)
		require.NoError(t, err)
		want[payload.MessageID()] = string(payload.Envelope)
	}
	for _, typ := range schemas.Catalog()[:13] {
		add(typ)
	}
	add(schemas.FactEmailOpened) // a second hit is a second fact
	add(schemas.FactContactCreated)
	p.Append(facts...)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, everything.Wait(ctx, func(s sinktest.Stats) bool { return s.Unique >= len(facts) }))
	require.NoError(t, created.Wait(ctx, func(s sinktest.Stats) bool { return s.Unique >= 2 }))
	got := map[string]string{}
	for _, m := range everything.Messages() {
		require.Empty(t, m.Problem)
		require.Regexp(t, `^msg_[0-9a-f-]{36}$`, m.ID)
		require.Equal(t, m.ID, m.Header.Get("Webhook-Id"))
		got[m.ID] = string(m.Body)
	}
	require.Equal(t, want, got)
	require.Equal(t, 2, everything.Stats().ByType[schemas.FactEmailOpened])
	require.Zero(t, everything.Stats().Duplicates)
	require.Equal(t, map[string]int{schemas.FactContactCreated: 2}, created.Stats().ByType)
	require.Zero(t, nothing.Stats().Requests, "a disabled one keeps its place")

	p.Eventually(func(ctx context.Context) (bool, error) {
		list, _, err := p.db.SearchAttempts(ctx, all.ID, storage.AttemptFilter{}, "", 100)
		if err != nil || len(list) < len(facts)+2 {
			return false, err
		}
		for _, a := range list {
			said := fmt.Sprintf("%s %d %s %d %s", a.RecordType, a.Attempt, a.Outcome, a.Status, a.Error)
			switch {
			case a.RecordType == schemas.FactEmailBounced && a.Attempt == 1:
				require.Equal(t, "email.bounced 1 retry 503 HTTP 503", said)
			case a.RecordType == schemas.FactBucketLeft && a.Attempt == 1:
				require.Regexp(t, "^bucket.left 1 retry 0 .+", said, "no status, and why")
			default:
				require.Regexp(t, ` delivered 204 $`, said)
			}
		}
		return true, nil
	}, "every attempt stands in the delivery log")
	for id, delivered := range map[string]bool{all.ID: true, one.ID: true, off.ID: false} {
		p.Eventually(func(ctx context.Context) (bool, error) {
			v, err := p.ops.Get(ctx, id)
			return err == nil && (v.LastDeliveryAt != nil) == delivered, err
		}, "lastDeliveryAt of %s", id)
	}
	require.Empty(t, p.ReadAll(schemas.TopicDeadLetters, true))
}

func TestADeadLetterSaysWhatWasGivenUpForWhomAndWhy(t *testing.T) {
	p := newPath(t)
	made, _ := p.receiver(t, destinations.Settings{Name: "crm", EventTypes: []string{"*"}}, func(*sinktest.Message) sinktest.Answer {
		return sinktest.Answer{Status: 422, Body: "no such field"}
	})
	fact := sinktest.Fact(schemas.FactContactCreated)
	p.Append(fact)
	dead := p.WaitRecords(schemas.TopicDeadLetters, 1)
	letter, err := p.Codec.DecodeDeadLetter(dead[0].Value)
	require.NoError(t, err)
	require.Equal(t, "destination:crm", letter.Source)
	require.Equal(t, made.ID, *letter.DestinationID)
	require.Equal(t, "rejected", letter.Reason)
	require.Equal(t, "HTTP 422", letter.Error)
	require.Equal(t, 1, letter.Attempts)
	require.Equal(t, 422, *letter.ResponseCode)
	require.Equal(t, "no such field", *letter.ResponseBody)
	require.Equal(t, []string{fact.ID, fact.Type, sinktest.ContactID}, []string{letter.RecordID, letter.RecordType, string(letter.RecordKey)})
	given, err := p.Codec.DecodeFact(letter.RecordValue)
	require.NoError(t, err)
	require.Equal(t, fact.ID, given.ID, "the record itself is in it")
}

func TestADeadWebhookOfSlackStopsTheDestinationAtOnce(t *testing.T) {
	p := newPath(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no_service", http.StatusNotFound) }))
	defer srv.Close()
	made, err := p.ops.Create(t.Context(), destinations.Settings{Kind: "slack", URL: srv.URL + "/services/T/B/x", EventTypes: []string{"*"}})
	require.NoError(t, err)
	p.Append(sinktest.Fact(schemas.FactContactCreated))
	p.Eventually(func(ctx context.Context) (bool, error) {
		v, err := p.ops.Get(ctx, made.ID)
		return err == nil && v.State == storage.DestinationSuspended && v.StateReason == "the receiver is gone: HTTP 404", err
	}, "suspended at once")
}

// What vendors quote and what programs choke on stands in the delivery log and in dead
// letters, and nowhere else.
func TestNoValueOfARecordIsToldOutsideTheDeliveryLogAndDeadLetters(t *testing.T) {
	const planted = "planted-value"
	core, lines := observer.New(zap.DebugLevel)
	reg := prometheus.NewRegistry()
	p := newPathTelling(t, 15*time.Second, zap.New(core), reg)
	status := func(code int) *httptest.Server { // a vendor that quotes
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, "cannot take %s", body)
		}))
		t.Cleanup(srv.Close)
		return srv
	}
	types := []string{"event.tracked"}
	for _, s := range []destinations.Settings{
		{Name: "rejecting", URL: status(http.StatusBadRequest).URL, EventTypes: types},
		{Name: "failing", URL: status(http.StatusServiceUnavailable).URL, EventTypes: types},
		{Name: "refusing", URL: status(http.StatusUnauthorized).URL, EventTypes: types},
		{Name: "choking", URL: status(http.StatusOK).URL, EventTypes: types, Transform: ".data.properties.secret + 1"},
		{Name: "slack", Kind: "slack", URL: sinks.Nobody() + "/services/T/B/planted-value", EventTypes: types, RateLimit: 1000},
	} {
		_, err := p.ops.Create(t.Context(), s)
		require.NoError(t, err, s.Name)
	}
	var msgs []schemas.Message
	now := time.Now()
	for c := range 8 {
		msgs = append(msgs, &schemas.Event{
			ID: uuid.Must(uuid.NewV7()).String(), ContactID: fmt.Sprint("contact-", c), Name: "step",
			Properties: `{"secret":"` + planted + `"}`, OccurredAt: now, ReceivedAt: now, Source: "api",
		})
	}
	p.Append(msgs...)
	want := map[string]string{"rejecting": "HTTP 400", "failing": "HTTP 503", "refusing": "HTTP 401", "choking": "transform", "slack": "connection refused"}
	p.Eventually(func(ctx context.Context) (bool, error) {
		views, err := p.ops.List(ctx)
		for _, v := range views {
			if v.LastError == nil || *v.LastError != want[v.Name] {
				return false, err
			}
		}
		return len(views) == len(want), err
	}, "last errors by their class")
	var logged, parked int
	require.NoError(t, storagetest.SQL(p.db).QueryRow(t.Context(), `SELECT count(*) FROM delivery_attempts WHERE convert_from(response, 'UTF8') || COALESCE(error, '') LIKE '%'||$1||'%'`, planted).Scan(&logged))
	require.Positive(t, logged, "the delivery log tells it")
	require.NoError(t, storagetest.SQL(p.db).QueryRow(t.Context(), `SELECT count(*) FROM parked_keys WHERE error LIKE '%'||$1||'%'`, planted).Scan(&parked))
	require.Zero(t, parked)
	require.NotEmpty(t, lines.FilterMessage("delivery.attempted").All())
	for _, line := range lines.All() {
		require.NotContains(t, fmt.Sprint(line.Message, line.ContextMap()), planted)
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	require.NotContains(t, fmt.Sprint(families), planted)
}
