package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus/emulator"
)

// of returns what /status shows of one integration; empty if it is not there.
func (m *member) of(name string) (i ops.IntegrationStatus) {
	m.t.Helper()
	if only, ok := m.snapshot().Only(name); ok {
		i = only.Integrations[0]
	}
	return i
}

// newTable creates a table with the columns of the usual one.
func (s *stage) newTable(name string) *emulator.Table {
	s.t.Helper()
	_, err := s.ws.CreateTable(strings.ReplaceAll(s.ws.table().DDL(), "stream", name))
	must(s.t, err)
	return s.ws.Table("datafly.events." + name)
}

// Integrations come and go with files of a folder, while the process runs: the one of
// the configuration file keeps its place. SIGTERM drains all of them.
func TestIntegrationsFolder(t *testing.T) {
	eachStage(t, setting{partitions: 2, workspace: emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}}}, func(t *testing.T, s *stage) {
		folder := t.TempDir()
		text, err := os.ReadFile(s.config)
		must(t, err)
		replace(t, s.config, string(text)+"integrations_dir: "+folder+"\ndeployment: "+s.group+"\n")
		m := s.beginReady()
		s.p.events(50)
		s.complete(m)

		orders := newProducer(t, s.broker, s.topic+".orders", 2)
		s.broker.CreateTopic(t, orders.topic, 2, nil)
		table := s.newTable("orders")
		rows := func(n int) {
			t.Helper()
			eventually(t, patience, fmt.Sprintf("%d rows of orders", n), func() bool { m.alive(); return table.Distinct("message_id") == n },
				func() string { return fmt.Sprintf("got %d", table.Distinct("message_id")) })
		}
		file := filepath.Join(folder, "orders.yaml")
		overlay := fmt.Sprintf("orders:\n  kafka: {topics: [%s]}\n  zerobus: {table: orders}\n", orders.topic)
		orders.events(200)
		was := m.of("default")
		began := time.Now()
		replace(t, file, overlay)
		eventually(t, patience, "orders running", func() bool { return m.of("orders").Ready })
		t.Logf("it ran %v after its file was there", time.Since(began).Round(time.Millisecond))
		rows(200)
		if got := m.of("orders").Group; got != s.group+"-orders" {
			t.Errorf("got group %s, want %s-orders", got, s.group)
		}

		// A mistake in one file changes nothing.
		replace(t, filepath.Join(folder, "broken.yaml"), "broken:\n  zerobus: {tabel: x}\n")
		m.refusal("broken.yaml:2", "zerobus.tabel")
		must(t, os.Remove(filepath.Join(folder, "broken.yaml")))
		m.reload("the folder accepted", func(r ops.ReloadStatus) bool { return r.State == ops.ReloadOK })

		// One that cannot run is shown, and the others run.
		replace(t, filepath.Join(folder, "wrong.yaml"), fmt.Sprintf("wrong:\n  kafka: {topics: [%s]}\n  zerobus: {table: nowhere}\n", orders.topic))
		eventually(t, patience, "the wrong one failed", func() bool {
			i := m.of("wrong")
			return i.State == ops.StateFailed && strings.Contains(i.Reason, "nowhere") && !i.NextTry.IsZero()
		})
		m.ready()

		// A table is changed: it drains, and starts again.
		moved := s.newTable("moved")
		replace(t, file, strings.Replace(overlay, "table: orders", "table: moved", 1))
		eventually(t, patience, "orders with another table", func() bool { i := m.of("orders"); return i.Ready && strings.HasSuffix(i.Table, ".moved") })
		orders.events(100)
		eventually(t, patience, "rows in the other table", func() bool { return moved.Count() == 100 })

		// One file goes, and the integration drains.
		must(t, os.Remove(filepath.Join(folder, "wrong.yaml")))
		eventually(t, patience, "the wrong one gone", func() bool { return len(m.snapshot().Integrations) == 2 })
		if got := m.logged("integration removed"); got != 1 {
			t.Errorf("got %d lines about the removal, want 1", got)
		}
		if now := m.of("default"); now.MemberID != was.MemberID || now.Totals.Rebalances != was.Totals.Rebalances {
			t.Errorf("got member %s and %d rebalances of default, want it to have stayed as %s with %d", now.MemberID, now.Totals.Rebalances, was.MemberID, was.Totals.Rebalances)
		}

		s.p.events(3000)
		orders.events(3000)
		eventually(t, patience, "some rows of both", func() bool { return s.ws.table().Count() > 60 && moved.Count() > 110 })
		m.terminate(s.drain + time.Second + slack)
		if got := m.logged("stopped"); got < 3 { // of default, and of orders twice
			t.Errorf("got %d members that say so, want all of them", got)
		}
		for _, x := range []struct {
			group, topic string
			rows         int
		}{{s.group, s.topic, s.ws.table().Count()}, {s.group + "-orders", orders.topic, table.Count() + moved.Count()}} {
			if got := sum(committed(t, s.adm, x.group, x.topic)); got != int64(x.rows) {
				t.Errorf("group %s: got %d committed after the drain, want the %d rows that were delivered", x.group, got, x.rows)
			}
		}
		s.complete(s.beginReady())
		eventually(t, patience, "all of orders", func() bool { return table.Distinct("message_id")+moved.Distinct("message_id") == orders.total() })
	})
}
