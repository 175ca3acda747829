package predicate

import (
	"fmt"
	"time"
)

// A tree is a written document with its places, the same for YAML and JSON.
type tree struct {
	kind         treeKind
	text         string // of a string
	number       float64
	truth        bool
	members      []member // of a map
	items        []*tree  // of a list
	line, column int
}

type treeKind string

const (
	treeNull   treeKind = "null"
	treeBool   treeKind = "true or false"
	treeNumber treeKind = "a number"
	treeText   treeKind = "text"
	treeList   treeKind = "a list"
	treeMap    treeKind = "a map"
)

// member is one key of a map.
type member struct {
	name         string
	line, column int
	value        *tree
}

// maxDepth is how deep a written condition may nest.
const maxDepth = 64

// maxText is how long a written condition may be.
const maxText = 256 << 10

// get is a member of a map, or nil.
func (t *tree) get(name string) *tree {
	if t == nil {
		return nil
	}
	for i := range t.members {
		if t.members[i].name == name {
			return t.members[i].value
		}
	}
	return nil
}

// scalar is the value of a string, number or boolean.
func (t *tree) scalar() (any, bool) {
	switch t.kind {
	case treeText:
		return t.text, true
	case treeNumber:
		return t.number, true
	case treeBool:
		return t.truth, true
	}
	return nil, false
}

// reader walks over a tree and notes what is wrong.
type reader struct {
	file   string
	faults Faults
}

func (r *reader) fault(at *tree, path, format string, args ...any) {
	r.note(at.line, at.column, path, format, args...)
}

func (r *reader) note(line, column int, path, format string, args ...any) {
	r.faults = append(r.faults, Fault{File: r.file, Line: line, Column: column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// expect notes that something else was written.
func (r *reader) expect(at *tree, path string, kind treeKind) bool {
	if at.kind == kind {
		return true
	}
	r.fault(at, path, "is %s: write %s", at.kind, kind)
	return false
}

func (r *reader) nonEmpty(at *tree, path string) string {
	if !r.expect(at, path, treeText) {
		return ""
	}
	if at.text == "" {
		r.fault(at, path, "is empty: write a name")
	}
	return at.text
}

func (r *reader) word(at *tree, path string, known []string) string {
	if !r.expect(at, path, treeText) {
		return ""
	}
	for _, word := range known {
		if at.text == word {
			return word
		}
	}
	r.fault(at, path, "%s", oneOf(at.text, known))
	return ""
}

// path reads a name, or the names on the way to a nested property.
func (r *reader) path(at *tree, path string) Path {
	if at.kind == treeText {
		if name := r.nonEmpty(at, path); name != "" {
			return Path{name}
		}
		return nil
	}
	if at.kind != treeList || len(at.items) == 0 {
		r.fault(at, path, "is %s: write the name of a property, or the names on the way to a nested one as [address, city]", at.kind)
		return nil
	}
	var out Path
	for i, item := range at.items {
		if name := r.nonEmpty(item, fmt.Sprintf("%s[%d]", path, i)); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// value reads text, a number, true, false, or a list of these.
func (r *reader) value(at *tree, path string) any {
	if v, ok := at.scalar(); ok {
		return v
	}
	if at.kind != treeList {
		r.fault(at, path, "is %s: write text, a number, true, false or a list of these", at.kind)
		return nil
	}
	out := []any{}
	for i, item := range at.items {
		v, ok := item.scalar()
		if !ok {
			r.fault(item, fmt.Sprintf("%s[%d]", path, i), "is %s: write text, a number, true or false", item.kind)
			continue
		}
		out = append(out, v)
	}
	return out
}

// duration reads "30d" or {hours: 720}.
func (r *reader) duration(at *tree, path string) time.Duration {
	var d time.Duration
	var err error
	switch at.kind {
	case treeText:
		d, err = parseDuration(at.text)
	case treeMap:
		return r.durationParts(at, path)
	default:
		r.fault(at, path, "is %s: write a duration such as 30d, or its parts as {hours: 720}", at.kind)
	}
	if err != nil {
		r.fault(at, path, "%s", err)
	}
	return d
}

func (r *reader) durationParts(at *tree, path string) time.Duration {
	var total float64
	faults := len(r.faults)
	for _, m := range at.members {
		length := time.Duration(0)
		for _, unit := range durationUnits {
			if unit.part == m.name {
				length = unit.length
			}
		}
		switch {
		case length == 0:
			r.note(m.line, m.column, path+"."+m.name, "%s", oneOf(m.name, durationParts()))
		case r.expect(m.value, path+"."+m.name, treeNumber) && m.value.number < 0:
			r.fault(m.value, path+"."+m.name, "is negative: a duration goes one way")
		default:
			total += m.value.number * float64(length)
		}
	}
	if len(r.faults) > faults {
		return 0
	}
	d, err := checkDuration(total)
	if err != nil {
		r.fault(at, path, "%s", err)
	}
	return d
}
