package tracing

import (
	"fmt"
	"strconv"
	"strings"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// Protocols of OTLP, as OTEL_EXPORTER_OTLP_PROTOCOL names them.
const (
	ProtocolGRPC = "grpc"
	ProtocolHTTP = "http/protobuf"
)

// Settings are whether and how many spans are made. The standard OTEL_* variables set
// where they are sent and which events are sampled.
type Settings struct {
	// Enabled makes spans of sampled events and their batches.
	// OTEL_TRACES_EXPORTER=otlp enables them too, and none or OTEL_SDK_DISABLED=true
	// disables them. Trade-off: some ten microseconds of processor time per traced
	// event, and up to 2,048 spans of memory.
	Enabled bool `yaml:"enabled"`
	// MaxPerSecond bounds the events traced per second by this process. Higher: more
	// processor time. Lower: more of the sampled events are not traced.
	MaxPerSecond int `yaml:"max_per_second" default:"100" min:"1" max:"10000" when:"enabled=true"`
}

// Options are what Settings and the OTEL_* variables specify; OpenTelemetry's SDK and
// exporters read the other variables.
type Options struct {
	On       bool
	Protocol string
	// Sampler selects events before MaxPerSecond bounds them.
	Sampler sdk.Sampler
	// ByParent is whether a valid traceparent decides for its event.
	ByParent bool
	// MaxPerSecond bounds the traced events per second of the process.
	MaxPerSecond int
}

// Options reads the standard variables. OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER
// override Enabled. The other variables are read only when traces are on.
func (s Settings) Options(env func(string) string) (Options, error) {
	get := func(key string) string { return strings.ToLower(strings.TrimSpace(env(key))) }
	exporter := get("OTEL_TRACES_EXPORTER")
	on := s.Enabled || exporter == "otlp"
	if !on || exporter == "none" || get("OTEL_SDK_DISABLED") == "true" {
		return Options{}, nil
	}
	if exporter != "" && exporter != "otlp" {
		return Options{}, fmt.Errorf("OTEL_TRACES_EXPORTER is %q; set it to otlp, or to none for no traces", exporter)
	}
	o := Options{On: true, MaxPerSecond: s.MaxPerSecond, Protocol: get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")}
	if o.Protocol == "" {
		o.Protocol = get("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch o.Protocol {
	case "":
		o.Protocol = ProtocolHTTP
	case ProtocolGRPC, ProtocolHTTP:
	default:
		return Options{}, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q; set it to %s or %s", o.Protocol, ProtocolGRPC, ProtocolHTTP)
	}
	if err := checkQueue(get); err != nil {
		return Options{}, err
	}
	var err error
	o.Sampler, o.ByParent, err = samplerFor(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG"))
	return o, err
}

// checkQueue refuses numbers that the SDK, which reads these variables, would
// ignore or panic over.
func checkQueue(get func(string) string) error {
	for _, v := range []struct {
		key, unit string
		max       int
	}{
		{"OTEL_BSP_MAX_QUEUE_SIZE", "spans", 1_000_000},
		{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "spans", 1_000_000},
		{"OTEL_BSP_SCHEDULE_DELAY", "milliseconds", 3_600_000},
		{"OTEL_BSP_EXPORT_TIMEOUT", "milliseconds", 3_600_000},
	} {
		if text := get(v.key); text != "" {
			if n, err := strconv.Atoi(text); err != nil || n < 1 || n > v.max {
				return fmt.Errorf("%s is %q; set it to a number of %s from 1 to %d", v.key, text, v.unit, v.max)
			}
		}
	}
	return nil
}

// samplerFor returns the sampler of that name: the names and defaults are those
// of https://opentelemetry.io/docs/languages/sdk-configuration/general/. The SDK
// has the same function, but keeps it to itself.
func samplerFor(name, arg string) (sampler sdk.Sampler, byParent bool, err error) {
	if name == "" {
		name = "parentbased_always_on"
	}
	root, byParent := strings.CutPrefix(name, "parentbased_")
	switch root {
	case "always_on":
		sampler = sdk.AlwaysSample()
	case "always_off":
		sampler = sdk.NeverSample()
	case "traceidratio":
		ratio := 1.0
		if arg != "" {
			ratio, err = strconv.ParseFloat(arg, 64)
			if err != nil || !(ratio >= 0 && ratio <= 1) { // NaN is neither
				return nil, false, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG is %q; set it to a ratio from 0 to 1, such as 0.01", arg)
			}
		}
		sampler = sdk.TraceIDRatioBased(ratio)
	default:
		return nil, false, fmt.Errorf("OTEL_TRACES_SAMPLER is %q; set it to always_on, always_off or traceidratio, each also with parentbased_ before it", name)
	}
	if byParent {
		sampler = sdk.ParentBased(sampler)
	}
	return sampler, byParent, nil
}
