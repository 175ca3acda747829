package definition

import (
	"context"
	"fmt"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Forecast is what a plan would do to members, as far as contacts were looked at.
type Forecast struct {
	At       schemas.ISOTime `json:"at" format:"date-time" doc:"As of when, by the clock of Postgres."`
	Contacts int64           `json:"contacts" doc:"Contacts that were looked at."`
	Total    int64           `json:"total" doc:"Contacts that there are."`
	Whole    bool            `json:"whole" doc:"false: there was no time for all contacts, and who enters and leaves is of those that were looked at."`
	Waiting  int64           `json:"waiting" doc:"Contacts of which records are still under way; they are looked at as Postgres has them."`
	Failed   int64           `json:"failed" doc:"Contacts of which the definitions fail; they would stay as they are."`
	Filling  *Filling        `json:"filling,omitempty" doc:"While contacts are still passed with the set in use: what that has still to do to these buckets is in the numbers."`
	Effects  []Effect        `json:"effects" doc:"By bucket."`
}

// Filling is how far contacts have been passed with the set in use.
type Filling struct {
	Passed int64 `json:"passed"`
	Total  int64 `json:"total"`
}

// Effect is what a plan would do to the members of a bucket.
type Effect struct {
	Bucket   string `json:"bucket"`
	Why      string `json:"why" doc:"Why its members may change, such as: changed (criteria), asks for vip."`
	Members  int64  `json:"members" doc:"Before."`
	Enter    int64  `json:"enter" doc:"Contacts that would enter."`
	Leave    int64  `json:"leave" doc:"Contacts that would leave."`
	Told     int64  `json:"told" doc:"Facts bucket.entered and bucket.left that would be published."`
	Entering []Move `json:"entering" doc:"Some of those that would enter."`
	Leaving  []Move `json:"leaving" doc:"Some of those that would leave."`
}

// Move is a contact that would enter a bucket, or leave it.
type Move struct {
	Bucket    string `json:"bucket"`
	Move      string `json:"move" enum:"enters,leaves"`
	ContactID string `json:"contactId"`
	UserID    string `json:"userId" doc:"The contact's userId, else its anonymousId, else its own id."`
	Email     string `json:"email,omitempty"`
}

// What a [Move] says.
const (
	Enters = "enters"
	Leaves = "leaves"
)

// Effects are those of the plan without numbers, by bucket.
func (p *Plan) Effects() []Effect {
	out := []Effect{}
	for _, b := range p.Moving() {
		out = append(out, Effect{Bucket: b.ID, Why: p.why(b), Entering: []Move{}, Leaving: []Move{}})
	}
	return out
}

// Removal is what becomes of a bucket that is removed.
type Removal struct {
	Bucket  string `json:"bucket"`
	Members int64  `json:"members" doc:"They stay what they are, and are told nothing; purging the bucket forgets them."`
}

// Report is a plan as it is shown.
type Report struct {
	Hash    string      `json:"hash" doc:"Of what the plan stands on. Applied with it, nothing is changed unless that is as it was."`
	Version int64       `json:"version" doc:"Of the set in use."`
	Changed bool        `json:"changed"`
	Changes []Change    `json:"changes" doc:"By kind and id."`
	Members *Forecast   `json:"members,omitempty" doc:"Left out when it was not asked for."`
	Removed []Removal   `json:"removed"`
	Runs    []RunsLeft  `json:"runs" doc:"Live runs of journeys of which the version changes, or which are removed."`
	Broken  []Reference `json:"broken" doc:"What asks for buckets that are removed. While there is one, the plan cannot be applied."`
	Failing []Failing   `json:"failing" doc:"Files with faults; what is in use of them stays."`
	Notes   []string    `json:"notes"`
}

// Reported reads what a report says beside the plan. members may be nil.
func (p *Plan) Reported(ctx context.Context, db *storage.DB, members *Forecast) (*Report, error) {
	r := &Report{
		Hash: p.Basis.Hash(), Version: p.InUse.Version, Changed: len(p.Changes) > 0, Changes: append([]Change{}, p.Changes...),
		Members: members, Removed: []Removal{}, Broken: []Reference{}, Failing: append([]Failing{}, p.Next.Failing...), Notes: p.notes(),
	}
	broken, err := p.Broken(ctx, db)
	if err != nil {
		return nil, err
	}
	r.Broken = append(r.Broken, broken...)
	if r.Runs, err = p.runsLeft(ctx, db); err != nil {
		return nil, err
	}
	unasked, err := p.Next.Unasked(ctx, db)
	if err != nil {
		return nil, err
	}
	for _, u := range unasked {
		r.Notes = append(r.Notes, u.String())
	}
	for _, c := range p.Changes {
		if c.What != Removed || c.Kind != BucketKind {
			continue
		}
		counts, err := db.BucketCountsOf(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		r.Removed = append(r.Removed, Removal{c.ID, counts.Active})
	}
	return r, nil
}

// notes say what numbers cannot: for which events history begins only now.
func (p *Plan) notes() []string {
	out := []string{}
	said := map[string]bool{}
	for _, b := range p.Moving() {
		for _, event := range b.Criteria.Inputs().Events {
			switch name := event.Name; {
			case said[name] || p.InUse.LooksAt(name):
				continue
			case !IsStored(name):
				out = append(out, fmt.Sprintf("%s is no event that is stored, so bucket %s begins without history of it", name, b.ID))
			case p.opts.Referenced:
				out = append(out, fmt.Sprintf("EVENTS_MODE=referenced did not store %s so far, so bucket %s begins without history of it", name, b.ID))
			default:
				continue
			}
			said[event.Name] = true
		}
	}
	return out
}

// Summary is changes in a line: 1 added, 2 changed, 0 removed.
func Summary(changes []Change) string {
	n := map[string]int{}
	for _, c := range changes {
		n[c.What]++
	}
	return fmt.Sprintf("%d added, %d changed, %d removed", n[Added], n[Changed], n[Removed])
}
