package emulator

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// errorDomain is the domain of the service's ErrorInfo details.
const errorDomain = "zerobus.databricks.com"

// The service's error codes as they have been seen in public, in the form
// "… Error Code: 4044, Error State: 3."
const (
	codePrivilege        = 3    // the token lacks a privilege
	codeTableKind        = 4024 // the table is of a kind that takes no rows
	codeRecord           = 4044 // a record cannot be decoded
	codeNotSelfContained = 4033 // a descriptor names a type that is not in it
	codeStreamAge        = 6002 // the stream has reached its age
	codeSchema           = 8001 // the schema does not go with the table
	stateOfRecord        = 3
	stateOfTypeName      = 4
	recordErrorText      = "Record decoder/encoder error: "
)

// numbered adds the service's error code to a text.
func numbered(text string, code, state int) string {
	return strings.TrimSuffix(text, ".") + ". Error Code: " + strconv.Itoa(code) + ", Error State: " + strconv.Itoa(state) + "."
}

// recordStatus refuses a record: the end of its stream.
func recordStatus(problem string) *status.Status {
	return status.New(codes.InvalidArgument, numbered(recordErrorText+problem, codeRecord, stateOfRecord))
}

func (f *schemaFault) status() *status.Status {
	if len(f.causes) == 0 {
		return status.New(codes.InvalidArgument, f.text)
	}
	return withInfo(status.New(codes.InvalidArgument, numbered("Schema validation failed: "+f.text, codeSchema, 0)), &ErrorInfo{
		Reason: "SCHEMA_VALIDATION_FAILED", Domain: errorDomain,
		Metadata: map[string]string{"causes": strings.Join(f.causes, ","), "error_code": strconv.Itoa(codeSchema)},
	})
}

// oversizeTexts are what servers say, by the code they end a stream with, when
// a message is too large; they take its size and the limit.
var oversizeTexts = map[codes.Code]string{
	codes.OutOfRange:        "Error, decoded message length too large: found %d bytes, the limit is: %d bytes",
	codes.ResourceExhausted: "grpc: received message larger than max (%d vs. %d)",
	codes.InvalidArgument:   "Batch size exceeds maximum: %d bytes, the limit is %d bytes",
}

// ParseOversizeCode reads OUT_OF_RANGE, RESOURCE_EXHAUSTED or INVALID_ARGUMENT.
func ParseOversizeCode(text string) (codes.Code, error) {
	all := []codes.Code{codes.OutOfRange, codes.ResourceExhausted, codes.InvalidArgument}
	names := make([]string, len(all))
	for i, code := range all {
		if names[i] = codeName(code); names[i] == text {
			return code, nil
		}
	}
	return 0, oneOf("oversize status", text, names)
}

// oversize refuses a message of size bytes.
func (e *Emulator) oversize(size int64) *status.Status {
	code := e.cfg.OversizeCode // New has seen to it that there is a text
	return status.New(code, fmt.Sprintf(oversizeTexts[code], size, e.cfg.MaxRequestBytes))
}

// ErrorInfo is google.rpc.ErrorInfo, a detail of a gRPC status.
type ErrorInfo struct {
	Reason   string            `json:"reason"`
	Domain   string            `json:"domain,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func withInfo(s *status.Status, info *ErrorInfo) *status.Status {
	if info == nil || s.Code() == codes.OK {
		return s
	}
	out, err := s.WithDetails(protoadapt.MessageV1Of(&errdetails.ErrorInfo{Reason: info.Reason, Domain: info.Domain, Metadata: info.Metadata}))
	if err != nil {
		return s
	}
	return out
}

// jsonProblem is a fault of a JSON record as the service words it.
func (f *rowFault) jsonProblem() string {
	var text string
	switch {
	case f.reason == causeNotInTable:
		text = "unrecognized field name '" + f.column + "'"
	case f.digits:
		text = "invalid digit found in string"
	case f.reason == causeIncompatible:
		text = fmt.Sprintf("invalid type: field '%s' %s", f.column, f.problem)
	case f.column != "":
		text = fmt.Sprintf("field '%s' %s", f.column, f.problem)
	default:
		text = f.problem
	}
	return text + " at line 1 column " + strconv.Itoa(f.at+1)
}

// grpcCodes maps the names of codes, as in RESOURCE_EXHAUSTED, to codes.
var grpcCodes = func() map[string]codes.Code {
	out := map[string]codes.Code{}
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		out[codeName(c)] = c
	}
	return out
}()

// codeName is a code's name as gRPC's documentation writes it.
func codeName(c codes.Code) string {
	names := [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return strconv.Itoa(int(c))
}

// codeOf is the gRPC code that goes with an HTTP status.
func codeOf(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusOK:
		return codes.OK
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	}
	if httpStatus >= 500 {
		return codes.Internal
	}
	return codes.Unknown
}

// grpc is a refusal of the service in gRPC's terms.
func (e *apiError) grpc() *status.Status { return status.New(codeOf(e.status), e.message) }
