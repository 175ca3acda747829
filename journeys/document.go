package journeys

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas/document"
)

// paths are properties that are read of a document. Of a document, what is read is kept.
type paths struct {
	whole    bool // the value itself
	children map[string]*paths
}

func (p *paths) add(path predicate.Path) {
	at := p
	for _, name := range path {
		if at.children == nil {
			at.children = map[string]*paths{}
		}
		next := at.children[name]
		if next == nil {
			next = &paths{}
			at.children[name] = next
		}
		at = next
	}
	at.whole = true
}

func (p *paths) addAll(list []predicate.Path) {
	for _, path := range list {
		p.add(path)
	}
}

// all are the paths, in order.
func (p *paths) all() []predicate.Path {
	var out []predicate.Path
	p.walk(nil, func(path predicate.Path) { out = append(out, path) })
	return out
}

func (p *paths) walk(way predicate.Path, visit func(predicate.Path)) {
	if p.whole {
		visit(slices.Clone(way))
	}
	for _, name := range sortedNames(p.children) {
		p.children[name].walk(append(slices.Clip(way), name), visit)
	}
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// cut is what is read of a JSON object, as one; "" when that is nothing. What would make it
// longer than is kept is left out: first what stands last.
func (p *paths) cut(doc string) string {
	if p.whole {
		return p.take(doc, maxKept)
	}
	if p.children == nil {
		return ""
	}
	return p.cutTo(doc, maxKept)
}

func (p *paths) cutTo(doc string, room int) string {
	kept := map[string]string{}
	var names []string
	m := document.Members{Text: doc}
	for m.Next() {
		child := p.children[m.Name]
		if child == nil {
			continue
		}
		text := child.take(m.Value, room)
		if _, stands := kept[m.Name]; !stands {
			names = append(names, m.Name)
		}
		kept[m.Name] = text
	}
	var out strings.Builder
	for _, name := range names {
		key := canonicalText(name)
		if kept[name] == "" || out.Len()+len(key)+len(kept[name])+3 > room {
			continue
		}
		if out.Len() == 0 {
			out.WriteByte('{')
		} else {
			out.WriteByte(',')
		}
		out.WriteString(key + ":" + kept[name])
	}
	if out.Len() == 0 {
		return ""
	}
	return out.String() + "}"
}

func (p *paths) take(value string, room int) string {
	switch {
	case p.whole && len(value) > room:
		return ""
	case p.whole:
		return document.Compact(value)
	case value[0] == '{':
		return p.cutTo(value, room)
	}
	return ""
}

// find is the JSON at a path of a document, "" for none. Of several members of one name the
// last counts.
func find(doc string, path predicate.Path) string {
	for _, name := range path {
		if doc == "" || doc[0] != '{' {
			return ""
		}
		found := ""
		m := document.Members{Text: doc}
		for m.Next() {
			if m.Name == name {
				found = m.Value
			}
		}
		doc = found
	}
	return doc
}

// scalar is text, a number or a boolean in one form, so that what is the same is the same
// text; "" for anything else.
func scalar(raw string) string {
	switch {
	case raw == "":
		return ""
	case raw[0] == '"':
		text, err := document.Unquote(raw)
		if err != nil {
			return ""
		}
		return canonicalText(text)
	case raw == "true", raw == "false":
		return raw
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		n, err := strconv.ParseFloat(raw, 64)
		if err != nil {
			return ""
		}
		return canonicalText(n)
	}
	return ""
}

// text is what a JSON string says, "" for anything else.
func text(raw string) string {
	if raw == "" || raw[0] != '"' {
		return ""
	}
	out, err := document.Unquote(raw)
	if err != nil {
		return ""
	}
	return out
}

// canonicalText renders what encoding/json sorts, without its escapes for HTML.
func canonicalText(v any) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("journeys: what was read cannot be written: %v", err)) // text, numbers, booleans, lists and maps
	}
	return strings.TrimSuffix(out.String(), "\n")
}
