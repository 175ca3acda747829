package schemas

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// MaxDepth is how deep a JSON document may nest; the document itself is the
// first level.
const MaxDepth = 64

// Validate reports whether doc is a JSON object (RFC 8259) in valid UTF-8 that
// nests at most maxDepth levels. Names may repeat: as for every reader, the
// last one counts. The error says at which byte and what is wrong, and repeats
// nothing of the document.
func Validate(doc []byte, maxDepth int) error {
	// Nobody writes to doc while it is looked at, so it need not be copied.
	text := unsafe.String(unsafe.SliceData(doc), len(doc))
	return validate(text, maxDepth)
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
	by    int    // of doc's: the member of patch with the same name, or -1
	seen  bool   // of patch's: doc has a member of this name
	old   string // of patch's: the value of that name in doc, the last if repeated
}

func merge(doc, patch string, nullRemoves bool) (string, []string, error) {
	var patchRoom, docRoom [16]member
	wanted, err := members(patchRoom[:0], patch)
	if err != nil {
		return "", nil, fmt.Errorf("patch: %w", err)
	}
	wanted = lastOfEach(wanted)
	kept, err := members(docRoom[:0], doc)
	if err != nil {
		return "", nil, fmt.Errorf("document: %w", err)
	}
	find := finder(wanted)
	for i := range kept {
		kept[i].by = find(kept[i].name)
		if kept[i].by >= 0 {
			w := &wanted[kept[i].by]
			w.seen, w.old = true, kept[i].value
		}
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
	return join(kept, wanted, nullRemoves, len(doc)+len(patch)), changed, nil
}

func (m *member) removes(nullRemoves bool) bool { return nullRemoves && m.value == "null" }

func (m *member) changes(nullRemoves bool) bool {
	if m.removes(nullRemoves) {
		return m.seen
	}
	return !m.seen || !sameValue(m.old, m.value)
}

// join writes the members of doc as patch wants them, then what patch adds.
func join(kept, wanted []member, nullRemoves bool, room int) string {
	out := make([]byte, 0, room)
	write := func(key, value string) {
		if len(out) == 0 {
			out = append(out, '{')
		} else {
			out = append(out, ',')
		}
		out = append(out, key...)
		out = append(out, ':')
		out = append(out, value...)
	}
	for i := range kept {
		k := &kept[i]
		if k.by < 0 {
			write(k.key, k.value)
			continue
		}
		w := &wanted[k.by]
		if w.removes(nullRemoves) || !w.seen {
			continue // removed, or a repeated name that is written already
		}
		w.seen = false
		if value := w.value; sameValue(w.old, value) {
			write(k.key, w.old)
		} else {
			write(k.key, value)
		}
		w.by = written
	}
	for i := range wanted {
		if w := &wanted[i]; w.by != written && !w.removes(nullRemoves) {
			write(w.key, w.value)
		}
	}
	if len(out) == 0 {
		return "{}"
	}
	return unsafe.String(unsafe.SliceData(append(out, '}')), len(out)+1)
}

// written marks a member of patch that took its place in the document.
const written = -2

// lastOfEach keeps the last value of a repeated name, at its first place.
func lastOfEach(ms []member) []member {
	if len(ms) < 2 {
		return ms
	}
	find := finder(ms)
	out := ms[:0]
	for i := range ms {
		m := ms[i]
		if first := find(m.name); first < len(out) && out[first].name == m.name {
			out[first].value = m.value
			continue
		}
		out = append(out, m)
	}
	return out
}

// finder returns a function that gives the first index of a name, or -1.
func finder(ms []member) func(name string) int {
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

// members appends the members of an object in their order.
func members(out []member, doc string) ([]member, error) {
	i := skipSpace(doc, 0)
	if i == len(doc) || doc[i] != '{' {
		return nil, &DocumentError{Offset: i, Reason: "not a JSON object"}
	}
	i = skipSpace(doc, i+1)
	if i < len(doc) && doc[i] == '}' {
		return out, atEnd(doc, i+1)
	}
	for {
		m, end, err := readMember(doc, i)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
		i = skipSpace(doc, end)
		if i == len(doc) {
			return nil, &DocumentError{Offset: i, Reason: "ends too early"}
		}
		if doc[i] == '}' {
			return out, atEnd(doc, i+1)
		}
		if doc[i] != ',' {
			return nil, &DocumentError{Offset: i, Reason: "a comma or a closing brace is missing"}
		}
		i = skipSpace(doc, i+1)
	}
}

func atEnd(doc string, i int) error {
	if i = skipSpace(doc, i); i < len(doc) {
		return &DocumentError{Offset: i, Reason: "something follows the JSON object"}
	}
	return nil
}

func readMember(doc string, i int) (member, int, error) {
	end, err := skipString(doc, i)
	if err != nil {
		return member{}, 0, err
	}
	key := doc[i:end]
	name, err := unquote(key)
	if err != nil {
		return member{}, 0, &DocumentError{Offset: i, Reason: "a name is not a string"}
	}
	if end, err = skipColon(doc, end); err != nil {
		return member{}, 0, err
	}
	i = skipSpace(doc, end)
	if end, err = skipValue(doc, i, MaxDepth-1); err != nil {
		return member{}, 0, err
	}
	return member{name: name, key: key, value: doc[i:end], by: -1}, end, nil
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
