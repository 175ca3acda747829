package buckets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/processors/derive"
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

func readCommand(c *derive.Command) (Member, error) {
	var m Member
	if c.What != CommandMember {
		return m, fmt.Errorf("command %q is unknown: the one there is is %q", c.What, CommandMember)
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(c.JSON)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, fmt.Errorf("command %s: %w", c.What, err)
	}
	if m.Bucket == "" {
		return m, errors.New("command member: bucket is missing: name a manual bucket")
	}
	return m, nil
}

// obey puts the contact into a manual bucket, or takes it out.
func (l *Logic) obey(s State, r *derive.Record[State], now time.Time) (derive.Result[State], error) {
	c, err := readCommand(r.Command)
	if err != nil {
		return derive.Result[State]{}, err
	}
	b := l.manual(c.Bucket)
	if b == nil {
		return derive.Result[State]{}, fmt.Errorf("command member: bucket %q is no manual bucket in use", c.Bucket)
	}
	w := l.work(s, r.ContactID)
	w.begin(micros(now), sourceManual)
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
