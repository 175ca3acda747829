package explain

import (
	"context"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// JourneyAnswer says how a contact stands with a journey, and why it did not begin it.
type JourneyAnswer struct {
	JourneyID string `json:"journeyId"`
	UserID    string `json:"userId"`
	ContactID string `json:"contactId"`
	Text      string `json:"text"`
	// Entries are by key; empty when nothing ever came that could have begun the journey.
	Entries []JourneyEntry `json:"entries"`
	Runs    []JourneyRun   `json:"runs" doc:"Those that live, and those that failed and can be retried."`
	// Next is when its time comes again for the contact, of one that a schedule begins.
	Next time.Time `json:"next,omitzero" doc:"When its schedule comes next for the contact."`
}

// JourneyEntry is how the contact has begun the journey with one key.
type JourneyEntry struct {
	Key     string       `json:"key,omitempty" doc:"JSON."`
	Count   int64        `json:"count" doc:"How often it began, held out or not."`
	Last    time.Time    `json:"last,omitzero"`
	Holdout bool         `json:"holdout"`
	Goal    time.Time    `json:"goalUntil,omitzero" doc:"Until when the goal counts that is not reached yet."`
	Queued  string       `json:"queued,omitempty" doc:"The trigger that waits for the end of a run."`
	Skipped *JourneySkip `json:"skipped,omitempty" doc:"The last trigger that did not enrol, when nothing began since."`
}

// JourneySkip is a trigger that did not enrol.
type JourneySkip struct {
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
	RecordID string    `json:"recordId"`
}

// JourneyRun is a run as its contact's state has it.
type JourneyRun struct {
	ID      string    `json:"id"`
	Version string    `json:"version"`
	Key     string    `json:"key,omitempty"`
	Failed  bool      `json:"failed"`
	Entered time.Time `json:"entered"`
	Due     time.Time `json:"due,omitzero" doc:"When time alone ends its step."`
	Zone    string    `json:"zone" doc:"Whose clock its times of day are of."`
}

// Journey says how a contact stands with a journey. A contact that is not there is
// ErrNoContact; whether the journey is defined it does not ask.
func (x *Explainer) Journey(ctx context.Context, journeyID, userID string) (*JourneyAnswer, error) {
	contact, err := x.db.ContactNamed(ctx, userID, schemas.KindExternal, schemas.KindAnonymous)
	switch {
	case err != nil:
		return nil, err
	case contact == nil:
		return nil, ErrNoContact
	}
	state, known, err := x.journeysOf(ctx, contact.ID)
	if err != nil {
		return nil, err
	}
	out := &JourneyAnswer{JourneyID: journeyID, UserID: userID, ContactID: contact.ID, Entries: []JourneyEntry{}, Runs: []JourneyRun{}, Next: state.Next(journeyID)}
	for _, e := range state.Entries() {
		if e.Journey != journeyID {
			continue
		}
		entry := JourneyEntry{Key: e.Key, Count: e.Count, Last: e.Last, Holdout: e.Holdout, Goal: e.GoalUntil, Queued: e.Queued}
		if e.Skip != "" {
			entry.Skipped = &JourneySkip{e.Skip, e.SkipAt, e.Skipped}
		}
		out.Entries = append(out.Entries, entry)
	}
	for _, r := range state.Runs() {
		if r.Journey == journeyID {
			out.Runs = append(out.Runs, JourneyRun{r.ID, r.Version, r.Key, r.Failed, r.Entered, r.Due, r.Zone})
		}
	}
	if out.Text = out.text(); !known {
		out.Text = "its processor has not begun with this contact yet: what came so far begins nothing"
	}
	return out, nil
}

// journeysOf is what the processor of journeys keeps of a contact; not known, it has not
// seen it.
func (x *Explainer) journeysOf(ctx context.Context, contact string) (state journeys.State, known bool, err error) {
	err = x.db.InTx(ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadDerived(ctx, journeys.Name, []string{contact})
		if err != nil || found.Contacts[contact] == nil {
			return err
		}
		known = true
		state, err = journeys.DecodeState(found.Contacts[contact].State)
		return err
	})
	if err != nil {
		return state, known, fmt.Errorf("journeys of contact %s: %w", contact, err)
	}
	return state, known, nil
}

// TriggerOf is what the journey of a run reads of the properties that began it, a JSON
// object; "" of a run that has ended, but for one that failed and can be tried again.
func (x *Explainer) TriggerOf(ctx context.Context, contact, run string) (string, error) {
	state, _, err := x.journeysOf(ctx, contact)
	if err != nil {
		return "", err
	}
	for _, r := range state.Runs() {
		if r.ID == run {
			return r.Trigger, nil
		}
	}
	return "", nil
}

// text is the answer in a sentence, of what came last.
func (a *JourneyAnswer) text() string {
	live := 0
	for _, r := range a.Runs {
		if !r.Failed {
			live++
		}
	}
	var last *JourneyEntry
	for i := range a.Entries {
		if e := &a.Entries[i]; last == nil || e.newest().After(last.newest()) {
			last = e
		}
	}
	var said string
	switch {
	case last == nil && !a.Next.IsZero():
		said = "its time has not come yet"
	case last == nil:
		said = "nothing of this kind ever came: no record that could have begun the journey"
	case last.Skipped != nil:
		said = fmt.Sprintf("record %s did not enrol at %s: %s", last.Skipped.RecordID, last.Skipped.At.Format(time.RFC3339), last.Skipped.Reason)
	case live > 0:
		said = fmt.Sprintf("%d of its runs live", live)
	default:
		said = fmt.Sprintf("none of its runs lives: it had %d of the journey, and the last began at %s", last.Count, last.Last.Format(time.RFC3339))
	}
	if !a.Next.IsZero() {
		said += "; it comes next at " + a.Next.Format(time.RFC3339)
	}
	return said
}

func (e *JourneyEntry) newest() time.Time {
	if e.Skipped != nil && e.Skipped.At.After(e.Last) {
		return e.Skipped.At
	}
	return e.Last
}
