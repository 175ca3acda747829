package document

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestMembersGivesEachMemberAsItStands(t *testing.T) {
	text := `[{ "a" : 1.0 , "\u0062":{"x":[1, 2]},"a":null } ,7]`
	m := Members{Text: text, At: 1}
	var got []Member
	for m.Next() {
		got = append(got, m.Member)
	}
	require.NoError(t, m.Err)
	require.Equal(t, []Member{
		{Name: "a", Key: `"a"`, Value: "1.0"},
		{Name: "b", Key: `"\u0062"`, Value: `{"x":[1, 2]}`},
		{Name: "a", Key: `"a"`, Value: "null"},
	}, got)
	require.Equal(t, ` ,7]`, text[m.At:], "it stops after the closing brace")
}

func TestMembersPassesOverAValueThatNestsTooDeepAndSaysSo(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1)
	m := Members{Text: `{"deep":` + deep + `,"flat":1}`}
	require.True(t, m.Next())
	require.True(t, m.TooDeep)
	require.Equal(t, deep, m.Value)
	require.True(t, m.Next())
	require.False(t, m.TooDeep)
	require.Equal(t, "flat", m.Name)
	require.False(t, m.Next())
	require.NoError(t, m.Err)
}

func TestMembersNamesTheByteThatIsNoJSON(t *testing.T) {
	for text, want := range map[string]Error{
		``:                 {0, "not a JSON object"},
		`[1]`:              {0, "not a JSON object"},
		`{"a":1`:           {6, "ends too early"},
		`{"a":1 "b":2}`:    {7, "a comma or a closing brace is missing"},
		`{"a" 1}`:          {5, "a colon is missing"},
		`{a:1}`:            {1, "a string is missing"},
		`{"a":1,}`:         {7, "a string is missing"},
		`{"a":[1,{"b":]}}`: {13, "not a JSON value"},
	} {
		m := Members{Text: text}
		for m.Next() {
		}
		require.Equal(t, &want, m.Err, text)
	}
}

func TestMembersSeesWhatEncodingJSONSees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := genDoc.Draw(t, "doc")
		got := map[string]json.RawMessage{}
		m := Members{Text: doc}
		for m.Next() {
			got[m.Name] = json.RawMessage(m.Value)
		}
		require.NoError(t, m.Err)
		want := map[string]json.RawMessage{}
		require.NoError(t, json.Unmarshal([]byte(doc), &want))
		require.Equal(t, want, got)
	})
}
