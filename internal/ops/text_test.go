package ops_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
)

func TestText(t *testing.T) {
	stuck := refused()
	stuck.LiveReason = "the poll loop has not turned for 5m0s"
	stuck.Sink.TokenExpiresAt = now.Add(-time.Minute)
	stuck.Partitions[1].State, stuck.Partitions[1].Reason = consumer.StateBlocked, "half of the last 200 rows\nwere refused"
	starting := ops.IntegrationStatus{Integration: "default", State: ops.StateStarting, NotReady: []consumer.NotReady{{Code: "joining", Text: "joining the group"}}}
	failed := ops.IntegrationStatus{Integration: "clicks", State: ops.StateFailed, Table: "datafly.events.clicks", Reason: "no such table\x1b[2J", NextTry: now.Add(time.Minute)}
	disabled := ops.IntegrationStatus{Integration: "archive", State: ops.StateDisabled, Table: "datafly.events.archive"}
	slow := named("slow", integration())
	slow.Partitions[0].Lag = -1
	idle := named("idle", integration())
	idle.Partitions, idle.Ledger = nil, consumer.LedgerStatus{}
	for name, all := range map[string][]ops.IntegrationStatus{
		"ready":    {integration()},
		"named":    {named("orders", integration())},
		"blocked":  {stuck},
		"starting": {starting},
		"several":  {integration(), named("orders", refused()), slow, idle, failed, disabled},
		"none":     {},
		"disabled": {disabled},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range all {
				if all[i].State == ops.StateRunning {
					all[i].Totals = ops.Totals{EventsRead: 1600, RowsDelivered: 1267, EventsRejected: 3, EventsFiltered: 30, DeadLetters: 3, SinkRetries: 2}
				}
			}
			s := process(all...)
			var b bytes.Buffer
			if err := s.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			compare(t, "testdata/status_"+name+".golden", b.String())
		})
	}
}

// A second status shows what was delivered since the first.
func TestTextWithRates(t *testing.T) {
	delivered := func(name string, rows int64) ops.IntegrationStatus {
		i := named(name, integration())
		i.Totals.RowsDelivered = rows
		return i
	}
	failed := ops.IntegrationStatus{Integration: "clicks", State: ops.StateFailed, Table: "datafly.events.clicks", Reason: "no such table", NextTry: now.Add(time.Minute)}
	before, after := process(delivered("a", 100), delivered("b", 500)), process(delivered("a", 340), delivered("b", 0), delivered("new", 7), failed)
	after.Time = now.Add(2 * time.Second)
	var table, lines, one, none bytes.Buffer
	if err := errors.Join(after.WriteSince(&table, before), process(delivered("a", 1)).WriteSince(&none, ops.Status{Time: now})); err != nil {
		t.Fatal(err)
	}
	only, ok := after.Only("a")
	if err := only.WriteSince(&one, before); err != nil || !ok {
		t.Fatal(ok, err)
	}
	var b strings.Builder
	after.WriteLines(&b, before)
	lines.WriteString(b.String())
	compare(t, "testdata/status_rates.golden", table.String()+"\n"+lines.String())
	if !strings.Contains(one.String(), "\nrows/s     120\n") {
		t.Errorf("got %s, want 120 rows per second", one.String())
	}
	if !strings.Contains(none.String(), "\nrows/s     -\n") {
		t.Errorf("got %s, want no rate without two different times", none.String())
	}
	only, _ = after.Only("clicks")
	one.Reset()
	if err := only.WriteText(&one); err != nil || !strings.Contains(one.String(), "\nnext try   in 58s\n") || only.Ready {
		t.Errorf("got %s, %v, ready %v, want the next try", one.String(), err, only.Ready)
	}
	if _, ok := after.Only("gone"); ok {
		t.Error("an unknown integration was found")
	}
}

func TestTextLeavesTheStatusAlone(t *testing.T) {
	s := healthy() // its partitions are out of order
	if err := s.WriteText(io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := s.Integrations[0].Partitions[0].Partition; got != 10 {
		t.Errorf("first partition of the status after printing: got %d, want 10", got)
	}
}

func TestTextReportsAWriterThatFails(t *testing.T) {
	want := errors.New("pipe is closed")
	if got := healthy().WriteText(failingWriter{want}); !errors.Is(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// Whatever a peer answers with, reading and printing it must not panic nor let
// it write to the terminal what does not print.
func FuzzStatusFromAPeer(f *testing.F) {
	for _, s := range []ops.Status{healthy(), blocked(), process(integration(), named("orders", refused())), {}} {
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"state":"\u001b[2J","integrations":[{"partitions":[{"topic":"\ta\nb","lag":-9223372036854775808,"oldest_unacked_seconds":1e300}]}]}`))
	f.Add([]byte(`{"buffered_bytes":9223372036854775807,"buffered_limit_bytes":1,"version":"\u202e\u0000","integrations":[{"sink":{"since":"0001-01-01T00:00:01Z"}}]}`))
	f.Add([]byte(`{"integrations":[{"partitions":null},{}],"not_ready":[{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var s ops.Status
		if json.Unmarshal(body, &s) != nil {
			return
		}
		var b, lines strings.Builder
		if err := errors.Join(s.WriteText(&b), s.WriteSince(&b, ops.Status{Time: now, Integrations: s.Integrations})); err != nil {
			t.Fatalf("writing to memory: %v", err)
		}
		s.WriteLines(&lines, s)
		b.WriteString(lines.String())
		if i := strings.IndexFunc(b.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("a character that does not print at byte %d of %q", i, b.String())
		}
	})
}
