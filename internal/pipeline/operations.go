package pipeline

import (
	"encoding/json"
	"time"

	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafka"
)

// Refused is why an operation changed nothing. With a Field the request is wrong, without
// one the present state does not allow it.
type Refused struct {
	Field  string // of the request, dotted; empty: the state of the integration
	Reason string
	Remedy string
}

func (r *Refused) Error() string { return r.Reason }

// ReplayRequest asks for the offsets of a group to be set to a position.
type ReplayRequest struct {
	To         string   `json:"to"` // earliest, latest, an offset, a time, or a duration ago
	Topics     []string `json:"topics,omitempty"`
	Partitions []int32  `json:"partitions,omitempty"` // of the only topic
	AllowSkip  bool     `json:"allow_skip,omitempty"`
	Reason     string   `json:"reason,omitempty"`

	By        string `json:"-"`
	RequestID string `json:"-"`
	Execute   bool   `json:"-"` // false: a dry run
}

// ReplayReport is what a replay did, or would do.
type ReplayReport struct {
	At       time.Time `json:"at"`
	By       string    `json:"by"`
	Reason   string    `json:"reason,omitempty"`
	Group    string    `json:"group"`
	To       string    `json:"to"` // a relative time made absolute
	Executed bool      `json:"executed"`
	kafka.ReplaySummary
	Members []kafka.Member `json:"members"` // of the group; a replay is refused while there is one
}

// DeadLetterFilter selects dead letters; a zero field selects all.
type DeadLetterFilter struct {
	Codes      []string  `json:"codes,omitempty"`
	Column     string    `json:"column,omitempty"`
	From       time.Time `json:"from,omitzero"` // of the failure
	To         time.Time `json:"to,omitzero"`   // not included
	Partitions []int32   `json:"partitions,omitempty"`
}

// DeadLetterGroups counts the unresolved dead letters of an integration.
type DeadLetterGroups struct {
	Topics   []string            `json:"topics"`
	Matched  int                 `json:"matched"`
	Resolved int                 `json:"resolved"` // of those that the filter selects
	Groups   []*deadletter.Group `json:"groups"`
}

// RedriveRequest asks for dead letters to be mapped again and written.
type RedriveRequest struct {
	DeadLetterFilter
	Limit  int    `json:"limit,omitempty"` // 0: all
	Reason string `json:"reason,omitempty"`

	By        string `json:"-"`
	RequestID string `json:"-"`
	Execute   bool   `json:"-"` // false: a dry run
}

// RedriveReport is what a redrive did, or would do.
type RedriveReport struct {
	Integration string              `json:"integration"`
	Topics      []string            `json:"topics"`
	Executed    bool                `json:"executed"`
	By          string              `json:"by"`
	Reason      string              `json:"reason,omitempty"`
	Table       string              `json:"table"`
	Matched     int                 `json:"matched"`
	Delivered   int                 `json:"delivered"` // or would be
	Rows        int                 `json:"rows"`
	Rejected    int                 `json:"rejected"`
	Filtered    int                 `json:"filtered"`
	Failed      int                 `json:"failed"`
	Unmarked    int                 `json:"unmarked"` // delivered, and written again by the next redrive
	Groups      []*deadletter.Group `json:"not_delivered"`
	Error       string              `json:"error,omitempty"` // why it ended early
}

// Topic is a topic of the cluster that an integration can read.
type Topic struct {
	Name       string     `json:"name"`
	Partitions int        `json:"partitions"`
	Rate       *float64   `json:"events_per_second"` // over the last minutes; null: unknown
	Newest     *time.Time `json:"newest"`            // timestamp of the newest record; null: none or unknown
}

// BlueprintRequest is a blueprint to compile.
type BlueprintRequest struct {
	Integration string `json:"integration,omitempty"` // whose table's columns to use; id or slug
	Variant     string `json:"variant,omitempty"`
	Blueprint   string `json:"blueprint,omitempty"` // a document; empty: that of the variant
}

// BlueprintProblem is one mistake in a blueprint.
type BlueprintProblem struct {
	Line    int    `json:"line,omitempty"` // from 1; 0: none
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"` // as in mappings.page_url
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// BlueprintReport is whether a blueprint compiles, and what it makes.
type BlueprintReport struct {
	Valid    bool               `json:"valid"`
	Problems []BlueprintProblem `json:"problems"`
	Warnings []string           `json:"warnings"`
	DDL      string             `json:"ddl,omitempty"`
}

// TryRequest maps one event with a blueprint.
type TryRequest struct {
	BlueprintRequest
	Event json.RawMessage `json:"event"`
}

// TryReport is what a blueprint makes of an event.
type TryReport struct {
	Problems []BlueprintProblem `json:"problems"` // of the blueprint; then there are no results
	Results  []TryResult        `json:"results"`  // one for each event of the record
}

// TryResult is the row of one event, or why there is none.
type TryResult struct {
	Outcome string          `json:"outcome"` // row, reject or filter
	Code    string          `json:"code,omitempty"`
	Column  string          `json:"column,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Section string          `json:"section,omitempty"` // of the blueprint
	Row     json.RawMessage `json:"row,omitempty"`
	Columns []TryColumn     `json:"columns"`
}

// TryColumn is one column with its source, or why it is NULL.
type TryColumn struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Value  string `json:"value,omitempty"` // as JSON; empty: NULL
	Source string `json:"source,omitempty"`
	Why    string `json:"why,omitempty"`
}

// RecentEvent is a record that was read from a source topic, to try a blueprint on.
type RecentEvent struct {
	Topic     string          `json:"topic"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Time      time.Time       `json:"time"`
	Event     json.RawMessage `json:"event"` // a JSON string where the value is no JSON
}
