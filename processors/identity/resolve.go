package identity

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hogstream/hogstream/schemas"
)

// decision is what becomes of an input.
type decision struct {
	outcome string // for the figures
	out     []schemas.Resolved
	answer  *schemas.Answer // nil when processor contacts gives it
	poison  error
}

// normalise trims the subject's identifiers, lowers the email, removes blank ones
// and those that are sent by mistake, and returns them strongest first. What of the
// removed is to be told is a conflict each.
func normalise(in *schemas.Input) (subject []schemas.Identifier, mistaken []schemas.Conflict) {
	subject = make([]schemas.Identifier, 0, 3)
	clean := func(kind string, field **string) {
		if *field == nil {
			return
		}
		text := strings.TrimSpace(**field)
		if kind == schemas.KindEmail {
			text = strings.ToLower(text)
		} else if reason := schemas.MistakenID(text); text != "" && reason != "" {
			mistaken = append(mistaken, schemas.Conflict{Kind: kind, Value: excerpt(text), Reason: reason})
			text = ""
		}
		if *field = pointer(text); text != "" {
			subject = append(subject, schemas.Identifier{Kind: kind, Value: text})
		}
	}
	clean(schemas.KindExternal, &in.UserID)
	clean(schemas.KindEmail, &in.Email)
	clean(schemas.KindAnonymous, &in.AnonymousID)
	return subject, mistaken
}

// excerpt is what a conflict shows of an id that may be of any length.
func excerpt(id string) string {
	const shown = 64 // characters
	if utf8.RuneCountInString(id) <= shown {
		return id
	}
	return string([]rune(id)[:shown]) + "…"
}

// resolve decides who an input is about, and what that changes.
func (v *view) resolve(in *input) decision {
	if in.ContactID != nil {
		return v.resolveInside(in)
	}
	if in.Type == schemas.InputDelete {
		return v.resolveDelete(in)
	}
	if v.duplicates[in.ID] != "" || in.again {
		return v.resolveDuplicate(in)
	}
	if !v.dropErased(in) {
		return discarded()
	}
	return v.resolveSubject(in)
}

func discarded() decision {
	return decision{outcome: "erased", answer: &schemas.Answer{Error: schemas.AnswerErased}}
}

// resolveInside is for an input that already bears a contact id; it follows merges.
func (v *view) resolveInside(in *input) decision {
	known := v.contacts[*in.ContactID]
	if known == nil {
		return decision{outcome: "refused", poison: errors.New("there is no contact of this id"), answer: &schemas.Answer{Error: schemas.AnswerNotFound}}
	}
	c := v.live(known)
	switch {
	case c == nil:
		return discarded()
	case in.Type == schemas.InputDelete:
		return v.delete(in, c)
	}
	if v.duplicates[in.ID] != "" || in.again {
		return v.passOn(in, c, passed{duplicate: true})
	}
	return v.passOn(in, c, passed{conflicts: in.mistaken})
}

// resolveDuplicate looks the contact up and changes nothing: the first input
// with the key has done so.
func (v *view) resolveDuplicate(in *input) decision {
	for _, id := range in.subject {
		if c := v.find(id); c != nil {
			d := v.passOn(in, c, passed{duplicate: true})
			if d.answer != nil {
				d.answer.First = v.duplicates[in.ID]
			}
			return d
		}
	}
	d := decision{outcome: "duplicate", answer: &schemas.Answer{First: v.duplicates[in.ID]}}
	if in.Type != schemas.InputEvent {
		d.answer.Error = schemas.AnswerNotFound
	}
	return d
}

// dropErased takes identifiers from the input that were erased after it was
// appended. It reports false when the input is about the erased person: by its
// strongest identifier, or because nobody else is known by the others.
func (v *view) dropErased(in *input) bool {
	if len(v.erased) == 0 {
		return true
	}
	kept := make([]schemas.Identifier, 0, len(in.subject))
	known := false
	for i, id := range in.subject {
		if v.erasedAfter(id, in.place) {
			if i == 0 {
				return false
			}
			continue
		}
		kept = append(kept, id)
		known = known || v.find(id) != nil
	}
	if len(kept) == len(in.subject) {
		return true
	}
	in.subject = kept
	in.UserID, in.Email, in.AnonymousID = nil, nil, nil
	for _, id := range kept {
		switch id.Kind {
		case schemas.KindExternal:
			in.UserID = pointer(id.Value)
		case schemas.KindEmail:
			in.Email = pointer(id.Value)
		case schemas.KindAnonymous:
			in.AnonymousID = pointer(id.Value)
		}
	}
	return known
}

// person is who an input is about, as it comes together from the identifiers.
type person struct {
	userID    string // sent, or of the contacts found so far
	email     string
	contacts  []*contact
	free      []schemas.Identifier // identifiers that nobody owns
	conflicts []schemas.Conflict
}

// resolveSubject takes the identifiers strongest first. Each one either belongs
// to nobody, or to a contact that can be the same person, or is a conflict.
func (v *view) resolveSubject(in *input) decision {
	p := person{userID: value(in.UserID), email: value(in.Email), conflicts: slices.Clip(in.mistaken)}
	for _, id := range in.subject {
		c := v.find(id)
		switch {
		case c == nil:
			p.free = append(p.free, id)
		case slices.Contains(p.contacts, c):
		default:
			if reason := p.contradicts(c, id); reason != "" {
				p.conflicts = append(p.conflicts, schemas.Conflict{
					Kind: id.Kind, Value: id.Value, Reason: reason, OtherContactID: pointer(c.ContactID),
				})
				continue
			}
			p.contacts = append(p.contacts, c)
			p.userID, p.email = first(p.userID, c.ExternalID), first(p.email, c.Email)
		}
	}
	return v.unite(in, &p)
}

// contradicts says why a contact found by an identifier cannot be the person.
// An email proves who somebody is, so contacts that share one unite unless both
// have a user id. An anonymous id names a device, which people share: it stays
// with who had it first when both have a user id or an email of their own.
func (p *person) contradicts(c *contact, by schemas.Identifier) string {
	switch {
	case p.userID != "" && c.ExternalID != "" && p.userID != c.ExternalID:
		return "belongs to a contact with another userId"
	case by.Kind == schemas.KindAnonymous && p.email != "" && c.Email != "" && p.email != c.Email:
		return "belongs to a contact with another email"
	}
	return ""
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// unite creates, links or merges, and passes the input on.
func (v *view) unite(in *input, p *person) decision {
	how := passed{conflicts: p.conflicts}
	var c *contact
	switch len(p.contacts) {
	case 0:
		c = v.create(schemas.Derive(in.ID, "contact", 0), in.ReceivedAt)
		how.created = true
	default:
		c = slices.MinFunc(p.contacts, survivorFirst)
		for _, other := range p.contacts {
			if other != c {
				v.merge(other, c)
				how.merging = append(how.merging, other.ContactID)
			}
		}
	}
	for _, id := range p.free {
		v.attach(c, id)
		how.linked = append(how.linked, id)
	}
	if email := value(in.Email); movesEmail(in.Input) && email != c.Email && v.find(schemas.Identifier{Kind: schemas.KindEmail, Value: email}) == c {
		v.touch(c)
		c.Email, c.changed = email, true
	}
	return v.passOn(in, c, how)
}

// movesEmail says whether an input asks for its email to become the primary one:
// a property patch that names the contact by its user id. In an event, an email
// says where it came from, and is only attached.
func movesEmail(in *schemas.Input) bool {
	return in.Type == schemas.InputContact && in.UserID != nil && in.Email != nil
}

// survivorFirst orders contacts that merge: with a user id, then the earliest
// seen, then the lowest id.
func survivorFirst(a, b *contact) int {
	if (a.ExternalID != "") != (b.ExternalID != "") {
		if a.ExternalID != "" {
			return -1
		}
		return 1
	}
	if byTime := a.FirstSeenAt.Compare(b.FirstSeenAt); byTime != 0 {
		return byTime
	}
	return strings.Compare(a.ContactID, b.ContactID)
}

// passed is how an input is passed on.
type passed struct {
	created   bool
	duplicate bool
	linked    []schemas.Identifier
	conflicts []schemas.Conflict
	merging   []string
}

// passOn makes the records: the input to its contact, then the merges to their
// losers. The input stands before whatever a loser hands over, for that is
// appended after the merge was read.
func (v *view) passOn(in *input, c *contact, how passed) decision {
	d := decision{outcome: how.outcome()}
	d.out = append(make([]schemas.Resolved, 0, 1+len(how.merging)), schemas.Resolved{
		ID: schemas.Derive(in.ID, "resolved", 0), Type: schemas.ResolvedInput, ContactID: c.ContactID, OccurredAt: in.OccurredAt,
		Input: in.Input, Created: how.created, Duplicate: how.duplicate,
		UserID: pointer(c.ExternalID), Email: pointer(c.Email), AnonymousID: pointer(c.AnonymousID),
		Linked: how.linked, Conflicts: how.conflicts, Merging: how.merging,
	})
	for i, loser := range how.merging {
		d.out = append(d.out, schemas.Resolved{
			ID: schemas.Derive(in.ID, "merge", i), Type: schemas.ResolvedMerge, ContactID: loser, OccurredAt: in.OccurredAt,
			Merge: &schemas.Merge{Survivor: c.ContactID, InputID: in.ID},
		})
	}
	if in.Type == schemas.InputEvent {
		d.answer = &schemas.Answer{ContactID: c.ContactID, Stored: !how.duplicate, Merged: how.merging, Conflicts: how.conflicts}
		if len(in.Lists) > 0 && c.Email == "" {
			d.answer.ListsError = schemas.NoEmailForLists
		}
	}
	return d
}

func (p passed) outcome() string {
	switch {
	case p.duplicate:
		return "duplicate"
	case p.created:
		return "created"
	case len(p.merging) > 0:
		return "merged"
	case len(p.linked) > 0:
		return "linked"
	}
	return "resolved"
}

// resolveDelete deletes the contact that the identifiers name. When they name
// two, it deletes neither: a typing error must not erase a stranger.
func (v *view) resolveDelete(in *input) decision {
	var c *contact
	for _, id := range in.subject {
		found := v.find(id)
		switch {
		case found == nil || found == c:
		case c == nil:
			c = found
		default:
			return decision{outcome: "refused", answer: &schemas.Answer{
				ContactID: c.ContactID, Error: schemas.AnswerConflict,
				Conflicts: []schemas.Conflict{{
					Kind: id.Kind, Value: id.Value, Reason: "belongs to another contact; nothing was deleted",
					OtherContactID: pointer(found.ContactID),
				}},
			}}
		}
	}
	if c == nil {
		// Whoever is on the way under these names, in an input appended before,
		// was meant.
		for _, id := range in.subject {
			v.forget(id, in.place)
		}
		return decision{outcome: "not_found", answer: &schemas.Answer{Error: schemas.AnswerNotFound}}
	}
	return v.delete(in, c)
}

func (v *view) delete(in *input, c *contact) decision {
	d := v.passOn(in, c, passed{})
	for _, id := range in.subject {
		if owner := v.find(id); owner == nil || owner == c {
			v.forget(id, in.place)
		}
	}
	v.erase(c, in.place)
	d.outcome, d.answer = "deleted", &schemas.Answer{ContactID: c.ContactID, Deleted: true}
	return d
}
