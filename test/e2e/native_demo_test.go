package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

func TestDemoOverEveryTransport(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		transport string
		sets      []string
	}{
		{"workspace", nil},
		{"grpc", nil},
		{"grpc", []string{"--set", "zerobus.record_format=json", "--set", "zerobus.streams=3"}},
		{"rest", []string{"--set", "zerobus.gzip=true"}},
	} {
		t.Run(strings.Join(append([]string{tc.transport}, tc.sets...), " "), func(t *testing.T) {
			t.Parallel()
			args := append([]string{"demo", "--events", "5000", "--output", "json", "--log-level", "info", "--transport", tc.transport}, tc.sets...)
			p, code := run(t, newEvidence(t), command{args: args})
			if code != 0 {
				t.Fatalf("got exit code %d, want 0", code)
			}
			var a demoAnswer
			a.read(t, p.stdout.String())
			a.want(t, 5000)
			if got := strings.Contains(p.stderr.String(), "stream opened"); got != (tc.transport == "grpc") {
				t.Errorf("got a stream opened %v over %s, want streams over grpc alone", got, tc.transport)
			}
		})
	}
	p, code := run(t, newEvidence(t), command{args: []string{"demo", "--transport", "carrier-pigeon"}})
	if code != 2 {
		t.Errorf("got exit code %d of an unknown transport, want 2", code)
	}
	wants(t, p.stderr.String(), "carrier-pigeon", "workspace, grpc or rest")
}

// What ddl --alter prints makes the live table fit, and then prints nothing.
func TestDDLAlterUpdatesTheTable(t *testing.T) {
	eachNative(t, setting{}, func(t *testing.T, s *stage, _ string) {
		table := s.ws.table()
		must(t, table.DropColumn("locale"))
		must(t, table.DropColumn("event_timestamp"))
		must(t, table.AddColumn(emulator.Column{Name: "tenant", Type: "STRING", NotNull: true}))
		file := file(t, "blueprint.yaml", blueprint)
		set := "mapping.blueprint=" + file
		if got := s.check(t, 1, nil, set)["columns"]; got.Status != "failed" {
			t.Errorf("check before: got %+v, want the columns failed", got)
		}
		sql := s.alter(t, set)
		wants(t, sql, "ALTER TABLE `datafly`.`events`.`stream` ADD COLUMNS (", "`locale` STRING", "`event_timestamp` TIMESTAMP", "`revenue` DECIMAL(10,2)", "`source_offset` BIGINT",
			"ALTER COLUMN `tenant` DROP NOT NULL;")
		s.ws.apply(t, sql)
		for name, step := range s.check(t, 0, []string{"--write-probe"}, set) {
			if step.Status != "ok" {
				t.Errorf("check after, %s: got %+v, want ok", name, step)
			}
		}
		if again := s.alter(t, set); again != "" {
			t.Errorf("got %q of a table that fits, want nothing", again)
		}

		s.p.events(50)
		m := s.beginReady(set)
		s.rows(m, 51) // with that of the probe
		row := table.Newest(1)[0]
		id, _ := row.Value("message_id")
		_, offset := parseID(t, id)
		for column, want := range map[string]string{"source_offset": fmt.Sprint(offset), "revenue": "12.5", "event_timestamp": "1772614800000000", "tenant": "", "locale": ""} {
			if got, _ := row.Value(column); got != want {
				t.Errorf("%s: got %q, want %q", column, got, want)
			}
		}
	})
}

// alter runs ddl --alter and returns its SQL.
func (s *stage) alter(t *testing.T, sets ...string) string {
	t.Helper()
	p, code := run(t, s.e, command{args: append(s.args("ddl", sets...), "--alter")})
	if code != 0 {
		t.Fatalf("ddl --alter: got exit code %d, want 0", code)
	}
	return p.stdout.String()
}

var (
	addedColumn   = regexp.MustCompile("`([^`]+)` ([A-Z]+(?:\\([0-9, ]+\\))?)")
	droppedNotNul = regexp.MustCompile("^ALTER TABLE [^ ]+ ALTER COLUMN `([^`]+)` DROP NOT NULL;$")
)

// apply does to the emulated table what the two kinds of statement ask for.
func (w *workspace) apply(t *testing.T, sql string) {
	t.Helper()
	table := w.table()
	for line := range strings.Lines(sql) {
		line = strings.TrimSpace(line)
		if m := droppedNotNul.FindStringSubmatch(line); m != nil {
			must(t, table.DropColumn(m[1]))
			must(t, table.AddColumn(emulator.Column{Name: m[1], Type: "STRING"}))
			continue
		}
		_, columns, ok := strings.Cut(line, " ADD COLUMNS (")
		if !ok {
			t.Fatalf("got the statement %q, want ADD COLUMNS or DROP NOT NULL", line)
		}
		for _, m := range addedColumn.FindAllStringSubmatch(columns, -1) {
			must(t, table.AddColumn(emulator.Column{Name: m[1], Type: m[2]}))
		}
	}
}

// Rows say the same in either form, and the streams are of the form asked for.
func TestNativeRecordFormats(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		format, want string
		hidden       bool // the table's columns may not be read
	}{
		{"auto", "PROTO", false},
		{"protobuf", "PROTO", false},
		{"json", "JSON", false},
		{"auto", "JSON", true},
	} {
		t.Run(fmt.Sprintf("%s, hidden %v", tc.format, tc.hidden), func(t *testing.T) {
			eachStage(t, setting{partitions: 2}, func(t *testing.T, s *stage) {
				s.native("grpc", "record_format: "+tc.format)
				if tc.hidden {
					s.ws.fault(emulator.Fault{Endpoint: emulator.EndpointColumns, Effect: emulator.EffectStatus, Status: http.StatusForbidden})
				}
				s.p.events(200)
				m := s.beginReady()
				if duplicates := s.complete(m); duplicates != 0 {
					t.Errorf("got %d duplicates, want none", duplicates)
				}
				s.inOrder(t)
				for _, info := range s.ws.Streams() {
					if info.Format != tc.want {
						t.Errorf("got a stream of %s, want %s", info.Format, tc.want)
					}
				}
				row := s.ws.table().Newest(1)[0]
				for column, want := range map[string]string{"event_name": "order_completed", "event_timestamp": "1772614800000000", "ip_address": "198.51.100.7", "page_referrer": ""} {
					if got, _ := row.Value(column); got != want {
						t.Errorf("%s: got %q, want %q", column, got, want)
					}
				}
				if got := m.integration().Sink; got.Transport != "grpc" || got.Table != tableName || !s.ws.serves(got.Streams) {
					t.Errorf("got sink %+v, want transport, table and the stream that is open", got)
				}
				m.terminate(s.drain + time.Second + slack)
			})
		})
	}
	t.Run("protobuf, hidden true", func(t *testing.T) {
		eachStage(t, setting{}, func(t *testing.T, s *stage) {
			s.native("grpc", "record_format: protobuf")
			s.ws.fault(emulator.Fault{Endpoint: emulator.EndpointColumns, Effect: emulator.EffectStatus, Status: http.StatusForbidden})
			m := s.begin()
			if code := m.wait(patience); code != 1 {
				t.Errorf("got exit code %d, want 1", code)
			}
			wants(t, m.stderr.String(), "protobuf", "GRANT")
		})
	})
}

// serves reports whether ids are streams of the endpoint, at least one.
func (w *workspace) serves(ids []string) bool {
	known := map[string]bool{}
	for _, info := range w.Streams() {
		known[info.ID] = true
	}
	for _, id := range ids {
		if !known[id] {
			return false
		}
	}
	return len(ids) > 0
}

// The workspace and the endpoint behind an authority that is not the system's.
func TestNativeOverTLS(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"grpc", "rest"} {
		t.Run(transport, func(t *testing.T) {
			eachStage(t, setting{}, func(t *testing.T, s *stage) {
				secure := s.secure(t)
				ca := file(t, "ca.pem", string(secure.CAPEM()))
				s.zerobus("transport: "+transport, "endpoint: "+secure.ZerobusURL(), `workspace_id: "`+emulator.DefaultWorkspaceID+`"`)
				s.p.events(300)

				got := s.check(t, 1, nil)["token"]
				wants(t, got.Error, "certificate", "zerobus.ca_file")
				for name, step := range s.check(t, 0, nil, "zerobus.ca_file="+ca) {
					if step.Status != "ok" {
						t.Errorf("%s: got %+v, want ok", name, step)
					}
				}
				m := s.beginReady("zerobus.ca_file=" + ca)
				table := secure.Table(tableName)
				eventually(t, patience, "300 rows", func() bool { return table.Count() == 300 })
				s.commits()
				for _, row := range table.Newest(1) {
					if row.Transport != transport {
						t.Errorf("got a row by %s, want %s", row.Transport, transport)
					}
				}
				m.terminate(s.drain + time.Second + slack)
			})
		})
	}
}

// secure starts a workspace that serves TLS alone and points the configuration
// to it.
func (s *stage) secure(t *testing.T) *emulator.Emulator {
	t.Helper()
	e, err := emulator.New(emulator.Config{ClientID: clientID, ClientSecret: s.ws.secret, TLS: true})
	must(t, err)
	must(t, e.Start("127.0.0.1:0"))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = e.Close(ctx) // what is cut off is the children's, and they are gone
	})
	must(t, e.StartZerobus("127.0.0.1:0"))
	text, err := os.ReadFile(s.config)
	must(t, err)
	must(t, os.WriteFile(s.config, []byte(strings.Replace(string(text), s.ws.url, e.URL(), 1)), 0o600))
	return e
}
