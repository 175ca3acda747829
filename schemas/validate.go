package schemas

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas/document"
)

// Limits of what names somebody or something, in characters.
const (
	maxName  = 255
	maxEmail = 320
)

// IsEmail accepts what the validator that clients know accepts:
//
//	^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$
func IsEmail(s string) bool {
	at := strings.IndexByte(s, '@')
	if at < 1 || s[0] == '.' || strings.Contains(s, "..") {
		return false
	}
	local, domain := s[:at], s[at+1:]
	for i := 0; i < len(local); i++ {
		c := local[i]
		if !isAlphanumeric(c) && strings.IndexByte("_'+-.", c) < 0 {
			return false
		}
	}
	if last := local[len(local)-1]; last == '.' || last == '\'' {
		return false
	}
	return isDomain(domain)
}

func isDomain(s string) bool {
	dot := strings.LastIndexByte(s, '.')
	if dot < 1 || len(s)-dot-1 < 2 {
		return false
	}
	for i := dot + 1; i < len(s); i++ {
		if !isLetter(s[i]) {
			return false
		}
	}
	for label := range strings.SplitSeq(s[:dot], ".") {
		if label == "" || !isAlphanumeric(label[0]) {
			return false
		}
		for i := 1; i < len(label); i++ {
			if !isAlphanumeric(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

func isLetter(c byte) bool       { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isAlphanumeric(c byte) bool { return isLetter(c) || c >= '0' && c <= '9' }

// Validate reports what of an input that was decoded can be no input, field by field:
// anybody may write to a topic, and what a sender is refused must not come in beside
// the API. Values are not quoted, for the report outlives them. The subject is taken as
// it is trimmed.
func (m *Input) Validate() error {
	var c checks
	c.id("id", m.ID)
	switch m.Type {
	case InputEvent:
		if m.Event == nil || strings.TrimSpace(*m.Event) == "" {
			c.wrong("event", "an event needs a name")
		}
	case InputContact, InputDelete:
	default:
		c.wrong("type", "must be event, contact or delete")
	}
	c.text("userId", m.UserID, maxName)
	c.text("email", m.Email, maxEmail)
	if m.Type != InputDelete && m.Email != nil && !IsEmail(*m.Email) { // any address on file can be deleted
		c.wrong("email", "is no address such as ada@example.com")
	}
	c.text("anonymousId", m.AnonymousID, maxName)
	if m.ContactID != nil {
		c.id("contactId", *m.ContactID)
	}
	c.text("event", m.Event, maxName)
	c.document("eventProperties", m.EventProperties)
	c.document("contactProperties", m.ContactProperties)
	for list := range m.Lists {
		c.text("lists", &list, maxName)
	}
	c.text("source", &m.Source, maxName)
	c.text("idempotencyKey", m.IdempotencyKey, maxName)
	c.text("scope", m.Scope, maxName)
	return errors.Join(c...)
}

// Validate reports what of a record of topic resolved can be none, as
// [Input.Validate] does.
func (m *Resolved) Validate() error {
	var c checks
	c.id("contactId", m.ContactID)
	var complete bool
	switch m.Type {
	case ResolvedInput:
		if complete = m.Input != nil; complete {
			c.carried("input", m.Input)
		}
	case ResolvedMerge:
		if complete = m.Merge != nil; complete {
			c.id("merge.survivor", m.Merge.Survivor)
			c.id("merge.inputId", m.Merge.InputID)
		}
	case ResolvedAbsorb:
		if complete = m.Absorb != nil; complete {
			c.absorb(m.Absorb)
		}
	default:
		c.wrong("type", "must be input, merge or absorb")
		complete = true
	}
	if !complete {
		c.wrong(m.Type, "a record of this type is nothing without it")
	}
	c.text("userId", m.UserID, maxName)
	c.text("email", m.Email, maxEmail)
	c.text("anonymousId", m.AnonymousID, maxName)
	c.identifiers("linked", m.Linked)
	c.ids("merging", m.Merging)
	return errors.Join(c...)
}

// Validate reports what of a snapshot can be none, as [Input.Validate] does.
func (m *Contact) Validate() error {
	var c checks
	c.id("id", m.ID)
	c.text("userId", m.UserID, maxName)
	c.text("email", m.Email, maxEmail)
	c.text("anonymousId", m.AnonymousID, maxName)
	c.identifiers("identifiers", m.Identifiers)
	c.ids("merged", m.Merged)
	c.document("properties", &m.Properties)
	for i := range m.Preferences {
		c.text("preferences", &m.Preferences[i].Email, maxEmail)
		for list := range m.Preferences[i].Categories {
			c.text("preferences", &list, maxName)
		}
	}
	return errors.Join(c...)
}

// Validate reports what of an event can be none, as [Input.Validate] does.
func (m *Event) Validate() error {
	var c checks
	c.id("id", m.ID)
	c.id("contactId", m.ContactID)
	c.text("name", &m.Name, maxName)
	c.document("properties", &m.Properties)
	c.text("source", &m.Source, maxName)
	return errors.Join(c...)
}

// checks gather what is wrong.
type checks []error

func (c *checks) wrong(field, what string) { *c = append(*c, fmt.Errorf("%s: %s", field, what)) }

func (c *checks) id(field, id string) {
	if len(id) != len(uuid.Nil.String()) || uuid.Validate(id) != nil {
		c.wrong(field, "is no id such as 0190c1a0-7b1e-7c3a-9c9b-2f3f7a2d9f11")
	}
}

func (c *checks) ids(field string, ids []string) {
	for _, id := range ids {
		c.id(field, id)
	}
}

func (c *checks) text(field string, text *string, limit int) {
	switch {
	case text == nil:
	case strings.IndexByte(*text, 0) >= 0:
		c.wrong(field, "contains the character U+0000")
	case len(*text) > limit && utf8.RuneCountInString(*text) > limit:
		c.wrong(field, fmt.Sprintf("has more than %d characters", limit))
	}
}

func (c *checks) identifiers(field string, ids []Identifier) {
	for i := range ids {
		c.text(field, &ids[i].Value, maxEmail)
		switch ids[i].Kind {
		case KindExternal, KindEmail, KindAnonymous:
		default:
			c.wrong(field, "the kind of an identifier must be external, email or anonymous")
		}
	}
}

// document checks for a JSON object.
func (c *checks) document(field string, doc *string) {
	if doc == nil {
		return
	}
	if at := document.SkipSpace(*doc, 0); at == len(*doc) || (*doc)[at] != '{' {
		c.wrong(field, "is no JSON object")
	} else if err := document.Validate(*doc, document.MaxDepth); err != nil {
		c.wrong(field, "is no JSON object: "+err.Error())
	}
}

// carried is an input that identity has passed on: it was valid when it came, by the
// rules of then.
func (c *checks) carried(field string, m *Input) {
	c.id(field+".id", m.ID)
	c.text(field+".userId", m.UserID, maxName)
	c.text(field+".email", m.Email, maxEmail)
	c.text(field+".anonymousId", m.AnonymousID, maxName)
	c.text(field+".event", m.Event, maxName)
	c.text(field+".source", &m.Source, maxName)
	c.document(field+".eventProperties", m.EventProperties)
	c.document(field+".contactProperties", m.ContactProperties)
	for list := range m.Lists {
		c.text(field+".lists", &list, maxName)
	}
}

func (c *checks) absorb(a *Absorb) {
	c.id("absorb.loser", a.Loser)
	if a.InputID != "" {
		c.id("absorb.inputId", a.InputID)
	}
	if a.State != nil {
		if err := a.State.Validate(); err != nil {
			*c = append(*c, fmt.Errorf("absorb.state: %w", err))
		}
	}
	if a.Record != nil {
		c.carried("absorb.record.input", &a.Record.Input)
		c.identifiers("absorb.record.linked", a.Record.Linked)
		c.ids("absorb.record.merging", a.Record.Merging)
	}
}
