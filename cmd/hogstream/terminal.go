package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Names of events, answers of vendors and errors are texts of others. A terminal obeys what
// is in them: sequences that write a title, move the cursor or turn the direction of text.

// harmless says whether a terminal shows a character and does nothing else.
func harmless(r rune) bool {
	return !unicode.Is(unicode.Cc, r) && !unicode.Is(unicode.Bidi_Control, r) && r != '\u2028' && r != '\u2029' && r != '\ufeff'
}

// escape shows what a terminal would obey as \u001b and the like, which in a string of JSON
// is the same character.
func escape(text string, keep string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case harmless(r) || strings.ContainsRune(keep, r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// terminal writes texts without what a terminal obeys, but for ends of lines and tabs.
type terminal struct {
	to   io.Writer
	rest []byte // the beginning of a character that did not fit into the last write
}

// Write implements [io.Writer].
func (t *terminal) Write(p []byte) (int, error) {
	text := append(t.rest, p...)
	whole := len(text)
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if tail := text[len(text)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				whole = len(text) - i
			}
			break
		}
	}
	t.rest = append([]byte(nil), text[whole:]...)
	if _, err := io.WriteString(t.to, escape(string(text[:whole]), "\n\t")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// stderr is where errors, previews and questions are written.
var stderr = &terminal{to: os.Stderr}

// maxCell is how many characters of a text stand in a column of a table.
const maxCell = 80

// cell is a text for a column: on one line, and not wider than it may be.
func cell(text string) string {
	text = escape(text, "")
	if runes := []rune(text); len(runes) > maxCell {
		return string(runes[:maxCell-1]) + "…"
	}
	return text
}
