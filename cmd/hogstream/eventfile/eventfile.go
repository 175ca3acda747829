// Package eventfile reads files of events as people have them: CSV from spreadsheets and
// databases, NDJSON and JSON arrays, plain or gzipped, in UTF-8, UTF-16 or Windows-1252.
//
// A line is read as it is meant, or refused with its number, the reason and the fix; none
// is changed silently and none keeps the next from being read. The exceptions are told as
// errors: a header that does not say what the columns are, and a JSON array that is broken.
package eventfile

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxRecord bounds a line, and a record over several lines, in bytes: far more than an event may have.
const MaxRecord = 1 << 20

// Event is one event of a file, as the API takes it, or what keeps it from being one.
type Event struct {
	// Number counts the events and refused lines of the file from 1.
	Number int
	// Line is where it begins, from 1.
	Line int
	// JSON is the event; nil when Problem says why there is none.
	JSON []byte
	// Subject is whom it is about: equal for events that must stay in order.
	Subject string
	// Keyed says that it has an idempotency key.
	Keyed bool
	// Problem is why the line is refused, and the fix; empty otherwise.
	Problem string
	// Text is what stands in the file, in UTF-8 (where it is not, as it stands), without the end of the line.
	Text string
}

// Options say how a file is read. The zero value reads UTF-8 with the API's names.
type Options struct {
	// Name is the file's; its ending says what it holds (.csv, .tsv, .json, .ndjson, .jsonl, each also
	// with .gz). With another, its first byte does.
	Name string
	// Encoding is "utf-8", "utf-16" or "windows-1252". Empty is UTF-8, or what a byte order mark says.
	Encoding string
	// Columns are the columns of CSV whose names the file chose; empty fields are the API's names.
	Columns Columns
	// Types are the types of columns whose cells are no text, by the name in the header.
	Types map[string]Type
	// Zone is where times without a zone were taken; nil is UTC.
	Zone *time.Location
	// Unix is the unit of times that are numbers since 1970; 0 refuses them.
	Unix time.Duration
}

// Reader reads the events of one file. It is not safe for concurrent use.
type Reader struct {
	next   func() (Event, error) // without Number
	header string
	number int
	keys   keys
}

// ErrEmpty says that there is nothing in a file at all.
var ErrEmpty = errors.New("the file is empty")

// New begins to read a file. The error says what is wrong with its encoding or its header.
func New(r io.Reader, o Options) (*Reader, error) {
	text, err := decode(r, o.Encoding)
	if err != nil {
		return nil, err
	}
	lines, err := newLines(text)
	if err != nil {
		return nil, err
	}
	isCSV, err := holdsCSV(o.Name, lines)
	if err != nil {
		return nil, err
	}
	reader := &Reader{keys: keys{}}
	if !isCSV {
		reader.next = (&jsonFile{lines: lines}).next
		return reader, nil
	}
	table, err := newTable(lines, o)
	if err != nil {
		return nil, err
	}
	reader.next, reader.header = table.next, table.header
	return reader, nil
}

// holdsCSV says by the file's ending, and without one by its first byte, whether it is CSV.
func holdsCSV(name string, lines *lines) (bool, error) {
	first, err := lines.first()
	if err != nil {
		return false, err
	}
	switch filepath.Ext(strings.TrimSuffix(strings.ToLower(name), ".gz")) {
	case ".csv", ".tsv":
		return true, nil
	case ".json", ".ndjson", ".jsonl":
		return false, nil
	}
	return first != '{' && first != '[', nil
}

// Next returns the next event or refused line; io.EOF after the last one. Another error
// says why nothing after it can be read.
func (r *Reader) Next() (Event, error) {
	e, err := r.next()
	if err != nil {
		return Event{}, err
	}
	r.number++
	e.Number = r.number
	return e, nil
}

// Key gives an event an idempotency key that it gets again whenever the file is read, also
// when lines before it were added or removed: of scope (say, the file's name), of its content
// and of how many with the same content came before. It has to be called for each event in
// order. It remembers 12 bytes an event.
func (r *Reader) Key(e *Event, scope string) {
	if e.Problem == "" && !e.Keyed {
		r.keys.give(e, scope)
	}
}

// RefusedName is where the refused lines of a file go when nobody says where: beside it, with
// .refused before its ending, and never gzipped.
func RefusedName(file string) string {
	file = strings.TrimSuffix(file, ".gz")
	ending := filepath.Ext(file)
	name := strings.TrimSuffix(file, ending) + ".refused"
	if strings.EqualFold(ending, ".json") { // a line each, and no array any more
		return name + ".ndjson"
	}
	return name + ending
}

// CopyRefused writes those of the file's lines whose numbers are given, in order, so that they
// can be mended and read again: with the file's header, in UTF-8. It reads r from its beginning.
func CopyRefused(w io.Writer, r io.Reader, o Options, numbers map[int]bool) error {
	reader, err := New(r, o)
	if err != nil {
		return err
	}
	if reader.header != "" {
		if _, err := fmt.Fprintln(w, reader.header); err != nil {
			return err
		}
	}
	for left := len(numbers); left > 0; {
		e, err := reader.Next()
		if err != nil {
			return err
		}
		if !numbers[e.Number] {
			continue
		}
		left--
		if _, err := fmt.Fprintln(w, e.Text); err != nil {
			return err
		}
	}
	return nil
}

// refused is an event that is none.
func refused(line int, text, format string, args ...any) Event {
	return Event{Line: line, Text: text, Problem: fmt.Sprintf(format, args...)}
}

// notUTF8 says where a text stops being UTF-8, or "".
func notUTF8(text string) string {
	line, column := 0, 1
	for i, r := range text {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				at := fmt.Sprintf("column %d", column)
				if line > 0 {
					at = fmt.Sprintf("%s of the line %d below", at, line)
				}
				return fmt.Sprintf("%s: the byte 0x%02X is not UTF-8: save the file as UTF-8, or give --encoding windows-1252 (or utf-16)", at, text[i])
			}
		}
		if column++; r == '\n' {
			line, column = line+1, 1
		}
	}
	return ""
}
