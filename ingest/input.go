package ingest

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/document"
	"github.com/hogstream/hogstream/web"
)

// Limits of what identifies and names, in characters.
const (
	maxName  = 255
	maxID    = 255
	maxEmail = 320
	maxLists = 100
	maxKey   = 255
	maxList  = 64
)

// bodyKind is what a body is about; it decides which fields are read.
type bodyKind int

const (
	eventBody bodyKind = iota
	contactBody
	deleteBody
)

// draft is an input as it is read from a body, with what is wrong with it.
type draft struct {
	input  schemas.Input
	issues []web.Issue
	size   int // of its JSON, in bytes

	kind     bodyKind
	utf8OK   bool // of the whole body
	hasName  bool
	hasTime  bool
	occurred time.Time

	// What the input points to.
	userID, email, anonymousID, name, properties, contactProperties, key, scope string
	hasEventProperties, hasContactProperties                                    bool
}

// read reads the JSON value at text[at] and returns the index behind it. What is
// wrong with it as an input goes to d.issues; the error says that the text is
// not JSON, and then nothing after it can be read.
func (d *draft) read(text string, at int) (end int, err error) {
	if at < len(text) && text[at] != '{' {
		end, err := document.Skip(text, at)
		if err == nil {
			d.issue(web.Issue{Code: "invalid_type", Expected: "object", Message: "Invalid input: expected object, received " + web.KindOf(text[at:end]), Fix: "send a JSON object"})
		}
		return end, err
	}
	m := document.Members{Text: text, At: at}
	for m.Next() {
		d.member(&m.Member)
	}
	if m.Err != nil {
		return m.At, web.Malformed(m.Err, m.Name)
	}
	d.size = m.At - at
	if d.size > schemas.MaxEvent && d.kind == eventBody {
		limit := schemas.MaxEvent
		d.issues = d.issues[:0]
		d.issue(web.Issue{Code: "too_big", Origin: "object", Maximum: &limit, Message: fmt.Sprintf("Too big: expected an event of at most %d bytes, received %d", limit, d.size), Fix: "send less in properties; keep large content elsewhere and send its address"})
		return m.At, nil
	}
	if d.kind == eventBody && !d.hasName {
		d.wrongType("string", "undefined", "give the event a name", "name")
	}
	return m.At, nil
}

// member takes one member of the object. Unknown ones are ignored.
func (d *draft) member(m *document.Member) {
	switch m.Name {
	case "email":
		d.readEmail(m)
	case "userId":
		d.readID(m, &d.userID)
	case "anonymousId":
		d.readID(m, &d.anonymousID)
	case "name":
		if d.kind == eventBody {
			d.readName(m)
		}
	case "eventProperties":
		if d.kind == eventBody {
			d.hasEventProperties = d.readDocument(m, &d.properties)
		}
	case "contactProperties":
		if d.kind == eventBody {
			d.hasContactProperties = d.readDocument(m, &d.contactProperties)
		}
	case "properties":
		if d.kind == contactBody {
			d.hasContactProperties = d.readDocument(m, &d.contactProperties)
		}
	case "lists":
		if d.kind != deleteBody {
			d.readLists(m)
		}
	case "idempotencyKey":
		if d.kind == eventBody {
			d.readKey(m)
		}
	case "timestamp":
		if d.kind == eventBody {
			d.readTime(m)
		}
	}
}

func (d *draft) issue(i web.Issue, path ...any) {
	i.Path = path
	if path == nil {
		i.Path = []any{}
	}
	d.issues = append(d.issues, i)
}

func (d *draft) wrongType(expected, received, fix string, path ...any) {
	d.issue(web.Issue{Code: "invalid_type", Expected: expected, Message: "Invalid input: expected " + expected + ", received " + received, Fix: fix}, path...)
}

var one, yes = 1, true

// text reads a string that stands for one thing: without NUL, not too long.
func (d *draft) text(m *document.Member, limit int) (string, bool) {
	if m.Value[0] != '"' {
		fix := "send a string"
		if m.Value == "null" {
			fix = "leave the field out instead of sending null"
		}
		d.wrongType("string", web.KindOf(m.Value), fix, m.Name)
		return "", false
	}
	if !d.utf8OK && !utf8.ValidString(m.Value) {
		d.notUTF8(m.Name)
		return "", false
	}
	value, err := document.Unquote(m.Value)
	switch {
	case err != nil || document.HasLoneSurrogate(m.Value):
		d.issue(web.Issue{Code: "invalid_format", Origin: "string", Format: "unicode", Message: "Invalid text: half of a surrogate pair", Fix: "send whole characters"}, m.Name)
		return "", false
	case strings.IndexByte(value, 0) >= 0:
		d.issue(web.Issue{Code: "invalid_format", Origin: "string", Format: "text", Message: "Invalid text: contains the character U+0000", Fix: "remove the NUL character"}, m.Name)
		return "", false
	case len(value) > limit && utf8.RuneCountInString(value) > limit:
		d.tooLong(m.Name, limit)
		return "", false
	}
	return value, true
}

func (d *draft) notUTF8(name string) {
	d.issue(web.Issue{Code: "invalid_format", Origin: "string", Format: "utf-8", Message: "Invalid text: not UTF-8", Fix: "encode the body as UTF-8"}, name)
}

func (d *draft) tooLong(name string, limit int) {
	d.issue(web.Issue{Code: "too_big", Origin: "string", Maximum: &limit, Inclusive: &yes, Message: fmt.Sprintf("Too big: expected string to have <=%d characters", limit), Fix: fmt.Sprintf("use at most %d characters", limit)}, name)
}

func (d *draft) tooShort(name, fix string) {
	d.issue(web.Issue{Code: "too_small", Origin: "string", Minimum: &one, Inclusive: &yes, Message: "Too small: expected string to have >=1 characters", Fix: fix}, name)
}

func (d *draft) readID(m *document.Member, into *string) {
	value, ok := d.text(m, maxID)
	if !ok {
		return
	}
	if value = strings.TrimSpace(value); value == "" {
		d.tooShort(m.Name, "send an id that is not blank, or leave the field out")
		return
	}
	*into = value
}

func (d *draft) readEmail(m *document.Member) {
	value, ok := d.text(m, maxEmail)
	if !ok {
		return
	}
	if d.kind == deleteBody { // any address on file can be named
		value = strings.TrimSpace(value)
		if value == "" {
			d.tooShort(m.Name, "send an address that is not blank, or leave the field out")
			return
		}
	} else if !schemas.IsEmail(value) {
		d.issue(web.Issue{Code: "invalid_format", Origin: "string", Format: "email", Message: "Invalid email address", Fix: "send an address such as ada@example.com"}, m.Name)
		return
	}
	d.email = strings.ToLower(value)
}

func (d *draft) readName(m *document.Member) {
	d.hasName = true
	value, ok := d.text(m, maxName)
	switch {
	case !ok:
	case strings.TrimSpace(value) == "":
		d.tooShort(m.Name, "give the event a name")
	case isReserved(value):
		d.issue(web.Issue{Code: "invalid_value", Origin: "string", Message: "Reserved event name: names that begin with " + reservedList + " are given to events made here", Fix: "choose another name, for example app." + strings.TrimSpace(value)}, m.Name)
	default:
		d.name = value
	}
}

// reserved are the beginnings of names of what Hogstream itself says: a sender
// must not pass for it.
var reserved = []string{"bucket:", "bucket.", "journey:", "journey.", "email.", "contact.", "webhook.", "event.tracked", "hogstream."}

var reservedList = strings.Join(reserved, " ")

// isReserved does not look at case and blanks around: names that only look like
// ours are refused too.
func isReserved(name string) bool {
	name = strings.TrimSpace(name)
	for _, r := range reserved {
		if len(name) >= len(r) && strings.EqualFold(name[:len(r)], r) {
			return true
		}
	}
	return false
}

// readDocument keeps the bytes of a JSON object.
func (d *draft) readDocument(m *document.Member, into *string) bool {
	switch {
	case m.Value[0] != '{':
		fix := "send a JSON object"
		if m.Value == "null" {
			fix = "leave the field out instead of sending null"
		}
		d.wrongType("record", web.KindOf(m.Value), fix, m.Name)
	case m.TooDeep:
		limit := document.MaxDepth
		d.issue(web.Issue{Code: "too_big", Origin: "object", Maximum: &limit, Inclusive: &yes, Message: fmt.Sprintf("Too big: nested deeper than %d levels", limit), Fix: "flatten the document"}, m.Name)
	case !d.utf8OK && !utf8.ValidString(m.Value):
		d.notUTF8(m.Name)
	default:
		*into = m.Value
		return true
	}
	return false
}

func (d *draft) readLists(m *document.Member) {
	if m.Value[0] != '{' {
		d.wrongType("record", web.KindOf(m.Value), `send an object such as {"newsletter": true}`, m.Name)
		return
	}
	lists := map[string]bool{}
	inner := document.Members{Text: m.Value}
	for inner.Next() {
		switch {
		case inner.Value != "true" && inner.Value != "false":
			d.wrongType("boolean", web.KindOf(inner.Value), "send true to subscribe and false to unsubscribe", m.Name, strings.ToValidUTF8(inner.Name, "�"))
		case !isListID(inner.Name):
			d.issue(web.Issue{Code: "invalid_format", Origin: "string", Format: "regex", Message: "Invalid list id: must match ^[A-Za-z0-9_-]{1,64}$ and be neither transactional nor journey", Fix: "use the id of a list"}, m.Name, strings.ToValidUTF8(inner.Name, "�"))
		case len(lists) == maxLists:
			limit := maxLists
			d.issue(web.Issue{Code: "too_big", Origin: "object", Maximum: &limit, Inclusive: &yes, Message: fmt.Sprintf("Too big: expected at most %d lists", limit), Fix: "send the lists in several requests"}, m.Name)
			return
		default:
			lists[inner.Name] = inner.Value == "true"
		}
	}
	if len(lists) > 0 {
		d.input.Lists = lists
	}
}

func isListID(id string) bool {
	if id == "" || len(id) > maxList || strings.EqualFold(id, "transactional") || strings.EqualFold(id, "journey") {
		return false
	}
	for i := 0; i < len(id); i++ {
		if c := id[i]; !web.IsAlphanumeric(c) && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func (d *draft) readKey(m *document.Member) {
	if value, ok := d.text(m, maxKey); ok {
		d.key = value
	}
}

func (d *draft) readTime(m *document.Member) {
	if m.Value[0] != '"' {
		d.wrongType("string", web.KindOf(m.Value), "send a time such as 2026-01-31T12:00:00Z", m.Name)
		return
	}
	t, ok := web.ParseTime(m.Value[1 : len(m.Value)-1])
	if !ok {
		d.issue(web.Issue{Code: "invalid_format", Origin: "string", Format: "datetime", Message: "Invalid ISO datetime", Fix: "send a time in UTC such as 2026-01-31T12:00:00Z"}, m.Name)
		return
	}
	if !schemas.ValidTime(t) {
		d.issue(web.Issue{Code: "invalid_value", Origin: "string", Format: "datetime", Message: "Invalid time: outside the years 1 to 9999", Fix: "send a time of the years 1 to 9999"}, m.Name)
		return
	}
	d.occurred, d.hasTime = t, true
}

// hasSubject reports whether the input names somebody.
func (d *draft) hasSubject() bool { return d.userID != "" || d.email != "" || d.anonymousID != "" }

// checkNamed refuses to change or erase somebody who is named by nothing but ids that
// programs send by mistake. An event is kept, whoever it is about.
func (d *draft) checkNamed() {
	if d.kind == eventBody || d.email != "" {
		return
	}
	ids := []struct{ field, value string }{{"userId", d.userID}, {"anonymousId", d.anonymousID}}
	for _, id := range ids {
		if id.value != "" && schemas.MistakenID(id.value) == "" {
			return
		}
	}
	for _, id := range ids {
		if id.value != "" {
			d.issue(web.Issue{
				Code: "invalid_value", Origin: "string", Message: "Invalid id: it " + schemas.MistakenID(id.value),
				Fix: "send the person's own id, or name them by email; look at what the sending program does without an id",
			}, id.field)
		}
	}
}

// finish makes the input of what was read without issues. A key with a waiting
// sender is decided by the caller.
func (d *draft) finish(id string, now time.Time, scope string) *schemas.Input {
	in := &d.input
	in.ID, in.ReceivedAt, in.OccurredAt, in.Source = id, now, now, "api"
	if d.hasTime {
		in.OccurredAt = d.occurred
	}
	in.UserID, in.Email, in.AnonymousID = optional(&d.userID), optional(&d.email), optional(&d.anonymousID)
	switch d.kind {
	case eventBody:
		in.Type, in.Event = schemas.InputEvent, &d.name
	case contactBody:
		in.Type = schemas.InputContact
	case deleteBody:
		in.Type = schemas.InputDelete
	}
	if d.hasEventProperties {
		in.EventProperties = &d.properties
	}
	if d.hasContactProperties {
		in.ContactProperties = &d.contactProperties
	}
	d.scope = scope
	in.Scope = &d.scope
	in.IdempotencyKey = optional(&d.key)
	return in
}

func optional(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}
