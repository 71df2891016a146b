package tracing

import (
	"strings"
	"testing"
)

func TestEnvironment(t *testing.T) {
	const standard = "ParentBased{root:AlwaysOnSampler,"
	for _, tc := range []struct {
		enabled                bool
		env                    string
		protocol, sampler, err string // of what is on; sampler is how its description begins
	}{
		{false, "", "", "", ""},
		{true, "", "http/protobuf", standard, ""},
		{false, "OTEL_TRACES_EXPORTER=otlp", "http/protobuf", standard, ""},
		{true, "OTEL_TRACES_EXPORTER=none", "", "", ""},
		{true, "OTEL_SDK_DISABLED=True", "", "", ""},
		{false, "OTEL_TRACES_EXPORTER=otlp OTEL_SDK_DISABLED=true", "", "", ""},
		{false, "OTEL_TRACES_EXPORTER=zipkin OTEL_TRACES_SAMPLER=x", "", "", ""},
		{true, "OTEL_TRACES_EXPORTER=zipkin", "", "", "set it to otlp"},
		{true, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "grpc", standard, ""},
		{true, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf", "http/protobuf", standard, ""},
		{true, "OTEL_EXPORTER_OTLP_PROTOCOL=http/json", "", "", "set it to grpc or http/protobuf"},
		{true, "OTEL_TRACES_SAMPLER=always_on", "http/protobuf", "AlwaysOnSampler", ""},
		{true, "OTEL_TRACES_SAMPLER=parentbased_always_off", "http/protobuf", "ParentBased{root:AlwaysOffSampler,", ""},
		{true, "OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG=0.25", "http/protobuf", "ParentBased{root:TraceIDRatioBased{0.25},", ""},
		{true, "OTEL_TRACES_SAMPLER=traceidratio", "http/protobuf", "TraceIDRatioBased{1}", ""},
		{true, "OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=1%", "", "", "a ratio from 0 to 1"},
		{true, "OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=NaN", "", "", "a ratio from 0 to 1"},
		{true, "OTEL_TRACES_SAMPLER=parentbased_", "", "", "set it to always_on"},
		{true, "OTEL_TRACES_SAMPLER=jaeger_remote", "", "", "set it to always_on"},
		{true, "OTEL_BSP_MAX_QUEUE_SIZE=4096 OTEL_BSP_SCHEDULE_DELAY=100 OTEL_BSP_EXPORT_TIMEOUT=2000", "http/protobuf", standard, ""},
		{true, "OTEL_BSP_MAX_QUEUE_SIZE=-7", "", "", "from 1"},
		{true, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=x", "", "", "a number of spans"},
		{true, "OTEL_BSP_SCHEDULE_DELAY=5s", "", "", "a number of milliseconds"},
		{true, "OTEL_BSP_EXPORT_TIMEOUT=0", "", "", "from 1 to 3600000"},
	} {
		vars := map[string]string{}
		for _, kv := range strings.Fields(tc.env) {
			k, v, _ := strings.Cut(kv, "=")
			vars[k] = v
		}
		got, err := Settings{tc.enabled, 7}.Options(func(k string) string { return vars[k] })
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%v %s: got error %v, want one with %q", tc.enabled, tc.env, err, tc.err)
			}
			continue
		}
		if err != nil || got.On != (tc.sampler != "") || got.Protocol != tc.protocol {
			t.Errorf("%v %s: got %+v, %v, want protocol %q", tc.enabled, tc.env, got, err, tc.protocol)
			continue
		}
		if got.On && (!strings.HasPrefix(got.Sampler.Description(), tc.sampler) || got.ByParent != strings.HasPrefix(tc.sampler, "Parent") || got.MaxPerSecond != 7) {
			t.Errorf("%v %s: got sampler %s, by parent %v, %d per second", tc.enabled, tc.env, got.Sampler.Description(), got.ByParent, got.MaxPerSecond)
		}
	}
}
