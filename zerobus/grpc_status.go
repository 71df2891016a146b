package zerobus

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/datafly/bridge/internal/databricks"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rpcStatus is the name of a gRPC code and the HTTP status that stands for it: transports
// share one classification and one table of remedies. The pairs are those of Databricks'
// Zerobus error reference. Others are those of google/rpc/code.proto. FAILED_PRECONDITION has
// its own status: it is about the table, never about a row. Codes to retry count as 5xx.
var rpcStatus = map[codes.Code]struct {
	name string
	http int
}{
	codes.OK:                 {"OK", http.StatusServiceUnavailable}, // a stream that ends is no success
	codes.Canceled:           {"CANCELLED", http.StatusServiceUnavailable},
	codes.Unknown:            {"UNKNOWN", http.StatusInternalServerError},
	codes.InvalidArgument:    {"INVALID_ARGUMENT", http.StatusBadRequest},
	codes.DeadlineExceeded:   {"DEADLINE_EXCEEDED", http.StatusGatewayTimeout},
	codes.NotFound:           {"NOT_FOUND", http.StatusNotFound},
	codes.AlreadyExists:      {"ALREADY_EXISTS", http.StatusInternalServerError},
	codes.PermissionDenied:   {"PERMISSION_DENIED", http.StatusForbidden},
	codes.ResourceExhausted:  {"RESOURCE_EXHAUSTED", http.StatusTooManyRequests},
	codes.FailedPrecondition: {"FAILED_PRECONDITION", http.StatusPreconditionFailed},
	codes.Aborted:            {"ABORTED", http.StatusServiceUnavailable},
	codes.OutOfRange:         {"OUT_OF_RANGE", http.StatusBadRequest},
	codes.Unimplemented:      {"UNIMPLEMENTED", http.StatusNotImplemented},
	codes.Internal:           {"INTERNAL", http.StatusInternalServerError},
	codes.Unavailable:        {"UNAVAILABLE", http.StatusServiceUnavailable},
	codes.DataLoss:           {"DATA_LOSS", http.StatusInternalServerError},
	codes.Unauthenticated:    {"UNAUTHENTICATED", http.StatusUnauthorized},
}

// streamEnd is how the service ended a stream.
type streamEnd struct {
	status   *status.Status
	phrase   string // what the edge sends instead of a status; may be empty
	created  bool   // the stream had been confirmed
	answered bool   // headers or trailers came from the service or its edge
	stream   string // its id; may be empty
}

// reasonPhrase is the header in which Databricks' edge puts the reason of a refusal, also
// with status OK.
const reasonPhrase = "x-databricks-reason-phrase"

func newStreamEnd(err error, id string, created bool, header, trailer metadata.MD) streamEnd {
	e := streamEnd{created: created, stream: id, answered: len(header)+len(trailer) > 0}
	for _, md := range []metadata.MD{trailer, header} {
		if text := md.Get(reasonPhrase); len(text) > 0 && e.phrase == "" {
			e.phrase = text[0]
		}
	}
	if e.status = status.New(codes.OK, ""); err != nil && !errors.Is(err, io.EOF) {
		e.status = status.Convert(err)
	}
	return e
}

func (e streamEnd) number() string { return numberIn(e.status.Message()) }

// errorDomain is that of the service's google.rpc.ErrorInfo; ownWords is how its texts end.
const errorDomain = "zerobus.databricks.com"

var ownWords = regexp.MustCompile(`Error Code: \d{1,9}, Error State: \d{1,9}\.?\s*$`)

// own reports whether the status is in the service's own form. Anything between the service
// and the bridge can answer with a code.
func (e streamEnd) own() bool {
	for _, d := range e.status.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return true
		}
	}
	return ownWords.MatchString(e.status.Message())
}

// ended explains how a stream ended. The secrets never show in it.
func (r remedies) ended(end streamEnd, secrets []string) *Error {
	code := end.status.Code()
	if code == codes.OK && end.phrase != "" {
		code = codes.Unauthenticated // the edge rejected the stream
	}
	known, ok := rpcStatus[code]
	if !ok {
		known.name, known.http = fmt.Sprintf("CODE_%d", code), http.StatusInternalServerError
	}
	e := &Error{Op: opInsert, RPC: known.name, Status: known.http, RequestID: databricks.Clean(end.stream, 100, secrets...),
		Message: databricks.Clean(cmp.Or(end.status.Message(), end.phrase), 500, secrets...)}
	e.kind, e.reason = classify(opInsert, known.http)
	e.foreign = !end.answered
	e.addDetails(end.status, secrets)
	e.Code = cmp.Or(e.Code, end.number())
	why, aboutTable := tableNumbers[end.number()]
	switch {
	case end.created && aboutSize(e.Message) && (e.kind == refused || e.Status == http.StatusTooManyRequests):
		e.kind, e.reason = tooLarge, ""
		return r.byCause(e, causeTooLarge)
	case e.kind == refused && aboutTable:
		e.kind = configuration
	case e.kind == refused && !end.created:
		e.kind, e.create = configuration, true
	case e.kind == refused && !end.own():
		e.kind, e.reason = transient, RetryMismatch
		return r.byCause(e, causeForeignStatus)
	case e.kind == transient && !end.answered:
		// Without a word of the service the text of gRPC is about the connection.
		e.Err, e.Message, e.reason = errors.New(e.Message), "", RetryNetwork
		e.RPC, e.Status, e.Code = "", 0, ""
		return r.byCause(e, causeConnection)
	}
	switch {
	case code == codes.OK:
		e = r.byAnswer(e)
		e.RPC, e.Message, e.Meaning = "", "", "the service ended the stream without saying why"
		return e
	case aboutTable:
		return r.byCause(e, why)
	case code == codes.FailedPrecondition:
		return r.byCause(e, causeTableKind)
	case e.create:
		return r.byCause(e, causeCreate)
	}
	return r.byAnswer(e)
}

// addDetails reads what the status carries besides its text.
func (e *Error) addDetails(st *status.Status, secrets []string) {
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			e.Code = databricks.ErrorCode(d.GetReason(), secrets)
			md := d.GetMetadata()
			e.column = databricks.Clean(cmp.Or(md["column"], md["field"]), 255, secrets...)
			if causes := databricks.Clean(md["causes"], 200, secrets...); causes != "" {
				e.Message = strings.TrimSpace(e.Message + " (" + causes + ")")
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = min(max(d.GetRetryDelay().AsDuration(), 0), databricks.RetryAfterMax)
		}
	}
	e.column = cmp.Or(e.column, databricks.Clean(databricks.ColumnIn(e.Message), 255, secrets...))
}
