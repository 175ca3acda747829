package predicate

// load reads a condition and refuses what can never be true or never be false.
func (r *reader) load(t *tree, path string) (Condition, error) {
	if len(r.faults) > 0 {
		return Condition{}, r.faults.Sorted()
	}
	e := r.condition(t, path)
	if len(r.faults) == 0 {
		r.faults = append(r.faults, constants(r.file, path, e)...)
	}
	if len(r.faults) > 0 {
		return Condition{}, r.faults.Sorted()
	}
	return Condition{e}, nil
}

// condition reads a map with a type, and checks what its fields say together.
func (r *reader) condition(at *tree, path string) *expr {
	if !r.expect(at, path, treeMap) {
		return &expr{kind: kindComposite, source: at}
	}
	typ := at.get("type")
	if typ == nil {
		r.fault(at, path, "type is missing: use one of %s", words(kinds()))
		return &expr{kind: kindComposite, source: at}
	}
	kind := r.word(typ, join(path, "type"), kinds())
	if kind == "" {
		return &expr{kind: kindComposite, source: at}
	}
	faults := len(r.faults)
	e := r.form(findForm(kind), at, path)
	if len(r.faults) == faults {
		e.normalise()
		r.faults = append(r.faults, check(r.file, path, e)...)
	}
	return e
}
