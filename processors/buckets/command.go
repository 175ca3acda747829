package buckets

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas/packed"
)

// CommandMember is the command that puts a contact into a manual bucket, or takes it out;
// its JSON is a Member.
const CommandMember = "member"

// Member says whether a contact is a member of a manual bucket.
type Member struct {
	Bucket string `json:"bucket"`
	Member bool   `json:"member"`
	// Until is when the membership expires; nil is never.
	Until *time.Time `json:"until,omitempty"`
}

// CommandForget is the command that has nothing of a bucket be left of a contact, as if it
// had never been a member; its JSON is a Forget. It is for buckets that are purged.
const CommandForget = "forget"

// Forget names the bucket to be forgotten.
type Forget struct {
	Bucket string `json:"bucket"`
}

// obey does what a command says.
func (l *Logic) obey(s State, r *derive.Record[State], now time.Time) (derive.Result[State], error) {
	switch r.Command.What {
	case CommandMember:
		return l.setMember(s, r, now)
	case CommandForget:
		return l.forget(s, r, now)
	}
	return derive.Result[State]{}, fmt.Errorf("command %q is unknown: use one of %s, %s", r.Command.What, CommandMember, CommandForget)
}

// readCommand reads the JSON of a command.
func readCommand(c *derive.Command, into any) error {
	dec := json.NewDecoder(strings.NewReader(c.JSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("command %s: %w", c.What, err)
	}
	return nil
}

// forget has nothing be known of the contact in a bucket. One that was defined again
// meanwhile is evaluated as if it were new.
func (l *Logic) forget(s State, r *derive.Record[State], now time.Time) (derive.Result[State], error) {
	var c Forget
	if err := readCommand(r.Command, &c); err != nil {
		return derive.Result[State]{}, err
	}
	w := l.work(s, r.ContactID).because(r)
	w.begin(packed.Micros(now), sourceManual)
	at, found := w.s.search(c.Bucket)
	if found {
		w.s.members, w.changed = slices.Delete(w.s.members, at, at+1), true
	}
	if number := w.d.set.Index(c.Bucket); found && number >= 0 {
		w.touch([]int{number})
	}
	if w.fresh {
		w.touchAll()
	}
	if err := w.settle(); err != nil {
		return derive.Result[State]{}, err
	}
	return w.result(), nil
}

// setMember puts the contact into a manual bucket, or takes it out.
func (l *Logic) setMember(s State, r *derive.Record[State], now time.Time) (derive.Result[State], error) {
	var c Member
	if err := readCommand(r.Command, &c); err != nil {
		return derive.Result[State]{}, err
	}
	b := l.manual(c.Bucket)
	if b == nil {
		return derive.Result[State]{}, fmt.Errorf("command member: bucket %q is no manual bucket in use", c.Bucket)
	}
	w := l.work(s, r.ContactID).because(r)
	w.begin(packed.Micros(now), sourceManual)
	until := int64(0)
	if c.Until != nil {
		until = c.Until.UnixMicro()
	}
	m := w.s.member(b.ID)
	switch {
	case m.active && !c.Member:
		w.leave(b, m, reasonManual)
	case m.active:
		w.keep(m, until, m.maxDwell)
	case c.Member:
		w.join(b, m, until)
	}
	w.source = sourceEvent // of those who ask for the membership
	if w.fresh {
		w.touchAll()
	}
	if err := w.settle(); err != nil {
		return derive.Result[State]{}, err
	}
	return w.result(), nil
}
