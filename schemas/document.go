package schemas

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep a JSON document may nest; the document itself is the
// first level.
const MaxDepth = 64

// Validate reports whether doc is a JSON object (RFC 8259) in valid UTF-8 that
// nests at most maxDepth levels. Names may repeat: as for every reader, the
// last one counts. The error says at which byte and what is wrong, and repeats
// nothing of the document.
func Validate(doc []byte, maxDepth int) error {
	return validate(string(doc), maxDepth)
}

// ValidateString is Validate for a string.
func ValidateString(doc string, maxDepth int) error { return validate(doc, maxDepth) }

func validate(doc string, maxDepth int) error {
	if !utf8.ValidString(doc) {
		return &DocumentError{Offset: invalidAt(doc), Reason: "not valid UTF-8"}
	}
	start := skipSpace(doc, 0)
	if start == len(doc) || doc[start] != '{' {
		return &DocumentError{Offset: start, Reason: "not a JSON object"}
	}
	end, err := skipValue(doc, start, maxDepth)
	if err != nil {
		return err
	}
	if end = skipSpace(doc, end); end < len(doc) {
		return &DocumentError{Offset: end, Reason: "something follows the JSON object"}
	}
	return nil
}

// DocumentError says why a JSON document was refused.
type DocumentError struct {
	Offset int // in bytes
	Reason string
}

// Error implements error.
func (e *DocumentError) Error() string {
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

// Patch merges patch into doc, both JSON objects, at the top level: a member of
// patch replaces the one of the same name, null removes it, new names come
// last in the order of patch. What is not touched keeps its bytes, so numbers
// of any size, escapes and nested values survive.
//
// changed lists the names, in the order of patch, whose value is another one
// afterwards; whitespace between tokens makes no difference, but 1 and 1.0 do
// differ. When it is empty, result is doc itself.
func Patch(doc, patch string) (result string, changed []string, err error) {
	return merge(doc, patch, true)
}

// Overlay merges JSON objects as Patch does, the later winning, except that
// null is a value like any other. Without arguments it returns {}.
func Overlay(docs ...string) (string, error) {
	if len(docs) == 0 {
		return "{}", nil
	}
	out := docs[0]
	if len(docs) == 1 {
		return out, validate(out, MaxDepth)
	}
	for _, next := range docs[1:] {
		var err error
		if out, _, err = merge(out, next, false); err != nil {
			return "", err
		}
	}
	return out, nil
}

// member is one member of an object, as it stands in the document.
type member struct {
	name  string // decoded
	key   string // the name as written, with its quotes
	value string // as written, without whitespace around it
}

// wish is a member of patch and what doc has under its name.
type wish struct {
	member
	seen    bool
	old     string // doc's value, the last one if the name is repeated
	written bool
}

// span is a member of doc by its indexes: small and without pointers, because
// a document has many.
type span struct {
	key, keyEnd, value, valueEnd int32
	by                           int32 // the wish of the same name, or -1
}

func merge(doc, patch string, nullRemoves bool) (string, []string, error) {
	if len(doc) > math.MaxInt32 || len(patch) > math.MaxInt32 {
		return "", nil, &DocumentError{Reason: "too large"}
	}
	var room [8]wish
	wanted, err := wishes(room[:0], patch)
	if err != nil {
		return "", nil, fmt.Errorf("patch: %w", err)
	}
	var docRoom [48]span
	kept, err := match(docRoom[:0], doc, wanted)
	if err != nil {
		return "", nil, fmt.Errorf("document: %w", err)
	}
	var changed []string
	for i := range wanted {
		if wanted[i].changes(nullRemoves) {
			changed = append(changed, wanted[i].name)
		}
	}
	if changed == nil {
		return doc, nil, nil
	}
	return join(doc, kept, wanted, nullRemoves, len(doc)+len(patch)), changed, nil
}

// wishes reads the members of patch. A repeated name keeps its first place and
// its last value.
func wishes(out []wish, patch string) ([]wish, error) {
	o := object{text: patch}
	for o.next() {
		out = append(out, wish{member: o.member})
	}
	if o.err != nil || len(out) < 2 {
		return out, o.err
	}
	find, all := finder(out), out
	out = out[:0]
	for _, w := range all {
		if first := find(w.name); first < len(out) && out[first].name == w.name {
			out[first].value = w.value
			continue
		}
		out = append(out, w)
	}
	return out, nil
}

// match reads the members of doc and notes what it has of the wishes.
func match(out []span, doc string, wanted []wish) ([]span, error) {
	find := finder(wanted)
	o := object{text: doc}
	for o.next() {
		by := find(o.name)
		if by >= 0 {
			wanted[by].seen, wanted[by].old = true, o.value
		}
		out = append(out, span{int32(o.keyAt), int32(o.keyAt + len(o.key)), int32(o.valueAt), int32(o.valueAt + len(o.value)), int32(by)})
	}
	return out, o.err
}

func (m *wish) removes(nullRemoves bool) bool { return nullRemoves && m.value == "null" }

func (m *wish) changes(nullRemoves bool) bool {
	if m.removes(nullRemoves) {
		return m.seen
	}
	return !m.seen || !sameValue(m.old, m.value)
}

// join writes the members of doc as patch wants them, then what patch adds.
func join(doc string, kept []span, wanted []wish, nullRemoves bool, room int) string {
	out := make([]byte, 1, room+2)
	out[0] = '{'
	write := func(key, value string) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, key...)
		out = append(out, ':')
		out = append(out, value...)
	}
	for _, k := range kept {
		key, value := doc[k.key:k.keyEnd], doc[k.value:k.valueEnd]
		if k.by >= 0 {
			w := &wanted[k.by]
			if w.removes(nullRemoves) || w.written {
				continue // removed, or a repeated name
			}
			w.written = true
			if value = w.value; sameValue(w.old, value) {
				value = w.old
			}
		}
		write(key, value)
	}
	for i := range wanted {
		if w := &wanted[i]; !w.written && !w.removes(nullRemoves) {
			write(w.key, w.value)
		}
	}
	out = append(out, '}')
	return string(out)
}

// finder returns a function that gives the first index of a name, or -1.
func finder(ms []wish) func(name string) int {
	if len(ms) <= 8 {
		return func(name string) int {
			for i := range ms {
				if ms[i].name == name {
					return i
				}
			}
			return -1
		}
	}
	index := make(map[string]int, len(ms))
	for i := range ms {
		if _, ok := index[ms[i].name]; !ok {
			index[ms[i].name] = i
		}
	}
	return func(name string) int {
		if i, ok := index[name]; ok {
			return i
		}
		return -1
	}
}

// object walks over the members of an object in their order.
type object struct {
	text string
	member
	keyAt, valueAt int // where key and value begin
	at             int
	err            error
}

// next goes to the next member; at the end, and at an error, it returns false.
func (o *object) next() bool {
	var more bool
	if o.at == 0 {
		more = o.open()
	} else {
		more = o.separator()
	}
	return more && o.read()
}

func (o *object) fail(reason string) bool {
	o.err = &DocumentError{Offset: o.at, Reason: reason}
	return false
}

func (o *object) open() bool {
	o.at = skipSpace(o.text, 0)
	if o.at == len(o.text) || o.text[o.at] != '{' {
		return o.fail("not a JSON object")
	}
	o.at = skipSpace(o.text, o.at+1)
	if o.at < len(o.text) && o.text[o.at] == '}' {
		return o.close()
	}
	return true
}

func (o *object) separator() bool {
	o.at = skipSpace(o.text, o.at)
	switch {
	case o.at == len(o.text):
		return o.fail("ends too early")
	case o.text[o.at] == '}':
		return o.close()
	case o.text[o.at] != ',':
		return o.fail("a comma or a closing brace is missing")
	}
	o.at = skipSpace(o.text, o.at+1)
	return true
}

// close takes the closing brace; only whitespace may follow.
func (o *object) close() bool {
	if o.at = skipSpace(o.text, o.at+1); o.at < len(o.text) {
		return o.fail("something follows the JSON object")
	}
	return false
}

func (o *object) read() bool {
	o.keyAt = o.at
	end, err := skipString(o.text, o.at)
	if err == nil {
		o.key = o.text[o.at:end]
		o.name, err = unquote(o.key)
	}
	if err == nil {
		end, err = skipColon(o.text, end)
	}
	if err == nil {
		o.valueAt = skipSpace(o.text, end)
		end, err = skipValue(o.text, o.valueAt, MaxDepth-1)
	}
	if err != nil {
		o.err = err
		return false
	}
	o.value, o.at = o.text[o.valueAt:end], end
	return true
}

// unquote decodes a JSON string; one without escapes is cut out as it stands.
func unquote(key string) (string, error) {
	if strings.IndexByte(key, '\\') < 0 {
		return key[1 : len(key)-1], nil
	}
	var name string
	err := json.Unmarshal([]byte(key), &name)
	return name, err
}

// sameValue compares two valid values, leaving out whitespace between tokens.
func sameValue(a, b string) bool { return a == b || Compact(a) == Compact(b) }
