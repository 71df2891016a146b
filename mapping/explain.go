package mapping

import (
	"encoding/json"
	"strings"
)

// Explained says what became of one event and why.
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

// ExplainedColumn says what feeds one column.
type ExplainedColumn struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Value  string `json:"value,omitempty"`  // as JSON, as it stands in the row; "" is NULL
	Source string `json:"source,omitempty"` // the path as the event spells it or, of the envelope, what surrounds it; $kafka.x, expression, default_value
	Why    string `json:"why,omitempty"`    // why it is NULL, or was refused
}

// Explain maps a record and says for every event in it what became of it, and
// for every column what fed it or why it is NULL. It holds event data, is slow
// and is for people at a prompt. It shows rows in JSON, also where Map writes
// protobuf.
func (m *Mapper) Explain(rec *Record) []Explained {
	var trace []Explained
	wire := m.e.wire
	m.trace, m.e.wire = &trace, false
	m.Map(rec, &explainOut{trace: &trace})
	m.trace, m.e.wire = nil, wire
	return trace
}

// explainOut adds the rows; rejects and filters settle by themselves.
type explainOut struct{ trace *[]Explained }

func (o *explainOut) Buf() []byte { return nil }
func (o *explainOut) Row(b []byte) {
	last := &(*o.trace)[len(*o.trace)-1]
	last.Outcome, last.Row = "row", b
}
func (o *explainOut) Reject(_, _, _ string) {}
func (o *explainOut) Filter(string)         {}

// settle ends the entry row began, or adds one where none was begun.
func (m *Mapper) settle(x Explained) {
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
		var fed feed
		out := m.column(nil, c, &fed)
		ex := ExplainedColumn{Name: c.name, Type: c.typ.text, Value: string(out)}
		if fed.from != nil {
			ex.Source = fed.from.path
			if p != &m.m.rowPlan && m.inherits(fed.from.slot) {
				ex.Source += " of the envelope"
			}
		}
		switch {
		case fed.refused.code != "":
			ex.Value, ex.Why = "", "refused: "+fed.v.describe()+" "+fed.refused.rule
			if fed.refused.code == CodeExpressionFailed {
				ex.Why = "refused: " + fed.refused.rule
			}
		case !fed.null && ex.Source == "":
			ex.Source = "default_value"
		case fed.null && ex.Source != "":
			ex.Why = "value_map makes it NULL"
		case fed.null:
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
