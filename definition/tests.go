package definition

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/hogstream/hogstream/predicate"
)

// Tests are tests of definitions as they were written in files.
type Tests struct {
	Files  int        // that were read
	Cases  []TestCase // of files without faults, by file, in the order of the text
	Faults predicate.Faults
}

// TestCase is what happens to contacts, and what is expected of them meanwhile.
type TestCase struct {
	Name string
	File string // below the directory of definitions
	Line int    // where it begins, from 1
	// Begins is the time at which it begins.
	Begins time.Time
	// Buckets are those whose facts count; nil is all.
	Buckets []string
	// Steps are those that the file gives to each case, and then its own. Their times do not
	// go back.
	Steps []TestStep
}

// TestStep is one thing that happens, or is expected, at a time. One of Event, Change,
// Merge, Delete, Add, Remove and Expect is set; none when time passes and nothing happens.
type TestStep struct {
	File         string // as it is named in faults
	Line, Column int
	At           time.Time
	// Contact is whom it is about, by the name that the test gives it; empty when time passes.
	Contact string

	Event  *TestEvent
	Change *TestChange  // of the contact; beside Event what came with it
	Merge  string       // the contact that is merged into Contact
	Delete bool         // the contact is erased
	Add    string       // the manual bucket that it is put into
	Until  time.Time    // beside Add: when the membership expires; zero is never
	Remove string       // the manual bucket that it is taken out of
	Expect *Expectation // of the contact
}

// TestEvent is a product event.
type TestEvent struct {
	Name       string
	Properties string        // a JSON object
	Late       time.Duration // how long after it happened it was received
}

// TestChange is what becomes known of a contact.
type TestChange struct {
	Properties                 string // a patch, a JSON object; empty for none
	UserID, Email, AnonymousID string // empty for none
}

// Expectation is what has to be true of a contact.
type Expectation struct {
	Members []string // buckets that it is a member of
	Not     []string // buckets that it is no member of
	// Facts are all that were told of the contact since its last expectation of facts, or
	// since the case began, in this order; nil when nothing is said of them.
	Facts []ExpectedFact
}

// ExpectedFact is a fact that was told. What is zero may be anything.
type ExpectedFact struct {
	Type           string // such as bucket.entered
	Bucket         string
	At             time.Time // when it became true; of whole seconds it is meant to the second
	Reason, Source string    // as [schemas.BucketTransition] has them
}

// isTest says whether a file is a test of definitions, and no definition.
func isTest(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, "_test.yaml") || strings.HasSuffix(base, "_test.yml")
}

// LoadTests reads the tests of definitions, which are all files below dir that end in
// _test.yaml (or .yml). They are checked against files, which stand there too, whether these
// have faults or not. What is wrong is in Faults, and the others are read all the same.
func LoadTests(dir string, files *Files) (*Tests, error) {
	return LoadTestsFS(os.DirFS(dir), dir, files)
}

// LoadTestsFS is LoadTests from another place than a directory; dir stands for it in faults.
func LoadTestsFS(from fs.FS, dir string, files *Files) (*Tests, error) {
	tests := &Tests{}
	known := bucketsOf(files)
	err := fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // taken away meanwhile
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(entry.Name(), "."): // an editor's
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir() || !isTest(name):
			return nil
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		tests.add(filepath.Join(dir, filepath.FromSlash(name)), name, text, known)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tests of definitions: %w", err)
	}
	return tests, nil
}

func (t *Tests) add(display, name string, text []byte, known knownBuckets) {
	t.Files++
	cases, faults := readTest(display, name, text, known)
	if len(faults) > 0 {
		t.Faults = append(t.Faults, faults...)
		return
	}
	t.Cases = append(t.Cases, cases...)
}

// knownBuckets are the ids of buckets, with those that are manual.
type knownBuckets struct {
	ids    []string
	manual map[string]bool
	faulty map[string]bool // nothing else is known of these
}

func bucketsOf(files *Files) knownBuckets {
	k := knownBuckets{manual: map[string]bool{}, faulty: map[string]bool{}}
	for _, b := range files.Buckets {
		k.ids = append(k.ids, b.ID)
		k.manual[b.ID] = b.Kind == KindManual
	}
	for _, f := range files.Faulty {
		for _, id := range f.IDs {
			k.ids = append(k.ids, id)
			k.faulty[id] = true
		}
	}
	return k
}
