package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// refusals are the faults of configuration that the integration page lists,
// and how an operator fixes them.
var refusals = []struct {
	name    string
	cause   func(*workspace)
	resolve func(*workspace)
	start   []string // what the message at start must say
	late    []string // what /readyz must say in mid-run
}{
	{
		"401 wrong secret",
		func(w *workspace) { w.rotate(); w.RevokeTokens() },
		func(w *workspace) { w.write(w.rotate()) },
		[]string{"401", "generate a new OAuth secret for service principal " + clientID, "zerobus.client_secret"},
		[]string{"401", "generate a new OAuth secret"},
	},
	{
		"403 missing grant",
		func(w *workspace) { must(w.t, w.Revoke(emulator.PrivilegeModify, tableName)) },
		func(w *workspace) { must(w.t, w.Grant(emulator.PrivilegeModify, tableName)) },
		[]string{"403", "GRANT", "MODIFY ON TABLE `datafly`.`events`.`stream`", clientID},
		[]string{"403", "GRANT", "MODIFY"},
	},
	{
		"404 ingest is off",
		func(w *workspace) { w.SetIngestAPI(false) },
		func(w *workspace) { w.SetIngestAPI(true) },
		[]string{"404", "ENDPOINT_NOT_FOUND", "Zerobus Ingest is enabled", "zerobus.transport"},
		[]string{"404", "Zerobus Ingest is enabled"},
	},
	{
		"400 schema mismatch",
		func(w *workspace) {
			must(w.t, w.table().DropColumn("user_agent"))
			must(w.t, w.table().DropColumn("user_id"))
		},
		func(w *workspace) {
			must(w.t, w.table().AddColumn(emulator.Column{Name: "user_id", Type: "STRING"}))
			must(w.t, w.table().AddColumn(emulator.Column{Name: "user_agent", Type: "STRING"}))
		},
		[]string{"user_id", "user_agent", "ALTER TABLE `datafly`.`events`.`stream` ADD COLUMN"},
		[]string{"user_id", "ALTER TABLE"},
	},
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRefusedAtStartEndsWithTheRemedy(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		s.p.events(10)
		for _, r := range refusals {
			r.cause(s.ws)
			s.refusedAtStart(t, r.name, r.start)
			r.resolve(s.ws)
		}
		must(t, s.ws.DropTable(tableName))
		s.refusedAtStart(t, "404 no table", []string{"404", tableName, "bridge ddl"})
	})
}

func (s *stage) refusedAtStart(t *testing.T, name string, want []string) {
	t.Helper()
	began := time.Now()
	m := s.begin()
	if code := m.wait(patience); code != 1 {
		t.Errorf("%s: got exit code %d, want 1", name, code)
	}
	t.Logf("%s: refused in %v", name, time.Since(began).Round(time.Millisecond))
	wants(t, m.stderr.String(), want...)
	if got := committed(t, s.adm, s.group, s.topic); sum(got) != 0 {
		t.Errorf("%s: got offsets %v committed, want none", name, got)
	}
}

// A table that goes away in mid-run is the fifth, resolved by making it again:
// what was in it went with it.
func TestRefusedInMidRunBlocksAndResumes(t *testing.T) {
	t.Parallel()
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			eachStage(t, setting{partitions: 3, workspace: emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}}}, func(t *testing.T, s *stage) {
				m := s.beginReady("delivery.max_rows=50")
				s.p.events(3000)
				s.rows(m, 300)
				r.cause(s.ws)
				reason := m.blocked("sink_blocked", patience)
				wants(t, reason.Text+" "+reason.Remedy, r.late...)
				if status, _ := m.get("/livez", ""); status != http.StatusOK {
					t.Errorf("/livez: got %d while the sink is blocked, want 200", status)
				}
				if got := m.integration(); got.Sink.Name != "blocked" || got.Ready {
					t.Errorf("/status: got sink %q, ready %v, want blocked and not ready", got.Sink.Name, got.Ready)
				}
				delivered := s.ws.table().Count()
				if delivered >= 3000 {
					t.Fatal("everything had delivered before the fault; the test needs more events")
				}
				s.p.events(600)
				// Longer than a commit interval: what could be committed, is.
				lasts(t, 3*time.Second, "nothing is delivered", func() bool { return s.ws.table().Count() == delivered })
				s.nothingPastTheAck()
				before := sum(committed(t, s.adm, s.group, s.topic))
				if before > int64(delivered) {
					t.Errorf("got %d offsets committed, want at most the %d rows", before, delivered)
				}

				r.resolve(s.ws)
				resolved := time.Now()
				duplicates := s.complete(m)
				t.Logf("resumed in %v; %d rows were there when it blocked, %d duplicates", time.Since(resolved).Round(time.Millisecond), delivered, duplicates)
				m.ready()
				if got := length(t, s.adm, s.topic+"-dlq"); got != 0 {
					t.Errorf("got %d dead letters, want none", got)
				}
				for _, message := range []string{"writing to zerobus is blocked", "zerobus accepts rows again"} {
					if got := m.logged(message); got != 1 {
						t.Errorf("got %d lines %q, want 1", got, message)
					}
				}
				m.terminate(s.drain + time.Second + slack)
			})
		})
	}
}

func TestTableDroppedInMidRun(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		m := s.beginReady()
		s.p.events(100)
		s.complete(m)
		must(t, s.ws.DropTable(tableName))
		s.p.events(100)
		wants(t, fmt.Sprint(m.blocked("sink_blocked", patience)), "404", tableName)
		if _, err := s.ws.CreateTable(emulator.DefaultDDL); err != nil {
			t.Fatal(err)
		}
		s.rows(m, 100) // the second hundred
		s.commits()
	})
}
