package journeys

import (
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
)

func needed[T any](f field[T]) field[T] {
	f.required = true
	return f
}

func textField[T any](name, doc string, of func(*T) *string) field[T] {
	return field[T]{name, doc, false, textSchema(),
		func(r *reader, at ast.Node, path string, v *T) { *of(v) = r.Text(at, path) },
		func(v *T) any { return unlessZero(*of(v) != "", *of(v)) }}
}

// wordField is one of some words, of which the first is the default.
func wordField[T any](name, doc string, known []string, of func(*T) *string) field[T] {
	return field[T]{name, doc, false, map[string]any{"enum": known},
		func(r *reader, at ast.Node, path string, v *T) { *of(v) = r.Word(at, path, known) },
		func(v *T) any { return unlessZero(*of(v) != "" && *of(v) != known[0], *of(v)) }}
}

func durationField[T any](name, doc string, of func(*T) *time.Duration) field[T] {
	return field[T]{name, doc, false, ref("duration"),
		func(r *reader, at ast.Node, path string, v *T) { *of(v) = r.Duration(at, path) },
		func(v *T) any { return unlessZero(*of(v) != 0, writeDuration(*of(v))) }}
}

// writeDuration is exact, and read again.
func writeDuration(d time.Duration) any {
	out := map[string]any{}
	if h := d / time.Hour; h != 0 {
		out["hours"] = int64(h)
	}
	if m := d % time.Hour / time.Minute; m != 0 {
		out["minutes"] = int64(m)
	}
	if s := d % time.Minute; s != 0 {
		out["seconds"] = s.Seconds()
	}
	return out
}

func pathField[T any](name, doc string, of func(*T) *predicate.Path) field[T] {
	return field[T]{name, doc, false, ref("path"),
		func(r *reader, at ast.Node, path string, v *T) { *of(v) = readPath(r, at, path) },
		func(v *T) any {
			if len(*of(v)) == 0 {
				return nil
			}
			return writePath(*of(v))
		}}
}

func zoneField[T any](name, doc string, of func(*T) **time.Location) field[T] {
	return field[T]{name, doc, false, textSchema(),
		func(r *reader, at ast.Node, path string, v *T) {
			if text := r.Text(at, path); text != "" {
				zone, err := predicate.LoadZone(text)
				if err != nil {
					r.Fault(at, path, "%s", err)
				}
				*of(v) = zone
			}
		},
		func(v *T) any {
			if *of(v) == nil {
				return nil
			}
			return (*of(v)).String()
		}}
}

func percentField[T any](name, doc string, of func(*T) *float64) field[T] {
	return field[T]{name, doc, false, map[string]any{"type": "number", "exclusiveMinimum": 0, "maximum": 100},
		func(r *reader, at ast.Node, path string, v *T) {
			switch n := at.(type) {
			case *ast.IntegerNode:
				switch i := n.Value.(type) {
				case uint64:
					*of(v) = float64(i)
				case int64:
					*of(v) = float64(i)
				}
			case *ast.FloatNode:
				*of(v) = n.Value
			default:
				r.Fault(at, path, "is %s: write a number up to 100", node.Describe(at))
				return
			}
			if p := *of(v); !(p > 0 && p <= 100) {
				r.Fault(at, path, "is %v: write a number above 0, up to 100", p)
			}
		},
		func(v *T) any { return unlessZero(*of(v) != 0, *of(v)) }}
}

func conditionField[T any](name, doc string, of func(*T) *predicate.Condition) field[T] {
	return field[T]{name, doc, false, ref("condition"),
		func(r *reader, at ast.Node, path string, v *T) {
			c, err := predicate.FromNode(r.File, path, at)
			r.Take(err)
			*of(v) = c
		},
		func(v *T) any {
			if of(v).IsZero() {
				return nil
			}
			return *of(v)
		}}
}

// whereField is a where on properties that are kept.
func whereField[T any](name, doc string, of func(*T) *predicate.Selector) field[T] {
	return field[T]{name, doc, false, ref("where"),
		func(r *reader, at ast.Node, path string, v *T) { *of(v) = r.selector(at, path) },
		func(v *T) any { return selectorWhere(*of(v)) }}
}

// selectorWhere is the where of a selector that has nothing else.
func selectorWhere(s predicate.Selector) any {
	object, err := s.MarshalYAML()
	if err != nil {
		panic(err) // it never fails
	}
	if rule, one := object.(map[string]any); one {
		return rule["where"]
	}
	return nil
}

func objectField[T any](name, doc string, of func(*T) **Value) field[T] {
	return field[T]{name, doc, false, ref("object"),
		func(r *reader, at ast.Node, path string, v *T) {
			pairs, is := node.Pairs(at)
			if !is {
				r.Fault(at, path, "is %s: write an object, such as {plan: trial}", node.Describe(at))
				return
			}
			value := readMembers(r, pairs, path, 0)
			*of(v) = &value
		},
		func(v *T) any {
			if *of(v) == nil {
				return nil
			}
			return (*of(v)).written()
		}}
}

func (r *reader) texts(at ast.Node, path string) map[string]string {
	pairs, ok := node.Pairs(at)
	if !ok {
		r.Fault(at, path, "is %s: write a map of texts", node.Describe(at))
		return nil
	}
	out := map[string]string{}
	for _, pair := range pairs {
		if name, ok := r.Key(pair, path); ok {
			out[name] = r.Text(pair.Value, join(path, name))
		}
	}
	return out
}

// readShift reads a duration with a sign.
func readShift(r *reader, at ast.Node, path string) time.Duration {
	word := r.Text(at, path)
	if word == "" {
		return 0
	}
	negative := strings.HasPrefix(word, "-")
	d, err := predicate.ParseDuration(strings.TrimLeft(word, "+-"))
	if err != nil {
		r.Fault(at, path, "%q is no shift: write a duration with a sign, such as -1d", word)
	}
	if negative {
		return -d
	}
	return d
}

func readTime(r *reader, at ast.Node, path string) schedule.TimeOfDay {
	word := r.Text(at, path)
	if word == "" {
		return schedule.TimeOfDay{}
	}
	t, err := schedule.ParseTimeOfDay(word)
	if err != nil {
		r.Fault(at, path, "%s", err)
	}
	return t
}

func hasKey(at ast.Node, name string) bool {
	for _, key := range mapKeys(at) {
		if key == name {
			return true
		}
	}
	return false
}

func mapKeys(at ast.Node) []string {
	pairs, _ := node.Pairs(at)
	var out []string
	for _, pair := range pairs {
		if key, plain := pair.Key.(*ast.StringNode); plain {
			out = append(out, key.Value)
		}
	}
	return out
}

func writeList[T any](list []T, write func(*T) any) any {
	if len(list) == 0 {
		return nil
	}
	out := make([]any, len(list))
	for i := range list {
		out[i] = write(&list[i])
	}
	return out
}

func writePart[T any](v *T, fields []field[T]) any {
	if v == nil {
		return nil
	}
	return writeMap(v, fields)
}

func unlessZero(is bool, value any) any {
	if !is {
		return nil
	}
	return value
}

func unlessNil[T any](v *T) any {
	if v == nil {
		return nil
	}
	return v
}

func ref(name string) map[string]any { return map[string]any{"$ref": "#/$defs/" + name} }

func textSchema() map[string]any { return map[string]any{"type": "string", "minLength": 1} }

func boolSchema() map[string]any { return map[string]any{"type": "boolean"} }

func listSchema(item map[string]any) map[string]any {
	return map[string]any{"type": "array", "minItems": 1, "items": item}
}

func anyOf(choices ...map[string]any) map[string]any { return map[string]any{"anyOf": choices} }
