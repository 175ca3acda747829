package sinks

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// vendor is a destination of a kind, at a stand-in of its vendor.
func vendor(t *testing.T, kind string, v *sinktest.Vendor, config map[string]any) *storage.Destination {
	t.Helper()
	srv := httptest.NewServer(v)
	t.Cleanup(srv.Close)
	dest := &storage.Destination{ID: kind, Name: kind, Kind: kind, Revision: 1}
	if kind == "slack" {
		dest.URL = srv.URL + "/services/T/B/x"
	} else {
		config["host"] = srv.URL + "/"
	}
	var err error
	dest.Config, err = json.Marshal(config)
	require.NoError(t, err)
	return dest
}

func everyPayload(t *testing.T) []*Payload {
	t.Helper()
	var payloads []*Payload
	for _, typ := range schemas.Catalog() {
		payloads = append(payloads, samplePayload(t, typ))
	}
	return payloads
}

func TestRequestsOfTheVendorKindsAreAsPublished(t *testing.T) {
	guard := transport.NewGuard(transport.Config{})
	for name, dest := range map[string]*storage.Destination{
		"posthog":          {Kind: "posthog", Config: json.RawMessage(`{"apiKey":"phc_x","eventNames":{"email.clicked":"email.link_clicked"},"bucketProperty":"bucket_"}`)},
		"segment":          {Kind: "segment", Config: json.RawMessage(`{"writeKey":"wk","eventNames":{"order.completed":"Order Completed"}}`)},
		"posthog-v1":       {Kind: "posthog", Config: json.RawMessage(`{"apiKey":"phc_x","api":"v1","host":"https://eu.i.posthog.com/"}`)},
		"posthog-backfill": {Kind: "posthog", Config: json.RawMessage(`{"apiKey":"phc_x","host":"https://posthog.example.com"}`)},
	} {
		kind, err := builtIn.find(dest.Kind)
		require.NoError(t, err)
		sink, err := kind.Open(dest, guard)
		require.NoError(t, err)
		a := &Attempt{Now: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Payloads: everyPayload(t)}
		if name == "posthog-backfill" {
			a.ReplayID, a.Payloads = "r1", a.Payloads[:1]
		}
		req, err := sink.Build(a)
		require.NoError(t, err)
		require.True(t, json.Valid(req.Body))
		golden(t, "request/"+name+".json", []byte(req.URL.String()+"\n"+strings.ReplaceAll(string(req.Body), `},{"`, "},\n{\"")))
	}
	sink, err := openSlack(&storage.Destination{URL: "https://hooks.slack.com/services/T/B/x", Config: json.RawMessage(`{"username":"hog","iconEmoji":":hog:"}`)}, guard)
	require.NoError(t, err)
	var all strings.Builder
	for _, p := range everyPayload(t) {
		req, err := sink.Build(&Attempt{Now: time.Now(), Payloads: []*Payload{p}})
		require.NoError(t, err)
		require.True(t, json.Valid(req.Body))
		all.Write(append(req.Body, '\n'))
	}
	golden(t, "request/slack.json", []byte(all.String()))
}

func TestPosthogTakesEveryTypeInOneRequest(t *testing.T) {
	v := sinktest.NewPosthog("phc_x")
	dest := vendor(t, "posthog", v, map[string]any{"apiKey": "phc_x", "eventNames": map[string]string{"email.clicked": "email.link_clicked"}})
	d := newDeliverer(t, Config{AllowLoopback: true})
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: sinktest.Records()})
	require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
	require.Empty(t, v.Problems())
	require.Equal(t, 1, v.Requests())
	items := v.Items()
	require.Len(t, items, len(schemas.Catalog()))
	for i, item := range items {
		require.Equal(t, "user-1", item.Person, "one person, whatever the type")
		require.Equal(t, fmt.Sprintf("5f6b1c2e-1111-5222-8333-%012d", i), item.ID)
		require.Equal(t, "hogstream", item.Fields["$lib"])
	}
	require.Equal(t, "email.link_clicked", items[7].Name)
	require.Equal(t, "order.completed", items[len(items)-1].Name)
	require.Equal(t, "ann@example.com", items[0].Fields["$set"].(map[string]any)["email"])
	require.NotContains(t, items[4].Fields, "$set")
}

// PostHog has one person of both, and the survivor may well be a member.
func TestAMergeTakesNoBucketFromThePersonAtPosthogAndADwellChangesNothing(t *testing.T) {
	v := sinktest.NewPosthog("phc_x")
	dest := vendor(t, "posthog", v, map[string]any{"apiKey": "phc_x", "bucketProperty": "bucket_"})
	d := newDeliverer(t, Config{AllowLoopback: true})
	merged := sinktest.Fact(schemas.FactBucketLeft)
	merged.Bucket.Reason = new("merged")
	records := []*stream.Record{}
	for i, f := range []*schemas.Fact{
		sinktest.Fact(schemas.FactBucketEntered), merged, sinktest.Fact(schemas.FactBucketDwell), sinktest.Fact(schemas.FactBucketLeft),
	} {
		records = append(records, sinktest.Record(f, int64(i)))
	}
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records})
	require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
	items := v.Items()
	require.Len(t, items, 4)
	require.Equal(t, map[string]any{"bucket_power": true}, items[0].Fields["$set"])
	for _, item := range items[:3] {
		require.NotContains(t, item.Fields, "$unset")
	}
	require.NotContains(t, items[2].Fields, "$set")
	require.Equal(t, []any{"bucket_power"}, items[3].Fields["$unset"])
}

func TestANameThatPosthogKnewAPersonByIsTiedByTheMildestEventThatDoes(t *testing.T) {
	v := sinktest.NewPosthog("phc_x")
	dest := vendor(t, "posthog", v, map[string]any{"apiKey": "phc_x"})
	d := newDeliverer(t, Config{AllowLoopback: true})
	identified := func(merged ...string) *schemas.Fact {
		f := sinktest.Fact(schemas.FactContactUpdated)
		f.Contact.Changed, f.Contact.Merged = []string{"userId"}, merged
		return f
	}
	merged := func(userID *string, m schemas.ContactMerged) *schemas.Fact {
		f := sinktest.Fact(schemas.FactContactMerged)
		m.LoserID, m.Properties = "loser", "{}"
		f.UserID, f.Merged = userID, &m
		return f
	}
	external := func(id string) []schemas.Identifier {
		return []schemas.Identifier{{Kind: schemas.KindExternal, Value: id}}
	}
	for name, c := range map[string]struct {
		fact *schemas.Fact
		want []string
	}{
		"an anonymous contact is identified":         {identified(), []string{"$identify user-1 " + sinktest.ContactID}},
		"one that was aliased before is identified":  {identified("x"), []string{"$merge_dangerously user-1 " + sinktest.ContactID}},
		"merged into a known one":                    {merged(ptr("user-1"), schemas.ContactMerged{}), []string{"$identify user-1 loser"}},
		"merged into a known one, aliased before":    {merged(ptr("user-1"), schemas.ContactMerged{LoserMerged: []string{"x"}}), []string{"$merge_dangerously user-1 loser"}},
		"two anonymous ones":                         {merged(nil, schemas.ContactMerged{}), []string{"$create_alias " + sinktest.ContactID + " loser"}},
		"two anonymous ones, aliased before":         {merged(nil, schemas.ContactMerged{LoserMerged: []string{"x"}}), []string{"$merge_dangerously " + sinktest.ContactID + " loser"}},
		"the survivor gains its user id":             {merged(ptr("user-1"), schemas.ContactMerged{Gained: external("user-1")}), []string{"$identify user-1 loser", "$identify user-1 " + sinktest.ContactID}},
		"another user id":                            {merged(ptr("user-1"), schemas.ContactMerged{Gained: external("user-2")}), []string{"$identify user-1 loser", "$merge_dangerously user-1 user-2"}},
		"a user id that PostHog refuses is no name":  {merged(ptr("user"), schemas.ContactMerged{Gained: external("system")}), []string{"$create_alias " + sinktest.ContactID + " loser"}},
		"a change of anything else":                  {sinktest.Fact(schemas.FactContactUpdated), nil},
		"a contact that is created with its user id": {sinktest.Fact(schemas.FactContactCreated), nil},
	} {
		before := len(v.Links())
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(c.fact, int64(before))}})
		require.Equal(t, delivery.Delivered, out.Verdict, "%s: %+v", name, out)
		var got []string
		for _, l := range v.Links()[before:] {
			other := text(l.Fields["$anon_distinct_id"]) + text(l.Fields["alias"])
			got = append(got, l.Name+" "+l.Person+" "+other)
		}
		require.Equal(t, c.want, got, name)
	}
	require.Empty(t, v.Problems())
}

func TestARecordIsDeliveredToPosthogWhenAllItsEventsAre(t *testing.T) {
	record := sinktest.Record(sinktest.Fact(schemas.FactContactMerged), 1)
	own, linked := sinktest.FactID, schemas.Derive(sinktest.FactID, "link", 0)
	for said, want := range map[[2]string]delivery.Verdict{
		{"ok", "ok"}: delivery.Delivered, {"ok", "retry"}: delivery.Retry, {"retry", "drop"}: delivery.Retry,
		{"ok", "drop"}: delivery.Reject, {"drop", "ok"}: delivery.Reject, {"drop", "retry"}: delivery.Retry,
	} {
		v := sinktest.NewPosthogV1("phc_x")
		v.Says = func(id string, _ int) string { return map[string]string{own: said[0], linked: said[1]}[id] }
		dest := vendor(t, "posthog", v, map[string]any{"apiKey": "phc_x", "api": "v1"})
		out := newDeliverer(t, Config{AllowLoopback: true}).Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{record}, Attempt: 1})
		require.Equal(t, want, out.Verdict, "%v: %+v", said, out)
	}
}

func TestSegmentIsNeverToldAContactIDAsUserID(t *testing.T) {
	v := sinktest.NewSegment("wk")
	dest := vendor(t, "segment", v, map[string]any{"writeKey": "wk"})
	d := newDeliverer(t, Config{AllowLoopback: true})
	nobody, device := sinktest.Event(), sinktest.Event()
	nobody.UserID, nobody.AnonymousID, device.UserID = nil, nil, nil
	known := sinktest.Fact(schemas.FactContactUpdated)
	known.Contact.Changed, known.Contact.Merged, known.Contact.AnonymousIDs = []string{"userId"}, []string{"merged"}, []string{"anon-1", "anon-2"}
	for i, m := range []schemas.Message{nobody, device, known} {
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(m, int64(i))}})
		require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
	}
	var persons []string
	for _, item := range v.Items() {
		persons = append(persons, item.User+"|"+item.Anonymous)
	}
	require.Equal(t, []string{"|" + sinktest.ContactID, "|anon-1", "user-1|anon-1"}, persons)
	persons = nil
	for _, item := range v.Links() {
		persons = append(persons, item.User+"|"+item.Anonymous)
	}
	require.Equal(t, []string{"user-1|" + sinktest.ContactID, "user-1|merged", "user-1|anon-2"}, persons)
	require.Empty(t, v.Problems())
}

func TestAContactThatIsTooLargeIsIdentifiedWithWhatFitsChangedTraitsFirstAndItIsTold(t *testing.T) {
	large := func(id string, traits, size int) *stream.Record {
		f := sinktest.Fact(schemas.FactContactUpdated)
		f.ID = id
		properties := begin(nil)
		for i := range traits {
			properties.str(fmt.Sprintf("t%02d", i), strings.Repeat("x", size))
		}
		properties.str("small", "y")
		f.Contact.Properties, f.Contact.Changed = string(properties.end()), []string{"t29", "t28"}
		return sinktest.Record(f, 1)
	}
	small := sinktest.Record(sinktest.Fact(schemas.FactContactCreated), 0)
	for kind, c := range map[string]struct {
		vendor *sinktest.Vendor
		config map[string]any
		size   int // of each of 30 traits
		note   string
		traits func(sinktest.Item) (traits map[string]any, leftOut any)
	}{
		"segment": {sinktest.NewSegment("wk"), map[string]any{"writeKey": "wk"}, 2000, "14 of 31 traits were left out: Segment takes at most 32768 bytes",
			func(i sinktest.Item) (map[string]any, any) { return i.Fields, i.Context["traitsLeftOut"] }},
		"posthog": {sinktest.NewPosthog("phc_x"), map[string]any{"apiKey": "phc_x"}, 17_100, "1 of 31 traits were left out: PostHog takes at most 512000 bytes",
			func(i sinktest.Item) (map[string]any, any) {
				set, _ := i.Fields["$set"].(map[string]any)
				return set, i.Fields["traitsLeftOut"]
			}},
	} {
		dest := vendor(t, kind, c.vendor, c.config)
		d := newDeliverer(t, Config{AllowLoopback: true})
		one := large("5f6b1c2e-1111-5222-8333-444455557777", 30, c.size)
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{one}})
		require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
		require.Equal(t, c.note, out.Err)
		require.Empty(t, c.vendor.Problems())
		traits, leftOut := c.traits(c.vendor.Items()[0])
		require.Contains(t, traits, "t28")
		require.Contains(t, traits, "t29", "changed")
		require.Contains(t, traits, "t00")
		require.Contains(t, traits, "small", "what does not fit keeps nothing later out")
		require.Equal(t, "ann@example.com", traits["email"])
		require.InDelta(t, float64(31-(len(traits)-1)), leftOut, 0)

		out = d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{small, one}})
		require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
		require.Equal(t, []delivery.Result{{}, {Err: c.note}}, out.Results, "each record has its own text")
	}
}

func TestWhatAPropertyOfAnyLengthLeavesForTheOthersIsUsed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := begin(nil)
		names := rapid.SliceOfDistinct(rapid.StringN(0, 8, -1), func(s string) string { return InQuotes(s) }).Draw(t, "names")
		for _, name := range names {
			all.str(InQuotes(name), rapid.StringN(0, 40, -1).Draw(t, "value"))
		}
		preferred := names[:rapid.IntRange(0, len(names)).Draw(t, "preferred")]
		document := string(all.end())
		budget := rapid.IntRange(0, len(document)).Draw(t, "budget")
		kept, leftOut, of := fitting(document, preferred, budget)
		require.Equal(t, len(names), of)
		require.LessOrEqual(t, len(kept), budget+2)
		var had, has map[string]string
		require.NoError(t, json.Unmarshal([]byte(document), &had))
		require.NoError(t, json.Unmarshal([]byte(kept), &has))
		require.Len(t, has, len(had)-leftOut)
		for name, value := range has {
			require.Equal(t, had[name], value)
		}
		whole, none, _ := fitting(document, preferred, len(document))
		require.Equal(t, document, whole)
		require.Zero(t, none)
	})
}

func TestExtraEventsCountForTheLimitsOfARequest(t *testing.T) {
	posthog, err := openPosthog(&storage.Destination{Config: json.RawMessage(`{"apiKey":"k"}`)}, transport.NewGuard(transport.Config{}))
	require.NoError(t, err)
	segment, err := openSegment(&storage.Destination{Config: json.RawMessage(`{"writeKey":"k"}`)}, transport.NewGuard(transport.Config{}))
	require.NoError(t, err)
	many := slices.Repeat([]*Payload{samplePayload(t, schemas.FactContactMerged)}, 300)
	_, err = posthog.Build(&Attempt{Payloads: many})
	require.ErrorContains(t, err, "600 events")
	_, err = posthog.Build(&Attempt{Payloads: many[:250]})
	require.NoError(t, err)

	f := sinktest.Fact(schemas.FactContactUpdated)
	f.Contact.Changed = []string{"userId"}
	for i := range 3000 {
		f.Contact.AnonymousIDs = append(f.Contact.AnonymousIDs, fmt.Sprint("device-", i, strings.Repeat("x", 100)))
	}
	p, err := factPayload(f)
	require.NoError(t, err)
	req, err := segment.Build(&Attempt{Payloads: []*Payload{p}})
	require.NoError(t, err, "what cannot be tied must not keep the rest from Segment")
	require.Less(t, len(req.Body), segmentRequest)
	_, err = segment.Build(&Attempt{Payloads: []*Payload{p, p}})
	require.Error(t, err)
}

func TestPosthogsAnswerForEachEventSettlesEachRecord(t *testing.T) {
	v := sinktest.NewPosthogV1("phc_x")
	records := sinktest.Records()
	says := map[string]string{records[2].ID: "drop", records[4].ID: "retry", records[5].ID: "warning"}
	v.Says = func(id string, before int) string {
		if said := says[id]; said != "" && (said == "drop" || before == 0) {
			return said
		}
		return "ok"
	}
	dest := vendor(t, "posthog", v, map[string]any{"apiKey": "phc_x", "api": "v1"})
	d := newDeliverer(t, Config{AllowLoopback: true})
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records, Attempt: 1})
	require.Empty(t, v.Problems())
	require.Equal(t, delivery.Partial, out.Verdict, "%+v", out)
	require.Len(t, out.Results, len(records))
	for i, r := range out.Results {
		switch i {
		case 2:
			require.Equal(t, delivery.Result{Verdict: delivery.Reject, Err: "PostHog drops the event: because"}, r)
		case 4:
			require.Equal(t, delivery.Retry, r.Verdict)
		default:
			require.Equal(t, delivery.Delivered, r.Verdict, i)
		}
	}
	require.Len(t, v.Items(), len(records)-2)
	again := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records[4:5], Attempt: 2})
	require.Equal(t, delivery.Delivered, again.Verdict, "%+v", again)
	alone := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records[2:3], Attempt: 1})
	require.Equal(t, delivery.Reject, alone.Verdict, "%+v", alone)
	require.Equal(t, 3, v.Requests())
}

func TestARecordThatItsTransformCannotShapeIsRejectedAndTheOthersOfItsBatchAreSent(t *testing.T) {
	v := sinktest.NewPosthog("phc_x")
	dest := vendor(t, "posthog", v, map[string]any{"apiKey": "phc_x"})
	dest.Filter = `.type != "email.sent"`
	dest.Transform = `if .type == "contact.deleted" then error("no") else . end`
	records := sinktest.Records()
	d := newDeliverer(t, Config{AllowLoopback: true})
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records, Attempt: 1})
	require.Equal(t, delivery.Partial, out.Verdict, "%+v", out)
	for i, r := range records {
		want := map[string]delivery.Verdict{"contact.deleted": delivery.Reject, "email.sent": delivery.Skipped}[r.Type]
		require.Equal(t, want, out.Results[i].Verdict, r.Type)
	}
	require.Len(t, v.Items(), len(records)-2)
	require.Equal(t, 1, v.Requests())
}

func TestSegmentTakesEveryTypeInOneRequest(t *testing.T) {
	v := sinktest.NewSegment("wk")
	dest := vendor(t, "segment", v, map[string]any{"writeKey": "wk"})
	d := newDeliverer(t, Config{AllowLoopback: true})
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: sinktest.Records()})
	require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
	require.Empty(t, v.Problems())
	items := v.Items()
	require.Len(t, items, len(schemas.Catalog()))
	require.Equal(t, "identify", items[0].Name)
	require.Equal(t, "ann@example.com", items[0].Fields["email"])
	require.Equal(t, "email.sent", items[4].Name)
	require.Equal(t, "order.completed", items[len(items)-1].Name)
}

func TestSlackGetsAReadableMessageForEveryType(t *testing.T) {
	v := sinktest.NewSlack("/services/T/B/x")
	dest := vendor(t, "slack", v, map[string]any{})
	d := newDeliverer(t, Config{AllowLoopback: true})
	for _, r := range sinktest.Records() {
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{r}})
		require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
	}
	require.Empty(t, v.Problems())
	require.Equal(t, "*email.clicked* for `ann@example.com` (template `welcome`)", v.Items()[7].Name)

	long := sinktest.Event()
	long.Name, long.Properties = "<!channel> & `x`", `{"x":"`+strings.Repeat("<&`", 5000)+`"}`
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(long, 1)}})
	require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
	require.NotContains(t, v.Items()[16].Name, "<!channel>")
}

func TestARejectedBatchIsSplitUntilThePoisonIsAlone(t *testing.T) {
	v := sinktest.NewPosthog("phc_x")
	dest := vendor(t, "posthog", v, map[string]any{"apiKey": "phc_x"})
	records := sinktest.Records()
	v.Poison = records[5].ID
	d := newDeliverer(t, Config{AllowLoopback: true})
	var rejected []string
	var deliver func([]*stream.Record)
	deliver = func(rs []*stream.Record) {
		switch out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: rs}); out.Verdict {
		case delivery.Split:
			deliver(rs[:len(rs)/2])
			deliver(rs[len(rs)/2:])
		case delivery.Reject:
			rejected = append(rejected, rs[0].ID)
		default:
			require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
		}
	}
	deliver(records)
	require.Equal(t, []string{v.Poison}, rejected)
	require.Len(t, v.Items(), len(records)-1)
}

func TestSegmentsLimitsAreKeptBySplittingAndOneThatIsTooLargeIsRejected(t *testing.T) {
	v := sinktest.NewSegment("wk")
	dest := vendor(t, "segment", v, map[string]any{"writeKey": "wk"})
	d := newDeliverer(t, Config{AllowLoopback: true})
	event := func(i, size int) *stream.Record {
		e := sinktest.Event()
		e.ID, e.Properties = fmt.Sprintf("5f6b1c2e-1111-5222-8333-%012d", i), `{"x":"`+strings.Repeat("y", size)+`"}`
		return sinktest.Record(e, int64(i))
	}
	var many []*stream.Record
	for i := range 20 {
		many = append(many, event(i, 30_000))
	}
	require.Equal(t, delivery.Split, d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: many}).Verdict)
	require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: many[:10]}).Verdict)
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{event(1, 40_000)}})
	require.Equal(t, delivery.Reject, out.Verdict)
	require.Contains(t, out.Err, "Segment takes at most")
	require.Equal(t, 1, v.Requests())
}

func TestPosthogDroppingForItsQuotaIsNoDelivery(t *testing.T) {
	a := &Attempt{Payloads: []*Payload{{ID: "a"}, {ID: "b"}, {ID: "c"}}}
	results := posthogV1{}.JudgeItems(a, &transport.Answer{Body: []byte(`{"results":{"a":{"result":"drop","details":"billing_limit"},"b":{"result":"drop"}}}`)})
	require.Equal(t, []delivery.Verdict{delivery.Retry, delivery.Reject, delivery.Retry}, []delivery.Verdict{results[0].Verdict, results[1].Verdict, results[2].Verdict})
	require.Equal(t, delivery.Retry, posthogV1{}.JudgeItems(a, &transport.Answer{Body: []byte("<html>")})[0].Verdict)
	v, reason := (&posthog{}).Judge(nil, &transport.Answer{Status: 200, Body: []byte(`{"status":1,"quota_limited":["events"]}`)})
	require.Equal(t, delivery.Retry, v)
	require.Contains(t, reason, "quota")
	v, _ = (&posthog{}).Judge(nil, &transport.Answer{Status: 200, Body: []byte(`{"status":1,"quota_limited":["recordings"]}`)})
	require.Equal(t, delivery.Delivered, v)
}

func TestAPersonThatPosthogWouldRefuseIsNamedByTheContactID(t *testing.T) {
	for _, id := range []string{"", "null", " Anonymous ", "0", strings.Repeat("x", 201)} {
		require.Equal(t, "c1", posthogDistinctID(Person{ContactID: "c1", UserID: &id}), id)
	}
	require.Equal(t, "u1", posthogDistinctID(Person{ContactID: "c1", UserID: ptr("u1")}))
}

func TestSettingsOfTheVendorKindsNameTheirField(t *testing.T) {
	guard := transport.NewGuard(transport.Config{})
	for _, c := range []struct{ kind, config, url, want string }{
		{"posthog", `{}`, "", "config.apiKey: is missing"},
		{"posthog", ``, "", "config.apiKey: is missing"},
		{"posthog", `{"apiKey":"k","host":"http://10.0.0.1"}`, "", "config.host: "},
		{"posthog", `{"apiKey":"k","eventNames":{"a":""}}`, "", "config.eventNames"},
		{"posthog", `{"apiKey":"k","lingerMs":6000}`, "", "config.lingerMs: is 6000"},
		{"segment", `{"writeKey":"k","lingerMs":-1}`, "", "config.lingerMs: is -1"},
		{"kafka", `{"topic":"t","brokers":["a:9092"],"lingerMs":"x"}`, "", "config.lingerMs: must be a number"},
		{"posthog", `{"apiKey":5}`, "", "config.apiKey: must be a text"},
		{"segment", `{}`, "", "config.writeKey: is missing"},
		{"segment", `{"writeKey":"a\n"}`, "", "config.writeKey"},
		{"slack", `{}`, "", "url: is missing"},
		{"slack", `{"url":"ftp://x"}`, "https://ok.example", "config.url: "},
		{"segment", `{"writeKey":"k","lingerMs":"x"}`, "", "config.lingerMs: must be a number"},
	} {
		kind, err := builtIn.find(c.kind)
		require.NoError(t, err)
		_, err = kind.Open(&storage.Destination{Kind: c.kind, URL: c.url, Config: json.RawMessage(c.config)}, guard)
		require.ErrorContains(t, err, c.want, "%s %s", c.kind, c.config)
	}
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
		e := sinktest.Event()
		e.Properties = properties
		p, err := eventPayload(e)
		require.NoError(t, err)
		req, err := sink.Build(&Attempt{Now: time.Now(), Payloads: []*Payload{p}})
		require.NoError(t, err)
		require.Equal(t, want, strings.Contains(string(req.Body), `"$geoip_disable":true`), properties)
	}
}

func TestWhatSlackSaysOfItsWebhookIsTold(t *testing.T) {
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
}
