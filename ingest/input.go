package ingest

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hogstream/hogstream/schemas"
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

// skipDepth is how deep a value may nest that is only walked over.
const skipDepth = 10_000

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
	issues []Issue
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

// members walks over the members of the JSON object at text[at].
type members struct {
	text    string
	at      int
	started bool

	name    string // decoded
	value   string // as written
	tooDeep bool   // the value nests deeper than allowed
	err     error  // the text is not JSON
}

// next goes to the next member and reads its value; at the end, and at an error,
// it returns false. At the end, at stands behind the closing brace.
func (m *members) next() bool {
	if !m.nextName() {
		return false
	}
	start := m.at
	end, err := schemas.ScanValue(m.text, start, schemas.MaxDepth)
	if m.tooDeep = err != nil; m.tooDeep { // or not JSON
		if end, m.err = schemas.ScanValue(m.text, start, skipDepth); m.err != nil {
			return false
		}
	}
	m.value, m.at = m.text[start:end], end
	return true
}

// nextName goes to the next member and stops before its value, which the caller
// takes with skip or reads itself, leaving at behind it.
func (m *members) nextName() bool {
	if !m.separator() {
		return false
	}
	end, err := schemas.ScanString(m.text, m.at)
	if err != nil {
		m.err = err
		return false
	}
	if m.name, err = schemas.Unquote(m.text[m.at:end]); err != nil {
		return m.fail("a name is no string")
	}
	m.at = schemas.SkipSpace(m.text, end)
	if m.at == len(m.text) || m.text[m.at] != ':' {
		return m.fail("a colon is missing")
	}
	m.at = schemas.SkipSpace(m.text, m.at+1)
	return true
}

// skip goes behind the value, as deep as it may be.
func (m *members) skip() { m.at, m.err = schemas.ScanValue(m.text, m.at, skipDepth) }

// separator goes to where the next member begins.
func (m *members) separator() bool {
	m.at = schemas.SkipSpace(m.text, m.at)
	if !m.started {
		m.started = true
		m.at = schemas.SkipSpace(m.text, m.at+1)
		if m.at < len(m.text) && m.text[m.at] == '}' {
			m.at++
			return false
		}
		return true
	}
	switch {
	case m.at == len(m.text):
		return m.fail("ends too early")
	case m.text[m.at] == '}':
		m.at++
		return false
	case m.text[m.at] != ',':
		return m.fail("a comma or a closing brace is missing")
	}
	m.at = schemas.SkipSpace(m.text, m.at+1)
	return true
}

func (m *members) fail(reason string) bool {
	m.err = &schemas.DocumentError{Offset: m.at, Reason: reason}
	return false
}

// read reads the JSON value at text[at] and returns the index behind it. What is
// wrong with it as an input goes to d.issues; the error says that the text is
// not JSON, and then nothing after it can be read.
func (d *draft) read(text string, at int) (end int, err error) {
	if at < len(text) && text[at] != '{' {
		end, err := schemas.ScanValue(text, at, skipDepth)
		if err == nil {
			d.issue(Issue{Code: "invalid_type", Expected: "object", Message: "Invalid input: expected object, received " + kindOf(text[at:end]), Fix: "send a JSON object"})
		}
		return end, err
	}
	m := members{text: text, at: at}
	for m.next() {
		d.member(&m)
	}
	if m.err != nil {
		return m.at, malformed(m.err, m.name)
	}
	d.size = m.at - at
	if d.size > schemas.MaxEvent && d.kind == eventBody {
		limit := schemas.MaxEvent
		d.issues = d.issues[:0]
		d.issue(Issue{Code: "too_big", Origin: "object", Maximum: &limit, Message: fmt.Sprintf("Too big: expected an event of at most %d bytes, received %d", limit, d.size), Fix: "send less in properties; keep large content elsewhere and send its address"})
		return m.at, nil
	}
	if d.kind == eventBody && !d.hasName {
		d.wrongType("string", "undefined", "give the event a name", "name")
	}
	return m.at, nil
}

// member takes one member of the object. Unknown ones are ignored.
func (d *draft) member(m *members) {
	switch m.name {
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

func (d *draft) issue(i Issue, path ...any) {
	i.Path = path
	if path == nil {
		i.Path = []any{}
	}
	d.issues = append(d.issues, i)
}

func (d *draft) wrongType(expected, received, fix string, path ...any) {
	d.issue(Issue{Code: "invalid_type", Expected: expected, Message: "Invalid input: expected " + expected + ", received " + received, Fix: fix}, path...)
}

// kindOf names the kind of a JSON value.
func kindOf(value string) string {
	switch value[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

var one, yes = 1, true

// text reads a string that stands for one thing: without NUL, not too long.
func (d *draft) text(m *members, limit int) (string, bool) {
	if m.value[0] != '"' {
		fix := "send a string"
		if m.value == "null" {
			fix = "leave the field out instead of sending null"
		}
		d.wrongType("string", kindOf(m.value), fix, m.name)
		return "", false
	}
	if !d.utf8OK && !utf8.ValidString(m.value) {
		d.notUTF8(m.name)
		return "", false
	}
	value, err := schemas.Unquote(m.value)
	switch {
	case err != nil || strings.ContainsRune(value, utf8.RuneError) && !strings.ContainsRune(m.value, utf8.RuneError):
		d.issue(Issue{Code: "invalid_format", Origin: "string", Format: "unicode", Message: "Invalid text: half of a surrogate pair", Fix: "send whole characters"}, m.name)
		return "", false
	case strings.IndexByte(value, 0) >= 0:
		d.issue(Issue{Code: "invalid_format", Origin: "string", Format: "text", Message: "Invalid text: contains the character U+0000", Fix: "remove the NUL character"}, m.name)
		return "", false
	case len(value) > limit && utf8.RuneCountInString(value) > limit:
		d.tooLong(m.name, limit)
		return "", false
	}
	return value, true
}

func (d *draft) notUTF8(name string) {
	d.issue(Issue{Code: "invalid_format", Origin: "string", Format: "utf-8", Message: "Invalid text: not UTF-8", Fix: "encode the body as UTF-8"}, name)
}

func (d *draft) tooLong(name string, limit int) {
	d.issue(Issue{Code: "too_big", Origin: "string", Maximum: &limit, Inclusive: &yes, Message: fmt.Sprintf("Too big: expected string to have <=%d characters", limit), Fix: fmt.Sprintf("use at most %d characters", limit)}, name)
}

func (d *draft) tooShort(name, fix string) {
	d.issue(Issue{Code: "too_small", Origin: "string", Minimum: &one, Inclusive: &yes, Message: "Too small: expected string to have >=1 characters", Fix: fix}, name)
}

func (d *draft) readID(m *members, into *string) {
	value, ok := d.text(m, maxID)
	if !ok {
		return
	}
	if value = strings.TrimSpace(value); value == "" {
		d.tooShort(m.name, "send an id that is not blank, or leave the field out")
		return
	}
	*into = value
}

func (d *draft) readEmail(m *members) {
	value, ok := d.text(m, maxEmail)
	if !ok {
		return
	}
	if d.kind == deleteBody { // any address on file can be named
		value = strings.TrimSpace(value)
		if value == "" {
			d.tooShort(m.name, "send an address that is not blank, or leave the field out")
			return
		}
	} else if !schemas.IsEmail(value) {
		d.issue(Issue{Code: "invalid_format", Origin: "string", Format: "email", Message: "Invalid email address", Fix: "send an address such as ada@example.com"}, m.name)
		return
	}
	d.email = strings.ToLower(value)
}

func (d *draft) readName(m *members) {
	d.hasName = true
	value, ok := d.text(m, maxName)
	switch {
	case !ok:
	case strings.TrimSpace(value) == "":
		d.tooShort(m.name, "give the event a name")
	case isReserved(value):
		d.issue(Issue{Code: "invalid_value", Origin: "string", Message: "Reserved event name: names that begin with " + reservedList + " are given to events made here", Fix: "choose another name, for example app." + strings.TrimSpace(value)}, m.name)
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
func (d *draft) readDocument(m *members, into *string) bool {
	switch {
	case m.value[0] != '{':
		fix := "send a JSON object"
		if m.value == "null" {
			fix = "leave the field out instead of sending null"
		}
		d.wrongType("record", kindOf(m.value), fix, m.name)
	case m.tooDeep:
		limit := schemas.MaxDepth
		d.issue(Issue{Code: "too_big", Origin: "object", Maximum: &limit, Inclusive: &yes, Message: fmt.Sprintf("Too big: nested deeper than %d levels", limit), Fix: "flatten the document"}, m.name)
	case !d.utf8OK && !utf8.ValidString(m.value):
		d.notUTF8(m.name)
	default:
		*into = m.value
		return true
	}
	return false
}

func (d *draft) readLists(m *members) {
	if m.value[0] != '{' {
		d.wrongType("record", kindOf(m.value), `send an object such as {"newsletter": true}`, m.name)
		return
	}
	lists := map[string]bool{}
	inner := members{text: m.value}
	for inner.next() {
		switch {
		case inner.value != "true" && inner.value != "false":
			d.wrongType("boolean", kindOf(inner.value), "send true to subscribe and false to unsubscribe", m.name, strings.ToValidUTF8(inner.name, "�"))
		case !isListID(inner.name):
			d.issue(Issue{Code: "invalid_format", Origin: "string", Format: "regex", Message: "Invalid list id: must match ^[A-Za-z0-9_-]{1,64}$ and be neither transactional nor journey", Fix: "use the id of a list"}, m.name, strings.ToValidUTF8(inner.name, "�"))
		case len(lists) == maxLists:
			limit := maxLists
			d.issue(Issue{Code: "too_big", Origin: "object", Maximum: &limit, Inclusive: &yes, Message: fmt.Sprintf("Too big: expected at most %d lists", limit), Fix: "send the lists in several requests"}, m.name)
			return
		default:
			lists[inner.name] = inner.value == "true"
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
		if c := id[i]; !isAlphanumeric(c) && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func (d *draft) readKey(m *members) {
	if value, ok := d.text(m, maxKey); ok {
		d.key = value
	}
}

func (d *draft) readTime(m *members) {
	if m.value[0] != '"' {
		d.wrongType("string", kindOf(m.value), "send a time such as 2026-01-31T12:00:00Z", m.name)
		return
	}
	t, ok := parseTime(m.value[1 : len(m.value)-1])
	if !ok {
		d.issue(Issue{Code: "invalid_format", Origin: "string", Format: "datetime", Message: "Invalid ISO datetime", Fix: "send a time in UTC such as 2026-01-31T12:00:00Z"}, m.name)
		return
	}
	if !schemas.ValidTime(t) {
		d.issue(Issue{Code: "invalid_value", Origin: "string", Format: "datetime", Message: "Invalid time: outside the years 1 to 9999", Fix: "send a time of the years 1 to 9999"}, m.name)
		return
	}
	d.occurred, d.hasTime = t, true
}

// hasSubject reports whether the input names somebody.
func (d *draft) hasSubject() bool { return d.userID != "" || d.email != "" || d.anonymousID != "" }

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
