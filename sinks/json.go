package sinks

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Payloads are written by hand, field after field: their key order is part of
// the wire, properties are embedded as the bytes that they are, and reflection
// would cost more than signing and sending.

// object appends the fields of a JSON object. An optional field whose value is
// nil is written as null by the …OrNull methods and left out by the …IfSet ones.
type object struct {
	b     []byte
	comma bool
}

func begin(b []byte) object { return object{b: append(b, '{')} }

func (o *object) end() []byte { return append(o.b, '}') }

func (o *object) key(k string) {
	if o.comma {
		o.b = append(o.b, ',')
	}
	o.comma = true
	o.b = append(o.b, '"')
	o.b = append(o.b, k...)
	o.b = append(o.b, '"', ':')
}

func (o *object) str(k, v string) {
	o.key(k)
	o.b = appendString(o.b, v)
}

func (o *object) strOrNull(k string, v *string) {
	o.key(k)
	if v == nil {
		o.b = append(o.b, "null"...)
		return
	}
	o.b = appendString(o.b, *v)
}

func (o *object) strIfSet(k string, v *string) {
	if v != nil {
		o.str(k, *v)
	}
}

func (o *object) time(k string, t time.Time) {
	o.key(k)
	o.b = appendTime(o.b, t)
}

func (o *object) int(k string, v int64) {
	o.key(k)
	o.b = strconv.AppendInt(o.b, v, 10)
}

// raw embeds a JSON document as it is; an empty one becomes {}.
func (o *object) raw(k, document string) {
	o.key(k)
	if document == "" {
		document = "{}"
	}
	o.b = append(o.b, document...)
}

func (o *object) strings(k string, list []string) {
	o.key(k)
	o.b = append(o.b, '[')
	for i, v := range list {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = appendString(o.b, v)
	}
	o.b = append(o.b, ']')
}

// appendTime writes RFC 3339 UTC with milliseconds and Z, as JavaScript does.
func appendTime(b []byte, t time.Time) []byte {
	ms := t.Nanosecond() / 1e6
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, time.RFC3339) // has a path of its own, other layouts are read anew
	return append(b[:len(b)-1], '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z', '"')
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string, escaping what JSON demands and nothing
// else, as JSON.stringify does. Invalid UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := plainLen(s); i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[from:i]...)
				b = append(b, "\uFFFD"...)
				from = i + size
			}
			i += size
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[from:i]...)
		b = appendEscape(b, c)
		i++
		from = i
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

// InQuotes is a text as it stands between the quotes of a JSON string of a payload.
func InQuotes(text string) string {
	quoted := appendString(nil, text)
	return string(quoted[1 : len(quoted)-1])
}

// plainLen is how many bytes at the beginning stand in a JSON string as they are,
// or a few less: it looks at eight at a time, for most strings have nothing else.
func plainLen(s string) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; len(s) >= 8; s, n = s[8:], n+8 {
		x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		quote, slash := x^ones*'"', x^ones*'\\'
		// A byte's highest bit is set below when it is below 0x20, a quote, a backslash
		// or not ASCII. A borrow may set it for a plain one after such a byte, no more.
		if ((x-ones*0x20)|(quote-ones)|(slash-ones)|x)&high != 0 {
			break
		}
	}
	return n
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
