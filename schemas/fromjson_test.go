package schemas

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAMessageIsReadFromTheJSONThatShowsIt(t *testing.T) {
	c := NewCodec()
	for _, m := range samples() {
		value, err := c.Encode(m)
		require.NoError(t, err)
		text, err := c.JSON(m.Topic(), value)
		require.NoError(t, err)
		got, err := FromJSON(m.Topic(), text)
		require.NoError(t, err, "%s", text)
		again, err := c.Encode(got)
		require.NoError(t, err)
		shown, err := c.JSON(m.Topic(), again)
		require.NoError(t, err)
		require.Equal(t, string(text), string(shown)) // spaces within documents are not shown
	}
}

func TestJSONThatIsNoMessageIsRefusedByField(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                                     "the text is not a JSON object",
		`{"id":1}`:                               "field id: 1 is no string",
		`{"nam":"x"}`:                            "field nam: is not in the schema",
		`{"occurredAt":"today"}`:                 `field occurredAt: "today" is no time.Time`,
		`{"contact":{"changed":"x"}}`:            `field contact.changed: "x" is no []string`,
		`{"merged":{"gained":[{},{"kind":[1}]}}`: "the text is not a JSON object",
		`{"merged":{"gained":[{},{"kind":1}]}}`:  "field merged.gained[1].kind: 1 is no string",
	} {
		_, err := FromJSON(TopicLifecycle, []byte(text))
		require.ErrorContains(t, err, want, text)
	}
	_, err := FromJSON("elsewhere", []byte(`{}`))
	require.ErrorContains(t, err, `there is no topic "elsewhere"`)
}

func FuzzFromJSON(f *testing.F) {
	c := NewCodec()
	for _, m := range samples() {
		value, err := c.Encode(m)
		require.NoError(f, err)
		text, err := c.JSON(m.Topic(), value)
		require.NoError(f, err)
		f.Add(string(m.Topic()), string(text))
	}
	f.Fuzz(func(_ *testing.T, topic, text string) { _, _ = FromJSON(Topic(topic), []byte(text)) })
}
