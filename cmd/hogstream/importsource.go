package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// importEvent is an event as it will be sent.
type importEvent struct {
	raw     []byte // a JSON object
	line    int    // where it stands
	subject string // events of one subject stay in order
	keyed   bool   // it has an idempotency key
	wrong   string // why it cannot be sent
}

// source gives one event after the other; io.EOF at the end.
type source func() (importEvent, error)

// maxLine bounds a line: far more than an event may have.
const maxLine = 1 << 20

// withoutMark reads past the mark that spreadsheets and Windows put before UTF-8.
func withoutMark(r io.Reader) *bufio.Reader {
	text := bufio.NewReaderSize(r, 64<<10)
	if mark, _ := text.Peek(3); string(mark) == "\ufeff" {
		_, _ = text.Discard(len(mark))
	}
	return text
}

// ndjsonSource reads an event a line and leaves it as it is.
func ndjsonSource(r io.Reader) source {
	lines := withoutMark(r)
	n := 0
	return func() (importEvent, error) {
		for {
			n++
			line, whole, err := readLine(lines)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					err = fmt.Errorf("line %d: %w", n, err)
				}
				return importEvent{}, err
			}
			if line = bytes.TrimSpace(line); len(line) > 0 {
				return ndjsonEvent(line, n, whole), nil
			}
		}
	}
}

// readLine reads a line, of which it keeps as much as a line may have; io.EOF after
// the last one.
func readLine(r *bufio.Reader) (line []byte, whole bool, err error) {
	whole = true
	for {
		part, err := r.ReadSlice('\n')
		if whole = whole && len(line)+len(part) <= maxLine; whole {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && (len(line) > 0 || !whole):
			return line, whole, nil
		default:
			return line, whole, err
		}
	}
}

func ndjsonEvent(line []byte, n int, whole bool) importEvent {
	e := importEvent{raw: line, line: n}
	var members map[string]json.RawMessage // a struct would take names in any case
	switch {
	case !whole:
		e.wrong = "the line is larger than 1 MiB"
	case json.Unmarshal(line, &members) != nil || members == nil:
		e.wrong = "the line is not a JSON object"
	default:
		_, e.keyed = members["idempotencyKey"]
		for _, name := range []string{"userId", "email", "anonymousId"} {
			if value := members[name]; len(value) > 2 {
				e.subject = string(value)
				break
			}
		}
	}
	return e
}

// giveKey gives the event an idempotency key that it would get again.
func (e *importEvent) giveKey(file string) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%s", file, e.line, e.raw))
	key := fmt.Appendf(nil, `{"idempotencyKey":"import-%s"`, hex.EncodeToString(sum[:16]))
	rest := bytes.TrimSpace(e.raw[1:])
	if rest[0] != '}' {
		key = append(key, ',')
	}
	e.raw, e.keyed = append(key, rest...), true
}

type csvColumns struct{ user, email, name, time string }

// csvSource reads events from CSV; columns without a role become event properties.
func csvSource(r io.Reader, columns csvColumns) (source, error) {
	cr := csv.NewReader(withoutMark(r))
	header, err := cr.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	index := map[string]int{}
	for i, name := range header {
		index[strings.TrimSpace(name)] = i
	}
	if _, ok := index[columns.name]; !ok {
		return nil, fmt.Errorf("no column %q for the event's name (columns: %s): set --name-column", columns.name, strings.Join(header, ", "))
	}
	_, user := index[columns.user]
	_, email := index[columns.email]
	if !user && !email {
		return nil, fmt.Errorf("no column %q or %q for the subject (columns: %s): set --user-column or --email-column", columns.user, columns.email, strings.Join(header, ", "))
	}
	return func() (importEvent, error) {
		row, err := cr.Read()
		switch {
		case errors.Is(err, csv.ErrFieldCount): // the next row is read all the same
			line, _ := cr.FieldPos(0)
			return importEvent{line: line, wrong: fmt.Sprintf("the row has %d columns, the header %d", len(row), len(header))}, nil
		case err != nil && !errors.Is(err, io.EOF): // what follows may belong to this row
			return importEvent{}, fmt.Errorf("%w: mend the file there", err)
		case err != nil:
			return importEvent{}, err
		}
		line, _ := cr.FieldPos(0)
		return csvEvent(header, row, columns, line), nil
	}, nil
}

// csvEvent makes an event of a row; its properties are in the order of the columns.
func csvEvent(header, row []string, columns csvColumns, line int) importEvent {
	var body, properties []byte
	member := func(to []byte, name string, value []byte) []byte {
		if len(to) > 0 {
			to = append(to, ',')
		}
		return append(append(append(to, quoted(name)...), ':'), value...)
	}
	e := importEvent{line: line}
	for i, value := range row {
		switch name := strings.TrimSpace(header[i]); name {
		case columns.name:
			body = member(body, "name", quoted(value))
		case columns.user:
			if value != "" {
				e.subject = value
				body = member(body, "userId", quoted(value))
			}
		case columns.email:
			if value != "" {
				e.subject = cmp.Or(e.subject, value)
				body = member(body, "email", quoted(value))
			}
		case columns.time:
			at, err := timestamp(value)
			if err != nil {
				e.wrong = fmt.Sprintf("column %s: %s", name, err)
			} else if at != "" {
				body = member(body, "timestamp", quoted(at))
			}
		default:
			properties = member(properties, name, jsonOrString(value))
		}
	}
	if len(properties) > 0 {
		body = member(body, "eventProperties", slices.Concat([]byte{'{'}, properties, []byte{'}'}))
	}
	e.raw = slices.Concat([]byte{'{'}, body, []byte{'}'})
	return e
}

func quoted(s string) []byte {
	b, _ := json.Marshal(s)
	return b
}

// timestamp takes what spreadsheets and databases write and gives what the API takes.
func timestamp(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC().Format("2006-01-02T15:04:05.999999Z"), nil
		}
	}
	return "", fmt.Errorf("%q is no time such as 2026-01-02T03:04:05Z", s)
}
