package predicate

import (
	"slices"
	"strings"
)

// order puts conditions behind those whose membership they ask for, keeping their order
// otherwise. It refuses ids that stand twice, unknown buckets and circles.
func order(list []Named, others []string) ([]Named, Faults) {
	o := &ordering{byID: map[string]*Named{}, state: map[string]visit{}}
	known := slices.Clone(others)
	for i := range list {
		named := &list[i]
		if o.byID[named.ID] != nil {
			o.fault(named, named.Condition.expr, "", "id %q stands twice: ids are unique", named.ID)
		}
		o.byID[named.ID] = named
		if named.Bucket {
			known = append(known, named.ID)
		}
	}
	for i := range list {
		o.checkKnown(&list[i], known)
	}
	if len(o.faults) > 0 {
		return nil, o.faults
	}
	for i := range list {
		o.visit(&list[i], nil)
	}
	return o.out, o.faults
}

// ordering is a depth-first walk over the buckets that conditions ask for.
type ordering struct {
	byID   map[string]*Named
	state  map[string]visit
	out    []Named
	faults Faults
}

type visit uint8

const (
	unvisited visit = iota
	visiting
	visited
)

func (o *ordering) fault(named *Named, e *expr, field, format string, args ...any) {
	o.faults = append(o.faults, faultAt(named.File, named.Path, e, field, format, args...))
}

// asked visits the membership conditions within a condition.
func asked(named *Named, visit func(e *expr, path string)) {
	named.Condition.walk("", func(e *expr, path string) {
		if e.kind == kindBucket {
			visit(e, path)
		}
	})
}

func (o *ordering) checkKnown(named *Named, known []string) {
	asked(named, func(e *expr, path string) {
		if e.bucketID != "" && !slices.Contains(known, e.bucketID) {
			o.fault(named, e, join(path, "bucketId"), "%s", oneOf(e.bucketID, known))
		}
	})
}

func (o *ordering) visit(named *Named, way []string) {
	switch o.state[named.ID] {
	case visited:
		return
	case visiting:
		circle := append(way[slices.Index(way, named.ID):], named.ID)
		o.fault(named, named.Condition.expr, "", "asks for its own membership: %s", strings.Join(circle, " → "))
		return
	}
	o.state[named.ID] = visiting
	way = append(slices.Clone(way), named.ID)
	asked(named, func(e *expr, _ string) {
		if other := o.byID[e.bucketID]; other != nil && other.Bucket {
			o.visit(other, way)
		}
	})
	o.state[named.ID] = visited
	o.out = append(o.out, *named)
}
