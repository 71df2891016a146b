package emulator

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// rowFault says why a request's rows are refused. Its text names the row and
// the column and the kind of fault, never the value: a client may log it.
type rowFault struct {
	row     int    // index in the records array, -1: the body as a whole
	column  string // "" when no column is to blame
	reason  string // FIELD_NOT_IN_TABLE, TYPE_INCOMPATIBLE, MISSING_REQUIRED_COLUMN, DUPLICATE_FIELD, REFUSED or ""
	problem string
	digits  bool // text stands where a whole number belongs
}

func (f *rowFault) Error() string {
	switch {
	case f.row < 0:
		return f.problem
	case f.column == "":
		return fmt.Sprintf("row %d: %s", f.row, f.problem)
	}
	return fmt.Sprintf("row %d: column %q: %s", f.row, f.column, f.problem)
}

// span is a piece of the request body.
type span struct{ start, end int }

// rowReader validates the rows of one request against one schema in a single
// pass. It is reused from request to request.
type rowReader struct {
	scanner
	schema    *schema
	textTimes bool // RFC 3339 text is fine in TIMESTAMP columns

	rows []span   // each row, within b
	ids  []idHash // per row, the hash of its message_id; zero for none
	// idText holds where each message_id stands, for those seen twice.
	idText []span

	seen    []uint32 // per column: the row (counted from 1) that last had it
	stamp   uint32   // the current row, counted from 1
	after   []int    // per column+1: the column that followed it last time
	scratch []byte
	fault   rowFault

	rescued   []string       // members of the current row for the rescue column
	rewritten map[int][]byte // rows, by their place, that had such members
}

// reset makes the reader ready for a body and a schema.
func (r *rowReader) reset(body []byte, s *schema) {
	r.scanner = scanner{b: body}
	r.schema = s
	r.rows, r.ids, r.idText = r.rows[:0], r.ids[:0], r.idText[:0]
	r.rewritten = nil // the last one's rows may still be on their way
	r.stamp = 0
	r.seen = append(r.seen[:0], make([]uint32, len(s.columns))...)
	r.after = r.after[:0]
	for i := range len(s.columns) + 1 {
		r.after = append(r.after, i)
	}
}

// records reads the array of rows at pos. Nil means that every row fits.
func (r *rowReader) records() *rowFault {
	if !r.punct('[') {
		return r.malformed(-1)
	}
	r.space()
	if r.peek() == ']' {
		r.pos++
		return nil
	}
	for {
		r.stamp++
		if !r.row() {
			return r.blame(len(r.rows))
		}
		r.space()
		switch r.peek() {
		case ',':
			r.pos++
		case ']':
			r.pos++
			return nil
		default:
			r.unexpected()
			return r.malformed(len(r.rows) - 1)
		}
	}
}

// accepted are the rows read, for Table.keep.
func (r *rowReader) accepted() *accepted {
	return &accepted{schema: r.schema, src: r.b, rows: r.rows, ids: r.ids, idText: r.idText, text: r.text, rewritten: r.rewritten}
}

func (r *rowReader) malformed(row int) *rowFault {
	return &rowFault{row: row, problem: fmt.Sprintf("%s at byte %d of the body", r.problem, r.pos)}
}

// blame completes the fault of a row that did not pass.
func (r *rowReader) blame(row int) *rowFault {
	if r.problem != "" {
		return r.malformed(row)
	}
	fault := r.fault // the reader goes back to its pool before the answer is written
	fault.row = row
	return &fault
}

// refuse records a fault of the row's content, as opposed to its grammar.
func (r *rowReader) refuse(column, reason, problem string) bool {
	r.fault = rowFault{column: column, reason: reason, problem: problem}
	return false
}

func (r *rowReader) row() bool {
	r.space()
	start := r.pos
	if r.peek() != '{' {
		if !r.skip(0) {
			return false
		}
		return r.refuse("", causeIncompatible, "a row must be a JSON object")
	}
	r.pos++
	r.ids = append(r.ids, idHash{})
	r.idText = append(r.idText, span{})
	r.rescued = r.rescued[:0]
	r.space()
	if r.peek() == '}' {
		r.pos++
	} else if !r.members(-1) {
		return false
	}
	for _, c := range r.schema.required {
		if r.seen[c] != r.stamp {
			return r.refuse(r.schema.columns[c].name, causeMissing, "is NOT NULL and missing")
		}
	}
	r.rows = append(r.rows, span{start, r.pos})
	if len(r.rescued) > 0 {
		if r.rewritten == nil {
			r.rewritten = map[int][]byte{}
		}
		r.rewritten[len(r.rows)-1] = r.rewrite(span{start, r.pos})
	}
	return true
}

// members reads the members of a row up to its closing brace. last is the
// column before: rows of one writer have their columns in the same order, so
// the column that followed it last time is tried before the map.
func (r *rowReader) members(last int) bool {
	for {
		r.space()
		name, escaped, ok := r.str()
		if !ok {
			return false
		}
		if escaped {
			name = r.unescape(name)
		}
		col := r.after[last+1]
		if col >= len(r.schema.columns) || r.schema.columns[col].name != string(name) {
			if col, ok = r.schema.index[string(name)]; !ok {
				if !r.unknown(string(name)) {
					return false
				}
				if r.space(); r.peek() == ',' {
					r.pos++
					continue
				}
				return r.punct('}')
			}
			r.after[last+1] = col
		}
		if r.seen[col] == r.stamp {
			return r.refuse(r.schema.columns[col].name, "DUPLICATE_FIELD", "occurs twice in the row")
		}
		r.seen[col] = r.stamp
		if !r.punct(':') {
			return false
		}
		r.space()
		f := &r.schema.columns[col]
		from := r.pos
		problem := r.value(f.typ, !f.notNull, 0)
		rescued := problem != "" && !f.notNull && r.rescue(f.name, from)
		if problem != "" && !rescued {
			r.refuse(f.name, causeIncompatible, problem)
			r.fault.digits = r.b[from] == '"' && f.typ.integer()
			return false
		}
		if r.problem != "" {
			return false
		}
		if col == r.schema.id && !rescued {
			r.noteID(span{from, r.pos})
		}
		last = col
		r.space()
		switch r.peek() {
		case ',':
			r.pos++
		case '}':
			r.pos++
			return true
		default:
			return r.unexpected()
		}
	}
}

// unknown reads a member that is no column, behind its name.
func (r *rowReader) unknown(name string) bool {
	if r.schema.rescue < 0 {
		return r.refuse(name, causeNotInTable, "is not a column of the table")
	}
	if slices.Contains(r.rescued, name) {
		return r.refuse(name, "DUPLICATE_FIELD", "occurs twice in the row")
	}
	if !r.punct(':') {
		return false
	}
	r.space()
	return r.rescue(name, r.pos)
}

// noteID keeps the hash of the row's message_id.
func (r *rowReader) noteID(at span) {
	text, ok := r.text(r.b[at.start:at.end])
	if ok {
		r.ids[len(r.ids)-1] = hashID(text)
		r.idText[len(r.idText)-1] = at
	}
}

// text is what a JSON value reads as: a string's characters, the literal of a
// number or boolean, the raw JSON of anything else. ok is false for null. The
// result is valid until the next call.
func (r *rowReader) text(raw []byte) (text []byte, ok bool) {
	if len(raw) == 0 || raw[0] == 'n' {
		return nil, false
	}
	if raw[0] != '"' {
		return raw, true
	}
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' {
			return r.unescape(inner), true
		}
	}
	return inner, true
}

// unescape resolves the escapes of a string's contents that str has passed.
func (r *rowReader) unescape(inner []byte) []byte {
	quoted := make([]byte, 0, len(inner)+2)
	quoted = append(append(append(quoted, '"'), inner...), '"')
	out, err := jsontext.AppendUnquote(r.scratch[:0], quoted)
	if err != nil {
		return inner
	}
	r.scratch = out
	return out
}

// column finds a column's value in a row that has passed validation.
func (r *rowReader) column(row []byte, name string) (text []byte, ok bool) {
	r.scanner = scanner{b: row}
	var raw []byte
	r.scanner.members('{', func(key []byte, escaped bool) bool {
		if escaped {
			key = r.unescape(key)
		}
		match := string(key) == name
		from := r.pos
		if !r.skip(0) {
			return false
		}
		if match {
			raw = r.b[from:r.pos]
		}
		return true
	})
	return r.text(raw)
}
