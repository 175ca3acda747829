package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/enrich"
	"github.com/hogstream/hogstream/schemas"
)

type enrichCmd struct {
	Ls   enrichLsCmd   `cmd:"" help:"List the enrichments in use, and whether their destinations can be asked."`
	Show enrichShowCmd `cmd:"" help:"Show what was asked about somebody, what came of it, and when it is asked next."`
}

type enrichLsCmd struct {
	infraFlags
}

// listedEnrichment is an enrichment as --json has it.
type listedEnrichment struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Enabled     bool   `json:"enabled"`
	Destination string `json:"destination"`
	Trouble     string `json:"trouble,omitempty"` // of the destination
	Revision    int64  `json:"revision"`
}

// Run lists them by id.
func (c *enrichLsCmd) Run(ctx context.Context, out *output) error {
	p, err := openPlanner(ctx, c.infraFlags)
	if err != nil {
		return err
	}
	defer p.db.Close()
	set, err := definition.Current(ctx, p.db)
	if err != nil {
		return err
	}
	unasked, err := set.Unasked(ctx, p.db)
	if err != nil {
		return err
	}
	trouble := map[definition.Ref]string{}
	for _, u := range unasked {
		trouble[u.Ref] = u.Why
	}
	list := []listedEnrichment{}
	for _, e := range set.Enrichments {
		list = append(list, listedEnrichment{e.ID, e.Name, e.Enabled, e.Destination, trouble[e.Ref()], e.Revision})
	}
	return out.value(map[string]any{"enrichments": list}, func(w io.Writer) {
		rows := make([][]string, len(list))
		for i, e := range list {
			rows[i] = []string{e.ID, e.Name, strconv.FormatBool(e.Enabled), e.Destination, cmp.Or(e.Trouble, "can be asked")}
		}
		table(w, []string{"id", "name", "enabled", "destination", ""}, rows)
	})
}

type enrichShowCmd struct {
	UserID string `arg:"" help:"User id, anonymous id or contact id."`
	infraFlags
}

// Run shows what processor enrich keeps of a contact.
func (c *enrichShowCmd) Run(ctx context.Context, out *output) error {
	p, err := openPlanner(ctx, c.infraFlags)
	if err != nil {
		return err
	}
	defer p.db.Close()
	contact, shown, err := explain.New(p.db, nil, nil, predicate.DefaultLimits(), nil).Enrichments(ctx, c.UserID)
	if errors.Is(err, explain.ErrNoContact) {
		return fmt.Errorf("nobody is known as %q", c.UserID)
	}
	if err != nil {
		return err
	}
	return out.value(map[string]any{"contactId": contact, "enrichments": shown}, func(w io.Writer) {
		if len(shown) == 0 {
			fmt.Fprintf(w, "%s was not asked about\n", c.UserID)
			return
		}
		rows := make([][]string, len(shown))
		for i, s := range shown {
			rows[i] = []string{s.Enrichment, strconv.FormatBool(s.Holds), strconv.FormatInt(s.Calls, 10), shownISO(s.AskedAt), enrichState(&s), s.Detail, shownISO(s.NextAt), s.Because}
		}
		table(w, []string{"enrichment", "holds", "calls", "asked", "outcome", "detail", "next", "because"}, rows)
	})
}

// enrichState is a word for how it stands.
func enrichState(s *enrich.Shown) string {
	switch {
	case s.UnderWay:
		return "under way"
	case s.Failures > 0:
		return fmt.Sprintf("%s (%s)", s.Outcome, counted(s.Failures, "failure"))
	}
	return s.Outcome
}

func shownISO(at *schemas.ISOTime) string {
	if at == nil {
		return ""
	}
	return shownTime(at.Time)
}
