package zerobus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// kind decides what happens to a batch after an answer. It is set where the
// error is born, from status codes and error types, never from text.
type kind uint8

const (
	transient     kind = iota // retried for as long as the context lives
	unauthorized              // retried once with a fresh token, then configuration
	configuration             // blocked until somebody mends it
	refused                   // a row in the batch can never be ingested
	tooLarge                  // the batch is over the size bound
)

// What was being done when an error arose.
const (
	opToken   = "token"
	opIngest  = "ingest"
	opInsert  = "insert" // writing rows at the Zerobus endpoint
	opColumns = "columns"
)

// Error is an answer of the service, or the absence of one, with what it means
// and what the operator can do about it.
type Error struct {
	Op         string        // "token", "ingest" (rows to the workspace), "insert" (rows to the Zerobus endpoint) or "columns"
	Status     int           // HTTP status, or the one that stands for RPC, or for the error in a 200; 0 when there was no answer
	RPC        string        // gRPC status, such as UNAVAILABLE; empty over HTTP
	Code       string        // the service's error code, such as PERMISSION_DENIED; may be empty
	Message    string        // the service's own words: one line, at most 500 bytes, no secrets
	RequestID  string        // the service's name for the request or the stream; may be empty
	RetryAfter time.Duration // how long the service asks to wait, at most 10 minutes; 0: not said
	Meaning    string        // what it means here
	Remedy     string        // what to do
	Err        error         // the cause below HTTP: network, TLS, reading the secret; may be nil

	kind   kind
	came   int    // the HTTP status that came, where Status is that of an error in the body; may be 0
	reason string // metric label of a retry
	column string // named by the service in a 400; may be empty
	create bool   // the service refused to open a stream: for the columns of the rows, as likely as not
}

// Error ends with the remedy.
func (e *Error) Error() string {
	text := e.head()
	if e.Message != "" {
		text += fmt.Sprintf(" %q", e.Message)
	}
	if e.RequestID != "" {
		what := " (request "
		if e.RPC != "" {
			what = " (stream "
		}
		text += what + e.RequestID + ")"
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + ": " + e.Meaning + "; " + e.Remedy
}

// Unwrap returns the cause below HTTP.
func (e *Error) Unwrap() error { return e.Err }

// Reason is the error without its remedy and, where the service's words may
// quote a row, without those: it is fit for logs and status pages.
func (e *Error) Reason() string {
	text := e.head()
	if e.Message != "" && e.kind == configuration {
		text += fmt.Sprintf(" %q", e.Message)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + ": " + e.Meaning
}

func (e *Error) head() string {
	text := map[string]string{opToken: "minting a token", opIngest: "writing rows", opInsert: "writing rows", opColumns: "reading the table's columns"}[e.Op]
	if e.RPC != "" {
		text += ": gRPC " + e.RPC
	} else if e.Status != 0 {
		came := e.Status
		if e.came != 0 {
			came = e.came
		}
		text += ": HTTP " + strconv.Itoa(came)
	}
	if e.Code != "" {
		text += " " + e.Code
	}
	return text
}

// RefusedError says that at least one row of a batch can never be ingested.
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

// Error names the cause and the remedy. It may quote the service's words and
// so a value of the row: it belongs with the dead letter, not in a log.
func (e *RefusedError) Error() string { return e.err.Error() }

// Unwrap returns the *Error, where the service answered.
func (e *RefusedError) Unwrap() error { return e.err }

// Refused returns a code from a closed set for metrics, and the column the
// service named, if any.
func (e *RefusedError) Refused() (code, column string) { return e.code, e.column }

// byService reports whether the service refused the rows in its own form.
func (e *RefusedError) byService() bool {
	var said *Error
	return errors.As(e.err, &said) && said.Code != ""
}

func refusal(err *Error) *RefusedError {
	r := &RefusedError{code: RefusedOther, column: err.column, err: err}
	switch err.Code {
	case "SCHEMA_MISMATCH", "SCHEMA_VALIDATION_FAILED":
		r.code = RefusedSchemaMismatch
	case "INVALID_PARAMETER_VALUE": // stands for any malformed input; a column makes it one of schema
		if err.column != "" {
			r.code = RefusedSchemaMismatch
		}
	}
	if err.RPC == "INVALID_ARGUMENT" {
		r.code = RefusedSchemaMismatch // INVALID_PARAMETER_VALUE by its other name
	}
	if err.kind == tooLarge {
		r.code = RefusedTooLarge
	}
	return r
}

// IsPermanent reports whether err is a fault of configuration (wrong secret,
// missing grant, missing table, columns that do not fit) that no waiting
// mends. A *ColumnsUnreadable is not one: rows can be written without
// reading columns. Anything else that Token, Reachable, Columns, CheckColumns and Preflight
// return is worth another try.
func IsPermanent(err error) bool {
	var e *Error
	var s *SchemaError
	var hidden *ColumnsUnreadable
	if errors.As(err, &hidden) {
		return false
	}
	return errors.As(err, &s) || errors.As(err, &e) && (e.kind == configuration || e.kind == unauthorized)
}

// kindOf returns the kind of a non-nil error of this package.
func kindOf(err error) kind {
	var e *Error
	if errors.As(err, &e) {
		return e.kind
	}
	return transient
}

// answer is what an error body tells. Databricks REST errors look like
// {"error_code":"…","message":"…","details":[…]}; error_code may be a number,
// and a body from a proxy may be anything.
type answer struct{ code, message, column string }

// decodeAnswer never fails: what cannot be understood is left empty.
func decodeAnswer(body []byte) answer {
	var doc struct {
		Code    json.RawMessage `json:"error_code"`
		Message string          `json:"message"`
		Column  string          `json:"column"`
		Details json.RawMessage `json:"details"`
	}
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		return answer{}
	}
	// A field of another type leaves its neighbours readable.
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &doc); err != nil && !errors.As(err, &wrongType) {
		return answer{}
	}
	a := answer{message: doc.Message, column: doc.Column}
	if json.Unmarshal(doc.Code, &a.code) != nil {
		a.code = string(doc.Code)
	}
	if a.code = clean(a.code, 100); a.code == "null" {
		a.code = ""
	}
	var details []struct {
		Column   string            `json:"column"`
		Metadata map[string]string `json:"metadata"`
	}
	if json.Unmarshal(doc.Details, &details) == nil {
		for _, d := range details {
			a.column = or(a.column, or(d.Column, d.Metadata["column"]))
		}
	}
	if a.column == "" {
		if m := quotedColumn.FindStringSubmatch(doc.Message); m != nil {
			a.column = m[1]
		}
	}
	a.column = clean(a.column, 255)
	return a
}

// quotedColumn finds a column's name in the service's words. It serves people
// reading a dead letter; nothing is decided by it.
var quotedColumn = regexp.MustCompile("(?i)\\b(?:column|field(?: name)?) ['\"`]([^'\"`]{1,255})['\"`]")

// errorCode returns code if it looks like one. Whatever else a service puts in
// its place is not let into logs and labels.
func errorCode(code string, secrets []string) string {
	code = clean(code, 100, secrets...)
	if strings.ContainsFunc(code, func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return ""
	}
	return code
}

// clean returns text on one line, at most limit bytes, each secret replaced.
func clean(text string, limit int, secrets ...string) string {
	secrets = slices.Clone(secrets) // longest first: one may be part of another
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	redact := func() {
		for _, s := range secrets {
			if s != "" {
				text = strings.ReplaceAll(text, s, "[redacted]")
			}
		}
	}
	redact()
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, text)
	redact() // what was dropped may have stood inside one
	text = strings.TrimSpace(text)
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	return text
}
