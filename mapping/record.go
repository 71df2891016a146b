package mapping

import (
	"fmt"
	"slices"
	"time"

	"github.com/expr-lang/expr/vm"
)

// Mapper maps records. It reuses its memory from record to record and keeps
// nothing else; it is for one goroutine at a time.
type Mapper struct {
	m *Mapping
	s scanner
	e encoder

	eventVals []span // by node of Mapping.events
	rowVals   []span // by node of Mapping.rows
	name      []byte // an event's name or type while its section is looked up
	clean     []byte // the record with U+FFFD for what is not Unicode, and behind it what was merged
	owned     bool   // the scanner reads clean
	size      int    // of the record in clean

	outer     envelope  // the batch
	inner     envelope  // the wrappers of one event
	env       *envelope // what surrounds the event, nil for nothing
	inherited int       // bytes the events of the record have inherited
	machine   vm.VM

	rec   *Record
	index int // of the event in its batch, -1 outside
	out   Out
	trace *[]Explained // set by Explain
	until time.Time    // no expression starts later; zero: no bound
}

// NewMapper returns a Mapper for one goroutine.
func (m *Mapping) NewMapper() *Mapper {
	return &Mapper{m: m,
		e:         newEncoder(m.opts),
		outer:     m.newEnvelope(),
		inner:     m.newEnvelope(),
		eventVals: make([]span, len(m.events.paths)),
		rowVals:   make([]span, len(m.rows.paths))}
}

// maxKept bounds each buffer a Mapper keeps after a record, in bytes. There is
// a Mapper for every partition.
const maxKept = 64 << 10

// maxWraps bounds how many wrappers around an event are taken off.
const maxWraps = 4

// Map maps one record. For every event in it exactly one method of out is
// called. It allocates nothing for events that become rows, unless a filter
// expression or a join transform is in the blueprint.
func (m *Mapper) Map(rec *Record, out Out) {
	m.rec, m.out, m.index = rec, out, -1
	m.env, m.owned, m.inherited = nil, false, 0
	m.record()
	m.rec, m.out, m.env, m.s.b = nil, nil, nil, nil
	clear(m.e.members[:cap(m.e.members)]) // they point into the record
	if cap(m.s.kept) > 2*maxNotes {
		m.s.kept = nil
	}
	if cap(m.clean) > maxKept {
		m.clean = nil
	}
	if cap(m.e.buf) > maxKept {
		m.e.buf = nil
	}
	if cap(m.name) > maxKept {
		m.name = nil
	}
}

func (m *Mapper) record() {
	if m.rec.Value == nil {
		m.filtered(FilterTombstone)
		return
	}
	b := m.rec.Value
	if isBOM(b) {
		b = b[3:]
	}
	m.s.b = b
	if space(b, 0) == len(b) {
		m.reject(CodeEmpty, "", "the record has no bytes of an event in it")
		return
	}
	pinned := m.m.opts.Input == "mapped"
	root := m.root(pinned)
	if !m.scanAll(root) {
		return
	}
	if m.s.soft.code == CodeInvalidUTF8 && m.m.opts.InvalidUTF8 == "replace" {
		m.clean = appendUnicode(m.clean[:0], b)
		m.s.b, m.owned, m.size = m.clean, true, len(m.clean)
		if !m.scanAll(root) {
			return
		}
	}
	top := m.s.vals[root.id]
	switch top.kind {
	case array:
		if !m.tooMany() {
			m.batch(top, root)
		}
	case object:
		if b, ok := m.batchSpan(pinned); ok {
			if m.faultAround(b) || m.tooMany() {
				return
			}
			if pinned && len(m.m.consent) > 0 { // consent is no column
				if m.s.event(0, m.root(false)); m.faultAround(b) {
					return
				}
			}
			if !pinned || len(m.m.consent) > 0 {
				m.surround(&m.outer) // nothing surrounds it, so it cannot inherit too much
			}
			m.batch(b, root)
			return
		}
		m.event(top)
	default:
		if m.s.soft.code != "" {
			m.soft()
			return
		}
		m.reject(CodeNotObject, "", "the record is JSON but no object; an event is an object")
	}
}

// tooMany rejects a record with more events than it may hold. They were counted
// when the record was scanned, so nothing has been made of them yet.
func (m *Mapper) tooMany() bool {
	n, most := m.s.events, m.m.opts.MaxEventsPerRecord
	if n <= most {
		return false
	}
	m.reject(CodeTooManyEvents, "", fmt.Sprintf("the record holds %d events and mapping.max_events_per_record is %d; send fewer events in a record, or raise that key", n, most))
	return true
}

// faultAround rejects the record for a soft fault outside of its batch.
func (m *Mapper) faultAround(b span) bool {
	at := m.s.soft.at
	if !m.s.shapeDup && (m.s.soft.code == "" || at >= int(b.start) && at < int(b.end)) {
		return false
	}
	m.soft()
	return true
}

// root makes the scanner read events, or rows, and returns where to begin.
func (m *Mapper) root(rows bool) *node {
	if rows {
		m.s.vals = m.rowVals
		return m.m.rows.root
	}
	m.s.vals = m.eventVals
	return m.m.events.root
}

// scanAll scans the record as a whole.
func (m *Mapper) scanAll(root *node) bool {
	end := m.s.keep(root)
	if end >= 0 {
		if end = space(m.s.b, end); end < len(m.s.b) {
			end = m.s.fail(CodeNotJSON, "something stands after the end of the value", end)
		}
	}
	if end < 0 {
		f := m.s.hard
		m.reject(f.code, "", fmt.Sprintf("the record is not JSON the bridge reads: %s, at byte %d of %d", f.what, f.at, len(m.s.b)))
		return false
	}
	return true
}

// soft rejects the event for what the scanner noted.
func (m *Mapper) soft() {
	switch f := m.s.soft; {
	case f.code == CodeDuplicateKey:
		m.reject(f.code, "", fmt.Sprintf("%s, which the blueprint reads, is a duplicate (again at byte %d); one of them would be lost", f.what, f.at))
	case f.code != "":
		m.reject(f.code, "", fmt.Sprintf("%s, at byte %d; mapping.invalid_utf8: replace would put U+FFFD there", f.what, f.at))
	default:
		m.reject(CodeDuplicateKey, "", "the key that holds the event is a duplicate; one of them would be lost")
	}
}

// batchSpan returns the array of {"batch":[...]}.
func (m *Mapper) batchSpan(rows bool) (span, bool) {
	sh := &m.m.shape
	id := sh.batch
	if rows {
		id = m.m.rowBatch
	}
	if id < 0 || m.s.vals[id].kind != array {
		return span{}, false
	}
	if !rows && (m.has(sh.eventType) || m.has(sh.event)) {
		return span{}, false // an event that happens to have a field batch
	}
	return m.s.vals[id], true
}

// has reports whether one of the spellings is there and not null.
func (m *Mapper) has(slots []int32) bool { return m.find(slots).kind > null }

// find returns the first of the spellings that is there and not null.
func (m *Mapper) find(slots []int32) span {
	for _, id := range slots {
		if v := m.s.vals[id]; v.kind > null {
			return v
		}
	}
	return span{}
}

// batch maps every element of an array the scanner has been through.
func (m *Mapper) batch(b span, root *node) {
	i := space(m.s.b, int(b.start)+1)
	if m.s.b[i] == ']' {
		m.reject(CodeEmpty, "", "the record is a batch without an event in it")
		return
	}
	rows := root == m.m.rows.root
	surrounding := m.env
	for m.index = 0; ; m.index++ {
		root = m.root(rows) // taking wrappers off may have changed it
		m.env = surrounding
		m.forget()
		end := m.s.again(i, root)
		if top := m.s.vals[root.id]; top.kind == object {
			m.event(top)
		} else if m.s.soft.code != "" {
			m.soft()
		} else {
			m.reject(CodeNotObject, "", fmt.Sprintf("element %d of the batch is no object; an event is an object", m.index))
		}
		if i = space(m.s.b, end); m.s.b[i] != ',' {
			return
		}
		i = space(m.s.b, i+1)
	}
}

// event maps the object just scanned.
func (m *Mapper) event(top span) {
	if m.s.soft.code != "" {
		m.soft()
		return
	}
	switch m.m.opts.Input {
	case "mapped":
		m.mapped(top)
		return
	case "canonical":
		m.canonical()
		return
	}
	for range maxWraps {
		inner, ok := m.wrapped()
		if !ok {
			break
		}
		if m.s.shapeDup {
			m.soft()
			return
		}
		if !m.surround(&m.inner) {
			m.tooLarge()
			return
		}
		top = inner
		m.s.again(int(inner.start), m.m.events.root)
		if m.s.soft.code != "" {
			m.soft()
			return
		}
	}
	if !m.isRow() {
		m.canonical()
		return
	}
	if !m.consents() {
		m.filtered(FilterConsent)
		return
	}
	m.asRow(top)
}

// mapped maps an object that the configuration calls a row. Consent is no column,
// so the object is scanned again where it is needed.
func (m *Mapper) mapped(top span) {
	if len(m.m.consent) == 0 {
		m.row(&m.m.rowPlan, m.recognizes(&m.m.rowPlan))
		return
	}
	if m.s.event(int(top.start), m.root(false)); m.s.soft.code != "" {
		m.soft()
		return
	}
	if !m.consents() {
		m.filtered(FilterConsent)
		return
	}
	m.asRow(top)
}

// asRow scans the object by the names of columns and maps it.
func (m *Mapper) asRow(top span) {
	m.s.event(int(top.start), m.root(true))
	if m.s.soft.code != "" {
		m.soft()
		return
	}
	m.row(&m.m.rowPlan, m.recognizes(&m.m.rowPlan))
}

// wrapped returns the event inside an object that only wraps it: under event,
// where that is an object, or under payload, data or original_event where the
// outer object has no type and the name is no column.
func (m *Mapper) wrapped() (span, bool) {
	sh := &m.m.shape
	if v := m.find(sh.event); v.kind == object {
		return v, true
	} else if v.kind != absent || m.has(sh.eventType) {
		return span{}, false
	}
	for i, id := range sh.wrappers {
		if v := m.s.vals[id]; v.kind == object && !sh.wrapperCol[i] {
			return v, true
		}
	}
	return span{}, false
}

// isRow reports whether the object is a row that is mapped already, by its keys.
func (m *Mapper) isRow() bool {
	sh := &m.m.shape
	if m.has(sh.eventType) || m.has(sh.event) {
		return false
	}
	for _, id := range sh.rowKeys {
		if m.s.vals[id].kind != absent {
			return true
		}
	}
	return false
}

// consentPaths are the nodes where an event may speak of one category of consent.
type consentPaths struct {
	// whole speak of all categories at once where they hold no object, as in
	// "consent": "denied".
	whole []int32
	// category speak of this one.
	category []int32
}

// compileConsent finds the forms of consent met in the field: below context or
// at the top, by category, or below Segment's categoryPreferences.
func (c *compiler) compileConsent() {
	for _, category := range c.o.RequireConsent {
		var p consentPaths
		for _, at := range [][]step{{{key: "context"}, {key: "consent"}}, {{key: "consent"}}} {
			for _, holder := range [][]step{at, slices.Concat(at, []step{{key: "category_preferences"}})} {
				p.whole = append(p.whole, c.ownSlots(holder)...)
				p.category = append(p.category, c.ownSlots(slices.Concat(holder, []step{{key: category}}))...)
			}
		}
		c.m.consent = append(c.m.consent, p)
	}
}

// statement is the answer of an object for a category of consent.
type statement uint8

const (
	nothing statement = iota
	granted
	denied
)

// consents reports whether every required category of consent is granted: a
// denial counts wherever it stands, in the event or around it.
func (m *Mapper) consents() bool {
	if len(m.m.consent) == 0 {
		return true
	}
	if m.env != nil && m.env.denied {
		return false
	}
	for i := range m.m.consent {
		switch m.consent(&m.m.consent[i]) {
		case denied:
			return false
		case nothing:
			if m.m.opts.OnMissingConsent == "drop" && (m.env == nil || !m.env.granted[i]) {
				return false
			}
		}
	}
	return true
}

// consent returns the statement of the object just scanned about a category.
func (m *Mapper) consent(p *consentPaths) statement {
	said := nothing
	for _, id := range p.category {
		said = max(said, m.yes(m.s.vals[id]))
	}
	for _, id := range p.whole {
		if v := m.s.vals[id]; v.kind != object {
			said = max(said, m.yes(v))
		}
	}
	return said
}

// yes reads a value as a yes or a no. Whatever cannot be read as a yes is a no.
func (m *Mapper) yes(v span) statement {
	switch v.kind {
	case absent, null:
		return nothing
	case trueLit:
		return granted
	case str:
		if text := m.s.b[v.start+1 : v.end-1]; equalFold(text, "true") || equalFold(text, "granted") {
			return granted
		}
	}
	return denied
}
