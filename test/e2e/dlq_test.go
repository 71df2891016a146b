package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/zerobus/emulator"
)

// A blueprint that takes a column from the wrong field, and as it was meant.
const (
	wrongRevenue = "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: properties.note, target: revenue, type: \"DECIMAL(12,2)\"}\n"
	rightRevenue = "version: 2\nextends: default\nfilter: (properties.filler ?? false) != true\nglobal:\n  mappings:\n    - {source: properties.revenue, target: revenue, type: \"DECIMAL(12,2)\"}\n"
)

// revenueTable makes a table with the column.
func revenueTable(name string) string {
	ddl := strings.Replace(emulator.DefaultDDL, tableName, name, 1)
	return strings.Replace(ddl, "event_name STRING,", "revenue DECIMAL(12,2),\n  event_name STRING,", 1)
}

// fillers go behind each order that is to be dead-lettered: more than half of
// the events are fine, or the orders would be a fault of the mapping, which
// blocks. The right blueprint leaves them out.
const fillers = 2

// orders appends n events that the wrong blueprint rejects, each third without
// a message_id, and some that stay poison under the right one; without fillers.
func (s *stage) orders(n, poison int) { s.ordersAmong(0, n, poison) }

func (s *stage) ordersAmong(fillers, n, poison int) {
	s.t.Helper()
	var records []*kgo.Record
	partitions, before := len(s.p.next), s.p.total()
	began := time.Now().Add(-time.Hour) // old enough to differ, too young for the topic's retention
	for i := range n + poison {
		id, revenue := fmt.Sprintf(`"message_id":"order-%d",`, before+i), fmt.Sprintf("%d.25", i)
		if i%3 == 0 {
			id = ""
		}
		if every := (n + poison) / max(poison, 1); poison > 0 && i%every == every/2 && i/every < poison {
			revenue = `"n/a"`
		}
		records = append(records, &kgo.Record{Partition: int32(i % partitions), Timestamp: began.Add(time.Duration(i) * time.Millisecond), Key: fmt.Appendf(nil, "k%d", i),
			Headers: []kgo.RecordHeader{{Key: "origin", Value: []byte("shop")}},
			Value:   fmt.Appendf(nil, `{"type":"track","event":"Order Completed",%s"user_id":"u-%d","timestamp":"2026-03-04T09:00:00Z","properties":{"revenue":%s,"note":"gift wrap"}}`, id, i, revenue)})
		s.p.next[i%partitions]++
		for range fillers {
			records = append(records, &kgo.Record{Partition: int32(i % partitions), Value: []byte(`{"type":"track","event":"Filler","properties":{"filler":true}}`)})
		}
	}
	for _, r := range records {
		r.Topic = s.topic
	}
	ctx, cancel := within()
	defer cancel()
	must(s.t, s.p.cl.ProduceSync(ctx, records...).FirstErr())
}

// deadLettered has the live bridge reject all orders by the wrong blueprint. The
// fillers go to another table.
func (s *stage) deadLettered(n int) {
	s.t.Helper()
	s.ws.create(revenueTable("datafly.events.fillers"))
	m := s.beginReady("mapping.blueprint="+file(s.t, "wrong.yaml", wrongRevenue), "zerobus.table=fillers")
	eventually(s.t, patience, fmt.Sprintf("%d dead letters, committed", n), func() bool {
		m.alive()
		return length(s.t, s.adm, s.topic+"-dlq") == int64(n) && sum(committed(s.t, s.adm, s.group, s.topic)) == int64((1+fillers)*n)
	})
	m.terminate(s.drain + time.Second + slack)
}

// dlq runs `bridge dlq` and wants an exit code; into, if not nil, is filled
// from its JSON.
func (s *stage) dlq(want int, into any, sub string, args ...string) (stdout string) {
	s.t.Helper()
	all := append([]string{"dlq", sub, "--config", s.config}, args...)
	if into != nil {
		all = append(all, "--output", "json")
	}
	p, code := run(s.t, s.e, command{args: all})
	if code != want {
		s.t.Fatalf("bridge %s: got exit code %d, want %d; stdout:\n%s\nstderr:\n%s", strings.Join(all, " "), code, want, p.stdout.String(), tail(p.stderr.String()))
	}
	if into != nil {
		if err := json.Unmarshal([]byte(p.stdout.String()), into); err != nil {
			s.t.Fatalf("bridge %s: %v in %s", strings.Join(all, " "), err, p.stdout.String())
		}
	}
	return p.stdout.String()
}

// listing and redriven are the JSON answers of the commands.
type listing struct {
	Matched, Resolved int
	Groups            []struct {
		Code, Column string
		Count        int `json:"dead_letters"`
	}
	DeadLetters []struct {
		Name                 string `json:"dead_letter"`
		Source, Code, Reason string
		Resolved             bool
	} `json:"dead_letters"`
}

type redriven struct {
	Matched, Delivered, Rows, Rejected, Failed, Elsewhere, Resolved int

	Groups []struct{ Outcome, Code, Column, Reason string } `json:"not_delivered"`
	Error  string
}

// wants compares the counts of a redrive.
func (r redriven) wants(t *testing.T, what string, matched, delivered, rejected, resolved int) {
	t.Helper()
	if r.Matched != matched || r.Delivered != delivered || r.Rows != delivered || r.Rejected != rejected || r.Resolved != resolved || r.Failed != 0 {
		t.Errorf("%s: got %+v, want %d matched, %d delivered, %d rejected, %d resolved before", what, r, matched, delivered, rejected, resolved)
	}
}

// byID are the rows of a table by message_id, without the order of their keys.
func (s *stage) byID(t *testing.T, table string) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for _, row := range s.ws.Table(table).Rows(nil) {
		var columns map[string]any
		must(t, json.Unmarshal(row.JSON, &columns))
		text, err := json.Marshal(columns)
		must(t, err)
		id, ok := row.Value("message_id")
		if !ok || rows[id] != "" {
			t.Errorf("%s: message id %q is missing or there twice", table, id)
		}
		rows[id] = string(text)
	}
	return rows
}

// With the blueprint fixed, a redrive delivers a thousand dead letters as the rows
// they would have been. Poison stays. A live bridge runs beside.
func TestRedriveOf1000DeadLetters(t *testing.T) {
	const good, poison = 1000, 5
	eachStage(t, setting{partitions: 3, workspace: emulator.Config{DDL: revenueTable(tableName)}}, func(t *testing.T, s *stage) {
		s.ordersAmong(fillers, good, poison)
		s.deadLettered(good + poison)
		right := "mapping.blueprint=" + file(t, "right.yaml", rightRevenue)
		live := s.beginReady(right)

		wants(t, s.dlq(0, nil, "list", "--limit", "3"), "1005 dead letters in "+s.topic+"-dlq", "revenue", s.topic+"/", "... 1002 more")
		var list listing
		s.dlq(0, &list, "list")
		if list.Matched != good+poison || len(list.DeadLetters) != 100 || len(list.Groups) != 1 || list.Groups[0].Column != "revenue" || list.Groups[0].Count != good+poison {
			t.Errorf("list: got %d matched, %d dead letters, groups %+v", list.Matched, len(list.DeadLetters), list.Groups)
		}
		wants(t, s.dlq(0, nil, "show", list.DeadLetters[0].Name, "--set", right), `"note": "gift wrap"`, `origin = "shop"`, "event 0: row", "revenue", "from properties.revenue")

		var r redriven
		wants(t, s.dlq(1, nil, "redrive", "--set", right), "1000 would be delivered, 1000 rows", "5 still rejected", "revenue", "Nothing was changed")
		s.dlq(1, &r, "redrive", "--set", right)
		r.wants(t, "dry run", good+poison, good, poison, 0)
		if s.ws.table().Count() != 0 || length(t, s.adm, s.topic+"-dlq") != good+poison {
			t.Errorf("dry run: got %d rows and %d dead letters, want nothing changed", s.ws.table().Count(), length(t, s.adm, s.topic+"-dlq"))
		}

		// Dead events of another group, which may have another table, are left out.
		var other redriven
		s.dlq(0, &other, "redrive", "--set", right, "--group", "another", "--execute")
		if other.Matched != 0 || other.Elsewhere != good+poison {
			t.Errorf("redrive for another group: got %+v, want all dead letters left out", other)
		}

		s.orders(50, 0) // for the live one
		s.dlq(1, &r, "redrive", "--set", right, "--execute", "--reason", "revenue came from the note")
		r.wants(t, "redrive", good+poison, good, poison, 0)
		if len(r.Groups) != 1 || r.Groups[0].Column != "revenue" || r.Groups[0].Outcome != "rejected" {
			t.Errorf("redrive: got %+v, want the poison in it", r.Groups)
		}
		s.rows(live, good+50)

		list = listing{}
		s.dlq(0, &list, "list")
		if list.Matched != poison || list.Resolved != good {
			t.Errorf("list after the redrive: got %d matched, %d resolved, want %d and %d", list.Matched, list.Resolved, poison, good)
		}
		wants(t, s.dlq(0, nil, "show", list.DeadLetters[0].Name, "--set", right), `"revenue": "n/a"`, "event 0: reject")
		s.dlq(0, &list, "list", "--all")
		if list.Matched != good+poison {
			t.Errorf("list --all: got %d matched, want %d", list.Matched, good+poison)
		}
		s.dlq(1, &r, "redrive", "--set", right, "--execute")
		r.wants(t, "second redrive", poison, 0, poison, good)
		s.dlq(0, &r, "redrive", "--set", right, "--execute", "--code", "not_json")
		if r.Matched != 0 {
			t.Errorf("redrive of another code: got %d matched, want none", r.Matched)
		}
		if got := s.ws.table().Count(); got != good+50 {
			t.Errorf("got %d rows at the end, want %d", got, good+50)
		}
		live.terminate(s.drain + time.Second + slack)

		// What the right blueprint would have made of the topic in the first place.
		s.ws.create(revenueTable("datafly.events.shadow"))
		shadow := s.beginReady(right, "zerobus.table=shadow", "kafka.group="+s.group+"-shadow", "rejects.policy=skip")
		eventually(t, patience, "the shadow table", func() bool { shadow.alive(); return s.ws.Table("datafly.events.shadow").Count() >= good+50 })
		got, want := s.byID(t, tableName), s.byID(t, "datafly.events.shadow")
		for id, row := range want {
			if got[id] != row {
				t.Errorf("message id %s: got row %s, want %s", id, got[id], row)
				break
			}
		}
		if len(got) != len(want) {
			t.Errorf("got %d different rows, want %d", len(got), len(want))
		}
	})
}

// After a stop in the middle, delivered dead letters are resolved and nothing is
// written twice; after a kill, at most one Write is.
func TestRedriveIsInterrupted(t *testing.T) {
	t.Parallel()
	const events, maxRows = 600, 50
	for name, sig := range map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGKILL": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			eachStage(t, setting{workspace: emulator.Config{DDL: revenueTable(tableName), Latency: emulator.Latency{P50: 500 * time.Millisecond}}}, func(t *testing.T, s *stage) {
				s.ordersAmong(fillers, events, 0)
				s.deadLettered(events)
				s.native("grpc")
				right := "mapping.blueprint=" + file(t, "right.yaml", rightRevenue)
				args := []string{"dlq", "redrive", "--config", s.config, "--set", right, "--set", fmt.Sprintf("delivery.max_rows=%d", maxRows), "--execute", "--output", "json"}
				p := start(t, s.e, command{args: args})
				eventually(t, patience, "some rows", func() bool { return s.ws.table().Count() >= 2*maxRows || !p.running() })
				p.signal(sig)
				code := p.wait(patience)
				at := s.ws.table().Count()
				if at >= events {
					t.Fatal("everything was delivered before the signal; the test needs more dead letters")
				}
				if sig == syscall.SIGINT {
					var r redriven
					must(t, json.Unmarshal([]byte(p.stdout.String()), &r))
					if code != 1 || r.Delivered != at || !strings.Contains(r.Error, "redrive again") {
						t.Errorf("got exit code %d and %+v, want 1 and the %d rows of the table", code, r, at)
					}
				}
				var r redriven
				s.dlq(0, &r, "redrive", "--set", right, "--execute")
				table := s.ws.table()
				duplicates := table.Count() - events
				t.Logf("%s at %d rows; %d duplicates", name, at, duplicates)
				if distinct := table.Distinct("message_id"); distinct != events {
					t.Errorf("got %d different rows, want %d", distinct, events)
				}
				if most := map[bool]int{true: maxRows}[sig == syscall.SIGKILL]; duplicates > most {
					t.Errorf("got %d duplicates, want at most %d", duplicates, most)
				}
				s.dlq(0, &r, "redrive", "--set", right)
				r.wants(t, "at the end", 0, 0, 0, events)
			})
		})
	}
}

func TestDLQIsMisused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"dlq", "lst"}, "lst"},
		{[]string{"dlq", "list", "--since", "2h", "--topics", "a"}, "lacks a sign"},
		{[]string{"dlq", "list", "--limit", "-1", "--topics", "a"}, "--limit is -1"},
		{[]string{"dlq", "list", "--topics", "a", "--topic", "b"}, "--topic b is not among kafka.topics"},
		{[]string{"dlq", "list"}, "kafka.topics is required"},
		{[]string{"dlq", "show", "seventeen"}, "partition/offset"},
		{[]string{"dlq", "show"}, "bridge dlq show takes [<dead-letter topic>/]<partition>/<offset>; got nothing"},
		{[]string{"dlq", "redrive", "--topics", "a"}, "zerobus.table is required"},
	} {
		p, code := run(t, newEvidence(t), command{args: tc.args})
		if code != 2 || !strings.Contains(p.stderr.String(), tc.want) || p.stdout.String() != "" {
			t.Errorf("bridge %s: got exit code %d, stdout %q, stderr %q, want 2 and %q", strings.Join(tc.args, " "), code, p.stdout.String(), p.stderr.String(), tc.want)
		}
	}
}
