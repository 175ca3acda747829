package predicate

import (
	"strconv"
	"strings"

	"github.com/hogstream/hogstream/schemas/document"
)

// value is what a property holds, read from its JSON.
type value struct {
	kind valueKind
	num  float64 // of a number; 1 for true
	text string  // of text; the JSON of a list or an object
}

type valueKind uint8

const (
	typeAbsent valueKind = iota // no such property
	typeNull
	typeBool
	typeNumber
	typeText
	typeList
	typeObject
)

// valueNames are for people.
var valueNames = [...]string{"absent", "null", "true or false", "a number", "text", "a list", "an object"}

// readValue reads a JSON value; what is none is absent. Numbers are 64-bit floating
// point, as for JavaScript.
func readValue(raw string) value {
	if raw == "" {
		return value{}
	}
	switch raw[0] {
	case 'n':
		return value{kind: typeNull}
	case 't':
		return value{kind: typeBool, num: 1}
	case 'f':
		return value{kind: typeBool}
	case '"':
		if len(raw) < 2 || raw[len(raw)-1] != '"' {
			return value{}
		}
		s, err := document.Unquote(raw)
		if err != nil {
			return value{}
		}
		return value{kind: typeText, text: s}
	case '[':
		return value{kind: typeList, text: raw}
	case '{':
		return value{kind: typeObject, text: raw}
	}
	n, err := strconv.ParseFloat(raw, 64)
	if err != nil {
		return value{}
	}
	return value{kind: typeNumber, num: n}
}

// valueOf is what a condition compares with.
func valueOf(v any) value {
	switch v := v.(type) {
	case string:
		return value{kind: typeText, text: v}
	case float64:
		return value{kind: typeNumber, num: v}
	case bool:
		if v {
			return value{kind: typeBool, num: 1}
		}
		return value{kind: typeBool}
	}
	return value{}
}

// equals is equality of the same type; lists and objects equal nothing.
func (v value) equals(want value) bool {
	return v == want && v.kind >= typeBool && v.kind <= typeText
}

// fold is text without upper and lower case.
func (v value) fold() value {
	if v.kind == typeText {
		v.text = strings.ToLower(v.text)
	}
	return v
}

// eachItem walks over the items of a list until visit returns true, and says whether it did.
func (v value) eachItem(visit func(value) bool) bool {
	if v.kind != typeList {
		return false
	}
	for at := document.SkipSpace(v.text, 1); at < len(v.text) && v.text[at] != ']'; {
		end, err := document.Skip(v.text, at)
		if err != nil {
			return false
		}
		if visit(readValue(v.text[at:end])) {
			return true
		}
		if at = document.SkipSpace(v.text, end); at < len(v.text) && v.text[at] == ',' {
			at = document.SkipSpace(v.text, at+1)
		}
	}
	return false
}
