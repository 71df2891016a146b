package live

import "time"

// States of an Event.
const (
	InFlight  = "in_flight" // mapped, being written
	Retrying  = "retrying"  // being written, while the sink does not take rows
	Delivered = "delivered" // acknowledged
	Rejected  = "rejected"  // can never be a row
	Filtered  = "filtered"  // dropped by rule
	Abandoned = "abandoned" // given up unmarked by a stop or a rebalance; its next owner reads it again
)

// Event is one event as the page lists it. It holds names, ids and states; only
// Reason may hold a value, and it is left empty in ModeMetadata.
type Event struct {
	ID        uint64    `json:"id"` // rises from 1 in each process
	Status    string    `json:"status"`
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Index     int       `json:"index"`             // among the events of its record, from 0
	Produced  time.Time `json:"produced,omitzero"` // the record's timestamp
	Taken     time.Time `json:"taken"`             // when it was mapped
	Type      string    `json:"type,omitempty"`    // track, page, identify, ...
	Name      string    `json:"name,omitempty"`    // of a track, page or screen event
	MessageID string    `json:"message_id,omitempty"`
	Size      int       `json:"size"` // of the record's value, in bytes

	Code    string `json:"code,omitempty"`    // of a reject or a filter, from a closed set
	Column  string `json:"column,omitempty"`  // the column at fault
	Meaning string `json:"meaning,omitempty"` // what Code means, in words
	Reason  string `json:"reason,omitempty"`  // the same of this event; ModeFull only

	Batch Batch   `json:"batch"`
	Ack   float64 `json:"ack_seconds,omitempty"` // from mapped to settled
}

// Batch is what an event travelled with.
type Batch struct {
	Records     int   `json:"records"`
	Rows        int   `json:"rows"`
	RowBytes    int   `json:"row_bytes"`
	FirstOffset int64 `json:"first_offset"`
	LastOffset  int64 `json:"last_offset"`
}

// Outcome is how an event ended.
type Outcome struct {
	Status  string
	Code    string
	Column  string
	Meaning string
	Reason  string
	Batch   Batch
	Ack     time.Duration
}

func (e *Event) settle(o Outcome, mode string) {
	e.Status, e.Code, e.Column, e.Meaning, e.Batch, e.Ack = o.Status, o.Code, o.Column, o.Meaning, o.Batch, o.Ack.Seconds()
	if mode == ModeFull {
		e.Reason = o.Reason
	}
}

// Content is what an event holds, for ModeFull. Texts are as they will be shown.
type Content struct {
	Key       string   `json:"key,omitempty"`
	Headers   []Header `json:"headers,omitempty"`
	Value     string   `json:"value"`               // of the record; indented where it is JSON
	Truncated bool     `json:"truncated,omitempty"` // Value is cut, and nothing below could be told
	Outcome   string   `json:"outcome,omitempty"`   // what the mapping makes of it now: row, reject, filter
	Reason    string   `json:"reason,omitempty"`    // of a reject
	Section   string   `json:"section,omitempty"`   // of the blueprint
	Shape     string   `json:"shape,omitempty"`     // event, or row where it came mapped
	Row       string   `json:"row,omitempty"`       // as JSON, indented
	Columns   []Column `json:"columns,omitempty"`
}

// Header is one header of the record.
type Header struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Column says what fed one column of the row, or why it is NULL.
type Column struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Value  string `json:"value,omitempty"` // as JSON; empty: NULL
	Source string `json:"source,omitempty"`
	Why    string `json:"why,omitempty"` // it is NULL, or was refused
}
