package admin

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
)

// answerTimeout bounds the sending of an answer, and of one event of a stream.
const answerTimeout = 15 * time.Second

// failure is an answer that is an error.
type failure struct {
	Status  int
	Code    string
	Message string
	Fields  []manage.FieldError
	Remedy  string
	Retry   time.Duration // 0: unknown
}

func (f *failure) Error() string { return f.Message }

// problem is the JSON of a failure.
type problem struct {
	Error  problemError        `json:"error"`
	Fields []manage.FieldError `json:"fields,omitempty"`
	Remedy string              `json:"remedy,omitempty"`
}

type problemError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func failed(status int, code, message string) error {
	return &failure{Status: status, Code: code, Message: message}
}

func notFound(message string) error { return failed(http.StatusNotFound, manage.NotFound, message) }

// invalid is what is wrong with a field of the body.
func invalid(field, message, remedy string) error {
	return &failure{Status: http.StatusUnprocessableEntity, Code: manage.ValidationFailed, Message: field + " " + message,
		Fields: []manage.FieldError{{Field: field, Message: message, Remedy: remedy}}, Remedy: remedy}
}

// statuses of the codes of manage.Error.
var statuses = map[string]int{
	manage.ValidationFailed: http.StatusUnprocessableEntity,
	manage.NameTaken:        http.StatusConflict,
	manage.RevisionMismatch: http.StatusPreconditionFailed,
	manage.NotFound:         http.StatusNotFound,
	manage.ManagedByFile:    http.StatusConflict,
	manage.StoreUnavailable: http.StatusServiceUnavailable,
	manage.StillEnabled:     http.StatusConflict,
	manage.Conflict:         http.StatusConflict,
	manage.Unavailable:      http.StatusServiceUnavailable,
}

// explain returns the answer to an error. It logs what is no answer to the caller.
func (c *call) explain(err error) error {
	var f *failure
	var refused *manage.Error
	var operation *pipeline.Refused
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &refused) && statuses[refused.Code] != 0:
		return &failure{Status: statuses[refused.Code], Code: refused.Code, Message: refused.Message, Remedy: refused.Remedy, Fields: refused.Fields, Retry: refused.RetryAfter}
	case errors.As(err, &operation) && operation.Field != "":
		return invalid(operation.Field, operation.Reason, operation.Remedy)
	case errors.As(err, &operation):
		return &failure{Status: http.StatusConflict, Code: manage.Conflict, Message: operation.Reason, Remedy: operation.Remedy}
	case c.active.Err() != nil:
		return &failure{Status: http.StatusServiceUnavailable, Code: "STOPPING", Message: "the bridge is stopping; whether the change was made may be unknown", Remedy: "send the request again with the same Idempotency-Key", Retry: 10 * time.Second}
	case c.r.Context().Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return &failure{Status: http.StatusServiceUnavailable, Code: "TIMEOUT", Message: "the answer took too long; whether the change was made may be unknown", Remedy: "send the request again with the same Idempotency-Key"}
	case c.route.operation:
		return &failure{Status: http.StatusServiceUnavailable, Code: manage.Unavailable, Message: err.Error()}
	}
	c.cfg.Log.Error("request failed", zap.String("path", c.r.URL.Path), zap.String("request_id", c.id), zap.Error(err))
	return failed(http.StatusInternalServerError, manage.OutcomeUnexpected, "the bridge failed; its log has the reason under the request id "+c.id)
}

// fail answers with an error, a *failure.
func (a *API) fail(w *recorder, err error) {
	f, _ := errors.AsType[*failure](err)
	if f.Status == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(f.Retry.Seconds())))))
	}
	a.write(w, f.Status, problemOf(f))
}

// problemOf is the JSON of an error of explain.
func problemOf(err error) problem {
	f, _ := errors.AsType[*failure](err)
	return problem{Error: problemError{Code: f.Code, Message: plaintext.Visible(f.Message)}, Fields: f.Fields, Remedy: f.Remedy}
}

// write answers with JSON.
func (a *API) write(w *recorder, status int, answer any) {
	text, raw := answer.(json.RawMessage)
	if !raw {
		var err error
		if text, err = json.Marshal(answer); err != nil {
			panic(err) // an answer holds only what can be encoded
		}
		text = append(visible(text), '\n')
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // fails if the peer has disconnected
}

// recorder keeps the status of an answer for the log.
type recorder struct {
	http.ResponseWriter
	status int    // 0: nothing was sent
	by     string // who sent the request
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// discard keeps headers only.
type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// newID makes the id of a request.
func newID() string { return "req_" + rand.Text()[:16] }

// visible escapes the characters of JSON that do not show. A json.RawMessage may hold bytes
// that are not UTF-8.
func visible(text []byte) []byte {
	return plaintext.AppendVisible(nil, bytes.ToValidUTF8(text, []byte("\ufffd")))
}
