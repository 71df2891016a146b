package emulator

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// apiError is a refusal: by HTTP in the shape of the workspace's REST APIs,
// {"error_code":…,"message":…}, on the token endpoint in OAuth's, by gRPC a status.
type apiError struct {
	status  int
	code    string
	numeric int // when set, error_code is this number
	message string
	fault   *rowFault // the row that is refused, or nil
}

// refusal is an apiError with the usual code of its status.
func refusal(status int, message string) *apiError {
	return &apiError{status: status, code: usualCode("", status), message: message}
}

func invalid(f *rowFault) *apiError {
	return &apiError{status: http.StatusBadRequest, code: "INVALID_PARAMETER_VALUE", message: f.Error(), fault: f}
}

func malformed(problem string) *apiError { return invalid(&rowFault{row: -1, problem: problem}) }

func noAPI(request string) *apiError {
	return &apiError{status: http.StatusNotFound, code: "ENDPOINT_NOT_FOUND", message: "No API found for '" + request + "'"}
}

func noTable(name string) *apiError {
	return &apiError{status: http.StatusNotFound, code: "TABLE_DOES_NOT_EXIST", message: "Table '" + name + "' does not exist."}
}

func tableNotFound(table string) *apiError {
	return refusal(http.StatusNotFound, `Table "`+printable(table)+`" cannot be found.`)
}

func (e *apiError) body(endpoint string) map[string]any {
	if endpoint == EndpointToken {
		return map[string]any{"error": e.code, "error_description": e.message}
	}
	body := map[string]any{"error_code": e.code, "message": e.message}
	if e.numeric != 0 {
		body["error_code"] = e.numeric
	}
	if f := e.fault; f != nil && f.reason != "" {
		meta := map[string]string{"row": strconv.Itoa(f.row)}
		if f.column != "" {
			meta["column"] = f.column
		}
		body["details"] = []any{map[string]any{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": f.reason,
			"domain": errorDomain, "metadata": meta,
		}}
	}
	return body
}

// grpc is the refusal as a gRPC status.
func (e *apiError) grpc() *status.Status { return status.New(codeOf(e.status), e.message) }

// statuses maps HTTP statuses to the error codes and gRPC codes that usually
// go with them.
var statuses = map[int]struct {
	code string
	grpc codes.Code
}{
	http.StatusOK:                    {"BAD_REQUEST", codes.OK},
	http.StatusBadRequest:            {"INVALID_PARAMETER_VALUE", codes.InvalidArgument},
	http.StatusUnauthorized:          {"UNAUTHENTICATED", codes.Unauthenticated},
	http.StatusForbidden:             {"PERMISSION_DENIED", codes.PermissionDenied},
	http.StatusNotFound:              {"NOT_FOUND", codes.NotFound},
	http.StatusRequestEntityTooLarge: {"REQUEST_TOO_LARGE", codes.Unknown},
	http.StatusTooManyRequests:       {"REQUEST_LIMIT_EXCEEDED", codes.ResourceExhausted},
	http.StatusNotImplemented:        {"NOT_IMPLEMENTED", codes.Unimplemented},
	http.StatusServiceUnavailable:    {"TEMPORARILY_UNAVAILABLE", codes.Unavailable},
	http.StatusGatewayTimeout:        {"DEADLINE_EXCEEDED", codes.DeadlineExceeded},
}

func usualCode(endpoint string, status int) string {
	s, known := statuses[status]
	switch {
	case endpoint == EndpointToken && status == http.StatusUnauthorized:
		return "invalid_client"
	case endpoint == EndpointToken && status >= 500:
		return "temporarily_unavailable"
	case endpoint == EndpointToken:
		return "invalid_request"
	case known:
		return s.code
	case status >= 500:
		return "INTERNAL_ERROR"
	}
	return "BAD_REQUEST"
}

// codeOf is the gRPC code that goes with an HTTP status.
func codeOf(httpStatus int) codes.Code {
	if s, known := statuses[httpStatus]; known {
		return s.grpc
	}
	if httpStatus >= 500 {
		return codes.Internal
	}
	return codes.Unknown
}

// codeName is a code's name as gRPC's documentation writes it.
func codeName(c codes.Code) string {
	if name, ok := code.Code_name[int32(c)]; ok {
		return name
	}
	return strconv.Itoa(int(c))
}

// errorDomain is the domain of the service's ErrorInfo details.
const errorDomain = "zerobus.databricks.com"

// The service's error codes as they have been seen in public, in the form
// "… Error Code: 4044, Error State: 3."
const (
	codePrivilege        = 3    // the token lacks a privilege
	codeTableKind        = 4024 // the table is of a kind that takes no rows
	codeRecord           = 4044 // a record cannot be decoded
	codeNotSelfContained = 4033 // a descriptor names a type that is not in it
	codeStreamAge        = 6002 // the stream has reached its maximum age
	codeSchema           = 8001 // the descriptor does not fit the table
	stateOfRecord        = 3
	stateOfTypeName      = 4
	recordErrorText      = "Record decoder/encoder error: "
)

// numbered adds the service's error code to a text.
func numbered(text string, number, state int) string {
	return fmt.Sprintf("%s. Error Code: %d, Error State: %d.", strings.TrimSuffix(text, "."), number, state)
}

func badRequest(format string, args ...any) *status.Status {
	return status.New(codes.InvalidArgument, fmt.Sprintf(format, args...))
}

// recordStatus refuses a record, which ends its stream.
func recordStatus(problem string) *status.Status {
	return status.New(codes.InvalidArgument, numbered(recordErrorText+problem, codeRecord, stateOfRecord))
}

// oversizeTexts are the texts of servers, by status code, for a message that
// is too large. They take its size and the limit.
var oversizeTexts = map[codes.Code]string{
	codes.OutOfRange:        "Error, decoded message length too large: found %d bytes, the limit is: %d bytes",
	codes.ResourceExhausted: "grpc: received message larger than max (%d vs. %d)",
	codes.InvalidArgument:   "Batch size exceeds maximum: %d bytes, the limit is %d bytes",
}

// ParseOversizeCode reads OUT_OF_RANGE, RESOURCE_EXHAUSTED or INVALID_ARGUMENT.
func ParseOversizeCode(text string) (codes.Code, error) {
	c := codes.Code(code.Code_value[text])
	if oversizeTexts[c] != "" {
		return c, nil
	}
	return 0, oneOf("oversize status", text, "OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")
}

// problems gathers what is wrong with a configuration or a fault.
type problems []error

func (p *problems) want(ok bool, format string, args ...any) {
	if !ok {
		p.add(fmt.Errorf(format, args...))
	}
}

// add ignores nil, like errors.Join.
func (p *problems) add(errs ...error) { *p = append(*p, errs...) }

func oneOf(what, got string, all ...string) error {
	if slices.Contains(all, got) {
		return nil
	}
	return fmt.Errorf("%s %q is not one of %s", what, got, strings.Join(all, ", "))
}

// ErrorInfo is google.rpc.ErrorInfo, a detail of a gRPC status.
type ErrorInfo struct {
	Reason   string            `json:"reason"`
	Domain   string            `json:"domain,omitzero"`
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
