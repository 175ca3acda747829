package contacts

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/schemas"
)

// listChange is what an input's lists did.
type listChange struct {
	address string
	changed bool
	left    []string          // lists that the address received until now, sorted
	refused *schemas.Conflict // the contact has no address
	tooMany *schemas.Conflict // lists beyond schemas.MaxLists were left out
}

// setLists applies the lists of an input to one address of the contact: the one
// sent, if it is the contact's, else the primary one.
func (st *state) setLists(in input) listChange {
	if len(in.Lists) == 0 {
		return listChange{}
	}
	address := st.row.Email
	if in.Email != nil && slices.Contains(st.row.Identifiers, schemas.Identifier{Kind: schemas.KindEmail, Value: *in.Email}) {
		address = *in.Email
	}
	if address == "" {
		return listChange{refused: &schemas.Conflict{Kind: schemas.KindEmail, Reason: schemas.NoEmailForLists}}
	}
	change := listChange{address: address}
	p := st.preferenceOf(address)
	wanted := make(map[string]bool, len(p.Categories)+len(in.Lists)) // the loaded map may stand in an earlier snapshot
	maps.Copy(wanted, p.Categories)
	known := 0
	for _, p := range st.preferences {
		known += len(p.Categories)
	}
	for _, list := range slices.Sorted(maps.Keys(in.Lists)) {
		want := in.Lists[list]
		had, said := wanted[list]
		if said && had == want {
			continue
		}
		if !said {
			if known >= schemas.MaxLists {
				change.tooMany = &schemas.Conflict{Kind: "lists", Value: list, Reason: fmt.Sprintf("the contact has said something about %d lists already", schemas.MaxLists)}
				continue
			}
			known++
			had = true // who never said is subscribed
		}
		if had && !want {
			change.left = append(change.left, list)
		}
		wanted[list] = want
		change.changed = true
	}
	if change.changed {
		p.Categories = wanted
		st.setPreference(p)
	}
	return change
}

func (st *state) preferenceOf(address string) schemas.Preference {
	for _, p := range st.preferences {
		if p.Email == address {
			return p
		}
	}
	return schemas.Preference{Email: address}
}

// setPreference replaces what an address wants, keeping the order by address.
func (st *state) setPreference(p schemas.Preference) {
	all := slices.DeleteFunc(slices.Clone(st.preferences), func(old schemas.Preference) bool { return old.Email == p.Email })
	all = append(all, p)
	slices.SortFunc(all, func(a, b schemas.Preference) int { return strings.Compare(a.Email, b.Email) })
	st.preferences, st.preferencesChanged = all, true
}
