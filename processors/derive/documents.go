package derive

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hogstream/hogstream/storage"
)

// Documents is a Store that keeps a state as a JSON document, for processors that need no
// tables of their own.
type Documents[S any] struct{ Processor string }

// Load implements Store.
func (d Documents[S]) Load(ctx context.Context, tx *storage.Tx, contacts []string) (map[string]S, error) {
	documents, err := tx.LoadDerivedDocuments(ctx, d.Processor, contacts)
	if err != nil {
		return nil, err
	}
	states := make(map[string]S, len(documents))
	for id, text := range documents {
		var s S
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, fmt.Errorf("state of contact %s: %w", id, err)
		}
		states[id] = s
	}
	return states, nil
}

// Save implements Store.
func (d Documents[S]) Save(ctx context.Context, tx *storage.Tx, changed []Change[S]) error {
	documents := make([]storage.DerivedDocument, 0, len(changed))
	for _, c := range changed {
		doc := storage.DerivedDocument{ContactID: c.ContactID, Partition: c.Partition}
		if !c.Forget {
			text, err := json.Marshal(c.State)
			if err != nil {
				return fmt.Errorf("state of contact %s: %w", c.ContactID, err)
			}
			doc.JSON = text
		}
		documents = append(documents, doc)
	}
	return tx.SaveDerivedDocuments(ctx, d.Processor, documents)
}
