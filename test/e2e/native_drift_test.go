package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// drifting are the forms of rows that follow a table's columns.
var drifting = []struct {
	name      string
	transport string
	settings  []string
}{
	{"protobuf", "grpc", []string{"record_format: protobuf"}},
	{"json", "grpc", []string{"record_format: json"}},
	{"rest", "rest", nil},
}

// eachColumnChange runs body with every form of rows, and the table's columns read
// each second.
func eachColumnChange(t *testing.T, body func(t *testing.T, s *stage)) {
	t.Helper()
	t.Parallel()
	for _, d := range drifting {
		t.Run(d.name, func(t *testing.T) {
			set := setting{partitions: 3, workspace: emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}}}
			eachStage(t, set, func(t *testing.T, s *stage) {
				s.native(d.transport, append(d.settings, "columns_refresh: 1s")...)
				body(t, s)
			})
		})
	}
}

// titled counts the rows with a page_title, and wants each to be its event's.
func (s *stage) titled(t *testing.T) (n int) {
	t.Helper()
	for _, row := range s.ws.table().Rows(nil) {
		id, _ := row.Value("message_id")
		title, ok := row.Value("page_title")
		if ok && title != "Title of "+id {
			t.Fatalf("row %s: got page_title %q, want its own", id, title)
		}
		if url, _ := row.Value("page_url"); url != "https://shop.example/" {
			t.Fatalf("row %s: got page_url %q, want its own: columns are mixed up", id, url)
		}
		if ok {
			n++
		}
	}
	return n
}

// undisturbed wants what a drift must not cost.
func (s *stage) undisturbed(t *testing.T, m *member) {
	t.Helper()
	if got := length(t, s.adm, s.topic+"-dlq"); got != 0 {
		t.Errorf("got %d dead letters, want none", got)
	}
	if got := m.snapshot().Totals.EventsRejected; got != 0 {
		t.Errorf("got %d events rejected, want none", got)
	}
}

// An optional column is filled from when the table has it until it does not.
func TestNativeOptionalColumnComesAndGoes(t *testing.T) {
	eachColumnChange(t, func(t *testing.T, s *stage) {
		table := s.ws.table()
		m := s.beginReady("delivery.max_rows=50")
		s.p.pages(300)
		s.complete(m)
		if got := s.titled(t); got != 0 {
			t.Fatalf("got %d rows with a page_title, want none: the table has no such column", got)
		}

		must(t, table.AddColumn(emulator.Column{Name: "page_title", Type: "STRING"}))
		added := time.Now()
		eventually(t, patience, "page_title filled", func() bool {
			s.p.pages(3)
			s.rows(m, s.p.total())
			return s.titled(t) > 0
		})
		t.Logf("filled %v after the column was added", time.Since(added).Round(time.Millisecond))
		before, missing := s.titled(t), s.p.total()
		s.p.pages(3000)
		duplicates := s.complete(m)
		if got := s.titled(t); got != before+s.p.total()-missing || duplicates != 0 {
			t.Errorf("got %d rows with a page_title and %d duplicates, want %d and none", got, duplicates, before+s.p.total()-missing)
		}

		s.p.pages(6000)
		s.rows(m, s.p.total()-5000)
		must(t, table.DropColumn("page_title"))
		dropped, delivered := time.Now(), table.Count()
		duplicates = s.complete(m)
		t.Logf("6,000 events were through %v after the column was dropped under load, with %d duplicates", time.Since(dropped).Round(time.Millisecond), duplicates)
		if delivered >= s.p.total() {
			t.Error("everything had delivered before the column was dropped; the test needs more events")
		}
		last := table.Newest(1)[0]
		if title, ok := last.Value("page_title"); ok {
			t.Errorf("got page_title %q in the last row, want none", title)
		}
		s.undisturbed(t, m)
		m.ready()
		m.terminate(s.drain + time.Second + slack)
		s.inOrderBut(t, duplicates)
	})
}

// inOrderBut holds first arrivals to the order of their offsets; duplicates
// rows may have come again.
func (s *stage) inOrderBut(t *testing.T, duplicates int) {
	t.Helper()
	last := make([]int64, len(s.p.next))
	seen := map[string]bool{}
	for i := range last {
		last[i] = -1
	}
	for _, row := range s.ws.table().Rows(nil) {
		id, _ := row.Value("message_id")
		if seen[id] {
			duplicates--
			continue
		}
		seen[id] = true
		partition, offset := parseID(t, id)
		if offset <= last[partition] {
			t.Fatalf("partition %d: row %d came after row %d", partition, offset, last[partition])
		}
		last[partition] = offset
	}
	if duplicates != 0 {
		t.Errorf("got %d duplicates more or fewer by the rows than by the counts", duplicates)
	}
}

// What the blueprint cannot go without blocks, and continues when it is resolved.
func TestColumnChangeThatDoesNotFitBlocks(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		cause   func(*emulator.Table) error
		resolve func(*emulator.Table) error
		want    []string
	}{
		{
			"mapped column dropped",
			func(table *emulator.Table) error { return table.DropColumn("locale") },
			func(table *emulator.Table) error {
				return table.AddColumn(emulator.Column{Name: "locale", Type: "STRING"})
			},
			[]string{"locale", "run: ALTER TABLE `datafly`.`events`.`stream` ADD COLUMN"},
		},
		{
			"NOT NULL column added",
			func(table *emulator.Table) error {
				return table.AddColumn(emulator.Column{Name: "tenant", Type: "STRING", NotNull: true})
			},
			func(table *emulator.Table) error { return table.DropColumn("tenant") },
			[]string{"tenant", "NOT NULL", "ALTER TABLE `datafly`.`events`.`stream` ALTER COLUMN `tenant` DROP NOT NULL"},
		},
		{
			"type changed",
			func(table *emulator.Table) error {
				if err := table.DropColumn("locale"); err != nil {
					return err
				}
				return table.AddColumn(emulator.Column{Name: "locale", Type: "BIGINT"})
			},
			func(table *emulator.Table) error {
				if err := table.DropColumn("locale"); err != nil {
					return err
				}
				return table.AddColumn(emulator.Column{Name: "locale", Type: "STRING"})
			},
			[]string{"locale", "BIGINT"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachColumnChange(t, func(t *testing.T, s *stage) {
				table := s.ws.table()
				m := s.beginReady("delivery.max_rows=50")
				s.p.pages(6000)
				s.rows(m, 300)
				must(t, tc.cause(table))
				reason := m.blocked("sink_blocked", patience)
				wants(t, reason.Text+"; "+reason.Remedy, tc.want...)
				delivered := table.Count()
				if delivered >= 6000 {
					t.Fatal("everything had delivered before the fault; the test needs more events")
				}
				lasts(t, 2*time.Second, "nothing is delivered", func() bool { return table.Count() == delivered })
				s.nothingPastTheAck()
				s.undisturbed(t, m)

				must(t, tc.resolve(table))
				resolved := time.Now()
				duplicates := s.complete(m)
				t.Logf("resumed and through %v after it was resolved; %d rows were there when it blocked, %d duplicates", time.Since(resolved).Round(time.Millisecond), delivered, duplicates)
				m.ready()
				s.undisturbed(t, m)
				for _, row := range table.Rows(nil) {
					if locale, _ := row.Value("locale"); locale != "en-GB" {
						t.Fatalf("got locale %q in row %s, want en-GB", locale, fmt.Sprint(row.Seq))
					}
				}
				if got := m.logged("writing to zerobus is blocked"); got != 1 {
					t.Errorf("got %d lines about being blocked, want 1", got)
				}
				m.terminate(s.drain + time.Second + slack)
				s.inOrderBut(t, duplicates)
			})
		})
	}
}
