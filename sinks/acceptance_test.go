package sinks

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

func TestASignatureIsFoundAmongOthersAndIsNoneWithoutAHeaderOrAfterFiveMinutes(t *testing.T) {
	secret := NewSecret()
	sink := openTestWebhook(t, &storage.Destination{Secret: secret})
	p := samplePayload(t, schemas.FactContactCreated)
	build := func(at time.Time) *transport.Request {
		req, err := sink.Build(&Attempt{Now: at, Payloads: []*Payload{p}})
		require.NoError(t, err)
		return req
	}
	wh, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)

	req := build(time.Now())
	req.Header.Set("Webhook-Signature", "v1a,x v1,wrong "+req.Header.Get("Webhook-Signature"))
	require.NoError(t, wh.Verify(req.Body, req.Header))
	for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} { // in any case
		header := req.Header.Clone()
		header.Del(name)
		require.Error(t, wh.Verify(req.Body, header), name)
	}
	require.NoError(t, wh.Verify(p.Envelope, build(time.Now().Add(-290*time.Second)).Header))
	require.Error(t, wh.Verify(p.Envelope, build(time.Now().Add(-302*time.Second)).Header))
}

// receiver is a receiver of a path and what it is sent, by type.
func (p *path) receiver(t *testing.T, s Settings, script func(*sinktest.Message) sinktest.Answer) (*Created, *sinktest.Receiver) {
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
	all, everything := p.receiver(t, Settings{Name: "all", EventTypes: schemas.Catalog()[:13]}, func(m *sinktest.Message) sinktest.Answer {
		if answer, first := troubled.LoadAndDelete(m.Type); first {
			return answer.(sinktest.Answer)
		}
		return sinktest.Answer{}
	})
	one, created := p.receiver(t, Settings{Name: "one", EventTypes: []string{schemas.FactContactCreated}}, nil)
	off, nothing := p.receiver(t, Settings{Name: "off", EventTypes: []string{"*"}, Disabled: true}, nil)

	var facts []schemas.Message
	want := map[string]string{} // envelopes by id
	add := func(typ string) {
		f := sampleFact(typ)
		f.ID = uuid.NewString()
		facts = append(facts, f)
		payload, err := factPayload(f)
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
		list, _, err := storage.SearchAttempts(ctx, p.db, all.ID, storage.AttemptFilter{}, "", 100)
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
	made, _ := p.receiver(t, Settings{Name: "crm", EventTypes: []string{"*"}}, func(*sinktest.Message) sinktest.Answer {
		return sinktest.Answer{Status: 422, Body: "no such field"}
	})
	fact := sampleFact(schemas.FactContactCreated)
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
	require.Equal(t, []string{fact.ID, fact.Type, testContactID}, []string{letter.RecordID, letter.RecordType, string(letter.RecordKey)})
	given, err := p.Codec.DecodeFact(letter.RecordValue)
	require.NoError(t, err)
	require.Equal(t, fact.ID, given.ID, "the record itself is in it")
}

func TestAKindWithAKeyHasNoSecretAndItsTestNamesATestPerson(t *testing.T) {
	o := newOperations(t)
	v := sinktest.NewPosthog("phc_sesame")
	made, err := o.Create(t.Context(), Settings{Kind: "posthog", EventTypes: []string{"contact.*"}, Config: vendor(t, "posthog", v, map[string]any{"apiKey": "phc_sesame"}).Config})
	require.NoError(t, err)
	require.Empty(t, made.Secret)
	require.Nil(t, made.SecretPrefix)
	require.Contains(t, string(made.Config), `"apiKey":"***"`)
	shown, err := json.Marshal(made)
	require.NoError(t, err)
	require.NotContains(t, string(shown), "sesame")

	tested, err := o.Test(t.Context(), made.ID, Sample{})
	require.NoError(t, err)
	require.True(t, tested.Delivered, "%+v", tested)
	require.Empty(t, v.Problems())
	require.Equal(t, schemas.TypeWebhookTest, v.Items()[0].Name)
	require.Equal(t, "test_"+made.ID, v.Items()[0].Person)

	changed, err := o.Update(t.Context(), made.ID, Patch{Kind: ptr("webhook"), URL: ptr("https://example.com/hook"), Config: json.RawMessage("null")})
	require.NoError(t, err)
	require.Regexp(t, "^whsec_", changed.Secret, "who changes to a signed kind is told the secret it got")
	require.Equal(t, changed.Secret[:12], *changed.SecretPrefix)
	again, err := o.Update(t.Context(), made.ID, Patch{Description: ptr("x")})
	require.NoError(t, err)
	require.Empty(t, again.Secret)
}

func TestPosthogDoesNotPlacePersonsWhereHogstreamRuns(t *testing.T) {
	sink, err := openPosthog(&storage.Destination{Config: json.RawMessage(`{"apiKey":"k"}`)}, transport.NewGuard(transport.Config{}))
	require.NoError(t, err)
	for properties, want := range map[string]bool{
		`{"plan":"pro"}`:                         true,
		`{"a":{"$ip":"192.0.2.7"}}`:              true,
		`{"$ip":"192.0.2.7"}`:                    false,
		`{"$geoip_disable":false,"x":"\"$ip\""}`: false,
	} {
		e := sampleEvent()
		e.Properties = properties
		p, err := eventPayload(e)
		require.NoError(t, err)
		req, err := sink.Build(&Attempt{Now: time.Now(), Payloads: []*Payload{p}})
		require.NoError(t, err)
		require.Equal(t, want, strings.Contains(string(req.Body), `"$geoip_disable":true`), properties)
	}
}

func TestWhatSlackSaysOfItsWebhookIsToldAndADeadOneStopsTheDestinationAtOnce(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   delivery.Verdict
		reason string
	}{
		{200, "ok", delivery.Delivered, ""},
		{400, "invalid_payload", delivery.Reject, "HTTP 400: invalid_payload"},
		{400, "no_text", delivery.Reject, "HTTP 400: no_text"},
		{403, "action_prohibited", delivery.Refuse, "HTTP 403: action_prohibited"},
		{403, "invalid_token", delivery.Gone, "HTTP 403: invalid_token"},
		{404, "channel_not_found", delivery.Refuse, "HTTP 404: channel_not_found"},
		{404, "no_service\n", delivery.Gone, "HTTP 404: no_service"},
		{404, "no_team", delivery.Gone, "HTTP 404: no_team"},
		{404, "<html>not Slack</html>", delivery.Refuse, ""},
		{410, "channel_is_archived", delivery.Gone, "HTTP 410: channel_is_archived"},
		{429, "rate_limited", delivery.Retry, "HTTP 429: rate_limited"},
		{500, "rollup_error", delivery.Retry, "HTTP 500: rollup_error"},
	} {
		verdict, reason := (&slack{}).Judge(nil, &transport.Answer{Status: c.status, Body: []byte(c.body)})
		require.Equal(t, c.want, verdict, "%d %s", c.status, c.body)
		require.Equal(t, c.reason, reason)
	}

	p := newPath(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no_service", http.StatusNotFound) }))
	defer srv.Close()
	made, err := p.ops.Create(t.Context(), Settings{Kind: "slack", URL: srv.URL + "/services/T/B/x", EventTypes: []string{"*"}})
	require.NoError(t, err)
	p.Append(sampleFact(schemas.FactContactCreated))
	p.Eventually(func(ctx context.Context) (bool, error) {
		v, err := p.ops.Get(ctx, made.ID)
		return err == nil && v.State == storage.DestinationSuspended && v.StateReason == "the receiver is gone: HTTP 404", err
	}, "suspended at once")
}
