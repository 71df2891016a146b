package e2e_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/ops"
)

// An integration is installed by command while a bridge runs. It is changed, disabled,
// lost with the store's topic and restored from an export, and everything continues.
func TestInstalledByCommand(t *testing.T) {
	eachStage(t, setting{partitions: 2}, func(t *testing.T, s *stage) {
		text, err := os.ReadFile(s.config)
		must(t, err)
		replace(t, s.config, string(text)+"deployment: "+s.group+"\nstore: {enabled: true, keys: ["+file(t, "store.key", strings.Repeat("k", 32))+"]}\n")
		m := s.beginReady()
		s.p.events(50)
		s.complete(m)
		bridge := func(want int, args ...string) string {
			t.Helper()
			p, code := run(t, s.e, command{args: append([]string{"integrations", args[0], "--config", s.config}, args[1:]...)})
			if code != want {
				t.Fatalf("bridge integrations %s: got exit code %d, want %d; stdout:\n%s\nstderr:\n%s", strings.Join(args, " "), code, want, p.stdout.String(), tail(p.stderr.String()))
			}
			return p.stdout.String()
		}
		orders := newProducer(t, s.broker, s.topic+".orders", 2)
		s.broker.CreateTopic(t, orders.topic, 2, nil)
		table := s.newTable("orders")
		rows := func() {
			t.Helper()
			eventually(t, patience, fmt.Sprintf("%d rows of orders", orders.total()), func() bool { m.alive(); return table.Distinct("message_id") == orders.total() },
				func() string { return fmt.Sprintf("got %d", table.Distinct("message_id")) })
		}

		orders.events(100)
		began := time.Now()
		bridge(0, "install", "name=Orders", "workspace_url="+s.ws.url, "client_id="+clientID, "catalog=datafly", "schema=events", "table=orders", "transport=workspace",
			"source.topics="+orders.topic, "--secret-file", s.ws.file, "--reason", "a test")
		eventually(t, patience, "orders running", func() bool { return m.of("orders").Ready })
		t.Logf("it ran %v after the command began", time.Since(began).Round(time.Millisecond))
		rows()
		bridge(2, "install", "name=Orders", "workspace_url="+s.ws.url, "--secret-file", s.ws.file) // wrong fields

		bridge(0, "set", "orders", "--revision", "1", "--blueprint", file(t, "marked.yaml", "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: nowhere, target: source_id, default_value: marked}\n"))
		marked := func() (n int) {
			for _, row := range table.Rows(nil) {
				if id, _ := row.Value("source_id"); id == "marked" {
					n++
				}
			}
			return n
		}
		eventually(t, patience, "rows by the new blueprint", func() bool { orders.events(1); return marked() > 0 })
		rows()

		bridge(0, "disable", "orders")
		eventually(t, patience, "orders disabled", func() bool { return m.of("orders").State == ops.StateDisabled })
		orders.events(100)
		backup := file(t, "export.yaml", bridge(0, "export"))
		_, err = s.adm.DeleteTopics(context.Background(), s.group+"-integrations")
		must(t, err)
		eventually(t, patience, "the store reported as missing", func() bool {
			_, body := m.get("/status", "application/json")
			return strings.Contains(body, "bridge integrations import")
		})
		if got := m.of("orders").State; got != ops.StateDisabled {
			t.Errorf("got orders %q without the store, want it as it was", got)
		}
		bridge(0, "import", backup, "--reason", "deleted")
		bridge(0, "enable", "orders")
		rows()
		if got, want := table.Count(), table.Distinct("message_id"); got != want {
			t.Errorf("got %d rows of %d events, want none twice", got, want)
		}
		s.p.events(50)
		s.complete(m)
		m.terminate(s.drain + time.Second + slack)
	})
}
