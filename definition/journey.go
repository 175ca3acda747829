package definition

import (
	"errors"
	"fmt"
	"slices"
	"time"

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
	// Bucket is with which it stands, and Reaction what it is there; "" and nil of one with a
	// definition of its own.
	Bucket   string
	Reaction *journeys.Reaction
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
		func(j Journey, use InUse) JourneyInUse { return JourneyInUse{Journey: j, InUse: use} }),
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

// compileJourneys checks journeys against the buckets that there are, and the deployment.
func compileJourneys(list []Definition, known known, opts Options) map[int]predicate.Faults {
	out := map[int]predicate.Faults{}
	for i, d := range list {
		if faults := compileJourney(d.(Journey), known, opts); len(faults) > 0 {
			out[i] = faults
		}
	}
	return out
}

func compileJourney(j Journey, known known, opts Options) (faults predicate.Faults) {
	if j.Coded && j.Code == nil {
		return nil // it was checked where its code is
	}
	p, err := journeys.Compile(j.Journey, journeys.Options{})
	if err != nil {
		errors.As(err, &faults)
		return faults
	}
	buckets := slices.Compact(slices.Sorted(slices.Values(known.ids[BucketKind])))
	for _, a := range p.Asks() {
		if message := known.wrongBucket(a, buckets); message != "" {
			faults = append(faults, predicate.Fault{Path: a.Path, Message: message})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	faults = tooLong(p.CallTimes(), opts.Outbox)
	for _, c := range p.Conditions() {
		faults = append(faults, withoutEvents(c.Condition, c.Path, opts)...)
	}
	return append(faults, faultsOf(p.Conditions(), buckets, opts)...)
}

// wrongBucket says what is wrong with naming a bucket; "" is nothing.
func (k known) wrongBucket(a journeys.Asked, buckets []string) string {
	message := predicate.NotKnown(a.Bucket, buckets)
	switch {
	case message != "" && len(buckets) == 0:
		return fmt.Sprintf("names bucket %q, and none is defined", a.Bucket)
	case message != "":
		return fmt.Sprintf("names bucket %q: %s", a.Bucket, message)
	case a.Put && k.dynamic[a.Bucket]:
		return fmt.Sprintf("names bucket %q, whose criteria decide who is a member: use one of kind manual", a.Bucket)
	}
	return ""
}

// tooLong refuses calls that are waited for when the log has them no more: nobody would say
// then what came of them.
func tooLong(calls []journeys.CallTime, kept time.Duration) (faults predicate.Faults) {
	for _, c := range calls {
		if kept > 0 && c.Timeout > kept {
			faults = append(faults, predicate.Fault{Path: c.Path, Message: fmt.Sprintf(
				"is %s, and topic outbox keeps calls for %s (RETENTION_EVENTS): write at most that, or keep them for longer", c.Timeout, kept)})
		}
	}
	return faults
}
