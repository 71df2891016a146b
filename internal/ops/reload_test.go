package ops_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/internal/ops"
)

// Readiness does not depend on the files; metric, status and text do.
func TestReloadIsShown(t *testing.T) {
	began := now.Add(-time.Hour)
	for _, tc := range []struct {
		name    string
		attempt []error // nil is one that succeeded
		status  ops.ReloadStatus
		metrics []string
		text    []string
		silent  bool
	}{
		{"the start", nil, ops.ReloadStatus{State: ops.ReloadOK, At: began, Generation: 1, Hash: "0a1b"},
			[]string{"last_reload_successful 1", "last_reload_success_timestamp_seconds 1.7", "reloads_total{result=\"ok\"} 0", "reloads_total{result=\"error\"} 0"}, nil, true},
		{"another", []error{nil}, ops.ReloadStatus{State: ops.ReloadOK, At: now.Add(-time.Minute), Generation: 2, Hash: "0a1c", PendingRestart: []string{"kafka.topics"}},
			[]string{"last_reload_successful 1", "reloads_total{result=\"ok\"} 1"},
			[]string{"config     reloaded 1m0s ago, generation 2, hash 0a1c", "  after a restart: kafka.topics"}, false},
		{"a refused one", []error{errors.New("bad")}, ops.ReloadStatus{State: ops.ReloadFailed, At: now.Add(-time.Minute), Generation: 1, Hash: "0a1b", Error: "bp.yaml:3:1: unknown key\x1b[2J"},
			[]string{"last_reload_successful 0", "reloads_total{result=\"error\"} 1"},
			[]string{"config     NOT RELOADED, the previous one stays in force; tried 1m0s ago, generation 1, hash 0a1b", "  error: bp.yaml:3:1: unknown key [2J"}, false},
		{"fixed", []error{errors.New("bad"), nil}, ops.ReloadStatus{State: ops.ReloadOK, At: now, Generation: 1, Hash: "0a1b"},
			[]string{"last_reload_successful 1", "reloads_total{result=\"ok\"} 1", "reloads_total{result=\"error\"} 1"}, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := ops.NewMetrics("", fixed(healthy()), true)
			m.ConfigLoaded(began)
			for _, err := range tc.attempt {
				m.ConfigReloaded(now, err)
			}
			s := healthy()
			s.Reload = tc.status
			url := start(t, ops.Config{}, m, fixed(s), zaptest.NewLogger(t))
			if got := ask(t, "GET", url+"/readyz"); got.status != 200 {
				t.Errorf("/readyz: got %d, want 200", got.status)
			}
			var seen ops.Status
			if err := json.Unmarshal([]byte(ask(t, "GET", url+"/status").body), &seen); err != nil {
				t.Fatal(err)
			}
			if got := seen.Reload; got.State != tc.status.State || got.Error != tc.status.Error || got.Generation != tc.status.Generation ||
				got.Hash != tc.status.Hash || !got.At.Equal(tc.status.At) || strings.Join(got.PendingRestart, " ") != strings.Join(tc.status.PendingRestart, " ") {
				t.Errorf("/status: got %+v, want %+v", got, tc.status)
			}
			shown := ask(t, "GET", url+"/metrics").body
			for _, want := range tc.metrics {
				if !strings.Contains(shown, "\nbridge_config_"+want) {
					t.Errorf("/metrics has no line that begins with bridge_config_%s", want)
				}
			}
			var b strings.Builder
			if err := seen.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.text {
				if !strings.Contains(b.String(), want+"\n") {
					t.Errorf("the text has no line %q:\n%s", want, b.String())
				}
			}
			if tc.silent && strings.Contains(b.String(), "\nconfig ") {
				t.Errorf("the text speaks of the configuration, which is that of the start:\n%s", b.String())
			}
		})
	}
}
