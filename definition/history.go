package definition

import (
	"context"
	"fmt"

	"github.com/aymanbagabas/go-udiff"
	"github.com/goccy/go-yaml"

	"github.com/hogstream/hogstream/schemas"
)

// Entry is a version that is or was in use.
type Entry struct {
	Version   int64           `json:"version"`
	AppliedAt schemas.ISOTime `json:"appliedAt" format:"date-time"`
	AppliedBy string          `json:"appliedBy" doc:"Who or what applied it."`
	Buckets   int             `json:"buckets" doc:"How many there are in it."`
	Counts    []Count         `json:"counts" doc:"How many definitions of each kind there are in it."`
	Changes   []Change        `json:"changes" doc:"Against the version before, by kind and id."`
	Summary   string          `json:"summary" doc:"The changes in a line."`
}

// History are the newest versions below one, newest first, at most limit; 0 is all. Whether
// there are older ones is said by the last, which is version 1 when there are none.
func History(ctx context.Context, from Reader, below int64, limit int) ([]Entry, error) {
	stored, err := from.DefinitionSets(ctx, below, limit+1)
	if err != nil {
		return nil, err
	}
	sets := make([]*Set, len(stored), len(stored)+1)
	for i := range stored {
		if sets[i], err = readSet(&stored[i]); err != nil {
			return nil, err
		}
	}
	sets = append(sets, &Set{}) // before the first
	out := make([]Entry, min(limit, len(stored)))
	for i := range out {
		s := sets[i]
		changes := differences(sets[i+1], s.all())
		out[i] = Entry{s.Version, schemas.ISOTime{Time: s.AppliedAt}, s.AppliedBy, len(s.Buckets), s.Counts(), append([]Change{}, changes...), Summary(changes)}
	}
	return out, nil
}

// Difference is a definition that two sets say otherwise.
type Difference struct {
	Change
	Diff string `json:"diff" doc:"A unified diff of the two definitions in their one form, as YAML."`
}

// Diff is what changes from one set to another, by kind and id.
func Diff(a, b *Set) []Difference {
	out := []Difference{}
	was, is := a.byRef(), b.byRef()
	for _, c := range differences(a, b.all()) {
		name := func(s *Set) string { return fmt.Sprintf("version %d/%s", s.Version, c.Ref()) }
		out = append(out, Difference{c, udiff.Unified(name(a), name(b), was[c.Ref()].text(), is[c.Ref()].text())})
	}
	return out
}

// text is the definition as YAML, in its one form; empty for none.
func (e entry) text() string {
	if e.Definition == nil {
		return ""
	}
	text, err := yaml.JSONToYAML([]byte(e.declared().Canonical()))
	if err != nil {
		panic(fmt.Sprintf("definition: the canonical form of %s is no YAML: %v", e.Ref(), err)) // JSON is
	}
	if e.Switched != nil {
		text = append(text, fmt.Sprintf("# switched by an administrator: enabled is %t\n", *e.Switched)...)
	}
	if e.Paused {
		text = append(text, "# paused by an administrator\n"...)
	}
	return string(text)
}
