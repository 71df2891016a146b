package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/traffic"
)

// demoAnswer is what `bridge demo --output json` prints.
type demoAnswer struct {
	Produced   int64            `json:"produced"`
	Rows       int64            `json:"rows"`
	Distinct   int64            `json:"distinct"`
	Duplicates int64            `json:"duplicates"`
	Rejected   int64            `json:"rejected"`
	Filtered   int64            `json:"filtered"`
	Lost       *int64           `json:"lost"`
	Elapsed    float64          `json:"elapsed_seconds"`
	Rate       float64          `json:"events_per_second"`
	ByCode     map[string]int64 `json:"rejected_by_code"`
	Topic      string           `json:"topic"`
	Others     map[string]int64 `json:"other_tables"`
}

// read parses an answer and holds it to its equation.
func (a *demoAnswer) read(t *testing.T, text string) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), a); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if a.Lost == nil || *a.Lost != 0 || a.Produced != a.Distinct+a.Rejected+a.Filtered+*a.Lost || a.Rows != a.Distinct+a.Duplicates || a.Elapsed <= 0 || a.Rate <= 0 {
		t.Errorf("got %s, want nothing lost and the sums to hold", text)
	}
}

// expected is what n events of the demo's traffic must become.
func expected(n int) (distinct, rejected, filtered int64, byCode map[string]int64) {
	codes := map[string]string{}
	for _, f := range traffic.Faults() {
		codes[f.Kind] = f.Code
	}
	byCode = map[string]int64{}
	for kind, count := range (traffic.Config{Seed: 1, MalformedEvery: 100, TombstoneEvery: 333}).Count(n) {
		switch kind {
		case traffic.OK:
			distinct += int64(count)
		case traffic.Tombstone:
			filtered += int64(count)
		default:
			rejected += int64(count)
			byCode[codes[kind]] += int64(count)
		}
	}
	return distinct, rejected, filtered, byCode
}

func (a *demoAnswer) want(t *testing.T, events int) {
	t.Helper()
	distinct, rejected, filtered, byCode := expected(events)
	if a.Produced != int64(events) || a.Distinct != distinct || a.Rejected != rejected || a.Filtered != filtered || fmt.Sprint(a.ByCode) != fmt.Sprint(byCode) {
		t.Errorf("got %+v, want %d produced, %d distinct, %d filtered, %d rejected: %v", a, events, distinct, filtered, rejected, byCode)
	}
}

func TestDemoLosesNothing(t *testing.T) {
	t.Parallel()
	p, code := run(t, newEvidence(t), command{args: []string{"demo", "--events", "20000", "--output", "json"}})
	if code != 0 {
		t.Fatalf("got exit code %d, want 0", code)
	}
	var a demoAnswer
	a.read(t, p.stdout.String())
	a.want(t, 20000)
	t.Logf("%.0f events/s", a.Rate)
}

func TestDemoShowsTheNewestRows(t *testing.T) {
	t.Parallel()
	p, code := run(t, newEvidence(t), command{args: []string{"demo", "--events", "500"}})
	if code != 0 {
		t.Fatalf("got exit code %d, want 0", code)
	}
	said := p.stdout.String()
	wants(t, said, "SELECT * FROM datafly.events.demo ORDER BY event_timestamp DESC LIMIT 10", "event_name", "source_id", "produced        500", "lost              0")
	table, _, _ := strings.Cut(said, "\n500 events")
	if lines := strings.Count(strings.TrimSpace(table), "\n"); lines != 12 { // the query, a gap, the names, ten rows
		t.Errorf("got %d line breaks in the table, want 12:\n%s", lines, table)
	}
	wants(t, p.stderr.String(), "events in ", "rows delivered", "lag", "ack p50")
}

func TestDemoEndsWithCtrlC(t *testing.T) {
	t.Parallel()
	p := start(t, newEvidence(t), command{args: []string{"demo", "--output", "json", "--duration", "10m", "--rate", "500", "--latency", "1s"}})
	eventually(t, patience, "rows in the live line", func() bool {
		return strings.Count(p.stderr.String(), "rows delivered") >= 2
	})
	p.signal(syscall.SIGINT)
	if code := p.wait(patience); code != 0 {
		t.Fatalf("got exit code %d, want 0", code)
	}
	wants(t, p.stderr.String(), "stopped producing; waiting for ", " events in flight")
	var a demoAnswer
	a.read(t, p.stdout.String())
	if a.Produced == 0 || a.Distinct == 0 {
		t.Errorf("got %+v, want what was produced until then", a)
	}
}

func TestDemoOnARealBroker(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		t.Parallel()
		adm := kadm.NewClient(client(t, b))
		e := newEvidence(t)
		topic := kafkatest.Name(t)
		p, code := run(t, e, command{args: []string{"demo", "--events", "3000", "--output", "json", "--kafka", b.Addrs()[0], "--topic", topic, "--set", "admin.address=127.0.0.1:0"}})
		if code != 0 {
			t.Fatalf("got exit code %d, want 0", code)
		}
		var a demoAnswer
		a.read(t, p.stdout.String())
		a.want(t, 3000)
		if got := length(t, adm, topic); got != 3000 {
			t.Errorf("got %d records in %s, want 3000", got, topic)
		}
		// The store is the demo's own, beside that of other deployments.
		if details, err := adm.ListTopics(t.Context(), topic+"-integrations", topic+"-integrations-audit"); err != nil || details.Error() != nil {
			t.Errorf("got %v, %v, want the topics of the demo's store", err, details.Error())
		}
		for _, r := range deadLetters(t, b, adm, topic+"-dlq") {
			if header(r, "bridge-error-code") == "" || len(header(r, "bridge-error-reason")) < 10 {
				t.Errorf("got a dead letter with code %q and reason %q, want both", header(r, "bridge-error-code"), header(r, "bridge-error-reason"))
			}
		}

		only := kafkatest.Name(t)
		p, code = run(t, e, command{args: []string{"demo", "--events", "200", "--produce-only", "--output", "json", "--kafka", b.Addrs()[0], "--topic", only}})
		if got := length(t, adm, only); code != 0 || got != 200 || strings.TrimSpace(p.stdout.String()) != `{"produced":200}` {
			t.Errorf("--produce-only: got exit code %d, %d records and %q, want 0, 200 and their number", code, got, p.stdout.String())
		}
	})
}
