package sinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/itchyny/gojq"
)

// A jq program is broken off when it takes too long, but only between its steps, and
// one step may ask for any amount of memory: "x" * 1e9 is one, and the number may stand
// in an event that anybody can send. So a program is rewritten before it is compiled:
// each step whose result can be out of proportion to what it is made of goes through a
// function of ours that looks at its operands first. What a step may make is bounded,
// and what a program can do with many steps is bounded by its time.

// Bounds of the values that a program makes on its way.
const (
	maxValue    = 4 << 20  // bytes of a text, or of a document written out
	maxElements = 1 << 18  // of an array; no event or contact has as many
	maxSearched = 64 << 10 // bytes of a text that is searched with a regular expression
	maxDigits   = 1 << 14  // of a factor
	maxDepth    = 10_000   // of a document

	// Steps that take longer than what they make: so many pairs that are compared, and
	// for each match of a regular expression the text before it.
	maxPairs   = 1 << 22
	maxMatched = 1 << 26
	maxText    = 1 << 20 // bytes of a text that is searched for another
	shortText  = 64      // what is searched for in it, whatever that takes
	maxSought  = 1 << 24 // the product of both

	beyondElements = 0x20000000 // an index that gojq reads as null and refuses to write
)

var errTooLarge = errors.New("makes a value that is too large")

// bounds are the functions that a rewritten program calls. Their names cannot be used
// in a setting.
var bounds = []gojq.CompilerOption{
	gojq.WithFunction("_hog_factors", 2, 2, func(_ any, args []any) any { return checkFactors(args[0], args[1]) }),
	gojq.WithFunction("_hog_fits", 0, 0, func(v any, _ []any) any { return passing(v, fits(v)) }),
	gojq.WithFunction("_hog_small", 0, 0, func(v any, _ []any) any { return passing(v, isScalar(v) || written(v, maxValue, maxDepth) >= 0) }),
	gojq.WithFunction("_hog_all", 2, 2, func(v any, args []any) any { return passing(v, matches(v, args[0], args[1], true)) }),
	gojq.WithFunction("_hog_first", 2, 2, func(v any, args []any) any { return passing(v, matches(v, args[0], args[1], false)) }),
	gojq.WithFunction("_hog_pair", 1, 1, func(v any, args []any) any { return passing(v, comparable(v, args[0])) }),
	gojq.WithFunction("_hog_pairs", 2, 2, func(_ any, args []any) any { return passing(args, comparable(args[0], args[1])) }),
	gojq.WithFunction("_hog_digits", 0, 0, func(v any, _ []any) any { s, is := v.(string); return passing(v, !is || len(s) <= maxDigits) }),
	gojq.WithFunction("_hog_table", 0, 0, func(v any, _ []any) any { return passing(v, cells(v) <= maxElements) }),
	gojq.WithFunction("_hog_joined", 1, 1, func(v any, args []any) any { return passing(v, joins(v, args[0])) }),
	gojq.WithFunction("_hog_index", 0, 0, func(v any, _ []any) any { return boundIndex(v) }),
	gojq.WithFunction("_hog_path", 0, 0, func(v any, _ []any) any { return boundPath(v) }),
	gojq.WithFunction("_hog_event", 0, 0, func(v any, _ []any) any { return boundEvent(v) }),
}

func passing(v any, ok bool) any {
	if !ok {
		return errTooLarge
	}
	return v
}

// checkFactors are the operands of a multiplication. A text times a number repeats it.
func checkFactors(l, r any) any {
	ok := digits(l) <= maxDigits && digits(r) <= maxDigits
	for _, pair := range [][2]any{{l, r}, {r, l}} {
		if s, is := pair[0].(string); is {
			if n, is := gojq.ToFloat64(pair[1]); is {
				ok = ok && float64(len(s))*n <= maxValue
			}
		}
	}
	return passing([]any{l, r}, ok)
}

func digits(v any) int {
	switch v := v.(type) {
	case json.Number:
		return len(v)
	case *big.Int:
		return v.BitLen() / 3
	}
	return 0
}

// fits says whether a sum is no larger than may be. It is not looked into it: each step
// adds what there was.
func fits(v any) bool {
	switch v := v.(type) {
	case string:
		return len(v) <= maxValue
	case []any:
		return len(v) <= maxElements
	case json.Number, *big.Int:
		return digits(v) <= maxDigits
	}
	return true
}

func isScalar(v any) bool {
	switch v.(type) {
	case []any, map[string]any:
		return false
	}
	return true
}

// written takes what a document has when it is written out, about, off left, and stops
// when nothing is left: a few steps can make one that refers to its parts so often that
// no memory would hold it.
func written(v any, left, depth int) int {
	if depth == 0 {
		return -1
	}
	switch v := v.(type) {
	case string:
		return left - len(v) - 2
	case json.Number, *big.Int:
		return left - digits(v)
	case []any:
		for i := 0; i < len(v) && left >= 0; i++ {
			left = written(v[i], left-1, depth-1)
		}
		return left - 2
	case map[string]any:
		for key, member := range v {
			if left = written(member, left-len(key)-4, depth-1); left < 0 {
				break
			}
		}
		return left - 2
	}
	return left - 1
}

// cells is how many a table has whose rows are padded to the longest.
func cells(v any) int {
	rows, _ := v.([]any)
	longest := 0
	for _, row := range rows {
		if row, is := row.([]any); is {
			longest = max(longest, len(row))
		}
	}
	return longest * len(rows)
}

func joins(v, separator any) bool {
	parts, _ := v.([]any)
	s, _ := separator.(string)
	return written(v, maxValue-len(parts)*len(s), maxDepth) >= 0
}

// comparable says whether all of one value may be compared with all of the other: two
// lists of an event are long enough to keep a processor busy for a minute.
func comparable(l, r any) bool {
	a, isText := l.(string)
	b, areTexts := r.(string)
	if isText && areTexts {
		short, long := min(len(a), len(b)), max(len(a), len(b))
		return long <= maxText && (short <= shortText || short*long <= maxSought)
	}
	n := nodes(l, maxPairs, maxDepth)
	return n == 0 || nodes(r, maxPairs/n+1, maxDepth) <= maxPairs/n
}

// nodes counts what a document consists of, up to a number.
func nodes(v any, most, depth int) int {
	n := 1
	if depth == 0 {
		return most
	}
	switch v := v.(type) {
	case []any:
		for i := 0; i < len(v) && n < most; i++ {
			n += nodes(v[i], most-n, depth-1)
		}
	case map[string]any:
		for _, member := range v {
			if n += nodes(member, most-n, depth-1); n >= most {
				break
			}
		}
	}
	return n
}

// matches says whether a text may be searched for a regular expression: for all of its
// matches jq counts, for each of them, the characters before it. The flags say whether
// all are wanted, if that is not known.
func matches(v, expression, flags any, all bool) bool {
	text, is := v.(string)
	if !is {
		return true
	}
	if list, is := expression.([]any); is && len(list) == 2 { // with its flags
		expression, flags = list[0], list[1]
	}
	source, _ := expression.(string)
	letters, _ := flags.(string)
	most := maxMatched / max(len(text), 1)
	if all = all || strings.Contains(letters, "g"); !all || len(text) < most || len(text) > maxSearched {
		return len(text) <= maxSearched
	}
	if letters != "" {
		source = "(?is)" + source // no fewer than with any flags
	}
	re, err := regexp.Compile(source)
	return err != nil || len(re.FindAllStringIndex(text, most+1)) <= most
}

// boundIndex lets an index through that may be written to. One far beyond what an array
// can have becomes one that jq refuses to write to; to be read, it is as good.
func boundIndex(v any) any {
	if n, is := gojq.ToFloat64(v); is && n > maxElements {
		return beyondElements
	}
	return v
}

func boundPath(v any) any {
	path, is := v.([]any)
	if !is {
		return v
	}
	bound := make([]any, len(path))
	for i, step := range path {
		bound[i] = boundIndex(step)
	}
	return bound
}

// boundEvent is one of what fromstream reads: a path, and what is there.
func boundEvent(v any) any {
	event, is := v.([]any)
	if !is || len(event) == 0 {
		return v
	}
	return append([]any{boundPath(event[0])}, event[1:]...)
}

// rewriter puts the bounds into a program.
type rewriter struct {
	own map[string]bool // functions that the program defines
	err error
}

// putBounds rewrites a program in place.
func putBounds(q *gojq.Query) error {
	w := &rewriter{own: map[string]bool{}}
	eachNode(reflect.ValueOf(q), func(node any) {
		if def, is := node.(*gojq.FuncDef); is {
			w.own[def.Name] = true
			for _, arg := range def.Args {
				w.own[arg] = true
			}
		}
	})
	eachNode(reflect.ValueOf(q), w.rewrite)
	return w.err
}

// eachNode calls visit with each node of a program, those within it first.
func eachNode(v reflect.Value, visit func(node any)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			eachNode(v.Elem(), visit)
			visit(v.Interface())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			eachNode(v.Field(i), visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachNode(v.Index(i), visit)
		}
	}
}

func (w *rewriter) rewrite(node any) {
	switch node := node.(type) {
	case *gojq.FuncDef:
		w.reserve(node.Name)
	case *gojq.Query:
		rewriteOperator(node)
	case *gojq.Term:
		if node.Type == gojq.TermTypeFormat && node.Str == nil {
			before(node, "_hog_small")
		}
		if node.Type == gojq.TermTypeFunc {
			w.rewriteCall(node)
		}
	case *gojq.String:
		for i, part := range node.Queries {
			if part.Term == nil || part.Term.Str == nil { // what stands within \( )
				node.Queries[i] = inParens(pipe(part, call("_hog_small")))
			}
		}
	case *gojq.Index:
		if node.Start != nil && !node.IsSlice && !isSmallConstant(node.Start) {
			node.Start = pipe(node.Start, call("_hog_index"))
		}
	}
}

func (w *rewriter) reserve(name string) {
	if strings.HasPrefix(strings.TrimPrefix(name, "$"), "_hog") && w.err == nil {
		w.err = fmt.Errorf("%s: names that begin with _hog are taken", name)
	}
}

func rewriteOperator(q *gojq.Query) {
	l, r := q.Left, q.Right
	switch q.Op {
	case gojq.OpMul:
		replace(q, product(l, r))
	case gojq.OpAdd:
		replace(q, pipe(&gojq.Query{Left: l, Op: gojq.OpAdd, Right: r}, call("_hog_fits")))
	case gojq.OpSub:
		if !isNumber(l) && !isNumber(r) {
			replace(q, difference(l, r))
		}
	case gojq.OpUpdateMul, gojq.OpUpdateAdd, gojq.OpUpdateSub:
		// What gojq makes of it, with the operation bounded.
		operation := product(dot(), call("$_hog"))
		switch q.Op {
		case gojq.OpUpdateAdd:
			operation = pipe(&gojq.Query{Left: dot(), Op: gojq.OpAdd, Right: call("$_hog")}, call("_hog_fits"))
		case gojq.OpUpdateSub:
			operation = difference(dot(), call("$_hog"))
		}
		replace(q, bind(r, &gojq.Pattern{Name: "$_hog"}, &gojq.Query{Left: l, Op: gojq.OpModify, Right: inParens(operation)}))
	}
}

// product multiplies after a look at the factors.
func product(l, r *gojq.Query) *gojq.Query { return looked("_hog_factors", l, gojq.OpMul, r) }

// difference subtracts after a look at what it is of: of lists, all is compared with all.
func difference(l, r *gojq.Query) *gojq.Query { return looked("_hog_pairs", l, gojq.OpSub, r) }

func looked(at string, l *gojq.Query, op gojq.Operator, r *gojq.Query) *gojq.Query {
	both := &gojq.Pattern{Array: []*gojq.Pattern{{Name: "$_hogl"}, {Name: "$_hogr"}}}
	return bind(call(at, l, r), both, &gojq.Query{Left: call("$_hogl"), Op: op, Right: call("$_hogr")})
}

func isNumber(q *gojq.Query) bool { return q.Term != nil && q.Term.Type == gojq.TermTypeNumber }

func (w *rewriter) rewriteCall(t *gojq.Term) {
	f := t.Func
	w.reserve(f.Name)
	if w.own[f.Name] {
		return
	}
	switch args := f.Args; f.Name {
	case "tojson", "tostring", "flatten", "format", "error":
		if f.Name == "error" && len(args) == 1 {
			args[0] = pipe(args[0], call("_hog_small"))
		}
		before(t, "_hog_small")
	case "add":
		if len(args) == 0 {
			before(t, "_hog_small")
		} else {
			all := &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeArray, Array: &gojq.Array{Query: args[0]}}}
			substitute(t, pipe(all, pipe(call("_hog_small"), call("add"))))
		}
	case "transpose":
		before(t, "_hog_table")
	case "join":
		if len(args) == 1 {
			joined := pipe(call("_hog_joined", call("$_hog")), call("join", call("$_hog")))
			substitute(t, bind(args[0], &gojq.Pattern{Name: "$_hog"}, joined))
		}
	case "match", "capture", "scan", "splits", "sub", "gsub":
		search(t)
	case "split":
		if len(args) == 2 {
			search(t)
		}
	case "contains", "inside", "index", "rindex", "indices":
		if len(args) == 1 {
			found := pipe(call("_hog_pair", call("$_hog")), call(f.Name, call("$_hog")))
			substitute(t, bind(args[0], &gojq.Pattern{Name: "$_hog"}, found))
		}
	case "tonumber":
		before(t, "_hog_digits")
	case "nth":
		if len(args) == 1 {
			args[0] = pipe(args[0], call("_hog_index"))
		}
	case "setpath", "getpath":
		if len(args) > 0 {
			args[0] = pipe(args[0], call("_hog_path"))
		}
	case "fromstream":
		if len(args) == 1 {
			args[0] = pipe(args[0], call("_hog_event"))
		}
	default:
		if strings.HasPrefix(f.Name, "_") && w.err == nil {
			w.err = fmt.Errorf("%s: there is no such function", f.Name)
		}
	}
}

// search looks first at how much there is to be found.
func search(t *gojq.Term) {
	name, args := t.Func.Name, t.Func.Args
	if len(args) == 0 {
		return
	}
	look, most := "_hog_all", 2 // arguments
	switch name {
	case "match", "capture":
		look = "_hog_first"
	case "sub":
		look, most = "_hog_first", 3
	case "gsub":
		most = 3
	}
	again := append([]*gojq.Query{call("$_hog")}, args[1:]...)
	if len(args) != most { // without flags
		none := &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeNull}}
		substitute(t, bind(args[0], &gojq.Pattern{Name: "$_hog"}, pipe(call(look, call("$_hog"), none), call(name, again...))))
		return
	}
	again[most-1] = call("$_hogf")
	found := pipe(call(look, call("$_hog"), call("$_hogf")), call(name, again...))
	substitute(t, bind(args[0], &gojq.Pattern{Name: "$_hog"}, bind(args[most-1], &gojq.Pattern{Name: "$_hogf"}, found)))
}

func isSmallConstant(q *gojq.Query) bool {
	if q.Term == nil || len(q.Term.SuffixList) > 0 {
		return false
	}
	if q.Term.Type == gojq.TermTypeNumber {
		n, err := strconv.ParseFloat(q.Term.Number, 64)
		return err == nil && n <= maxElements
	}
	return q.Term.Type == gojq.TermTypeUnary && q.Term.Unary.Op == gojq.OpSub || q.Term.Type == gojq.TermTypeString
}

// before has a function look at the input of a term.
func before(t *gojq.Term, name string) {
	alone := *t
	alone.SuffixList = nil
	substitute(t, pipe(call(name), &gojq.Query{Term: &alone}))
}

// substitute puts a query in the place of a term; what follows the term follows it.
func substitute(t *gojq.Term, q *gojq.Query) {
	*t = gojq.Term{Type: gojq.TermTypeQuery, Query: q, SuffixList: t.SuffixList}
}

// replace puts another query in the place of q, which keeps its definitions.
func replace(q, by *gojq.Query) {
	*q = gojq.Query{Meta: q.Meta, Imports: q.Imports, FuncDefs: q.FuncDefs, Term: inParens(by).Term}
}

func inParens(q *gojq.Query) *gojq.Query {
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeQuery, Query: q}}
}

func dot() *gojq.Query { return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeIdentity}} }

func pipe(l, r *gojq.Query) *gojq.Query {
	return &gojq.Query{Left: inParens(l), Op: gojq.OpPipe, Right: r}
}

func bind(value *gojq.Query, to *gojq.Pattern, in *gojq.Query) *gojq.Query {
	return &gojq.Query{Left: inParens(value), Op: gojq.OpPipe, Patterns: []*gojq.Pattern{to}, Right: in}
}

func call(name string, args ...*gojq.Query) *gojq.Query {
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: name, Args: args}}}
}
