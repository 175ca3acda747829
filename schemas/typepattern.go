package schemas

import "strings"

// TypePattern narrows a list of records by the type in their header, as people write
// it when they search. Unlike a [Subscription] it is not checked against the catalog:
// old records may have types that are in it no more. Its zero value takes all.
type TypePattern struct {
	// Exact is a type, Prefix how others begin; "" for none. Without both it takes all.
	Exact, Prefix string
}

// ParseTypePattern reads one:
//
//	contact.created       this type
//	contact.*             types that begin so
//	event.tracked         every product event
//	event.tracked:order.* product events whose name begins so
//	*, or nothing         all
func ParseTypePattern(text string) TypePattern {
	if text == TypeEventTracked { // the name of the event follows in the header
		return TypePattern{Exact: text, Prefix: text + ":"}
	}
	if prefix, open := strings.CutSuffix(text, "*"); open {
		return TypePattern{Prefix: prefix}
	}
	return TypePattern{Exact: text}
}

// IsZero says that it takes all.
func (p TypePattern) IsZero() bool { return p.Exact == "" && p.Prefix == "" }

// Matches says whether it takes a type.
func (p TypePattern) Matches(typ string) bool {
	return p.IsZero() || p.Exact != "" && typ == p.Exact || p.Prefix != "" && strings.HasPrefix(typ, p.Prefix)
}
