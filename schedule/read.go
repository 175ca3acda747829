package schedule

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
)

// UntilFromNode reads a time to wait for from a part of a YAML file; path is where in the
// file it stands. The error is [predicate.Faults], with all that is wrong.
func UntilFromNode(file, path string, at ast.Node) (Until, error) {
	return fromNode(file, path, at, readUntil)
}

// RepeatFromNode reads a time that comes again, as [UntilFromNode] does one to wait for.
func RepeatFromNode(file, path string, at ast.Node) (Repeat, error) {
	return fromNode(file, path, at, readRepeat)
}

// WindowFromNode reads a window, as [UntilFromNode] does a time to wait for.
func WindowFromNode(file, path string, at ast.Node) (Window, error) {
	return fromNode(file, path, at, readWindow)
}

func fromNode[T any](file, path string, at ast.Node, read func(*node.Reader, ast.Node, string) T) (T, error) {
	r := &node.Reader{File: file}
	v := read(r, at, path)
	if len(r.Faults) > 0 {
		var none T
		return none, r.Faults.Sorted()
	}
	return v, nil
}

func readUntil(r *node.Reader, at ast.Node, path string) Until {
	return readMap(r, at, path, `{day: monday, at: "09:00"}`, untilFields())
}

func readRepeat(r *node.Reader, at ast.Node, path string) Repeat {
	return readMap(r, at, path, `{days: [monday], at: "09:00"}`, repeatFields())
}

// readWindow also reads the short form 09:00-17:00.
func readWindow(r *node.Reader, at ast.Node, path string) Window {
	text, short := at.(*ast.StringNode)
	if !short {
		return readMap(r, at, path, `{from: "09:00", to: "17:00"}`, windowFields())
	}
	from, to, _ := strings.Cut(text.Value, "-")
	var w Window
	var err error
	if w.From, err = ParseTimeOfDay(from); err == nil {
		w.To, err = ParseTimeOfDay(to)
	}
	if err != nil {
		r.Fault(at, path, "%q is no window: write two times of day, such as 09:00-17:00", text.Value)
	}
	return w
}

func readTime(r *node.Reader, at ast.Node, path string) TimeOfDay {
	text := r.Text(at, path)
	if text == "" {
		return TimeOfDay{}
	}
	t, err := ParseTimeOfDay(text)
	if err != nil {
		r.Fault(at, path, "%s", err)
	}
	return t
}

func readZone(r *node.Reader, at ast.Node, path string) *time.Location {
	name := r.Text(at, path)
	if name == "" {
		return nil
	}
	zone, err := predicate.LoadZone(name)
	if err != nil {
		r.Fault(at, path, "%s", err)
	}
	return zone
}

// readWeekdays reads one day or a list. Others are words that may stand instead of a list.
func readWeekdays(r *node.Reader, at ast.Node, path string, others ...string) Weekdays {
	var days Weekdays
	each(r, at, path, func(item ast.Node, path string) {
		known := On(week...).words()
		if item == at {
			known = append(known, others...)
		}
		days |= readWeekday(r, item, path, known)
	})
	return days
}

func readWeekday(r *node.Reader, at ast.Node, path string, known []string) Weekdays {
	word := r.Text(at, path)
	if word == "" {
		return 0
	}
	day, err := ParseWeekday(word)
	if err != nil {
		r.Fault(at, path, "%s", predicate.NotKnown(word, known))
		return 0
	}
	return On(day)
}

func readMonthDays(r *node.Reader, at ast.Node, path string) MonthDays {
	var days MonthDays
	each(r, at, path, func(at ast.Node, path string) {
		n, isNumber := at.(*ast.IntegerNode)
		if !isNumber {
			r.Fault(at, path, "is %s: write a day of the month from 1 to 31", node.Describe(at))
			return
		}
		day, positive := n.Value.(uint64)
		if !positive || day < 1 || day > 31 {
			r.Fault(at, path, "is %v: write a day of the month from 1 to 31", n.Value)
			return
		}
		days |= OnDays(int(day))
	})
	return days
}

// each reads one value, or those of a list that is not empty.
func each(r *node.Reader, at ast.Node, path string, read func(at ast.Node, path string)) {
	list, many := at.(*ast.SequenceNode)
	if !many {
		read(at, path)
		return
	}
	if len(list.Values) == 0 {
		r.Fault(at, path, "is empty: write the days, or leave it out")
	}
	for i, item := range list.Values {
		read(item, fmt.Sprintf("%s[%d]", path, i))
	}
}

func isTomorrow(at ast.Node) bool {
	text, ok := at.(*ast.StringNode)
	return ok && strings.EqualFold(text.Value, tomorrow)
}

// MarshalJSON writes the canonical form, which UnmarshalJSON and a YAML file read.
func (u Until) MarshalJSON() ([]byte, error) { return json.Marshal(writeMap(u, untilFields())) }

// UnmarshalJSON reads what MarshalJSON writes, and what a YAML file may say.
func (u *Until) UnmarshalJSON(text []byte) error { return fromText(text, u, UntilFromNode) }

// MarshalJSON writes the canonical form, which UnmarshalJSON and a YAML file read.
func (r Repeat) MarshalJSON() ([]byte, error) { return json.Marshal(writeMap(r, repeatFields())) }

// UnmarshalJSON reads what MarshalJSON writes, and what a YAML file may say.
func (r *Repeat) UnmarshalJSON(text []byte) error { return fromText(text, r, RepeatFromNode) }

// MarshalJSON writes the canonical form, which UnmarshalJSON and a YAML file read.
func (w Window) MarshalJSON() ([]byte, error) { return json.Marshal(writeMap(w, windowFields())) }

// UnmarshalJSON reads what MarshalJSON writes, and what a YAML file may say.
func (w *Window) UnmarshalJSON(text []byte) error { return fromText(text, w, WindowFromNode) }

// fromText reads JSON, which is YAML.
func fromText[T any](text []byte, into *T, read func(file, path string, at ast.Node) (T, error)) error {
	documents, err := predicate.Documents("", text)
	if err != nil {
		return err
	}
	if len(documents) != 1 {
		return fmt.Errorf("holds %d documents: write one", len(documents))
	}
	*into, err = read("", "", documents[0])
	return err
}
