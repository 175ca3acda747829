package eventfile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// rowReader makes events of rows.
type rowReader struct {
	zone *time.Location
	unix time.Duration
}

// object is a JSON object that grows member by member, in the order in which they come.
type object struct{ text []byte }

func (o *object) set(name string, value []byte) {
	if len(o.text) > 0 {
		o.text = append(o.text, ',')
	}
	o.text = append(append(append(o.text, quoted(name)...), ':'), value...)
}

func (o *object) json() []byte { return append(append([]byte{'{'}, o.text...), '}') }

// event makes an event of a row; the error names the column. An empty cell says nothing: its
// field is left out.
func (r *rowReader) event(columns []column, cells []string) (Event, error) {
	var e Event
	var body object
	inside := map[string]*object{}
	subjects := map[string]string{}
	for i, c := range columns {
		if strings.TrimSpace(cells[i]) == "" {
			continue
		}
		value, err := r.value(c, cells[i])
		if err != nil {
			return e, fmt.Errorf("column %s: %w", cmp.Or(c.header, strconv.Itoa(i+1)), err)
		}
		if c.inside != "" {
			if inside[c.inside] == nil {
				inside[c.inside] = &object{}
			}
			inside[c.inside].set(c.target, value)
			continue
		}
		body.set(c.target, value)
		subjects[c.target] = string(value)
	}
	for _, name := range objects {
		if o := inside[name]; o != nil {
			body.set(name, o.json())
		}
	}
	e.JSON = body.json()
	e.Subject = cmp.Or(subjects["userId"], subjects["email"], subjects["anonymousId"])
	e.Keyed = subjects["idempotencyKey"] != ""
	return e, nil
}

// value is a cell as JSON.
func (r *rowReader) value(c column, cell string) ([]byte, error) {
	if c.header == "" {
		return nil, fmt.Errorf("%q stands in a column without a name: name it in the header", cell)
	}
	trimmed := strings.TrimSpace(cell)
	switch {
	case c.inside == "" && c.target == "timestamp":
		at, err := r.time(trimmed)
		return quoted(at), err
	case c.inside == "" && c.typ == JSON:
		if trimmed[0] != '{' || !json.Valid([]byte(trimmed)) {
			return nil, fmt.Errorf("%q is not a JSON object", cell)
		}
		return compact(trimmed), nil
	case c.inside == "":
		return quoted(trimmed), nil
	}
	switch c.typ {
	case Number:
		if !strings.Contains("-0123456789", trimmed[:1]) || !json.Valid([]byte(trimmed)) {
			return nil, fmt.Errorf("%q is not a number such as 12, -0.5 or 1e3", cell)
		}
		return []byte(trimmed), nil
	case Boolean:
		return truth(trimmed)
	case JSON:
		if !json.Valid([]byte(trimmed)) {
			return nil, fmt.Errorf("%q is not JSON", cell)
		}
		return compact(trimmed), nil
	}
	return quoted(cell), nil
}

// truth reads what spreadsheets and databases write for a boolean.
func truth(cell string) ([]byte, error) {
	switch strings.ToLower(cell) {
	case "true", "t", "yes", "y", "1":
		return []byte("true"), nil
	case "false", "f", "no", "n", "0":
		return []byte("false"), nil
	}
	return nil, fmt.Errorf("%q is neither true nor false", cell)
}

// times are the forms of a time that say what they mean: no month can be taken for a day.
var times = []string{
	time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07",
	"2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly,
}

// time takes what spreadsheets and databases write and gives what the API takes.
func (r *rowReader) time(s string) (string, error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil && strings.Trim(s, "0123456789.-") == "" {
		if r.unix == 0 {
			return "", fmt.Errorf("%q is a number: say what it counts, --unix-times s, ms or us", s)
		}
		return format(unixTime(s, n, r.unix)), nil
	}
	zone := cmp.Or(r.zone, time.UTC)
	plain, isUTC := strings.CutSuffix(s, " UTC")
	if isUTC {
		zone = time.UTC
	}
	for _, layout := range times {
		if t, err := time.ParseInLocation(layout, plain, zone); err == nil {
			return format(t), nil
		}
	}
	return "", fmt.Errorf("%q is no time such as 2026-01-02T03:04:05Z; where day and month can be taken for each other nobody can tell", s)
}

// unixTime counts from 1970; whole numbers are exact.
func unixTime(s string, n float64, unit time.Duration) time.Time {
	if whole, err := strconv.ParseInt(s, 10, 64); err == nil {
		perSecond := int64(time.Second / unit)
		return time.Unix(whole/perSecond, whole%perSecond*int64(unit))
	}
	return time.UnixMicro(int64(n * float64(unit/time.Microsecond)))
}

func format(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999Z") }

func quoted(s string) []byte {
	var b bytes.Buffer
	text := json.NewEncoder(&b)
	text.SetEscapeHTML(false)
	_ = text.Encode(s) // a string always can
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// compact takes spaces and ends of lines out of valid JSON, which stays the same otherwise.
func compact(s string) []byte {
	var b bytes.Buffer
	_ = json.Compact(&b, []byte(s)) // it is valid
	return b.Bytes()
}
