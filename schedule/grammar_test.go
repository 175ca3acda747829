package schedule_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/predicate"
	s "github.com/hogstream/hogstream/schedule"
)

// readYAML reads one value of a YAML text, as what holds it would.
func readYAML[T any](text string, read func(file, path string, at ast.Node) (T, error)) (T, error) {
	documents, err := predicate.Documents("j.yaml", []byte(text))
	if err != nil || len(documents) != 1 {
		var none T
		return none, err
	}
	return read("j.yaml", "wait", documents[0])
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	work := s.Window{From: s.Clock(9, 0), To: s.Clock(17, 0)}
	weekdays := s.On(time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday)
	for text, want := range map[string]s.Until{
		`at: 09:00`:                              {At: s.Clock(9, 0)},
		`{at: "9:00", ifPast: next}`:             {At: s.Clock(9, 0)},
		`{at: "9:00", ifPast: now}`:              {At: s.Clock(9, 0), OrNow: true},
		`{at: 09:00, day: tomorrow}`:             {At: s.Clock(9, 0), Tomorrow: true},
		`{at: 09:00, day: Tomorrow}`:             {At: s.Clock(9, 0), Tomorrow: true},
		`{at: 09:00, day: monday}`:               {At: s.Clock(9, 0), Days: s.On(time.Monday)},
		`{at: 09:00, day: [tue, Thursday, SUN]}`: {At: s.Clock(9, 0), Days: s.On(time.Tuesday, time.Thursday, time.Sunday)},
		`{at: 09:00, after: 3d}`:                 {At: s.Clock(9, 0), After: predicate.Days(3)},
		`after: 1h30m`:                           {After: 90 * time.Minute},
		`after: {hours: 1, minutes: 0.5}`:        {After: time.Hour + 30*time.Second},
		`window: 09:00-17:00`:                    {Window: work},
		`window: 9:00 - 17:00`:                   {Window: work},
		`window: {from: 09:00, to: 17:00}`:       {Window: work},
		`{after: 4h, window: {from: 09:00, to: 17:00, days: [mon, tue, wed, thu, fri]}, zone: Europe/Berlin}`: {
			After: 4 * time.Hour, Window: s.Window{From: work.From, To: work.To, Days: weekdays}, Zone: zone(t, "Europe/Berlin")},
		`window: {days: sunday}`: {Window: s.Window{Days: s.On(time.Sunday)}},
	} {
		got, err := readYAML(text, s.UntilFromNode)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
		assert.NoError(t, valid(t, "until", text), text)
	}
	for text, want := range map[string]s.Repeat{
		`at: 09:00`: {At: s.Clock(9, 0)},
		`{at: 09:00, days: [monday, friday], zone: UTC}`: {At: s.Clock(9, 0), Days: s.On(time.Monday, time.Friday), Zone: time.UTC},
		`{at: 09:00, monthDays: 31}`:                     {At: s.Clock(9, 0), MonthDays: s.OnDays(31)},
		`{at: 09:00, monthDays: [1, 15]}`:                {At: s.Clock(9, 0), MonthDays: s.OnDays(1, 15)},
	} {
		got, err := readYAML(text, s.RepeatFromNode)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
		assert.NoError(t, valid(t, "repeat", text), text)
	}
}

func TestWhatIsWrongIsNamedWithItsFix(t *testing.T) {
	days := "use one of monday, tuesday, wednesday, thursday, friday, saturday, sunday"
	for text, want := range map[string]string{
		`5`:                                      `1:1: wait: is a number: write a map such as {day: monday, at: "09:00"}`,
		`{}`:                                     `1:1: wait: is empty: write a map such as {day: monday, at: "09:00"}`,
		`zone: UTC`:                              `1:1: wait: names no time: write at, after or window`,
		`at: 24:00`:                              `1:5: wait.at: "24:00" is no time of day: write hours and minutes from 00:00 to 23:59, such as 09:30`,
		`at: 9`:                                  `1:5: wait.at: is a number: write text`,
		`at: ""`:                                 `1:5: wait.at: is empty: write text`,
		`att: 09:00`:                             `1:1: wait.att: "att" is not known: did you mean "at"?`,
		`day: monday`:                            `1:6: wait.day: has no time of day: write at too`,
		`{at: 09:00, day: mondey}`:               `1:18: wait.day: "mondey" is not known: did you mean "monday"?`,
		`{at: 09:00, day: yesterday}`:            `1:18: wait.day: "yesterday" is not known: ` + days + ", tomorrow",
		`{at: 09:00, day: [tomorrow]}`:           `1:19: wait.day[0]: "tomorrow" is not known: ` + days,
		`{at: 09:00, day: []}`:                   `1:18: wait.day: is empty: write the days, or leave it out`,
		`{at: 09:00, day: [mon, 2]}`:             `1:24: wait.day[1]: is a number: write text`,
		`{at: 09:00, day: monday, after: 1d}`:    `1:33: wait.after: does not go with day: write one of the two`,
		`{after: 1d, ifPast: now}`:               `1:21: wait.ifPast: has no time of day that may be past: write at too, or leave it out`,
		`{at: 09:00, ifPast: skip}`:              `1:21: wait.ifPast: "skip" is not known: use one of next, now`,
		`after: 3 days`:                          `1:8: wait.after: "3 days" is no duration: write numbers with w, d, h, m or s, such as 30d or 1h30m`,
		`after: {dys: 3}`:                        `1:9: wait.after.dys: "dys" is not known: did you mean "days"?`,
		`after: {seconds: 0.5}`:                  `1:8: wait.after: is 500ms: write whole seconds, up to 100 years`,
		`after: 0s`:                              `1:8: wait.after: a duration must be longer than zero`,
		`{at: 09:00, zone: Mars/Base}`:           `1:19: wait.zone: "Mars/Base" is no time zone: write an IANA name such as Europe/Berlin`,
		`{at: 09:00, zone: Local}`:               `1:19: wait.zone: "Local" is no time zone: write an IANA name such as Europe/Berlin`,
		`window: 09:00`:                          `1:9: wait.window: "09:00" is no window: write two times of day, such as 09:00-17:00`,
		`window: 9-17`:                           `1:9: wait.window: "9-17" is no window: write two times of day, such as 09:00-17:00`,
		`window: [1]`:                            `1:9: wait.window: is a list: write a map such as {from: "09:00", to: "17:00"}`,
		`window: {from: 09:00}`:                  `1:9: wait.window.to: is missing: write when it closes`,
		`window: {to: 09:00}`:                    `1:9: wait.window.from: is missing: write when it opens`,
		`window: {start: 09:00, to: 10:00}`:      `1:10: wait.window.start: "start" is not known: use one of from, to, days`,
		`window: {from: 09:00, to: "", days: x}`: "1:27: wait.window.to: is empty: write text\nj.yaml:1:37: wait.window.days: \"x\" is not known: " + days,
		`{1: 2}`:                                 `1:2: wait: 1 is no name of a key`,
	} {
		_, err := readYAML(text, s.UntilFromNode)
		if assert.Error(t, err, text) {
			assert.Equal(t, "j.yaml:"+want, err.Error(), text)
		}
		if !strings.Contains(text, "zone: ") && !strings.HasPrefix(text, `after: 0s`) && !strings.Contains(text, "0.5") {
			assert.Error(t, valid(t, "until", text), text)
		}
	}
	for text, want := range map[string]string{
		`days: monday`:                            `1:1: wait.at: is missing: write the time of day, such as 09:30`,
		`{at: 09:00, days: mon, monthDays: 1}`:    `1:35: wait.monthDays: does not go with days: write one of the two`,
		`{at: 09:00, monthDays: [1, 32]}`:         `1:28: wait.monthDays[1]: is 32: write a day of the month from 1 to 31`,
		`{at: 09:00, monthDays: -1}`:              `1:24: wait.monthDays: is -1: write a day of the month from 1 to 31`,
		`{at: 09:00, monthDays: last}`:            `1:24: wait.monthDays: is text: write a day of the month from 1 to 31`,
		`{at: 09:00, monthDays: []}`:              `1:24: wait.monthDays: is empty: write the days, or leave it out`,
		`{at: 09:00, every: day}`:                 `1:13: wait.every: "every" is not known: use one of at, days, monthDays, zone`,
		`{at: 09:00, days: [mon], monthDays: 99}`: `1:37: wait.monthDays: is 99: write a day of the month from 1 to 31`,
	} {
		_, err := readYAML(text, s.RepeatFromNode)
		if assert.Error(t, err, text) {
			assert.Equal(t, "j.yaml:"+want, err.Error(), text)
		}
		assert.Error(t, valid(t, "repeat", text), text)
	}
}

func TestWhatIsBuiltInGoIsCheckedToo(t *testing.T) {
	for _, c := range []struct {
		of   interface{ Check() error }
		want string
	}{
		{s.Until{}, "names no time: write at, after or window"},
		{s.Until{At: s.Clock(9, 0), Tomorrow: true, Days: s.On(time.Monday)}, "day: is tomorrow and a day of the week: write one of the two"},
		{s.Until{After: -time.Hour}, "after: is -1h0m0s: write whole seconds, up to 100 years"},
		{s.Until{After: time.Millisecond}, "after: is 1ms: write whole seconds, up to 100 years"},
		{s.Until{After: 40000 * predicate.Days(1)}, "after: is 960000h0m0s: write whole seconds, up to 100 years"},
		{s.Until{Tomorrow: true, After: time.Hour, OrNow: true}, "day: has no time of day: write at too\nifPast: has no time of day that may be past: write at too, or leave it out\nafter: does not go with day: write one of the two"},
		{s.Until{Window: s.Window{From: s.Clock(9, 0)}}, "window.to: is missing: write when it closes"},
		{s.Until{At: s.Clock(9, 0), Window: s.Window{Days: 255}}, "window.days: holds what is no day of the week: use On"},
		{s.Until{At: s.Clock(9, 0), Days: 128}, "day: holds what is no day of the week: use On"},
		{s.Window{To: s.Clock(9, 0)}, "from: is missing: write when it opens"},
		{s.Repeat{}, "at: is missing: write the time of day, such as 09:30"},
		{s.Repeat{At: s.Clock(9, 0), Days: s.On(time.Monday), MonthDays: s.OnDays(1)}, "monthDays: does not go with days: write one of the two"},
		{s.Repeat{At: s.Clock(9, 0), MonthDays: 1}, "monthDays: holds what is no day of the month: use OnDays"},
	} {
		assert.EqualError(t, c.of.Check(), c.want)
	}
	assert.NoError(t, s.Until{At: s.Clock(9, 0)}.Check())
	assert.NoError(t, s.Window{}.Check())
	assert.NoError(t, s.Repeat{At: s.Clock(9, 0), MonthDays: s.OnDays(1, 31)}.Check())
}

var compiled = sync.OnceValue(func() map[string]*jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(s.Schema))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schedule.schema.json", doc); err != nil {
		panic(err)
	}
	return map[string]*jsonschema.Schema{
		"until": c.MustCompile("schedule.schema.json#/$defs/until"), "repeat": c.MustCompile("schedule.schema.json#/$defs/repeat"),
	}
})

// valid says whether the published schema takes a YAML text as one of its definitions.
func valid(t require.TestingT, definition, text string) error {
	schema := compiled()[definition]
	raw, err := yaml.YAMLToJSON([]byte(text))
	require.NoError(t, err, text)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err, text)
	return schema.Validate(v)
}

func TestTheCanonicalFormIsReadAsTheSameValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, model := around(t)
		u := s.Until{
			At: near(now, model.zone).Draw(t, "at"), OrNow: rapid.Bool().Draw(t, "or now"),
			Window: windows(now, model.zone).Draw(t, "window"), Zone: rapid.SampledFrom([]*time.Location{nil, model.zone}).Draw(t, "zone"),
		}
		switch rapid.SampledFrom([]string{"tomorrow", "days", "after"}).Draw(t, "which") {
		case "tomorrow":
			u.Tomorrow = true
		case "days":
			u.Days = weekdays().Draw(t, "days")
		case "after":
			u.After = time.Duration(rapid.Int64Range(0, 100*366*86400).Draw(t, "after")) * time.Second
		}
		require.NoError(t, u.Check())
		var again s.Until
		comesBack(t, "until", u, &again)
		require.Equal(t, u, again)

		r := s.Repeat{At: u.At, Days: u.Days, Zone: u.Zone}
		if r.Days == 0 {
			r.MonthDays = s.MonthDays(rapid.Uint32().Draw(t, "month days") &^ 1)
		}
		var repeated s.Repeat
		comesBack(t, "repeat", r, &repeated)
		require.Equal(t, r, repeated)
	})
}

func comesBack(t *rapid.T, definition string, v, again any) {
	text, err := json.Marshal(v)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, again), "%s", text)
	require.NoError(t, valid(t, definition, string(text)), "%s", text)
}

// What is read is right, and comes back from its canonical form; whatever else is given
// gets faults.
func FuzzWhatIsReadComesBack(f *testing.F) {
	for _, text := range []string{
		`{at: 09:00, day: tomorrow, ifPast: now, zone: Europe/Berlin}`, `{after: {hours: 1.5}, window: 22:00-06:00}`,
		`{at: "9:00", day: [mon, FRIDAY], window: {from: 08:00, to: 08:00, days: sun}}`, `{at: 09:00, monthDays: [1, 0x1f]}`, `*a`, `{<<: {}}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if u, err := readYAML(text, s.UntilFromNode); err == nil && u != (s.Until{}) {
			require.NoError(t, u.Check())
			var again s.Until
			raw, err := json.Marshal(u)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(raw, &again), "%s", raw)
			require.Equal(t, u, again)
			u.Resolve(time.UnixMicro(0), time.UTC)
		}
		if r, err := readYAML(text, s.RepeatFromNode); err == nil && r != (s.Repeat{}) {
			require.NoError(t, r.Check())
			var again s.Repeat
			raw, err := json.Marshal(r)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(raw, &again), "%s", raw)
			require.Equal(t, r, again)
			r.Next(time.UnixMicro(0), time.UTC)
		}
	})
}
