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
	Faulty  []Faulty // by file

	built bool // definitions built in Go were given, were it none
}

// Faulty is a file with faults.
type Faulty struct {
	File   string   // below the directory
	IDs    []string // of the definitions in it that have faults, as far as they can be read
	Faults predicate.Faults
	unread bool // what it defines cannot be read
}

// bucketsDir is where the files of buckets are below the directory of definitions.
const bucketsDir = "buckets"

// Load reads buckets/*.yaml (and .yml) below dir: a bucket a document. What is wrong with
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
		case path.Dir(file.Name) != bucketsDir || !isDefinition(path.Base(file.Name)):
			fault.Message = "is no file of definitions: name it as it stands below the directory, such as " + bucketsDir + "/keen.yaml"
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
	f.Buckets, f.Faulty = c.result()
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
	entries, err := fs.ReadDir(from, bucketsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read definitions: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && isDefinition(e.Name()) {
			names = append(names, path.Join(bucketsDir, e.Name()))
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
	reads  []*bucketRead
	faults predicate.Faults // of the file as a whole
}

// bucketRead is a document of a file. Its faults say what is wrong with it.
type bucketRead struct {
	Bucket
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
		b := r.bucket(document)
		b.File = name
		file.reads = append(file.reads, &bucketRead{b, r})
	}
}

func (c *collection) all() []*bucketRead {
	var out []*bucketRead
	for _, file := range c.files {
		out = append(out, file.reads...)
	}
	return out
}

// checkTogether compares the buckets that are right by themselves with each other. Faults
// of one are not repeated at those that ask for it.
func (c *collection) checkTogether(opts Options) {
	first := map[string]*bucketRead{}
	var known []string
	for _, read := range c.all() {
		if before := first[read.ID]; read.ID != "" && before != nil {
			read.reader.note("id", "%q stands in %s too: ids are unique", read.ID, before.reader.place("id"))
			continue
		}
		first[read.ID] = read
		known = append(known, read.ID)
	}
	var right []*bucketRead
	var buckets []Bucket
	for _, read := range c.all() {
		if len(read.reader.Faults) == 0 {
			right, buckets = append(right, read), append(buckets, read.Bucket)
		}
	}
	for i, faults := range compile(buckets, known, opts) {
		r := right[i].reader
		for _, fault := range faults {
			fault.File = r.File
			if fault.Line == 0 {
				fault.Line, fault.Column = r.position("criteria")
			}
			r.Faults = append(r.Faults, fault)
		}
	}
}

// result parts what is right from what is not.
func (c *collection) result() ([]Bucket, []Faulty) {
	var buckets []Bucket
	var faulty []Faulty
	for _, file := range c.files {
		bad := Faulty{File: file.name, Faults: file.faults, unread: len(file.faults) > 0}
		for _, read := range file.reads {
			if len(read.reader.Faults) == 0 {
				buckets = append(buckets, read.Bucket)
				continue
			}
			bad.Faults = append(bad.Faults, read.reader.Faults...)
			if read.ID != "" {
				bad.IDs = append(bad.IDs, read.ID)
			}
			bad.unread = bad.unread || read.ID == ""
		}
		if len(bad.Faults) > 0 {
			bad.Faults = bad.Faults.Sorted()
			faulty = append(faulty, bad)
		}
	}
	return sortByID(buckets), faulty
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
func Built(buckets []Bucket, opts Options) (*Files, error) {
	if err := opts.Limits.Validate(); err != nil {
		return nil, err
	}
	return (&Files{}).With(buckets, opts)
}

// With adds definitions built in Go to those of files. The error says all that is wrong
// with them, ids that stand in a file too among it.
func (f *Files) With(buckets []Bucket, opts Options) (*Files, error) {
	out := &Files{Dir: f.Dir, Faulty: f.Faulty, built: true}
	places := map[string]string{}
	var others []string
	for _, b := range f.Buckets {
		places[b.ID] = filepath.Join(f.Dir, filepath.FromSlash(b.File))
		others = append(others, b.ID)
	}
	for _, bad := range f.Faulty {
		others = append(others, bad.IDs...)
	}
	var faults predicate.Faults
	wrong := func(b Bucket, path, message string) {
		faults = append(faults, predicate.Fault{Path: fmt.Sprintf("bucket %q: %s", b.ID, path), Message: message})
	}
	for _, b := range buckets {
		b = b.withDefaults()
		b.File = ""
		for _, p := range b.check() {
			wrong(b, p.field, p.message)
		}
		if place, stands := places[b.ID]; stands {
			wrong(b, "id", "stands in "+place+" too: ids are unique")
		}
		places[b.ID] = "another bucket built in Go"
		out.Buckets = append(out.Buckets, b)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	for i, found := range compile(out.Buckets, others, opts) {
		for _, fault := range found {
			wrong(out.Buckets[i], fault.Path, fault.Message)
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	out.Buckets = sortByID(append(out.Buckets, f.Buckets...))
	return out, nil
}

func sortByID(buckets []Bucket) []Bucket {
	slices.SortFunc(buckets, func(a, b Bucket) int { return cmp.Compare(a.ID, b.ID) })
	return buckets
}
