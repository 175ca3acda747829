package definition

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
)

// maxID is how many bytes an id has at most: it stands in keys, facts and addresses.
const maxID = 200

// withDefaults fills in what the zero values mean.
func (b Bucket) withDefaults() Bucket {
	b.Kind = cmp.Or(b.Kind, KindDynamic)
	b.EntryLimit = cmp.Or(b.EntryLimit, EntryUnlimited)
	b.Joins = cmp.Or(b.Joins, JoinsSilent)
	return b
}

// problem is what is wrong with a field of a bucket; a field within another has a path.
type problem struct{ field, message string }

// check returns everything that is wrong with a bucket, but for what its criteria say by
// themselves and beside those of others.
func (b Bucket) check() []problem {
	var out []problem
	wrong := func(field, format string, args ...any) {
		out = append(out, problem{field, fmt.Sprintf(format, args...)})
	}
	if message := wrongID(b.ID); message != "" {
		wrong("id", "%s", message)
	}
	if b.Name == "" {
		wrong("name", "is missing: write what people call it")
	}
	for _, word := range []struct {
		field, is string
		known     []string
	}{
		{"kind", b.Kind, bucketKinds()}, {"entryLimit", b.EntryLimit, entryLimits()}, {"joins", b.Joins, joins()},
	} {
		if message := predicate.NotKnown(word.is, word.known); word.is != "" && message != "" {
			wrong(word.field, "%s", message)
		}
	}
	for _, span := range b.durations() {
		if span.d < 0 || span.d%time.Microsecond != 0 {
			wrong(span.field, "is %s: write a time of whole microseconds, longer than zero", span.d)
		}
	}
	if b.MaxDwell > 0 && b.MaxDwell < b.MinDwell {
		wrong("maxDwell", "is shorter than minDwell: nobody can leave after %s who must stay for %s", b.MaxDwell, b.MinDwell)
	}
	if b.EntryPeriod != 0 && cmp.Or(b.EntryLimit, EntryUnlimited) != EntryOncePerPeriod {
		wrong("entryPeriod", "has no meaning with entryLimit %s: write entryLimit: %s, or leave it out", cmp.Or(b.EntryLimit, EntryUnlimited), EntryOncePerPeriod)
	}
	out = append(append(out, b.checkDwell()...), b.checkOn()...)
	return append(out, b.checkCriteria()...)
}

func wrongID(id string) string {
	switch {
	case id == "":
		return "is missing: write a name that stays, such as power-users"
	case len(id) > maxID:
		return fmt.Sprintf("is %d bytes long: use at most %d", len(id), maxID)
	case strings.ContainsFunc(id, unicode.IsControl) || strings.TrimSpace(id) != id:
		return "holds a control character, or a blank at an end: leave it out"
	}
	return ""
}

func bucketKinds() []string { return []string{KindDynamic, KindManual} }
func entryLimits() []string { return []string{EntryUnlimited, EntryOnce, EntryOncePerPeriod} }
func joins() []string       { return []string{JoinsSilent, JoinsTold} }

type span struct {
	field string
	d     time.Duration
}

func (b Bucket) durations() []span {
	out := []span{
		{"entryPeriod", b.EntryPeriod}, {"minDwell", b.MinDwell}, {"maxDwell", b.MaxDwell}, {"reconcileEvery", b.ReconcileEvery},
	}
	for i, d := range b.Dwell {
		out = append(out, span{fmt.Sprintf("dwell[%d].after", i), d.After}, span{fmt.Sprintf("dwell[%d].every", i), d.Every})
	}
	return out
}

// checkDwell: the label, in milliseconds, tells them apart.
func (b Bucket) checkDwell() []problem {
	var out []problem
	seen := map[string]bool{}
	for i, d := range b.Dwell {
		path := fmt.Sprintf("dwell[%d]", i)
		switch label := d.Label(); {
		case (d.After == 0) == (d.Every == 0):
			out = append(out, problem{path, "needs either after or every: write {after: 7d} or {every: 1d}"})
		case (d.After+d.Every)%time.Millisecond != 0:
			out = append(out, problem{path, "is no whole number of milliseconds"})
		case seen[label]:
			out = append(out, problem{path, "says the same as one before it: leave one out"})
		default:
			seen[label] = true
		}
	}
	return out
}

// checkOn: a dwell is told when the bucket has it.
func (b Bucket) checkOn() []problem {
	var faults predicate.Faults
	errors.As(b.On.Check(), &faults)
	var out []problem
	for _, f := range faults {
		out = append(out, problem{"on" + f.Path, f.Message})
	}
	for i := range b.On {
		r, path := &b.On[i], fmt.Sprintf("on[%d]", i)
		if r.On == journeys.OnDwell && !slices.ContainsFunc(b.Dwell, func(d Dwell) bool { return d.Label() == r.Label() }) {
			out = append(out, problem{path + ".dwell", "is no dwell of the bucket: write the same at dwell, such as dwell: [{after: 7d}]"})
		}
	}
	if len(b.On) > 0 && strings.Contains(b.ID, "@") {
		out = append(out, problem{"id", "holds an @, which the id of a journey may not, and on is some: leave it out"})
	}
	return out
}

func (b Bucket) checkCriteria() []problem {
	manual := b.Kind == KindManual
	switch {
	case manual && !b.Criteria.IsZero():
		return []problem{{"criteria", "has no meaning with kind manual, where somebody says who is a member: leave it out, or write kind: dynamic"}}
	case manual && b.ReconcileJoins != nil:
		return []problem{{"reconcileJoins", "has no meaning with kind manual: leave it out"}}
	case manual:
		return nil
	case b.Criteria.IsZero():
		return []problem{{"criteria", "is missing: write who is a member, or kind: manual for a bucket whose members somebody names"}}
	case b.Criteria.OnlyNegative():
		return []problem{{"criteria", "asks only for what is not there, so everybody of whom nothing is known would be a member: add something that must be there, such as an event that exists, or give the absence a window (within)"}}
	}
	var whole any
	_ = json.Unmarshal([]byte(b.Criteria.Canonical()), &whole) // was written just now
	if path := findType(whole, "criteria", "email_engagement"); path != "" {
		return []problem{{path, "email_engagement is not for buckets: ask for the facts, as a sequence of email.sent, then email.opened or email.clicked"}}
	}
	return nil
}

// findType is the path of the first condition of a type, or "".
func findType(v any, path, typ string) string {
	switch v := v.(type) {
	case map[string]any:
		if v["type"] == typ {
			return path
		}
		for _, name := range []string{"condition", "conditions", "where", "first", "then"} {
			if found := findType(v[name], path+"."+name, typ); found != "" {
				return found
			}
		}
	case []any:
		for i, item := range v {
			if found := findType(item, fmt.Sprintf("%s[%d]", path, i), typ); found != "" {
				return found
			}
		}
	}
	return ""
}
