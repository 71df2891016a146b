package emulator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// validate reports every problem at once.
func (f *Fault) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	where := effects[f.Effect]
	if f.Endpoint != "" {
		errs = append(errs, oneOf("endpoint", f.Endpoint, endpoints))
		if len(where) > 0 && slices.Contains(endpoints, f.Endpoint) && !slices.Contains(where, f.Endpoint) {
			bad("effect %q cannot befall the endpoint %q, only %v", f.Effect, f.Endpoint, where)
		}
		where = []string{f.Endpoint}
	}
	errs = append(errs, oneOf("effect", f.Effect, slices.Sorted(maps.Keys(effects))), f.Latency.validate())
	if f.Effect == EffectStatus {
		errs = append(errs, f.validateStatus(where))
	} else if f.Status != 0 || f.Body != nil || f.ContentType != "" || f.CutAfter != nil || f.NumericCode != 0 || f.RetryAfter != 0 || f.GRPCCode != "" || f.ErrorInfo != nil || f.Reason != "" {
		bad("status, body, content_type, cut_after, numeric_code, retry_after, grpc_code, error_info and reason go with the effect status only, not with %q", f.Effect)
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
	if (f.Rows != nil || f.Effect == EffectRefuse) && !slices.Contains(withRows, f.Endpoint) {
		bad("rows and the effect refuse want an endpoint of %v, not %q", withRows, f.Endpoint)
	}
	if f.Offset != nil && f.Endpoint != EndpointStream {
		bad("offset goes with the endpoint stream only, not with %q", f.Endpoint)
	}
	if f.Endpoint == EndpointToken && f.Table != "" {
		bad("table %q: the token endpoint knows no tables; leave it out", f.Table)
	}
	if f.Rows != nil {
		errs = append(errs, f.Rows.validate())
	}
	return errors.Join(append(errs, f.validateStream())...)
}

// validateStatus checks the effect status for the endpoints it may befall.
func (f *Fault) validateStatus(where []string) error {
	var errs []error
	http := slices.ContainsFunc(where, func(e string) bool { return slices.Contains(overHTTP, e) })
	if _, known := grpcCodes[f.GRPCCode]; f.GRPCCode != "" && !known {
		errs = append(errs, oneOf("grpc_code", f.GRPCCode, slices.Sorted(maps.Keys(grpcCodes))))
	}
	switch {
	case f.Status == 0 && (http || f.GRPCCode == ""):
		errs = append(errs, errNoStatus)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		errs = append(errs, fmt.Errorf("status %d: the effect status wants 200 to 599", f.Status))
	}
	if (f.ContentType != "" || f.CutAfter != nil) && !http {
		errs = append(errs, fmt.Errorf("content_type and cut_after are of HTTP answers; they do not go with the endpoint %q", f.Endpoint))
	}
	if f.CutAfter != nil && *f.CutAfter < 0 {
		errs = append(errs, fmt.Errorf("cut_after %d: want 0 or more bytes", *f.CutAfter))
	}
	if strings.ContainsFunc(f.ContentType, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		errs = append(errs, errors.New("content_type: want visible ASCII and blanks, as in a header"))
	}
	if (f.Reason != "" || f.InTrailer) && f.Endpoint != EndpointCreate {
		errs = append(errs, fmt.Errorf("reason and in_trailer go with the endpoint create only, not with %q", f.Endpoint))
	}
	if strings.ContainsFunc(f.Reason, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		errs = append(errs, errors.New("reason: want visible ASCII and blanks, as in a header"))
	}
	return errors.Join(errs...)
}

// validateStream checks what only some effects on streams know.
func (f *Fault) validateStream() error {
	var errs []error
	if f.Effect != EffectCloseSignal && (f.Window != nil || f.EndAfter != nil) {
		errs = append(errs, fmt.Errorf("window and end_after go with the effect close_signal only, not with %q", f.Effect))
	}
	for _, d := range []*Duration{f.Window, f.EndAfter} {
		if d != nil && (*d < 0 || time.Duration(*d) > 24*time.Hour) {
			errs = append(errs, fmt.Errorf("duration %s: want 0 to 24h", time.Duration(*d)))
		}
	}
	if f.Effect != EffectAck && (f.AckOffset != nil || f.AckBy != nil) {
		errs = append(errs, fmt.Errorf("ack_offset and ack_by go with the effect ack only, not with %q", f.Effect))
	}
	if f.AckOffset != nil && f.AckBy != nil {
		errs = append(errs, errors.New("ack_offset and ack_by: give one of them, or none for an ack without an offset"))
	}
	return errors.Join(errs...)
}
