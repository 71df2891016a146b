package emulator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The endpoints a Fault can name.
const (
	EndpointToken   = "token"   // POST /oidc/v1/token
	EndpointIngest  = "ingest"  // POST /api/2.0/streaming-ingestion/ingest
	EndpointColumns = "columns" // GET /api/2.1/unity-catalog/tables/{name}
)

// The effects a Fault can have.
const (
	EffectStatus   = "status"    // answer with Status; nothing is kept unless Keep
	EffectLatency  = "latency"   // wait for Latency, then serve as usual
	EffectHang     = "hang"      // never answer; ends when the client leaves
	EffectLoseAck  = "lose_ack"  // serve (rows are kept), then cut the connection without an answer
	EffectCut      = "cut"       // cut the connection without serving
	EffectRefuse   = "refuse"    // answer 400 naming the first row that Rows matches, as for a row that does not fit
	EffectSlowBody = "slow_body" // serve, then send the answer's body byte by byte
)

var (
	endpoints = []string{EndpointToken, EndpointIngest, EndpointColumns}
	effects   = []string{EffectStatus, EffectLatency, EffectHang, EffectLoseAck, EffectCut, EffectRefuse, EffectSlowBody}
)

// Fault is something that goes wrong on purpose. The JSON form is that of the
// admin API. Of several faults that fit a request the one added first applies,
// alone.
type Fault struct {
	ID   string `json:"id,omitempty"`   // given by the emulator when empty
	Hits int    `json:"hits,omitempty"` // times it has applied; set by the emulator

	Endpoint    string    `json:"endpoint,omitempty"`    // "" matches all three
	Table       string    `json:"table,omitempty"`       // catalog.schema.table; "" matches all; not for the token endpoint
	Rows        *RowMatch `json:"rows,omitempty"`        // ingest requests with at least one such row; nil matches all
	Count       int       `json:"count,omitempty"`       // applies this many times, then is removed; 0: until removed
	Probability float64   `json:"probability,omitempty"` // share of the fitting requests it applies to; 0 means all
	Seed        uint64    `json:"seed,omitempty"`        // of the dice for Probability and Latency, for runs that repeat

	Effect      string  `json:"effect"`
	Latency     Latency `json:"latency,omitzero"`        // waited before any effect
	Keep        bool    `json:"keep,omitempty"`          // with status and hang: serve the request first, so that its rows are kept
	Status      int     `json:"status,omitempty"`        // 200 to 599
	ErrorCode   string  `json:"error_code,omitempty"`    // "" takes the usual code of the status
	NumericCode int     `json:"numeric_code,omitempty"`  // error_code as a number, as the service's front door writes it
	Message     string  `json:"message,omitempty"`       // "" takes a general one
	Body        *string `json:"body,omitempty"`          // the whole body, word for word; "" is an empty one
	RetryAfter  int     `json:"retry_after,omitempty"`   // seconds, as the header Retry-After; 0: none
	AsDate      bool    `json:"as_date,omitempty"`       // Retry-After as an HTTP date that far ahead
	ByteEveryMS int     `json:"byte_every_ms,omitempty"` // slow_body: milliseconds between bytes; 0 means 100
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

// validate reports every problem at once.
func (f *Fault) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.Endpoint != "" {
		errs = append(errs, oneOf("endpoint", f.Endpoint, endpoints))
	}
	errs = append(errs, oneOf("effect", f.Effect, effects), f.Latency.validate())
	if f.Effect == EffectStatus && (f.Status < 200 || f.Status > 599) {
		bad("status %d: the effect status wants 200 to 599", f.Status)
	}
	if f.Effect != EffectStatus && (f.Status != 0 || f.Body != nil || f.NumericCode != 0 || f.RetryAfter != 0) {
		bad("status, body, numeric_code and retry_after go with the effect status only, not with %q", f.Effect)
	}
	if f.Effect == EffectLatency && f.Latency == (Latency{}) {
		bad("the effect latency wants a latency such as 20ms or p50=150ms,p95=500ms")
	}
	if f.Keep && f.Effect != EffectStatus && f.Effect != EffectHang {
		bad("keep goes with the effects status and hang; lose_ack keeps by itself")
	}
	if f.ByteEveryMS < 0 || f.ByteEveryMS > 60_000 {
		bad("byte_every_ms %d: want 0 to 60000", f.ByteEveryMS)
	}
	if f.Count < 0 {
		bad("count %d: want 0 (until removed) or more", f.Count)
	}
	if !(f.Probability >= 0 && f.Probability <= 1) {
		bad("probability %v: want 0 to 1", f.Probability)
	}
	if f.RetryAfter < 0 || f.RetryAfter > 1<<30 {
		bad("retry_after %d: want seconds, 0 or more", f.RetryAfter)
	}
	if f.Endpoint != EndpointIngest && (f.Rows != nil || f.Effect == EffectRefuse) {
		bad("rows and the effect refuse go with the endpoint ingest only, not with %q", f.Endpoint)
	}
	if f.Endpoint == EndpointToken && f.Table != "" {
		bad("table %q: the token endpoint knows no tables; leave it out", f.Table)
	}
	if f.Rows != nil {
		errs = append(errs, f.Rows.validate())
	}
	return errors.Join(errs...)
}

// answer is what the effect status sends.
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
	return a
}
