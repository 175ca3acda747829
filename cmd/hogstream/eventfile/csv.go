package eventfile

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
)

// table reads CSV: a header, then an event a row.
type table struct {
	lines   *lines
	comma   rune
	header  string
	columns []column
	rows    rowReader
}

func newTable(lines *lines, o Options) (*table, error) {
	t := &table{lines: lines, rows: rowReader{zone: o.Zone, unix: o.Unix}}
	for t.header == "" {
		l, err := lines.next()
		if err != nil {
			return nil, fmt.Errorf("read the header: %w", err)
		}
		if !l.whole {
			return nil, fmt.Errorf("line %d: the header is larger than 1 MiB", l.number)
		}
		t.header = strings.TrimSpace(l.text)
	}
	if problem := notUTF8(t.header); problem != "" {
		return nil, fmt.Errorf("the header, %s", problem)
	}
	t.comma = separator(t.header)
	names, err := t.cells(t.header)
	if err != nil {
		return nil, fmt.Errorf("the header: %s", quoteProblem(err))
	}
	t.columns, err = readHeader(names, o.Columns, o.Types)
	return t, err
}

// separator is the one of comma, semicolon, tab and bar that the header has most of.
func separator(header string) rune {
	best, most := ',', 0
	for _, c := range ",;\t|" {
		var q quotes
		n := 0
		for i := range len(header) {
			if !q.feed(header[i], byte(c)) && rune(header[i]) == c {
				n++
			}
		}
		if n > most {
			best, most = c, n
		}
	}
	return best
}

func (t *table) cells(record string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(record))
	r.Comma, r.FieldsPerRecord = t.comma, -1
	cells, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil // a blank line
	}
	return cells, err
}

// next reads rows until one is not blank: spreadsheets leave rows of empty cells behind.
func (t *table) next() (Event, error) {
	for {
		record, line, problem, err := t.record()
		if err != nil {
			return Event{}, err
		}
		if problem == "" {
			problem = notUTF8(record)
		}
		if problem != "" {
			return refused(line, record, "%s", problem), nil
		}
		cells, err := t.cells(record)
		switch {
		case err != nil:
			return refused(line, record, "%s", quoteProblem(err)), nil
		case blank(cells):
			continue
		case len(cells) != len(t.columns):
			return refused(line, record, "the row has %d columns, the header %d", len(cells), len(t.columns)), nil
		}
		e, err := t.rows.event(t.columns, cells)
		if err != nil {
			return refused(line, record, "%s", err), nil
		}
		e.Line, e.Text = line, record
		return e, nil
	}
}

func blank(cells []string) bool {
	for _, c := range cells {
		if strings.TrimSpace(c) != "" {
			return false
		}
	}
	return true
}

// record reads the lines of one row: more than one where a quoted cell holds ends of lines.
// A quote that is never closed costs its own line; the next one is read for itself.
func (t *table) record() (text string, number int, problem string, err error) {
	l, err := t.lines.next()
	if err != nil {
		return "", 0, "", err
	}
	if !l.whole {
		return l.text, l.number, "the line is larger than 1 MiB", nil
	}
	text = l.text
	var q quotes
	var more []line
	for open := q.feedLine(l.text, byte(t.comma)); open; {
		next, err := t.lines.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return "", 0, "", err
		}
		if err == nil {
			more = append(more, next)
		}
		if err != nil || !next.whole || len(text)+len(next.text) > MaxRecord {
			t.lines.unread(more)
			return l.text, l.number, `a quote (") is opened and never closed: close it, or write a quote that belongs to the text twice ("")`, nil
		}
		text += "\n" + next.text
		open = q.feedLine("\n"+next.text, byte(t.comma))
	}
	if len(more) > 0 {
		if _, err := t.cells(text); err != nil { // the quote that ends it belongs to another row
			t.lines.unread(more)
			return l.text, l.number, quoteProblem(err), nil
		}
	}
	return text, l.number, "", nil
}

func quoteProblem(err error) string {
	var at *csv.ParseError
	if !errors.As(err, &at) {
		return err.Error()
	}
	if errors.Is(err, csv.ErrBareQuote) {
		return fmt.Sprintf(`column %d: a quote (") within a cell that is not quoted: put the cell in quotes and write the quote twice ("")`, at.Column)
	}
	return fmt.Sprintf(`column %d: a quote (") that neither ends its cell nor is written twice (""): write it twice`, at.Column)
}

// quotes follows the quoted cells of a row (RFC 4180, section 2).
type quotes struct{ state quoteState }

type quoteState int

const (
	cellBegins quoteState = iota
	bareCell
	quotedCell
	quoteInQuoted // the end of the cell, or the first of two
)

// feed takes the next byte and says whether it stands within a quoted cell.
func (q *quotes) feed(c, comma byte) bool {
	switch {
	case q.state == quotedCell:
		if c == '"' {
			q.state = quoteInQuoted
		}
		return true
	case c == comma:
		q.state = cellBegins
	case c == '"' && q.state != bareCell:
		q.state = quotedCell
	default:
		q.state = bareCell
	}
	return false
}

// feedLine takes a line and says whether its last cell goes on in the next.
func (q *quotes) feedLine(text string, comma byte) bool {
	for i := range len(text) {
		q.feed(text[i], comma)
	}
	return q.state == quotedCell
}
