package contacts

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/document"
	"github.com/hogstream/hogstream/storage"
)

// handOver ends a contact that is merged away, and sends what is known of it to
// its survivor. Nothing may be known: its records can still be on their way from
// other partitions, and are then forwarded one by one.
func (w *work) handOver(st *state, r *record) error {
	survivor := r.Merge.Survivor
	absorb := &schemas.Resolved{
		ID: schemas.Derive(r.ID, "absorb", 0), Type: schemas.ResolvedAbsorb, ContactID: survivor, OccurredAt: r.OccurredAt,
		Absorb: &schemas.Absorb{Loser: st.id, InputID: r.Merge.InputID},
	}
	last, era := w.last(st)
	if st.row != nil {
		absorb.Absorb.State = st.snapshot()
		if err := w.tombstone(st, r); err != nil {
			return err
		}
	}
	if err := w.batch.Emit(r.cause, absorb); err != nil {
		return err
	}
	st.end(survivor)
	return w.tellFollowers(st, r, schemas.Signal{
		Type: schemas.SignalMerged, Merged: &schemas.MergedSignal{Survivor: survivor, Seq: last, Era: era},
	})
}

// last is the number of a contact's latest record.
func (w *work) last(st *state) (seq, era int64) {
	if st.row == nil {
		return 0, w.era
	}
	return st.row.Seq, st.row.Era
}

// end forgets the contact; from now on it is only a mark.
func (st *state) end(survivor string) {
	st.row, st.preferences, st.preferencesChanged = nil, nil, false
	st.ended, st.survivor, st.marked = true, survivor, true
}

func (w *work) tombstone(st *state, r *record) error {
	return w.batch.Emit(r.cause, &schemas.Tombstone{
		ContactID: st.id, Cause: schemas.Meta{ID: r.ID, Type: r.Type, OccurredAt: r.OccurredAt},
	})
}

// tellFollowers lets the later processors hand over or erase their own state.
func (w *work) tellFollowers(st *state, r *record, signal schemas.Signal) error {
	signal.ContactID, signal.OccurredAt = st.id, r.OccurredAt
	for _, processor := range w.cfg.Followers {
		signal.ID, signal.For = schemas.Derive(r.ID, "signal:"+processor, 0), processor
		if err := w.batch.Emit(r.cause, &signal); err != nil {
			return err
		}
	}
	return nil
}

// forward sends a record that reached a merged contact on to its survivor.
func (w *work) forward(st *state, r *record) error {
	onward := &schemas.Resolved{
		ID: schemas.Derive(r.ID, "forward", 0), Type: schemas.ResolvedAbsorb, ContactID: st.survivor, OccurredAt: r.OccurredAt,
	}
	switch r.Type {
	case schemas.ResolvedInput:
		onward.Absorb = &schemas.Absorb{Loser: st.id, Record: &schemas.ForwardedInput{
			ID: r.ID, Input: *r.Input, Duplicate: r.Duplicate, Linked: inputOf(r).ids, Conflicts: r.Conflicts, Merging: r.Merging,
		}}
	case schemas.ResolvedAbsorb:
		onward.Absorb = r.Absorb
	default:
		return nil // merged already, and into somebody else it cannot be
	}
	return w.batch.Emit(r.cause, onward)
}

// absorb folds a loser into its survivor.
func (w *work) absorb(st *state, r *record) error {
	a := r.Absorb
	if !a.Deleted && (st.row == nil || !slices.Contains(st.row.Merged, a.Loser)) {
		if err := w.fold(st, r); err != nil {
			return err
		}
	}
	return w.loserArrived(r)
}

func (w *work) fold(st *state, r *record) error {
	a := r.Absorb
	cause := a.InputID
	if cause == "" {
		cause = r.ID
	}
	in := input{Input: &schemas.Input{ID: r.ID, OccurredAt: r.OccurredAt, ReceivedAt: w.batch.Now}}
	if st.row == nil {
		st.row = w.newContact(st, r.OccurredAt)
		st.nextVersion(r.OccurredAt)
		if err := w.emitFact(st, r, st.contactFact(in, schemas.FactContactCreated, nil)); err != nil {
			return err
		}
	}
	st.change(rewritten)
	mergedBefore, namesBefore, wasAnonymous := slices.Clone(st.row.Merged), st.anonymousIDs(), st.row.ExternalID == ""
	st.row.Merged = append(slices.Clip(st.row.Merged), a.Loser)
	var gained []schemas.Identifier
	var conflict *schemas.Conflict
	if a.State != nil {
		var err error
		removed := "{}"
		if p := w.pending[a.InputID]; p != nil && p.Removed != "" {
			removed = p.Removed
		}
		if gained, conflict, err = st.take(a.State, removed); err != nil {
			return fmt.Errorf("fold %s in: %w", a.Loser, err)
		}
	}
	st.nextVersion(st.row.LastSeenAt)
	merged := st.fact(r.ID, schemas.FactContactMerged, r.OccurredAt, 0)
	merged.CauseID = cause
	merged.Merged = &schemas.ContactMerged{LoserID: a.Loser, Version: st.row.Version, Properties: st.row.Properties, Gained: gained}
	if a.State != nil {
		merged.Merged.LoserMerged = a.State.Merged
	}
	if wasAnonymous && st.row.ExternalID != "" {
		merged.Merged.Merged, merged.Merged.AnonymousIDs = mergedBefore, namesBefore
	}
	if err := w.emitFact(st, r, merged); err != nil {
		return err
	}
	if conflict != nil {
		fact := st.fact(r.ID, schemas.FactContactConflict, r.OccurredAt, 0)
		fact.CauseID = cause
		fact.Conflict = &schemas.ContactConflict{Conflicts: []schemas.Conflict{*conflict}, InputID: cause}
		if err := w.emitFact(st, r, fact); err != nil {
			return err
		}
	}
	return w.batch.Emit(r.cause, st.snapshot())
}

// take adds a loser's state: what the survivor has, wins, as does what the input
// of the merge removed; no opt-out is lost.
func (st *state) take(loser *schemas.Contact, removed string) (gained []schemas.Identifier, refused *schemas.Conflict, err error) {
	properties, _, err := document.Patch(loser.Properties, removed)
	if err != nil {
		return nil, nil, fmt.Errorf("properties: %w", err)
	}
	properties, err = document.Overlay(properties, st.row.Properties)
	if err != nil {
		return nil, nil, fmt.Errorf("properties: %w", err)
	}
	if len(properties) > schemas.MaxProperties {
		refused = tooLarge(len(properties), "The properties of contact "+loser.ID+" were not taken over.")
	} else {
		st.row.Properties = properties
	}
	gained, _, _ = st.identify(loser.Identifiers)
	for _, id := range loser.Merged {
		if !slices.Contains(st.row.Merged, id) {
			st.row.Merged = append(st.row.Merged, id)
		}
	}
	for _, p := range loser.Preferences {
		folded := p
		if mine := st.preferenceOf(p.Email); !isZero(mine) {
			folded = schemas.FoldPreferences(mine, p)
		}
		st.setPreference(folded)
	}
	if loser.FirstSeenAt.Before(st.row.FirstSeenAt) {
		st.row.FirstSeenAt = loser.FirstSeenAt
	}
	if loser.LastSeenAt.After(st.row.LastSeenAt) {
		st.row.LastSeenAt = loser.LastSeenAt
	}
	return gained, refused, nil
}

func isZero(p schemas.Preference) bool {
	return !p.UnsubscribedAll && !p.Suppressed && p.BounceCount == 0 && len(p.Categories) == 0 &&
		p.SuppressedAt == nil && p.LastBounceAt == nil
}

// delete erases a contact: its row, its preferences, its events, also those
// stored under contacts that were merged into it.
func (w *work) delete(st *state, r *record, in *schemas.Input) error {
	w.forget = append(w.forget, st.id)
	if st.row != nil {
		w.forget = append(w.forget, st.row.Merged...)
		w.dropEvents(append([]string{st.id}, st.row.Merged...))
		fact := st.fact(in.ID, schemas.FactContactDeleted, in.OccurredAt, 0)
		fact.Deleted = &schemas.ContactDeleted{Version: st.row.Version + 1}
		if err := w.emitFact(st, r, fact); err != nil {
			return err
		}
		if err := w.tombstone(st, r); err != nil {
			return err
		}
	}
	last, era := w.last(st)
	st.end("")
	return w.tellFollowers(st, r, schemas.Signal{Type: schemas.SignalDeleted, Deleted: &schemas.DeletedSignal{Seq: last, Era: era}})
}

// dropEvents takes the events of erased contacts out of what this batch stores.
func (w *work) dropEvents(contacts []string) {
	w.events = slices.DeleteFunc(w.events, func(e storage.StoredEvent) bool { return slices.Contains(contacts, e.ContactID) })
}

// discard is for a record of a deleted contact. What it carries of a loser is
// erased with it, and nobody is left waiting.
func (w *work) discard(r *record) error {
	switch r.Type {
	case schemas.ResolvedMerge:
		return w.batch.Emit(r.cause, &schemas.Resolved{
			ID: schemas.Derive(r.ID, "absorb", 0), Type: schemas.ResolvedAbsorb, ContactID: r.Merge.Survivor, OccurredAt: r.OccurredAt,
			Absorb: &schemas.Absorb{Loser: r.ContactID, InputID: r.Merge.InputID, Deleted: true},
		})
	case schemas.ResolvedAbsorb:
		if r.Absorb.Record == nil {
			w.forget = append(w.forget, r.Absorb.Loser)
			if r.Absorb.State != nil {
				w.forget = append(w.forget, r.Absorb.State.Merged...)
			}
			w.dropEvents(w.forget)
			return w.loserArrived(r)
		}
	}
	in := inputOf(r)
	if !in.Wait || in.Type == schemas.InputEvent || in.Type == schemas.InputDelete {
		return nil
	}
	return w.answer(in.ID, schemas.Answer{Error: schemas.AnswerErased})
}

// awaitLosers keeps what is left to do for an input until all its losers have
// arrived: its answer, if the sender waits, and the properties that it removes,
// which a loser must not bring back.
func (w *work) awaitLosers(st *state, in input, a *schemas.Answer) error {
	p := &storage.PendingAnswer{InputID: in.ID, ContactID: st.id, Losers: slices.Clone(in.merging)}
	if a != nil {
		text, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("encode the answer to input %s: %w", in.ID, err)
		}
		p.Answer = string(text)
	}
	if in.ContactProperties != nil {
		var err error
		if p.Removed, err = removedBy(*in.ContactProperties); err != nil {
			return err
		}
	}
	if p.Answer == "" && p.Removed == "" {
		return nil
	}
	w.pending[in.ID] = p
	w.changedPending = append(w.changedPending, p)
	return nil
}

// removedBy is the part of a patch that sets properties to null; empty if none.
func removedBy(patch string) (string, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(patch), &members); err != nil {
		return "", fmt.Errorf("contact properties: %w", err)
	}
	maps.DeleteFunc(members, func(_ string, value json.RawMessage) bool { return string(value) != "null" })
	if len(members) == 0 {
		return "", nil
	}
	text, err := json.Marshal(members)
	return string(text), err
}

// loserArrived gives the answer when it was the last loser that it waited for.
func (w *work) loserArrived(r *record) error {
	p := w.pending[r.Absorb.InputID]
	if p == nil {
		return nil
	}
	before := len(p.Losers)
	p.Losers = slices.DeleteFunc(p.Losers, func(id string) bool { return id == r.Absorb.Loser })
	if len(p.Losers) == before {
		return nil
	}
	if !slices.Contains(w.changedPending, p) {
		w.changedPending = append(w.changedPending, p)
	}
	if len(p.Losers) == 0 && p.Answer != "" {
		w.answers = append(w.answers, storage.Answer{InputID: p.InputID, JSON: []byte(p.Answer)})
	}
	return nil
}
