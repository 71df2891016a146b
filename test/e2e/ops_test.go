package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus/emulator"
)

func TestOpsEndpointsTellTheTruth(t *testing.T) {
	eachStage(t, setting{partitions: 2}, func(t *testing.T, s *stage) {
		m := s.beginReady()
		s.p.events(500)
		s.complete(m)
		for _, path := range []string{"/livez", "/readyz", "/metrics", "/status", "/"} {
			if status, body := m.get(path, ""); status != http.StatusOK || body == "" {
				t.Errorf("%s: got %d and %d bytes, want 200 and some", path, status, len(body))
			}
		}
		if status, _ := m.get("/debug/pprof/", ""); status != http.StatusNotFound {
			t.Errorf("/debug/pprof/: got %d, want 404 without ops.pprof", status)
		}
		_, metrics := m.get("/metrics", "")
		wants(t, metrics, `bridge_ready{integration="default"} 1`, `bridge_sink_state{integration="default",state="ready"} 1`, `bridge_commits_total{integration="default",result="ok"}`, "bridge_ack_latency_seconds_bucket", "bridge_token_age_seconds",
			`bridge_rows_delivered_total{integration="default",partition="0",topic="`+s.topic+`"} 250`, `bridge_rows_delivered_total{integration="default",partition="1",topic="`+s.topic+`"} 250`)
		got := m.integration()
		if got.Totals.EventsRead != 500 || got.Totals.RowsDelivered != 500 || len(got.Partitions) != 2 || got.State != ops.StateRunning || got.Group != s.group {
			t.Errorf("/status: got %+v, want 500 events and rows over 2 partitions", got)
		}

		p, code := run(t, s.e, command{args: []string{"status", "--address", m.address}})
		if code != 0 {
			t.Errorf("bridge status: got exit code %d of a ready bridge, want 0", code)
		}
		wants(t, p.stdout.String(), s.group, tableName)
		p, code = run(t, s.e, command{args: []string{"status", "--address", m.address, "--output", "json"}})
		var printed ops.Status
		if err := json.Unmarshal([]byte(p.stdout.String()), &printed); code != 0 || err != nil || !printed.Ready {
			t.Errorf("bridge status --output json: got exit code %d, %v, ready %v, want 0 and ready", code, err, printed.Ready)
		}

		must(t, s.ws.Revoke(emulator.PrivilegeModify, tableName))
		s.p.events(10)
		m.blocked("sink_blocked", patience)
		if status, body := m.get("/livez", ""); status != http.StatusOK {
			t.Errorf("/livez: got %d %s while the sink is blocked, want 200: a restart would not help", status, body)
		}
		_, metrics = m.get("/metrics", "")
		wants(t, metrics, `bridge_ready{integration="default"} 0`, `bridge_sink_state{integration="default",state="blocked"} 1`)
		p, code = run(t, s.e, command{args: []string{"status", "--address", m.address}})
		if code != 1 || !strings.Contains(p.stdout.String(), "GRANT") {
			t.Errorf("bridge status: got exit code %d and %s of a blocked bridge, want 1 and the remedy", code, p.stdout.String())
		}
		m.end()
		if _, code = run(t, s.e, command{args: []string{"status", "--address", m.address}}); code != 1 {
			t.Errorf("bridge status: got exit code %d of no bridge, want 1", code)
		}
	})
}

// With a token the status is for who has it, with the page and without; probes and
// scrapes continue.
func TestStatusAsksForTheToken(t *testing.T) {
	eachStage(t, setting{partitions: 1}, func(t *testing.T, s *stage) {
		const token = "open-sesame-open-sesame"
		file := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
		for _, page := range []string{"metadata", "off"} {
			m := s.beginReady("ops.token_file="+file, "ops.live_events="+page)
			for path, want := range map[string]int{"/livez": http.StatusOK, "/readyz": http.StatusOK, "/metrics": http.StatusOK, "/status": http.StatusUnauthorized} {
				if status, body := m.get(path, ""); status != want {
					t.Errorf("live_events %s, %s: got %d %s, want %d", page, path, status, body, want)
				}
			}
			p, code := run(t, s.e, command{args: []string{"status", "--address", m.address}})
			if code != 1 || !strings.Contains(p.stderr.String(), "ops.token_file=FILE") {
				t.Errorf("bridge status without the token: got exit code %d and %s, want 1 and where to name it", code, p.stderr.String())
			}
			p, code = run(t, s.e, command{args: append(s.args("status", "ops.token_file="+file), "--address", m.address)})
			if code != 0 {
				t.Errorf("bridge status with the token: got exit code %d and %s, want 0", code, p.stderr.String())
			}
			wants(t, p.stdout.String(), s.group, tableName)
			if p, code = run(t, s.e, command{args: []string{"status", "--ready", "--address", m.address}}); code != 0 {
				t.Errorf("bridge status --ready: got exit code %d and %s, want 0", code, p.stderr.String())
			}
			m.end()
			if strings.Contains(m.stderr.String(), token) {
				t.Error("the token is in the log")
			}
		}
	})
}

// A page that has its own name resolve to the loopback reads neither metrics nor
// status.
func TestOpsAnswerToLocalNames(t *testing.T) {
	eachStage(t, setting{partitions: 1}, func(t *testing.T, s *stage) {
		m := s.beginReady()
		for path, want := range map[string]int{"/livez": http.StatusOK, "/readyz": http.StatusOK, "/metrics": http.StatusMisdirectedRequest, "/status": http.StatusMisdirectedRequest} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.address+path, nil)
			must(t, err)
			req.Host = "evil.example:9400"
			resp, err := browser.Do(req)
			must(t, err)
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s of evil.example: got %d, want %d", path, resp.StatusCode, want)
			}
		}
	})
}
