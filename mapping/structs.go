package mapping

import "fmt"

// member is where the value of one field of a STRUCT stands in the object that
// fills it.
type member struct {
	span
	rank int32 // of the key's spelling, see fieldName
}

// open finds the fields of a STRUCT in an object and returns where in
// e.members they are. Every member of the object must belong to a field: one
// that is left out would be lost in silence. Where an object has a field in two
// spellings, the rule of paths holds: the preferred one that is not null.
func (e *encoder) open(t *deltaType, v val) (from int, r refusal) {
	from = len(e.members)
	it, r := pairs(v)
	if r.code != "" {
		return from, r
	}
	for range t.fields {
		e.members = append(e.members, member{})
	}
	for n := 1; it.nextPair(); n++ {
		name, known := t.byName[string(e.keyText(it.key))]
		if !known || e.verbatim && !name.own {
			return from, mismatch(fmt.Sprintf("has a member (number %d) that is no field of the STRUCT; add the field to the column, or make the column VARIANT", n))
		}
		end := it.end
		found := member{span{uint32(end - len(it.value.b)), uint32(end), it.value.kind}, int32(name.rank)}
		m := &e.members[from+name.field]
		switch {
		case m.kind != absent && m.rank == found.rank:
			return from, refusal{CodeDuplicateKey, fmt.Sprintf("has its field %s twice; one of them would be lost", t.fields[name.field].name)}
		case m.kind <= null && found.kind > m.kind, found.kind > null && found.rank < m.rank:
			*m = found
		}
	}
	return from, refusal{}
}

// keyText returns a key without quotes and escapes.
func (e *encoder) keyText(raw []byte) []byte { return e.text(val{kind: jsonKind(raw), b: raw}) }

// fieldValue returns the value of a field of the object v.
func (e *encoder) fieldValue(f *field, v val, member int) (val, refusal) {
	m := e.members[member]
	if m.kind <= null {
		if f.notNull {
			return val{}, refusal{CodeMissingRequired, fmt.Sprintf("has no value for its field %s, which is NOT NULL", f.name)}
		}
		return val{}, refusal{}
	}
	return val{kind: m.kind, b: v.b[m.start:m.end]}, refusal{}
}
