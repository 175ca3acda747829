package predicate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// ParseJSON reads a condition from JSON text. The file's name is for the faults alone.
// The error is [Faults], with all that is wrong.
func ParseJSON(file string, text []byte) (Condition, error) {
	r := &reader{file: file}
	t := r.json(text)
	if len(r.faults) > 0 {
		return Condition{}, r.faults
	}
	return r.load(t, "")
}

// json makes a tree of a text that is one JSON value.
func (r *reader) json(text []byte) *tree {
	j := &jsonTree{text: text, in: json.NewDecoder(bytes.NewReader(text))}
	var out *tree
	err := j.check()
	if err == nil {
		out, err = j.value(0)
	}
	if err == nil {
		if _, more := j.in.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the condition")
		}
	}
	if err != nil {
		line, column := j.place()
		r.note(line, column, "", "is no JSON: %s", err)
	}
	return out
}

// jsonTree reads the tokens of a text and knows where they stand.
type jsonTree struct {
	text []byte
	in   *json.Decoder
}

func (j *jsonTree) check() error {
	switch {
	case len(j.text) > maxText:
		return fmt.Errorf("longer than %d KiB", maxText>>10)
	case !utf8.Valid(j.text):
		return errors.New("not UTF-8")
	}
	return nil
}

// place is where the next token begins.
func (j *jsonTree) place() (line, column int) {
	at := int(j.in.InputOffset())
	for at < len(j.text) && bytes.IndexByte([]byte(" \t\r\n,:"), j.text[at]) >= 0 {
		at++
	}
	before := j.text[:at]
	return 1 + bytes.Count(before, []byte("\n")), at - bytes.LastIndexByte(before, '\n')
}

func (j *jsonTree) value(depth int) (*tree, error) {
	out := &tree{kind: treeNull}
	out.line, out.column = j.place()
	if depth > maxDepth {
		return nil, fmt.Errorf("nests deeper than %d levels", maxDepth)
	}
	token, err := j.in.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case bool:
		out.kind, out.truth = treeBool, v
	case float64:
		out.kind, out.number = treeNumber, v
	case string:
		out.kind, out.text = treeText, v
	case json.Delim:
		if v == '[' {
			return out, j.list(out, depth)
		}
		return out, j.object(out, depth)
	}
	return out, nil
}

func (j *jsonTree) list(out *tree, depth int) error {
	out.kind = treeList
	for j.in.More() {
		item, err := j.value(depth + 1)
		if err != nil {
			return err
		}
		out.items = append(out.items, item)
	}
	_, err := j.in.Token()
	return err
}

func (j *jsonTree) object(out *tree, depth int) error {
	out.kind = treeMap
	for j.in.More() {
		m := member{}
		m.line, m.column = j.place()
		name, err := j.in.Token()
		if err != nil {
			return err
		}
		m.name, _ = name.(string)
		if out.get(m.name) != nil {
			return fmt.Errorf("key %q stands twice", m.name)
		}
		if m.value, err = j.value(depth + 1); err != nil {
			return err
		}
		out.members = append(out.members, m)
	}
	_, err := j.in.Token()
	return err
}
