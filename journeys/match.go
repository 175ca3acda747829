package journeys

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
)

const (
	factEntered = schemas.FactBucketEntered
	factLeft    = schemas.FactBucketLeft
)

// isFact says that a name is a fact's, and no product event's.
func isFact(name string) bool {
	return name != schemas.TypeEventTracked && slices.Contains(schemas.Catalog(), name)
}

// aboutFacts are the facts on a bucket or journey, behind whose name its id may stand.
func aboutFacts() []string {
	return []string{
		schemas.FactBucketEntered, schemas.FactBucketLeft, schemas.FactBucketDwell,
		schemas.FactJourneyStarted, schemas.FactJourneyCompleted, schemas.FactJourneyExited, schemas.FactJourneyFailed,
	}
}

// eventOf is the name of a record, whom it is about, and of a dwell which it is. Names with a
// colon for the dot, as bucket:entered:vip, are those of other systems.
func eventOf(event string) (name, about, label string) {
	for _, fact := range aboutFacts() {
		for _, word := range []string{fact, strings.Replace(fact, ".", ":", 1)} {
			if event == word {
				return fact, "", ""
			}
			id, ok := strings.CutPrefix(event, word+":")
			if !ok || id == "" {
				continue
			}
			if at := strings.LastIndexByte(id, ':'); fact == schemas.FactBucketDwell && at > 0 && isLabel(id[at+1:]) {
				return fact, id[:at], id[at+1:]
			}
			return fact, id, ""
		}
	}
	return event, "", ""
}

// OfBucket says whether the trigger begins runs by what happens in a bucket: event is the
// first record, as it is written, that tells of this one or of any; "" when a time that comes
// again begins them for its members.
func (t *Trigger) OfBucket(id string) (event string, is bool) {
	for i := range t.Records {
		name, about, _ := eventOf(t.Records[i].Event)
		if strings.HasPrefix(name, "bucket.") && isFact(name) && (about == "" || about == id) {
			return t.Records[i].Event, true
		}
	}
	return "", t.Bucket == id && id != ""
}

func isLabel(text string) bool {
	return strings.HasPrefix(text, "after-") || strings.HasPrefix(text, "every-")
}

// wrongEvent says what is wrong with a name that nothing will ever have; "" is nothing.
func wrongEvent(event string) string {
	name, _, _ := eventOf(event)
	switch {
	case name == schemas.TypeEventTracked || strings.HasPrefix(name, schemas.TypeEventTracked+":"):
		return fmt.Sprintf("%q means every product event: write the name of one", event)
	case name == schemas.FactJourneyStep || name == schemas.FactJourneySkipped:
		return fmt.Sprintf("%q tells what the machine does with journeys, and begins and ends nothing", event)
	}
	room, rest, found := strings.Cut(name, ".")
	if at := strings.IndexByte(name, ':'); at >= 0 && at < len(room) {
		room, rest, found = name[:at], name[at+1:], true
	}
	if !found || room != "bucket" && room != "journey" || isFact(name) {
		return ""
	}
	what, _, _ := strings.Cut(rest, ":")
	return predicate.NotKnown(room+"."+what, aboutFacts())
}

// matcher is a Match, made ready.
type matcher struct {
	event string // as it is written
	name  string
	about string
	label string
	where *predicate.Filter // nil: all
	same  []Same
}

func newMatcher(m *Match, zone *time.Location) (matcher, error) {
	out := matcher{event: m.Event, same: m.Same}
	out.name, out.about, out.label = eventOf(m.Event)
	where, err := newFilter(m.Where, zone)
	out.where = where
	return out, err
}

func newFilter(s predicate.Selector, zone *time.Location) (*predicate.Filter, error) {
	if s.IsZero() {
		return nil, nil
	}
	return predicate.CompileFilter(s, predicate.FilterOptions{Zone: zone})
}

// record is what happened, as the machine looks at it.
type record struct {
	predicate.Record
	id    string // of the record
	about string // the bucket or journey of a fact
	label string // of a dwell
	depth int    // how many facts of this step led to it
	hops  int    // how many causes led to it
	asks  bool   // its sender waits to be told which runs it ended
}

func eventRecord(e *schemas.Event) (record, error) {
	r, err := predicate.FromEvent(e)
	return record{Record: r, id: e.ID, asks: e.Wait}, err
}

func factRecord(f *schemas.Fact) (record, error) {
	r, err := predicate.FromFact(f)
	out := record{Record: r, id: f.ID}
	if b := f.Bucket; b != nil {
		out.about = b.BucketID
		if b.Label != nil {
			out.label = *b.Label
		}
	}
	if f.Journey != nil {
		out.about = f.Journey.JourneyID
	}
	return out, err
}

// names says whether a record is of the event that is meant.
func (m *matcher) names(r *record) bool {
	return m.name == r.Name && (m.about == "" || m.about == r.about) && (m.label == "" || m.label == r.label)
}

// takes says whether such a record is what is meant: its properties are, and are the same as
// the values of the run.
func (m *matcher) takes(r *record, lookUp func(v *Value) string) bool {
	if m.where != nil && !m.where.Match(&r.Record, nil) {
		return false
	}
	return len(m.same) == 0 || sameAs(m.same, r.Document(), lookUp)
}

func sameAs(list []Same, doc string, lookUp func(v *Value) string) bool {
	for i := range list {
		is := scalar(find(doc, predicate.Path{list[i].Property}))
		if is == "" || is != scalar(list[i].Value.render(lookUp)) {
			return false
		}
	}
	return true
}
