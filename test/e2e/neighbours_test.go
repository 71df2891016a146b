package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/oracle"
	"github.com/datafly/bridge/zerobus/emulator"
)

// neighbours are integrations of one process: each reads one of the topics into a
// table of its own.
type neighbours struct {
	*stage
	topics []*producer
	all    []neighbour
}

type neighbour struct {
	name   string
	source *producer
	table  string // without catalog and schema
	secret string // the file of its client secret
	more   string // of its keys of zerobus
}

// newNeighbours makes topics, and n integrations that read them in turn.
func newNeighbours(t *testing.T, b kafkatest.Broker, topics, n int, partitions int32) *neighbours {
	t.Helper()
	s := &neighbours{stage: newStage(t, b, setting{noTopic: true})}
	for i := range topics {
		topic := fmt.Sprintf("%s-%d", s.topic, i)
		b.CreateTopic(t, topic, partitions, nil)
		s.topics = append(s.topics, newProducer(t, b, topic, partitions))
	}
	for i := range n {
		s.add(fmt.Sprintf("n%02d", i), s.topics[i%topics])
	}
	return s
}

// add adds an integration and its table. write makes it part of the configuration.
func (s *neighbours) add(name string, source *producer) neighbour {
	s.t.Helper()
	n := neighbour{name: name, source: source, table: "stream_" + name, secret: s.ws.file}
	s.createTable(n)
	s.all = append(s.all, n)
	return n
}

func (s *neighbours) createTable(n neighbour) {
	s.t.Helper()
	_, err := s.ws.CreateTable(strings.Replace(emulator.DefaultDDL, "datafly.events.stream", fullName(n.table), 1))
	must(s.t, err)
}

func fullName(table string) string { return "datafly.events." + table }

// overlay returns the part of the configuration that describes n, for below
// integrations: or a file of integrations_dir.
func (n neighbour) overlay() string {
	return fmt.Sprintf("%s:\n  kafka: {topics: [%s]}\n  zerobus: {table: %s, client_secret_file: %s%s}\n", n.name, n.source.topic, n.table, n.secret, n.more)
}

// base returns the configuration without integrations.
func (s *neighbours) base() string {
	return fmt.Sprintf(`deployment: %s
kafka:
  brokers: [%s]
  session_timeout: %s
zerobus:
  workspace_url: %s
  client_id: %s
  catalog: datafly
  schema: events
  transport: workspace
delivery:
  drain: %s
`, s.group, strings.Join(s.broker.Addrs(), ", "), session, s.ws.url, clientID, s.drain)
}

// write makes the configuration file, with all integrations in it.
func (s *neighbours) write() {
	s.t.Helper()
	text := s.base() + "integrations:\n"
	for _, n := range s.all {
		for line := range strings.Lines(n.overlay()) {
			text += "  " + line
		}
	}
	s.config = filepath.Join(s.t.TempDir(), "bridge.yaml")
	must(s.t, os.WriteFile(s.config, []byte(text), 0o600))
}

// delivered reports whether an integration has every event of its topic in its table,
// and all of them committed.
func (s *neighbours) delivered(n neighbour) bool {
	table := s.ws.Table(fullName(n.table))
	return table != nil && table.Distinct("message_id") >= n.source.total() &&
		sum(committed(s.t, s.adm, s.group+"-"+n.name, n.source.topic)) == int64(n.source.total())
}

// complete waits until the integration has delivered everything, and returns how many
// rows are there more than once.
func (s *neighbours) complete(m *member, n neighbour) (duplicates int) {
	s.t.Helper()
	eventually(s.t, 2*patience, n.name+" delivers everything", func() bool {
		if m != nil {
			m.alive()
		}
		return s.delivered(n)
	}, func() string {
		if table := s.ws.Table(fullName(n.table)); table != nil {
			return fmt.Sprintf("got %d of %d events", table.Distinct("message_id"), n.source.total())
		}
		return "there is no table"
	})
	table := s.ws.Table(fullName(n.table))
	duplicates, err := oracle.Duplicates(n.source.total(), table.Count(), table.Distinct("message_id"))
	if err != nil {
		s.t.Errorf("%s: %v", n.name, err)
	}
	return duplicates
}

// poison appends records that can never be a row.
func (p *producer) poison(n int) {
	p.t.Helper()
	ctx, cancel := within()
	defer cancel()
	for i := range n {
		p.cl.Produce(ctx, &kgo.Record{Topic: p.topic, Partition: int32(i % len(p.next)), Value: []byte("{")}, func(_ *kgo.Record, err error) {
			if err != nil {
				p.t.Errorf("producing: %v", err)
			}
		})
	}
	must(p.t, p.cl.Flush(ctx))
}

// Twenty integrations of one process, five of which cannot deliver, each for a reason
// of its own. The others deliver every event exactly once. What can be fixed is fixed
// without a restart.
func TestFiveOfTwentyIntegrationsFail(t *testing.T) {
	const healthy, partitions, poisonous = 3, 3, 900
	events := 11_200 // of each healthy topic: 200,000 in all for the 18 integrations that read them
	if testing.Short() || buildtest.Race {
		events = 1500
	}
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{Brokers: 3}, func(t *testing.T, b kafkatest.Broker) {
		t.Parallel()
		s := newNeighbours(t, b, healthy, 18, partitions)
		s.panics = true
		for _, name := range []string{"poison", "panic"} {
			topic := s.topic + "-" + name
			b.CreateTopic(t, topic, partitions, nil)
			s.topics = append(s.topics, newProducer(t, b, topic, partitions))
			s.add(name, s.topics[len(s.topics)-1])
		}
		poisoned := s.topics[healthy].topic
		wrong := file(t, "wrong-secret", newSecret())
		missing, unauthorized, silent := &s.all[2], &s.all[7], &s.all[11]
		must(t, s.ws.DropTable(fullName(missing.table)))
		unauthorized.secret, silent.more = wrong, ", timeout: 2s"
		release := make(chan struct{})
		s.ws.OnIngest(func(r emulator.IngestRequest) *emulator.Fault {
			select {
			case <-release:
				return nil
			default:
			}
			if r.Table == fullName(silent.table) {
				return &emulator.Fault{Effect: emulator.EffectHang}
			}
			return nil
		})
		s.write()
		for _, p := range s.topics[:healthy] {
			p.events(events)
		}
		s.topics[healthy].poison(poisonous)
		s.topics[healthy+1].events(100)

		m := s.begin()
		failing := map[string]bool{missing.name: true, unauthorized.name: true, silent.name: true, "poison": true, "panic": true}
		for _, n := range s.all {
			if failing[n.name] {
				continue
			}
			duplicates, got := s.complete(m, n), m.of(n.name)
			if duplicates != 0 && got.Totals.SinkRetries == 0 { // a request may time out on a busy machine
				t.Errorf("%s: got %d duplicates without a retry, want none", n.name, duplicates)
			}
			if !got.Ready || got.State != ops.StateRunning {
				t.Errorf("%s: got state %s, ready %v: %v", n.name, got.State, got.Ready, got.NotReady)
			}
		}
		dead := poisoned + "-dlq-poison"
		eventually(t, patience, "every poisonous event is a dead letter", func() bool { return length(t, s.adm, dead) == poisonous },
			func() string { return fmt.Sprintf("got %d of %d", length(t, s.adm, dead), poisonous) })
		for name, want := range map[string]string{missing.name: missing.table, unauthorized.name: "secret", "panic": "a bug in a test"} {
			// One that panics runs for a moment after each pause.
			eventually(t, patience, fmt.Sprintf("%s is not ready, with %q in the reason", name, want), func() bool {
				got := m.of(name)
				return !got.Ready && strings.Contains(fmt.Sprint(got.Reason, got.NotReady), want)
			}, func() string { return fmt.Sprint(m.of(name)) })
		}
		eventually(t, patience, silent.name+" reports that its sink does not answer",
			func() bool { return strings.Contains(fmt.Sprint(m.of(silent.name).NotReady), "no answer") },
			func() string { return fmt.Sprint(m.of(silent.name)) })
		if status, _ := m.get("/readyz", ""); status != 200 {
			t.Errorf("/readyz: got %d, want 200 while others deliver", status)
		}
		bound := int(m.snapshot().Memory.Bound >> 20)
		peak := m.peakMiB(t)
		t.Logf("peak RSS %d MiB, bound %d MiB", peak, bound)
		if peak > bound {
			t.Errorf("got a peak RSS of %d MiB, want at most the published %d", peak, bound)
		}

		s.createTable(*missing)
		data, err := os.ReadFile(s.ws.file)
		must(t, err)
		must(t, os.WriteFile(wrong, data, 0o600))
		close(release)
		m.signal(syscall.SIGHUP) // failed ones are started again at once
		for _, n := range []neighbour{*missing, *unauthorized, *silent} {
			s.complete(m, n)
		}
		m.terminate(s.drain + time.Second + slack)
	})
}

// Each of three replicas is replaced while events keep coming. A clean stop costs no
// duplicates.
func TestRollingRestartWithTwentyIntegrations(t *testing.T) {
	const topics, replicas, portion = 5, 3, 600
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{Brokers: 3}, func(t *testing.T, b kafkatest.Broker) {
		t.Parallel()
		s := newNeighbours(t, b, topics, 20, replicas)
		s.drain = 30 * time.Second // for the write in flight on a busy machine
		s.write()
		var members []*member
		begin := func() *member { return s.begin("delivery.max_rows=50") }
		for range replicas {
			members = append(members, begin())
		}
		shared := func() bool { // every partition has one owner
			owners := map[string]int{}
			for _, m := range members {
				for _, i := range m.snapshot().Integrations {
					for _, p := range i.Partitions {
						owners[fmt.Sprint(i.Integration, p.Topic, p.Partition)]++
					}
				}
			}
			for _, n := range owners {
				if n != 1 {
					return false
				}
			}
			return len(owners) == len(s.all)*replicas
		}
		eventually(t, 2*patience, "every partition has one owner", shared)
		for i := range replicas {
			ctx, cancel := context.WithCancel(t.Context())
			sent := make(chan struct{})
			go func() { // ends with ctx
				defer close(sent)
				for _, p := range s.topics {
					if ctx.Err() == nil {
						p.events(portion)
					}
				}
			}()
			members[i].terminate(s.drain + time.Minute)
			members[i] = begin()
			<-sent
			cancel()
			eventually(t, 2*patience, "every partition has one owner again", shared)
		}
		duplicates := 0
		for _, n := range s.all {
			duplicates += s.complete(nil, n)
		}
		if duplicates != 0 {
			t.Errorf("got %d duplicates, want none after clean stops", duplicates)
		}
		for _, m := range members {
			m.terminate(s.drain + time.Minute)
		}
	})
}
