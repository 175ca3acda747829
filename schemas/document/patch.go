package document

import (
	"fmt"
	"math"
)

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
		return out, Validate(out, MaxDepth)
	}
	for _, next := range docs[1:] {
		var err error
		if out, _, err = merge(out, next, false); err != nil {
			return "", err
		}
	}
	return out, nil
}

// wish is a member of patch and what doc has under its name.
type wish struct {
	Member
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
		return "", nil, &Error{Reason: "too large"}
	}
	var few [8]wish
	wanted, err := wishes(few[:0], patch)
	if err != nil {
		return "", nil, fmt.Errorf("patch: %w", err)
	}
	var spans [48]span
	kept, err := match(spans[:0], doc, wanted)
	if err != nil {
		return "", nil, fmt.Errorf("document: %w", err)
	}
	var changed []string
	for i := range wanted {
		if wanted[i].changes(nullRemoves) {
			changed = append(changed, wanted[i].Name)
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
	m := wholeDocument(patch)
	for m.nextOfWhole() {
		out = append(out, wish{Member: m.Member})
	}
	if m.Err != nil || len(out) < 2 {
		return out, m.Err
	}
	find, all := finder(out), out
	out = out[:0]
	for _, w := range all {
		if first := find(w.Name); first < len(out) && out[first].Name == w.Name {
			out[first].Value = w.Value
			continue
		}
		out = append(out, w)
	}
	return out, nil
}

// match reads the members of doc and notes what it has of the wishes.
func match(out []span, doc string, wanted []wish) ([]span, error) {
	find := finder(wanted)
	m := wholeDocument(doc)
	for m.nextOfWhole() {
		by := find(m.Name)
		if by >= 0 {
			wanted[by].seen, wanted[by].old = true, m.Value
		}
		out = append(out, span{int32(m.keyAt), int32(m.keyAt + len(m.Key)), int32(m.At - len(m.Value)), int32(m.At), int32(by)})
	}
	return out, m.Err
}

// wholeDocument walks over a text that is one object, for nextOfWhole.
func wholeDocument(doc string) Members { return Members{Text: doc, depth: MaxDepth - 1} }

// nextOfWhole is Next that also refuses a document that nests too deep, and what follows it.
func (m *Members) nextOfWhole() bool {
	if !m.Next() {
		if m.Err == nil {
			m.Err = nothingFollows(m.Text, m.At)
		}
		return false
	}
	if m.TooDeep {
		m.Err = &Error{Offset: m.At - len(m.Value), Reason: "nested too deep"}
	}
	return m.Err == nil
}

func (m *wish) removes(nullRemoves bool) bool { return nullRemoves && m.Value == "null" }

func (m *wish) changes(nullRemoves bool) bool {
	if m.removes(nullRemoves) {
		return m.seen
	}
	return !m.seen || !sameValue(m.old, m.Value)
}

// join writes the members of doc as patch wants them, then what patch adds.
func join(doc string, kept []span, wanted []wish, nullRemoves bool, size int) string {
	out := make([]byte, 1, size+2)
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
			if value = w.Value; sameValue(w.old, value) {
				value = w.old
			}
		}
		write(key, value)
	}
	for i := range wanted {
		if w := &wanted[i]; !w.written && !w.removes(nullRemoves) {
			write(w.Key, w.Value)
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
				if ms[i].Name == name {
					return i
				}
			}
			return -1
		}
	}
	index := make(map[string]int, len(ms))
	for i := range ms {
		if _, ok := index[ms[i].Name]; !ok {
			index[ms[i].Name] = i
		}
	}
	return func(name string) int {
		if i, ok := index[name]; ok {
			return i
		}
		return -1
	}
}

// sameValue compares two valid values, leaving out whitespace between tokens.
func sameValue(a, b string) bool { return a == b || Compact(a) == Compact(b) }
