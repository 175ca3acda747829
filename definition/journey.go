package definition

import (
	"errors"
	"fmt"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
)

// JourneyKind is the kind of journeys, as [Ref] has it.
const JourneyKind = "journey"

// Journey is a [journeys.Journey] as a definition.
type Journey struct{ journeys.Journey }

// JourneyInUse is a journey of the set in use.
type JourneyInUse struct {
	Journey
	InUse
}

// HasJourneys says whether a set has any.
func HasJourneys(s *Set) bool { return len(s.Journeys) > 0 }

// JourneyRef names a journey.
func JourneyRef(id string) Ref { return Ref{JourneyKind, id} }

var journeyKind = &kind{
	name: JourneyKind, dir: "journeys", built: "journeys built in Go",
	schema: SchemaFile{"journey.schema.json", journeys.Schema, journeys.MakeSchema},
	read:   readJourney,
	decode: func(canonical []byte) (Definition, error) {
		var j Journey
		err := j.UnmarshalJSON(canonical)
		return j, err
	},
	compile: compileJourneys,
	files:   inFiles(func(f *Files) *[]Journey { return &f.Journeys }),
	set: inSet(func(s *Set) *[]JourneyInUse { return &s.Journeys },
		func(j JourneyInUse) (Journey, InUse) { return j.Journey, j.InUse },
		func(j Journey, use InUse) JourneyInUse { return JourneyInUse{j, use} }),
}

// readJourney reads what the room of journeys reads and checks.
func readJourney(r *reader, document ast.Node) (Definition, bool) {
	j, places, err := journeys.Read(r.File, "", document)
	r.Take(err)
	for path, at := range places {
		r.nodes[path] = at
	}
	return Journey{j}, err == nil
}

// Ref implements [Definition].
func (j Journey) Ref() Ref { return JourneyRef(j.ID) }

func (j Journey) head() head { return head{j.ID, j.Enabled, j.File} }

func (j Journey) withHead(h head) Definition {
	j.ID, j.Enabled, j.File = h.ID, h.Enabled, h.File
	return j
}

// defaulted leaves a journey as it is: its program has the defaults.
func (j Journey) defaulted() Definition { return j }

func (j Journey) check() []problem {
	var faults predicate.Faults
	errors.As(j.Check(), &faults)
	var out []problem
	for _, f := range faults {
		out = append(out, problem{f.Path, f.Message})
	}
	if journeys.IsReaction(j.ID) {
		out = append(out, problem{"id", "is how a reaction of a bucket is called, which is a collision: use another"})
	}
	return out
}

// evaluated is the journey without what is for people.
func (j Journey) evaluated() string {
	j.Name, j.Description, j.Enabled = "", "", false
	return j.Canonical()
}

// asks are the buckets that the journey names.
func (j Journey) asks() []Ref {
	p, err := journeys.Compile(j.Journey, journeys.Options{})
	if err != nil {
		return nil // it was checked
	}
	return refsOf(BucketKind, p.Buckets())
}

// looksAt are the events that its conditions look at: what it waits for is not looked up.
func (j Journey) looksAt() []string {
	p, err := journeys.Compile(j.Journey, journeys.Options{})
	if err != nil {
		return nil
	}
	var out []string
	for _, c := range p.Conditions() {
		out = append(out, eventNames(c.Condition)...)
	}
	return out
}

// compileJourneys checks journeys against the buckets that there are.
func compileJourneys(list []Definition, known known, opts Options) map[int]predicate.Faults {
	out := map[int]predicate.Faults{}
	for i, d := range list {
		if faults := compileJourney(d.(Journey), known[BucketKind], opts); len(faults) > 0 {
			out[i] = faults
		}
	}
	return out
}

func compileJourney(j Journey, buckets []string, opts Options) (faults predicate.Faults) {
	if j.Coded && j.Code == nil {
		return nil // it was checked where its code is
	}
	p, err := journeys.Compile(j.Journey, journeys.Options{})
	if err != nil {
		errors.As(err, &faults)
		return faults
	}
	buckets = slices.Compact(slices.Sorted(slices.Values(buckets)))
	for _, a := range p.Asks() {
		switch message := predicate.NotKnown(a.Bucket, buckets); {
		case message == "":
		case len(buckets) == 0:
			faults = append(faults, predicate.Fault{Path: a.Path, Message: fmt.Sprintf("names bucket %q, and none is defined", a.Bucket)})
		default:
			faults = append(faults, predicate.Fault{Path: a.Path, Message: fmt.Sprintf("names bucket %q: %s", a.Bucket, message)})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	for _, c := range p.Conditions() {
		faults = append(faults, withoutEvents(c.Condition, c.Path, opts)...)
	}
	return append(faults, faultsOf(p.Conditions(), buckets, opts)...)
}
