package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// liars are answers to rows that are not the service's confirmation, nor its
// refusal: none may commit an offset or give an event up.
var liars = []struct {
	name   string
	status int
	body   string
	state  string // of the sink
	want   []string
}{
	{"error-in-200", http.StatusOK, `{"error_code":"PERMISSION_DENIED","message":"no"}`, "blocked", []string{"HTTP 200 PERMISSION_DENIED", "GRANT", "MODIFY"}},
	{"empty 200", http.StatusOK, "", "retrying", []string{"HTTP 200", "captive portal"}},
	{"accepted", http.StatusAccepted, `{"records_ingested":500}`, "retrying", []string{"HTTP 202", "captive portal"}},
	{"a proxy's 400", http.StatusBadRequest, "<html>400 Bad Request</html>", "retrying", []string{"HTTP 400", "answered 400 with", "captive portal"}},
	{"a proxy's 413", http.StatusRequestEntityTooLarge, "<html>413</html>", "retrying", []string{"HTTP 413", "client_max_body_size"}},
}

func TestAnAnswerThatIsNotTheServicesCommitsNothing(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"workspace", "rest"} {
		for _, tt := range liars {
			t.Run(transport+"/"+tt.name, func(t *testing.T) {
				eachStage(t, setting{}, func(t *testing.T, s *stage) {
					endpoint := emulator.EndpointIngest
					if transport == "rest" {
						s.native("rest")
						endpoint = emulator.EndpointInsert
					}
					m := s.beginReady()
					s.p.events(100)
					s.complete(m)
					resolve := s.ws.fault(emulator.Fault{Endpoint: endpoint, Effect: emulator.EffectStatus, Status: tt.status, Body: &tt.body})
					s.p.events(200)
					if tt.state == "blocked" {
						reason := m.blocked("sink_blocked", patience)
						wants(t, reason.Text+" "+reason.Remedy, tt.want...)
					} else {
						eventually(t, patience, "the sink is retried", func() bool { return m.integration().Sink.Name == tt.state })
						sink := m.integration().Sink
						wants(t, sink.Reason+" "+sink.Remedy, tt.want...)
					}
					// Longer than a commit interval: what could be committed, is.
					lasts(t, 3*time.Second, "nothing is committed", func() bool { return sum(committed(t, s.adm, s.group, s.topic)) <= 100 })
					if got := s.ws.table().Count(); got != 100 {
						t.Errorf("got %d rows, want the 100 from before", got)
					}
					resolve()
					s.complete(m)
					if got := length(t, s.adm, s.topic+"-dlq"); got != 0 {
						t.Errorf("got %d dead letters, want none", got)
					}
				})
			})
		}
	}
}

// A workspace that confirms without a count is distinguished from one that counts, and
// the check names the setting that it needs.
func TestCheckNamesTheFormOfConfirmation(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		s.p.events(1)
		uncounted := "{}"
		s.ws.fault(emulator.Fault{Endpoint: emulator.EndpointIngest, Effect: emulator.EffectStatus, Status: http.StatusOK, Body: &uncounted, Keep: true})
		if got := s.check(t, 1, []string{"--write-probe"})["ingest"]; got.Status != "failed" {
			t.Errorf("strict: got %+v, want failed", got)
		} else {
			wants(t, got.Error, "records_ingested", "zerobus.confirm to lenient")
		}
		if got := s.ws.table().Count(); got != 0 {
			t.Errorf("strict: got %d rows, want none: the empty batch has shown the form", got)
		}
		got := s.check(t, 0, []string{"--write-probe"}, "zerobus.confirm=lenient")["write probe"]
		wants(t, got.Detail, "without a count of rows", "zerobus.confirm: lenient")
		if got := s.ws.table().Count(); got != 1 {
			t.Errorf("lenient: got %d rows, want 1", got)
		}
	})
}
