package sinks

import (
	"context"
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

func shaped(t *testing.T, filter, transform string, p *Payload) (*Payload, error) {
	t.Helper()
	s, err := newShaper(&storage.Destination{Filter: filter, Transform: transform})
	require.NoError(t, err)
	return s.shape(t.Context(), p)
}

func TestAFilterDecidesByItsFirstOutput(t *testing.T) {
	p := samplePayload(t, schemas.TypeEventTracked)
	for filter, sent := range map[string]bool{
		"": true, "true": true, "0": true, `.data.event == "order.completed"`: true, `.data.properties.z == 1`: true,
		"false": false, "null": false, "empty": false, `.data.event == "x"`: false, "false, true": false,
	} {
		got, err := shaped(t, filter, "", p)
		require.NoError(t, err, filter)
		require.Equal(t, sent, got != nil, filter)
	}
}

func TestATransformWritesTheEnvelopeAndKeepsLargeNumbers(t *testing.T) {
	p := samplePayload(t, schemas.TypeEventTracked)
	got, err := shaped(t, "", `{type: "Order", data: {id: .data.properties.a, big: .data.properties.nested}}`, p)
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"Order","data":{"id":9007199254740993,"big":{"b":[1,{"c":null}]}}}`, string(got.Envelope))
	require.Contains(t, string(got.Envelope), "9007199254740993")
	require.Equal(t, "Order", got.Name())
	require.JSONEq(t, `{"id":9007199254740993,"big":{"b":[1,{"c":null}]}}`, got.Properties())
	require.Equal(t, p.ID, got.ID)
	require.Equal(t, "event.tracked", p.Type, "the shared payload is untouched")

	for _, transform := range []string{"null", "empty"} {
		got, err = shaped(t, "", transform, p)
		require.NoError(t, err)
		require.Nil(t, got)
	}
}

func TestAProgramIsBounded(t *testing.T) {
	p := samplePayload(t, schemas.TypeEventTracked)
	for transform, want := range map[string]string{
		"last(range(1e18))":          "took longer",
		"def f: f; f":                "took longer",
		`error("no")`:                "no",
		"[1]":                        "must be an object",
		`{x: ("yyyyyyyy" * 500000)}`: "more than",
		`.data.event.x`:              "transform:",
	} {
		_, err := shaped(t, "", transform, p)
		require.ErrorContains(t, err, want, transform)
	}
	t.Setenv("HOG_SECRET", "sesame")
	got, err := shaped(t, "", `{x: (env.HOG_SECRET // $ENV.HOG_SECRET // "none")}`, p)
	require.NoError(t, err)
	require.JSONEq(t, `{"x":"none"}`, string(got.Envelope))
	_, err = compile("filter", `import "a" as a; .`)
	require.Error(t, err)
	_, err = compile("filter", "input")
	require.Error(t, err)
	_, err = compile("filter", strings.Repeat(" ", maxProgram+1)+".")
	require.ErrorContains(t, err, "filter: has")
	_, err = compile("filter", "{")
	require.ErrorContains(t, err, "filter: is not jq")
}

func TestWhatAFilterDropsIsSkippedAndAFailingTransformRejectsItsRecord(t *testing.T) {
	r, dest := receiving(t, sinktest.Options{})
	d := newDeliverer(t, Config{AllowLoopback: true})
	dest.Filter = `.type == "contact.created"`
	deliver := func(m schemas.Message) stream.Outcome {
		return d.Deliver(t.Context(), stream.Delivery{Destination: dest, Records: []*stream.Record{recordOf(t, m, 1)}})
	}
	require.Equal(t, stream.Skipped, deliver(sampleEvent()).Verdict)
	require.Equal(t, stream.Delivered, deliver(sampleFact(schemas.FactContactCreated)).Verdict)
	require.Equal(t, 1, r.Stats().Requests)
	changed := *dest
	changed.Revision, changed.Filter, changed.Transform = 2, "", ".data.properties.x.y.z.w | error"
	dest = &changed
	require.Equal(t, stream.Reject, deliver(sampleEvent()).Verdict)
}

func TestABatchIsSentWithoutWhatItsFilterDrops(t *testing.T) {
	v := sinktest.NewPosthog("k")
	dest := vendor(t, "posthog", v, map[string]any{"apiKey": "k"})
	dest.Filter, dest.Transform = `.type | startswith("email.")`, `.type |= "mail " + . | .data |= {to}`
	d := newDeliverer(t, Config{AllowLoopback: true})
	records := everyRecord(t)
	out := d.Deliver(t.Context(), stream.Delivery{Destination: dest, Records: records})
	require.Equal(t, stream.Partial, out.Verdict, "%+v", out)
	for i, r := range records {
		want := stream.Skipped
		if strings.HasPrefix(r.Type, "email.") {
			want = stream.Delivered
		}
		require.Equal(t, stream.Result{Verdict: want}, out.Results[i], "the delivery log tells the two apart: %s", r.Type)
	}
	items := v.Items()
	require.Len(t, items, 6)
	require.Equal(t, "mail email.sent", items[0].Name)
	require.Equal(t, map[string]any{"to": "ann@example.com", "$lib": "hogstream", "$geoip_disable": true}, items[0].Fields)
}

func TestAFilterThatIsBrokenOffWithItsAttemptGivesNothingUp(t *testing.T) {
	dest := vendor(t, "posthog", sinktest.NewPosthog("k"), map[string]any{"apiKey": "k"})
	dest.Filter = "last(range(1e18))"
	d := newDeliverer(t, Config{AllowLoopback: true})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	records := everyRecord(t)
	for n, want := range map[int]struct{ ended, late stream.Verdict }{1: {stream.Retry, stream.Retry}, len(records): {stream.Retry, stream.Split}} {
		del := stream.Delivery{Destination: dest, Records: records[:n], Attempt: 100}
		require.Equal(t, want.ended, d.Deliver(ended, del).Verdict, n)
		require.Equal(t, want.late, d.Deliver(late, del).Verdict, n)
	}
}

func TestAProgramThatTakesTooLongIsTheRecordsFaultOnlyWhenItDoesSoAgain(t *testing.T) {
	dest := vendor(t, "posthog", sinktest.NewPosthog("k"), map[string]any{"apiKey": "k"})
	dest.Filter = `if .type == "email.sent" then last(range(1e18)) else . end`
	d := newDeliverer(t, Config{AllowLoopback: true})
	records := everyRecord(t)
	out := d.Deliver(t.Context(), stream.Delivery{Destination: dest, Records: records, Attempt: 1})
	require.Equal(t, stream.Split, out.Verdict, "%+v", out)
	slow := slices.IndexFunc(records, func(r *stream.Record) bool { return r.Type == "email.sent" })
	for attempt, want := range []stream.Verdict{1: stream.Retry, 2: stream.Retry, 3: stream.Retry, 4: stream.Reject} {
		if attempt > 0 {
			out := d.Deliver(t.Context(), stream.Delivery{Destination: dest, Records: records[slow : slow+1], Attempt: attempt})
			require.Equal(t, want, out.Verdict, "attempt %d: %+v", attempt, out)
		}
	}
}

func TestSettingsWithBrokenJQAreRefusedAtCreation(t *testing.T) {
	o := newOperations(t)
	_, err := o.Create(t.Context(), Settings{URL: "https://example.com", EventTypes: []string{"*"}, Filter: ".["})
	var wrong *InvalidError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "filter", wrong.Field)
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

// What is sent in an event must not end the process by way of an innocent program.
func TestNoStepOfAProgramTakesMemoryOutOfProportion(t *testing.T) {
	p := *samplePayload(t, schemas.TypeEventTracked)
	p.Envelope = []byte(`{"n": 300000000, "neg": -1, "s": "ab", "long": "` + strings.Repeat("a ", 100_000) + `",
		"items": [` + strings.Repeat("{},", 50_000) + `{}], "digits": ` + strings.Repeat("9", 100_000) + `,
		"path": ["a", 300000000], "rows": [` + strings.Repeat("[],", 50_000) + `[` + strings.Repeat("1,", 50_000) + `1]]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, transform := range []string{
		`{x: (.s * .n)}`, `{x: (.n * .s)}`, `{x: .s} | .x *= 300000000`, `.n as $n | {x: .s} | .x *= $n`, `def f(a): a * 2e8; {x: f(.s)}`,
		`.n as $n | {a: []} | .a[$n] = 1`, `.n as $n | {a: []} | .a[$n] |= 1`, `.n as $n | {a: []} | .a[$n] += 1`, `{a: []} | .a[300000000] = 1`,
		`.n as $n | {a: []} | (.a | nth($n)) = 1`, `.path as $p | {} | setpath($p; 1)`, `.path as $p | {} | getpath($p) = 1`,
		`.path as $p | {x: pick(getpath($p))}`, `.n as $n | def i: .[$n]; {a: []} | (.a | i) = 1`, `{x: fromstream([.path, 1], [["a"]])}`,
		`.long as $l | {items: [.items[] | $l]}`, `.long as $l | {x: ([.items[] | $l] | add)}`, `.long as $l | {x: add(.items[] | $l)}`,
		`.long as $l | {x: ([.items[] | $l] | tojson)}`, `.long as $l | {x: "\([.items[] | $l])"}`, `.long as $l | {x: ([.items[] | $l] | @json)}`,
		`.long as $l | {x: ([.items[] | $l] | @csv)}`, `.long as $l | {x: ([.items[] | "x"] | join($l))}`, `.long as $l | {x: ([.items[] | [$l]] | flatten)}`,
		`{x: (reduce range(40) as $i (.s; . + .))}`, `{x: .s} | reduce range(40) as $i (.; .x += .x)`, `{x: reduce range(60) as $i ("x"; [., .])}`,
		`{x: (.long | gsub(" "; "_"))}`, `{x: ([.long | match(" "; "g")] | length)}`, `{x: (.rows | transpose | length)}`, `{x: (.digits * .digits)}`,
		`.long as $l | error([.items[] | $l])`, `{x: reduce range(100000) as $i (null; [.])}`, `_multiply("x"; 1e9)`, `def _hog_fits: .; .`, `. as $_hog | $_hog`,
	} {
		s, err := newShaper(&storage.Destination{Transform: transform})
		if err == nil {
			_, err = s.shape(t.Context(), &p)
		}
		require.Error(t, err, transform)
		require.Less(t, len(err.Error()), 1000, transform)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(3<<30), "of all of them together")
}

// A program is broken off between its steps, and one step over what an event brings must
// not take a minute.
func TestNoStepOfAProgramTakesTimeOutOfProportion(t *testing.T) {
	p := *samplePayload(t, schemas.TypeEventTracked)
	list := strings.Repeat("1,", 60_000) + "1"
	p.Envelope = []byte(`{"text": "` + strings.Repeat("ab", 30_000) + `", "caps": "` + strings.Repeat("AB", 30_000) + `", "part": "` + strings.Repeat("ab", 15_000) + `b",
		"ones": [` + list + `], "twos": [` + strings.ReplaceAll(list, "1", "2") + `], "nested": [[` + list + `]], "digits": "` + strings.Repeat("9", 250_000) + `"}`)
	for _, transform := range []string{
		`{x: (.text | gsub("a"; "c"))}`, `{x: (.text | gsub(""; "c"))}`, `{x: (.caps | gsub("a"; "c"; "i"))}`, `{x: ([.text | scan("a")] | length)}`,
		`{x: ([.text | splits("a")] | length)}`, `{x: (.text | split("a"; null) | length)}`, `{x: ([.caps | match("a"; "gi")] | length)}`,
		`{x: ([.caps | match(["a", "gi"])] | length)}`, `{x: ([.text | capture("(?<x>a)"; "g")] | length)}`, `{x: (.text | sub("a"; "c"; "g"))}`,
		`{x: (.ones - .twos)}`, `.twos as $t | {x: .ones} | .x -= $t`, `{x: (.ones | contains([range(60000) | 3]))}`,
		`.twos as $t | {x: (.ones | contains($t))}`, `. as $e | {x: ($e.twos | inside($e.ones))}`, `.nested as $n | {x: (.nested | contains($n))}`,
		`.part as $p | {x: (.text | indices($p))}`, `.part as $p | {x: (.text | index($p))}`, `.part as $p | {x: (.text | rindex($p))}`,
		`.twos as $t | {x: (.ones | indices($t))}`, `{x: (.digits | tonumber)}`, `{x: ("a" * 4000000 | indices("a") | length)}`,
	} {
		_, err := shaped(t, "", transform, &p)
		require.ErrorContains(t, err, "too large", transform)
	}
	for transform, want := range map[string]string{
		`{x: (.ones - [2, 3] | length), y: (.ones | contains([1])), z: ([1] | inside([1, 2]))}`:                                                                                                        `{"x":60001,"y":true,"z":true}`,
		`{x: (.text | index("b")), y: (.text | rindex("ab")), z: (.text | indices("ba") | length)}`:                                                                                                    `{"x":1,"y":59998,"z":29999}`,
		`{x: (.text | test("ba")), y: (.text | sub("^a"; "") | length), z: (.text[:2000] | gsub("a"; "") | length)}`:                                                                                   `{"x":true,"y":59999,"z":1000}`,
		`{x: (.text | sub("a"; "c") | .[:3]), y: (.text | match("A"; "i").offset), z: (.text | capture("(?<x>a)").x), n: (.text | match(["B", "i"]).offset), t: (.text | sub("A"; "c"; "i") | .[:3])}`: `{"x":"cba","y":0,"z":"a","n":1,"t":"cba"}`,
		`{x: ("aXbX" | gsub("x"; "-"; "i")), y: ("aXbX" | [splits("x"; "i")]), z: ("aXbX" | split("x"; "gi")), n: ("aXbX" | [scan("x"; "i")]), t: ("ab" | gsub("(?<l>[a-z])"; "\(.l)1"))}`:             `{"x":"a-b-","y":["a","b",""],"z":["a","b",""],"n":["X","X"],"t":"a1b1"}`,
		`{x: ([5, 3, 1] - [3]), y: [(7, 8) - (1, 2)], z: ([1, 2] | . - [2]), n: (10 | . - 4)} | .n -= 1`:                                                                                               `{"x":[5,1],"y":[6,7,5,6],"z":[1],"n":5}`,
		`{x: ("17" | tonumber), y: ({a: {b: 1}} | contains({a: {}})), z: ("foobar" | contains("bar")), n: ("a,b, c" | [scan("[a-c]")])}`:                                                               `{"x":17,"y":true,"z":true,"n":["a","b","c"]}`,
	} {
		got, err := shaped(t, "", transform, &p)
		require.NoError(t, err, transform)
		require.JSONEq(t, want, string(got.Envelope), transform)
	}
}

func TestABoundedProgramMeansWhatItSays(t *testing.T) {
	p := *samplePayload(t, schemas.TypeEventTracked)
	p.Envelope = []byte(`{"a": 3, "b": 4, "s": "ab", "l": [1, 2, 3], "o": {"x": {"y": 1}}, "rows": [[1], [2, 3]], "big": 9007199254740993}`)
	for transform, want := range map[string]string{
		`{x: (.a * .b), y: (.s * 3), z: ({a: {b: 1}} * {a: {c: 2}}), n: (null + 1), w: (2 * 3 + 4)}`:                                                                   `{"x":12,"y":"ababab","z":{"a":{"b":1,"c":2}},"n":1,"w":10}`,
		`{x: [(1, 2) * (10, 20)], y: [(1, 2) + (10, 20)]}`:                                                                                                             `{"x":[10,20,20,40],"y":[11,12,21,22]}`,
		`{l: .l} | .l[1] += 5 | .l[(0, 2)] *= 2`:                                                                                                                       `{"l":[2,7,6]}`,
		`{l: [.l[.a - 1, 0], .l[-1], .l[900000000], .l[1:][0]]}`:                                                                                                       `{"l":[3,1,3,null,2]}`,
		`.a as $a | {l: .l} | .l[$a] = "end" | .l[$a - 3] |= . + 1`:                                                                                                    `{"l":[2,2,3,"end"]}`,
		`.o | .x.y += 1 | del(.x.z) | setpath(["x", "l", 1]; 5) | {v: getpath(["x", "l", 1]), o: .}`:                                                                   `{"v":5,"o":{"x":{"y":2,"l":[null,5]}}}`,
		`{j: (.l | join("-")), t: (.rows | transpose), f: (.rows | flatten), a: (.l | add), b: add(.l[] | . * 2)}`:                                                     `{"j":"1-2-3","t":[[1,2],[null,3]],"f":[1,2,3],"a":6,"b":12}`,
		`{s: "\(.a)-\("x" * 2)-\(.l)", c: (.l | @csv), h: @html "<\(.s)>", j: (.o | tojson), n: (.big | tostring)}`:                                                    `{"s":"3-xx-[1,2,3]","c":"1,2,3","h":"<ab>","j":"{\"x\":{\"y\":1}}","n":"9007199254740993"}`,
		`{g: ("a b c" | gsub(" "; "_")), m: [("a1b2" | match("[0-9]"; "g")).string], t: ("x" | test("x")), s: ("a,b" | split(",")), r: ("a, b" | split(", *"; null))}`: `{"g":"a_b_c","m":["1","2"],"t":true,"s":["a","b"],"r":["a","b"]}`,
		`def join(f): "mine"; def f(x): x * 2; {j: (.l | join(",")), f: f(.a)}`:                                                                                        `{"j":"mine","f":6}`,
		`{p: [paths(type == "number")] | length, n: (.l | nth(1)), s: fromstream(.o | tostream), w: (.o | with_entries(.key += "!"))}`:                                 `{"p":10,"n":2,"s":{"x":{"y":1}},"w":{"x!":{"y":1}}}`,
		`{l, o} | (.l | nth(1)) = 9 | .l[2 - 2] |= 8 | getpath(["o", "x", "y"]) |= . * 2 | .o[("x", "z") + ""].k = 1 | [paths] | {n: length}`:                          `{"n":10}`,
		`{l, o} | (.l | nth(1)) = 9 | .l[2 - 2] |= 8 | getpath(["o", "x", "y"]) |= . * 2`:                                                                              `{"l":[8,9,3],"o":{"x":{"y":2}}}`,
		`{e: (try error("no") catch .), i: (if .a * 2 > 5 then "y" else "n" end), r: (reduce .l[] as $x (0; . + $x)), l: [limit(2; repeat("z"))]}`:                     `{"e":"no","i":"y","r":6,"l":["z","z"]}`,
	} {
		got, err := shaped(t, "", transform, &p)
		require.NoError(t, err, transform)
		require.JSONEq(t, want, string(got.Envelope), transform)
	}
}
