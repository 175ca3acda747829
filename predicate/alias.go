package predicate

import (
	"slices"
	"strings"

	"github.com/hogstream/hogstream/schemas"
)

// isFact says that a name is a fact's and no product event's: who sends an event of this
// name fakes no fact.
func isFact(name string) bool {
	return name != schemas.TypeEventTracked && slices.Contains(schemas.Catalog(), name)
}

// aliases are other words for facts.
var aliases = map[string]string{
	"bucket:entered":     schemas.FactBucketEntered,
	"bucket:left":        schemas.FactBucketLeft,
	"bucket:dwell":       schemas.FactBucketDwell,
	"journey:completed":  schemas.FactJourneyCompleted,
	"journey:failed":     schemas.FactJourneyFailed,
	"email.link_clicked": schemas.FactEmailClicked,
}

// resolveAlias gives the fact that a word stands for, and what its properties must be:
// bucket:entered:vip is bucket.entered of the bucket vip.
func resolveAlias(word string) (fact string, where []*expr) {
	if fact, ok := aliases[word]; ok {
		return fact, nil
	}
	for _, prefix := range []string{"bucket:entered", "bucket:left", "bucket:dwell"} {
		id, ok := strings.CutPrefix(word, prefix+":")
		if !ok || id == "" {
			continue
		}
		if at := strings.LastIndexByte(id, ':'); prefix == "bucket:dwell" && at > 0 {
			return aliases[prefix], []*expr{isEqual("bucketId", id[:at]), isEqual("label", id[at+1:])}
		}
		return aliases[prefix], []*expr{isEqual("bucketId", id)}
	}
	return word, nil
}

func isEqual(property, value string) *expr {
	return &expr{kind: kindProperty, property: Path{property}, operator: "eq", value: value}
}

// normalise brings what can be written in several ways into one form. It works on a
// condition that is not shared yet.
func (e *expr) normalise() {
	for _, step := range []*expr{e, e.first, e.then} {
		if step == nil || step.eventName == "" {
			continue
		}
		fact, where := resolveAlias(step.eventName)
		step.eventName = fact
		step.where = allOf(append(where, step.where))
	}
	e.normaliseDates()
}

// allOf joins conditions, of which some may be nil.
func allOf(list []*expr) *expr {
	list = slices.DeleteFunc(list, func(e *expr) bool { return e == nil })
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return &expr{kind: kindComposite, operator: operatorAnd, conditions: list}
}

// normaliseDates writes dates as their type does; what is none stays for the checks.
func (e *expr) normaliseDates() {
	switch propertyOperators.find(e.operator).wants {
	case wantsMoment, wantsDay:
		e.value = normalDate(e.value)
	case wantsPair:
		if pair, ok := e.value.([]any); ok {
			e.value = mapped(pair, normalDate)
		}
	}
}

func mapped(list []any, change func(any) any) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = change(v)
	}
	return out
}

func normalDate(v any) any {
	if text, ok := v.(string); ok {
		if m, err := ParseMoment(text); err == nil {
			return m.String()
		}
	}
	return v
}
