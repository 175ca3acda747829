package processors_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// model is what identity and contacts promise, written down once more in the
// simplest way: people in memory, one input after the other.
type model struct {
	people []*person
	keys   map[string]string // input by idempotency key
	erased map[schemas.Identifier]*stream.Record
	alive  map[string]*person // by any contact id that was ever seen
	// sameTimes lets inputs be appended in the same millisecond.
	sameTimes bool
}

type person struct {
	contact    string // the contact id, as identity gave it
	ids        map[schemas.Identifier]bool
	properties map[string]bool
	events     map[string]bool
	seen       int64
	gone       bool
}

func newModel() *model {
	return &model{keys: map[string]string{}, erased: map[schemas.Identifier]*stream.Record{}, alive: map[string]*person{}}
}

func identifiersOf(in *schemas.Input) []schemas.Identifier {
	var ids []schemas.Identifier
	for i, v := range []*string{in.UserID, in.Email, in.AnonymousID} {
		if v != nil {
			ids = append(ids, schemas.Identifier{Kind: []string{schemas.KindExternal, schemas.KindEmail, schemas.KindAnonymous}[i], Value: *v})
		}
	}
	return ids
}

func (m *model) owner(id schemas.Identifier) *person {
	for _, p := range m.people {
		if p.ids[id] && !p.gone {
			return p
		}
	}
	return nil
}

func (p *person) of(kind string) string {
	for id := range p.ids {
		if id.Kind == kind {
			return id.Value
		}
	}
	return ""
}

func (m *model) isErased(id schemas.Identifier, r *stream.Record) bool {
	e := m.erased[id]
	switch {
	case e == nil:
		return false
	case e.Partition == r.Partition:
		return r.Offset < e.Offset
	}
	return !e.AppendTime.Before(r.AppendTime)
}

func (m *model) apply(in *schemas.Input, r *stream.Record) {
	ids := identifiersOf(in)
	if in.Type == schemas.InputDelete {
		m.delete(ids, r)
		return
	}
	duplicate := false
	if in.IdempotencyKey != nil {
		first, taken := m.keys[*in.IdempotencyKey]
		duplicate = taken && first != in.ID
		if !taken {
			m.keys[*in.IdempotencyKey] = in.ID
		}
	}
	if duplicate {
		return
	}
	if in.ContactID != nil {
		if p := m.alive[*in.ContactID]; p != nil && !p.gone {
			p.take(in)
		}
		return
	}
	var kept []schemas.Identifier
	known := false
	for i, id := range ids {
		if m.isErased(id, r) {
			if i == 0 {
				return
			}
			continue
		}
		kept = append(kept, id)
		known = known || m.owner(id) != nil
	}
	if len(kept) < len(ids) && !known {
		return
	}
	m.subject(in, kept).take(in)
}

// subject unites everybody whom the identifiers name and who can be one person.
func (m *model) subject(in *schemas.Input, ids []schemas.Identifier) *person {
	var same []*person
	var free []schemas.Identifier
	userID, hasEmail := "", false
	for _, id := range ids {
		if id.Kind == schemas.KindExternal {
			userID = id.Value
		}
		hasEmail = hasEmail || id.Kind == schemas.KindEmail
	}
	for _, id := range ids {
		p := m.owner(id)
		if p == nil {
			free = append(free, id)
			continue
		}
		if slices.Contains(same, p) {
			continue
		}
		ext, mail := p.of(schemas.KindExternal), p.of(schemas.KindEmail)
		if userID != "" && ext != "" && ext != userID || id.Kind == schemas.KindAnonymous && hasEmail && mail != "" {
			continue
		}
		if userID == "" {
			userID = ext
		}
		hasEmail = hasEmail || mail != ""
		same = append(same, p)
	}
	if len(same) == 0 {
		p := &person{
			contact: schemas.Derive(in.ID, "contact", 0), seen: in.ReceivedAt.UnixNano(),
			ids: map[schemas.Identifier]bool{}, properties: map[string]bool{}, events: map[string]bool{},
		}
		m.people = append(m.people, p)
		m.alive[p.contact] = p
		same = append(same, p)
	}
	slices.SortFunc(same, func(a, b *person) int {
		if x, y := a.of(schemas.KindExternal) != "", b.of(schemas.KindExternal) != ""; x != y {
			if x {
				return -1
			}
			return 1
		}
		if a.seen != b.seen {
			return int(a.seen - b.seen)
		}
		return strings.Compare(a.contact, b.contact)
	})
	survivor := same[0]
	for _, loser := range same[1:] {
		for id := range loser.ids {
			survivor.ids[id] = true
		}
		for name := range loser.properties {
			survivor.properties[name] = true
		}
		for id := range loser.events {
			survivor.events[id] = true
		}
		survivor.seen = min(survivor.seen, loser.seen)
		loser.gone, loser.ids = true, nil
		for id, p := range m.alive {
			if p == loser {
				m.alive[id] = survivor
			}
		}
	}
	for _, id := range free {
		survivor.ids[id] = true
	}
	return survivor
}

func (p *person) take(in *schemas.Input) {
	if in.ContactProperties != nil {
		p.properties[propertyOf(in)] = true
	}
	if in.Type == schemas.InputEvent {
		p.events[schemas.EventID(in.ID)] = true
	}
}

func propertyOf(in *schemas.Input) string { return "p" + in.ID }

func propertiesOf(in *schemas.Input) *string { return text(fmt.Sprintf(`{"p%s":true}`, in.ID)) }

func (m *model) delete(ids []schemas.Identifier, r *stream.Record) {
	var found *person
	for _, id := range ids {
		switch p := m.owner(id); {
		case p == nil || p == found:
		case found == nil:
			found = p
		default:
			return // names two people
		}
	}
	for _, id := range ids {
		m.erase(id, r)
	}
	if found == nil {
		return
	}
	for id := range found.ids {
		m.erase(id, r)
	}
	found.gone, found.ids = true, nil
}

func (m *model) erase(id schemas.Identifier, r *stream.Record) {
	if old := m.erased[id]; old == nil || !r.AppendTime.Before(old.AppendTime) {
		m.erased[id] = r
	}
}
