package eventfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Columns are names of columns that a file chose for itself. An empty field is the API's name.
type Columns struct{ Name, UserID, Email, Time string }

// Type is what the cells of a column are.
type Type string

// The types of a column. Numbers stay as they are written, digit for digit.
const (
	Text    Type = "text"
	Number  Type = "number"
	Boolean Type = "boolean"
	JSON    Type = "json"
)

// types are those that a header or an option may name.
var types = []Type{Text, Number, Boolean, JSON}

// ParseType reads a type; the error names those that there are.
func ParseType(s string) (Type, error) {
	if slices.Contains(types, Type(s)) {
		return Type(s), nil
	}
	return "", fmt.Errorf("type %q is not known: text, number, boolean or json", s)
}

// column is one column: where its cells go and what they are.
type column struct {
	header string
	target string // a field of the event, or of one of its objects
	inside string // the object: eventProperties, contactProperties, lists; or ""
	typ    Type
}

// key is equal for columns that would write the same.
func (c column) key() string { return c.inside + "." + c.target }

// fields of an event that a column can be, each with whether its cells are a JSON object.
var fields = map[string]Type{
	"name": Text, "userId": Text, "email": Text, "anonymousId": Text, "idempotencyKey": Text, "timestamp": Text,
	"eventProperties": JSON, "contactProperties": JSON, "lists": JSON,
}

// objects are the fields of which a column can be one member: contactProperties.plan.
var objects = []string{"eventProperties", "contactProperties", "lists"}

// readHeader says of each column what it is. A column that is none of the API's fields is a
// property of the event.
func readHeader(names []string, chosen Columns, types map[string]Type) ([]column, error) {
	columns := make([]column, len(names))
	seen := map[string]int{}
	unused := map[string]bool{}
	for name := range types {
		unused[name] = true
	}
	for i, name := range names {
		c := readColumn(strings.TrimSpace(name), chosen)
		if typ, ok := types[c.header]; ok {
			c.typ = typ
			delete(unused, c.header)
		}
		columns[i] = c
		if c.header == "" {
			continue // its cells must be empty
		}
		if before, twice := seen[c.key()]; twice {
			return nil, fmt.Errorf("columns %d (%q) and %d (%q) are the same: remove or rename one", before+1, columns[before].header, i+1, c.header)
		}
		seen[c.key()] = i
	}
	for _, object := range objects {
		if at, whole := seen["."+object]; whole {
			if i := slices.IndexFunc(columns, func(c column) bool { return c.inside == object }); i >= 0 {
				return nil, fmt.Errorf("columns %d (%q) and %d (%q) both say %s: keep the one or the other", at+1, columns[at].header, i+1, columns[i].header, object)
			}
		}
	}
	for name := range unused {
		return nil, fmt.Errorf("no column %q, for which a type is given (columns: %s)", name, strings.Join(names, ", "))
	}
	return columns, enough(names, seen, chosen)
}

// readColumn reads one name of the header: the API's names in any case, a member of an object
// as object.member, and a type behind a colon.
func readColumn(name string, chosen Columns) column {
	c := column{header: name, typ: Text}
	if at := strings.LastIndexByte(name, ':'); at > 0 {
		if typ, err := ParseType(name[at+1:]); err == nil {
			name, c.typ = name[:at], typ
		}
	}
	for own, role := range map[string]string{chosen.Name: "name", chosen.UserID: "userId", chosen.Email: "email", chosen.Time: "timestamp"} {
		if own != "" && (own == c.header || own == name) {
			c.target = role
			return c
		}
	}
	taken := map[string]bool{"name": chosen.Name != "", "userId": chosen.UserID != "", "email": chosen.Email != "", "timestamp": chosen.Time != ""}
	for field, typ := range fields {
		if strings.EqualFold(name, field) && !taken[field] {
			c.target = field
			if typ == JSON {
				c.typ = JSON
			}
			return c
		}
	}
	c.inside, c.target = "eventProperties", name
	for _, object := range objects {
		if member, ok := cutPrefixFold(name, object+"."); ok && member != "" {
			c.inside, c.target = object, member
		}
	}
	if c.inside == "lists" {
		c.typ = Boolean
	}
	return c
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// usual are names under which others export what an event needs.
var usual = map[string][]string{
	"name":   {"event", "eventname", "eventtype", "type", "action"},
	"userId": {"user", "uid", "id", "distinctid", "customerid", "externalid"},
	"email":  {"mail", "emailaddress"},
}

// enough checks that an event can be made of a row: a name and whom it is about.
func enough(names []string, seen map[string]int, chosen Columns) error {
	has := func(field string) bool { _, ok := seen["."+field]; return ok }
	if !has("name") {
		return missing(names, fmt.Sprintf("no column %q for the event's name", cmp.Or(chosen.Name, "name")), "name")
	}
	if !has("userId") && !has("email") && !has("anonymousId") {
		return missing(names, fmt.Sprintf("no column %q, %q or \"anonymousId\" for the person", cmp.Or(chosen.UserID, "userId"), cmp.Or(chosen.Email, "email")), "userId", "email")
	}
	return nil
}

// missing names the columns that are there, and the flags that would make one of them do.
func missing(names []string, what string, wanted ...string) error {
	flags := map[string]string{"name": "--name-column", "userId": "--user-column", "email": "--email-column"}
	var tries []string
	for _, field := range wanted {
		for _, name := range names {
			plain := strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(name))
			if slices.Contains(usual[field], plain) || strings.EqualFold(plain, field) {
				tries = append(tries, fmt.Sprintf("%s %q", flags[field], strings.TrimSpace(name)))
			}
		}
	}
	hint := "the first line of the file has to name them"
	if len(tries) > 0 {
		hint = "try " + strings.Join(tries, " ")
	}
	return fmt.Errorf("%s (columns: %s): %s", what, strings.Join(names, ", "), hint)
}
