package destinations

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/sinktest"
)

func filterFrom(t *testing.T, text string) *Filter {
	t.Helper()
	var f Filter
	require.NoError(t, json.Unmarshal([]byte(text), &f))
	return &f
}

func TestAFilterIsJQOrACondition(t *testing.T) {
	for text, want := range map[string]string{
		`".type"`: `".type"`, `""`: `""`, `null`: `""`,
		`{"event":"a.*","bucket":"b"}`:  `{"bucket":"b","event":"a.*"}`,
		`[{"event":"a"},{"event":"b"}]`: `[{"event":"a"},{"event":"b"}]`,
	} {
		out, err := json.Marshal(filterFrom(t, text))
		require.NoError(t, err)
		require.JSONEq(t, want, string(out))
	}
	for text, want := range map[string]string{
		`{"evnt":"a","where":{"x":{"gtt":1}}}`: `filter: evnt: "evnt" is not known: did you mean "event"?; where.x.gtt: "gtt" is not known: did you mean "gt"?`,
		`5`:                                    "filter: is a number: write a map",
		`{}`:                                   "filter: is empty: write one of event, where, bucket, notBucket",
	} {
		var f Filter
		err := f.UnmarshalJSON([]byte(text))
		var wrong *InvalidError
		require.ErrorAs(t, err, &wrong)
		require.EqualError(t, err, want)
	}
}

func TestAConditionTakesThePlaceOfJQAndIsShownAsItWasWritten(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{Name: "hook", URL: "https://example.com/x", EventTypes: []string{"*", "event.tracked"}, Filter: Filter{JQ: "true"}})
	require.NoError(t, err)
	require.Equal(t, "true", made.Filter)
	result := func() string {
		v, err := o.Preview(t.Context(), "hook", Sample{Record: sinktest.Record(sinktest.Event(), 1)})
		require.NoError(t, err)
		return v.Result
	}
	for text, want := range map[string]string{`{"event":"order.completed","where":{"z":1}}`: "sent", `{"event":"email.*"}`: "skipped"} {
		changed, err := o.Update(t.Context(), "hook", Patch{Filter: filterFrom(t, text)})
		require.NoError(t, err)
		shown, err := json.Marshal(changed.Filter)
		require.NoError(t, err)
		require.JSONEq(t, filterFrom(t, text).Selector.Canonical(), string(shown))
		require.Equal(t, want, result())
	}
	tested, err := o.Preview(t.Context(), "hook", Sample{})
	require.NoError(t, err)
	require.Equal(t, "sent", tested.Result)

	changed, err := o.Update(t.Context(), "hook", Patch{Filter: &Filter{}})
	require.NoError(t, err)
	require.Empty(t, changed.Filter)
	require.Equal(t, "sent", result())

	_, err = o.Update(t.Context(), "hook", Patch{Filter: filterFrom(t, `{"bucket":"keen"}`)})
	require.ErrorContains(t, err, "filter: asks for members of a bucket, which nobody can look up here")
}
