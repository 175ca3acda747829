package predicate

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a condition, and where.
type Fault struct {
	File         string // as it was given to the parser; empty for what was built
	Line, Column int    // from 1; 0 for what was built
	Path         string // such as criteria.conditions[1].value
	Message      string // what is wrong, and what to write instead
}

// String is file:line:column: path: message.
func (f Fault) String() string {
	var out strings.Builder
	if f.File != "" {
		out.WriteString(f.File + ":")
	}
	if f.Line > 0 {
		fmt.Fprintf(&out, "%d:%d:", f.Line, f.Column)
	}
	if out.Len() > 0 {
		out.WriteByte(' ')
	}
	if f.Path != "" {
		out.WriteString(f.Path + ": ")
	}
	out.WriteString(f.Message)
	return out.String()
}

// faultAt is a fault of a field of a condition that stands at path.
func faultAt(file, path string, e *expr, field, format string, args ...any) Fault {
	line, column := e.place(field)
	if e != nil && e.short != "" && field == "value" {
		field = "" // stands where the path leads
	}
	return Fault{File: file, Line: line, Column: column, Path: join(path, field), Message: fmt.Sprintf(format, args...)}
}

// Faults are everything that is wrong, in the order of the text.
type Faults []Fault //nolint:errname // an error that is a list, and is read as one

// Error implements error, a line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// NotKnown says that a word is none of those that are known, and which was probably
// meant; it is empty for one that is.
func NotKnown(word string, known []string) string {
	if slices.Contains(known, word) {
		return ""
	}
	return oneOf(word, known)
}

// oneOf says that a word is none of those that are known, and which was probably meant.
func oneOf(word string, known []string) string {
	if near := nearest(word, known); near != "" {
		return fmt.Sprintf("%q is not known: did you mean %q?", word, near)
	}
	return fmt.Sprintf("%q is not known: use one of %s", word, strings.Join(known, ", "))
}

// nearest is the known word that is at most a third of its letters away, or "".
func nearest(word string, known []string) string {
	best, bestDistance := "", 1+max(1, len(word)/3)
	for _, candidate := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their neighbour.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, previous := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replace := previous[j]
			if a[i] != b[j] {
				replace++
			}
			row[j+1] = min(replace, previous[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, previous = previous, row
	}
	return previous[len(b)]
}

// Sorted puts them in the order of the text: parser and checks come by in turn. It sorts
// in place.
func (f Faults) Sorted() Faults {
	slices.SortStableFunc(f, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return f
}
