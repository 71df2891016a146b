package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// nativeRefusals are the faults of configuration that only waiting does not
// resolve, as the Zerobus endpoint and its tokens know them.
var nativeRefusals = []struct {
	name    string
	cause   func(*workspace)
	resolve func(*workspace)
	sets    []string // set while it lasts
	step    string   // of bridge check that fails
	want    []string // what the error must say
	check   []string // what that of bridge check must say instead: it looks at what is there
}{
	{
		name:    "wrong secret",
		cause:   func(w *workspace) { w.rotate() },
		resolve: func(w *workspace) { w.write(w.rotate()) },
		step:    "token",
		want:    []string{"401", "invalid_client", "generate a new OAuth secret for service principal " + clientID, "zerobus.client_secret"},
	},
	{
		name:    "missing grant",
		cause:   func(w *workspace) { must(w.t, w.Revoke(emulator.PrivilegeModify, tableName)) },
		resolve: func(w *workspace) { must(w.t, w.Grant(emulator.PrivilegeModify, tableName)) },
		step:    "token",
		want: []string{"401", "invalid_authorization_details", "GRANT USE CATALOG ON CATALOG `datafly` TO `" + clientID + "`;",
			"GRANT USE SCHEMA ON SCHEMA `datafly`.`events` TO `" + clientID + "`;", "GRANT SELECT, MODIFY ON TABLE `datafly`.`events`.`stream` TO `" + clientID + "`;"},
		check: []string{"401", "invalid_authorization_details", "; run: GRANT MODIFY ON TABLE `datafly`.`events`.`stream` TO `" + clientID + "`;"},
	},
	{
		name:    "wrong workspace id",
		cause:   func(*workspace) {},
		resolve: func(*workspace) {},
		sets:    []string{"zerobus.workspace_id=4711"},
		step:    "token",
		want:    []string{"400", "invalid_target", "zerobus.workspace_id", "4711"},
	},
	{
		name:    "column missing",
		cause:   func(w *workspace) { must(w.t, w.table().DropColumn("user_id")) },
		resolve: func(w *workspace) { must(w.t, w.table().AddColumn(emulator.Column{Name: "user_id", Type: "STRING"})) },
		step:    "columns",
		want:    []string{"user_id", "ALTER TABLE `datafly`.`events`.`stream` ADD COLUMN"},
	},
	{
		name: "NOT NULL column nobody fills",
		cause: func(w *workspace) {
			must(w.t, w.table().AddColumn(emulator.Column{Name: "tenant", Type: "STRING", NotNull: true}))
		},
		resolve: func(w *workspace) { must(w.t, w.table().DropColumn("tenant")) },
		step:    "columns",
		want:    []string{"tenant", "NOT NULL", "ALTER TABLE `datafly`.`events`.`stream` ALTER COLUMN tenant DROP NOT NULL"},
	},
	{
		name:    "no table",
		cause:   func(w *workspace) { must(w.t, w.DropTable(tableName)) },
		resolve: func(w *workspace) { w.create(emulator.DefaultDDL) },
		step:    "token",
		want:    []string{"401", "invalid_authorization_details", "check that " + tableName + " exists"},
		check:   []string{"401", "invalid_authorization_details", "correct zerobus.table, or create the table"},
	},
}

// create runs a script that makes tables.
func (w *workspace) create(ddl string) {
	w.t.Helper()
	_, err := w.CreateTable(ddl)
	must(w.t, err)
}

func TestNativeRefusedByCheckAndAtStart(t *testing.T) {
	eachNative(t, setting{}, func(t *testing.T, s *stage, _ string) {
		s.p.events(10)
		for name, step := range s.check(t, 0, []string{"--write-probe"}) {
			if step.Status != "ok" {
				t.Errorf("%s: got %+v, want ok", name, step)
			}
		}
		if got := s.ws.table().Count(); got != 1 {
			t.Errorf("got %d rows of --write-probe, want 1", got)
		}
		for _, r := range nativeRefusals {
			r.cause(s.ws)
			got := s.check(t, 1, nil, r.sets...)[r.step]
			if got.Status != "failed" {
				t.Errorf("%s: got %+v of the step %s, want failed", r.name, got, r.step)
			}
			if r.check == nil {
				r.check = r.want
			}
			wants(t, got.Error, r.check...)

			m := s.begin(r.sets...)
			if code := m.wait(patience); code != 1 {
				t.Errorf("%s: got exit code %d, want 1", r.name, code)
			}
			wants(t, m.stderr.String(), r.want...)
			r.resolve(s.ws)
		}
		if got := committed(t, s.adm, s.group, s.topic); sum(got) != 0 {
			t.Errorf("got offsets %v committed, want none", got)
		}
		m := s.beginReady()
		s.rows(m, 10)
		s.commits()
	})
}

// An endpoint that is down fixes itself: bridge run waits for it, bridge check
// reports what to look at.
func TestNativeEndpointDownAtStart(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"grpc", "rest"} {
		t.Run(transport, func(t *testing.T) {
			eachStage(t, setting{}, func(t *testing.T, s *stage) {
				down := kafkatest.FreeAddress(t)
				s.zerobus("transport: "+transport, "endpoint: http://"+down, `workspace_id: "`+emulator.DefaultWorkspaceID+`"`)
				s.p.events(100)
				got := s.check(t, 1, nil)["ingest"]
				if got.Status != "failed" {
					t.Errorf("got %+v, want the step ingest failed", got)
				}
				wants(t, got.Error, down, "check that the bridge reaches")

				m := s.begin()
				reason := m.blocked("sink_unreachable", patience)
				wants(t, reason.Text, down, "check that the bridge reaches")
				if transport == "grpc" {
					wants(t, reason.Text, "zerobus.transport rest")
				}
				must(t, s.ws.StartZerobus(down))
				m.ready()
				if duplicates := s.complete(m); duplicates != 0 {
					t.Errorf("got %d duplicates, want none", duplicates)
				}
				m.terminate(s.drain + time.Second + slack)
			})
		})
	}
}

// Privileges that are taken back, and secrets that die, are met by the next
// stream or the next token.
func TestNativeRefusedInMidRunBlocksAndResumes(t *testing.T) {
	t.Parallel()
	set := setting{partitions: 3, workspace: emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}, StreamMaxAge: time.Second}}
	for _, r := range nativeRefusals[:2] {
		t.Run(r.name, func(t *testing.T) {
			eachNative(t, set, func(t *testing.T, s *stage, _ string) {
				const events = 9000
				m := s.beginReady("delivery.max_rows=50")
				s.p.events(events)
				s.rows(m, 300)
				r.cause(s.ws)
				s.ws.RevokeTokens()
				reason := m.blocked("sink_blocked", patience)
				wants(t, reason.Text+" "+reason.Remedy, r.want...)
				if status, _ := m.get("/livez", ""); status != http.StatusOK {
					t.Errorf("/livez: got %d while the sink is blocked, want 200", status)
				}
				// A stream that is open lives on until its age.
				eventually(t, patience, "the last open stream gone", func() bool { return s.ws.Stats().StreamsOpen == 0 })
				delivered := s.ws.table().Count()
				if delivered >= events {
					t.Fatal("everything had delivered before the fault; the test needs more events")
				}
				lasts(t, 2*time.Second, "nothing is delivered", func() bool { return s.ws.table().Count() == delivered })
				s.nothingPastTheAck()

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

// A table made again under the same name is another table: the bridge continues.
func TestNativeTableDroppedInMidRun(t *testing.T) {
	eachNative(t, setting{workspace: emulator.Config{StreamMaxAge: time.Second}}, func(t *testing.T, s *stage, _ string) {
		m := s.beginReady()
		s.p.events(100)
		s.complete(m)
		must(t, s.ws.DropTable(tableName))
		s.p.events(100)
		reason := m.blocked("sink_blocked", patience)
		if said := reason.Text + reason.Remedy; !strings.Contains(said, tableName) {
			t.Errorf("got %q, want the table's name", said)
		}
		s.ws.create(emulator.DefaultDDL)
		s.rows(m, 100) // the second hundred
		s.commits()
		if got := length(t, s.adm, s.topic+"-dlq"); got != 0 {
			t.Errorf("got %d dead letters, want none", got)
		}
	})
}
