package mapping

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/datafly/bridge/internal/delta"
	"github.com/datafly/bridge/internal/setting"
)

// Options describe what a blueprint is compiled for. Zero values are the defaults.
type Options struct {
	Settings
	// Format is json (default), rows are JSON objects, or protobuf, rows are
	// protobuf messages, for which Table must be known with its Numbers.
	Format string
	// TimestampFormat is micros (default), integer microseconds since 1970, or
	// rfc3339. It is the form of TIMESTAMP and TIMESTAMP_NTZ columns in JSON.
	TimestampFormat string
	// ClusterID is the Kafka cluster's id; it goes into derived message ids.
	ClusterID string
	// Table holds the table's columns, nil where they are not known. Names are
	// compared without regard to case and sent as the table spells them.
	Table []Column
	// AllOptional fills optional columns where Table is nil, for tools that work
	// without a table. Where the table is known it decides.
	AllOptional bool
	// TableName is catalog.schema.table, for the remedies in errors.
	TableName string
}

// configured is a configuration with the Settings only, for their rules.
type configured struct {
	Mapping Settings `yaml:"mapping"`
}

var schema = setting.SchemaOf[configured]()

// complete sets the defaults and reports every problem at once.
func (o *Options) complete() error {
	all := configured{o.Settings}
	errs := schema.Complete(&all)
	o.Settings = all.Mapping
	one := func(key, value string, known ...string) {
		if value != "" && !slices.Contains(known, value) {
			errs = append(errs, fmt.Errorf("mapping.%s %q is not one of %s%s", key, value, strings.Join(known, ", "), hint(value, known)))
		}
	}
	one("format", o.Format, "json", "protobuf")
	one("timestamp_format", o.TimestampFormat, "micros", "rfc3339")
	if o.Format == "protobuf" && o.TimestampFormat == "rfc3339" {
		errs = append(errs, errors.New("zerobus.timestamp_format rfc3339 has no place in protobuf rows, where a time is a number; leave it at micros"))
	}
	if o.Format == "protobuf" && o.Table == nil {
		errs = append(errs, errors.New("protobuf rows need the columns of the table, which are not known; let the service principal read them, or write rows as JSON"))
	}
	for _, c := range o.RequireConsent {
		if c == "" {
			errs = append(errs, errors.New("mapping.require_consent has an empty category; name one such as analytics"))
		}
	}
	return errors.Join(errs...)
}

// Mapping is a compiled blueprint. It is not changed after Compile and may be
// shared; mapping itself is done by the Mappers made from it.
type Mapping struct {
	opts    Options
	columns []Column
	omitted []string
	headers bool

	events      *trie  // the paths of an event
	shape       shape  // those that decide the record's shape
	plans       []plan // plans[0] is for events without a section
	byName      map[string]int32
	bySnakeName map[string]int32 // the same names in snake_case
	// lengths has a bit for the length of every key of byName and bySnakeName, the
	// highest one for 63 bytes and more.
	lengths uint64

	consent  []consentPaths // by required category
	inherits []inherited    // what an envelope may fill
	heads    []int32        // the nodes at the top that lead to it

	rows     *trie // the columns of a row that is mapped already
	rowPlan  plan
	rowBatch int32 // the node of "batch" in rows, -1 where that is a column
}

// plan is what happens to the events of one section.
type plan struct {
	name    string // of the section, "" for none
	drop    bool
	filters []boundExpression
	columns []column
	reads   bool // a column has a source that not every record has
}

// column is one column of a plan, ready to be filled.
type column struct {
	name     string
	key      []byte // "name":
	tag      uint64 // in protobuf
	typ      *deltaType
	notNull  bool
	copies   bool    // STRING without a transform: strings go in as they are
	leading  []int32 // the nodes of the sources before the first that is none
	isNull   bool    // where none of leading is present: there is nothing else to fill it
	nextTime bool    // a value that is no time gives way to the next source
	isID     bool    // made from the record where missing, so that an empty id is a missing one
	sources  []source
	chain    []transform
	lookup   map[string]constant // value_map
	star     constant
	hasStar  bool
	fallback constant // default_value
}

// constant is an encoded constant of the blueprint; the zero value is NULL.
type constant struct {
	json     []byte // the value
	protobuf []byte // in protobuf with its tag
}

// source is one place a column is fed from: a node of the trie, a part of the
// Kafka record, or an expression.
type source struct {
	path     string // for people
	always   bool   // every record has it, so it is no evidence of the event
	slot     int32  // -1 for the Kafka record and expressions
	verbatim bool   // below properties or traits, and in rows that are mapped already
	kafka    kafkaField
	header   string
	expr     *boundExpression
}

// Compile binds the blueprint to the table, as far as that is known, and makes
// it ready to map. All problems are returned at once, joined.
func (b *Blueprint) Compile(o Options) (*Mapping, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	c := &compiler{b: b, o: o, m: &Mapping{opts: o, byName: map[string]int32{}, bySnakeName: map[string]int32{}}}
	c.resolveColumns()
	c.checkNumbers()
	c.compileEvents()
	c.compileRows()
	c.checkRequired()
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	c.m.events.root.seal()
	c.m.rows.root.seal()
	return c.m, nil
}

// Columns returns the columns rows may carry: the blueprint's, over all its
// sections and in its order, then those only the table has, which a row that
// was mapped already may fill.
func (m *Mapping) Columns() []Column { return slices.Clone(m.columns) }

// OmittedColumns returns the optional columns that are left out because the
// table lacks them or is not known.
func (m *Mapping) OmittedColumns() []string { return slices.Clone(m.omitted) }

// UsesHeaders reports whether record headers are read; if not, Record.Headers
// need not be filled.
func (m *Mapping) UsesHeaders() bool { return m.headers }

type compiler struct {
	b    *Blueprint
	o    Options
	m    *Mapping
	errs []error
	// cols holds what each target resolved to, by lower-case name. A target
	// that is left out has no entry.
	cols map[string]resolved
}

type resolved struct {
	Column
	typ *deltaType
}

// problem notes what is wrong, once: a column is compiled for every section and
// for rows that are mapped already.
func (c *compiler) problem(at Position, format string, args ...any) {
	found := Problem{at, fmt.Sprintf(format, args...)}
	for _, err := range c.errs {
		if known, ok := errors.AsType[*Problem](err); ok && *known == found {
			return
		}
	}
	c.errs = append(c.errs, &found)
}

// layers returns the rules of every plan, the one for no section first.
func (b *Blueprint) layers() [][]rule {
	out := [][]rule{overlay(b.global, b.defaults)}
	for _, s := range b.sections {
		out = append(out, overlay(b.global, s.rules))
	}
	return out
}

// shape holds the nodes that decide what kind of record an object is.
type shape struct {
	eventType  []int32 // type
	rowType    []int32 // event_type, eventType
	event      []int32 // event
	eventName  []int32 // event_name, eventName
	rowKeys    []int32 // event_name, event_type, event_timestamp as a row spells them
	batch      int32
	wrappers   []int32 // payload, data, original_event, originalEvent
	wrapperCol []bool  // true: the wrapper's name is also a column
}

// compileEvents builds the trie of an event and the plan of every section.
func (c *compiler) compileEvents() {
	m := c.m
	m.events = newTrie(false)
	c.compileShape()
	for i, rules := range c.b.layers() {
		p := plan{drop: i == 0 && c.b.drop}
		filters := c.b.filters
		if i > 0 {
			s := c.b.sections[i-1]
			p.name, p.drop = s.names[0], !s.enabled
			filters = append(filters[:len(filters):len(filters)], s.filters...)
			for _, n := range s.names {
				m.byName[n] = int32(i)
				f := snake(n)
				if m.bySnakeName[f] == 0 {
					m.bySnakeName[f] = int32(i)
				}
				m.lengths |= 1<<min(len(n), 63) | 1<<min(len(f), 63)
			}
		}
		for _, f := range filters {
			p.filters = append(p.filters, c.bindExpression(f))
		}
		for _, r := range rules {
			if res, ok := c.cols[strings.ToLower(r.target)]; ok && !r.drop {
				p.columns = append(p.columns, c.column(r, res))
			}
		}
		c.order(p.columns)
		p.reads = readsEvent(p.columns)
		m.plans = append(m.plans, p)
	}
	c.compileConsent()
	c.finishInherits()
}

func (c *compiler) compileShape() {
	m := c.m
	key := func(k string) []int32 { return c.slots([]step{{key: k}}) }
	m.shape.eventType, m.shape.rowType = key("type"), key("event_type")
	m.shape.event, m.shape.eventName = key("event"), key("event_name")
	for _, k := range []string{"event_name", "event_type", "event_timestamp"} {
		m.shape.rowKeys = append(m.shape.rowKeys, m.events.add([]step{{key: k}}).id)
	}
	for _, k := range []string{"payload", "data", "original_event", "originalEvent"} {
		n := c.shapeNode(k)
		m.shape.wrappers = append(m.shape.wrappers, n.id)
		m.shape.wrapperCol = append(m.shape.wrapperCol, c.isColumn(k))
	}
	batch := c.shapeNode("batch")
	m.shape.batch = batch.id
	m.events.root.batch, batch.batch = true, true
}

func (c *compiler) shapeNode(key string) *node {
	n := c.m.events.add([]step{{key: key}})
	n.shape = true
	return n
}

func (c *compiler) isColumn(name string) bool {
	if _, ok := c.cols[name]; ok {
		return true
	}
	for _, col := range c.o.Table {
		if strings.EqualFold(col.Name, name) {
			return true
		}
	}
	return false
}

// slots adds every spelling of a path to the trie and returns their ids, the
// preferred one first. Where the event lacks the path its envelope may say it.
func (c *compiler) slots(path []step) []int32 {
	ids := c.ownSlots(path)
	c.inherit(path, ids)
	return ids
}

// ownSlots is slots for what only the object itself holds.
func (c *compiler) ownSlots(path []step) []int32 {
	all, err := spellings(path)
	if err != nil { // Parse has refused such paths
		c.errs = append(c.errs, err)
		return nil
	}
	var ids []int32
	for _, steps := range all {
		ids = append(ids, c.m.events.add(steps).id)
		c.m.events.root.find(steps[0]).shape = false // it feeds a column now
	}
	return ids
}

// slotsOfEvent is slots for a path that may begin with "event.", which old
// blueprints write before every path.
func (c *compiler) slotsOfEvent(path []step) []int32 {
	if len(path) > 1 && path[0].key == "event" && !path[0].isIndex && !path[1].isIndex {
		return append(c.slots(path[1:]), c.slots(path)...)
	}
	return c.slots(path)
}

func (c *compiler) bindExpression(x *expression) boundExpression {
	bound := boundExpression{expression: x}
	for _, p := range x.paths {
		bound.slots = append(bound.slots, c.slotsOfEvent(p))
	}
	return bound
}

// column compiles one rule.
func (c *compiler) column(r rule, res resolved) column {
	col := column{name: res.Name, key: append(appendQuoted(nil, []byte(res.Name)), ':'), tag: wireTag(res.Number, res.typ),
		typ: res.typ, notNull: res.NotNull, chain: r.chain}
	for _, s := range r.sources {
		if s.kafka != notKafka {
			col.sources = append(col.sources, source{path: s.text, slot: -1, kafka: s.kafka, header: s.header, always: s.kafka != kafkaKey && s.kafka != kafkaHeader})
			c.m.headers = c.m.headers || s.kafka == kafkaHeader
			col.isID = col.isID || s.kafka == kafkaUUID
			continue
		}
		for _, id := range c.slotsOfEvent(s.steps) {
			col.sources = append(col.sources, source{path: c.m.events.paths[id], slot: id, verbatim: below(s.steps)})
		}
	}
	if r.expr != nil {
		bound := c.bindExpression(r.expr)
		col.sources = append(col.sources, source{path: expressionSource, slot: -1, expr: &bound, verbatim: true})
	}
	if c.o.TimestampFallback == "kafka" && readsTimestamp(r) {
		col.sources = append(col.sources, source{path: "$kafka.timestamp", slot: -1, kafka: kafkaTimestamp, always: true})
	}
	col.nextTime = c.o.OnBadTimestamp == "next" && (isTime(res.typ) || slices.ContainsFunc(col.chain, func(t transform) bool { return t.name == "date_format" }))
	// A TIMESTAMP reads and writes times without help. A DATE does not: for it a
	// number counts days, and after date_format it is a time.
	if n := len(col.chain); n > 0 && col.chain[n-1].name == "date_format" && isTime(res.typ) && res.typ.Kind != delta.Date {
		col.chain = col.chain[:n-1]
	}
	col.copies = res.typ.Kind == delta.String && res.typ.Length == 0 && len(col.chain) == 0 && r.lookup == nil
	col.fallback = c.literal(r.fallback, "default_value", res)
	col.lead()
	if r.lookup != nil {
		col.lookup = map[string]constant{}
		for k, lit := range r.lookup {
			col.lookup[k] = c.literal(&lit, "value_map", res)
		}
		col.hasStar = r.star != nil
		col.star = c.literal(r.star, "value_map", res)
	}
	return col
}

// lead notes the nodes of the sources up to the first that is none, and whether
// that leaves nothing to fill the column.
func (c *column) lead() {
	c.leading, c.isNull = nil, false
	for _, s := range c.sources {
		if s.slot < 0 {
			return
		}
		c.leading = append(c.leading, s.slot)
	}
	c.isNull = c.fallback.json == nil && !c.notNull
}

// isTime reports whether values of the type are times or days.
func isTime(t *deltaType) bool {
	return t.Kind == delta.Timestamp || t.Kind == delta.TimestampNTZ || t.Kind == delta.Date
}

func readsTimestamp(r rule) bool {
	for _, s := range r.sources {
		if s.text == "timestamp" || s.text == "event.timestamp" {
			return true
		}
	}
	return false
}

// literal encodes a constant for its column.
func (c *compiler) literal(lit *literal, what string, res resolved) constant {
	if lit == nil || lit.null {
		return constant{}
	}
	e := encoder{rfc3339: c.o.TimestampFormat == "rfc3339"}
	text, refused := e.append(nil, res.typ, lit.v)
	if refused.code != "" {
		c.problem(lit.at, "%s: %s for column %s (%s) %s", what, lit.v.describe(), res.Name, res.typ.text, refused.rule)
		return constant{}
	}
	asProtobuf, _ := e.appendField(nil, wireTag(res.Number, res.typ), res.typ, lit.v) // refuses what JSON refuses
	return constant{text, asProtobuf}
}

// order puts columns in the order of their numbers where rows are protobuf, as
// all encoders write them and decoders like them best.
func (c *compiler) order(columns []column) {
	if c.o.Format == "protobuf" {
		slices.SortStableFunc(columns, func(a, b column) int { return cmp.Compare(a.tag, b.tag) })
	}
}

// readsEvent reports whether a column has a source that an event can lack.
func readsEvent(columns []column) bool {
	return slices.ContainsFunc(columns, func(c column) bool {
		return slices.ContainsFunc(c.sources, func(s source) bool { return !s.always })
	})
}

// below reports whether the keys under a path are the customer's own.
func below(path []step) bool {
	return slices.ContainsFunc(path, func(s step) bool { return s.verbatim() })
}

// compileRows builds the trie and the plan of rows that are mapped already:
// every column by its own name, and for those that can be made from the record
// alone the blueprint's rules for it.
func (c *compiler) compileRows() {
	m := c.m
	m.rows = newTrie(true)
	from := map[string]rule{}
	for _, rules := range c.b.layers() {
		for _, r := range rules {
			if key := strings.ToLower(r.target); from[key].target == "" && !r.drop {
				from[key] = r
			}
		}
	}
	for _, col := range m.columns {
		key := strings.ToLower(col.Name)
		c.rowColumn(key, from[key], c.cols[key])
	}
	for _, t := range c.o.Table {
		key := strings.ToLower(t.Name)
		if _, ok := c.cols[key]; ok {
			continue
		}
		typ, err := parseType(t.Type)
		if err != nil || c.o.Format == "protobuf" && unfit(t, typ) != nil {
			continue // such a column cannot be filled; NULL is what it gets
		}
		res := resolved{Column{Name: t.Name, Type: typ.text, NotNull: t.NotNull, Number: t.Number}, typ}
		m.columns = append(m.columns, res.Column)
		c.rowColumn(key, rule{}, res)
	}
	c.order(m.rowPlan.columns)
	m.rowPlan.reads = readsEvent(m.rowPlan.columns)
	m.rows.root.batch = true
	if !c.isColumn("batch") {
		n := m.rows.add([]step{{key: "batch"}})
		n.shape, n.batch = true, true
		m.rowBatch = n.id
	} else {
		m.rowBatch = -1
	}
}

func (c *compiler) rowColumn(key string, r rule, res resolved) {
	m := c.m
	own := rule{at: r.at, target: r.target, fallback: r.fallback}
	for _, s := range r.sources {
		if s.kafka != notKafka {
			own.sources = append(own.sources, s)
		}
	}
	col := c.column(own, res)
	col.sources = append([]source{{path: key, slot: m.rows.add([]step{{key: key}}).id, verbatim: true}}, col.sources...)
	if c.o.TimestampFallback == "kafka" && readsTimestamp(r) {
		col.sources = append(col.sources, source{path: "$kafka.timestamp", slot: -1, kafka: kafkaTimestamp, always: true})
	}
	col.lead()
	m.rowPlan.columns = append(m.rowPlan.columns, col)
}
