package ops_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
)

func TestProbes(t *testing.T) {
	still := integration()
	still.LiveReason, still.LastPoll = "the poll loop has not turned for 5m0s", now.Add(-5*time.Minute)
	stuck := process(still)
	joining := refused()
	joining.NotReady = append(joining.NotReady, consumer.NotReady{Code: "joining", Text: "no partitions yet"})
	two := process(joining)
	failed := ops.IntegrationStatus{Integration: "clicks", State: ops.StateFailed, Reason: "no such table", NextTry: now.Add(time.Minute)}
	disabled := ops.IntegrationStatus{Integration: "archive", State: ops.StateDisabled}
	starting := process(ops.IntegrationStatus{Integration: "default", State: ops.StateStarting})
	waiting := process(ops.IntegrationStatus{Integration: "default", State: ops.StateStarting, Reason: "it waits for a group"})

	for _, c := range []struct {
		name     string
		snapshot ops.Status
		path     string
		accept   string
		status   int
		body     string
	}{
		{"live", healthy(), "/livez", "*/*", 200, "alive\nlast poll 250ms ago\n"},
		{"live under its other name", healthy(), "/healthz", "", 200, "alive\nlast poll 250ms ago\n"},
		{"live under the third", healthy(), "/health", "", 200, "alive\nlast poll 250ms ago\n"},
		{"live before the first poll", starting, "/livez", "", 200, "alive\n"},
		{"a blocked sink is no reason to restart", blocked(), "/livez", "", 200, "alive\nlast poll 250ms ago\n"},
		{"stuck", stuck, "/livez", "", 503, "not alive: integration default: the poll loop has not turned for 5m0s\nlast poll 5m0s ago\n"},
		{
			"stuck, for machines", stuck, "/livez", "application/json", 503,
			`{"live": false, "reason": "integration default: the poll loop has not turned for 5m0s", "last_poll": "2026-03-01T11:55:00Z"}`,
		},
		{"ready", healthy(), "/readyz", "text/html, */*;q=0.8", 200, "ready\n"},
		{"ready, for machines", healthy(), "/readyz", "application/json", 200, `{"ready": true, "state": "running", "enabled": 1, "reasons": []}`},
		{
			"starting", starting, "/readyz", "", 503,
			"not ready (starting)\nstarting: the integration is starting\n  remedy: wait; this state ends automatically\n",
		},
		{
			"starting, with a reason", waiting, "/readyz", "", 503,
			"not ready (starting)\nstarting: the integration is starting; it waits for a group\n  remedy: wait; this state ends automatically\n",
		},
		{
			"not ready", two, "/readyz", "", 503,
			"not ready (running)\n" +
				"sink_blocked: the table refuses writes (403)\n" +
				"  remedy: grant MODIFY on the table to the service principal\n" +
				"joining: no partitions yet\n",
		},
		{
			"not ready, for machines", blocked(), "/readyz", "text/plain;q=0.5, application/json", 503,
			`{"ready": false, "state": "running", "enabled": 1, "reasons": [{"code": "sink_blocked", "integration": "default",
			  "text": "the table refuses writes (403)", "remedy": "grant MODIFY on the table to the service principal"}]}`,
		},
		{
			"one of two delivers", process(refused(), named("orders", integration())), "/readyz", "", 200,
			"ready\ndefault: sink_blocked: the table refuses writes (403)\n  remedy: grant MODIFY on the table to the service principal\n",
		},
		{
			"one of two delivers, for machines", process(integration(), named("orders", refused())), "/readyz", "application/json", 200,
			`{"ready": true, "state": "running", "enabled": 2, "reasons": [{"code": "sink_blocked", "integration": "orders",
			  "text": "the table refuses writes (403)", "remedy": "grant MODIFY on the table to the service principal"}]}`,
		},
		{
			"neither delivers", process(named("orders", refused()), failed, disabled), "/readyz", "", 503,
			"not ready (running)\norders: sink_blocked: the table refuses writes (403)\n  remedy: grant MODIFY on the table to the service principal\n" +
				"clicks: integration_failed: no such table\n  remedy: fix this; the integration starts again automatically, or at once when its configuration changes\n",
		},
		{"a disabled one is no reason", process(integration(), disabled), "/readyz", "", 200, "ready\n"},
		{
			"nothing to deliver", process(disabled), "/readyz", "", 200,
			"ready\nno_integration: no integration is enabled, so nothing is delivered\n" +
				"  remedy: install one with bridge integrations install, the API or the console, or add one to integrations_dir\n",
		},
		{
			"a reason of the process", ops.NewStatus(ops.Status{Time: now, NotReady: []consumer.NotReady{{Code: "too_few_descriptors", Text: "250 of 256 are in use"}}},
				[]ops.IntegrationStatus{integration()}), "/readyz", "", 503, "not ready (running)\ntoo_few_descriptors: 250 of 256 are in use\n",
		},
		{"one of two is stuck", process(named("orders", integration()), still), "/livez", "", 503, "not alive: integration default: the poll loop has not turned for 5m0s\nlast poll 5m0s ago\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := start(t, ops.Config{}, registry(fixed(c.snapshot)), fixed(c.snapshot), zap.NewNop())
			got := ask(t, http.MethodGet, url+c.path, "Accept", c.accept)
			if got.status != c.status {
				t.Errorf("status: got %d, want %d", got.status, c.status)
			}
			contentType := "text/plain; charset=utf-8"
			equal := got.body == c.body
			if strings.HasPrefix(c.body, "{") {
				contentType = "application/json"
				equal = reflect.DeepEqual(parseJSON(t, got.body), parseJSON(t, c.body))
			}
			if !equal {
				t.Errorf("body:\n got %s\nwant %s", got.body, c.body)
			}
			if h := got.header.Get("Content-Type"); h != contentType {
				t.Errorf("content type: got %q, want %q", h, contentType)
			}
		})
	}
}

func parseJSON(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not JSON: %v: %s", err, text)
	}
	return v
}

func TestStatusIsWhatTheSourceReturns(t *testing.T) {
	all := ops.NewMetrics("v0.1.0", nil, true)
	m := all.Integration("default", known)
	exercise(m)
	i := refused()
	i.Totals = m.Totals()
	i.Config = map[string]any{"kafka": map[string]any{"topics": []any{"events"}}}
	want := process(i, named("orders", integration()))
	url := start(t, ops.Config{}, all, fixed(want), zap.NewNop())
	got := ask(t, http.MethodGet, url+"/status")
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s, want 200 application/json", got.status, got.header.Get("Content-Type"))
	}
	var back ops.Status
	if err := json.Unmarshal([]byte(got.body), &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, want) {
		t.Errorf("the status changed on its way:\n got %+v\nwant %+v", back, want)
	}
	if want.Totals.RowsDelivered != 290 {
		t.Errorf("rows delivered: got %d, want 290", want.Totals.RowsDelivered)
	}
	// The names below are what scripts read.
	integrations := parseJSON(t, got.body).(map[string]any)["integrations"].([]any)
	if got := integrations[1].(map[string]any)["integration"]; got != "orders" {
		t.Errorf("integrations[1].integration: got %v, want orders", got)
	}
	first := integrations[0].(map[string]any)
	if l := first["ledger"].(map[string]any); l["released"] != 400.0 || l["unaccounted"] != 0.0 {
		t.Errorf("integrations[0].ledger: got %v, want 400 released and 0 unaccounted", l)
	}
	partition := first["partitions"].([]any)[1].(map[string]any)
	for key, want := range map[string]any{
		"topic": "events", "partition": 2.0, "lag": 4000.0, "end_offset": 5000.0, "oldest_unacked_seconds": 1.5, "paused": true,
	} {
		if partition[key] != want {
			t.Errorf("integrations[0].partitions[1].%s: got %v, want %v", key, partition[key], want)
		}
	}
}

func TestStatusOfABridgeThatHasNothingYet(t *testing.T) {
	began := time.Now().Add(-time.Second)
	nothing := func() ops.Status { return ops.NewStatus(ops.Status{}, nil) }
	url := start(t, ops.Config{}, registry(nothing), nothing, zap.NewNop())
	got := parseJSON(t, ask(t, http.MethodGet, url+"/status").body).(map[string]any)
	if p, ok := got["integrations"].([]any); !ok || len(p) != 0 {
		t.Errorf("integrations: got %v, want []", got["integrations"])
	}
	one := ops.NewStatus(ops.Status{}, []ops.IntegrationStatus{{State: ops.StateStarting}})
	if p := one.Integrations[0].Partitions; p == nil || len(p) != 0 {
		t.Errorf("partitions: got %v, want []", p)
	}
	if _, ok := got["started"]; ok {
		t.Errorf("started: got %v, want it left out", got["started"])
	}
	at, err := time.Parse(time.RFC3339Nano, got["time"].(string))
	if err != nil || at.Before(began) {
		t.Errorf("time: got %v, want the time of the request", got["time"])
	}
}

// hidden stands for the configuration's secret type.
type hidden string

func (hidden) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }
func (hidden) String() string               { return "[redacted]" }

// leaky is a configuration whose JSON fails with a message that quotes it.
type leaky struct{ secret string }

func (l leaky) MarshalJSON() ([]byte, error) { return nil, errors.New("cannot write " + l.secret) }

func TestNoSecretComesOut(t *testing.T) {
	const secret = "dose-4f1c9a77e2"
	for name, config := range map[string]any{
		"redacted": map[string]any{"zerobus": map[string]any{"client_secret": hidden(secret)}},
		"broken":   leaky{secret},
	} {
		t.Run(name, func(t *testing.T) {
			var logged bytes.Buffer
			log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&logged), zap.DebugLevel))
			i := refused()
			i.Config = config
			s := process(i)
			metrics := ops.NewMetrics("v0.1.0", fixed(s), true)
			m := metrics.Integration("default", known)
			url := start(t, ops.Config{Settings: ops.Settings{Pprof: true}}, metrics, fixed(s), log)
			m.TokenMinted(errors.New("invalid_client: " + secret))
			m.Committed(errors.New("sasl: " + secret))

			all := map[string]string{}
			for _, path := range []string{"/", "/metrics", "/livez", "/readyz", "/status", "/debug/pprof/", "/debug/pprof/goroutine?debug=2"} {
				all[path] = ask(t, http.MethodGet, url+path).body
				all[path+" as JSON"] = ask(t, http.MethodGet, url+path, "Accept", "application/json").body
			}
			var text bytes.Buffer
			if err := s.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			all["WriteText"], all["the log"] = text.String(), logged.String()
			for where, body := range all {
				if strings.Contains(body, secret) {
					t.Errorf("%s holds the secret:\n%s", where, body)
				}
			}
			wantStatus := "[redacted]"
			if name == "broken" {
				wantStatus = "could not be encoded as JSON"
			}
			if !strings.Contains(all["/status"], wantStatus) {
				t.Errorf("/status: got %s, want it to hold %q", all["/status"], wantStatus)
			}
		})
	}
}
