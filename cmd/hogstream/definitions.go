package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strings"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
)

type checkCmd struct {
	Dir string `arg:"" optional:"" help:"Directory of definitions; DEFINITIONS_DIR, or ./definitions, when not given."`
	infraFlags
}

// definitionFault is a fault as --json has it.
type definitionFault struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

// Run reads the files and asks no server.
func (c *checkCmd) Run(out *output) error {
	files, err := load(c.Dir, &c.Config)
	if err != nil {
		return err
	}
	tests, err := definition.LoadTests(files.Dir, files)
	if err != nil {
		return err
	}
	all := append(files.Faults(), tests.Faults...)
	faults := []definitionFault{}
	for _, f := range all {
		faults = append(faults, definitionFault{f.File, f.Line, f.Column, f.Path, f.Message})
	}
	err = out.value(map[string]any{"dir": files.Dir, "buckets": len(files.Buckets), "definitions": files.Counts(), "tests": len(tests.Cases), "faults": faults}, func(w io.Writer) {
		for _, f := range all {
			fmt.Fprintln(w, f)
		}
		if len(faults) == 0 {
			fmt.Fprintf(w, "%s: %s, %s, no faults\n", files.Dir, countsInWords(files.Counts()), counted(len(tests.Cases), "test"))
		}
	})
	return errors.Join(err, faulty(len(faults)))
}

// load reads the definitions of a directory, or of the one that the settings name.
func load(dir string, cfg *hogstream.Config) (*definition.Files, error) {
	return definition.Load(cmp.Or(dir, cfg.Definitions.Dir, defaultDefinitions), cfg.DefinitionOptions())
}

func faulty(faults int) error {
	if faults == 0 {
		return nil
	}
	return errors.New(counted(faults, "fault") + " in the definitions")
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// countsInWords is 2 buckets, 1 enrichment.
func countsInWords(counts []definition.Count) string {
	words := make([]string, len(counts))
	for i, c := range counts {
		words[i] = c.String()
	}
	return strings.Join(words, ", ")
}

type applyCmd struct {
	Dir string `arg:"" optional:"" help:"Directory of definitions; DEFINITIONS_DIR, or ./definitions, when not given."`
	carryOutFlags
}

// Run puts the definitions in use, for all instances. With a fault nothing is changed.
func (c *applyCmd) Run(ctx context.Context, out *output) error {
	p, err := openPlanner(ctx, c.infraFlags)
	if err != nil {
		return err
	}
	defer p.db.Close()
	if err := p.want(ctx, c.Dir, 0); err != nil {
		return fmt.Errorf("%w: nothing was applied", err)
	}
	done, err := p.carryOut(ctx, out, &c.carryOutFlags, "hogstream apply")
	if err != nil {
		return err
	}
	return out.value(appliedOf(done), func(w io.Writer) { printApplied(w, p.dir, done) })
}

// whoRuns names a command and the person who runs it.
func whoRuns(command string) string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return command + " by " + u.Username
	}
	return command
}

// applied is an outcome as --json has it.
type applied struct {
	Version int64                `json:"version"`
	Changed bool                 `json:"changed"`
	Changes []definition.Change  `json:"changes"`
	Failing []definition.Failing `json:"failing"`
}

func appliedOf(out *definition.Outcome) applied {
	return applied{out.Set.Version, out.Changed, append([]definition.Change{}, out.Changes...), append([]definition.Failing{}, out.Set.Failing...)}
}

// printApplied says what came of applying definitions.
func printApplied(w io.Writer, dir string, out *definition.Outcome) {
	switch {
	case out.Changed:
		fmt.Fprintf(w, "%s is in use as version %d\n", dir, out.Set.Version)
	default:
		fmt.Fprintf(w, "%s: nothing changed, version %d is in use\n", dir, out.Set.Version)
	}
	for _, c := range out.Changes {
		fields := ""
		if len(c.Fields) > 0 {
			fields = " (" + strings.Join(c.Fields, ", ") + ")"
		}
		fmt.Fprintf(w, "  %-8s %s%s\n", c.What, c.Ref(), fields)
	}
	printForecast(w, out.Members)
	for _, r := range out.Broken {
		fmt.Fprintf(w, "  WARNING  %s, which was removed: its members stay as they are\n", r)
	}
	for _, u := range out.Unasked {
		fmt.Fprintf(w, "  WARNING  %s\n", u)
	}
	for _, f := range out.Set.Failing {
		for line := range strings.SplitSeq(f.Faults, "\n") {
			fmt.Fprintf(w, "  FAULT    %s\n", line)
		}
		fmt.Fprintf(w, "           %s; it fails since %s\n", inUseOf(out.Set, &f), f.Since.Local().Format("2006-01-02 15:04:05"))
	}
}

// inUseOf says what is in use of a file with faults.
func inUseOf(set *definition.Set, f *definition.Failing) string {
	if set.Keeps(f) {
		return "its last good form stays in use"
	}
	return "nothing of it is in use"
}
