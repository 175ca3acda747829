package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// hostile is text that a terminal would obey: a title, a cleared screen, C1, a turned
// direction, a line of its own.
const hostile = "a\x1b]0;owned\x07b\x1b[2Jc\u009b31md\u202ee\u2066f\rg"

func TestATerminalObeysNothingOfWhatIsShown(t *testing.T) {
	for _, jsonToo := range []bool{false, true} {
		var shown bytes.Buffer
		out := &output{JSON: jsonToo, W: &terminal{to: &shown}}
		require.NoError(t, out.line(map[string]string{"name": hostile}, hostile))
		require.NoError(t, out.value(map[string]string{"name": hostile}, func(w io.Writer) {
			table(w, []string{"name", "error"}, [][]string{{hostile, "a\nb\tc"}, {"ok", "fine"}})
		}))
		for _, r := range shown.String() {
			require.True(t, harmless(r) || r == '\n', "%q in %q", r, shown.String())
		}
		require.Contains(t, shown.String(), `\u001b`)
		if jsonToo {
			var first map[string]string
			require.NoError(t, json.NewDecoder(&shown).Decode(&first))
			require.Equal(t, hostile, first["name"], "the same text to whoever reads the JSON")
		}
	}
}

func TestTextsOfAllLanguagesAreShownAsTheyAre(t *testing.T) {
	var shown bytes.Buffer
	_, err := (&terminal{to: &shown}).Write([]byte("Grüße 日本 🐗 שלום\n\tx"))
	require.NoError(t, err)
	require.Equal(t, "Grüße 日本 🐗 שלום\n\tx", shown.String())
}

func TestACharacterMayComeInParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		var whole, parts bytes.Buffer
		_, _ = (&terminal{to: &whole}).Write([]byte(text))
		w := &terminal{to: &parts}
		for _, b := range []byte(text) {
			n, err := w.Write([]byte{b})
			if n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if whole.String() != parts.String() || !utf8.Valid(whole.Bytes()) {
			t.Fatalf("%q: %q and %q", text, whole.String(), parts.String())
		}
	})
}

func TestAColumnHasAWidth(t *testing.T) {
	var shown bytes.Buffer
	table(&shown, []string{"name", "state"}, [][]string{{strings.Repeat("ü", 5000), "active"}})
	require.Less(t, utf8.RuneCountInString(shown.String()), 400)
	require.Contains(t, shown.String(), "…")
	require.Contains(t, shown.String(), "active")
}
