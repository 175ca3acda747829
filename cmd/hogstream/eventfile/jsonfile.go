package eventfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// jsonFile reads objects: one a line, one over several lines, or those of arrays. In all
// forms an event is sent byte for byte as it stands.
type jsonFile struct {
	lines   *lines
	rest    string // of the line that is read
	line    int    // its number
	inArray bool
	between bool // an element was read, so a comma or the end comes next
}

func (f *jsonFile) next() (Event, error) {
	for {
		if f.rest = strings.TrimLeft(f.rest, " \t\r"); f.rest == "" {
			e, err := f.nextLine()
			if err != nil || e.Problem != "" {
				return e, err
			}
			continue
		}
		switch c := f.rest[0]; {
		case c == '[' && !f.inArray:
			f.inArray, f.between, f.rest = true, false, f.rest[1:]
		case c == ']' && f.inArray:
			f.inArray, f.rest = false, f.rest[1:]
		case c == ',' && f.inArray && f.between:
			f.between, f.rest = false, f.rest[1:]
		case c == '{' && !(f.inArray && f.between):
			return f.object()
		case f.inArray && !f.between && f.skipElement():
			return refused(f.line, "", "the element is not a JSON object"), nil
		default:
			return f.broken(f.line, f.rest, "the line is not a JSON object")
		}
	}
}

// skipElement reads past an element that is JSON and no object, if its end stands on its line.
func (f *jsonFile) skipElement() bool {
	element := json.NewDecoder(strings.NewReader(f.rest))
	var value json.RawMessage
	if element.Decode(&value) != nil {
		return false
	}
	f.rest, f.between = f.rest[element.InputOffset():], true
	return true
}

// nextLine takes the next line up; the event says that it cannot be read.
func (f *jsonFile) nextLine() (Event, error) {
	l, err := f.lines.next()
	if err != nil {
		if errors.Is(err, io.EOF) && f.inArray {
			return Event{}, fmt.Errorf("line %d: the file ends within an array: mend the file there", f.line)
		}
		return Event{}, err
	}
	f.line = l.number
	if !l.whole {
		return f.broken(l.number, l.text, "the line is larger than 1 MiB")
	}
	f.rest = l.text
	return Event{}, nil
}

// broken refuses the rest of a line. Of an array nobody knows where its next element begins.
func (f *jsonFile) broken(at int, text, why string) (Event, error) {
	f.rest = ""
	if f.inArray {
		return Event{}, fmt.Errorf("line %d: %s, and what follows in the array cannot be told apart: mend the file there", at, why)
	}
	return refused(at, text, "%s", why), nil
}

// object reads the object that rest begins with, which may go over several lines. At the top
// level a line that begins with { begins another object, so that one broken line costs no other.
func (f *jsonFile) object() (Event, error) {
	start, text := f.line, f.rest
	var depth objectDepth
	end := depth.feed(text)
	for end < 0 {
		l, err := f.lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return f.unclosed(start, text)
		case err != nil:
			return Event{}, err
		case !f.inArray && strings.HasPrefix(l.text, "{"), !l.whole, len(text)+len(l.text) > MaxRecord:
			f.lines.unread([]line{l})
			return f.unclosed(start, text)
		}
		f.line = l.number
		end = depth.feed("\n" + l.text)
		if end >= 0 {
			end += len(text)
		}
		text += "\n" + l.text
	}
	f.rest, f.between = text[end:], true
	return f.event(start, text[:end])
}

func (f *jsonFile) unclosed(start int, text string) (Event, error) {
	return f.broken(start, text, "the line is not a JSON object: it is not closed")
}

// event judges an object by itself. Its lines are joined, for a request has one.
func (f *jsonFile) event(line int, text string) (Event, error) {
	if problem := notUTF8(text); problem != "" {
		return refused(line, text, "%s", problem), nil
	}
	var members map[string]json.RawMessage // a struct would take names in any case
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		return f.broken(line, text+f.rest, "the line is not a JSON object: "+err.Error())
	}
	e := Event{Line: line, JSON: []byte(text), Text: text}
	_, e.Keyed = members["idempotencyKey"]
	for _, name := range []string{"userId", "email", "anonymousId"} {
		if value := members[name]; len(value) > 2 {
			e.Subject = string(value)
			break
		}
	}
	return e, nil
}

// objectDepth finds the end of an object without judging what is in it.
type objectDepth struct {
	depth             int
	inString, escaped bool
}

// feed takes the next part of a text and returns where in it the object ends, or -1.
func (d *objectDepth) feed(part string) int {
	for i := range len(part) {
		switch c := part[i]; {
		case d.escaped:
			d.escaped = false
		case d.inString:
			d.escaped = c == '\\'
			d.inString = c != '"'
		case c == '"':
			d.inString = true
		case c == '{' || c == '[':
			d.depth++
		case c == '}' || c == ']':
			if d.depth--; d.depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}
