package definition

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

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
	// Referenced says that only events are stored that some bucket in use looks at.
	Referenced bool
}

// compile checks criteria beside each other: windows, thresholds, buckets that are unknown
// or ask for each other in a circle. It returns the faults by the index of the bucket. Of
// the buckets in others it is only known that they are there.
func compile(buckets []Bucket, others []string, opts Options) map[int]predicate.Faults {
	known := slices.Clone(others)
	for _, b := range buckets {
		known = append(known, b.ID)
	}
	out := map[int]predicate.Faults{}
	if allRight(buckets, known, opts) {
		return out
	}
	var right []predicate.Named
	for i, b := range buckets {
		if b.Kind == KindManual {
			continue
		}
		named := named(i, b)
		faults := append(faultsOf([]predicate.Named{named}, known, opts), withoutEvents(b, opts)...)
		if len(faults) == 0 {
			right = append(right, named)
		}
		out[i] = faults
	}
	for _, fault := range faultsOf(right, known, opts) { // circles
		i, _ := strconv.Atoi(fault.File) // is our own
		out[i] = append(out[i], fault)
	}
	for i, faults := range out {
		for j := range faults {
			faults[j].File = buckets[i].File
		}
		if len(faults) == 0 {
			delete(out, i)
		}
	}
	return out
}

// allRight says that nothing is wrong with any bucket: compiled one by one, each knows all
// others, which takes the square of their number.
func allRight(buckets []Bucket, known []string, opts Options) bool {
	var all []predicate.Named
	for i, b := range buckets {
		if len(withoutEvents(b, opts)) > 0 {
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

// withoutEvents refuses a bucket that could never be filled.
func withoutEvents(b Bucket, opts Options) predicate.Faults {
	if !opts.NoEvents {
		return nil
	}
	for _, event := range b.Criteria.Inputs().Events {
		if IsStored(event.Name) {
			return predicate.Faults{{Path: "criteria", Message: fmt.Sprintf("looks at event %q, and EVENTS_MODE=none stores none: set it to referenced or all", event.Name)}}
		}
	}
	return nil
}

// IsStored says that a name is a product event's, which are stored; facts are not.
func IsStored(event string) bool {
	return event == schemas.TypeEventTracked || !slices.Contains(schemas.Catalog(), event)
}
