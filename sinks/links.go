package sinks

import (
	"slices"

	"github.com/hogstream/hogstream/schemas"
)

// A link is another name that a person was known by until a fact, and that must be
// tied to the name it has since. Otherwise an analytics system sees two persons.
type link struct {
	kind linkKind
	name string
	// tookIn says of a contact's id that contacts were merged into it before.
	tookIn bool
}

// linkKind says what sort of name a link is.
type linkKind int

const (
	contactLink   linkKind = iota // a contact's id, under which no other fact has tied it yet
	formerLink                    // the id of a contact that was merged into one of these before
	anonymousLink                 // an anonymous id
	externalLink                  // another user id
)

// links are the names that a payload's person must be tied to: when the contact gets
// its user id, those that it had without one; when a contact was merged into it, those
// of the loser, and its own if it gained its user id by that.
func links(p *Payload) []link {
	f := p.Fact
	switch {
	case f == nil:
	case f.Type == schemas.FactContactUpdated && f.Contact != nil:
		if deref(f.UserID) != "" && slices.Contains(f.Contact.Changed, "userId") {
			return former(nil, f.ContactID, f.Contact.Merged, f.Contact.AnonymousIDs)
		}
	case f.Type == schemas.FactContactMerged && f.Merged != nil:
		return mergeLinks(f)
	}
	return nil
}

func mergeLinks(f *schemas.Fact) []link {
	m := f.Merged
	var gained, others []string
	gainedUserID := false
	for _, id := range m.Gained {
		switch {
		case id.Kind == schemas.KindAnonymous:
			gained = append(gained, id.Value)
		case id.Kind == schemas.KindExternal && id.Value == deref(f.UserID):
			gainedUserID = true
		case id.Kind == schemas.KindExternal:
			others = append(others, id.Value)
		}
	}
	all := former(nil, m.LoserID, m.LoserMerged, gained)
	if gainedUserID {
		all = former(all, f.ContactID, m.Merged, m.AnonymousIDs)
	}
	for _, other := range others {
		all = append(all, link{kind: externalLink, name: other})
	}
	return all
}

// former adds the names of a contact without a user id.
func former(all []link, contactID string, merged, anonymousIDs []string) []link {
	all = append(all, link{kind: contactLink, name: contactID, tookIn: len(merged) > 0})
	for _, id := range merged {
		all = append(all, link{kind: formerLink, name: id})
	}
	for _, id := range anonymousIDs {
		all = append(all, link{kind: anonymousLink, name: id})
	}
	return all
}
