package document_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas/document"
)

func TestHalfOfASurrogatePairIsToldFromTheReplacementCharacter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SampledFrom([]string{"a", "�", `\ufffd`, `\ud83d`, `\uDE00`, `\u0041`, `\\`, `\"`, `\n`, "😀", "ud83d"})
		text := `"` + strings.Join(rapid.SliceOf(piece).Draw(t, "pieces"), "") + `"`
		var decoded string
		require.NoError(t, json.Unmarshal([]byte(text), &decoded))
		// Decoders make U+FFFD of a half: there are more of them than were written.
		written := strings.Count(text, "�") + strings.Count(strings.ReplaceAll(text, `\\`, "  "), `\ufffd`)
		require.Equal(t, strings.Count(decoded, string(utf8.RuneError)) > written, document.HasLoneSurrogate(text), text)
	})
}

func FuzzHasLoneSurrogateEndsOnAnyText(f *testing.F) {
	for _, seed := range []string{`\`, `\u`, `\ud83d\u`, `"\ud83d\ude00"`, `\ud83d\`} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, text string) { document.HasLoneSurrogate(text) })
}
