package predicate

import "slices"

// The short form of where: the properties of an event, each with its value, a list of
// values, or the operators that it is compared by.
//
//	where: {amount: {gt: 100, lte: 500}, currency: EUR, country: [DE, AT]}

// where takes a condition, the short form, or a list of these of which all must hold.
func (r *reader) where(at *tree, path string) *expr {
	if at.kind != treeList {
		return r.whereMap(at, path)
	}
	all := &expr{kind: kindComposite, operator: operatorAnd, source: at}
	for i, item := range at.items {
		all.conditions = append(all.conditions, r.whereMap(item, index(path, i)))
	}
	if len(all.conditions) == 1 {
		return all.conditions[0]
	}
	return all
}

func (r *reader) whereMap(at *tree, path string) *expr {
	if at.kind != treeMap || isLong(at) {
		return r.condition(at, path)
	}
	if len(at.members) == 0 {
		r.fault(at, path, "is empty: write properties with their values, such as {amount: {gt: 100}}, or leave it out")
	}
	all := &expr{kind: kindComposite, operator: operatorAnd, source: at}
	for _, m := range at.members {
		all.conditions = append(all.conditions, r.shortProperty(m, join(path, m.name))...)
	}
	if len(all.conditions) == 1 {
		return all.conditions[0]
	}
	return all
}

// isLong says that a map is a condition, or one whose type was forgotten. A property of the
// name type is compared by an operator: {type: {eq: x}}.
func isLong(at *tree) bool {
	typ := at.get("type")
	return typ != nil && typ.kind == treeText ||
		at.get("operator") != nil && (at.get("property") != nil || at.get("conditions") != nil)
}

func (r *reader) shortProperty(m member, path string) []*expr {
	e := expr{kind: kindProperty, property: Path{m.name}}
	if m.name == "" {
		r.note(m.line, m.column, path, "is empty: write the name of a property")
	}
	switch m.value.kind {
	case treeMap:
		return r.shortOperators(m.value, path, e)
	case treeList:
		return []*expr{r.compared(e, "in", m.value, path)}
	case treeNull:
		r.fault(m.value, path, "is null: write a value, or {not_exists: true} for none")
		return nil
	}
	return []*expr{r.compared(e, "eq", m.value, path)}
}

// shortOperators are all that a property is compared by; what else stands there belongs to
// each of them.
func (r *reader) shortOperators(at *tree, path string, shared expr) []*expr {
	faults := len(r.faults)
	if ignore := at.get("ignoreCase"); ignore != nil {
		readIgnoreCase(r, nil, ignore, join(path, "ignoreCase"), &shared)
	}
	if zone := at.get("zone"); zone != nil {
		shared.zone = r.nonEmpty(zone, join(path, "zone"))
	}
	var out []*expr
	known := append(propertyOperators.words(), "ignoreCase", "zone")
	for _, m := range at.members {
		switch inner := join(path, m.name); {
		case m.name == "ignoreCase" || m.name == "zone":
		case slices.Contains(known, m.name):
			out = append(out, r.compared(shared, m.name, m.value, inner))
		default:
			r.note(m.line, m.column, inner, "%s", oneOf(m.name, known))
		}
	}
	if len(out) == 0 && len(r.faults) == faults {
		r.fault(at, path, "has no operator: write one with its value, such as {gt: 100}")
	}
	return out
}

// compared is one comparison of the short form. exists and not_exists take true or false.
func (r *reader) compared(e expr, word string, at *tree, path string) *expr {
	e.operator, e.short = word, path
	e.source = &tree{kind: treeMap, line: at.line, column: at.column, members: []member{{name: "value", line: at.line, column: at.column, value: at}}}
	faults := len(r.faults)
	switch {
	case propertyOperators.find(word).wants != wantsNothing:
		e.value = r.value(at, path)
	case r.expect(at, path, treeBool) && !at.truth:
		e.operator = map[string]string{"exists": "not_exists", "not_exists": "exists"}[word]
	}
	if len(r.faults) == faults {
		e.normalise()
		r.faults = append(r.faults, check(r.file, path, &e)...)
	}
	return &e
}
