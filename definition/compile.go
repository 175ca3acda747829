package definition

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
)

// Options are what of the deployment definitions are checked against.
type Options struct {
	// Limits bound what conditions may ask for. Limits.Retention is how long events are
	// stored; no window may be longer.
	Limits predicate.Limits
	// NoEvents says that no events are stored, so no condition may look at them.
	NoEvents bool
	// Outbox is how long topic outbox keeps what a destination is asked; no call may be waited
	// for longer. Zero is for ever.
	Outbox time.Duration
	// Referenced says that only events are stored that some bucket in use looks at.
	Referenced bool
}

// compileBuckets checks buckets beside each other: their criteria, and the journeys that
// stand with them.
func compileBuckets(list []Definition, known known, opts Options) map[int]predicate.Faults {
	out := compileCriteria(list, known, opts)
	for i, d := range list {
		if faults := compileReactions(d.(Bucket), known, opts); len(faults) > 0 {
			out[i] = append(out[i], faults...)
		}
	}
	return out
}

// compileReactions checks the journeys of a bucket. Faults stand where its file says it.
func compileReactions(b Bucket, known known, opts Options) predicate.Faults {
	var out predicate.Faults
	for i, j := range b.reactions() {
		for _, fault := range compileJourney(j, known, opts) {
			path := fmt.Sprintf("on[%d]", i)
			if steps, within := strings.CutPrefix(fault.Path, "steps"); within {
				path += "." + b.On[i].Field() + steps
			}
			fault.Path = path
			out = append(out, fault)
		}
	}
	return out
}

// compileCriteria checks criteria beside each other: windows, thresholds, buckets that are
// unknown or ask for each other in a circle.
func compileCriteria(list []Definition, known known, opts Options) map[int]predicate.Faults {
	out := map[int]predicate.Faults{}
	buckets := make([]Bucket, len(list))
	for i, d := range list {
		buckets[i] = d.(Bucket)
	}
	if allRight(buckets, known.ids[BucketKind], opts) {
		return out
	}
	var right []predicate.Named
	for i, b := range buckets {
		if b.Kind == KindManual {
			continue
		}
		named := named(i, b)
		faults := append(faultsOf([]predicate.Named{named}, known.ids[BucketKind], opts), withoutEvents(b.Criteria, "criteria", opts)...)
		if len(faults) == 0 {
			right = append(right, named)
		}
		out[i] = faults
	}
	for _, fault := range faultsOf(right, known.ids[BucketKind], opts) { // circles
		i, _ := strconv.Atoi(fault.File) // is our own
		out[i] = append(out[i], fault)
	}
	maps.DeleteFunc(out, func(_ int, faults predicate.Faults) bool { return len(faults) == 0 })
	return out
}

// allRight says that nothing is wrong with any bucket: compiled one by one, each knows all
// others, which takes the square of their number.
func allRight(buckets []Bucket, known []string, opts Options) bool {
	var all []predicate.Named
	for i, b := range buckets {
		if len(withoutEvents(b.Criteria, "criteria", opts)) > 0 {
			return false
		}
		if b.Kind != KindManual {
			all = append(all, named(i, b))
		}
	}
	return len(faultsOf(all, known, opts)) == 0
}

// named is a bucket for predicate; its file is its index.
func named(i int, b Bucket) predicate.Named {
	return predicate.Named{ID: b.ID, Bucket: true, Condition: b.Criteria, File: strconv.Itoa(i), Path: "criteria"}
}

func faultsOf(list []predicate.Named, known []string, opts Options) (faults predicate.Faults) {
	_, err := predicate.Compile(list, predicate.Options{Limits: opts.Limits, Buckets: known})
	errors.As(err, &faults) // the limits themselves were checked
	return faults
}

// withoutEvents refuses a condition that could never be filled.
func withoutEvents(c predicate.Condition, path string, opts Options) predicate.Faults {
	if !opts.NoEvents {
		return nil
	}
	for _, event := range eventNames(c) {
		if IsStored(event) {
			return predicate.Faults{{Path: path, Message: fmt.Sprintf("looks at event %q, and EVENTS_MODE=none stores none: set it to referenced or all", event)}}
		}
	}
	return nil
}

// eventNames are those of the events that a condition looks at.
func eventNames(c predicate.Condition) []string {
	var out []string
	for _, event := range c.Inputs().Events {
		out = append(out, event.Name)
	}
	return out
}

// refsOf are definitions of a kind.
func refsOf(kind string, ids []string) []Ref {
	var out []Ref
	for _, id := range ids {
		out = append(out, Ref{kind, id})
	}
	return out
}

// IsStored says that a name is a product event's, which are stored; facts are not.
func IsStored(event string) bool {
	return event == schemas.TypeEventTracked || !slices.Contains(schemas.Catalog(), event)
}
