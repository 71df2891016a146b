package e2e_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// checkStep is one step of `bridge check --output json`.
type checkStep struct {
	Step    string `json:"step"`
	Status  string `json:"status"`
	Detail  string `json:"detail"`
	Warning string `json:"warning"`
	Error   string `json:"error"`
}

// check runs `bridge check` and returns its steps by name.
func (s *stage) check(t *testing.T, wantCode int, more []string, sets ...string) map[string]checkStep {
	t.Helper()
	p, code := run(t, s.e, command{args: append(append(s.args("check", sets...), "--output", "json", "--timeout", "5s"), more...), cgroup: s.cgroup})
	if code != wantCode {
		t.Errorf("got exit code %d, want %d: %s", code, wantCode, p.stdout.String())
	}
	var answer struct {
		OK    bool        `json:"ok"`
		Steps []checkStep `json:"steps"`
	}
	if err := json.Unmarshal([]byte(p.stdout.String()), &answer); err != nil {
		t.Fatalf("%v in %q; stderr %q", err, p.stdout.String(), p.stderr.String())
	}
	if answer.OK != (wantCode == 0) {
		t.Errorf("got ok %v, want %v", answer.OK, wantCode == 0)
	}
	steps := map[string]checkStep{}
	for _, step := range answer.Steps {
		steps[step.Step] = step
	}
	return steps
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		s.p.events(7)
		for name, step := range s.check(t, 0, nil) {
			if step.Status != "ok" {
				t.Errorf("%s: got %+v, want ok", name, step)
			}
		}
		if got := s.ws.table().Count(); got != 0 {
			t.Errorf("got %d rows of a check, want none without --write-probe", got)
		}
		if got := s.check(t, 0, []string{"--write-probe"})["write probe"]; got.Status != "ok" || !strings.Contains(got.Detail, "confirms with the count of rows") {
			t.Errorf("write probe: got %+v, want ok and the form of the confirmation", got)
		}
		if rows := s.ws.table().Newest(10); len(rows) != 1 {
			t.Errorf("got %d rows of --write-probe, want 1", len(rows))
		} else if name, _ := rows[0].Value("event_name"); name != "bridge_check" {
			t.Errorf("got event name %q, want bridge_check", name)
		}

		fails := func(step string, want []string, sets ...string) {
			t.Helper()
			got := s.check(t, 1, nil, sets...)[step]
			if got.Status != "failed" {
				t.Errorf("%s: got %+v, want failed", step, got)
			}
			wants(t, got.Error, want...)
		}
		nobody := kafkatest.FreeAddress(t)
		fails("kafka", []string{"kafka.brokers", nobody}, "kafka.brokers="+nobody)
		fails("topic", []string{"absent.topic", "does not exist", "kafka.topics"}, "kafka.topics=absent.topic")
		fails("dead-letter topic", []string{"kafka-topics.sh", "--create", "rejects.create"}, "rejects.create=false")
		fails("configuration", []string{"zerobus.table"}, "zerobus.table=a.b")

		fails("token", []string{"401", "generate a new OAuth secret"}, "zerobus.client_secret_file="+s.wrongSecret(t))
		must(t, s.ws.Revoke(emulator.PrivilegeModify, tableName))
		fails("ingest", []string{"403", "GRANT", "MODIFY"})
		must(t, s.ws.Grant(emulator.PrivilegeModify, tableName))
		s.ws.SetIngestAPI(false)
		fails("ingest", []string{"404", "Zerobus Ingest is enabled"})
		s.ws.SetIngestAPI(true)
		must(t, s.ws.table().DropColumn("locale"))
		fails("columns", []string{"locale", "ALTER TABLE `datafly`.`events`.`stream` ADD COLUMN", "STRING"})
		must(t, s.ws.table().AddColumn(emulator.Column{Name: "locale", Type: "STRING"}))
		must(t, s.ws.Revoke(emulator.PrivilegeSelect, tableName))
		if got := s.check(t, 0, nil)["columns"]; got.Status != "warning" || !strings.Contains(got.Warning, "cannot be read") || !strings.Contains(got.Warning, "GRANT SELECT") {
			t.Errorf("columns that may not be read: got %+v, want a warning with the grants", got)
		}
		if got := committed(t, s.adm, s.group, s.topic); len(got) != 0 {
			t.Errorf("got offsets %v committed by a check, want none", got)
		}
	})
}

// wrongSecret is a file with one.
func (s *stage) wrongSecret(t *testing.T) string {
	t.Helper()
	file := t.TempDir() + "/secret"
	wrong := newSecret()
	s.e.secret("a wrong secret", wrong)
	must(t, os.WriteFile(file, []byte(wrong), 0o600))
	return file
}

func TestCheckInWords(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		must(t, s.ws.Revoke(emulator.PrivilegeModify, tableName))
		p, code := run(t, s.e, command{args: s.args("check")})
		if code != 1 {
			t.Errorf("got exit code %d, want 1", code)
		}
		lines := strings.Split(strings.TrimSpace(p.stdout.String()), "\n")
		if len(lines) != 15 {
			t.Errorf("got %d lines, want one for each of 15 steps:\n%s", len(lines), p.stdout.String())
		}
		wants(t, p.stdout.String(), "ok       cluster ", "failed   ", "GRANT MODIFY ON TABLE")
	})
}

// A permission that Kafka denies fails the step that needs it, with the command
// that grants it.
func TestCheckNamesTheACL(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		if s.broker.Apache() {
			t.Skip("these brokers have no ACLs; TestAccessNamesTheACLToAdd in consumer has Apache Kafka with them")
		}
		for _, tc := range []struct {
			key    kmsg.Key
			err    *kerr.Error
			step   string
			remedy string
		}{
			{kmsg.Fetch, kerr.TopicAuthorizationFailed, "topic", "--operation Read --topic " + s.topic},
			{kmsg.FindCoordinator, kerr.GroupAuthorizationFailed, "group", "--operation Read --group " + s.group},
			{kmsg.CreateTopics, kerr.TopicAuthorizationFailed, "dead-letter topic", "--operation Create --topic " + s.topic + "-dlq"},
			{kmsg.Produce, kerr.TopicAuthorizationFailed, "dead-letter topic", "--operation Write --topic " + s.topic + "-dlq"},
		} {
			fault := s.broker.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{tc.key}, Err: tc.err, Count: -1})
			for name, step := range s.check(t, 1, nil) {
				if (step.Status == "failed") != (name == tc.step) {
					t.Errorf("%v %v: got %s %+v, want %s alone to fail", tc.key, tc.err, name, step, tc.step)
				}
				if name == tc.step {
					wants(t, step.Error, "run: kafka-acls.sh --bootstrap-server "+s.broker.Addrs()[0]+" --add --allow-principal User:ANONYMOUS "+tc.remedy)
				}
			}
			fault.Remove()
		}
		if found, err := s.adm.ListTopics(t.Context()); err != nil || found.Has(s.topic+"-dlq") {
			t.Errorf("a check has created the dead-letter topic (%v)", err)
		}
	})
}
