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
	stuck := healthy()
	stuck.Live, stuck.LiveReason, stuck.LastPoll = false, "the poll loop has not turned for 5m0s", now.Add(-5*time.Minute)
	two := blocked()
	two.NotReady = append(two.NotReady, consumer.NotReady{Code: "joining", Text: "no partitions yet"})
	starting := ops.Snapshot{Time: now, State: ops.StateStarting, Live: true}

	for _, c := range []struct {
		name     string
		snapshot ops.Snapshot
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
		{"stuck", stuck, "/livez", "", 503, "not alive: the poll loop has not turned for 5m0s\nlast poll 5m0s ago\n"},
		{
			"stuck, for machines", stuck, "/livez", "application/json", 503,
			`{"live": false, "reason": "the poll loop has not turned for 5m0s", "last_poll": "2026-03-01T11:55:00Z"}`,
		},
		{"ready", healthy(), "/readyz", "text/html, */*;q=0.8", 200, "ready\n"},
		{"ready, for machines", healthy(), "/readyz", "application/json", 200, `{"ready": true, "state": "running", "reasons": []}`},
		{"not ready, no reason given", starting, "/readyz", "", 503, "not ready (starting)\n"},
		{
			"not ready", two, "/readyz", "", 503,
			"not ready (running)\n" +
				"sink_blocked: the table refuses writes (403)\n" +
				"  remedy: grant MODIFY on the table to the service principal\n" +
				"joining: no partitions yet\n",
		},
		{
			"not ready, for machines", blocked(), "/readyz", "text/plain;q=0.5, application/json", 503,
			`{"ready": false, "state": "running", "reasons": [{"code": "sink_blocked",
			  "text": "the table refuses writes (403)", "remedy": "grant MODIFY on the table to the service principal"}]}`,
		},
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

func TestStatusIsTheSnapshot(t *testing.T) {
	all := ops.NewMetrics(process)
	want := blocked()
	m := all.Integration("default", known, fixed(want))
	exercise(m)
	want.Totals = m.Totals()
	want.Config = map[string]any{"kafka": map[string]any{"topics": []any{"events"}}}
	url := start(t, ops.Config{}, all, fixed(want), zap.NewNop())
	got := ask(t, http.MethodGet, url+"/status")
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s, want 200 application/json", got.status, got.header.Get("Content-Type"))
	}
	var back ops.Snapshot
	if err := json.Unmarshal([]byte(got.body), &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, want) {
		t.Errorf("the snapshot changed on its way:\n got %+v\nwant %+v", back, want)
	}
	if want.Totals.RowsDelivered != 290 {
		t.Errorf("rows delivered: got %d, want 290", want.Totals.RowsDelivered)
	}
	// The names below are what scripts read.
	partition := parseJSON(t, got.body).(map[string]any)["partitions"].([]any)[1].(map[string]any)
	for key, want := range map[string]any{
		"topic": "events", "partition": 2.0, "lag": 4000.0, "end_offset": 5000.0, "oldest_unacked_seconds": 1.5, "paused": true,
	} {
		if partition[key] != want {
			t.Errorf("partitions[1].%s: got %v, want %v", key, partition[key], want)
		}
	}
}

func TestStatusOfABridgeThatHasNothingYet(t *testing.T) {
	began := time.Now().Add(-time.Second)
	url := start(t, ops.Config{}, registry(fixed(ops.Snapshot{State: ops.StateStarting})), fixed(ops.Snapshot{State: ops.StateStarting}), zap.NewNop())
	got := parseJSON(t, ask(t, http.MethodGet, url+"/status").body).(map[string]any)
	if p, ok := got["partitions"].([]any); !ok || len(p) != 0 {
		t.Errorf("partitions: got %v, want []", got["partitions"])
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
			s := blocked()
			s.Config = config
			metrics := ops.NewMetrics(process)
			m := metrics.Integration("default", known, fixed(s))
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
