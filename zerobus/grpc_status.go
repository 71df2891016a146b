package zerobus

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rpcStatus is the name of a gRPC code and the HTTP status that stands for it
// here: what is decided and advised goes by that, for all transports alike.
// The pairs are those of Databricks' Zerobus error reference, filled up from
// google/rpc/code.proto; FAILED_PRECONDITION has one of its own because it is
// about the table and never about a row, and what only asks for another try
// is taken as 5xx.
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

// ending is how the service ended a stream.
type ending struct {
	status  *status.Status
	phrase  string // what the edge says in place of a status; may be empty
	created bool   // the stream had been confirmed
	heard   bool   // headers or trailers came: the service or its edge answered
	stream  string // its id; may be empty
}

// reasonPhrase is where Databricks' front doors put the reason of a refusal.
// Some answer so with status OK.
const reasonPhrase = "x-databricks-reason-phrase"

func endingOf(err error, id string, created bool, header, trailer metadata.MD) ending {
	e := ending{created: created, stream: id, heard: len(header)+len(trailer) > 0}
	for _, md := range []metadata.MD{trailer, header} {
		if said := md.Get(reasonPhrase); len(said) > 0 && e.phrase == "" {
			e.phrase = said[0]
		}
	}
	if e.status = status.New(codes.OK, ""); err != nil && !errors.Is(err, io.EOF) {
		e.status = status.Convert(err)
	}
	return e
}

// errorNumber is the service's own number for a failure. It serves people, and
// errs on the safe side where it decides: an announced end makes no noise, and
// a kind of table is no fault of a row. All else goes by codes.
var errorNumber = regexp.MustCompile(`Error Code: (\d{1,9})\b`)

const (
	numberAge        = "6002" // the stream reached its greatest age
	numberStorage    = "4024" // a table in default storage
	numberDescriptor = "4033" // a descriptor that does not stand for itself
)

func (e ending) number() string { return numberIn(e.status.Message()) }

func numberIn(text string) string {
	if m := errorNumber.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// errorDomain is that of the service's google.rpc.ErrorInfo, and ownWords how
// its texts end.
const errorDomain = "zerobus.databricks.com"

var ownWords = regexp.MustCompile(`Error Code: \d{1,9}, Error State: \d{1,9}\.?\s*$`)

// own reports whether the status is in the service's own form. Anything between
// it and the bridge can answer with a code.
func (e ending) own() bool {
	for _, d := range e.status.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return true
		}
	}
	return ownWords.MatchString(e.status.Message())
}

// ended explains how a stream ended. The secrets never show in it.
func (a adviser) ended(end ending, secrets []string) *Error {
	code := end.status.Code()
	if code == codes.OK && end.phrase != "" {
		code = codes.Unauthenticated // the edge turned the stream away
	}
	known, ok := rpcStatus[code]
	if !ok {
		known.name, known.http = fmt.Sprintf("CODE_%d", code), http.StatusInternalServerError
	}
	e := &Error{Op: opInsert, RPC: known.name, Status: known.http, RequestID: clean(end.stream, 100, secrets...),
		Message: clean(or(end.status.Message(), end.phrase), 500, secrets...)}
	e.kind, e.reason = classify(known.http)
	a.details(e, end.status, secrets)
	if number := end.number(); e.Code == "" {
		e.Code = number
	}
	switch {
	case end.created && aboutSize(e.Message) && (e.kind == refused || e.Status == http.StatusTooManyRequests):
		e.kind, e.reason, e.Meaning, e.Remedy = tooLarge, "", tooBig, lowerBatch
		return e
	case e.kind == refused && aboutTable(end.number()):
		e.kind = configuration
	case e.kind == refused && !end.created:
		e.kind, e.create = configuration, true
	case e.kind == refused && !end.own():
		e.kind, e.reason = transient, RetryMismatch
		e.Meaning = a.names.Replace("this refusal is not in the form of the service, so no row is given up for it ({endpoint} answered)")
		e.Remedy = a.names.Replace("check what stands between the bridge and {endpoint}, such as a proxy or a gateway; the bridge retries")
		return e
	case e.Status == http.StatusForbidden:
		// The privileges are written into the token: one minted before a GRANT
		// does not carry it.
		e.kind, e.reason = unauthorized, RetryUnauthorized
	case e.kind == transient && !end.heard:
		// No word from the service: what gRPC says is about the connection.
		e.Err, e.Message, e.reason = errors.New(e.Message), "", RetryNetwork
		e.RPC, e.Status, e.Code = "", 0, ""
		return a.unreachable(e)
	}
	e = a.fill(e)
	switch {
	case code == codes.OK:
		e.RPC, e.Message = "", ""
		e.Meaning = "the service ended the stream without saying why"
	case aboutTable(end.number()):
		a.numbered(e, end.number())
	case code == codes.FailedPrecondition:
		e.Meaning, e.Remedy = a.names.Replace(badTable), a.names.Replace(moveTable)
	case e.create:
		e.Meaning, e.Remedy = a.names.Replace(badStream), a.names.Replace(mendStream)
	}
	return e
}

// details reads what the status carries besides its text.
func (a adviser) details(e *Error, st *status.Status, secrets []string) {
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			e.Code = errorCode(d.GetReason(), secrets)
			md := d.GetMetadata()
			e.column = clean(or(md["column"], md["field"]), 255, secrets...)
			if causes := clean(md["causes"], 200, secrets...); causes != "" {
				e.Message = strings.TrimSpace(e.Message + " (" + causes + ")")
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = min(max(d.GetRetryDelay().AsDuration(), 0), retryAfterMax)
		}
	}
	if e.column == "" {
		if m := quotedColumn.FindStringSubmatch(e.Message); m != nil {
			e.column = clean(m[1], 255, secrets...)
		}
	}
}

// unreachable completes an error that brought no answer of the endpoint.
func (a adviser) unreachable(e *Error) *Error {
	e.Meaning = "the connection failed"
	e.Remedy = a.names.Replace(reachEndpoint)
	return e
}
