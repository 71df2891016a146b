// Package mapping turns one Kafka record into encoded rows by a blueprint.
//
// It does no I/O, starts no goroutines and keeps no state between events. A
// [Blueprint] is parsed once and compiled once for the table into a [Mapping].
// Every goroutine that maps takes its own [Mapper] from it. The scanner, the row encoders and the record shapes it accepts are
// described in docs/blueprint.md.
package mapping

import (
	"errors"
	"time"
)

// Record is what a Kafka record brings to the mapping. Map reads it in place
// and keeps nothing of it after it returns.
type Record struct {
	Topic string
	// TopicID is the topic's id, zero where the broker gives none. A topic that
	// was deleted and created again has another id.
	TopicID   [16]byte
	Partition int32
	Offset    int64
	Timestamp time.Time
	Key       []byte
	Value     []byte // nil is a tombstone; empty is a record without an event
	Headers   []Header
}

// Header is one Kafka record header. Where a key occurs twice the last counts.
type Header struct {
	Key   string
	Value []byte
}

// Out takes the outcomes of the events of one record: exactly one of Row,
// Reject and Filter per event, in event order.
type Out interface {
	// Buf returns the slice the next row is appended to.
	Buf() []byte
	// Row hands the extended slice back: what was appended is one row, a JSON
	// object whose keys are column names, or a protobuf message whose fields
	// have the columns' numbers. A message of no fields has no bytes.
	Row(extended []byte)
	// Reject reports that the event can never be a row. code is one of
	// RejectCodes, column may be empty, reason is for people and holds no text
	// of the event beyond short numbers.
	Reject(code, column, reason string)
	// Filter reports that the event is left out by rule; reason is one of
	// FilterReasons.
	Filter(reason string)
}

// Column is one column of the table or of the rows.
type Column struct {
	Name string // as the table spells it, where the table is known
	Type string // Delta type in upper case but for the names of fields: STRING, DECIMAL(10,2), STRUCT<a:INT>
	// Optional columns are sent only to a table known to have them.
	Optional bool
	// NotNull columns refuse NULL: an event without a value for one is rejected.
	NotNull bool
	// Number is the column's field in a protobuf row, 1 and up; the Databricks
	// documentation makes it the column's position in Unity Catalog plus one.
	// It is needed for Format protobuf and not used for json.
	Number int32
}

// Codes handed to Out.Reject.
const (
	CodeEmpty           = "empty"            // no bytes, only white space, or an empty batch
	CodeNotJSON         = "not_json"         // breaks the grammar of RFC 8259
	CodeNotObject       = "not_object"       // JSON, but not an object
	CodeTooDeep         = "too_deep"         // nested deeper than 1,000
	CodeInvalidUTF8     = "invalid_utf8"     // invalid UTF-8 or a lone surrogate
	CodeDuplicateKey    = "duplicate_key"    // a path the blueprint reads occurs twice
	CodeTypeMismatch    = "type_mismatch"    // a kind of value the column's type cannot hold
	CodeOutOfRange      = "out_of_range"     // a number the column's type cannot hold
	CodeBadTimestamp    = "bad_timestamp"    // not a point in time
	CodeMissingRequired = "missing_required" // no value for a NOT NULL column
	CodeUnrecognized    = "unrecognized"     // no source of any column is in the event
	CodeTooManyEvents   = "too_many_events"  // an array or batch of more than MaxEventsPerRecord
	CodeFilterFailed    = "filter_failed"    // the filter expression could not be evaluated

	// CodeExpressionFailed means that the expression of a mapping could not be
	// evaluated, or gave what no column can hold.
	CodeExpressionFailed = "expression_failed"
)

// RejectCodes lists every code Map may hand to Out.Reject.
func RejectCodes() []string {
	return []string{CodeEmpty, CodeNotJSON, CodeNotObject, CodeTooDeep, CodeInvalidUTF8, CodeDuplicateKey,
		CodeTypeMismatch, CodeOutOfRange, CodeBadTimestamp, CodeMissingRequired, CodeUnrecognized, CodeTooManyEvents,
		CodeFilterFailed, CodeExpressionFailed}
}

// Reasons handed to Out.Filter.
const (
	FilterTombstone  = "tombstone"      // the record has a null value
	FilterConsent    = "consent"        // consent the configuration requires is not given
	FilterDrop       = "blueprint_drop" // defaults.action drop, or a section with enabled: false
	FilterExpression = "expression"     // a filter expression said false
)

// FilterReasons lists every reason Map may hand to Out.Filter.
func FilterReasons() []string {
	return []string{FilterTombstone, FilterConsent, FilterDrop, FilterExpression}
}

// keep evaluates a filter on the event just scanned.
func (x *boundExpression) keep(m *Mapper) (bool, error) {
	out, err := x.run(m)
	if err != nil {
		return false, err
	}
	keep, ok := out.(bool)
	if !ok {
		return false, errors.New("the expression gives neither true nor false")
	}
	return keep, nil
}
