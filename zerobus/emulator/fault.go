package emulator

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
)

// The endpoints a Fault can name.
const (
	EndpointToken   = "token"   // POST /oidc/v1/token
	EndpointIngest  = "ingest"  // POST /api/2.0/streaming-ingestion/ingest
	EndpointColumns = "columns" // GET /api/2.1/unity-catalog/tables/{name}
	EndpointInsert  = "insert"  // POST /zerobus/v1/tables/{name}/insert
	EndpointCreate  = "create"  // the opening of a gRPC stream
	EndpointStream  = "stream"  // a message on an open gRPC stream

	EndpointMetastore  = "metastore"  // GET /api/2.1/unity-catalog/metastore_summary
	EndpointAssignment = "assignment" // GET /api/2.1/unity-catalog/current-metastore-assignment
	EndpointCatalog    = "catalog"    // GET /api/2.1/unity-catalog/catalogs/{name}
	EndpointSchema     = "schema"     // GET /api/2.1/unity-catalog/schemas/{name}

	EndpointPermissions = "permissions" // GET /api/2.1/unity-catalog/permissions/{type}/{name}
	EndpointGrant       = "grant"       // PATCH of the same
	EndpointEffective   = "effective"   // GET /api/2.1/unity-catalog/effective-permissions/{type}/{name}

	EndpointStatement       = "statement"        // POST /api/2.0/sql/statements
	EndpointStatementResult = "statement_result" // GET /api/2.0/sql/statements/{id}
	EndpointStatementCancel = "statement_cancel" // POST /api/2.0/sql/statements/{id}/cancel
	EndpointWarehouses      = "warehouses"       // GET /api/2.0/sql/warehouses and warehouses/{id}
)

// The effects a Fault can have.
const (
	EffectStatus   = "status"    // answer with Status, or end the stream with GRPCCode; store nothing unless Keep
	EffectLatency  = "latency"   // wait for Latency, then serve; on a stream, do not read meanwhile
	EffectHang     = "hang"      // never answer, on a stream never read again, until the client leaves
	EffectLoseAck  = "lose_ack"  // serve (rows are stored), then cut the connection without an answer
	EffectCut      = "cut"       // cut the connection without serving
	EffectRefuse   = "refuse"    // refuse the first row that Rows matches, like a row that does not fit
	EffectSlowBody = "slow_body" // serve, then send the answer's body byte by byte

	EffectFreeze      = "freeze"       // the connection stays, and nothing passes through it any more
	EffectGoAway      = "goaway"       // serve, and send GOAWAY: the client's next stream needs a new connection
	EffectStallAcks   = "stall_acks"   // store rows, and send no acks for Latency, or ever again without it
	EffectCloseSignal = "close_signal" // serve, and announce the stream's end: Window, EndAfter
	EffectAck         = "ack"          // serve, and send an ack for AckOffset or AckBy, or without an offset
	EffectUnknown     = "unknown"      // serve, and send a response of a kind that does not exist
	EffectNoStreamID  = "no_stream_id" // open the stream and leave its id out
)

var (
	overHTTP = []string{EndpointToken, EndpointIngest, EndpointColumns, EndpointInsert, EndpointMetastore, EndpointAssignment,
		EndpointCatalog, EndpointSchema, EndpointPermissions, EndpointGrant, EndpointEffective, EndpointStatement, EndpointStatementResult, EndpointStatementCancel, EndpointWarehouses}
	overGRPC  = []string{EndpointCreate, EndpointStream}
	endpoints = slices.Concat(overHTTP, overGRPC)
	withRows  = []string{EndpointIngest, EndpointInsert, EndpointStream}

	// effects has the endpoints that each effect can apply to.
	effects = map[string][]string{
		EffectStatus: endpoints, EffectLatency: endpoints, EffectHang: endpoints, EffectCut: endpoints,
		EffectLoseAck: append(slices.Clone(overHTTP), EndpointStream), EffectRefuse: withRows, EffectSlowBody: overHTTP,
		EffectFreeze: overGRPC, EffectGoAway: overGRPC, EffectAck: overGRPC, EffectUnknown: overGRPC,
		EffectStallAcks: {EndpointStream}, EffectCloseSignal: {EndpointStream}, EffectNoStreamID: {EndpointCreate},
	}
)

// takesRows reports whether requests to an endpoint contain rows.
func takesRows(endpoint string) bool { return slices.Contains(withRows, endpoint) }

// Fault makes requests fail on purpose. Its JSON is that of the admin API. If
// several faults match a request, only the one added first applies.
type Fault struct {
	ID   string `json:"id,omitzero"`   // given by the emulator when empty
	Hits int    `json:"hits,omitzero"` // times it has applied; set by the emulator

	Endpoint    string    `json:"endpoint,omitzero"`    // "" matches all that the effect can apply to
	Table       string    `json:"table,omitzero"`       // catalog.schema.table; "" matches all; not for the token endpoint
	Rows        *RowMatch `json:"rows,omitzero"`        // requests to write at least one such row; nil matches all
	Offset      *int64    `json:"offset,omitzero"`      // the message of this offset_id on its stream; nil matches all
	Count       int       `json:"count,omitzero"`       // applies this many times, then is removed; 0: until removed
	Probability float64   `json:"probability,omitzero"` // share of the matching requests it applies to; 0 means all
	Seed        uint64    `json:"seed,omitzero"`        // of Probability and Latency, for runs that repeat; 0 is random

	Effect      string  `json:"effect"`
	Latency     Latency `json:"latency,omitzero"`       // waited before any effect but stall_acks, whose length it is
	Keep        bool    `json:"keep,omitzero"`          // with status and hang: serve the request first, so that its rows are stored
	Status      int     `json:"status,omitzero"`        // HTTP, 200 to 599; on a stream its gRPC counterpart, unless GRPCCode is given
	ErrorCode   string  `json:"error_code,omitzero"`    // "" means the usual code of the status
	NumericCode int     `json:"numeric_code,omitzero"`  // error_code as a number, as the service's edge sends it
	Message     string  `json:"message,omitzero"`       // "" means a general one
	Body        *string `json:"body,omitzero"`          // the whole body, verbatim; "" is an empty one
	ContentType string  `json:"content_type,omitzero"`  // the header Content-Type; "" means application/json, and none on an empty body
	CutAfter    *int    `json:"cut_after,omitzero"`     // cut the connection after so many bytes of the body; nil sends all of it
	RetryAfter  int     `json:"retry_after,omitzero"`   // seconds, as the header Retry-After; 0: none
	AsDate      bool    `json:"as_date,omitzero"`       // Retry-After as an HTTP date that far ahead
	ByteEveryMS int     `json:"byte_every_ms,omitzero"` // slow_body: milliseconds between bytes; 0 means 100

	GRPCCode  string     `json:"grpc_code,omitzero"`  // status on create and stream, as in RESOURCE_EXHAUSTED; OK ends a stream without an error
	ErrorInfo *ErrorInfo `json:"error_info,omitzero"` // a detail of that status
	Reason    string     `json:"reason,omitzero"`     // status on create: x-databricks-reason-phrase, sent before create_stream is read
	InTrailer bool       `json:"in_trailer,omitzero"` // Reason in the trailer instead of the header

	Window    *Duration `json:"window,omitzero"`     // close_signal: its duration; nil leaves it out
	EndAfter  *Duration `json:"end_after,omitzero"`  // close_signal: when the stream ends; nil means after Window
	AckOffset *int64    `json:"ack_offset,omitzero"` // ack: this offset
	AckBy     *int64    `json:"ack_by,omitzero"`     // ack: the message's offset plus so many, which may be below 0
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

// RowMatch selects rows. All conditions that are set must hold; a NULL or
// missing column meets none.
type RowMatch struct {
	Column     string   `json:"column,omitzero"`       // the column that Equals and Regexp apply to
	Equals     *string  `json:"equals,omitzero"`       // the column's text
	Regexp     string   `json:"regexp,omitzero"`       // RE2, on the column or, without Column, on the row's JSON
	MessageIDs []string `json:"message_ids,omitempty"` // message_id is one of these
}

// validate reports every problem at once.
func (f *Fault) validate() error {
	var p problems
	where, known := effects[f.Effect]
	p.add(oneOf("effect", f.Effect, slices.Sorted(maps.Keys(effects))...), f.Latency.validate(), f.Rows.validate())
	if f.Endpoint != "" {
		p.add(oneOf("endpoint", f.Endpoint, endpoints...))
		p.want(!known || !slices.Contains(endpoints, f.Endpoint) || slices.Contains(where, f.Endpoint),
			"effect %q does not apply to the endpoint %q, only to %v", f.Effect, f.Endpoint, where)
		where = []string{f.Endpoint}
	}
	for _, group := range []struct {
		set     bool
		fields  string
		effects string
	}{
		{
			f.Status != 0 || f.Body != nil || f.ContentType != "" || f.CutAfter != nil || f.NumericCode != 0 || f.RetryAfter != 0 ||
				f.GRPCCode != "" || f.ErrorInfo != nil || f.Reason != "",
			"status, body, content_type, cut_after, numeric_code, retry_after, grpc_code, error_info and reason", "status",
		},
		{f.Keep, "keep (lose_ack keeps without it)", "status hang"},
		{f.Window != nil || f.EndAfter != nil, "window and end_after", "close_signal"},
		{f.AckOffset != nil || f.AckBy != nil, "ack_offset and ack_by", "ack"},
	} {
		p.want(!group.set || slices.Contains(strings.Fields(group.effects), f.Effect),
			"%s go with the effects %s only, not with %q", group.fields, group.effects, f.Effect)
	}
	p.want(f.Effect != EffectLatency || f.Latency != (Latency{}), "the effect latency wants a latency such as 20ms or p50=150ms,p95=500ms")
	p.want(f.ByteEveryMS >= 0 && f.ByteEveryMS <= 60_000, "byte_every_ms %d: want 0 to 60000", f.ByteEveryMS)
	p.want(f.Count >= 0, "count %d: want 0 (until removed) or more", f.Count)
	p.want(f.Probability >= 0 && f.Probability <= 1, "probability %v: want 0 to 1", f.Probability)
	p.want(f.RetryAfter >= 0 && f.RetryAfter <= 1<<30, "retry_after %d: want seconds, 0 or more", f.RetryAfter)
	p.want(f.Rows == nil && f.Effect != EffectRefuse || takesRows(f.Endpoint), "rows and the effect refuse want an endpoint of %v, not %q", withRows, f.Endpoint)
	p.want(f.Offset == nil || f.Endpoint == EndpointStream, "offset goes with the endpoint stream only, not with %q", f.Endpoint)
	p.want(f.Table == "" || f.Endpoint != EndpointToken, "table %q: the token endpoint knows no tables; leave it out", f.Table)
	p.want(f.AckOffset == nil || f.AckBy == nil, "ack_offset and ack_by: give one of them, or none for an ack without an offset")
	for _, d := range []*Duration{f.Window, f.EndAfter} {
		p.want(d == nil || *d >= 0 && time.Duration(*d) <= 24*time.Hour, "duration %v: want 0 to 24h", d)
	}
	if f.Effect == EffectStatus {
		p.add(f.validateStatus(where))
	}
	return errors.Join(p...)
}

// validateStatus checks the effect status for the endpoints it may apply to.
func (f *Fault) validateStatus(where []string) error {
	var p problems
	header := func(s string) bool {
		return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
	}
	http := slices.ContainsFunc(where, func(e string) bool { return slices.Contains(overHTTP, e) })
	if f.GRPCCode != "" {
		p.add(oneOf("grpc_code", f.GRPCCode, slices.Sorted(maps.Keys(code.Code_value))...))
	}
	p.want(f.Status != 0 || !http && f.GRPCCode != "", "status 0: the effect status wants 200 to 599 or, on the endpoints create and stream, a grpc_code")
	p.want(f.Status == 0 || f.Status >= 200 && f.Status <= 599, "status %d: the effect status wants 200 to 599", f.Status)
	p.want(f.ContentType == "" && f.CutAfter == nil || http, "content_type and cut_after are of HTTP answers; they do not go with the endpoint %q", f.Endpoint)
	p.want(f.CutAfter == nil || *f.CutAfter >= 0, "cut_after: want 0 or more bytes")
	p.want(f.Reason == "" && !f.InTrailer || f.Endpoint == EndpointCreate, "reason and in_trailer go with the endpoint create only, not with %q", f.Endpoint)
	p.want(header(f.ContentType), "content_type: want visible ASCII and blanks, as in a header")
	p.want(header(f.Reason), "reason: want visible ASCII and blanks, as in a header")
	return errors.Join(p...)
}

func (m *RowMatch) validate() error {
	if m == nil {
		return nil
	}
	var p problems
	p.want(m.Equals != nil || m.Regexp != "" || len(m.MessageIDs) > 0, "rows: want equals, regexp or message_ids")
	p.want(m.Equals == nil || m.Column != "", "rows: equals wants a column")
	p.want(m.Column == "" || m.Equals != nil || m.Regexp != "", "rows: column %q wants equals or regexp", m.Column)
	if _, err := regexp.Compile(m.Regexp); err != nil {
		p.add(fmt.Errorf("rows: regexp: %w", err))
	}
	return errors.Join(p...)
}

// Latency is a distribution of waiting times. The zero value is no wait. P50
// alone is a constant wait; both make a log-normal distribution with these two
// quantiles, limited to ten times P95. The service's documentation has named
// 150 to 200 ms at the median and 500 ms at the 95th percentile until a row is
// durable.
//
// Its text, in JSON too, is that of ParseLatency.
type Latency struct {
	P50, P95 time.Duration
}

// ParseLatency reads "20ms" or "p50=150ms,p95=500ms"; "" is no wait.
func ParseLatency(text string) (Latency, error) {
	var l Latency
	if text == "" {
		return l, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, value, named := strings.Cut(strings.TrimSpace(part), "=")
		if !named && !strings.Contains(text, ",") {
			name, value = "p50", name
		}
		dst := map[string]*time.Duration{"p50": &l.P50, "p95": &l.P95}[name]
		d, err := time.ParseDuration(value)
		if err != nil || dst == nil || *dst != 0 {
			return Latency{}, fmt.Errorf("latency %q: write 20ms or p50=150ms,p95=500ms, each once", text)
		}
		*dst = d
	}
	return l, l.validate()
}

func (l Latency) validate() error {
	switch {
	case l.P50 < 0 || l.P95 < 0 || l.P50 > time.Hour || l.P95 > time.Hour:
		return fmt.Errorf("latency %s: want 0 to 1h", l)
	case l.P95 != 0 && (l.P95 < l.P50 || l.P50 == 0):
		return fmt.Errorf("latency %s: p50 must be above 0 and p95 at least as large", l)
	}
	return nil
}

// String is the text that ParseLatency reads.
func (l Latency) String() string {
	if l.P95 == 0 {
		return l.P50.String()
	}
	return "p50=" + l.P50.String() + ",p95=" + l.P95.String()
}

// MarshalText implements encoding.TextMarshaler.
func (l Latency) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Latency) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLatency(string(text))
	return err
}

// z95 is the 95th percentile of the standard normal distribution.
const z95 = 1.6448536269514722

// draw returns one waiting time. normal draws from the standard normal
// distribution.
func (l Latency) draw(normal func() float64) time.Duration {
	if l.P95 == 0 || l.P95 == l.P50 {
		return l.P50
	}
	sigma := math.Log(float64(l.P95)/float64(l.P50)) / z95
	return time.Duration(min(float64(l.P50)*math.Exp(sigma*normal()), 10*float64(l.P95)))
}

func (l Latency) drawAny() time.Duration { return l.draw(rand.NormFloat64) }
