package e2e_test

import (
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// Unity Catalog lists a name in two spellings: a start and a check say so, and
// no event becomes a dead letter for it.
func TestColumnsThatDifferInCase(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		s.p.events(300)
		s.ws.lists(func(listed []map[string]any) []map[string]any {
			again := maps.Clone(listed[1])
			again["name"], again["type_text"], again["type_name"], again["position"] = "EVENT_NAME", "bigint", "LONG", len(listed)
			return append(listed, again)
		})
		for name, step := range s.check(t, 1, nil) {
			if (step.Status == "failed") != (name == "columns") {
				t.Errorf("%s: got %+v, want columns alone to fail", name, step)
			}
		}
		p, code := run(t, s.e, command{args: append(s.args("run"), "--ops-address", kafkatest.FreeAddress(t))})
		if code != 1 {
			t.Errorf("got exit code %d, want 1", code)
		}
		wants(t, p.stderr.String(), `EVENT_NAME`, `event_name`, "the same name", "rename or drop column")
		if got := length(t, s.adm, s.topic+"-dlq"); got != 0 {
			t.Errorf("got %d dead letters, want none", got)
		}

		// Listed again word for word it is the one column it is.
		s.ws.lists(func(listed []map[string]any) []map[string]any { return append(listed, listed[1], listed[0]) })
		m := s.beginReady()
		s.complete(m)
		if got := length(t, s.adm, s.topic+"-dlq"); got != 0 {
			t.Errorf("got %d dead letters, want none", got)
		}
	})
}

// A column of the table has a type that no event fits: the partition is blocked
// and reports for which column, until the blueprint is changed.
func TestColumnThatFitsNoEvent(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		must(t, s.ws.table().DropColumn("locale"))
		must(t, s.ws.table().AddColumn(emulator.Column{Name: "locale", Type: "BIGINT"}))
		blueprint := file(t, "blueprint.yaml", localeFrom("user_id"))
		s.amend("mapping", "blueprint: "+blueprint)
		m := s.beginReady()
		s.p.events(1500)
		reason := m.blocked("partition_blocked", patience)
		wants(t, reason.Text, "column locale (type_mismatch)")
		wants(t, reason.Remedy, "mapping of column locale")
		lost := length(t, s.adm, s.topic+"-dlq")
		if lost > 49 {
			t.Errorf("got %d dead letters, want at most the 49 before it is called a fault", lost)
		}
		if got := committed(t, s.adm, s.group, s.topic)[0]; got != lost {
			t.Errorf("committed %d, want %d: nothing while blocked", got, lost)
		}
		replace(t, blueprint, "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: null, target: locale}\n")
		m.generation(2)
		want := s.p.total() - int(lost)
		eventually(t, patience, "the rest delivered", func() bool { m.alive(); return s.ws.table().Count() >= want }, func() string {
			return reason.Text
		})
		if got := length(t, s.adm, s.topic+"-dlq"); got != lost {
			t.Errorf("got %d dead letters, want the %d from before", got, lost)
		}
		m.ready()
	})
}

// A misspelt topic leaves nothing behind: its dead-letter topic is created once
// there is something to write to it.
func TestMisspeltTopicLeavesNoDeadLetterTopic(t *testing.T) {
	eachStage(t, setting{noTopic: true}, func(t *testing.T, s *stage) {
		m := s.begin()
		reason := m.blocked("topic_missing", patience)
		wants(t, reason.Text, s.topic)
		found, err := s.adm.ListTopics(t.Context())
		must(t, err)
		if found.Has(s.topic + "-dlq") {
			t.Errorf("%s-dlq was created for a topic that does not exist", s.topic)
		}
		s.broker.CreateTopic(t, s.topic, 1, nil)
		m.ready()
		must(t, client(t, s.broker).ProduceSync(t.Context(), &kgo.Record{Topic: s.topic, Value: []byte("{not json")}).FirstErr())
		eventually(t, patience, "the dead letter", func() bool { m.alive(); return length(t, s.adm, s.topic+"-dlq") == 1 }, func() string { return "" })
		m.ready()
	})
}
