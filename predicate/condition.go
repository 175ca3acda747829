package predicate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Condition is one condition, read or built. It is immutable and safe for concurrent
// use; its zero value is none. Two that mean the same in the same words are equal in
// their canonical form ([Condition.Canonical]), however they were written.
type Condition struct{ *expr }

// expr holds the fields of every kind of condition; the table of forms says which
// belong to which. The fields are named as they are written.
type expr struct {
	kind string // the value of type

	property   Path   // property, path
	of         Path   // event: total, last
	operator   string // property, event, seen, composite
	value      any    // text, float64, bool, or a list of these
	ignoreCase bool
	zone       string

	eventName string
	check     string
	where     *expr
	within    time.Duration
	lookback  time.Duration
	first     *expr // sequence
	then      *expr
	occur     string // occurrence

	bucketID    string
	by          string
	templateKey string

	conditions []*expr // composite; not has one

	source *tree  // nil for what was built
	short  string // its path, of a comparison in the short form
}

// Path is the name of a property, or the names on the way to a nested one. Dots are part
// of a name.
type Path []string

// Kinds of a condition.
const (
	kindProperty   = "property"
	kindEvent      = "event"
	kindSeen       = "seen"
	kindSequence   = "sequence"
	kindBucket     = "bucket"
	kindIdentified = "identified"
	kindEmail      = "email_engagement"
	kindComposite  = "composite"
	kindNot        = "not"
	kindStep       = "step" // a side of a sequence; has no type
)

// IsZero says that there is no condition.
func (c Condition) IsZero() bool { return c.expr == nil }

// Canonical is the one JSON text of the condition: keys sorted, defaults and
// whitespace left out, durations in hours, minutes and seconds, aliases resolved.
func (c Condition) Canonical() string {
	if c.IsZero() {
		return "null"
	}
	return canonicalText(c.expr.object())
}

// canonicalText renders what encoding/json sorts, without its escapes for HTML.
func canonicalText(v any) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("predicate: a condition holds what is no JSON: %v", err)) // only text, numbers, booleans and lists are let in
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// Hash is the SHA-256 of the canonical form, in lower-case hex.
func (c Condition) Hash() string {
	sum := sha256.Sum256([]byte(c.Canonical()))
	return hex.EncodeToString(sum[:])
}

// Equal says whether both are the same condition.
func (c Condition) Equal(other Condition) bool { return c.Canonical() == other.Canonical() }

// MarshalJSON implements json.Marshaler with the canonical form.
func (c Condition) MarshalJSON() ([]byte, error) { return []byte(c.Canonical()), nil }

// MarshalYAML implements the interface of go-yaml with the canonical form.
func (c Condition) MarshalYAML() (any, error) {
	if c.IsZero() {
		return nil, nil
	}
	return c.expr.object(), nil
}

// UnmarshalJSON implements json.Unmarshaler. Unlike [ParseJSON] it takes a condition
// that is always or never true: what was stored can be read.
func (c *Condition) UnmarshalJSON(text []byte) error {
	r := &reader{}
	t := r.json(text)
	if len(r.faults) == 0 && t.kind == treeNull {
		*c = Condition{}
		return nil
	}
	var read *expr
	if len(r.faults) == 0 {
		read = r.condition(t, "")
	}
	if len(r.faults) > 0 {
		return r.faults
	}
	*c = Condition{read}
	return nil
}

// OnlyNegative says that no leaf asks for something to be there: a contact of whom
// nothing is known would satisfy it. A windowed absence counts as positive, for only who
// once was active can be absent, and so does every count (spec/02 4.2).
func (c Condition) OnlyNegative() bool {
	leaves, positive := 0, 0
	c.expr.leaves(false, func(leaf *expr, negated bool) {
		leaves++
		if leaf.negative() == negated {
			positive++
		}
	})
	return leaves > 0 && positive == 0
}

// leaves calls visit for each condition that holds no others.
func (e *expr) leaves(negated bool, visit func(leaf *expr, negated bool)) {
	switch {
	case e == nil:
	case e.kind == kindNot:
		e.conditions[0].leaves(!negated, visit)
	case e.kind == kindComposite:
		for _, c := range e.conditions {
			c.leaves(negated, visit)
		}
	default:
		visit(e, negated)
	}
}

func (e *expr) negative() bool {
	switch e.kind {
	case kindProperty:
		return propertyOperators.find(e.operator).negates != ""
	case kindEvent:
		return e.check == checkNotExists && e.within == 0
	case kindSequence:
		return false // not_followed still asks for the first event
	case kindEmail:
		return strings.HasPrefix(e.check, "not_")
	}
	return false
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func join(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "." + name
}
