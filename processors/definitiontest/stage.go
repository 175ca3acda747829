package definitiontest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
)

// stage is a case under way.
type stage struct {
	logic     *buckets.Logic
	of        definition.TestCase
	rehearsal *derive.Rehearsal[buckets.State]
	records   int // so far, for ids

	contacts map[string]*contact        // by each name that finds them
	own      map[string]string          // the id of the contact that a name was given to, by name
	names    map[string]string          // that name, by id
	told     map[string][]*schemas.Fact // by name, since facts were expected last
	failures []Failure
}

func newStage(logic *buckets.Logic, c definition.TestCase) *stage {
	s := &stage{
		logic: logic, of: c,
		contacts: map[string]*contact{}, own: map[string]string{}, names: map[string]string{}, told: map[string][]*schemas.Fact{},
	}
	s.rehearsal = derive.NewRehearsal(logic, func(m schemas.Message, _ time.Time) {
		if f, ok := m.(*schemas.Fact); ok && f.Bucket != nil && s.counts(f.Bucket.BucketID) {
			s.told[s.names[f.ContactID]] = append(s.told[s.names[f.ContactID]], f)
		}
	})
	return s
}

// counts says whether facts of a bucket count.
func (s *stage) counts(bucketID string) bool {
	return s.of.Buckets == nil || slices.Contains(s.of.Buckets, bucketID)
}

// do does what a step says, and what was due before it.
func (s *stage) do(step *definition.TestStep) error {
	switch {
	case step.Event != nil:
		return s.event(step)
	case step.Change != nil:
		_, err := s.change(step, step.At)
		return err
	case step.Merge != "":
		return s.merge(step)
	case step.Add != "":
		return s.command(step, buckets.Member{Bucket: step.Add, Member: true, Until: timeOrNil(step.Until)})
	case step.Remove != "":
		return s.command(step, buckets.Member{Bucket: step.Remove})
	}
	if err := s.rehearsal.Until(step.At); err != nil {
		return err
	}
	switch {
	case step.Delete:
		s.erase(step.Contact)
	case step.Expect != nil:
		s.expect(step)
	}
	return nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// event steps what came with the event, and the event.
func (s *stage) event(step *definition.TestStep) error {
	occurred := step.At.Add(-step.Event.Late)
	c, err := s.change(step, occurred)
	if err != nil {
		return err
	}
	e := c.event(step.Event, occurred, step.At)
	e.ID = s.id("event")
	return s.step(&derive.Record[buckets.State]{ID: e.ID, ContactID: c.id, OccurredAt: occurred, Event: e}, step.At)
}

// change brings up to date what is known of a contact, who is created when nothing is, and
// says so.
func (s *stage) change(step *definition.TestStep, occurred time.Time) (*contact, error) {
	c, created := s.contact(step.Contact, step.At)
	c.seen(step.At)
	changed, err := c.take(step.Change)
	if err != nil || !created && len(changed) == 0 {
		return c, err
	}
	typ := schemas.FactContactUpdated
	if created {
		typ = schemas.FactContactCreated
	}
	return c, s.tell(c, c.changed(typ, changed, step.At), occurred, step.At)
}

// contact is the one that a name finds, made when it finds none.
func (s *stage) contact(name string, now time.Time) (_ *contact, created bool) {
	if c := s.contacts[name]; c != nil {
		return c, false
	}
	c := newContact(s.id("contact"), now)
	s.contacts[name], s.own[name], s.names[c.id] = c, c.id, name
	return c, true
}

// merge folds one contact into another, to whom both names lead from then on.
func (s *stage) merge(step *definition.TestStep) error {
	survivor, err := s.change(step, step.At)
	if err != nil {
		return err
	}
	loser := s.contacts[step.Merge]
	switch loser {
	case nil:
		return fmt.Errorf("%s was erased", step.Merge)
	case survivor:
		return fmt.Errorf("%s is merged into %s already", step.Merge, step.Contact)
	}
	if err := survivor.fold(loser); err != nil {
		return err
	}
	for name, c := range s.contacts {
		if c == loser {
			s.contacts[name] = survivor
		}
	}
	return s.tell(survivor, survivor.merged(loser), step.At, step.At)
}

// command steps a command, of a contact that is made when it is not known.
func (s *stage) command(step *definition.TestStep, m buckets.Member) error {
	c, err := s.change(step, step.At)
	if err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	command := &derive.Command{What: buckets.CommandMember, JSON: string(text)}
	return s.step(&derive.Record[buckets.State]{ID: s.id("command"), ContactID: c.id, OccurredAt: step.At, Command: command}, step.At)
}

// erase forgets a contact; who comes by its names afterwards is another.
func (s *stage) erase(name string) {
	erased := s.contacts[name]
	if erased == nil {
		return
	}
	for name, c := range s.contacts {
		if c == erased {
			delete(s.contacts, name)
		}
	}
	s.rehearsal.Forget(erased.id)
}

// tell steps a fact of processor contacts.
func (s *stage) tell(c *contact, f *schemas.Fact, occurred, now time.Time) error {
	f.ID, f.OccurredAt = s.id(f.Type), occurred
	return s.step(&derive.Record[buckets.State]{ID: f.ID, ContactID: c.id, OccurredAt: occurred, Fact: f}, now)
}

func (s *stage) step(r *derive.Record[buckets.State], now time.Time) error {
	return s.rehearsal.Step(r, now)
}

// id is the next one of what the case makes.
func (s *stage) id(what string) string {
	s.records++
	return schemas.Derive(uuid.Nil.String(), what, s.records)
}

// expect compares with what is expected of a contact.
func (s *stage) expect(step *definition.TestStep) {
	state := s.rehearsal.State(s.own[step.Contact])
	for _, id := range step.Expect.Members {
		if !state.Has(id) {
			s.failBucket(step, id, "expected a member of "+id+"; is a member of "+members(state))
		}
	}
	for _, id := range step.Expect.Not {
		if state.Has(id) {
			s.failBucket(step, id, "expected no member of "+id+"; is one since "+entered(state, id))
		}
	}
	if step.Expect.Facts == nil {
		return
	}
	told := s.told[step.Contact]
	delete(s.told, step.Contact)
	if !slices.EqualFunc(step.Expect.Facts, told, matches) {
		s.fail(step, "", "expected facts\n"+expectedLines(step.Expect.Facts)+"\nwere told\n"+toldLines(told))
	}
}

// members are the buckets that a contact is a member of, in words.
func members(state buckets.State) string {
	var ids []string
	for _, m := range state.Memberships() {
		if m.Active {
			ids = append(ids, m.BucketID)
		}
	}
	if len(ids) == 0 {
		return "none"
	}
	return strings.Join(ids, ", ")
}

func entered(state buckets.State, bucketID string) string {
	for _, m := range state.Memberships() {
		if m.BucketID == bucketID {
			return m.EnteredAt.Format(time.RFC3339Nano)
		}
	}
	return ""
}

// failBucket notes that a membership is not as expected, and why it is as it is.
func (s *stage) failBucket(step *definition.TestStep, bucketID, message string) {
	why := s.logic.Explain(s.rehearsal.State(s.own[step.Contact]), bucketID, step.At)
	s.fail(step, bucketID, message+because(why.Reasons[0]))
	s.failures[len(s.failures)-1].Why = why.Criteria
}

// because is a reason that the tree of the criteria does not have, in words.
func because(r buckets.Reason) string {
	switch r.Code {
	case buckets.BecauseDisabled:
		return "; the bucket is disabled"
	case buckets.BecauseMinDwell, buckets.BecauseMaxDwell, buckets.BecauseReconcileJoins: // which are names of keys
		if !r.Until.IsZero() {
			return "; because of " + r.Code + ", until " + r.Until.Format(time.RFC3339Nano)
		}
		return "; because of " + r.Code
	}
	return ""
}

func (s *stage) fail(step *definition.TestStep, bucketID, message string) {
	s.failures = append(s.failures, Failure{
		File: step.File, Line: step.Line, Column: step.Column,
		At: step.At, Since: step.At.Sub(s.of.Begins), Contact: step.Contact, Bucket: bucketID, Message: message,
	})
}

// matches says whether a fact is the expected one. A time of whole seconds is meant to the
// second: what leaves a window does so a microsecond after its end.
func matches(want definition.ExpectedFact, f *schemas.Fact) bool {
	return want.Type == f.Type && want.Bucket == f.Bucket.BucketID &&
		(want.At.IsZero() || want.At.Equal(f.OccurredAt) || want.At.Equal(f.OccurredAt.Truncate(time.Second))) &&
		(want.Source == "" || want.Source == f.Bucket.Source) &&
		(want.Reason == "" || f.Bucket.Reason != nil && want.Reason == *f.Bucket.Reason)
}

func expectedLines(facts []definition.ExpectedFact) string {
	lines := make([]string, len(facts))
	for i, f := range facts {
		lines[i] = factLine(f)
	}
	return indented(lines)
}

func toldLines(facts []*schemas.Fact) string {
	lines := make([]string, len(facts))
	for i, f := range facts {
		told := definition.ExpectedFact{Type: f.Type, Bucket: f.Bucket.BucketID, At: f.OccurredAt, Source: f.Bucket.Source}
		if f.Bucket.Reason != nil {
			told.Reason = *f.Bucket.Reason
		}
		lines[i] = factLine(told)
	}
	return indented(lines)
}

func factLine(f definition.ExpectedFact) string {
	line := f.Type + " " + f.Bucket
	if !f.At.IsZero() {
		line += ", at: " + f.At.Format(time.RFC3339Nano)
	}
	if f.Reason != "" {
		line += ", reason: " + f.Reason
	}
	if f.Source != "" {
		line += ", source: " + f.Source
	}
	return line
}

func indented(lines []string) string {
	if len(lines) == 0 {
		return "  (none)"
	}
	return "  " + strings.Join(lines, "\n  ")
}
