package tracing_test

import (
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/tracing"
)

func TestEnvironment(t *testing.T) {
	standard := tracing.Sampler{ByParent: true, Ratio: tracing.DefaultRatio}
	on := func(protocol string, s tracing.Sampler, queue int) tracing.Settings {
		return tracing.Settings{On: true, Protocol: protocol, Sampler: s, MaxQueue: queue, MaxExport: min(512, queue), Delay: 5 * time.Second, Timeout: 30 * time.Second}
	}
	for _, tc := range []struct {
		enabled bool
		env     string
		want    tracing.Settings
		err     string
	}{
		{false, "", tracing.Settings{}, ""},
		{true, "", on("http/protobuf", standard, 2048), ""},
		{false, "OTEL_TRACES_EXPORTER=otlp", on("http/protobuf", standard, 2048), ""},
		{true, "OTEL_TRACES_EXPORTER=none", tracing.Settings{}, ""},
		{true, "OTEL_SDK_DISABLED=True", tracing.Settings{}, ""},
		{false, "OTEL_TRACES_EXPORTER=otlp OTEL_SDK_DISABLED=true", tracing.Settings{}, ""},
		{false, "OTEL_TRACES_EXPORTER=zipkin OTEL_TRACES_SAMPLER=x", tracing.Settings{}, ""},
		{true, "OTEL_TRACES_EXPORTER=zipkin", tracing.Settings{}, "set it to otlp"},
		{true, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", on("grpc", standard, 2048), ""},
		{true, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf", on("http/protobuf", standard, 2048), ""},
		{true, "OTEL_EXPORTER_OTLP_PROTOCOL=http/json", tracing.Settings{}, "set it to grpc or http/protobuf"},
		{true, "OTEL_TRACES_SAMPLER=always_on", on("http/protobuf", tracing.Sampler{Ratio: 1}, 2048), ""},
		{true, "OTEL_TRACES_SAMPLER=parentbased_always_off", on("http/protobuf", tracing.Sampler{ByParent: true}, 2048), ""},
		{true, "OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG=0.25", on("http/protobuf", tracing.Sampler{ByParent: true, Ratio: 0.25}, 2048), ""},
		{true, "OTEL_TRACES_SAMPLER=traceidratio", on("http/protobuf", tracing.Sampler{Ratio: 1}, 2048), ""},
		{true, "OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=1%", tracing.Settings{}, "a share from 0 to 1"},
		{true, "OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=NaN", tracing.Settings{}, "a share from 0 to 1"},
		{true, "OTEL_TRACES_SAMPLER=parentbased_", tracing.Settings{}, "set it to always_on"},
		{true, "OTEL_TRACES_SAMPLER=jaeger_remote", tracing.Settings{}, "set it to always_on"},
		{true, "OTEL_BSP_MAX_QUEUE_SIZE=4096", on("http/protobuf", standard, 4096), ""},
		{true, "OTEL_BSP_MAX_QUEUE_SIZE=7", tracing.Settings{}, "from 128"},
		{true, "OTEL_BSP_MAX_QUEUE_SIZE=200", on("http/protobuf", standard, 200), ""},
		{true, "OTEL_BSP_MAX_QUEUE_SIZE=7 OTEL_BSP_SCHEDULE_DELAY=x", tracing.Settings{}, "OTEL_BSP_MAX_QUEUE_SIZE"},
		{true, "OTEL_BSP_SCHEDULE_DELAY=100 OTEL_BSP_EXPORT_TIMEOUT=2000 OTEL_BSP_MAX_EXPORT_BATCH_SIZE=64", tracing.Settings{
			On: true, Protocol: "http/protobuf", Sampler: standard, MaxQueue: 2048, MaxExport: 64, Delay: 100 * time.Millisecond, Timeout: 2 * time.Second,
		}, ""},
		{true, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=4096", tracing.Settings{}, "from 1 to 2048"},
		{true, "OTEL_BSP_SCHEDULE_DELAY=5s", tracing.Settings{}, "a number of milliseconds"},
		{true, "OTEL_BSP_EXPORT_TIMEOUT=0", tracing.Settings{}, "from 1 to 3600000"},
	} {
		vars := map[string]string{}
		for _, kv := range strings.Fields(tc.env) {
			k, v, _ := strings.Cut(kv, "=")
			vars[k] = v
		}
		got, err := tracing.FromEnvironment(tc.enabled, func(k string) string { return vars[k] })
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%v %s: got error %v, want one with %q", tc.enabled, tc.env, err, tc.err)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%v %s: got %+v, %v, want %+v", tc.enabled, tc.env, got, err, tc.want)
		}
	}
}
