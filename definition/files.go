package definition

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/predicate"
)

// Files are definitions as they were written, before they are applied.
type Files struct {
	Dir     string   // empty when no files were read
	Buckets []Bucket // those without faults, by id, with defaults filled in
	// Enrichments and Journeys are as Buckets.
	Enrichments []Enrichment
	Journeys    []Journey
	Faulty      []Faulty // by file

	built bool // definitions built in Go were given, were it none
}

// Faulty is a file with faults.
type Faulty struct {
	File   string   // below the directory
	IDs    []string // of the definitions in it that have faults, as far as they can be read
	Faults predicate.Faults
	unread bool // what it defines cannot be read
}

// all are the definitions of all kinds, in order.
func (f *Files) all() []Definition {
	var out []Definition
	for _, k := range kinds {
		out = append(out, k.files.get(f)...)
	}
	return out
}

func (f *Files) put(list []Definition) {
	sorted(list)
	for _, k := range kinds {
		var of []Definition
		for _, d := range list {
			if d.Ref().Kind == k.name {
				of = append(of, d)
			}
		}
		k.files.put(f, of)
	}
}

// Counts says how many definitions without faults there are of each kind.
func (f *Files) Counts() []Count { return counts(func(k *kind) int { return len(k.files.get(f)) }) }

// Canonical are the definitions without faults in their one form, by what people call them.
func (f *Files) Canonical() map[string]string {
	out := map[string]string{}
	for _, d := range f.all() {
		out[d.Ref().String()] = d.Canonical()
	}
	return out
}

// Load reads *.yaml (and .yml) in the directory of each kind below dir, such as buckets/: a
// definition a document. What is wrong with
// a file is in Faulty; the others are read all the same. Names of files in faults begin
// with dir. It is an error when there is no such directory, or the limits cannot be.
func Load(dir string, opts Options) (*Files, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("no directory of definitions at %s: make one with `hogstream init %s`", dir, dir)
	}
	return LoadFS(os.DirFS(dir), dir, opts)
}

// LoadFS is Load from another place than a directory; dir stands for it in faults.
func LoadFS(from fs.FS, dir string, opts Options) (*Files, error) {
	if err := opts.Limits.Validate(); err != nil {
		return nil, err
	}
	names, err := definitionFiles(from)
	if err != nil {
		return nil, err
	}
	var texts []Text
	for _, name := range names {
		text, err := fs.ReadFile(from, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken away between the two
		}
		if err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
		texts = append(texts, Text{name, string(text)})
	}
	return read(dir, texts, opts), nil
}

// Text is a file that is given as such.
type Text struct {
	Name string `json:"name" required:"true" minLength:"1" maxLength:"200" doc:"Below the directory of definitions, such as buckets/keen.yaml."`
	Text string `json:"text" required:"true" maxLength:"1000000"`
}

// Read is LoadFS of files that are given. One that Load would not read is a fault.
func Read(files []Text, opts Options) (*Files, error) {
	if err := opts.Limits.Validate(); err != nil {
		return nil, err
	}
	var misplaced []Faulty
	var texts []Text
	seen := map[string]bool{}
	for _, file := range files {
		fault := predicate.Fault{File: file.Name}
		switch {
		case kindOfFile(file.Name) == nil || !isDefinition(path.Base(file.Name)):
			fault.Message = "is no file of definitions: name it as it stands below the directory, such as " + bucketKind.dir + "/keen.yaml"
		case seen[file.Name]:
			fault.Message = "is given twice"
		default:
			texts = append(texts, file)
		}
		if seen[file.Name] = true; fault.Message != "" {
			misplaced = append(misplaced, Faulty{File: file.Name, Faults: predicate.Faults{fault}, unread: true})
		}
	}
	slices.SortFunc(texts, func(a, b Text) int { return cmp.Compare(a.Name, b.Name) })
	f := read(".", texts, opts)
	f.Faulty = append(f.Faulty, misplaced...)
	return f, nil
}

func read(dir string, texts []Text, opts Options) *Files {
	f := &Files{Dir: dir}
	c := &collection{dir: dir}
	for _, file := range texts {
		c.add(file.Name, []byte(file.Text))
	}
	c.checkTogether(opts)
	list, faulty := c.result()
	f.put(list)
	f.Faulty = faulty
	return f
}

// isDefinition says whether a file of this name is read. What begins with a dot is an
// editor's, and tests are read by [LoadTests].
func isDefinition(name string) bool {
	ext := path.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(name, ".") && !isTest(name)
}

// definitionFiles are the names of the files to read.
func definitionFiles(from fs.FS) ([]string, error) {
	var names []string
	for _, k := range kinds {
		entries, err := fs.ReadDir(from, k.dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
		for _, e := range entries {
			if !e.IsDir() && isDefinition(e.Name()) {
				names = append(names, path.Join(k.dir, e.Name()))
			}
		}
	}
	return names, nil
}

// collection gathers what files say.
type collection struct {
	dir   string
	files []*fileRead
}

type fileRead struct {
	name   string // below the directory
	reads  []*definitionRead
	faults predicate.Faults // of the file as a whole
}

// definitionRead is a document of a file. Its faults say what is wrong with it.
type definitionRead struct {
	Definition
	reader *reader
}

// display is how a file is named in faults.
func (c *collection) display(name string) string {
	return filepath.Join(c.dir, filepath.FromSlash(name))
}

func (c *collection) add(name string, text []byte) {
	file := &fileRead{name: name}
	c.files = append(c.files, file)
	documents, err := predicate.Documents(c.display(name), text)
	if err != nil {
		errors.As(err, &file.faults)
		return
	}
	for _, document := range documents {
		r := newReader(c.display(name))
		d := r.definition(kindOfFile(name), document)
		h := d.head()
		h.File = name
		file.reads = append(file.reads, &definitionRead{d.withHead(h), r})
	}
}

func (c *collection) all() []*definitionRead {
	var out []*definitionRead
	for _, file := range c.files {
		out = append(out, file.reads...)
	}
	return out
}

// checkTogether compares the definitions that are right by themselves with each other. Faults
// of one are not repeated at those that ask for it.
func (c *collection) checkTogether(opts Options) {
	first := map[Ref]*definitionRead{}
	var known []Ref
	for _, read := range c.all() {
		ref := read.Ref()
		if before := first[ref]; ref.ID != "" && before != nil {
			read.reader.note("id", "%q stands in %s too: ids are unique", ref.ID, before.reader.place("id"))
			continue
		}
		first[ref] = read
		known = append(known, ref)
	}
	var right []*definitionRead
	var list []Definition
	for _, read := range c.all() {
		if len(read.reader.Faults) == 0 {
			right, list = append(right, read), append(list, read.Definition)
		}
	}
	for i, faults := range compile(list, nil, known, opts) {
		r := right[i].reader
		for _, fault := range faults {
			fault.File = r.File
			if fault.Line == 0 {
				fault.Line, fault.Column = r.position(fault.Path)
			}
			r.Faults = append(r.Faults, fault)
		}
	}
}

// result parts what is right from what is not.
func (c *collection) result() ([]Definition, []Faulty) {
	var list []Definition
	var faulty []Faulty
	for _, file := range c.files {
		bad := Faulty{File: file.name, Faults: file.faults, unread: len(file.faults) > 0}
		for _, read := range file.reads {
			if len(read.reader.Faults) == 0 {
				list = append(list, read.Definition)
				continue
			}
			bad.Faults = append(bad.Faults, read.reader.Faults...)
			id := read.Ref().ID
			if id != "" {
				bad.IDs = append(bad.IDs, id)
			}
			bad.unread = bad.unread || id == ""
		}
		if len(bad.Faults) > 0 {
			bad.Faults = bad.Faults.Sorted()
			faulty = append(faulty, bad)
		}
	}
	return list, faulty
}

// Faults are all that is wrong with the files.
func (f *Files) Faults() predicate.Faults {
	var out predicate.Faults
	for _, file := range f.Faulty {
		out = append(out, file.Faults...)
	}
	return out
}

// Built are definitions built in Go, to be applied without files.
func Built[T Definition](built []T, opts Options) (*Files, error) {
	if err := opts.Limits.Validate(); err != nil {
		return nil, err
	}
	return (&Files{}).With(All(built), opts)
}

// With adds definitions built in Go to those of files. The error says all that is wrong
// with them, ids that stand in a file too among it.
func (f *Files) With(built []Definition, opts Options) (*Files, error) {
	out := &Files{Dir: f.Dir, Faulty: f.Faulty, built: true}
	places := map[Ref]string{}
	var others []Ref
	for _, d := range f.all() {
		places[d.Ref()] = filepath.Join(f.Dir, filepath.FromSlash(d.head().File))
	}
	for _, bad := range f.Faulty {
		others = append(others, refs(bad.File, bad.IDs)...)
	}
	var faults predicate.Faults
	wrong := func(d Definition, path, message string) {
		faults = append(faults, predicate.Fault{Path: fmt.Sprintf("%s %q: %s", d.Ref().Kind, d.Ref().ID, path), Message: message})
	}
	var list []Definition
	for _, d := range built {
		h := d.head()
		h.File = ""
		d = d.defaulted().withHead(h)
		for _, p := range d.check() {
			wrong(d, p.field, p.message)
		}
		if place, stands := places[d.Ref()]; stands {
			wrong(d, "id", "stands in "+place+" too: ids are unique")
		}
		places[d.Ref()] = "another " + d.Ref().Kind + " built in Go"
		list = append(list, d)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	for i, found := range compile(list, f.all(), others, opts) {
		for _, fault := range found {
			wrong(list[i], fault.Path, fault.Message)
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	out.put(append(list, f.all()...))
	return out, nil
}
