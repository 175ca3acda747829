package definition

import (
	"context"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/storage"
)

// RunsLeft are live runs of a journey that a plan changes or removes, by where they stand.
type RunsLeft struct {
	Journey string `json:"journey"`
	Version string `json:"version" doc:"Of the journey, to which the runs belong."`
	Step    string `json:"step" doc:"At which they stand."`
	Runs    int64  `json:"runs"`
	Then    string `json:"then" enum:"finish,exit" doc:"finish: they go on with their version. exit: they end there, with the reason definition_changed."`
}

// runsLeft says what becomes of live runs: those of versions that are not the journey's any
// more end as it then says, or as it said last.
func (p *Plan) runsLeft(ctx context.Context, db *storage.DB) ([]RunsLeft, error) {
	out := []RunsLeft{}
	next := map[string]*JourneyInUse{}
	all := p.Next.AllJourneys()
	for i := range all {
		next[all[i].ID] = &all[i]
	}
	for _, j := range p.InUse.AllJourneys() {
		then, stays := next[j.ID], ""
		if then != nil {
			if stays = then.Identity(); stays == j.Identity() {
				continue
			}
		} else {
			then = &j
		}
		stand, err := db.JourneyRunsByStep(ctx, j.ID)
		if err != nil {
			return nil, err
		}
		for _, s := range stand {
			if s.Version == stays {
				continue
			}
			left := RunsLeft{j.ID, s.Version, s.Step, s.Runs, journeys.OnChangeFinish}
			if then.OnChange != "" {
				left.Then = then.OnChange
			}
			out = append(out, left)
		}
	}
	return out, nil
}
