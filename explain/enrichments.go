package explain

import (
	"context"
	"fmt"

	"github.com/hogstream/hogstream/processors/enrich"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Enrichment is how an enrichment stands with a contact.
type Enrichment = enrich.Shown

// Enrichments is what was asked about a contact and what came of it, by enrichment, with the
// contact's id. A contact that is not there is ErrNoContact.
func (x *Explainer) Enrichments(ctx context.Context, userID string) (contactID string, shown []Enrichment, err error) {
	contact, err := x.db.ContactNamed(ctx, userID, schemas.KindExternal, schemas.KindAnonymous)
	switch {
	case err != nil:
		return "", nil, err
	case contact == nil:
		return "", nil, ErrNoContact
	}
	var state enrich.State
	err = x.db.InTx(ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadDerived(ctx, enrich.Name, []string{contact.ID})
		if err != nil || found.Contacts[contact.ID] == nil {
			return err
		}
		state, err = enrich.DecodeState(found.Contacts[contact.ID].State)
		return err
	})
	if err != nil {
		return "", nil, fmt.Errorf("enrichments of contact %s: %w", contact.ID, err)
	}
	return contact.ID, state.Show(), nil
}
