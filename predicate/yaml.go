package predicate

import (
	"errors"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// ParseYAML reads a condition from the text of a YAML file. The file's name is for the
// faults alone. The error is [Faults], with all that is wrong.
func ParseYAML(file string, text []byte) (Condition, error) {
	node, err := oneDocument(file, text, "condition")
	if err != nil {
		return Condition{}, err
	}
	return FromNode(file, "", node)
}

// oneDocument is the only one of a text.
func oneDocument(file string, text []byte, what string) (ast.Node, error) {
	documents, err := Documents(file, text)
	if err != nil {
		return nil, err
	}
	if len(documents) != 1 {
		r := &reader{file: file}
		r.note(1, 1, "", "holds %d documents: write one %s", len(documents), what)
		return nil, r.faults
	}
	return documents[0], nil
}

// Documents are the documents of a YAML file of at most 256 KiB, without empty ones.
// Errors as [ParseYAML].
func Documents(file string, text []byte) ([]ast.Node, error) {
	r := &reader{file: file}
	if len(text) > maxText {
		r.note(1, 1, "", "is longer than %d KiB", maxText>>10)
		return nil, r.faults
	}
	parsed, err := parser.ParseBytes(text, 0)
	if err != nil {
		r.yamlFault(err)
		return nil, r.faults
	}
	var out []ast.Node
	for _, document := range parsed.Docs {
		if document.Body != nil && document.Body.Type() != ast.CommentType {
			out = append(out, document.Body)
		}
	}
	return out, nil
}

// FromNode reads a condition from a part of a YAML file that was parsed already; path is
// where in the file it stands, such as criteria. Errors as [ParseYAML].
func FromNode(file, path string, node ast.Node) (Condition, error) {
	r := &reader{file: file}
	return r.load(r.yaml(node, path, 0), path)
}

// DurationFromNode reads a duration from a part of a YAML file that was parsed already, as
// [FromNode] does a condition.
func DurationFromNode(file, path string, node ast.Node) (time.Duration, error) {
	r := &reader{file: file}
	d := r.duration(r.yaml(node, path, 0), path)
	if len(r.faults) > 0 {
		return 0, r.faults
	}
	return d, nil
}

func (r *reader) yamlFault(err error) {
	line, column := 1, 1
	message := err.Error()
	var located interface {
		GetMessage() string
		GetToken() *token.Token
	}
	if errors.As(err, &located) {
		message = located.GetMessage()
		if t := located.GetToken(); t != nil && t.Position != nil {
			line, column = t.Position.Line, t.Position.Column
		}
	}
	r.note(line, column, "", "is no YAML: %s", message)
}

// yaml makes a tree of a node. What conditions have no use for, such as anchors, is
// refused: a file should say what it means where it means it.
func (r *reader) yaml(node ast.Node, path string, depth int) *tree {
	out := &tree{kind: treeNull, line: 1, column: 1}
	if node == nil {
		return out
	}
	if t := node.GetToken(); t != nil && t.Position != nil {
		out.line, out.column = t.Position.Line, t.Position.Column
	}
	if depth > maxDepth {
		r.fault(out, path, "nests deeper than %d levels", maxDepth)
		return out
	}
	switch n := node.(type) {
	case *ast.NullNode:
	case *ast.BoolNode:
		out.kind, out.truth = treeBool, n.Value
	case *ast.IntegerNode:
		out.kind, out.number = treeNumber, integer(n.Value)
	case *ast.FloatNode:
		out.kind, out.number = treeNumber, n.Value
	case *ast.StringNode:
		out.kind, out.text = treeText, n.Value
	case *ast.LiteralNode:
		out.kind, out.text = treeText, n.Value.Value
	case *ast.SequenceNode:
		out.kind = treeList
		for i, item := range n.Values {
			out.items = append(out.items, r.yaml(item, index(path, i), depth+1))
		}
	case *ast.MappingNode:
		out.kind = treeMap
		for _, pair := range n.Values {
			r.yamlMember(out, pair, path, depth)
		}
	case *ast.MappingValueNode: // a map of one key
		out.kind = treeMap
		r.yamlMember(out, n, path, depth)
	default:
		r.fault(out, path, "is %s of YAML: write the value itself", strings.ToLower(node.Type().String()))
	}
	return out
}

func integer(v any) float64 {
	switch n := v.(type) {
	case int64:
		return float64(n)
	case uint64:
		return float64(n)
	}
	return 0
}

func (r *reader) yamlMember(out *tree, pair *ast.MappingValueNode, path string, depth int) {
	name, plain := pair.Key.(*ast.StringNode)
	if !plain {
		r.fault(out, path, "%s is no name of a key", pair.Key.String())
		return
	}
	at := name.GetToken().Position
	out.members = append(out.members, member{name.Value, at.Line, at.Column, r.yaml(pair.Value, join(path, name.Value), depth+1)})
}
