package definition

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/predicate"
)

// planning finds out which definitions would be in use if files were applied. Definitions
// with faults keep the form that is in use, or are left out when there is none.
type planning struct {
	inUse   *Set
	files   *Files
	opts    Options
	before  map[Ref]entry       // in use
	fresh   map[Ref]Definition  // as the files say
	kept    map[Ref]Definition  // as they are in use
	beside  map[Ref]bool        // of kept: those that cannot be compiled, which is known already
	failing map[string]*Failing // by file
}

// plan returns the definitions that would be in use, without revisions, and what fails.
func plan(inUse *Set, files *Files, opts Options) ([]entry, []Failing) {
	p := &planning{
		inUse: inUse, files: files, opts: opts, before: inUse.byRef(), fresh: map[Ref]Definition{}, kept: map[Ref]Definition{},
		beside: map[Ref]bool{}, failing: map[string]*Failing{},
	}
	p.begin()
	for p.settle() {
	}
	return p.definitions(), p.failures()
}

// replaces says whether the files say all there is of the source that a definition came
// from. What programs built in Go and what was applied from files do not remove each other.
func (f *Files) replaces(file string) bool {
	if file == "" {
		return f.built
	}
	return f.Dir != ""
}

func (p *planning) begin() {
	for _, d := range p.files.all() {
		p.fresh[d.Ref()] = d
	}
	mayRemove := true
	for _, bad := range p.files.Faulty {
		p.fail(bad.File, bad.Faults, bad.IDs...)
		mayRemove = mayRemove && !bad.unread
		for _, ref := range refs(bad.File, bad.IDs) {
			p.keep(ref)
		}
	}
	for _, e := range p.inUse.all() {
		file := e.head().File
		// What a file that cannot be read defines is not known, so nothing is removed.
		if !p.files.replaces(file) || file != "" && !mayRemove {
			p.keep(e.Ref())
		}
		if bad := p.failing[file]; bad != nil && p.isUnread(file) {
			p.fail(file, nil, e.Ref().ID)
		}
	}
}

func (p *planning) isUnread(file string) bool {
	return slices.ContainsFunc(p.files.Faulty, func(f Faulty) bool { return f.File == file && f.unread })
}

// keep has a definition stay as it is in use, and with it those that it asks for.
func (p *planning) keep(ref Ref) {
	e, inUse := p.before[ref]
	if _, fresh := p.fresh[ref]; fresh || !inUse {
		return
	}
	if _, kept := p.kept[ref]; kept {
		return
	}
	p.kept[ref] = e.declared()
	for _, asked := range e.asks() {
		p.keep(asked)
	}
}

func (p *planning) fail(file string, faults predicate.Faults, ids ...string) {
	f := p.failing[file]
	if f == nil {
		f = &Failing{File: file}
		p.failing[file] = f
	}
	for _, id := range ids {
		if !slices.Contains(f.IDs, id) {
			f.IDs = append(f.IDs, id)
		}
	}
	if len(faults) > 0 {
		f.Faults = strings.TrimPrefix(f.Faults+"\n"+faults.Error(), "\n")
	}
}

// settle compares the definitions with each other once and takes back what has faults. It
// returns false when there are none left.
func (p *planning) settle() bool {
	list := slices.Collect(maps.Values(p.fresh))
	var beside []Definition
	for ref, d := range p.kept {
		if p.beside[ref] {
			beside = append(beside, d)
		} else {
			list = append(list, d)
		}
	}
	list = sorted(list)
	faults := compile(list, beside, nil, p.opts)
	takenBack := false
	for _, i := range slices.Sorted(maps.Keys(faults)) {
		if _, fresh := p.fresh[list[i].Ref()]; fresh {
			p.takeBack(list[i], faults[i])
			takenBack = true
		}
	}
	if takenBack || len(faults) == 0 {
		return takenBack
	}
	for _, i := range slices.Sorted(maps.Keys(faults)) {
		p.blame(list[i].Ref(), faults[i])
	}
	return true
}

// takeBack has what the files say of a definition count for nothing.
func (p *planning) takeBack(d Definition, faults predicate.Faults) {
	p.fail(cmp.Or(d.head().File, kindOf(d).built), faults, d.Ref().ID)
	delete(p.fresh, d.Ref())
	p.keep(d.Ref())
}

// blame takes back what a definition that is in use asks for, with which it does not go
// together. When that is not the cause, its faults are as old as itself.
func (p *planning) blame(ref Ref, faults predicate.Faults) {
	seen := map[Ref]bool{ref: true}
	blamed := false
	for ask := []Ref{ref}; len(ask) > 0; ask = ask[1:] {
		d, fresh := p.fresh[ask[0]]
		if fresh {
			p.takeBack(d, faults)
			blamed = true
		} else if d = p.kept[ask[0]]; d == nil {
			continue
		}
		for _, next := range d.asks() {
			if !seen[next] {
				seen[next] = true
				ask = append(ask, next)
			}
		}
	}
	if !blamed {
		p.beside[ref] = true
	}
}

func (p *planning) definitions() []entry {
	list := slices.Collect(maps.Values(p.fresh))
	list = append(list, slices.Collect(maps.Values(p.kept))...)
	out := make([]entry, len(list))
	for i, d := range sorted(list) {
		before := p.before[d.Ref()]
		out[i] = newEntry(d, before.Switched)
		out[i].Paused = before.Paused
	}
	return out
}

// failures are those of what the files replace, and those that were known of the rest.
func (p *planning) failures() []Failing {
	for _, f := range p.inUse.Failing {
		source := f.File
		if k := kindOfFile(f.File); k != nil && k.built == f.File {
			source = ""
		}
		if !p.files.replaces(source) {
			p.failing[f.File] = &f
		}
	}
	var out []Failing
	for _, file := range slices.Sorted(maps.Keys(p.failing)) {
		slices.Sort(p.failing[file].IDs)
		out = append(out, *p.failing[file])
	}
	return out
}

// revise gives each definition the version at which it last changed in what states of
// contacts depend on, or at which it was enabled or resumed.
func revise(before *Set, list []entry, version int64) {
	was := before.byRef()
	raised := map[Ref]bool{}
	for i := range list {
		e := &list[i]
		if old, stood := was[e.Ref()]; !stood || old.evaluated() != e.evaluated() || e.head().Enabled && !old.head().Enabled || old.Paused && !e.Paused {
			raised[e.Ref()] = true
			e.Revision = version
		} else {
			e.Revision = old.Revision
		}
	}
	for again := len(raised) > 0; again; {
		again = false
		for i := range list {
			e := &list[i]
			if !raised[e.Ref()] && slices.ContainsFunc(e.asks(), func(asked Ref) bool { return raised[asked] }) {
				raised[e.Ref()], e.Revision, again = true, version, true
			}
		}
	}
}
