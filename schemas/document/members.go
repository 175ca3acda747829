package document

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Member is one member of an object, as it stands in the text.
type Member struct {
	Name    string // decoded
	Key     string // the name as written, with its quotes
	Value   string // as written, without whitespace around it
	TooDeep bool   // the value nests deeper than MaxDepth
}

// Members walks over the members of the JSON object at Text[At], in their order, and
// builds nothing. It does not look at UTF-8. The zero values of the other fields are
// where a walk begins. Not safe for concurrent use.
//
//	m := document.Members{Text: text}
//	for m.Next() {
//		… m.Name, m.Value
//	}
//	if m.Err != nil { … } // otherwise At is after the closing brace
type Members struct {
	Text string
	At   int // where the walk stands
	Member
	Err error // the text is not JSON: an *Error

	depth   int // how deep a value may nest; 0 is MaxDepth
	started bool
	keyAt   int
}

// walkDepth is how deep a value may nest that is only walked over.
const walkDepth = 10_000

// Next goes to the next member and reads its value. At the end, and at an error, it
// returns false.
func (m *Members) Next() bool {
	if !m.NextName() {
		return false
	}
	start := m.At
	end, err := ScanValue(m.Text, start, cmp.Or(m.depth, MaxDepth))
	if m.TooDeep = err != nil; m.TooDeep { // or not JSON
		if end, m.Err = ScanValue(m.Text, start, walkDepth); m.Err != nil {
			return false
		}
	}
	m.Value, m.At = m.Text[start:end], end
	return true
}

// NextName goes to the next member and stops before its value, which the caller passes
// over with SkipValue, or reads by itself and sets At after it. Value and TooDeep mean
// nothing then.
func (m *Members) NextName() bool {
	if !m.separator() {
		return false
	}
	m.keyAt = m.At
	end, err := ScanString(m.Text, m.At)
	if err != nil {
		m.Err = err
		return false
	}
	m.Key = m.Text[m.At:end]
	if m.Name, err = Unquote(m.Key); err != nil {
		return m.fail("a name is no string")
	}
	if m.At, m.Err = skipColon(m.Text, end); m.Err != nil {
		return false
	}
	m.At = SkipSpace(m.Text, m.At)
	return true
}

// SkipValue goes past the value, however deep it nests.
func (m *Members) SkipValue() { m.At, m.Err = Skip(m.Text, m.At) }

// Skip returns the index after the JSON value that begins at text[at], however deep it
// nests. The error is an *Error.
func Skip(text string, at int) (end int, err error) { return ScanValue(text, at, walkDepth) }

// separator goes to where the next member begins.
func (m *Members) separator() bool {
	m.At = SkipSpace(m.Text, m.At)
	if !m.started {
		m.started = true
		if m.At >= len(m.Text) || m.Text[m.At] != '{' {
			return m.fail("not a JSON object")
		}
		m.At = SkipSpace(m.Text, m.At+1)
		if m.At < len(m.Text) && m.Text[m.At] == '}' {
			m.At++
			return false
		}
		return true
	}
	switch {
	case m.At == len(m.Text):
		return m.fail("ends too early")
	case m.Text[m.At] == '}':
		m.At++
		return false
	case m.Text[m.At] != ',':
		return m.fail("a comma or a closing brace is missing")
	}
	m.At = SkipSpace(m.Text, m.At+1)
	return true
}

func (m *Members) fail(reason string) bool {
	m.Err = &Error{Offset: m.At, Reason: reason}
	return false
}

// HasLoneSurrogate reports whether a JSON string, or any JSON text, escapes half of a
// surrogate pair (`\ud83d` alone): it stands for no character, and decoders make U+FFFD
// of it. U+FFFD itself, escaped or not, is a character as any other.
func HasLoneSurrogate(text string) bool {
	for {
		at := strings.IndexByte(text, '\\')
		if at < 0 || at+1 >= len(text) {
			return false
		}
		text = text[at:]
		first := escapedUnit(text)
		switch {
		case utf16.IsSurrogate(first):
			if len(text) < 12 || utf16.DecodeRune(first, escapedUnit(text[6:])) == utf8.RuneError {
				return true
			}
			text = text[12:]
		default:
			text = text[2:] // what is behind the u of an escape holds no backslash
		}
	}
}

// escapedUnit is the code unit of the \u escape that text begins with, or 0.
func escapedUnit(text string) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0
	}
	unit, err := strconv.ParseUint(text[2:6], 16, 16)
	if err != nil {
		return 0
	}
	return rune(unit)
}

// Unquote decodes a JSON string with its quotes. One without escapes shares the
// memory of quoted.
func Unquote(quoted string) (string, error) {
	if strings.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1], nil
	}
	var name string
	err := json.Unmarshal([]byte(quoted), &name)
	return name, err
}
