package predicate_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	p "github.com/hogstream/hogstream/predicate"
)

// asked is one contact of whom one condition is asked.
type asked struct {
	set   *p.Set
	state p.State
}

func ask(t *testing.T, c p.Condition) *asked {
	t.Helper()
	set, err := p.Compile([]p.Named{{ID: "x", Condition: c}}, p.Options{Limits: p.DefaultLimits(), Buckets: []string{"b"}})
	require.NoError(t, err)
	return &asked{set: set}
}

func (a *asked) tell(r p.Record) bool {
	r.ID = uuid.New()
	return len(a.set.Apply(&a.state, &r, nil)) > 0
}

func (a *asked) happens(name string, at time.Time, properties string) bool {
	return a.tell(p.Record{Name: name, At: at, Properties: properties})
}

func (a *asked) at(now time.Time) p.Verdict { return a.set.Evaluate(0, &a.state, nil, now) }

// aNow is a summer's noon.
var aNow = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func holdsFor(t *testing.T, c p.Condition, properties string) bool {
	t.Helper()
	a := ask(t, c)
	a.tell(p.Record{Contact: properties})
	return a.at(aNow).Holds
}

type operatorRow struct{ operator, value, doc, absent, null, wrong string }

// operatorRows are the table of docs/conditions.md.
func operatorRows(t *testing.T) []operatorRow {
	doc, err := os.ReadFile("../docs/conditions.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(doc), "| operator | value, for example |")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	var rows []operatorRow
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `?([^|`]*)`? ?\\| ([^|]*) \\| (\\w+) \\| (\\w+) \\| (\\w+) \\|$").FindAllStringSubmatch(table, -1) {
		rows = append(rows, operatorRow{m[1], m[2], m[3], m[4], m[5], m[6]})
	}
	return rows
}

func (r operatorRow) condition(t *testing.T) p.Condition {
	text := "type: property\nproperty: v\noperator: " + r.operator
	if strings.TrimSpace(r.value) != "" {
		text += "\nvalue: " + r.value
	}
	return fromYAML(t, text)
}

// ofAnotherType are JSON values of which an operator wants none.
func (r operatorRow) ofAnotherType() []string {
	all := map[string]string{"text": `"zzz"`, "number": `7`, "boolean": `true`, "list": `["x"]`, "object": `{"a":1}`}
	switch r.operator {
	case "gt", "gte", "lt", "lte", "between":
		delete(all, "number")
	case "list_contains":
		delete(all, "list")
	case "exists", "not_exists":
	case "before", "on_or_before", "after", "on_or_after", "on_date":
		delete(all, "text")
		all["text that is no date"] = `"soon"`
		all["a time without a zone"] = `"2026-07-01T10:00:00"`
	default:
		delete(all, "text")
	}
	out := []string{}
	for _, v := range all {
		out = append(out, v)
	}
	return out
}

// B15, and the law of not: the table of the docs is the case list.
func TestEachOperatorTreatsAbsentAndNullAndOtherTypesAsTheTableSays(t *testing.T) {
	rows := operatorRows(t)
	words := []string{}
	for _, row := range rows {
		words = append(words, row.operator)
		c := row.condition(t)
		check := func(contact, want string) {
			require.Contains(t, []string{"yes", "no"}, want)
			assert.Equal(t, want == "yes", holdsFor(t, c, contact), "%s of %s", row.operator, contact)
			assert.Equal(t, want != "yes", holdsFor(t, p.Not(c), contact), "not %s of %s", row.operator, contact)
		}
		check(`{}`, row.absent)
		check(`{"v":null}`, row.null)
		for _, v := range row.ofAnotherType() {
			check(`{"v":`+v+`}`, row.wrong)
		}
	}
	var schema struct {
		Defs map[string]struct {
			Properties map[string]struct{ Enum []string }
		} `json:"$defs"`
	}
	require.NoError(t, json.Unmarshal(p.Schema, &schema))
	assert.Equal(t, schema.Defs["property"].Properties["operator"].Enum, words, "the table has every operator in its order")
}
