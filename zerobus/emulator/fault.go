package emulator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The endpoints a Fault can name.
const (
	EndpointToken   = "token"   // POST /oidc/v1/token
	EndpointIngest  = "ingest"  // POST /api/2.0/streaming-ingestion/ingest
	EndpointColumns = "columns" // GET /api/2.1/unity-catalog/tables/{name}
	EndpointInsert  = "insert"  // POST /zerobus/v1/tables/{name}/insert
	EndpointCreate  = "create"  // the opening of a gRPC stream
	EndpointStream  = "stream"  // a message on an open gRPC stream
)

// The effects a Fault can have.
const (
	EffectStatus   = "status"    // answer with Status, or end the stream with GRPCCode; nothing is kept unless Keep
	EffectLatency  = "latency"   // wait for Latency, then serve as usual; on a stream, read no further meanwhile
	EffectHang     = "hang"      // never answer, on a stream never read on; ends when the client leaves
	EffectLoseAck  = "lose_ack"  // serve (rows are kept), then cut the connection without an answer
	EffectCut      = "cut"       // cut the connection without serving
	EffectRefuse   = "refuse"    // refuse the first row that Rows matches, as a row that does not fit
	EffectSlowBody = "slow_body" // serve, then send the answer's body byte by byte

	EffectFreeze      = "freeze"       // the connection stays, and nothing goes through it any more
	EffectGoAway      = "goaway"       // serve, and send GOAWAY: the client's next stream needs a new connection
	EffectStallAcks   = "stall_acks"   // keep rows, and send no acks for Latency, or ever again without it
	EffectCloseSignal = "close_signal" // serve, and announce the stream's end: Window, EndAfter
	EffectAck         = "ack"          // serve, and send an ack for AckOffset or AckBy, or without an offset
	EffectUnknown     = "unknown"      // serve, and send a response of a kind that does not exist
	EffectNoStreamID  = "no_stream_id" // open the stream and leave its id out
)

var (
	endpoints = []string{EndpointToken, EndpointIngest, EndpointColumns, EndpointInsert, EndpointCreate, EndpointStream}

	everywhere = endpoints
	overHTTP   = []string{EndpointToken, EndpointIngest, EndpointColumns, EndpointInsert}
	overGRPC   = []string{EndpointCreate, EndpointStream}
	withRows   = []string{EndpointIngest, EndpointInsert, EndpointStream}

	// effects says which endpoints each effect can befall.
	effects = map[string][]string{
		EffectStatus: everywhere, EffectLatency: everywhere, EffectHang: everywhere, EffectCut: everywhere,
		EffectLoseAck: append(slices.Clone(overHTTP), EndpointStream), EffectRefuse: withRows, EffectSlowBody: overHTTP,
		EffectFreeze: overGRPC, EffectGoAway: overGRPC, EffectAck: overGRPC, EffectUnknown: overGRPC,
		EffectStallAcks: {EndpointStream}, EffectCloseSignal: {EndpointStream}, EffectNoStreamID: {EndpointCreate},
	}
)

// possible reports whether an effect can befall an endpoint.
func possible(effect, endpoint string) bool { return slices.Contains(effects[effect], endpoint) }

// Fault is something that goes wrong on purpose. The JSON form is that of the
// admin API. Of several faults that fit a request the one added first applies,
// alone.
type Fault struct {
	ID   string `json:"id,omitempty"`   // given by the emulator when empty
	Hits int    `json:"hits,omitempty"` // times it has applied; set by the emulator

	Endpoint    string    `json:"endpoint,omitempty"`    // "" matches all that the effect can befall
	Table       string    `json:"table,omitempty"`       // catalog.schema.table; "" matches all; not for the token endpoint
	Rows        *RowMatch `json:"rows,omitempty"`        // requests to write at least one such row; nil matches all
	Offset      *int64    `json:"offset,omitempty"`      // the message of this offset_id on its stream; nil matches all
	Count       int       `json:"count,omitempty"`       // applies this many times, then is removed; 0: until removed
	Probability float64   `json:"probability,omitempty"` // share of the fitting requests it applies to; 0 means all
	Seed        uint64    `json:"seed,omitempty"`        // of the dice for Probability and Latency, for runs that repeat

	Effect      string  `json:"effect"`
	Latency     Latency `json:"latency,omitzero"`        // waited before any effect but stall_acks, whose length it is
	Keep        bool    `json:"keep,omitempty"`          // with status and hang: serve the request first, so that its rows are kept
	Status      int     `json:"status,omitempty"`        // HTTP, 200 to 599; on a stream its gRPC counterpart, unless GRPCCode is given
	ErrorCode   string  `json:"error_code,omitempty"`    // "" takes the usual code of the status
	NumericCode int     `json:"numeric_code,omitempty"`  // error_code as a number, as the service's front door writes it
	Message     string  `json:"message,omitempty"`       // "" takes a general one
	Body        *string `json:"body,omitempty"`          // the whole body, word for word; "" is an empty one
	ContentType string  `json:"content_type,omitempty"`  // the header Content-Type; "" leaves application/json, and none on an empty body
	CutAfter    *int    `json:"cut_after,omitempty"`     // cut the connection after so many bytes of the body; nil sends all of it
	RetryAfter  int     `json:"retry_after,omitempty"`   // seconds, as the header Retry-After; 0: none
	AsDate      bool    `json:"as_date,omitempty"`       // Retry-After as an HTTP date that far ahead
	ByteEveryMS int     `json:"byte_every_ms,omitempty"` // slow_body: milliseconds between bytes; 0 means 100

	GRPCCode  string     `json:"grpc_code,omitempty"`  // status on create and stream, as in RESOURCE_EXHAUSTED; OK ends a stream in peace
	ErrorInfo *ErrorInfo `json:"error_info,omitempty"` // a detail of that status
	Reason    string     `json:"reason,omitempty"`     // status on create: x-databricks-reason-phrase, before create_stream is looked at
	InTrailer bool       `json:"in_trailer,omitempty"` // Reason in the trailer instead of the header

	Window    *Duration `json:"window,omitempty"`     // close_signal: its duration; nil leaves it out
	EndAfter  *Duration `json:"end_after,omitempty"`  // close_signal: when the stream ends; nil means after Window
	AckOffset *int64    `json:"ack_offset,omitempty"` // ack: this offset
	AckBy     *int64    `json:"ack_by,omitempty"`     // ack: the message's offset and so many more; below 0 goes back
}

// Duration is a time.Duration that JSON writes as text, as in "1.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: write 200ms or 1m30s", text)
	}
	*d = Duration(v)
	return nil
}

// RowMatch picks rows. All conditions that are set must hold; a NULL or
// missing column holds none.
type RowMatch struct {
	Column     string   `json:"column,omitempty"`      // the column Equals and Regexp look at
	Equals     *string  `json:"equals,omitempty"`      // the column reads exactly so
	Regexp     string   `json:"regexp,omitempty"`      // RE2, on the column or, without Column, on the row's JSON
	MessageIDs []string `json:"message_ids,omitempty"` // message_id is one of these
}

func oneOf(what, got string, all []string) error {
	if slices.Contains(all, got) {
		return nil
	}
	return fmt.Errorf("%s %q is not one of %s", what, got, strings.Join(all, ", "))
}

// answer is what the effect status sends by HTTP.
func (f *Fault) answer(endpoint string) answer {
	e := apiError{status: f.Status, code: f.ErrorCode, numeric: f.NumericCode, message: f.Message}
	if e.code == "" {
		e.code = usualCode(endpoint, f.Status)
	}
	if e.message == "" {
		e.message = "scripted fault: " + http.StatusText(f.Status)
	}
	a := e.answer(endpoint)
	if f.RetryAfter > 0 {
		a.header.Set("Retry-After", retryAfter(f.RetryAfter, f.AsDate))
	}
	if f.Body != nil {
		a.body = []byte(*f.Body)
		if *f.Body == "" {
			a.header.Del("Content-Type")
		}
	}
	if f.ContentType != "" {
		a.header.Set("Content-Type", f.ContentType)
	}
	if f.CutAfter != nil {
		a.cut, a.sent = true, min(*f.CutAfter, len(a.body))
	}
	return a
}

// grpcStatus is what the effect status ends a stream with.
func (f *Fault) grpcStatus() *status.Status {
	code := codeOf(f.Status)
	if f.GRPCCode != "" {
		code = grpcCodes[f.GRPCCode]
	}
	message := f.Message
	if message == "" && code != codes.OK {
		message = "scripted fault: " + codeName(code)
	}
	return withInfo(status.New(code, message), f.ErrorInfo)
}

var errNoStatus = errors.New("status 0: the effect status wants 200 to 599 or, on the endpoints create and stream, a grpc_code")
