package destinations

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// ends stands for a broker: two partitions a topic, ending at 10 and 11.
type ends struct {
	mu    sync.Mutex
	asked []schemas.Topic
	id    uuid.UUID // of every topic
}

func (e *ends) EndOffsets(_ context.Context, topics ...schemas.Topic) ([]storage.CursorStart, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, topics...)
	var starts []storage.CursorStart
	for _, t := range topics {
		starts = append(starts, storage.CursorStart{Topic: string(t), Partition: 0, Offset: 10, TopicID: e.id}, storage.CursorStart{Topic: string(t), Partition: 1, Offset: 11, TopicID: e.id})
	}
	return starts, nil
}

type operating struct {
	*Operations
	db    *storage.DB
	store *storage.Destinations
	ends  *ends
}

func newOperations(t *testing.T) *operating {
	t.Helper()
	db := storagetest.New(t)
	box, err := storage.NewBox(bytes.Repeat([]byte{1}, storage.KeySize))
	require.NoError(t, err)
	o := &operating{db: db, store: storage.NewDestinations(db, box), ends: &ends{}}
	o.Operations = New(db, o.store, o.ends, newDeliverer(t, sinks.Config{AllowLoopback: true}), zap.NewNop())
	return o
}

func newDeliverer(t *testing.T, cfg sinks.Config) *sinks.Deliverer {
	t.Helper()
	d, err := sinks.New(cfg, schemas.NewCodec(), zap.NewNop(), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return d
}

// cursors are the positions of a destination as `topic/partition@position`.
func (o *operating) cursors(t *testing.T, id string) string {
	t.Helper()
	var all string
	require.NoError(t, storagetest.SQL(o.db).QueryRow(t.Context(), `
		SELECT COALESCE(string_agg(topic || '/' || partition || '@' || position, ' ' ORDER BY topic, partition), '')
		FROM cursors WHERE destination_id::text = $1`, id).Scan(&all))
	return all
}

func TestANewDestinationStandsAtTheEndsOfItsTopics(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{URL: "https://example.com/hook", EventTypes: []string{"contact.*"}})
	require.NoError(t, err)
	require.Equal(t, "webhook", made.Kind)
	require.Equal(t, "webhook-example.com", made.Name)
	require.Equal(t, "enabled", made.Status)
	require.True(t, strings.HasPrefix(made.Secret, "whsec_"))
	require.Equal(t, made.Secret[:12], *made.SecretPrefix)
	require.Equal(t, "lifecycle/0@10 lifecycle/1@11", o.cursors(t, made.ID))

	second, err := o.Create(t.Context(), Settings{URL: "https://example.com/other", EventTypes: []string{"event.tracked"}})
	require.NoError(t, err)
	require.Equal(t, "webhook-example.com-2", second.Name)
	require.Equal(t, "events/0@10 events/1@11", o.cursors(t, second.ID))

	list, err := o.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)
	shown, err := json.Marshal(list)
	require.NoError(t, err)
	require.NotContains(t, string(shown), made.Secret)
	require.NotContains(t, string(shown), second.Secret)
}

func TestAWrongSettingNamesItsField(t *testing.T) {
	o := newOperations(t)
	good := Settings{URL: "https://example.com", EventTypes: []string{"*"}}
	_, err := o.Create(t.Context(), Settings{Name: "taken", URL: good.URL, EventTypes: good.EventTypes})
	require.NoError(t, err)
	for field, change := range map[string]func(*Settings){
		"kind":                func(s *Settings) { s.Kind = "pigeon" },
		"url":                 func(s *Settings) { s.URL = "" },
		"eventTypes":          func(s *Settings) { s.EventTypes = nil },
		"eventTypes[1]":       func(s *Settings) { s.EventTypes = []string{"*", "nope"} },
		"name":                func(s *Settings) { s.Name = "taken" },
		"description":         func(s *Settings) { s.Description = new(strings.Repeat("x", 501)) },
		"secret":              func(s *Settings) { s.Secret = "whsec_short" },
		"config.headers.Host": func(s *Settings) { s.Config = json.RawMessage(`{"headers":{"Host":"x"}}`) },
		"rateLimit":           func(s *Settings) { s.RateLimit = -1 },
		"concurrency":         func(s *Settings) { s.Concurrency = -1 },
		"retryHorizon":        func(s *Settings) { s.RetryHorizon = time.Millisecond },
		"deliveryLog":         func(s *Settings) { s.DeliveryLog = "some" },
	} {
		s := good
		change(&s)
		_, err := o.Create(t.Context(), s)
		var wrong *InvalidError
		require.ErrorAs(t, err, &wrong, field)
		require.Equal(t, field, wrong.Field)
		require.NotEmpty(t, wrong.Message)
	}
	for _, name := range []string{"has space", "-x", "0192f000-aaaa-7bbb-8ccc-ddddeeeeffff", strings.Repeat("x", 101)} {
		s := good
		s.Name = name
		_, err := o.Create(t.Context(), s)
		require.ErrorContains(t, err, "name: ", name)
	}
}

func TestARateLimitIsNoneOrOneThatCanBeKept(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{URL: "https://example.com", EventTypes: []string{"contact.*"}})
	require.NoError(t, err)
	for _, rate := range []float64{0, storage.LeastRate, 0.5, 1e6} {
		_, err := o.Update(t.Context(), made.ID, Patch{RateLimit: &rate})
		require.NoError(t, err, rate)
	}
	for _, rate := range []float64{1e-300, 0.0009, -1, 1e6 + 1, math.Inf(1), math.NaN()} {
		_, err := o.Update(t.Context(), made.ID, Patch{RateLimit: &rate})
		require.ErrorContains(t, err, "rateLimit: must be 0 (no limit), or between 0.001 and 1000000", rate)
	}
}

func TestSubscribingToOneTopicMoreStartsAtItsEnd(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{URL: "https://example.com", EventTypes: []string{"contact.*"}})
	require.NoError(t, err)
	_, err = storagetest.SQL(o.db).Exec(t.Context(), `UPDATE cursors SET position = 99`)
	require.NoError(t, err)

	got, err := o.Update(t.Context(), made.Name, Patch{EventTypes: []string{"contact.*", "event.tracked"}, Description: new("x")})
	require.NoError(t, err)
	require.Empty(t, got.Secret, "no new one")
	require.Equal(t, "x", *got.Description)
	require.EqualValues(t, 2, got.Revision)
	require.Equal(t, "events/0@10 events/1@11 lifecycle/0@99 lifecycle/1@99", o.cursors(t, made.ID))

	_, err = o.Update(t.Context(), made.ID, Patch{EventTypes: []string{"event.tracked:a"}})
	require.NoError(t, err)
	require.Equal(t, "events/0@10 events/1@11", o.cursors(t, made.ID))
}

func TestWritingBackWhatWasReadChangesNothing(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{URL: "https://example.com", EventTypes: []string{"*"},
		Config: json.RawMessage(`{"headers":{"X-Key":"sesame"}}`)})
	require.NoError(t, err)
	view, err := o.Get(t.Context(), made.ID)
	require.NoError(t, err)
	require.JSONEq(t, `{"headers":{"X-Key":"***"}}`, string(view.Config))
	_, err = o.Update(t.Context(), made.ID, Patch{URL: &view.URL, Config: view.Config, EventTypes: view.EventTypes})
	require.NoError(t, err)
	d, err := o.store.Get(t.Context(), made.ID)
	require.NoError(t, err)
	require.JSONEq(t, `{"headers":{"X-Key":"sesame"}}`, string(d.Config))
	require.Equal(t, made.Secret, d.Secret)
}

func TestUpdatesAtTheSameTimeAllCount(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{URL: "https://example.com", EventTypes: []string{"*"}})
	require.NoError(t, err)
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	for _, p := range []Patch{{RateLimit: new(5.0)}, {Concurrency: new(6)}, {DeliveryLog: new("off")}} {
		wg.Go(func() {
			_, err := o.Update(context.Background(), made.ID, p)
			errs <- err
		})
	}
	wg.Wait()
	for range 3 {
		require.NoError(t, <-errs)
	}
	v, err := o.Get(t.Context(), made.ID)
	require.NoError(t, err)
	require.InDelta(t, 5, v.RateLimit, 0)
	require.Equal(t, 6, v.Concurrency)
	require.Equal(t, "off", v.DeliveryLog)
}

func TestRotationOverlapsSoThatNothingFailsVerification(t *testing.T) {
	o := newOperations(t)
	r, err := sinktest.New(sinktest.Options{Keep: 10})
	require.NoError(t, err)
	defer r.Close()
	url, err := r.Start("127.0.0.1:0")
	require.NoError(t, err)
	made, err := o.Create(t.Context(), Settings{URL: url, EventTypes: []string{"*"}})
	require.NoError(t, err)
	rotated, err := o.RotateSecret(t.Context(), made.ID, Rotation{})
	require.NoError(t, err)
	require.NotEqual(t, made.Secret, rotated.Secret)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), rotated.PreviousSecretUntil.Time, time.Minute)
	for _, secret := range []string{made.Secret, rotated.Secret} {
		require.NoError(t, r.SetSecrets(secret))
		tested, err := o.Test(t.Context(), made.ID, Sample{})
		require.NoError(t, err)
		require.True(t, tested.Delivered, "%+v", tested)
	}
	// Whoever verifies with the first secret was promised to have time until then.
	var rotating *RotatingError
	for _, overlap := range []*time.Duration{nil, new(time.Duration(0))} {
		_, err = o.RotateSecret(t.Context(), made.ID, Rotation{Overlap: overlap})
		require.ErrorAs(t, err, &rotating)
		require.WithinDuration(t, rotated.PreviousSecretUntil.Time, rotating.Until, time.Second)
	}
	require.NoError(t, r.SetSecrets(made.Secret))
	still, err := o.Test(t.Context(), made.ID, Sample{})
	require.NoError(t, err)
	require.True(t, still.Delivered)
	require.NoError(t, r.SetSecrets(rotated.Secret))

	ended, err := o.RotateSecret(t.Context(), made.ID, Rotation{Overlap: new(time.Duration(0)), Force: true})
	require.NoError(t, err)
	require.Nil(t, ended.PreviousSecretUntil)
	tested, err := o.Test(t.Context(), made.ID, Sample{})
	require.NoError(t, err)
	require.False(t, tested.Delivered)
	require.Equal(t, 1, r.Stats().BadSignatures)
	_, err = o.RotateSecret(t.Context(), made.ID, Rotation{})
	require.NoError(t, err, "nothing is under way any more")
	_, err = storagetest.SQL(o.db).Exec(t.Context(), `UPDATE destinations SET previous_secret_until = now() - interval '1 second'`)
	require.NoError(t, err)
	_, err = o.RotateSecret(t.Context(), made.ID, Rotation{})
	require.NoError(t, err, "it has come to its end")
}

func TestATestIsSentNowAndTellsWhatCameOfIt(t *testing.T) {
	o := newOperations(t)
	r, err := sinktest.New(sinktest.Options{Keep: 10, Script: func(*sinktest.Message) sinktest.Answer {
		return sinktest.Answer{Status: 401, Body: "who are you?"}
	}})
	require.NoError(t, err)
	defer r.Close()
	url, err := r.Start("127.0.0.1:0")
	require.NoError(t, err)
	made, err := o.Create(t.Context(), Settings{URL: url, EventTypes: []string{"bucket.left"}, Disabled: true})
	require.NoError(t, err)
	require.Equal(t, "disabled", made.Status)
	require.NoError(t, r.SetSecrets(made.Secret))
	tested, err := o.Test(t.Context(), made.ID, Sample{})
	require.NoError(t, err)
	require.Equal(t, 401, tested.Status)
	require.False(t, tested.Delivered)
	require.Equal(t, "who are you?", tested.Response)
	var logged string
	require.NoError(t, storagetest.SQL(o.db).QueryRow(t.Context(),
		`SELECT record_type || ' ' || outcome || ' ' || status FROM delivery_attempts WHERE 'msg_' || record_id = $1`, tested.DeliveryID).Scan(&logged))
	require.Equal(t, "webhook.test refused 401", logged)
	got := r.Messages()[0]
	require.Equal(t, tested.DeliveryID, got.ID)
	require.Equal(t, schemas.TypeWebhookTest, got.Type)
	require.Empty(t, got.Problem)
}

func TestPauseResumeAndDelete(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{Name: "crm", URL: "https://example.com", EventTypes: []string{"*"}})
	require.NoError(t, err)
	v, err := o.Pause(t.Context(), "crm", "maintenance")
	require.NoError(t, err)
	require.Equal(t, storage.DestinationPaused, v.State)
	require.Equal(t, "maintenance", v.StateReason)
	v, err = o.Resume(t.Context(), "crm")
	require.NoError(t, err)
	require.Equal(t, "enabled", v.Status)
	require.NoError(t, o.Delete(t.Context(), "crm"))
	require.Empty(t, o.cursors(t, made.ID))
	for _, err := range []error{
		o.Delete(t.Context(), "crm"),
		second(o.Get(t.Context(), made.ID)), second(o.Update(t.Context(), "crm", Patch{})),
		second(o.RotateSecret(t.Context(), "crm", Rotation{})), second(o.Test(t.Context(), "crm", Sample{})), second(o.Resume(t.Context(), "crm")),
	} {
		require.ErrorIs(t, err, ErrNotFound)
	}
	require.False(t, slices.Contains(o.ends.asked, schemas.TopicEvents))
}

func second[T any](_ T, err error) error { return err }

func TestAChangeThatLosesARaceInPostgresIsMadeAgain(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{Name: "crm", URL: "https://example.com", EventTypes: []string{"*"}})
	require.NoError(t, err)
	// The first two statements of each change lose; a sequence is not rolled back.
	_, err = storagetest.SQL(o.db).Exec(t.Context(), `CREATE SEQUENCE races`)
	require.NoError(t, err)
	_, err = storagetest.SQL(o.db).Exec(t.Context(), `
		CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('races') <= 2 THEN RAISE EXCEPTION 'lost' USING ERRCODE = CASE TG_OP WHEN 'UPDATE' THEN '40P01' ELSE '40001' END; END IF;
			RETURN NULL;
		END $$`)
	require.NoError(t, err)
	for _, table := range []string{"destinations", "cursors"} {
		_, err = storagetest.SQL(o.db).Exec(t.Context(), `CREATE TRIGGER lose AFTER INSERT OR UPDATE OR DELETE ON `+table+` FOR EACH STATEMENT EXECUTE FUNCTION lose()`)
		require.NoError(t, err)
	}
	for _, change := range []struct {
		name string
		make func() error
	}{
		{"create", func() error {
			return second(o.Create(t.Context(), Settings{Name: "other", URL: "https://example.com", EventTypes: []string{"*"}}))
		}},
		{"update", func() error {
			v, err := o.Update(t.Context(), "crm", Patch{RateLimit: new(7.0)})
			require.Equal(t, made.Revision+1, v.Revision)
			return err
		}},
		{"update of topics", func() error {
			return second(o.Update(t.Context(), "crm", Patch{EventTypes: []string{"event.tracked"}}))
		}},
		{"pause", func() error { return second(o.Pause(t.Context(), "crm", "")) }},
		{"rotation", func() error { return second(o.RotateSecret(t.Context(), "crm", Rotation{})) }},
		{"seed", func() error { return second(o.Seed(t.Context(), posthogSeed("k", ""))) }},
		{"delete", func() error { return o.Delete(t.Context(), "crm") }},
	} {
		_, err := storagetest.SQL(o.db).Exec(t.Context(), `ALTER SEQUENCE races RESTART`)
		require.NoError(t, err)
		require.NoError(t, change.make(), change.name)
		var statements int64
		require.NoError(t, storagetest.SQL(o.db).QueryRow(t.Context(), `SELECT last_value FROM races`).Scan(&statements))
		require.Greater(t, statements, int64(2), "%s: it did lose twice", change.name)
	}
	require.Empty(t, o.cursors(t, made.ID))
}

func TestTheURLOfSlackIsShownNowhereAndGoesWithItsKind(t *testing.T) {
	const credential = "T0/B0/sesame"
	o := newOperations(t)
	for _, field := range []string{"url", "config.url"} {
		s := Settings{Name: "alerts-" + strings.ReplaceAll(field, ".", "-"), Kind: "slack", EventTypes: []string{"*"}}
		if field == "url" {
			s.URL = "https://hooks.slack.com/services/" + credential
		} else {
			s.Config = json.RawMessage(`{"url":"https://hooks.slack.com/services/` + credential + `"}`)
		}
		made, err := o.Create(t.Context(), s)
		require.NoError(t, err)
		shown := func(v any) string {
			text, err := json.Marshal(v)
			require.NoError(t, err)
			return string(text)
		}
		require.NotContains(t, shown(made), "sesame")
		for _, kind := range []string{"webhook", "posthog", "segment", "kafka"} {
			config := json.RawMessage(map[string]string{
				"webhook": `null`, "posthog": `{"apiKey":"phc_1"}`, "segment": `{"writeKey":"w"}`, "kafka": `{"brokers":["broker.example.com:9092"],"topic":"t"}`,
			}[kind])
			for _, p := range []Patch{{Kind: &kind}, {Kind: &kind, Config: config}, {Kind: &kind, URL: &made.URL, Config: config}} {
				changed, err := o.Update(t.Context(), made.ID, p)
				if err == nil {
					require.NotContains(t, shown(changed), "sesame", kind)
					d, err := o.store.Get(t.Context(), made.ID)
					require.NoError(t, err)
					require.NotContains(t, d.URL+string(d.Config), "sesame", kind)
					back, url := "slack", s.URL
					_, err = o.Update(t.Context(), made.ID, Patch{Kind: &back, URL: &url, Config: cmpOr(s.Config)})
					require.NoError(t, err)
				} else {
					require.NotContains(t, err.Error(), "sesame", kind)
				}
			}
		}
		hidden := "https://evil.example.com/***"
		_, err = o.Update(t.Context(), made.ID, Patch{URL: &hidden})
		require.ErrorContains(t, err, "hides a value")
	}
}

func cmpOr(config json.RawMessage) json.RawMessage {
	if config == nil {
		return json.RawMessage(`null`)
	}
	return config
}

func TestTheSecretOfASignedKindGoesWithIt(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{Name: "crm", URL: "https://crm.example.com/in", EventTypes: []string{"*"}})
	require.NoError(t, err)
	segment := "segment"
	_, err = o.Update(t.Context(), made.ID, Patch{Kind: &segment, Config: json.RawMessage(`{"writeKey":"w"}`)})
	require.NoError(t, err)
	d, err := o.store.Get(t.Context(), made.ID)
	require.NoError(t, err)
	require.Empty(t, d.Secret+d.PreviousSecret)
}

func TestAKindWithAKeyHasNoSecretAndItsTestNamesATestPerson(t *testing.T) {
	o := newOperations(t)
	v := sinktest.NewPosthog("phc_sesame")
	srv := httptest.NewServer(v)
	defer srv.Close()
	made, err := o.Create(t.Context(), Settings{Kind: "posthog", EventTypes: []string{"contact.*"}, Config: json.RawMessage(`{"apiKey":"phc_sesame","host":"` + srv.URL + `"}`)})
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

	changed, err := o.Update(t.Context(), made.ID, Patch{Kind: new("webhook"), URL: new("https://example.com/hook"), Config: json.RawMessage("null")})
	require.NoError(t, err)
	require.Regexp(t, "^whsec_", changed.Secret, "who changes to a signed kind is told the secret it got")
	require.Equal(t, changed.Secret[:12], *changed.SecretPrefix)
	again, err := o.Update(t.Context(), made.ID, Patch{Description: new("x")})
	require.NoError(t, err)
	require.Empty(t, again.Secret)
}

func TestSettingsWithBrokenJQAreRefusedAtCreation(t *testing.T) {
	o := newOperations(t)
	_, err := o.Create(t.Context(), Settings{URL: "https://example.com", EventTypes: []string{"*"}, Filter: Filter{JQ: ".["}})
	var wrong *InvalidError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "filter", wrong.Field)
	require.Contains(t, wrong.Message, "is not jq: ")
	made, err := o.Create(t.Context(), Settings{Kind: "slack", URL: "https://hooks.slack.com/services/T/B/x", EventTypes: []string{"*"}})
	require.NoError(t, err)
	require.Equal(t, "https://hooks.slack.com/***", made.URL)
	require.InDelta(t, 1, made.RateLimit, 0)
	require.Empty(t, made.Secret)
	require.Nil(t, made.SecretPrefix)
	updated, err := o.Update(t.Context(), made.ID, Patch{URL: &made.URL, Config: json.RawMessage(`{"username":"hog"}`)})
	require.NoError(t, err)
	d, err := o.store.Get(t.Context(), updated.ID)
	require.NoError(t, err)
	require.Equal(t, "https://hooks.slack.com/services/T/B/x", d.URL)
}

func TestNoDestinationIsMadeOrChangedToAppendToTheDeploymentsOwnTopics(t *testing.T) {
	o := newOperations(t)
	o.Operations = New(o.db, o.store, o.ends, newDeliverer(t, sinks.Config{AllowLoopback: true, Own: &sinks.OwnKafka{
		Owns:      func(topic string) bool { return strings.HasPrefix(topic, "hogstream.") },
		ClusterID: func(context.Context) (string, error) { return "own", nil },
	}}), zap.NewNop())
	config := func(topic string) json.RawMessage {
		return json.RawMessage(`{"brokers":["127.0.0.1:59092"],"topic":"` + topic + `"}`)
	}
	refused := func(err error) {
		t.Helper()
		var wrong *InvalidError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, "config.topic", wrong.Field)
		require.Contains(t, wrong.Message, "of this deployment")
	}
	_, err := o.Create(t.Context(), Settings{Kind: "kafka", EventTypes: []string{"*"}, Config: config("hogstream.ingest")})
	refused(err)
	_, err = o.Seed(t.Context(), Seed{Name: "loop", Kind: "kafka", EventTypes: []string{"*"}, Config: map[string]any{"brokers": []string{"127.0.0.1:59092"}, "topic": "hogstream.events"}})
	refused(err)
	made, err := o.Create(t.Context(), Settings{Kind: "kafka", EventTypes: []string{"*"}, Config: config("crm")})
	require.NoError(t, err)
	_, err = o.Update(t.Context(), made.ID, Patch{Config: config("hogstream.lifecycle")})
	refused(err)
}
