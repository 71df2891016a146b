package app

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// lane is an integration of a test, with a topic and a table of its own.
type lane struct {
	*stage
	name, topic, table string
	produced           int
}

func (s *stage) lane(name string) *lane {
	s.t.Helper()
	l := &lane{stage: s, name: name, topic: kafkatest.Topic(s.t, s.kafka, 3), table: s.newTable(name)}
	// The fake Kafka raises the epoch of every group when a topic is created.
	s.kafka.CreateTopic(s.t, l.spec().Config.Rejects.TopicFor(l.topic), 1, nil)
	return l
}

// newTable creates a table with the columns of the usual one.
func (s *stage) newTable(name string) string {
	s.t.Helper()
	if _, err := s.ws.CreateTable(strings.ReplaceAll(s.ws.Table(tableName).DDL(), "stream", name)); err != nil {
		s.t.Fatal(err)
	}
	return "datafly.events." + name
}

// spec is the integration. Its group uses the protocol that shows epochs.
func (l *lane) spec(sets ...string) config.Integration {
	l.t.Helper()
	return l.integration(l.name, l.topic, l.table, append([]string{"kafka.protocol=consumer"}, sets...)...)
}

// produce sends n events.
func (l *lane) produce(n int) {
	l.t.Helper()
	var all []*kgo.Record
	for range n {
		all = append(all, &kgo.Record{Topic: l.topic, Value: fmt.Appendf(nil, `{"type":"track","event":"a","message_id":"%s-%d","user_id":"u","anonymous_id":"a"}`, l.name, l.produced)})
		l.produced++
	}
	if err := l.client.ProduceSync(l.t.Context(), all...).FirstErr(); err != nil {
		l.t.Fatal(err)
	}
}

// complete waits for all that was produced, in these tables or the usual one, and wants
// none of it twice.
func (l *lane) complete(tables ...string) {
	l.t.Helper()
	if len(tables) == 0 {
		tables = []string{l.table}
	}
	rows, distinct := 0, 0
	l.eventually(fmt.Sprintf("%d events of %s", l.produced, l.name), func() bool {
		ids := make(map[string]bool)
		rows = 0
		for _, table := range tables {
			for _, row := range l.ws.Table(table).Rows(nil) {
				id, _ := row.Value("message_id")
				ids[id] = true
				rows++
			}
		}
		distinct = len(ids)
		return distinct == l.produced
	})
	if rows != distinct {
		l.t.Errorf("%s: got %d rows of %d events, want each once", l.name, rows, distinct)
	}
}

// groups returns the epochs and the assignment of each group, as the broker has them.
func (s *stage) groups(lanes ...*lane) map[string]string {
	s.t.Helper()
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	for _, l := range lanes {
		req.Groups = append(req.Groups, l.topic) // their groups have the names of the topics
	}
	all := make(map[string]string)
	for _, shard := range s.client.RequestSharded(s.t.Context(), req) {
		if shard.Err != nil {
			s.t.Fatal(shard.Err)
		}
		for _, g := range shard.Resp.(*kmsg.ConsumerGroupDescribeResponse).Groups {
			if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
				s.t.Fatal(err)
			}
			text := fmt.Sprintf("epoch %d", g.Epoch)
			slices.SortFunc(g.Members, func(a, b kmsg.ConsumerGroupDescribeResponseGroupMember) int {
				return strings.Compare(a.MemberID, b.MemberID)
			})
			for _, m := range g.Members {
				text += fmt.Sprintf("; member %s, epoch %d, %v", m.MemberID, m.MemberEpoch, m.Assignment.TopicPartitions)
			}
			all[g.Group] = text
		}
	}
	return all
}

// want compares the groups with those of before.
func (s *stage) unchanged(when string, before map[string]string, lanes ...*lane) {
	s.t.Helper()
	if after := s.groups(lanes...); !maps.Equal(after, before) {
		s.t.Errorf("%s: got groups\n%v, want\n%v", when, after, before)
	}
}

// follow applies a deployment as a reload does.
func (s *stage) follow(a *App, all ...config.Integration) (changed []string) {
	s.t.Helper()
	changed, pending, err := a.reload(s.t.Context(), deployment(all...), true)
	if err != nil || len(pending) > 0 {
		s.t.Errorf("got %v, and %q pending, want everything in force", err, pending)
	}
	return changed
}

// Integrations are added, changed and removed while others run. The others keep their
// members, epochs and assignments, and nothing is lost or written twice.
func TestIntegrationsChangeWhileOthersRun(t *testing.T) {
	s := newStage(t)
	one, two, three := s.lane("one"), s.lane("two"), s.lane("three")
	blueprint := filepath.Join(t.TempDir(), "blueprint.yaml")
	locale := func(source string) {
		t.Helper()
		if err := os.WriteFile(blueprint, []byte("version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: "+source+", target: locale}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	locale("user_id")
	a1, a2, a3 := one.spec("mapping.blueprint="+blueprint), two.spec(), three.spec()
	core, logs := observer.New(zap.InfoLevel)
	a, stop := s.start(Options{Deployment: deployment(a1, a2), Log: zap.New(core), Version: "test"})
	defer stop()
	ready := func(names ...string) func() bool {
		return func() bool { return !slices.ContainsFunc(names, func(n string) bool { return !a.of(n).Ready }) }
	}
	all := []*lane{one, two, three}
	each := func(n int, lanes ...*lane) {
		t.Helper()
		for _, l := range lanes {
			l.produce(n)
		}
		for _, l := range lanes {
			l.complete()
		}
	}
	s.eventually("both ready", ready("one", "two"))
	each(50, one, two)

	before := s.groups(one, two)
	three.produce(50)
	if got := s.follow(a, a1, a2, a3); !slices.Equal(got, []string{"integrations.three"}) {
		t.Errorf("got %q changed, want the third", got)
	}
	three.complete()
	s.eventually("the third ready", ready("three"))
	s.unchanged("one was added", before, one, two)

	before = s.groups(all...)
	locale("anonymous_id")
	if got := s.follow(a, a1, a2, a3); !slices.Equal(got, []string{"integrations.one.mapping.blueprint"}) {
		t.Errorf("got %q changed, want the blueprint of the first", got)
	}
	one.produce(1)
	one.complete()
	if got, _ := s.ws.Table(one.table).Newest(1)[0].Value("locale"); got != "a" {
		t.Errorf("got locale %q, want that of the new blueprint", got)
	}
	s.unchanged("a blueprint was changed", before, all...)

	before = s.groups(one, three)
	two.produce(3000)
	s.eventually("some of them delivered", func() bool { return s.ws.Table(two.table).Count() > 50 })
	moved := s.newTable("moved")
	a2 = two.integration(two.name, two.topic, moved, "kafka.protocol=consumer")
	if got := s.follow(a, a1, a2, a3); !slices.Equal(got, []string{"integrations.two.zerobus.table"}) {
		t.Errorf("got %q changed, want the table of the second", got)
	}
	s.eventually("the second with the other table", func() bool { return a.of("two").Table == moved && a.of("two").Ready })
	two.produce(20)
	two.complete(two.table, moved)
	if s.ws.Table(moved).Count() < 20 {
		t.Errorf("got %d rows in the other table, want the new ones", s.ws.Table(moved).Count())
	}
	s.unchanged("a table was changed", before, one, three)

	three.produce(2000)
	s.follow(a, a1, a2)
	s.eventually("the third gone", func() bool { return len(a.Status().Integrations) == 2 })
	if strings.Contains(s.get(a, "/metrics"), `integration="three"`) {
		t.Error("/metrics still has the third")
	}
	if got := logs.FilterMessageSnippet("integration removed").FilterField(zap.String("integration", "three")).Len(); got != 1 {
		t.Errorf("got %d lines about the removal, want 1", got)
	}
	s.unchanged("one was removed", map[string]string{one.topic: before[one.topic]}, one)
	a3 = three.spec()
	s.follow(a, a1, a2, a3)
	three.complete() // it resumes where it ended

	off := three.spec()
	off.Enabled = false
	s.follow(a, a1, a2, off)
	s.eventually("the third disabled", func() bool { return a.of("three").State == ops.StateDisabled })
	three.produce(10)
	each(10, one)
	if got := a.Status(); !got.Ready || len(got.NotReady) != 0 {
		t.Errorf("got ready %v, %+v, want it ready without the disabled one", got.Ready, got.NotReady)
	}
	s.follow(a, a1, a2, a3)
	three.complete()
	if got := logs.FilterMessage("joining the group").FilterField(zap.String("integration", "one")).Len(); got != 1 {
		t.Errorf("got %d starts of the first, want 1", got)
	}
}

// Trouble of some integrations costs the others nothing. Each is shown for what it is.
func TestTroubleOfOneIntegration(t *testing.T) {
	s := newStage(t)
	lanes := make(map[string]*lane)
	for _, name := range []string{"good", "fine", "secret", "missing", "stalled", "poison", "panics"} {
		lanes[name] = s.lane(name)
	}
	missing := lanes["missing"]
	missing.table = "datafly.events.nowhere"
	for _, f := range []emulator.Fault{
		{Endpoint: emulator.EndpointIngest, Table: lanes["stalled"].table, Effect: emulator.EffectHang},
	} {
		if _, err := s.ws.AddFault(f); err != nil {
			t.Fatal(err)
		}
	}
	core, logs := observer.New(zap.InfoLevel)
	a, stop := s.start(Options{
		Deployment: deployment(lanes["good"].spec(), lanes["fine"].spec(), lanes["secret"].spec("zerobus.client_secret=wrong"), missing.spec(),
			lanes["stalled"].spec(), lanes["poison"].spec("rejects.policy=stop"), lanes["panics"].spec()),
		Log: zap.New(core), Version: "test",
		Observer: func(next consumer.Observer) consumer.Observer {
			return &panicking{Observer: next, topic: lanes["panics"].topic}
		},
	})
	defer stop()
	if err := s.client.ProduceSync(t.Context(), &kgo.Record{Topic: lanes["poison"].topic, Value: []byte("no json")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for _, l := range lanes {
		l.produce(200)
	}
	lanes["good"].complete()
	lanes["fine"].complete()
	for name, want := range map[string]struct{ state, reason string }{
		"secret": {ops.StateFailed, "client"}, "missing": {ops.StateFailed, "nowhere"}, "poison": {ops.StateFailed, "not_json"}, "panics": {ops.StateFailed, "panic: a bug"},
	} {
		s.eventually(name+" failed", func() bool {
			got := a.of(name)
			return got.State == want.state && strings.Contains(got.Reason, want.reason) && !got.NextTry.IsZero() && len(got.NotReady) == 1 && got.Sink.Name == ""
		})
	}
	if stack, _ := logs.FilterMessage("integration failed").FilterField(zap.String("integration", "panics")).All()[0].ContextMap()["stack"].(string); !strings.Contains(stack, "panicking") {
		t.Errorf("got stack %q, want that of the panic", stack)
	}
	for _, name := range []string{"good", "fine"} {
		lanes[name].produce(200)
		lanes[name].complete()
		if got := a.of(name); !got.Ready || got.Totals.Rebalances != 1 {
			t.Errorf("%s: got %+v and %d rebalances, want it ready, and one", name, got.NotReady, got.Totals.Rebalances)
		}
	}
	if got := a.Status(); !got.Ready || !got.Live || got.State != ops.StateRunning {
		t.Errorf("got ready %v, live %v, state %s; want the process to run", got.Ready, got.Live, got.State)
	}
	metrics := s.get(a, "/metrics")
	for _, want := range []string{`bridge_ready{integration="good"} 1`, `bridge_ready{integration="secret"} 0`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}

	// What resolves a failure starts that one at once.
	fixed := lanes["missing"]
	fixed.table = s.newTable("nowhere")
	s.follow(a, lanes["good"].spec(), lanes["fine"].spec(), lanes["secret"].spec(), fixed.spec(), lanes["stalled"].spec(), lanes["poison"].spec("rejects.policy=skip"), lanes["panics"].spec())
	fixed.complete()
	lanes["secret"].complete()
	// Each start that met the poison has written the rest of its batch again.
	s.eventually("the events beside the poison", func() bool { return s.ws.Table(lanes["poison"].table).Distinct("message_id") == 200 })
}

// panicking panics for the rows of one topic.
type panicking struct {
	consumer.Observer
	topic string
}

// RowsDelivered implements consumer.Observer.
func (p *panicking) RowsDelivered(topic string, partition int32, rows, bytes int, ack time.Duration) {
	if topic == p.topic {
		panic("a bug")
	}
	p.Observer.RowsDelivered(topic, partition, rows, bytes, ack)
}

// One whose table refuses its writes is blocked, and delays neither the other nor the
// stop.
func TestBlockedIntegrationDelaysNothing(t *testing.T) {
	s := newStage(t)
	first, second := s.lane("first"), s.lane("second")
	a, stop := s.run(first.spec(), second.spec())
	defer stop()
	first.produce(50)
	second.produce(50)
	first.complete()
	second.complete()
	if _, err := s.ws.AddFault(emulator.Fault{Endpoint: emulator.EndpointIngest, Table: second.table, Effect: emulator.EffectStatus, Status: http.StatusForbidden}); err != nil {
		t.Fatal(err)
	}
	first.produce(50)
	second.produce(50)
	first.complete()
	s.eventually("the second blocked", func() bool { return a.of("second").Sink.Name == zerobus.Blocked })
	if got := s.ws.Table(second.table).Count(); got != 50 {
		t.Errorf("got %d rows in the blocked table, want 50", got)
	}
	if got := a.Status(); !got.Ready || len(got.NotReady) == 0 || got.NotReady[0].Code != "sink_blocked" || got.NotReady[0].Integration != "second" {
		t.Errorf("got ready %v, %+v; want the process ready, since the first delivers, and the second named", got.Ready, got.NotReady)
	}
}
