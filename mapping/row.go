package mapping

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// canonical maps the event just scanned by the plan of its section.
func (m *Mapper) canonical() {
	if !m.consents() {
		m.filtered(FilterConsent)
		return
	}
	p := &m.m.plans[m.section()]
	if p.drop {
		m.filtered(FilterDrop)
		return
	}
	known := m.recognizes(p) // by what the event itself holds
	if !m.inherit() {
		m.tooLarge()
		return
	}
	for i := range p.filters {
		keep, err := p.filters[i].keep(m)
		if err != nil {
			m.reject(CodeFilterFailed, "", fmt.Sprintf("filter: %v; guard fields that may be missing with ??", err))
			return
		}
		if !keep {
			m.filtered(FilterExpression)
			return
		}
	}
	m.row(p, known)
}

// section returns the plan for the event: by its name as written, by its name
// in snake_case, by its type in the same two ways, else the one for all others.
func (m *Mapper) section() int32 {
	if len(m.m.byName) == 0 {
		return 0
	}
	for _, slots := range [...][]int32{m.m.shape.event, m.m.shape.eventName, m.m.shape.eventType, m.m.shape.rowType} {
		v := m.find(slots)
		if v.kind != str && v.kind != strEsc {
			continue
		}
		name := m.s.b[v.start+1 : v.end-1]
		m.name = m.name[:0]
		if v.kind == strEsc {
			m.name = unescape(m.name, name)
			name = m.name
		}
		if i := m.m.named(m.m.byName, name); i != 0 {
			return i
		}
		if !isSnake(name) {
			from := len(m.name)
			m.name = appendSnake(m.name, name)
			name = m.name[from:]
		}
		if i := m.m.named(m.m.bySnakeName, name); i != 0 {
			return i
		}
	}
	return 0
}

// named looks a section up. Most events have none, and most of their names
// differ from those of all sections in their length.
func (m *Mapping) named(sections map[string]int32, name []byte) int32 {
	if m.lengths>>min(len(name), 63)&1 == 0 {
		return 0
	}
	return sections[string(name)]
}

// row appends one row by the plan, or rejects the event: where it is not known,
// no source of any column was in it.
func (m *Mapper) row(p *plan, known bool) {
	if m.trace != nil {
		m.explain(p)
	}
	if !known {
		m.reject(CodeUnrecognized, "", "no source of any column is in the event, so its row would hold nothing of it; map its fields in the blueprint, or leave such events out by a filter")
		return
	}
	if m.e.protobuf {
		m.message(p)
	} else {
		m.object(p)
	}
}

// recognizes reports whether a source of a column is present. What every record
// has, such as its offset and the id made of it, is no such source.
func (m *Mapper) recognizes(p *plan) bool {
	if !p.reads {
		return true
	}
	for i := range p.columns {
		c := &p.columns[i]
		for j := range c.sources {
			if m.present(c, &c.sources[j]) {
				return true
			}
		}
	}
	return false
}

// present reports whether the event, or the key or header of its record, has
// the source.
func (m *Mapper) present(c *column, from *source) bool {
	switch {
	case from.always:
		return false
	case from.expr != nil:
		return slices.ContainsFunc(from.expr.slots, m.has)
	case from.slot >= 0:
		v := m.s.vals[from.slot]
		return v.kind > null && !(c.isID && v.kind == str && v.end-v.start == 2)
	}
	m.e.reset()
	v, refused := m.kafka(c, from)
	return v.kind != absent || refused.code != ""
}

// object appends a row in JSON.
func (m *Mapper) object(p *plan) {
	var result columnResult
	dst := append(m.out.Buf(), '{')
	for i := range p.columns {
		c := &p.columns[i]
		sp := m.find(c.leading)
		if sp.kind == absent && c.isNull {
			continue
		}
		// Strings on their way to a STRING column go in as they stand: the scanner
		// has found them to be valid JSON.
		if c.copies && (sp.kind == str || sp.kind == strEsc) && !(c.isID && sp.end-sp.start == 2) {
			dst = append(dst, c.key...)
			dst = append(dst, m.s.b[sp.start:sp.end]...)
			dst = append(dst, ',')
			continue
		}
		mark := len(dst)
		dst = append(dst, c.key...)
		dst = m.column(dst, c, &result)
		switch {
		case m.refused(c, &result):
			return
		case result.null:
			dst = dst[:mark]
		default:
			dst = append(dst, ',')
		}
	}
	if last := len(dst) - 1; dst[last] == ',' {
		dst[last] = '}'
	} else {
		dst = append(dst, '}')
	}
	m.out.Row(dst)
}

// message appends a row in protobuf.
func (m *Mapper) message(p *plan) {
	var result columnResult
	dst := m.out.Buf()
	for i := range p.columns {
		c := &p.columns[i]
		sp := m.find(c.leading)
		if sp.kind == absent && c.isNull {
			continue
		}
		if c.copies && sp.kind == str && !(c.isID && sp.end-sp.start == 2) {
			dst = appendLengthed(appendTag(dst, c.tag), m.s.b[sp.start+1:sp.end-1])
			continue
		}
		if dst = m.column(dst, c, &result); m.refused(c, &result) {
			return
		}
	}
	m.out.Row(dst)
}

// columnResult is where the value of a column came from.
type columnResult struct {
	from    *source // nil where none was present
	v       val     // the value there
	null    bool    // nothing was appended
	refused refusal
}

// refused rejects the event if one of its columns has no valid value.
func (m *Mapper) refused(c *column, result *columnResult) bool {
	switch {
	case result.refused.code != "":
		m.reject(result.refused.code, c.name, result.reason(c))
	case result.null && c.notNull:
		m.reject(CodeMissingRequired, c.name, fmt.Sprintf("column %s is NOT NULL and the event has no value for it; give it a default_value, or drop NOT NULL", c.name))
	default:
		return false
	}
	return true
}

// column appends the value of one column, or nothing where it is NULL.
func (m *Mapper) column(dst []byte, c *column, f *columnResult) []byte {
	m.e.reset()
	*f = columnResult{}
	var bad columnResult // the first value that is no time, where others may stand in for it
	mark := len(dst)
	for i := range c.sources {
		from := &c.sources[i]
		if from.slot >= 0 {
			sp := m.s.vals[from.slot]
			if sp.kind <= null || c.isID && sp.kind == str && sp.end-sp.start == 2 {
				continue
			}
			f.v = val{kind: sp.kind, b: m.s.b[sp.start:sp.end]}
		} else {
			if from.expr != nil {
				f.v, f.refused = m.evaluate(from)
			} else {
				f.v, f.refused = m.kafka(c, from)
			}
			if f.v.kind == absent && f.refused.code == "" {
				continue
			}
		}
		if f.from = from; f.refused.code != "" {
			return dst
		}
		if dst = m.convert(dst, c, f); !c.nextTime || !f.badTime(c) {
			return dst
		}
		if bad.from == nil {
			bad = *f
		}
		*f, dst = columnResult{}, dst[:mark]
	}
	if bad.from != nil {
		*f = bad
		return dst
	}
	return m.constant(dst, c.fallback, f)
}

// badTime reports whether the value was refused as a time.
func (f *columnResult) badTime(c *column) bool {
	switch f.refused.code {
	case CodeBadTimestamp:
		return true
	case CodeTypeMismatch, CodeOutOfRange:
		return isTime(c.typ)
	}
	return false
}

// constant appends a constant of the blueprint.
func (m *Mapper) constant(dst []byte, k constant, f *columnResult) []byte {
	f.null = k.json == nil
	if m.e.protobuf {
		return append(dst, k.protobuf...)
	}
	return append(dst, k.json...)
}

// convert appends the value after the column's transforms and its value_map.
func (m *Mapper) convert(dst []byte, c *column, f *columnResult) []byte {
	v := f.v
	for i := range c.chain {
		op := &c.chain[i]
		// The name of an event is nearly always snake_case or plain already.
		if op.name == "snake_case" && v.kind == str && isSnake(v.b[1:len(v.b)-1]) {
			continue
		}
		if v, f.refused = m.e.transform(op, c.typ, v); f.refused.code != "" {
			return dst
		}
	}
	if c.lookup != nil {
		if v.kind != object && v.kind != array {
			if to, ok := c.lookup[string(m.e.text(v))]; ok {
				return m.constant(dst, to, f)
			}
		}
		if c.hasStar {
			return m.constant(dst, c.star, f)
		}
	}
	m.e.verbatim = f.from.verbatim
	if m.e.protobuf {
		dst, f.refused = m.e.appendField(dst, c.tag, c.typ, v)
	} else {
		dst, f.refused = m.e.append(dst, c.typ, v)
	}
	return dst
}

// reason describes why a value cannot go into its column. It shows numbers
// of up to 32 characters and no other part of the event.
func (f columnResult) reason(c *column) string {
	if f.refused.code == CodeExpressionFailed {
		return fmt.Sprintf("column %s (%s): %s; guard fields that may be missing with ??", c.name, c.typ.short(), f.refused.rule)
	}
	what := f.v.describe()
	if f.v.kind == number && len(f.v.b) <= 32 {
		what = "the number " + string(f.v.b)
	}
	return fmt.Sprintf("column %s (%s): %s from %s %s", c.name, c.typ.short(), what, f.from.path, f.refused.rule)
}

func (m *Mapper) reject(code, column, reason string) {
	if m.trace != nil {
		m.endTrace(Explained{Outcome: "reject", Code: code, Column: column, Reason: reason})
	}
	m.out.Reject(code, column, reason)
}

func (m *Mapper) filtered(reason string) {
	if m.trace != nil {
		m.endTrace(Explained{Outcome: "filter", Code: reason})
	}
	m.out.Filter(reason)
}

// Explained is the outcome of one event, with the reason.
type Explained struct {
	Outcome string            `json:"outcome"`           // row, reject or filter
	Code    string            `json:"code,omitempty"`    // one of RejectCodes or FilterReasons
	Column  string            `json:"column,omitempty"`  // that could not be filled
	Reason  string            `json:"reason,omitempty"`  // of a reject, for people
	Shape   string            `json:"shape,omitempty"`   // event, or row where it was mapped already
	Section string            `json:"section,omitempty"` // of the blueprint, where one was chosen
	Row     json.RawMessage   `json:"row,omitempty"`
	Columns []ExplainedColumn `json:"columns,omitempty"`
}

// ExplainedColumn describes the source of one column.
type ExplainedColumn struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Value  string `json:"value,omitempty"`  // as JSON, as it stands in the row; "" is NULL
	Source string `json:"source,omitempty"` // the path as the event spells it or, of the envelope, what surrounds it; $kafka.x, expression, default_value
	Why    string `json:"why,omitempty"`    // why it is NULL, or was refused
}

// Explain maps a record and returns the outcome of every event in it, with the
// source of every column, or why it is NULL. It holds event data, is slow
// and is for people at a prompt. It shows rows in JSON, also where Map writes
// protobuf.
func (m *Mapper) Explain(rec *Record) []Explained { return m.ExplainUntil(time.Time{}, rec) }

// ExplainUntil is Explain for an event and a blueprint that are not trusted: expressions
// that would start after a time fail.
func (m *Mapper) ExplainUntil(end time.Time, rec *Record) []Explained {
	var trace []Explained
	asProtobuf := m.e.protobuf
	m.trace, m.e.protobuf, m.until = &trace, false, end
	m.Map(rec, &explainOut{trace: &trace})
	m.trace, m.e.protobuf, m.until = nil, asProtobuf, time.Time{}
	return trace
}

// explainOut adds the rows; rejects and filters end their entries directly.
type explainOut struct{ trace *[]Explained }

func (o *explainOut) Buf() []byte { return nil }
func (o *explainOut) Row(b []byte) {
	last := &(*o.trace)[len(*o.trace)-1]
	last.Outcome, last.Row = "row", b
}
func (o *explainOut) Reject(_, _, _ string) {}
func (o *explainOut) Filter(string)         {}

// endTrace ends the entry row began, or adds one where none was begun.
func (m *Mapper) endTrace(x Explained) {
	t := *m.trace
	if n := len(t); n > 0 && t[n-1].Outcome == "" {
		x.Shape, x.Section, x.Columns = t[n-1].Shape, t[n-1].Section, t[n-1].Columns
		t[n-1] = x
		return
	}
	*m.trace = append(t, x)
}

// explain begins an entry for the event that is about to become a row.
func (m *Mapper) explain(p *plan) {
	x := Explained{Shape: "event", Section: p.name}
	if p == &m.m.rowPlan {
		x.Shape = "row"
	}
	for i := range p.columns {
		c := &p.columns[i]
		var result columnResult
		out := m.column(nil, c, &result)
		ex := ExplainedColumn{Name: c.name, Type: c.typ.text, Value: string(out)}
		if result.from != nil {
			ex.Source = result.from.path
			if p != &m.m.rowPlan && m.inherits(result.from.slot) {
				ex.Source += " of the envelope"
			}
		}
		switch {
		case result.refused.code != "":
			ex.Value, ex.Why = "", "refused: "+result.v.describe()+" "+result.refused.rule
			if result.refused.code == CodeExpressionFailed {
				ex.Why = "refused: " + result.refused.rule
			}
		case !result.null && ex.Source == "":
			ex.Source = "default_value"
		case result.null && ex.Source != "":
			ex.Why = "value_map makes it NULL"
		case result.null:
			ex.Why = m.whyNull(c)
		}
		x.Columns = append(x.Columns, ex)
	}
	*m.trace = append(*m.trace, x)
}

func (m *Mapper) whyNull(c *column) string {
	var names []string
	for _, s := range c.sources {
		if s.expr != nil {
			return "the expression gives nil"
		}
		if s.slot >= 0 && m.s.vals[s.slot].kind == null {
			return "explicit null at " + s.path
		}
		names = append(names, s.path)
	}
	if len(names) == 0 {
		return "no source"
	}
	return "no source present: " + strings.Join(names, ", ")
}
