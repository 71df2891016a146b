package emulator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/datafly/bridge/internal/delta"
)

// rowFault is why a request's rows are refused. Its text names the row, the
// column and the problem, never the value, since clients log it.
type rowFault struct {
	row       int    // index in the records array, -1: the body as a whole
	column    string // "" if the problem is not in one column
	reason    string // FIELD_NOT_IN_TABLE, TYPE_INCOMPATIBLE, MISSING_REQUIRED_COLUMN, DUPLICATE_FIELD, REFUSED or ""
	problem   string
	at        int  // where reading stopped, in bytes from the start of the text
	malformed bool // the JSON itself is broken
	digits    bool // a string where a whole number is expected
}

func (f *rowFault) Error() string {
	text := f.problem
	if f.malformed {
		text = fmt.Sprintf("%s at byte %d of the body", text, f.at)
	}
	switch {
	case f.row < 0:
		return text
	case f.column == "":
		return fmt.Sprintf("row %d: %s", f.row, text)
	}
	return fmt.Sprintf("row %d: column %q: %s", f.row, f.column, text)
}

// newRow is a row that fits the columns, before it is kept.
type newRow struct {
	raw []byte // what is stored
	id  []byte // the text of message_id; nil for none
}

var errUnexpected = errors.New("a value of another kind was expected")

// rowReader validates the JSON rows of one request against one schema in a
// single pass. It is reused from request to request.
type rowReader struct {
	dec       jsontext.Decoder
	buf       bytes.Buffer // what dec reads, without a copy of src
	src       []byte
	base      int // where src begins in the request's body
	schema    *schema
	textTimes bool // TIMESTAMP columns take RFC 3339 text too

	rows    []newRow
	seen    []uint32 // per column: the row (counted from 1) that last had it
	stamp   uint32   // the current row, counted from 1
	after   []int    // per column+1: the column that followed it last time
	rescued []string // members of the current row for the rescue column
}

var readers = sync.Pool{New: func() any { return new(rowReader) }}

// newReader takes a reader of src from the pool; release gives it back.
func newReader(src []byte) *rowReader {
	r := readers.Get().(*rowReader)
	r.load(src, 0)
	return r
}

func (r *rowReader) release() {
	clear(r.rows) // the pool must not retain the body
	r.schema = nil
	r.load(nil, 0)
	readers.Put(r)
}

// load makes src, which begins at byte base of the body, the text to read.
func (r *rowReader) load(src []byte, base int) {
	r.src, r.base = src, base
	r.buf = *bytes.NewBuffer(src)
	r.dec.Reset(&r.buf, jsontext.AllowDuplicateNames(true)) // row names the column that occurs twice
}

// begin removes the rows read so far; the next ones are checked against s.
func (r *rowReader) begin(s *schema) {
	r.schema, r.rows, r.stamp = s, r.rows[:0], 0
	r.seen = append(r.seen[:0], make([]uint32, len(s.columns))...)
	r.after = r.after[:0]
	for i := range len(s.columns) + 1 {
		r.after = append(r.after, i)
	}
}

// offset is the reading position within src.
func (r *rowReader) offset() int { return int(r.dec.InputOffset()) }

// next is where the next token begins within src.
func (r *rowReader) next() int {
	i := r.offset()
	for i < len(r.src) && (r.src[i] <= ' ' || r.src[i] == ':' || r.src[i] == ',') {
		i++
	}
	return i
}

// trailing is where text other than blanks follows in src, or -1.
func (r *rowReader) trailing() int {
	if i := bytes.IndexFunc(r.src[r.offset():], func(c rune) bool { return !strings.ContainsRune(" \t\r\n", c) }); i >= 0 {
		return r.offset() + i
	}
	return -1
}

// malformed is the fault of a row, or with -1 of the body, that is no JSON.
func (r *rowReader) malformed(row int, err error) *rowFault {
	f := &rowFault{row: row, at: r.base + r.offset(), malformed: true, problem: "invalid JSON"}
	text := ""
	if s := (*jsontext.SyntacticError)(nil); errors.As(err, &s) {
		f.at, text = r.base+int(s.ByteOffset), s.Err.Error()
	}
	for part, problem := range map[string]string{
		"escape sequence": "invalid escape in a string", "surrogate pair": "invalid escape in a string",
		"invalid UTF-8": "invalid UTF-8 in a string", "non-control": "control character in a string", "max depth": "JSON nested too deep",
	} {
		if strings.Contains(text, part) {
			f.problem = problem
		}
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		f.problem = "unexpected end of JSON"
	case errors.Is(err, errUnexpected):
		f.at = r.base + r.next()
	}
	return f
}

// refuse is a fault of the current row's content, not of its grammar.
func (r *rowReader) refuse(column, reason, problem string) *rowFault {
	return &rowFault{row: len(r.rows), column: column, reason: reason, problem: problem, at: r.base + r.offset()}
}

// open reads the bracket that begins an array or an object.
func (r *rowReader) open(kind jsontext.Kind) error {
	if got := r.dec.PeekKind(); got != kind && got > 0 {
		return errUnexpected
	}
	_, err := r.dec.ReadToken()
	return err
}

// name reads the name of an object's member.
func (r *rowReader) name() ([]byte, error) {
	v, err := r.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	return unquote(v), nil
}

// members reads an object: after every name it calls each, which reads the value.
func (r *rowReader) members(each func(name []byte) error) error {
	if err := r.open('{'); err != nil {
		return err
	}
	for r.dec.PeekKind() != '}' {
		name, err := r.name()
		if err == nil {
			err = each(name)
		}
		if err != nil {
			return err
		}
	}
	_, err := r.dec.ReadToken()
	return err
}

// skip reads any value.
func (r *rowReader) skip() error { return r.dec.SkipValue() }

// skipTo reads the rest of the values nested deeper than depth.
func (r *rowReader) skipTo(depth int) error {
	for r.dec.StackDepth() > depth {
		if _, err := r.dec.ReadToken(); err != nil {
			return err
		}
	}
	return nil
}

// records reads an array of rows. Nil means that every row fits.
func (r *rowReader) records() *rowFault {
	if err := r.open('['); err != nil {
		return r.malformed(-1, err)
	}
	for r.dec.PeekKind() != ']' {
		if f := r.row(); f != nil {
			return f
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return r.malformed(len(r.rows)-1, err)
	}
	return nil
}

// row reads one row.
func (r *rowReader) row() *rowFault {
	if kind := r.dec.PeekKind(); kind != '{' {
		if err := r.skip(); err != nil {
			return r.malformed(len(r.rows), err)
		}
		return r.refuse("", causeIncompatible, "a row must be a JSON object")
	}
	start, last := r.next(), -1
	row := newRow{}
	r.stamp++
	r.rescued = r.rescued[:0]
	if _, err := r.dec.ReadToken(); err != nil {
		return r.malformed(len(r.rows), err)
	}
	for r.dec.PeekKind() != '}' {
		name, err := r.name()
		if err != nil {
			return r.malformed(len(r.rows), err)
		}
		col, known := r.column(last, name)
		if !known {
			if f := r.unknown(string(name)); f != nil {
				return f
			}
			continue
		}
		last = col
		if f := r.member(col, &row); f != nil {
			return f
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return r.malformed(len(r.rows), err)
	}
	for _, c := range r.schema.required {
		if r.seen[c] != r.stamp {
			return r.refuse(r.schema.columns[c].name, causeMissing, "is NOT NULL and missing")
		}
	}
	row.raw = r.src[start:r.offset()]
	if len(r.rescued) > 0 {
		row.raw = r.rewrite(row.raw)
	}
	r.rows = append(r.rows, row)
	return nil
}

// column finds a column by its name; last is the column before. A writer's rows
// have their columns in the same order, so the column that followed last time
// is tried before the map.
func (r *rowReader) column(last int, name []byte) (col int, known bool) {
	col = r.after[last+1]
	if col < len(r.schema.columns) && r.schema.columns[col].name == string(name) {
		return col, true
	}
	if col, known = r.schema.index[string(name)]; known {
		r.after[last+1] = col
	}
	return col, known
}

// member reads the value of a column.
func (r *rowReader) member(col int, row *newRow) *rowFault {
	c := &r.schema.columns[col]
	if r.seen[col] == r.stamp {
		return r.refuse(c.name, "DUPLICATE_FIELD", "occurs twice in the row")
	}
	r.seen[col] = r.stamp
	depth, from := r.dec.StackDepth(), r.next()
	problem, err := r.value(c.typ, !c.notNull)
	rescue := problem != "" && !c.notNull && r.schema.rescue >= 0
	if rescue && err == nil {
		r.rescued = append(r.rescued, c.name)
		err = r.skipTo(depth)
	}
	switch {
	case err != nil:
		return r.malformed(len(r.rows), err)
	case problem != "" && !rescue:
		f := r.refuse(c.name, causeIncompatible, problem)
		f.digits = r.src[from] == '"' && c.typ.bits > 0
		return f
	case col == r.schema.id && !rescue:
		row.id, _ = valueText(r.src[from:r.offset()])
	}
	return nil
}

// unknown reads the value of a member that is no column.
func (r *rowReader) unknown(name string) *rowFault {
	if r.schema.rescue < 0 {
		return r.refuse(name, causeNotInTable, "is not a column of the table")
	}
	if slices.Contains(r.rescued, name) {
		return r.refuse(name, "DUPLICATE_FIELD", "occurs twice in the row")
	}
	r.rescued = append(r.rescued, name)
	if err := r.skip(); err != nil {
		return r.malformed(len(r.rows), err)
	}
	return nil
}

// rewrite moves the members that were rescued into the rescue column of a row,
// as the text of a JSON object.
func (r *rowReader) rewrite(row []byte) []byte {
	column := r.schema.columns[r.schema.rescue].name
	kept, moved := []byte{'{'}, []byte{'{'}
	in := newReader(row)
	defer in.release()
	_ = in.members(func(name []byte) error { // the row is valid JSON
		v, err := in.dec.ReadValue()
		switch {
		case slices.Contains(r.rescued, string(name)):
			moved = append(appendName(moved, name), v...)
		case string(name) != column: // the service sets that one
			kept = append(appendName(kept, name), v...)
		}
		return err
	})
	kept = appendQuoted(appendName(kept, []byte(column)), append(moved, '}'))
	return append(kept, '}')
}

// value reads one value of type t. The rules are those the service applies to
// JSON records: TIMESTAMP is a whole number of microseconds since 1970-01-01
// UTC, DATE a whole number of days, DECIMAL a string in plain notation, BINARY
// standard base64, VARIANT a string that holds JSON text. Integers may be
// quoted, as in proto3's JSON mapping of 64-bit values.
//
// It returns what is wrong with the value, or "", and what is wrong with the
// JSON. Part of a nested value with a problem may be left unread.
func (r *rowReader) value(t *dataType, nullable bool) (problem string, err error) {
	if kind := r.dec.PeekKind(); kind == '{' || kind == '[' {
		return r.nested(t, kind)
	}
	v, err := r.dec.ReadValue()
	if err != nil {
		return "", err
	}
	switch v[0] {
	case 'n':
		if !nullable {
			problem = "is NOT NULL and null"
		}
	case '"':
		if !t.plainString() {
			problem = textProblem(t, unquote(v), r.textTimes)
		}
	case 't', 'f':
		if t.Kind != delta.Boolean {
			problem = wants(t, "a boolean")
		}
	default:
		problem = numberProblem(t, v)
	}
	return problem, nil
}

// nested reads an array or an object.
func (r *rowReader) nested(t *dataType, kind jsontext.Kind) (problem string, err error) {
	isArray := kind == '['
	if want := t.Kind == delta.Array; want != isArray || !want && t.Kind != delta.Map && t.Kind != delta.Struct {
		got := "an object"
		if isArray {
			got = "an array"
		}
		return wants(t, got), r.skip()
	}
	if err := r.open(kind); err != nil {
		return "", err
	}
	seen := map[string]bool{}
	for k := r.dec.PeekKind(); k != '}' && k != ']'; k = r.dec.PeekKind() {
		elem, nullable := t.elem, false // protobuf, the service's own form, has no null elements
		if !isArray {
			name, err := r.name()
			if err != nil {
				return "", err
			}
			if problem := memberProblem(t, name, seen); problem != "" {
				return problem, nil
			}
			if t.Kind == delta.Struct {
				f := &t.fields[t.index[string(name)]]
				elem, nullable = f.typ, !f.notNull
			}
		}
		if problem, err := r.value(elem, nullable); problem != "" || err != nil {
			return problem, err
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return "", err
	}
	for _, f := range t.fields {
		if f.notNull && !seen[f.name] {
			return "lacks the NOT NULL field " + strconv.Quote(f.name), nil
		}
	}
	return "", nil
}

// memberProblem checks the name of a member of a MAP or a STRUCT.
func memberProblem(t *dataType, name []byte, seen map[string]bool) string {
	if seen[string(name)] {
		return "has the key " + strconv.Quote(string(name)) + " twice"
	}
	seen[string(name)] = true
	if t.Kind == delta.Struct {
		if _, known := t.index[string(name)]; !known {
			return "has no field " + strconv.Quote(string(name))
		}
		return ""
	}
	switch key := t.key; { // JSON always writes a key as a string
	case key.plainString():
		return ""
	case key.Kind == delta.Boolean:
		if s := string(name); s != "true" && s != "false" {
			return "has a key that is not true or false"
		}
		return ""
	case key.Kind == delta.Timestamp, key.Kind == delta.TimestampNTZ, key.Kind == delta.Date:
		if number := jsontext.Value(name); !number.IsValid() || number.Kind() != '0' {
			return "has a key that is not " + kinds[key.Kind].expected
		}
		return numberProblem(key, name)
	default:
		if p := textProblem(key, name, false); p != "" {
			return "has a key that does not fit: " + p
		}
		return ""
	}
}

// columnText finds a column's value in a valid row; see Row.Value.
func columnText(row []byte, name string) (text []byte, ok bool) {
	r := newReader(row)
	defer r.release()
	_ = r.members(func(key []byte) error { // the row is valid JSON
		v, err := r.dec.ReadValue()
		if err == nil && string(key) == name {
			text, ok = valueText(v)
		}
		return err
	})
	return text, ok
}

// valueText is the text of a JSON value: a string's characters, otherwise its
// JSON. ok is false for null.
func valueText(raw []byte) (text []byte, ok bool) {
	switch {
	case raw[0] == 'n':
		return nil, false
	case raw[0] == '"':
		return unquote(raw), true
	}
	return raw, true
}

// unquote resolves a valid JSON string.
func unquote(v []byte) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	out, _ := jsontext.AppendUnquote(nil, v)
	return out
}

// appendQuoted writes text, which is UTF-8, as a JSON string.
func appendQuoted(dst, text []byte) []byte {
	out, _ := jsontext.AppendQuote(dst, text)
	return out
}

// appendName begins the next member of the object that dst ends with.
func appendName(dst, name []byte) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return append(appendQuoted(dst, name), ':')
}

// jsonProblem is a fault of a JSON record in the service's words.
func (f *rowFault) jsonProblem() string {
	text := f.problem
	switch {
	case f.reason == causeNotInTable:
		text = "unrecognized field name '" + f.column + "'"
	case f.digits:
		text = "invalid digit found in string"
	case f.reason == causeIncompatible:
		text = fmt.Sprintf("invalid type: field '%s' %s", f.column, f.problem)
	case f.column != "":
		text = fmt.Sprintf("field '%s' %s", f.column, f.problem)
	}
	return text + " at line 1 column " + strconv.Itoa(f.at+1)
}
