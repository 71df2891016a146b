package mapping

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Options says what a blueprint is compiled against. In every text field the
// empty string is the default.
type Options struct {
	// Input is what records hold: auto (default) tells by their keys, canonical
	// takes every object as an event, mapped takes every object as a row.
	Input string
	// InvalidUTF8 is reject (default) or replace, which puts U+FFFD in the place
	// of bytes that are not UTF-8 and of lone surrogates.
	InvalidUTF8 string
	// TimestampFallback is none (default) or kafka: an event without a time
	// takes the record's. It serves columns fed by a source named timestamp.
	TimestampFallback string
	// TimestampFormat is micros (default), integer microseconds since 1970, or
	// rfc3339. It is the form of TIMESTAMP and TIMESTAMP_NTZ columns.
	TimestampFormat string
	// RequireConsent names members of context.consent that must be granted, or
	// the event is filtered. Empty (default) requires none.
	RequireConsent []string
	// OnMissingConsent is allow (default) or drop: what happens to an event
	// that says nothing about a required category.
	OnMissingConsent string
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

func (o Options) check() error {
	var errs []error
	one := func(key, value string, known ...string) {
		if value != "" && !slices.Contains(known, value) {
			errs = append(errs, fmt.Errorf("mapping.%s %q is not one of %s%s", key, value, strings.Join(known, ", "), hint(value, known)))
		}
	}
	one("input", o.Input, "auto", "canonical", "mapped")
	one("invalid_utf8", o.InvalidUTF8, "reject", "replace")
	one("timestamp_fallback", o.TimestampFallback, "none", "kafka")
	one("timestamp_format", o.TimestampFormat, "micros", "rfc3339")
	one("on_missing_consent", o.OnMissingConsent, "allow", "drop")
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

	events *trie  // the paths of an event
	shape  shape  // those that tell the record's shape
	plans  []plan // plans[0] is for events without a section
	byName map[string]int32
	bySnk  map[string]int32 // the same names in snake_case
	// lengths has a bit for the length of every key of byName and bySnk, the
	// highest one for 63 bytes and more.
	lengths uint64

	consent [][]int32 // for each required category its spellings

	rows     *trie // the columns of a row that is mapped already
	rowPlan  plan
	rowBatch int32 // the node of "batch" in rows, -1 where that is a column
}

// plan is what happens to the events of one section.
type plan struct {
	name    string // of the section, "" for none
	drop    bool
	filters []boundFilter
	columns []column
}

// column is one column of a plan, ready to be filled.
type column struct {
	name     string
	key      []byte // "name":
	typ      *deltaType
	notNull  bool
	copies   bool    // STRING without a transform: strings go in as they stand
	leading  []int32 // the nodes of the sources before the first that is none
	isID     bool    // made from the record where missing, so that an empty id is a missing one
	sources  []source
	chain    []transform
	lookup   map[string][]byte // value_map, values encoded; nil is NULL
	star     []byte
	hasStar  bool
	fallback []byte // default_value encoded
}

// source is one place a column is fed from: a node of the trie, or a part of
// the Kafka record.
type source struct {
	path   string // for people
	slot   int32  // -1 for the Kafka record
	kafka  kafkaField
	header string
}

// Compile binds the blueprint to the table, as far as that is known, and makes
// it ready to map. All problems are returned at once, joined.
func (b *Blueprint) Compile(o Options) (*Mapping, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c := &compiler{b: b, o: o, m: &Mapping{opts: o, byName: map[string]int32{}, bySnk: map[string]int32{}}}
	c.resolveColumns()
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

func (c *compiler) problem(at Position, format string, args ...any) {
	c.errs = append(c.errs, &Problem{at, fmt.Sprintf(format, args...)})
}

// layers returns the rules of every plan, the one for no section first.
func (b *Blueprint) layers() [][]rule {
	out := [][]rule{overlay(b.global, b.defaults)}
	for _, s := range b.sections {
		out = append(out, overlay(b.global, s.rules))
	}
	return out
}

// resolveColumns settles, for every target of every section, whether the
// column is sent, how it is spelt and what type it has.
func (c *compiler) resolveColumns() {
	c.cols = map[string]resolved{}
	table := map[string]Column{}
	for _, col := range c.o.Table {
		table[strings.ToLower(col.Name)] = col
	}
	var order []string
	byTarget := map[string][]rule{}
	for _, rules := range c.b.layers() {
		for _, r := range rules {
			key := strings.ToLower(r.target)
			if r.drop {
				continue
			}
			if byTarget[key] == nil {
				order = append(order, key)
			}
			byTarget[key] = append(byTarget[key], r)
		}
	}
	for _, key := range order {
		rules := byTarget[key]
		have, inTable := table[key]
		col := Column{Name: rules[0].target, NotNull: inTable && have.NotNull}
		for _, r := range rules {
			col.Optional = col.Optional || r.optional
		}
		switch {
		case inTable:
			col.Name = have.Name
		case col.Optional && (c.o.Table != nil || !c.o.AllOptional):
			c.m.omitted = append(c.m.omitted, col.Name)
			continue
		}
		typ := c.columnType(rules, have, inTable)
		if typ == nil {
			continue
		}
		col.Type = typ.text
		if c.o.Table != nil && !inTable {
			c.problem(rules[0].at, "column %s is not in the table; add it with ALTER TABLE %s ADD COLUMN %s %s, or mark the mapping optional: true, or remove it with source: null",
				col.Name, c.tableName(), col.Name, col.Type)
			continue
		}
		c.cols[key] = resolved{col, typ}
		c.m.columns = append(c.m.columns, col)
	}
}

func (c *compiler) tableName() string {
	if c.o.TableName == "" {
		return "<table>"
	}
	return c.o.TableName
}

// columnType is the type a mapping names, else the table's, else what the
// transforms make, else STRING. It is the same in every section.
func (c *compiler) columnType(rules []rule, have Column, inTable bool) *deltaType {
	var named *rule
	for i := range rules {
		r := &rules[i]
		if r.typ == nil {
			continue
		}
		if named != nil && !named.typ.same(*r.typ) {
			c.problem(r.at, "column %s is %s here and %s in line %d; a column has one type", r.target, r.typ.text, named.typ.text, named.at.Line)
			return nil
		}
		named = r
	}
	if inTable {
		t, err := parseType(have.Type)
		if err != nil {
			c.problem(rules[0].at, "column %s of the table: %v", have.Name, err)
			return nil
		}
		if named != nil && !named.typ.same(t) {
			c.problem(named.at, "column %s is %s here and %s in the table; write type: %s, or leave type out to follow the table", named.target, named.typ.text, t.text, t.text)
			return nil
		}
		return &t
	}
	if named != nil {
		return named.typ
	}
	text := implied(rules[0].chain)
	for _, r := range rules[1:] {
		if other := implied(r.chain); other != text {
			c.problem(r.at, "column %s comes out as %s here and as %s in line %d; name its type", r.target, other, text, rules[0].at.Line)
			return nil
		}
	}
	t, err := parseType(text)
	if err != nil {
		c.problem(rules[0].at, "%v", err)
		return nil
	}
	return &t
}

// checkRequired refuses a table with a NOT NULL column nothing feeds.
func (c *compiler) checkRequired() {
	if c.o.Input == "mapped" {
		return
	}
	for _, col := range c.o.Table {
		if _, ok := c.cols[strings.ToLower(col.Name)]; col.NotNull && !ok {
			c.problem(Position{c.b.file, 1, 1}, "column %s of the table is NOT NULL and no mapping fills it; map it, give it a default_value, or run ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL",
				col.Name, c.tableName(), col.Name)
		}
	}
}
