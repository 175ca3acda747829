package document

import (
	"math/bits"
	"strings"
	"unicode/utf8"
)

// The scanner of JSON text: it finds where a value ends and refuses what is no
// JSON, without building anything.

// ScanValue returns the index after the JSON value (RFC 8259) that begins at s[i],
// which must not be whitespace. The value may open at most depth levels. It does not
// look at UTF-8. The error is an *Error.
func ScanValue(s string, i, depth int) (end int, err error) {
	if i >= len(s) {
		return 0, &Error{Offset: i, Reason: "ends too early"}
	}
	switch s[i] {
	case '{', '[':
		return skipNested(s, i, depth)
	case '"':
		return ScanString(s, i)
	case 't':
		return skipWord(s, i, "true")
	case 'f':
		return skipWord(s, i, "false")
	case 'n':
		return skipWord(s, i, "null")
	}
	return skipNumber(s, i)
}

// skipNested skips an object or an array.
func skipNested(s string, i, depth int) (int, error) {
	if depth <= 0 {
		return 0, &Error{Offset: i, Reason: "nested too deep"}
	}
	object, closing := s[i] == '{', byte(']')
	if object {
		closing = '}'
	}
	i = SkipSpace(s, i+1)
	if i < len(s) && s[i] == closing {
		return i + 1, nil
	}
	for {
		var err error
		if object {
			if i, err = ScanString(s, i); err != nil {
				return 0, err
			}
			if i, err = skipColon(s, i); err != nil {
				return 0, err
			}
			i = SkipSpace(s, i)
		}
		if i, err = ScanValue(s, i, depth-1); err != nil {
			return 0, err
		}
		i = SkipSpace(s, i)
		if i == len(s) {
			return 0, &Error{Offset: i, Reason: "ends too early"}
		}
		if s[i] == closing {
			return i + 1, nil
		}
		if s[i] != ',' {
			return 0, &Error{Offset: i, Reason: "a comma or a closing bracket is missing"}
		}
		i = SkipSpace(s, i+1)
	}
}

func skipColon(s string, i int) (int, error) {
	i = SkipSpace(s, i)
	if i == len(s) || s[i] != ':' {
		return 0, &Error{Offset: i, Reason: "a colon is missing"}
	}
	return i + 1, nil
}

// ScanString is ScanValue for a value that must be a string.
func ScanString(s string, i int) (end int, err error) {
	if i >= len(s) || s[i] != '"' {
		return 0, &Error{Offset: i, Reason: "a string is missing"}
	}
	for i = skipPlain(s, i+1); i < len(s); i = skipPlain(s, i+1) {
		switch c := s[i]; {
		case c == '"':
			return i + 1, nil
		case c < 0x20:
			return 0, &Error{Offset: i, Reason: "a control character in a string"}
		case c == '\\':
			n := escapeLen(s[i:])
			if n == 0 {
				return 0, &Error{Offset: i, Reason: "an unknown escape in a string"}
			}
			i += n - 1
		}
	}
	return 0, &Error{Offset: i, Reason: "ends too early"}
}

// skipPlain returns the index of the first byte of s from i on that is a quote,
// a backslash or a control character, eight bytes at a time.
func skipPlain(s string, i int) int {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(s); i += 8 {
		b := s[i : i+8]
		x := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		quote, escape := x^(each*'"'), x^(each*'\\')
		// A borrow marks bytes only above one that is rightly marked.
		found := (x-each*0x20)&^x | (quote-each)&^quote | (escape-each)&^escape
		if found &= high; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(s) && s[i] >= 0x20 && s[i] != '"' && s[i] != '\\' {
		i++
	}
	return i
}

// escapeLen returns the length of the escape that s begins with, 0 if it is none.
func escapeLen(s string) int {
	if len(s) < 2 {
		return 0
	}
	if strings.IndexByte(`"\/bfnrt`, s[1]) >= 0 {
		return 2
	}
	if s[1] != 'u' || len(s) < 6 {
		return 0
	}
	for _, c := range []byte(s[2:6]) {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return 0
		}
	}
	return 6
}

func skipWord(s string, i int, word string) (int, error) {
	if !strings.HasPrefix(s[i:], word) {
		return 0, &Error{Offset: i, Reason: "not a JSON value"}
	}
	return i + len(word), nil
}

// skipNumber follows RFC 8259: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
func skipNumber(s string, i int) (int, error) {
	start := i
	if i < len(s) && s[i] == '-' {
		i++
	}
	first := i
	i = skipDigits(s, i)
	if i == first || s[first] == '0' && i > first+1 {
		return 0, &Error{Offset: start, Reason: "not a JSON value"}
	}
	if i < len(s) && s[i] == '.' {
		whole := i + 1
		if i = skipDigits(s, whole); i == whole {
			return 0, &Error{Offset: start, Reason: "not a JSON number"}
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		power := i
		if i = skipDigits(s, power); i == power {
			return 0, &Error{Offset: start, Reason: "not a JSON number"}
		}
	}
	return i, nil
}

func skipDigits(s string, i int) int {
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// SkipSpace returns the index of the first byte from s[i] on that is not JSON
// whitespace, or len(s).
func SkipSpace(s string, i int) int {
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	return i
}

// hasSpace reports whether s holds any whitespace, also within strings.
func hasSpace(s string) bool { return strings.ContainsAny(s, " \n\r\t") }

// invalidAt returns where s stops being UTF-8.
func invalidAt(s string) int {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(s)
}
