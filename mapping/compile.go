package mapping

import (
	"cmp"
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
	// OnBadTimestamp is reject (default) or next: a value that is no time is
	// passed over as if it were absent while the column has another source that
	// is present. It serves columns of a time type and those with date_format.
	OnBadTimestamp string
	// Format is json (default), rows are JSON objects, or protobuf, rows are
	// protobuf messages, for which Table must be known with its Numbers.
	Format string
	// TimestampFormat is micros (default), integer microseconds since 1970, or
	// rfc3339. It is the form of TIMESTAMP and TIMESTAMP_NTZ columns in JSON.
	TimestampFormat string
	// RequireConsent names members of context.consent that must be granted, or
	// the event is filtered. Empty (default) requires none.
	RequireConsent []string
	// OnMissingConsent is allow (default) or drop: what happens to an event
	// that says nothing about a required category.
	OnMissingConsent string
	// MaxEvents is how many events a record may hold, 0 (default) for
	// DefaultMaxEvents; at most MostMaxEvents. A record of more is one reject.
	MaxEvents int
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

const (
	// DefaultMaxEvents is the default of Options.MaxEvents: several times what
	// producers send in a batch, and little enough that what becomes of one
	// record takes a few megabytes.
	DefaultMaxEvents = 10_000
	// MostMaxEvents is the largest MaxEvents. Dead letters name events up to here.
	MostMaxEvents = 1 << 20
)

// maxEvents is MaxEvents with its default.
func (o *Options) maxEvents() int { return cmp.Or(o.MaxEvents, DefaultMaxEvents) }

func (o Options) check() error {
	var errs []error
	if o.MaxEvents < 0 || o.MaxEvents > MostMaxEvents {
		errs = append(errs, fmt.Errorf("mapping.max_events_per_record is %d; use 1 to %d", o.MaxEvents, MostMaxEvents))
	}
	one := func(key, value string, known ...string) {
		if value != "" && !slices.Contains(known, value) {
			errs = append(errs, fmt.Errorf("mapping.%s %q is not one of %s%s", key, value, strings.Join(known, ", "), hint(value, known)))
		}
	}
	one("input", o.Input, "auto", "canonical", "mapped")
	one("invalid_utf8", o.InvalidUTF8, "reject", "replace")
	one("timestamp_fallback", o.TimestampFallback, "none", "kafka")
	one("on_bad_timestamp", o.OnBadTimestamp, "reject", "next")
	one("format", o.Format, "json", "protobuf")
	one("timestamp_format", o.TimestampFormat, "micros", "rfc3339")
	if o.Format == "protobuf" && o.TimestampFormat == "rfc3339" {
		errs = append(errs, errors.New("mapping.timestamp_format rfc3339 has no place in protobuf rows, where a time is a number; leave it at micros"))
	}
	if o.Format == "protobuf" && o.Table == nil {
		errs = append(errs, errors.New("protobuf rows need the columns of the table, which are not known; let the service principal read them, or write rows as JSON"))
	}
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
	json []byte // the value
	wire []byte // in protobuf with its tag
}

// source is one place a column is fed from: a node of the trie, a part of the
// Kafka record, or an expression.
type source struct {
	path     string // for people
	always   bool   // every record has it, so it says nothing about the event
	slot     int32  // -1 for the Kafka record and expressions
	verbatim bool   // below properties or traits, and in rows that are mapped already
	kafka    kafkaField
	header   string
	expr     *boundExpression
}

// Compile binds the blueprint to the table, as far as that is known, and makes
// it ready to map. All problems are returned at once, joined.
func (b *Blueprint) Compile(o Options) (*Mapping, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c := &compiler{b: b, o: o, m: &Mapping{opts: o, byName: map[string]int32{}, bySnk: map[string]int32{}}}
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
