package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hogstream/hogstream/definition"
)

// carryOutFlags are those of commands that carry a plan out.
type carryOutFlags struct {
	Plan string `help:"Hash of a plan, or the file that plan --out wrote: nothing is changed when what it stands on has moved."`
	Yes  bool   `help:"Do not ask, and do not look who would enter and leave." short:"y"`
	forecastFlags
	infraFlags
}

// carryOut applies what is wanted: by a plan that was made before, or by one that is shown
// and agreed to.
func (p *planner) carryOut(ctx context.Context, out *output, flags *carryOutFlags, command string) (*definition.Outcome, error) {
	saved := &savedPlan{Hash: flags.Plan}
	var err error
	if flags.Plan == "" {
		saved.Hash, err = p.agree(ctx, out, flags)
	} else {
		saved, err = readPlan(flags.Plan)
	}
	if err != nil {
		return nil, err
	}
	basis, err := definition.ParseHash(saved.Hash)
	if err != nil {
		return nil, err
	}
	done, err := definition.ApplyPlan(ctx, p.db, p.wanted, p.opts, whoRuns(command), basis)
	var moved *definition.MovedError
	if errors.As(err, &moved) {
		return nil, p.withDiffering(moved, saved)
	}
	return done, err
}

// agree makes a plan and returns its hash when somebody agrees to it, or nobody has to.
func (p *planner) agree(ctx context.Context, out *output, flags *carryOutFlags) (hash string, err error) {
	quick := forecastFlags{NoMembers: true}
	if err := p.make(ctx, quick, "", true); err != nil {
		return "", err
	}
	if flags.Yes || len(p.plan.Changes) == 0 {
		return p.report.Hash, nil
	}
	if !somebodyToAsk() {
		return "", errNobodyToAsk
	}
	if !flags.NoMembers {
		if err := p.make(ctx, flags.forecastFlags, "", out.JSON); err != nil {
			return "", err
		}
	}
	printPlan(stderr, p.report)
	return p.report.Hash, confirm(ctx, "\nPut it in use?")
}

// readPlan reads a hash, or the file that has one.
func readPlan(hashOrFile string) (*savedPlan, error) {
	if _, err := definition.ParseHash(hashOrFile); err == nil {
		return &savedPlan{Hash: hashOrFile}, nil
	}
	text, err := os.ReadFile(hashOrFile)
	if err != nil {
		return nil, fmt.Errorf("--plan is no hash of a plan, and no file that can be read: %w", err)
	}
	saved := &savedPlan{}
	if err := json.Unmarshal(text, saved); err != nil {
		return nil, fmt.Errorf("%s is no file that plan --out wrote: %w", hashOrFile, err)
	}
	return saved, nil
}

// withDiffering names the definitions that are not those of the plan, where the plan has
// them.
func (p *planner) withDiffering(moved *definition.MovedError, saved *savedPlan) error {
	if moved.Was.Definitions == moved.Is.Definitions || saved.Definitions == nil {
		return moved
	}
	var differing []string
	now := canonicalOf(p.files)
	for id, text := range saved.Definitions {
		if !sameJSON(text, now[id]) {
			differing = append(differing, id)
		}
		delete(now, id)
	}
	for id := range now {
		differing = append(differing, id)
	}
	slices.Sort(differing)
	return fmt.Errorf("%w (what differs: %s)", moved, strings.Join(differing, ", "))
}

// sameJSON compares texts that may be indented.
func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

type rollbackCmd struct {
	Version int64 `arg:"" help:"Version to put in use again; hogstream history has those there are."`
	carryOutFlags
}

// Run makes a new version with the definitions of one before.
func (c *rollbackCmd) Run(ctx context.Context, out *output) error {
	p, err := openPlanner(ctx, c.infraFlags)
	if err != nil {
		return err
	}
	defer p.db.Close()
	if err := p.want(ctx, "", c.Version); err != nil {
		return err
	}
	done, err := p.carryOut(ctx, out, &c.carryOutFlags, fmt.Sprintf("hogstream rollback %d", c.Version))
	if err != nil {
		return err
	}
	return out.value(appliedOf(done), func(w io.Writer) {
		printApplied(w, fmt.Sprintf("what version %d was", c.Version), done)
		if done.Changed {
			fmt.Fprintln(w, "\nThe files are as they were: the next apply, or start with DEFINITIONS_APPLY, puts them in use again.")
		}
	})
}

type historyCmd struct {
	Limit int `help:"How many versions." default:"20"`
	infraFlags
}

// Run lists versions of the definitions, newest first.
func (c *historyCmd) Run(ctx context.Context, out *output) error {
	p, err := openPlanner(ctx, c.infraFlags)
	if err != nil {
		return err
	}
	defer p.db.Close()
	entries, err := definition.History(ctx, p.db, 0, c.Limit)
	if err != nil {
		return err
	}
	return out.value(map[string]any{"versions": entries}, func(w io.Writer) {
		rows := make([][]string, len(entries))
		for i, e := range entries {
			rows[i] = []string{strconv.FormatInt(e.Version, 10), e.AppliedAt.Local().Format("2006-01-02 15:04:05"), e.AppliedBy, countsInWords(e.Counts), e.Summary, changedIDs(e.Changes)}
		}
		table(w, []string{"version", "applied", "by", "definitions", "changes", "of"}, rows)
	})
}

// changedIDs are the ids of what changed, with signs.
func changedIDs(changes []definition.Change) string {
	words := make([]string, len(changes))
	for i, c := range changes {
		words[i] = signs[c.What] + c.Ref().String()
	}
	return strings.Join(words, " ")
}

type diffCmd struct {
	From int64  `arg:"" help:"Version; 0 is before the first."`
	To   *int64 `arg:"" optional:"" help:"Version; what is in use when not given."`
	infraFlags
}

// Run shows how two versions of the definitions differ.
func (c *diffCmd) Run(ctx context.Context, out *output) error {
	p, err := openPlanner(ctx, c.infraFlags)
	if err != nil {
		return err
	}
	defer p.db.Close()
	from, err := definition.Version(ctx, p.db, c.From)
	if err != nil {
		return err
	}
	to, err := definition.Current(ctx, p.db)
	if err == nil && c.To != nil {
		to, err = definition.Version(ctx, p.db, *c.To)
	}
	if err != nil {
		return err
	}
	differences := definition.Diff(from, to)
	return out.value(map[string]any{"from": from.Version, "to": to.Version, "differences": differences}, func(w io.Writer) {
		for _, d := range differences {
			fmt.Fprintf(w, "%s\n%s\n", d.Change, d.Diff)
		}
		fmt.Fprintf(w, "From version %d to %d: %s differ.\n", from.Version, to.Version, counted(len(differences), "definition"))
	})
}
