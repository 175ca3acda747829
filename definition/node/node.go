// Package node reads the nodes of a YAML file: what stands there, and what is wrong with
// it, with the place and the fix.
package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/predicate"
)

// Reader reads the nodes of one file and notes their faults. Where a value is wrong it
// returns the zero value. A path is where in the file a node stands, such as dwell[0].after.
type Reader struct {
	File   string // as it is named in faults
	Faults predicate.Faults
}

// Fault notes what is wrong at a node.
func (r *Reader) Fault(at ast.Node, path, format string, args ...any) {
	line, column := Position(at)
	r.Faults = append(r.Faults, predicate.Fault{File: r.File, Line: line, Column: column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// Take notes the faults of a part that predicate, or another room, has read.
func (r *Reader) Take(err error) {
	var faults predicate.Faults
	if errors.As(err, &faults) {
		r.Faults = append(r.Faults, faults...)
	}
}

// Key is the name of a key; it is false for what is none.
func (r *Reader) Key(pair *ast.MappingValueNode, path string) (string, bool) {
	key, plain := pair.Key.(*ast.StringNode)
	if !plain {
		r.Fault(pair.Key, path, "%s is no name of a key", pair.Key.String())
		return "", false
	}
	return key.Value, true
}

// Text reads a string that is not empty.
func (r *Reader) Text(at ast.Node, path string) string {
	var text string
	switch n := at.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = strings.TrimRight(n.Value.Value, "\n")
	default:
		r.Fault(at, path, "is %s: write text", Describe(at))
		return ""
	}
	if text == "" {
		r.Fault(at, path, "is empty: write text")
	}
	return text
}

// Word reads one of the known words. One that is not known is returned all the same.
func (r *Reader) Word(at ast.Node, path string, known []string) string {
	word := r.Text(at, path)
	if word != "" && !slices.Contains(known, word) {
		r.Fault(at, path, "%s", predicate.NotKnown(word, known))
	}
	return word
}

// Boolean reads true or false.
func (r *Reader) Boolean(at ast.Node, path string) bool {
	n, ok := at.(*ast.BoolNode)
	if !ok {
		r.Fault(at, path, "is %s: write true or false", Describe(at))
		return false
	}
	return n.Value
}

// Duration reads 30d, 1h30m or {hours: 2}.
func (r *Reader) Duration(at ast.Node, path string) time.Duration {
	d, err := predicate.DurationFromNode(r.File, path, at)
	r.Take(err)
	return d
}

// Position is where a node begins; a map does with its first key.
func Position(at ast.Node) (line, column int) {
	if pairs, ok := Pairs(at); ok && len(pairs) > 0 && at.GetToken().Value == ":" {
		at = pairs[0].Key
	}
	if at != nil && at.GetToken() != nil && at.GetToken().Position != nil {
		return at.GetToken().Position.Line, at.GetToken().Position.Column
	}
	return 1, 1
}

// Pairs are the keys of a map with their values.
func Pairs(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode: // a map of one key
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// Describe says what was written instead of something else.
func Describe(node ast.Node) string {
	switch node.(type) {
	case nil, *ast.NullNode:
		return "empty"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a map"
	}
	return strings.ToLower(node.Type().String()) + " of YAML"
}
