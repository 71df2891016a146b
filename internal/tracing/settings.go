package tracing

import (
	"fmt"
	"strconv"
	"strings"
)

// Protocols of OTLP, as OTEL_EXPORTER_OTLP_PROTOCOL names them.
const (
	ProtocolGRPC = "grpc"
	ProtocolHTTP = "http/protobuf"
)

// DefaultRatio is the share of the events without a traceparent that are traced
// when OTEL_TRACES_SAMPLER is not set. OpenTelemetry's own default would be all
// of them, which no delivery of this size can want.
const DefaultRatio = 0.01

// Settings are what of the environment is decided here; the rest of the OTEL_*
// variables is read by the SDK and its exporters.
type Settings struct {
	On       bool
	Protocol string
	Sampler  Sampler
	MaxQueue int // spans held at most until they are exported
}

// FromEnvironment reads the standard variables. enabled is what the
// configuration says; OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER overrule it.
// Where traces are off, nothing else is judged.
func FromEnvironment(enabled bool, env func(string) string) (Settings, error) {
	get := func(key string) string { return strings.ToLower(strings.TrimSpace(env(key))) }
	exporter := get("OTEL_TRACES_EXPORTER")
	on := enabled || exporter == "otlp"
	if !on || exporter == "none" || get("OTEL_SDK_DISABLED") == "true" {
		return Settings{}, nil
	}
	if exporter != "" && exporter != "otlp" {
		return Settings{}, fmt.Errorf("OTEL_TRACES_EXPORTER is %q; set it to otlp, or to none for no traces", exporter)
	}
	s := Settings{On: true, Protocol: get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), MaxQueue: 2048}
	if s.Protocol == "" {
		s.Protocol = get("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch s.Protocol {
	case "":
		s.Protocol = ProtocolHTTP
	case ProtocolGRPC, ProtocolHTTP:
	default:
		return Settings{}, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q; set it to %s or %s", s.Protocol, ProtocolGRPC, ProtocolHTTP)
	}
	if text := get("OTEL_BSP_MAX_QUEUE_SIZE"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 128 || n > 1_000_000 {
			return Settings{}, fmt.Errorf("OTEL_BSP_MAX_QUEUE_SIZE is %q; set it to a number of spans from 128 to 1000000", text)
		}
		s.MaxQueue = n
	}
	var err error
	s.Sampler, err = samplerOf(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG"))
	return s, err
}

func samplerOf(name, arg string) (Sampler, error) {
	var s Sampler
	name, s.ByParent = strings.CutPrefix(name, "parentbased_")
	switch name {
	case "":
		if s.ByParent {
			break
		}
		return Sampler{ByParent: true, Ratio: DefaultRatio}, nil
	case "always_on":
		s.Ratio = 1
		return s, nil
	case "always_off":
		return s, nil
	case "traceidratio":
		if s.Ratio = 1; arg == "" {
			return s, nil
		}
		ratio, err := strconv.ParseFloat(arg, 64)
		if err != nil || !(ratio >= 0 && ratio <= 1) { // NaN is neither
			return Sampler{}, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG is %q; set it to a share from 0 to 1, such as 0.01", arg)
		}
		s.Ratio = ratio
		return s, nil
	}
	return Sampler{}, fmt.Errorf("OTEL_TRACES_SAMPLER is %q; set it to always_on, always_off or traceidratio, each also with parentbased_ before it", name)
}
