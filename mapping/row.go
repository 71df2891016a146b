package mapping

import (
	"crypto/sha1" //nolint:gosec // RFC 9562 defines UUID version 5 over SHA-1; nothing is kept secret by it
	"fmt"
	"strconv"
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
	for i := range p.filters {
		keep, err := p.filters[i].keep(&m.machine, &m.s)
		if err != nil {
			m.reject(CodeFilterFailed, "", fmt.Sprintf("filter: %v; guard fields that may be missing with ??", err))
			return
		}
		if !keep {
			m.filtered(FilterExpression)
			return
		}
	}
	m.row(p)
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
		if i := m.m.named(m.m.bySnk, name); i != 0 {
			return i
		}
	}
	return 0
}

// named looks a section up. Most events have none, and most of their names are
// told from those of all sections by their length.
func (m *Mapping) named(sections map[string]int32, name []byte) int32 {
	if m.lengths>>min(len(name), 63)&1 == 0 {
		return 0
	}
	return sections[string(name)]
}

// consents reports whether every required category of consent is granted.
func (m *Mapper) consents() bool {
	for _, slots := range m.m.consent {
		switch v := m.find(slots); v.kind {
		case absent:
			if m.m.opts.OnMissingConsent == "drop" {
				return false
			}
		case trueLit:
		case str:
			if text := m.s.b[v.start+1 : v.end-1]; !equalFold(text, "true") && !equalFold(text, "granted") {
				return false
			}
		default: // false, and whatever cannot be read as a yes
			return false
		}
	}
	return true
}

// row appends one row by the plan, or rejects the event.
func (m *Mapper) row(p *plan) {
	if m.trace != nil {
		m.explain(p)
	}
	dst := append(m.out.Buf(), '{')
	for i := range p.columns {
		c := &p.columns[i]
		if c.copies {
			// Strings on their way to a STRING column go in as they stand: the
			// scanner has found them to be valid JSON.
			if sp := m.find(c.leading); (sp.kind == str || sp.kind == strEsc) && !(c.isID && sp.end-sp.start == 2) {
				dst = append(dst, c.key...)
				dst = append(dst, m.s.b[sp.start:sp.end]...)
				dst = append(dst, ',')
				continue
			}
		}
		mark := len(dst)
		dst = append(dst, c.key...)
		body := len(dst)
		var fed feed
		dst, fed = m.column(dst, c)
		switch {
		case fed.refused.code != "":
			m.reject(fed.refused.code, c.name, fed.reason(c))
			return
		case len(dst) > body:
			dst = append(dst, ',')
		case c.notNull:
			m.reject(CodeMissingRequired, c.name, fmt.Sprintf("column %s is NOT NULL and the event has no value for it; give it a default_value, or drop NOT NULL", c.name))
			return
		default:
			dst = dst[:mark]
		}
	}
	if last := len(dst) - 1; dst[last] == ',' {
		dst[last] = '}'
	} else {
		dst = append(dst, '}')
	}
	m.out.Row(dst)
}

// feed says where the value of a column came from.
type feed struct {
	from    *source // nil where none was present
	v       val     // the value there
	refused refusal
}

// column appends the value of one column, or nothing where it is NULL.
func (m *Mapper) column(dst []byte, c *column) ([]byte, feed) {
	m.e.buf = m.e.buf[:0]
	for i := range c.sources {
		f := feed{from: &c.sources[i]}
		if f.from.slot >= 0 {
			sp := m.s.vals[f.from.slot]
			if sp.kind <= null || c.isID && sp.kind == str && sp.end-sp.start == 2 {
				continue
			}
			f.v = val{kind: sp.kind, b: m.s.b[sp.start:sp.end]}
		} else if f.v, f.refused = m.kafka(c, f.from); f.refused.code != "" {
			return dst, f
		} else if f.v.kind == absent {
			continue
		}
		dst, f.refused = m.convert(dst, c, f.v)
		return dst, f
	}
	return append(dst, c.fallback...), feed{}
}

// convert appends v after the column's transforms and its value_map.
func (m *Mapper) convert(dst []byte, c *column, v val) ([]byte, refusal) {
	for i := range c.chain {
		op := &c.chain[i]
		// The name of an event is nearly always snake_case or plain already.
		if op.name == "snake_case" && v.kind == str && isSnake(v.b[1:len(v.b)-1]) {
			continue
		}
		var refused refusal
		if v, refused = m.e.transform(op, c.typ, v); refused.code != "" {
			return dst, refused
		}
	}
	if c.lookup != nil {
		if v.kind != object && v.kind != array {
			if to, ok := c.lookup[string(m.e.text(v))]; ok {
				return append(dst, to...), refusal{}
			}
		}
		if c.hasStar {
			return append(dst, c.star...), refusal{}
		}
	}
	return m.e.append(dst, c.typ, v)
}

// kafka returns a part of the record that is not in its value; kind absent
// where the record has none.
func (m *Mapper) kafka(c *column, from *source) (val, refusal) {
	rec := m.rec
	var bytes []byte
	switch from.kafka {
	case kafkaTopic:
		return val{kind: plainText, b: m.e.add(func(b []byte) []byte { return append(b, rec.Topic...) })}, refusal{}
	case kafkaPartition:
		return val{kind: number, b: m.e.add(func(b []byte) []byte { return strconv.AppendInt(b, int64(rec.Partition), 10) })}, refusal{}
	case kafkaOffset:
		return val{kind: number, b: m.e.add(func(b []byte) []byte { return strconv.AppendInt(b, rec.Offset, 10) })}, refusal{}
	case kafkaTimestamp:
		if rec.Timestamp.IsZero() {
			return val{}, refusal{}
		}
		return val{kind: pointInTime, t: instant{rec.Timestamp.Unix(), int64(rec.Timestamp.Nanosecond())}}, refusal{}
	case kafkaUUID:
		return val{kind: plainText, b: m.e.add(m.appendUUID)}, refusal{}
	case kafkaKey:
		bytes = rec.Key
	case kafkaHeader:
		for i := range rec.Headers {
			if rec.Headers[i].Key == from.header {
				bytes = rec.Headers[i].Value
			}
		}
	}
	if bytes == nil {
		return val{}, refusal{}
	}
	if c.typ.base == binaryType && len(c.chain) == 0 && c.lookup == nil {
		return val{kind: rawBytes, b: bytes}, refusal{}
	}
	return m.e.validText(bytes, m.m.opts.InvalidUTF8 == "replace")
}

// idSpace is the name space of derived message ids, a random UUID. It must
// never change, or a redelivered event would come out with another id.
var idSpace = [16]byte{0x6c, 0x1d, 0x7e, 0x0a, 0x93, 0x5b, 0x4f, 0x2e, 0xb8, 0x41, 0x2f, 0x6d, 0xc0, 0x97, 0x5a, 0x13}

// appendUUID appends the id of an event that brought none: the UUID version 5
// (RFC 9562) of cluster/topic/partition/offset and, in a batch, /index. The
// same event always gets the same id. Topic names hold no slash.
func (m *Mapper) appendUUID(dst []byte) []byte {
	from := len(dst)
	dst = append(dst, idSpace[:]...)
	dst = append(dst, m.m.opts.ClusterID...)
	dst = append(dst, '/')
	dst = append(dst, m.rec.Topic...)
	dst = append(dst, '/')
	dst = strconv.AppendInt(dst, int64(m.rec.Partition), 10)
	dst = append(dst, '/')
	dst = strconv.AppendInt(dst, m.rec.Offset, 10)
	if m.index >= 0 {
		dst = append(dst, '/')
		dst = strconv.AppendInt(dst, int64(m.index), 10)
	}
	id := sha1.Sum(dst[from:])
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	dst = dst[:from]
	for i, c := range id[:16] {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

// reason says in words why a value cannot go into its column. It shows numbers
// of up to 32 characters and no other part of the event.
func (f feed) reason(c *column) string {
	what := f.v.describe()
	if f.v.kind == number && len(f.v.b) <= 32 {
		what = "the number " + string(f.v.b)
	}
	return fmt.Sprintf("column %s (%s): %s from %s %s", c.name, c.typ.text, what, f.from.path, f.refused.rule)
}

func (m *Mapper) reject(code, column, reason string) {
	if m.trace != nil {
		m.settle(Explained{Outcome: "reject", Code: code, Column: column, Reason: reason})
	}
	m.out.Reject(code, column, reason)
}

func (m *Mapper) filtered(reason string) {
	if m.trace != nil {
		m.settle(Explained{Outcome: "filter", Code: reason})
	}
	m.out.Filter(reason)
}
