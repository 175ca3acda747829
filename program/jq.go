package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/itchyny/gojq"
)

// maxOutput bounds the envelope that a transform makes.
const maxOutput = 1 << 20

// jq is a compiled program. It has no access to the environment, to files or to further
// inputs.
type jq struct {
	field, source string
	code          *gojq.Code
}

// maxParsed bounds what is compiled in this process: that takes stack by its length, and
// nothing is run.
const maxParsed = 4 << 10

// Parses says what is wrong with a program of at most 4 KiB, without a worker. Nothing is run.
func Parses(source string) error {
	if len(source) > maxParsed {
		return fmt.Errorf("has %d bytes: at most %d are allowed", len(source), maxParsed)
	}
	if _, err := compile("", source); err != nil {
		return fmt.Errorf("is not jq: %w", err)
	}
	return nil
}

func compile(field, source string) (*jq, error) {
	query, err := gojq.Parse(source)
	if err != nil {
		return nil, err
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, err
	}
	return &jq{field: field, source: source, code: code}, nil
}

// shaper is the programs of a destination; nil for one that it does not have.
type shaper struct{ filter, transform *jq }

// shape filters and transforms a document; the answer is its parts.
func (s *shaper) shape(ctx context.Context, document []byte) ([][]byte, error) {
	input, err := parse(document)
	if err != nil {
		return nil, err
	}
	if s.filter != nil {
		out, err := s.filter.first(ctx, input)
		if err != nil {
			return nil, err
		}
		if out == nil || out == false {
			return [][]byte{{answerDrop}}, nil
		}
	}
	if s.transform == nil {
		return [][]byte{{answerKeep}}, nil
	}
	out, err := s.transform.first(ctx, input)
	if err != nil {
		return nil, err
	}
	if out == nil {
		return [][]byte{{answerDrop}}, nil
	}
	return write(out)
}

// parse keeps numbers as they are written, so that large integers survive.
func parse(document []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(document))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, errors.New("payload is not JSON")
	}
	return v, nil
}

// first is the first output for a document; nil, as null is, when there is none.
func (p *jq) first(ctx context.Context, input any) (any, error) {
	out, _ := p.code.RunWithContext(ctx, input).Next()
	if err, failed := out.(error); failed {
		return nil, fmt.Errorf("%s: %s", p.field, p.reason(err))
	}
	return out, nil
}

// write is the answer with an envelope, and with what kinds that do not send the
// envelope itself take from it.
func write(out any) ([][]byte, error) {
	object, ok := out.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("transform: its output is of type %s: it must be an object", gojq.TypeOf(out))
	}
	envelope, err := gojq.Marshal(object)
	switch {
	case err != nil:
		return nil, errors.New("transform: its output is not JSON")
	case len(envelope) > maxOutput:
		return nil, fmt.Errorf("transform: its output has %d bytes: at most %d are allowed", len(envelope), maxOutput)
	case !json.Valid(envelope):
		return nil, errors.New("transform: its output is nested too deeply")
	}
	typ, _ := object["type"].(string)
	data, properties := []byte("{}"), []byte(nil)
	if members, ok := object["data"].(map[string]any); ok {
		data, _ = gojq.Marshal(members) // was marshalled above
		if traits, ok := members["properties"].(map[string]any); ok {
			properties, _ = gojq.Marshal(traits) // as well
		}
	}
	return [][]byte{{answerShaped}, envelope, data, properties, []byte(typ)}, nil
}

// word is what an error of jq consists of where it does not quote a value.
var word = regexp.MustCompile(`^[A-Za-z@$_][\w@$/]*:?$`)

// reason is an error of jq without the values that it quotes, which are those of a
// record: it will stand in logs. What a program says by error("...") is told when it
// stands in the program itself.
func (p *jq) reason(err error) string {
	var halt *gojq.HaltError
	if errors.As(err, &halt) {
		return "it ended with halt: use empty to leave a record out"
	}
	var raised gojq.ValueError
	if errors.As(err, &raised) {
		said, _ := raised.Value().(string)
		if quoted, err := json.Marshal(said); err == nil && said != "" && strings.Contains(p.source, string(quoted)) {
			return "it ended with error: " + said
		}
		return "it ended with error"
	}
	var kept []string
	for _, w := range strings.Fields(err.Error()) {
		name, _, cut := strings.Cut(w, "(")
		if !word.MatchString(name) {
			break
		}
		if kept = append(kept, name); cut { // name("argument") cannot be ...
			return name + " failed"
		}
		if w == "defined:" {
			break
		}
	}
	if len(kept) == 0 {
		return "it failed"
	}
	return strings.TrimSuffix(strings.Join(kept, " "), ":")
}
