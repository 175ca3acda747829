package definition

import (
	"maps"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/predicate"
)

// builtInGo stands for the file of what was built in Go.
const builtInGo = "built in Go"

// planning finds out which definitions would be in use if files were applied. Definitions
// with faults keep the form that is in use, or are left out when there is none.
type planning struct {
	inUse   *Set
	files   *Files
	opts    Options
	fresh   map[string]Bucket   // as the files say
	kept    map[string]Bucket   // as they are in use
	beside  map[string]bool     // of kept: those that cannot be compiled, which is known already
	failing map[string]*Failing // by file
}

// plan returns the buckets that would be in use, without revisions, and what fails.
func plan(inUse *Set, files *Files, opts Options) ([]BucketInUse, []Failing) {
	p := &planning{
		inUse: inUse, files: files, opts: opts, fresh: map[string]Bucket{}, kept: map[string]Bucket{},
		beside: map[string]bool{}, failing: map[string]*Failing{},
	}
	p.begin()
	for p.settle() {
	}
	return p.buckets(), p.failures()
}

// replaces says whether the files say all there is of the source that a bucket came from.
// What programs built in Go and what was applied from files do not remove each other.
func (f *Files) replaces(b Bucket) bool {
	if b.File == "" {
		return f.built
	}
	return f.Dir != ""
}

func (p *planning) begin() {
	for _, b := range p.files.Buckets {
		p.fresh[b.ID] = b
	}
	mayRemove := true
	for _, bad := range p.files.Faulty {
		p.fail(bad.File, bad.Faults, bad.IDs...)
		mayRemove = mayRemove && !bad.unread
		for _, id := range bad.IDs {
			p.keep(id)
		}
	}
	for _, b := range p.inUse.Buckets {
		// What a file that cannot be read defines is not known, so nothing is removed.
		if !p.files.replaces(b.Bucket) || b.File != "" && !mayRemove {
			p.keep(b.ID)
		}
		if bad := p.failing[b.File]; bad != nil && p.isUnread(b.File) {
			p.fail(b.File, nil, b.ID)
		}
	}
}

func (p *planning) isUnread(file string) bool {
	return slices.ContainsFunc(p.files.Faulty, func(f Faulty) bool { return f.File == file && f.unread })
}

// keep has a bucket stay as it is in use, and with it those that it asks for.
func (p *planning) keep(id string) {
	b := p.inUse.Find(id)
	if _, fresh := p.fresh[id]; fresh || b == nil {
		return
	}
	if _, kept := p.kept[id]; kept {
		return
	}
	p.kept[id] = b.declared()
	for _, asked := range b.Criteria.Inputs().Buckets {
		p.keep(asked)
	}
}

func (p *planning) fail(file string, faults predicate.Faults, ids ...string) {
	if file == "" {
		file = builtInGo
	}
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
	var others []string
	for id, b := range p.kept {
		if p.beside[id] {
			others = append(others, id)
		} else {
			list = append(list, b)
		}
	}
	list = sortByID(list)
	faults := compile(list, others, p.opts)
	takenBack := false
	for _, i := range slices.Sorted(maps.Keys(faults)) {
		if _, fresh := p.fresh[list[i].ID]; fresh {
			p.takeBack(list[i], faults[i])
			takenBack = true
		}
	}
	if takenBack || len(faults) == 0 {
		return takenBack
	}
	for _, i := range slices.Sorted(maps.Keys(faults)) {
		p.blame(list[i].ID, faults[i])
	}
	return true
}

// takeBack has what the files say of a bucket count for nothing.
func (p *planning) takeBack(b Bucket, faults predicate.Faults) {
	p.fail(b.File, faults, b.ID)
	delete(p.fresh, b.ID)
	p.keep(b.ID)
}

// blame takes back what a bucket that is in use asks for, with which it does not go
// together. When that is not the cause, its faults are as old as itself.
func (p *planning) blame(id string, faults predicate.Faults) {
	seen := map[string]bool{id: true}
	blamed := false
	for ask := []string{id}; len(ask) > 0; ask = ask[1:] {
		b, fresh := p.fresh[ask[0]]
		if fresh {
			p.takeBack(b, faults)
			blamed = true
		} else {
			b = p.kept[ask[0]]
		}
		for _, next := range b.Criteria.Inputs().Buckets {
			if !seen[next] {
				seen[next] = true
				ask = append(ask, next)
			}
		}
	}
	if !blamed {
		p.beside[id] = true
	}
}

func (p *planning) buckets() []BucketInUse {
	list := slices.Collect(maps.Values(p.fresh))
	list = append(list, slices.Collect(maps.Values(p.kept))...)
	out := make([]BucketInUse, len(list))
	for i, b := range sortByID(list) {
		var switched *bool
		if before := p.inUse.Find(b.ID); before != nil {
			switched = before.Switched
		}
		out[i] = newInUse(b, switched)
	}
	return out
}

// failures are those of what the files replace, and those that were known of the rest.
func (p *planning) failures() []Failing {
	for _, f := range p.inUse.Failing {
		source := Bucket{File: f.File}
		if f.File == builtInGo {
			source.File = ""
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

// declared is the bucket as its definition says it.
func (b *BucketInUse) declared() Bucket {
	out := b.Bucket
	out.Enabled = b.Declared
	return out
}

// revise gives each bucket the version at which it last changed in what members depend on.
func revise(before *Set, buckets []BucketInUse, version int64) {
	raised := map[string]bool{}
	for i := range buckets {
		b := &buckets[i]
		was := before.Find(b.ID)
		if was == nil || was.evaluated() != b.evaluated() || b.Enabled && !was.Enabled {
			raised[b.ID] = true
			b.Revision = version
		} else {
			b.Revision = was.Revision
		}
	}
	for again := len(raised) > 0; again; {
		again = false
		for i := range buckets {
			b := &buckets[i]
			if !raised[b.ID] && slices.ContainsFunc(b.Criteria.Inputs().Buckets, func(id string) bool { return raised[id] }) {
				raised[b.ID], b.Revision, again = true, version, true
			}
		}
	}
}
