package zerobus

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// kind decides what happens to a batch after an answer. It is set where the error is
// created, from status codes and error types, never from text.
type kind uint8

const (
	transient     kind = iota // retried until the context ends
	unauthorized              // retried once with a fresh token, then configuration
	configuration             // blocks writing until somebody fixes it
	refused                   // a row in the batch can never be ingested
	tooLarge                  // the batch is over the size bound
)

// Operations, as Error.Op names them.
const (
	opToken    = "token"
	opIngest   = "ingest" // rows to the workspace
	opInsert   = "insert" // rows to the Zerobus endpoint
	opColumns  = "columns"
	opDiscover = "discover" // facts about the Zerobus endpoint, from the workspace
	opRows     = opIngest + " " + opInsert
)

// Error is an answer of the service, or a missing one, with its meaning and what the
// operator can do about it.
type Error struct {
	Op         string        // "token", "ingest" (rows to the workspace), "insert" (rows to the Zerobus endpoint), "columns" or "discover" (the Zerobus endpoint)
	Status     int           // HTTP status, or the equivalent of RPC or of the error in a 200; 0: no answer
	RPC        string        // gRPC status, such as UNAVAILABLE; empty over HTTP
	Code       string        // the service's error code, such as PERMISSION_DENIED; may be empty
	Message    string        // of the service: one line, at most 500 bytes, no secrets
	RequestID  string        // the service's id of the request or the stream; may be empty
	RetryAfter time.Duration // requested by the service, at most 10 minutes; 0: none
	Meaning    string        // what it means here
	Remedy     string        // what to do
	Err        error         // the cause below HTTP: network, TLS, reading the secret; may be nil

	kind        kind
	came        int    // the HTTP status that came, if Status is that of an error in the body
	reason      string // metric label of a retry
	column      string // named by the service in a refusal; may be empty
	foreign     bool   // over gRPC: not in the form of gRPC, so from what is before the service
	foreignHost bool   // the endpoint's edge does not serve this workspace
	create      bool   // the service refused to open a stream, probably for the columns of the rows
}

// Error ends with the remedy.
func (e *Error) Error() string {
	id := ""
	if e.RequestID != "" {
		id = " (request " + e.RequestID + ")"
		if e.RPC != "" {
			id = " (stream " + e.RequestID + ")"
		}
	}
	return e.text(e.Message != "", id) + "; " + e.Remedy
}

// Unwrap returns the cause below HTTP.
func (e *Error) Unwrap() error { return e.Err }

// Reason is the error without its remedy, and without the service's message if that
// may quote a row: it is fit for logs and status pages.
func (e *Error) Reason() string { return e.text(e.Message != "" && e.kind == configuration, "") }

func (e *Error) text(withMessage bool, id string) string {
	text := map[string]string{opToken: "minting a token", opIngest: "writing rows", opInsert: "writing rows", opColumns: "reading the table's columns",
		opDiscover: "finding the Zerobus endpoint"}[e.Op]
	if e.RPC != "" {
		text += ": gRPC " + e.RPC
	} else if e.Status != 0 {
		text += ": HTTP " + strconv.Itoa(cmp.Or(e.came, e.Status))
	}
	if e.Code != "" {
		text += " " + e.Code
	}
	if withMessage {
		text += fmt.Sprintf(" %q", e.Message)
	}
	text += id
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + ": " + e.Meaning
}

// RefusedError reports that at least one row of a batch can never be ingested.
type RefusedError struct {
	code   string
	column string
	err    error
}

// Codes of a RefusedError, the closed set of Refused's first result.
const (
	RefusedSchemaMismatch = "schema_mismatch" // a column the table lacks, or a value of another type
	RefusedTooLarge       = "too_large"       // over the size bound of one request
	RefusedOther          = "refused"         // any other refusal
)

// Error names the cause and the remedy. It may quote a value of the row, so it belongs
// in the dead letter and not in a log.
func (e *RefusedError) Error() string { return e.err.Error() }

// Unwrap returns the *Error, if the service answered.
func (e *RefusedError) Unwrap() error { return e.err }

// Refused returns a code from a closed set for metrics, and the column that the service
// named, if any.
func (e *RefusedError) Refused() (code, column string) { return e.code, e.column }

// byService reports whether the service refused the rows in its own form.
func (e *RefusedError) byService() bool {
	answer, ok := errors.AsType[*Error](e.err)
	return ok && answer.Code != ""
}

func refusal(err *Error) *RefusedError {
	code := RefusedOther
	switch {
	case err.kind == tooLarge:
		code = RefusedTooLarge
	case err.Code == "SCHEMA_MISMATCH", err.Code == "SCHEMA_VALIDATION_FAILED", err.RPC == "INVALID_ARGUMENT",
		err.Code == "INVALID_PARAMETER_VALUE" && err.column != "": // any malformed input; a named column makes it the schema
		code = RefusedSchemaMismatch
	}
	return &RefusedError{code: code, column: err.column, err: err}
}

// StaleError reports that rows were encoded for an earlier schema version, or for another
// transport: encode them again and write those.
type StaleError struct{ err error }

// Error names what was refused.
func (e *StaleError) Error() string {
	return "the rows were encoded before the table's columns or the transport changed: " + e.err.Error()
}

// Unwrap returns the refusal.
func (e *StaleError) Unwrap() error { return e.err }

// Stale identifies the error to callers that do not import this package.
func (e *StaleError) Stale() bool { return true }

// IsPermanent reports whether err is a configuration fault that no waiting resolves:
// a wrong secret, a missing grant or table, columns that do not match. A
// *ColumnsUnreadable is none, since rows can be written without reading columns. Any
// other error of Token, Reachable, Columns, CheckColumns and Preflight is worth a retry.
func IsPermanent(err error) bool {
	if is[*ColumnsUnreadable](err) {
		return false
	}
	kind := kindOf(err)
	return is[*SchemaError](err) || kind == configuration || kind == unauthorized
}

func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// kindOf returns the kind of an error of this package; other errors are transient.
func kindOf(err error) kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.kind
	}
	return transient
}
