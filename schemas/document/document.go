// Package document reads and merges JSON as text: what is not touched keeps its bytes,
// so the order of keys, large integers and escapes survive. Its functions keep no
// state and may be called concurrently.
package document

import (
	"fmt"
	"unicode/utf8"
)

// MaxDepth is how deep a JSON document may nest; the document itself is the
// first level.
const MaxDepth = 64

// Validate reports whether doc is a JSON object (RFC 8259) in valid UTF-8 that
// nests at most maxDepth levels. Names may repeat: as for every reader, the
// last one counts. The error is an *Error.
func Validate(doc string, maxDepth int) error {
	if !utf8.ValidString(doc) {
		return &Error{Offset: invalidAt(doc), Reason: "not valid UTF-8"}
	}
	start := SkipSpace(doc, 0)
	if start == len(doc) || doc[start] != '{' {
		return &Error{Offset: start, Reason: "not a JSON object"}
	}
	end, err := ScanValue(doc, start, maxDepth)
	if err != nil {
		return err
	}
	return nothingFollows(doc, end)
}

// nothingFollows refuses what stands after the object that ends at text[end].
func nothingFollows(text string, end int) error {
	if end = SkipSpace(text, end); end < len(text) {
		return &Error{Offset: end, Reason: "something follows the JSON object"}
	}
	return nil
}

// Error says where and why a JSON text was refused. It repeats nothing of the text.
type Error struct {
	Offset int // in bytes
	Reason string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("JSON document: %s (at byte %d)", e.Reason, e.Offset)
}

// Compact returns a JSON value without insignificant whitespace; all other
// bytes stay as they are. The value must be valid.
func Compact(value string) string {
	if !hasSpace(value) {
		return value
	}
	out := make([]byte, 0, len(value))
	inString := false
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case inString && c == '\\' && i+1 < len(value):
			out = append(out, c)
			i++
			c = value[i]
		case c == '"':
			inString = !inString
		case !inString && isSpace(c):
			continue
		}
		out = append(out, c)
	}
	return string(out)
}
