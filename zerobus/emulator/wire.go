package emulator

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/protoadapt"
)

// The wire of databricks.zerobus.Zerobus/EphemeralStream, read and written by
// hand: records are looked at where they arrived and never copied into
// messages of their own. Names and numbers are those of Databricks' published
// zerobus_service.proto.
const (
	serviceName = "databricks.zerobus.Zerobus"
	methodName  = "EphemeralStream"

	// TableHeader is the metadata key that names the table beside create_stream.
	TableHeader = "x-databricks-zerobus-table-name"

	fieldCreate = 1 // of EphemeralStreamRequest: create_stream
	fieldRecord = 2 // ingest_record
	fieldBatch  = 3 // ingest_record_batch

	recordProto = 1 // RecordType PROTO, and what an absent one means
	recordJSON  = 2 // RecordType JSON
)

// request is one EphemeralStreamRequest. Its slices point into the message.
type request struct {
	payload int // fieldCreate, fieldRecord, fieldBatch, or 0 for none that is known

	table      string
	descriptor []byte
	recordType uint64

	offset    int64
	hasOffset bool
	format    int // recordProto, recordJSON, or 0 where there is no record
	records   [][]byte
}

var errWire = errors.New("the message is not a valid EphemeralStreamRequest")

// parse reads a message. Fields that are not known are passed over; of a oneof
// the last counts.
func (q *request) parse(b []byte) error {
	*q = request{records: q.records[:0]}
	return eachField(b, func(num protowire.Number, v []byte, _ uint64) error {
		if v == nil || num > fieldBatch {
			return nil
		}
		*q = request{payload: int(num), records: q.records[:0], recordType: recordProto}
		if num == fieldCreate {
			return q.parseCreate(v)
		}
		return q.parseRecords(v)
	})
}

func (q *request) parseCreate(b []byte) error {
	return eachField(b, func(num protowire.Number, v []byte, n uint64) error {
		switch {
		case num == 1 && v != nil:
			q.table = string(v)
		case num == 3 && v != nil:
			q.descriptor = v
		case num == 4 && v == nil:
			q.recordType = n
		}
		return nil
	})
}

func (q *request) parseRecords(b []byte) error {
	return eachField(b, func(num protowire.Number, v []byte, n uint64) error {
		switch {
		case num == 1 && v == nil:
			q.offset, q.hasOffset = int64(n), true
		case (num == 2 || num == 3) && v != nil:
			q.format, q.records = int(num)-1, q.records[:0]
			if q.payload == fieldRecord {
				q.records = append(q.records, v)
				return nil
			}
			return eachField(v, func(num protowire.Number, record []byte, _ uint64) error {
				if num == 1 && record != nil {
					q.records = append(q.records, record)
				}
				return nil
			})
		}
		return nil
	})
}

// eachField walks the fields of a message: v is the contents of a
// length-delimited one and not nil, n the value of a varint.
func eachField(b []byte, each func(num protowire.Number, v []byte, n uint64) error) error {
	for len(b) > 0 {
		num, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		var v []byte
		var varint uint64
		known := true
		switch wire {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			varint, n = protowire.ConsumeVarint(b)
		default:
			known = false
			n = protowire.ConsumeFieldValue(num, wire, b)
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if !known {
			continue
		}
		if err := each(num, v, varint); err != nil {
			return err
		}
	}
	return nil
}

// response wraps the contents of field num as an EphemeralStreamResponse.
func response(num protowire.Number, contents []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), contents)
}

// createResponse confirms a stream; "" leaves its id out.
func createResponse(id string) []byte {
	var b []byte
	if id != "" {
		b = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), id)
	}
	return response(1, b)
}

// ackResponse acknowledges all offsets up to this one; nil leaves it out.
func ackResponse(offset *int64) []byte {
	var b []byte
	if offset != nil {
		b = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(*offset))
	}
	return response(2, b)
}

// closeResponse announces the stream's end in d; nil leaves the duration out.
func closeResponse(d *time.Duration) []byte {
	var b []byte
	if d != nil {
		var duration []byte
		if s := int64(*d / time.Second); s != 0 {
			duration = protowire.AppendVarint(protowire.AppendTag(duration, 1, protowire.VarintType), uint64(s))
		}
		if n := int64(*d % time.Second); n != 0 {
			duration = protowire.AppendVarint(protowire.AppendTag(duration, 2, protowire.VarintType), uint64(n))
		}
		b = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), duration)
	}
	return response(3, b)
}

// unknownResponse is a response of a kind that does not exist yet.
func unknownResponse() []byte { return response(15, []byte("later")) }

// rawCodec hands messages through as bytes: *inbound on the way in, []byte on
// the way out.
type rawCodec struct{}

// inbound is a received message. free gives its buffer back.
type inbound struct{ mem.Buffer }

func (m *inbound) free() {
	if m.Buffer != nil {
		m.Free()
		m.Buffer = nil
	}
}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*inbound)
	if !ok {
		return fmt.Errorf("cannot receive into a %T", v)
	}
	m.Buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return nil
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
	codeStreamAge        = 6002 // the stream has reached its age
	codeSchema           = 8001 // the schema does not go with the table
	stateOfRecord        = 3
	stateOfTypeName      = 4
	recordErrorText      = "Record decoder/encoder error: "
)

// numbered adds the service's error code to a text.
func numbered(text string, number, state int) string {
	return strings.TrimSuffix(text, ".") + ". Error Code: " + strconv.Itoa(number) + ", Error State: " + strconv.Itoa(state) + "."
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
	if c, ok := grpcCodes[text]; ok && oversizeTexts[c] != "" {
		return c, nil
	}
	return 0, oneOf("oversize status", text, []string{"OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"})
}

// oversize refuses a message of size bytes.
func (e *Emulator) oversize(size int64) *status.Status {
	c := e.cfg.OversizeCode // New has checked that there is a text
	return status.New(c, fmt.Sprintf(oversizeTexts[c], size, e.cfg.MaxRequestBytes))
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

// codeName is a code's name as gRPC's documentation writes it.
func codeName(c codes.Code) string {
	if name, ok := code.Code_name[int32(c)]; ok {
		return name
	}
	return strconv.Itoa(int(c))
}

// grpcCodes maps the names of codes, as in RESOURCE_EXHAUSTED, to codes.
var grpcCodes = func() map[string]codes.Code {
	out := map[string]codes.Code{}
	for c, name := range code.Code_name {
		out[name] = codes.Code(c)
	}
	return out
}()

// codesOf are the gRPC codes that go with HTTP statuses.
var codesOf = map[int]codes.Code{
	http.StatusOK: codes.OK, http.StatusBadRequest: codes.InvalidArgument, http.StatusUnauthorized: codes.Unauthenticated,
	http.StatusForbidden: codes.PermissionDenied, http.StatusNotFound: codes.NotFound, http.StatusTooManyRequests: codes.ResourceExhausted,
	http.StatusNotImplemented: codes.Unimplemented, http.StatusServiceUnavailable: codes.Unavailable, http.StatusGatewayTimeout: codes.DeadlineExceeded,
}

// codeOf is the gRPC code that goes with an HTTP status.
func codeOf(httpStatus int) codes.Code {
	if c, ok := codesOf[httpStatus]; ok {
		return c
	}
	if httpStatus >= 500 {
		return codes.Internal
	}
	return codes.Unknown
}

// grpc is a refusal of the service in gRPC's terms.
func (e *apiError) grpc() *status.Status { return status.New(codeOf(e.status), e.message) }
