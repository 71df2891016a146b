package zerobus

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Rules for what confirms a write under the workspace transport, as
// Config.Confirm names them.
const (
	ConfirmStrict  = "strict"  // the answer counts the rows, and the count is that of the rows sent
	ConfirmLenient = "lenient" // the answer may leave the count out
)

// Forms in which the service confirms rows, as State.Confirmation names them.
const (
	ConfirmedByCount      = "count"    // the answer holds records_ingested
	ConfirmedWithoutCount = "no count" // the answer is an object without records_ingested
)

var (
	errUncounted = errors.New("the answer has no records_ingested")
	errNoObject  = errors.New("the body is not one complete JSON object")
	errCut       = fmt.Errorf("the body is longer than %d bytes", answerMax)
	errTwice     = errors.New("the body names a field twice")
)

// bodyError is a body with an error in it, whatever the HTTP status is.
type bodyError struct{ answer }

func (e *bodyError) Error() string { return "the body holds an error" }

const countField = "records_ingested" // in no other spelling

// confirmFields are the fields of an answer that decide, as fold spells them: an error
// in a similar spelling is an error too.
var confirmFields = []string{"recordsingested", "error", "errors", "errorcode", "status", "statuscode"}

func fold(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// confirm returns nil only if text, the body of an answer with status 200, proves that n
// rows are durable: it is one complete JSON object without an error, and its count of rows
// is n. counted demands the count; errUncounted means that all else is as it should be. The
// error is a *bodyError if the body holds one.
func confirm(text []byte, n int, counted bool) error {
	if len(text) > answerMax {
		return errCut
	}
	fields, err := decidingFields(text)
	if err != nil {
		return err
	}
	for _, name := range []string{"errorcode", "error", "errors"} {
		if _, there := fields[name]; there {
			return &bodyError{errorIn(text, fields)}
		}
	}
	for _, name := range []string{"status", "statuscode"} {
		if status, there := fields[name]; there && !slices.Contains([]string{"OK", "SUCCESS", "SUCCEEDED", "200", "0"}, strings.ToUpper(plain(status))) {
			return &bodyError{errorIn(text, fields)}
		}
	}
	if count, there := fields["recordsingested"]; there && plain(count) != strconv.Itoa(n) {
		return fmt.Errorf("records_ingested is %s, sent were %d", clean(string(count), 30), n)
	}
	if _, there := fields[countField]; counted && !there {
		return errUncounted
	}
	return nil
}

// decidingFields returns the values of confirmFields in text, which must be one JSON
// object and nothing else.
func decidingFields(text []byte) (map[string]json.RawMessage, error) {
	in := json.NewDecoder(bytes.NewReader(text))
	if first, err := in.Token(); err != nil || first != json.Delim('{') || !utf8.Valid(text) {
		return nil, errNoObject
	}
	fields := map[string]json.RawMessage{}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return nil, errNoObject
		}
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return nil, errNoObject
		}
		key := fold(name.(string)) // Token returns nothing else before a value
		if !slices.Contains(confirmFields, key) {
			continue
		}
		if _, twice := fields[key]; twice {
			return nil, errTwice
		}
		fields[key] = value
		if name == countField {
			fields[countField] = value
		}
	}
	_, closing := in.Token()
	if _, end := in.Token(); closing != nil || !errors.Is(end, io.EOF) {
		return nil, errNoObject
	}
	return fields, nil
}

// plain is a string's text, or a value of another type as it is written.
func plain(value json.RawMessage) string {
	var text string
	if len(value) > 0 && value[0] == '"' && json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}

// errorIn reads what went wrong from a body that holds an error: from
// error_code and message, from an object under error, or from a status.
func errorIn(text []byte, fields map[string]json.RawMessage) answer {
	a := decodeAnswer(text)
	if inner := fields["error"]; len(inner) > 0 && inner[0] == '{' {
		var doc struct {
			Status  json.RawMessage `json:"status"`
			Code    json.RawMessage `json:"code"`
			Message string          `json:"message"`
		}
		_ = json.Unmarshal(inner, &doc) // what has another type stays empty
		nested := decodeAnswer(inner)
		a.code = cmp.Or(a.code, nested.code, plain(doc.Status), plain(doc.Code))
		a.message, a.column = cmp.Or(a.message, doc.Message), cmp.Or(a.column, nested.column)
	} else {
		a.code = cmp.Or(a.code, plain(inner))
	}
	a.code = cmp.Or(a.code, plain(fields["status"]), plain(fields["statuscode"]))
	return a
}

// codeStatus is the HTTP status that belongs to an error code of the service. It decides
// if the answer has another status.
var codeStatus = map[string]int{
	"INVALID_PARAMETER_VALUE": http.StatusBadRequest, "SCHEMA_MISMATCH": http.StatusBadRequest, "SCHEMA_VALIDATION_FAILED": http.StatusBadRequest,
	"INVALID_ARGUMENT": http.StatusBadRequest, "MALFORMED_REQUEST": http.StatusBadRequest, "BAD_REQUEST": http.StatusBadRequest,
	"UNAUTHENTICATED":   http.StatusUnauthorized,
	"PERMISSION_DENIED": http.StatusForbidden,
	"NOT_FOUND":         http.StatusNotFound, "TABLE_DOES_NOT_EXIST": http.StatusNotFound, "ENDPOINT_NOT_FOUND": http.StatusNotFound,
	"RESOURCE_DOES_NOT_EXIST": http.StatusNotFound, "FEATURE_DISABLED": http.StatusNotFound,
	"FAILED_PRECONDITION":    http.StatusPreconditionFailed,
	"REQUEST_TOO_LARGE":      http.StatusRequestEntityTooLarge,
	"REQUEST_LIMIT_EXCEEDED": http.StatusTooManyRequests, "RESOURCE_LIMIT_EXCEEDED": http.StatusTooManyRequests,
	"RESOURCE_EXHAUSTED": http.StatusTooManyRequests, "QUOTA_EXCEEDED": http.StatusTooManyRequests, "TOO_MANY_REQUESTS": http.StatusTooManyRequests,
	"NOT_IMPLEMENTED": http.StatusNotImplemented, "UNIMPLEMENTED": http.StatusNotImplemented,
	"INTERNAL_ERROR": http.StatusInternalServerError, "INTERNAL": http.StatusInternalServerError,
	"TEMPORARILY_UNAVAILABLE": http.StatusServiceUnavailable, "UNAVAILABLE": http.StatusServiceUnavailable, "ABORTED": http.StatusServiceUnavailable,
	"DEADLINE_EXCEEDED": http.StatusGatewayTimeout,
}

// statusOf returns the status an error code stands for; 0: none is known.
func statusOf(code string) int {
	if n, err := strconv.Atoi(code); err == nil && n >= 400 && n <= 599 {
		return n
	}
	return codeStatus[strings.ToUpper(code)]
}
