package sinks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/itchyny/gojq"

	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
)

// Bounds of a filter or transform. It runs for every record, so what takes
// longer is a mistake. What it may make is bounded in jqbounds.go.
const (
	maxProgram = 16 << 10
	jqTime     = 250 * time.Millisecond
	maxShaped  = 1 << 20
)

// errSlow ends a program that has run for jqTime. It may be the record's fault, or
// that of a machine that stood still meanwhile.
var errSlow = fmt.Errorf("took longer than %s", jqTime)

// slowTries is how many attempts may end so before the record is to blame.
const slowTries = 3

// program is a compiled jq program. It has no access to the environment, to
// files or to further inputs. It is safe for concurrent use.
type program struct {
	field string
	code  *gojq.Code
	seats chan struct{} // one for each that runs: more at once would only take memory
}

// compile compiles a setting; nil for an empty one.
func compile(field, source string) (*program, error) {
	if source == "" {
		return nil, nil
	}
	if len(source) > maxProgram {
		return nil, fmt.Errorf("%s: has %d bytes: at most %d are allowed", field, len(source), maxProgram)
	}
	query, err := gojq.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("%s: is not jq: %w", field, err)
	}
	if err := putBounds(query); err != nil {
		return nil, fmt.Errorf("%s: is not jq: %w", field, err)
	}
	code, err := gojq.Compile(query, bounds...)
	if err != nil {
		return nil, fmt.Errorf("%s: is not jq: %w", field, err)
	}
	return &program{field: field, code: code, seats: make(chan struct{}, runtime.GOMAXPROCS(0))}, nil
}

// first is the first output for a document; found is false when there is none.
func (p *program) first(ctx context.Context, document any) (out any, found bool, err error) {
	select {
	case p.seats <- struct{}{}:
		defer func() { <-p.seats }()
	case <-ctx.Done():
		return nil, false, fmt.Errorf("%s: %w", p.field, context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, jqTime)
	defer cancel()
	out, found = p.code.RunWithContext(ctx, document).Next()
	failure, isError := out.(error)
	if !isError {
		return out, found, nil
	}
	if errors.Is(failure, context.DeadlineExceeded) {
		return nil, false, fmt.Errorf("%s: %w", p.field, errSlow)
	}
	return nil, false, fmt.Errorf("%s: %s", p.field, transport.CleanText(failure.Error()))
}

// shaper is what a destination makes of an envelope before it is sent.
type shaper struct{ filter, transform *program }

func newShaper(dest *storage.Destination) (s shaper, err error) {
	if s.filter, err = compile("filter", dest.Filter); err != nil {
		return shaper{}, err
	}
	s.transform, err = compile("transform", dest.Transform)
	return s, err
}

// shape filters and transforms a payload; nil says that it is not to be sent. The
// filter's first output decides as jq's if does; no output is a no. The
// transform's first output is the envelope instead; null, or none, is not sent.
func (s shaper) shape(ctx context.Context, p *Payload) (*Payload, error) {
	if s.filter == nil && s.transform == nil {
		return p, nil
	}
	document, err := parseEnvelope(p.Envelope)
	if err != nil {
		return nil, err
	}
	if s.filter != nil {
		out, found, err := s.filter.first(ctx, document)
		if err != nil {
			return nil, err
		}
		if !found || out == nil || out == false {
			return nil, nil
		}
	}
	if s.transform == nil {
		return p, nil
	}
	out, found, err := s.transform.first(ctx, document)
	if err != nil || !found || out == nil {
		return nil, err
	}
	return reshaped(p, out)
}

// parseEnvelope keeps numbers as they are written, so that large integers survive.
func parseEnvelope(envelope []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(envelope))
	dec.UseNumber()
	var document any
	if err := dec.Decode(&document); err != nil {
		return nil, fmt.Errorf("payload is not JSON: %w", err)
	}
	return document, nil
}

// reshaped is a payload with another envelope. Kinds that do not send the
// envelope itself take `type` and `data` from it.
func reshaped(p *Payload, out any) (*Payload, error) {
	object, ok := out.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("transform: its output is a %s: it must be an object", gojq.TypeOf(out))
	}
	if written(object, maxShaped, maxDepth) < 0 {
		return nil, fmt.Errorf("transform: its output has more than %d bytes", maxShaped)
	}
	envelope, err := gojq.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("transform: its output is not JSON: %w", err)
	}
	if len(envelope) > maxShaped {
		return nil, fmt.Errorf("transform: its output has %d bytes: at most %d are allowed", len(envelope), maxShaped)
	}
	shaped := *p
	shaped.Envelope, shaped.Data, shaped.Transformed = envelope, []byte("{}"), true
	if typ, ok := object["type"].(string); ok && typ != "" {
		shaped.Type = typ
	}
	if data, ok := object["data"].(map[string]any); ok {
		if shaped.Data, err = gojq.Marshal(data); err != nil {
			return nil, fmt.Errorf("transform: its data is not JSON: %w", err)
		}
		if traits, ok := data["properties"].(map[string]any); ok {
			shaped.traits, _ = gojq.Marshal(traits) // was marshalled above
		}
	}
	return &shaped, nil
}
