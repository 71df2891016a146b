package tracing

import (
	"fmt"
	"strconv"
	"strings"
	"time"
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
// variables is read by OpenTelemetry's own packages.
type Settings struct {
	On       bool
	Protocol string
	Sampler  Sampler
	// MaxQueue bounds the spans held until they are exported, MaxExport those
	// of one request, up to MaxQueue.
	MaxQueue, MaxExport int
	Delay               time.Duration // how long spans wait for a request to fill
	Timeout             time.Duration // of one request, its repetitions included
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
	s := Settings{On: true, Protocol: get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")}
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
	if err := s.queueing(get); err != nil {
		return Settings{}, err
	}
	var err error
	s.Sampler, err = samplerOf(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG"))
	return s, err
}

// queueing reads how spans wait. Times are in milliseconds, as the standard has
// them, and its defaults hold.
func (s *Settings) queueing(get func(string) string) (err error) {
	number := func(key, what string, standard, least, most int) int {
		text := get(key)
		if text == "" {
			return standard
		}
		n, bad := strconv.Atoi(text)
		if err == nil && (bad != nil || n < least || n > most) {
			err = fmt.Errorf("%s is %q; set it to a number of %s from %d to %d", key, text, what, least, most)
		}
		return n
	}
	const hour = 3_600_000
	s.MaxQueue = number("OTEL_BSP_MAX_QUEUE_SIZE", "spans", 2048, 128, 1_000_000)
	s.MaxExport = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "spans", min(512, s.MaxQueue), 1, s.MaxQueue)
	s.Delay = time.Duration(number("OTEL_BSP_SCHEDULE_DELAY", "milliseconds", 5000, 1, hour)) * time.Millisecond
	s.Timeout = time.Duration(number("OTEL_BSP_EXPORT_TIMEOUT", "milliseconds", 30_000, 1, hour)) * time.Millisecond
	return err
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
