package contacts

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/document"
	"github.com/hogstream/hogstream/storage"
)

// input is an input at its contact, straight from identity or forwarded by a
// contact that was merged into this one.
type input struct {
	*schemas.Input
	created   bool // identity minted the contact for it
	duplicate bool
	ids       []schemas.Identifier // what it says the contact is known by
	linked    []schemas.Identifier // those of them that identity attached because of it
	conflicts []schemas.Conflict
	merging   []string
}

func inputOf(r *record) input {
	if r.Type == schemas.ResolvedAbsorb {
		f := r.Absorb.Record
		in := input{Input: &f.Input, duplicate: f.Duplicate, linked: f.Linked, conflicts: f.Conflicts, merging: f.Merging}
		in.ids = append(in.ids, f.Linked...)
		return in.withSent()
	}
	in := input{Input: r.Input, created: r.Created, duplicate: r.Duplicate, linked: r.Linked, conflicts: r.Conflicts, merging: r.Merging}
	in.ids = make([]schemas.Identifier, 0, 6)
	for _, id := range []struct {
		kind  string
		value *string
	}{{schemas.KindExternal, r.UserID}, {schemas.KindEmail, r.Email}, {schemas.KindAnonymous, r.AnonymousID}} {
		if id.value != nil {
			in.ids = append(in.ids, schemas.Identifier{Kind: id.kind, Value: *id.value})
		}
	}
	in.ids = append(in.ids, r.Linked...)
	return in.withSent()
}

// withSent adds the identifiers that were sent and that identity found to be
// this contact's. Records come from several partitions, so one that uses an
// identifier may arrive before the one that linked it; identifiers never leave a
// contact, so adding them up in any order gives the same. A duplicate's
// identifiers prove nothing: identity looked only for its contact.
func (in input) withSent() input {
	if in.duplicate || in.ContactID != nil {
		return in
	}
	sent := func(kind string, value *string) {
		if value == nil {
			return
		}
		for _, c := range in.conflicts {
			if c.Kind == kind && c.Value == *value {
				return
			}
		}
		in.ids = append(in.ids, schemas.Identifier{Kind: kind, Value: *value})
	}
	sent(schemas.KindExternal, in.UserID)
	sent(schemas.KindEmail, in.Email)
	sent(schemas.KindAnonymous, in.AnonymousID)
	return in
}

// apply takes an input in: identifiers, properties, lists, then its event.
func (w *work) apply(st *state, r *record, in input) error {
	created := st.row == nil
	if created {
		st.row = w.newContact(st, in.ReceivedAt)
		st.change(rewritten)
	}
	// What comes from inside says nothing of when the contact was there.
	if !in.duplicate && in.ContactID == nil && in.ReceivedAt.After(st.row.LastSeenAt) {
		st.row.LastSeenAt = in.ReceivedAt
		st.change(seen)
	}
	conflicts := in.conflicts
	gained, changed, beyond := st.identify(in.ids)
	for _, id := range beyond {
		// Said once, by the record that linked it, and not by each that uses it.
		if slices.Contains(in.linked, id) {
			conflicts = append(slices.Clip(conflicts), tooMany(id))
		}
	}
	if movesEmail(in) && st.row.Email != *in.Email && slices.Contains(st.row.Identifiers, schemas.Identifier{Kind: schemas.KindEmail, Value: *in.Email}) {
		st.row.Email = *in.Email
		changed = appendNew(changed, fieldName(schemas.KindEmail))
	}
	if len(gained) > 0 || len(changed) > 0 {
		st.change(rewritten)
	}
	if !in.duplicate && in.ContactProperties != nil {
		names, refused, err := st.patch(*in.ContactProperties)
		if err != nil {
			return err
		}
		changed = append(changed, names...)
		if refused != nil {
			conflicts = append(slices.Clip(conflicts), *refused)
		}
	}
	lists := st.setLists(in)
	if lists.tooMany != nil {
		conflicts = append(slices.Clip(conflicts), *lists.tooMany)
	}
	if lists.refused != nil && !in.Wait {
		conflicts = append(slices.Clip(conflicts), *lists.refused)
	}
	if err := w.publish(st, r, in, created, changed, lists, conflicts); err != nil {
		return err
	}
	if err := w.publishEvent(st, r, in); err != nil {
		return err
	}
	return w.answerInput(st, in, lists, conflicts)
}

func (w *work) newContact(st *state, at time.Time) *storage.Contact {
	return &storage.Contact{
		ID: st.id, Properties: "{}", Era: w.era, Partition: st.partition,
		FirstSeenAt: at, LastSeenAt: at, CreatedAt: at, UpdatedAt: at,
	}
}

// movesEmail says whether an input asks for its email to become the primary one;
// see the function of the same name in processor identity.
func movesEmail(in input) bool {
	return !in.duplicate && in.Type == schemas.InputContact && in.UserID != nil && in.Email != nil
}

// identify adds identifiers. It returns those that are new, the names of what
// changed, and those beyond what a contact shows of their kind: each new one is a
// snapshot of all, and one user id sent by all devices collects without end.
func (st *state) identify(ids []schemas.Identifier) (gained []schemas.Identifier, changed []string, beyond []schemas.Identifier) {
	for _, id := range ids {
		if slices.Contains(st.row.Identifiers, id) || slices.Contains(beyond, id) {
			continue
		}
		if len(st.row.Identifiers) >= schemas.MaxIdentifiers && ofKind(st.row.Identifiers, id.Kind) >= schemas.MaxIdentifiers {
			beyond = append(beyond, id)
			continue
		}
		st.row.Identifiers = append(slices.Clip(st.row.Identifiers), id)
		gained = append(gained, id)
		changed = appendNew(changed, fieldName(id.Kind))
		if primary := primary(st.row, id.Kind); *primary == "" {
			*primary = id.Value
		}
	}
	return gained, changed, beyond
}

func ofKind(ids []schemas.Identifier, kind string) int {
	n := 0
	for _, id := range ids {
		if id.Kind == kind {
			n++
		}
	}
	return n
}

func tooMany(id schemas.Identifier) schemas.Conflict {
	return schemas.Conflict{Kind: id.Kind, Value: id.Value, Reason: fmt.Sprintf(
		"the contact has %d identifiers of this kind already: this one finds it, and is not shown with it. Is a constant sent as userId or email?", schemas.MaxIdentifiers)}
}

func primary(c *storage.Contact, kind string) *string {
	switch kind {
	case schemas.KindExternal:
		return &c.ExternalID
	case schemas.KindEmail:
		return &c.Email
	default:
		return &c.AnonymousID
	}
}

// fieldName is what an identifier of a kind is called towards customers.
func fieldName(kind string) string {
	switch kind {
	case schemas.KindExternal:
		return "userId"
	case schemas.KindEmail:
		return "email"
	default:
		return "anonymousId"
	}
}

func appendNew(names []string, name string) []string {
	if slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

// patch merges properties and returns the names that changed, or why it was
// refused.
func (st *state) patch(patch string) (changed []string, refused *schemas.Conflict, err error) {
	after, changed, err := document.Patch(st.row.Properties, patch)
	if err != nil {
		return nil, nil, fmt.Errorf("contact properties: %w", err)
	}
	if len(after) > schemas.MaxProperties && len(changed) > 0 {
		return nil, tooLarge(len(after), "The patch was not applied: remove properties by setting them to null, or send less."), nil
	}
	if len(changed) > 0 {
		st.row.Properties = after
		st.change(patched)
	}
	return changed, nil, nil
}

func tooLarge(bytes int, fix string) *schemas.Conflict {
	return &schemas.Conflict{Kind: "size", Reason: fmt.Sprintf("properties would have %d bytes, more than %d. %s", bytes, schemas.MaxProperties, fix)}
}

// publish makes the next version when something changed, and says so: the fact
// first, then the snapshot.
func (w *work) publish(st *state, r *record, in input, created bool, changed []string, lists listChange, conflicts []schemas.Conflict) error {
	if created || len(changed) > 0 || lists.changed {
		st.nextVersion(in.ReceivedAt)
	}
	if created || len(changed) > 0 {
		typ := schemas.FactContactUpdated
		if created {
			typ = schemas.FactContactCreated
		}
		if err := w.emitFact(st, r, st.contactFact(in, typ, changed)); err != nil {
			return err
		}
	}
	if len(conflicts) > 0 {
		fact := st.fact(in.ID, schemas.FactContactConflict, in.OccurredAt, 0)
		fact.CauseID = in.ID
		fact.Conflict = &schemas.ContactConflict{Conflicts: conflicts, InputID: in.ID}
		fact.Hops = in.Hops
		if err := w.emitFact(st, r, fact); err != nil {
			return err
		}
	}
	for i, list := range lists.left {
		fact := st.fact(in.ID, schemas.FactContactUnsubscribed, in.OccurredAt, i)
		fact.Hops = in.Hops
		fact.Unsubscribed = &schemas.Unsubscribed{Address: lists.address, Category: &list, Scope: "category"}
		if err := w.emitFact(st, r, fact); err != nil {
			return err
		}
	}
	if created || len(changed) > 0 || lists.changed {
		return w.batch.Emit(r.cause, st.snapshot())
	}
	return nil
}

// emitFact gives a fact its number and emits it.
func (w *work) emitFact(st *state, r *record, fact *schemas.Fact) error {
	fact.Seq, fact.Era = w.next(st)
	return w.batch.Emit(r.cause, fact)
}

// next is the place of the next record of a contact in its order. What fails after it
// takes the whole batch back, and the number with it.
func (w *work) next(st *state) (seq, era int64) {
	if w.batch.Format(st.partition) < Format {
		return 0, 0
	}
	st.row.Seq++
	st.change(seen)
	return st.row.Seq, st.row.Era
}

// nextVersion is called once for each change. Times never go back, whatever
// order the partitions' records come in.
func (st *state) nextVersion(at time.Time) {
	st.row.Version++
	if at.After(st.row.UpdatedAt) {
		st.row.UpdatedAt = at
	}
	st.change(patched)
}

// fact is the frame of a fact about the contact as it is now.
func (st *state) fact(causeID, typ string, at time.Time, ordinal int) *schemas.Fact {
	return &schemas.Fact{
		ID: schemas.Derive(causeID, typ, ordinal), Type: typ, ContactID: st.id,
		UserID: pointer(st.row.ExternalID), Email: pointer(st.row.Email), AnonymousID: pointer(st.row.AnonymousID),
		OccurredAt: at, CauseID: causeID,
	}
}

func (st *state) contactFact(in input, typ string, changed []string) *schemas.Fact {
	fact := st.fact(in.ID, typ, in.OccurredAt, 0)
	fact.Hops = in.Hops
	fact.Contact = &schemas.ContactFact{
		Version: st.row.Version, Properties: st.row.Properties, Changed: changed,
		FirstSeenAt: st.row.FirstSeenAt, LastSeenAt: st.row.LastSeenAt, CreatedAt: st.row.CreatedAt, UpdatedAt: st.row.UpdatedAt,
	}
	if typ == schemas.FactContactUpdated && slices.Contains(changed, fieldName(schemas.KindExternal)) {
		fact.Contact.Merged, fact.Contact.AnonymousIDs = slices.Clone(st.row.Merged), st.anonymousIDs()
	}
	return fact
}

// anonymousIDs are all that the contact shows.
func (st *state) anonymousIDs() (ids []string) {
	for _, id := range st.row.Identifiers {
		if id.Kind == schemas.KindAnonymous {
			ids = append(ids, id.Value)
		}
	}
	return ids
}

// snapshot is the contact for topic contacts, and for a survivor.
func (st *state) snapshot() *schemas.Contact {
	c := st.row
	return &schemas.Contact{
		ID: c.ID, Version: c.Version, Seq: c.Seq, Era: c.Era,
		UserID: pointer(c.ExternalID), Email: pointer(c.Email), AnonymousID: pointer(c.AnonymousID),
		Identifiers: c.Identifiers, Merged: c.Merged, Properties: c.Properties, Preferences: st.preferences,
		FirstSeenAt: c.FirstSeenAt, LastSeenAt: c.LastSeenAt, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
	}
}

// publishEvent passes a product event on with its contact, and keeps it.
func (w *work) publishEvent(st *state, r *record, in input) error {
	if in.Type != schemas.InputEvent || in.Event == nil || in.duplicate {
		return nil
	}
	properties := "{}"
	if in.EventProperties != nil {
		properties = *in.EventProperties
	}
	anonymous := in.AnonymousID
	if anonymous == nil {
		anonymous = pointer(st.row.AnonymousID)
	}
	e := &schemas.Event{
		ID: schemas.EventID(in.ID), ContactID: st.id, Name: *in.Event,
		UserID: pointer(st.row.ExternalID), Email: pointer(st.row.Email), AnonymousID: anonymous,
		Properties: properties, OccurredAt: in.OccurredAt, ReceivedAt: in.ReceivedAt, Source: in.Source, Hops: in.Hops, Wait: in.Wait,
	}
	e.Seq, e.Era = w.next(st)
	if err := w.batch.Emit(r.cause, e); err != nil {
		return err
	}
	if w.stores(e.Name) {
		w.events = append(w.events, stored(e))
	}
	return nil
}

// stores returns who says whether events of a name are kept in Postgres.
func (c *Config) stores(ctx context.Context, tx *storage.Tx) (func(name string) bool, error) {
	if c.Events == EventsReferenced {
		return c.Referenced(ctx, tx)
	}
	return func(string) bool { return c.Events != EventsNone }, nil
}

func stored(e *schemas.Event) storage.StoredEvent {
	return storage.StoredEvent{
		ID: e.ID, ContactID: e.ContactID, Name: e.Name, Properties: e.Properties,
		OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt, Source: e.Source, Seq: e.Seq, Era: e.Era,
	}
}

// answerInput answers a patch whose sender waits, at once, or when the contacts
// that merge because of it are folded in. Events are answered by identity.
func (w *work) answerInput(st *state, in input, lists listChange, conflicts []schemas.Conflict) error {
	if !in.Wait || in.Type == schemas.InputEvent {
		if len(in.merging) == 0 {
			return nil
		}
		return w.awaitLosers(st, in, nil)
	}
	a := schemas.Answer{ContactID: st.id, Created: in.created, Linked: !in.created, Merged: in.merging, Conflicts: conflicts}
	if lists.refused != nil {
		a.ListsError = lists.refused.Reason
	}
	if len(in.merging) == 0 {
		return w.answer(in.ID, a)
	}
	return w.awaitLosers(st, in, &a)
}

func pointer(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
