package schemas

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// What SDKs and vendors send as an id by mistake: the names of fields and of values
// that say nothing. The first are one in any case, the others only as they stand.
var (
	mistakenInAnyCase = []string{
		"anonymous", "guest", "distinctid", "distinct_id", "id", "not_authenticated", "email", "undefined", "true", "false",
	}
	mistakenAsWritten = []string{"[object Object]", "NaN", "None", "none", "null", "0", "undefined"}
)

// MistakenID says why a user id or an anonymous id cannot be that of a person, and ""
// of one that can. Whoever took such a one for an id would make thousands one person.
// The text does not quote the id. Emails are no ids.
func MistakenID(id string) (reason string) {
	if len(id) > maxName && utf8.RuneCountInString(id) > maxName {
		return fmt.Sprintf("has more than %d characters, so it is no id", maxName)
	}
	bare := unquoted(strings.TrimSpace(id))
	switch {
	case bare == "":
		return "is blank, so it is no id"
	case slices.Contains(mistakenAsWritten, bare),
		slices.ContainsFunc(mistakenInAnyCase, func(m string) bool { return strings.EqualFold(m, bare) }):
		return "is what programs send by mistake when they have no id, so it names nobody"
	}
	return ""
}

// unquoted is a text without the quotes around it, of which a serialiser may add some.
func unquoted(s string) string {
	for len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = strings.TrimSpace(s[1 : len(s)-1])
	}
	return s
}

// usable says whether an optional id can name somebody.
func usable(id *string) bool { return id != nil && MistakenID(*id) == "" }
