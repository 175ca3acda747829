package journeys

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
)

// What a bucket tells that a [Reaction] is on.
const (
	OnEnter = "enter"
	OnLeave = "leave"
	OnDwell = "dwell"
)

// Reaction is steps that stand with a bucket: what happens to who enters it, leaves it, or
// still is a member after some time. It is a journey without a file of its own.
type Reaction struct {
	On             string        // OnEnter, OnLeave or OnDwell
	FirstEntryOnly bool          // of OnEnter: only when the contact was never a member before
	Reasons        []string      // of OnLeave: only for these reasons; none is all
	After, Every   time.Duration // of OnDwell: one of the two, which is one of the bucket's
	Steps          []Step
}

// Label tells a dwell from others: after-604800000, in milliseconds.
func (r *Reaction) Label() string {
	if r.Every != 0 {
		return fmt.Sprintf("every-%d", r.Every.Milliseconds())
	}
	return fmt.Sprintf("after-%d", r.After.Milliseconds())
}

// Field is the key in a file behind which the steps stand.
func (r *Reaction) Field() string {
	if r.On == OnDwell {
		return "do"
	}
	return r.On
}

// JourneyID is the id of the journey that it is.
func (r *Reaction) JourneyID(bucketID string) string {
	id := "bucket-" + bucketID + "-on-" + r.On
	if r.On == OnDwell {
		id += "-" + r.Label()
	}
	return id
}

// IsReaction says that an id is one of a reaction's, so that no other journey may have it.
func IsReaction(id string) bool {
	rest, is := strings.CutPrefix(id, "bucket-")
	at := strings.LastIndex(rest, "-on-")
	if !is || at < 0 {
		return false
	}
	on, _, _ := strings.Cut(rest[at+len("-on-"):], "-")
	return on == OnEnter || on == OnLeave || on == OnDwell
}

// Journey is the journey that a reaction of a bucket is: begun each time, by everybody who is
// subscribed, unless a run lives. enabled is that of the bucket.
func (r *Reaction) Journey(bucketID, bucketName string, enabled bool) Journey {
	j := Journey{
		ID: r.JourneyID(bucketID), Name: bucketName + " — on " + r.On, Enabled: enabled, EntryLimit: EntryUnlimited, Steps: r.Steps,
	}
	m := Match{Event: schemas.FactBucketEntered + ":" + bucketID}
	switch {
	case r.On == OnEnter && r.FirstEntryOnly:
		m.Where = whereOf(map[string]any{"entryCount": 1})
	case r.On == OnLeave:
		m.Event = schemas.FactBucketLeft + ":" + bucketID
		if len(r.Reasons) > 0 {
			m.Where = whereOf(map[string]any{"reason": r.Reasons})
		}
	case r.On == OnDwell:
		m.Event = schemas.FactBucketDwell + ":" + bucketID + ":" + r.Label()
	}
	j.Trigger.Records = []Match{m}
	return j
}

func whereOf(where map[string]any) predicate.Selector {
	s, err := predicate.ParseSelectorJSON("", []byte(canonicalText(map[string]any{"where": where})))
	if err != nil {
		panic(err) // it is written above
	}
	return s
}

// Reactions are those of one bucket.
type Reactions []Reaction

// ReadReactions reads what a bucket's file says at on, as [Read] does a journey.
func ReadReactions(file, path string, at ast.Node) (Reactions, map[string]ast.Node, error) {
	r := &reader{Reader: node.Reader{File: file}, places: map[string]ast.Node{}}
	list := Reactions(readList(r, at, path, true, r.reaction))
	if len(r.Faults) == 0 {
		r.check(at, path, list.problems())
	}
	if len(r.Faults) > 0 {
		return nil, r.places, r.Faults.Sorted()
	}
	return list, r.places, nil
}

// Check says all that is wrong with reactions that were built in Go. The error is
// [predicate.Faults], whose paths begin with the number of the reaction, as in [0].enter.
func (list Reactions) Check() error {
	var faults predicate.Faults
	for _, p := range list.problems() {
		faults = append(faults, predicate.Fault{Path: p.path, Message: p.message})
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

func (list Reactions) problems() []problem {
	var out []problem
	ids := map[string]int{}
	for i := range list {
		r, at := &list[i], index("", i)
		c := newChecker(&Journey{})
		c.reaction(at, r)
		if before, stands := ids[r.JourneyID("")]; stands {
			c.wrong(at, "is a collision with the %d. of them, which is on the same: write the steps together", before+1)
		}
		ids[r.JourneyID("")] = i
		out = append(out, c.out...)
	}
	return out
}

func (c *checker) reaction(path string, r *Reaction) {
	c.word(path, r.On, []string{OnEnter, OnLeave, OnDwell})
	if r.On == OnDwell && (r.After == 0) == (r.Every == 0) {
		c.wrong(join(path, OnDwell), "write one of after, every")
	}
	if r.FirstEntryOnly && r.On != OnEnter {
		c.wrong(join(path, "firstEntryOnly"), "is for enter: leave it out")
	}
	if len(r.Reasons) > 0 && r.On != OnLeave {
		c.wrong(join(path, "reason"), "is for leave: leave it out")
	}
	for _, reason := range r.Reasons {
		c.word(join(path, "reason"), reason, leaveReasons())
	}
	where := r.Field()
	if len(r.Steps) == 0 {
		c.wrong(join(path, where), "is missing: write what happens")
	}
	c.steps(join(path, where), "", r.Steps, 1)
	c.referred()
}

func leaveReasons() []string { return []string{"criteria", "maxDwell", "manual", "merged"} }

func reactionFields() []field[Reaction] {
	steps := func(on, doc string) field[Reaction] {
		return field[Reaction]{on, doc, false, ref("steps"),
			func(r *reader, at ast.Node, path string, v *Reaction) { v.Steps, v.On = r.steps(at, path), on },
			func(v *Reaction) any {
				if v.On != on {
					return nil
				}
				return writeSteps(v.Steps)
			}}
	}
	return []field[Reaction]{
		steps(OnEnter, "The steps for who enters the bucket."),
		{"firstEntryOnly", "With enter: only when the contact was never a member before.", false, boolSchema(),
			func(r *reader, at ast.Node, path string, v *Reaction) { v.FirstEntryOnly = r.Boolean(at, path) },
			func(v *Reaction) any { return unlessZero(v.FirstEntryOnly, true) }},
		steps(OnLeave, "The steps for who leaves it."),
		{"reason", "With leave: only for these reasons.", false, anyOf(map[string]any{"enum": leaveReasons()}, listSchema(map[string]any{"enum": leaveReasons()})),
			func(r *reader, at ast.Node, path string, v *Reaction) {
				v.Reasons = readList(r, at, path, true, func(at ast.Node, path string) string { return r.Word(at, path, leaveReasons()) })
			},
			func(v *Reaction) any { return unlessZero(len(v.Reasons) > 0, any(v.Reasons)) }},
		{OnDwell, "Who still is a member after a time, or each time, which is one of the bucket's dwell.", false, ref("dwellTime"),
			func(r *reader, at ast.Node, path string, v *Reaction) {
				v.On = OnDwell
				readMap(r, at, path, "{after: 7d} or {every: 1d}", dwellFields(), v)
			},
			func(v *Reaction) any { return unlessZero(v.On == OnDwell, any(writeMap(v, dwellFields()))) }},
		{"do", "With dwell: the steps.", false, ref("steps"),
			func(r *reader, at ast.Node, path string, v *Reaction) { v.Steps = r.steps(at, path) },
			func(v *Reaction) any {
				if v.On != OnDwell {
					return nil
				}
				return writeSteps(v.Steps)
			}},
	}
}

func dwellFields() []field[Reaction] {
	return []field[Reaction]{
		durationField("after", "Once.", func(r *Reaction) *time.Duration { return &r.After }),
		durationField("every", "Each time.", func(r *Reaction) *time.Duration { return &r.Every }),
	}
}

func (r *reader) reaction(at ast.Node, path string) Reaction {
	var v Reaction
	readMap(r, at, path, "{enter: […]}, {leave: […]} or {dwell: {after: 7d}, do: […]}", reactionFields(), &v)
	var on []string
	for _, key := range mapKeys(at) {
		if slices.Contains([]string{OnEnter, OnLeave, OnDwell}, key) {
			on = append(on, key)
		}
	}
	if len(on) != 1 {
		r.Fault(at, path, "is on %s: write one of enter, leave, dwell", cmp.Or(strings.Join(on, " and "), "nothing"))
	}
	if hasKey(at, "do") && v.On != OnDwell {
		r.Fault(at, join(path, "do"), "is for dwell: write the steps at %s", cmp.Or(v.On, OnEnter))
	}
	return v
}

// MarshalJSON writes the canonical form.
func (list Reactions) MarshalJSON() ([]byte, error) {
	return []byte(canonicalText(writeList(list, func(r *Reaction) any { return writeMap(r, reactionFields()) }))), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (list *Reactions) UnmarshalJSON(text []byte) error {
	document, err := oneDocument("", text)
	if err != nil {
		return err
	}
	r := &reader{places: map[string]ast.Node{}}
	read := readList(r, document, "", true, r.reaction)
	if len(r.Faults) > 0 {
		return r.Faults.Sorted()
	}
	*list = read
	return nil
}

// ReactionsSchema is the JSON Schema of what stands at on, whose parts are in [Schema], and
// those parts.
func ReactionsSchema() (schema map[string]any, parts map[string]any) {
	parts = definitionsOf(Schema)
	parts["dwellTime"] = oneKey(mapSchema(dwellFields()), "after", "every")
	parts["reaction"] = oneKey(mapSchema(reactionFields()), OnEnter, OnLeave, OnDwell)
	return anyOf(ref("reaction"), listSchema(ref("reaction"))), parts
}
