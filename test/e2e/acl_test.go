package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// documentedACLs are the kafka-acls.sh commands of docs/security.md, in words.
func documentedACLs(t *testing.T) (commands [][]string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/security.md")
	must(t, err)
	for _, command := range strings.Split(strings.ReplaceAll(string(page), "\\\n", " "), "\n") {
		if strings.HasPrefix(command, "kafka-acls.sh ") {
			commands = append(commands, strings.Fields(command))
		}
	}
	if len(commands) != 4 {
		t.Fatalf("got %d kafka-acls.sh commands in docs/security.md, want 4", len(commands))
	}
	return commands
}

// allow does what a documented command does, for another user and another topic prefix.
func allow(t *testing.T, adm *kadm.Client, user, topics string, command []string) {
	t.Helper()
	flag := func(name string) (values []string) {
		for i, word := range command {
			if word == name {
				values = append(values, command[i+1])
			}
		}
		return values
	}
	if !slices.Equal(flag("--resource-pattern-type"), []string{"prefixed"}) {
		t.Fatalf("%q is not by prefix", command)
	}
	acl := kadm.NewACLs().Allow("User:" + user).AllowHosts("*").ResourcePatternType(kadm.ACLPatternPrefixed)
	var ops []kadm.ACLOperation
	for _, name := range flag("--operation") {
		op, err := kmsg.ParseACLOperation(name)
		must(t, err)
		ops = append(ops, op)
	}
	acl.Operations(ops...)
	if len(flag("--topic")) > 0 {
		acl.Topics(topics)
	}
	if group := flag("--group"); len(group) > 0 {
		acl.Groups(group...)
	}
	ctx, cancel := within()
	defer cancel()
	created, err := adm.CreateACLs(ctx, acl)
	must(t, err)
	for _, one := range created {
		must(t, one.Err)
	}
}

var login = regexp.MustCompile(`username: \S+, password_file: \S+}`)

// TestPermissionsByPrefix runs the commands of docs/security.md and then everything that
// they are for; and for each command but the last, something fails without it.
func TestPermissionsByPrefix(t *testing.T) {
	t.Parallel()
	jaas := `user_bridge="kafkatest-password" user_limited="pw"`
	for i := range 3 {
		jaas += fmt.Sprintf(` user_without%d="pw"`, i)
	}
	kafkatest.Each(t, kafkatest.Options{SASL: kafkatest.Plain, Private: true, Config: map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":           "User:ANONYMOUS;User:bridge",
		"listener.name.client.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required " + jaas + ";",
	}}, func(t *testing.T, b kafkatest.Broker) {
		if !b.Apache() {
			t.Skip("kfake asks for no ACL where a group does not exist")
		}
		s := newStage(t, b, setting{noTopic: true})
		commands := documentedACLs(t)
		prefix := "delivery-"
		topics := map[string]string{"orders": prefix + "orders", "clicks": prefix + "clicks"}
		for name, topic := range topics {
			b.CreateTopic(t, topic, 1, nil)
			s.ws.create(strings.Replace(emulator.DefaultDDL, tableName, "datafly.events."+name, 1))
		}
		// as writes the configuration of a user, without a topic and a table in the base.
		as := func(user string) string {
			text, err := os.ReadFile(s.config)
			must(t, err)
			config := ofOneTable.ReplaceAllString(string(text), "")
			config = login.ReplaceAllString(config, "username: "+user+", password_file: "+file(t, "password", "pw")+"}")
			config += "integrations:\n"
			for name, topic := range topics {
				config += fmt.Sprintf("  %s: {kafka: {topics: [%s]}, zerobus: {table: %s}}\n", name, topic, name)
			}
			return file(t, user+".yaml", config)
		}
		// succeeds runs a command until it does: an ACL takes a moment to be known.
		succeeds := func(args ...string) {
			t.Helper()
			var said string
			eventually(t, patience, "bridge "+strings.Join(args, " "), func() bool {
				p, code := run(t, s.e, command{args: args})
				said = p.stdout.String() + tail(p.stderr.String())
				return code == 0
			}, func() string { return said })
		}

		limited := as("limited")
		p, code := run(t, s.e, command{args: []string{"check", "--config", limited}})
		if code == 0 {
			t.Errorf("bridge check without a permission: got exit code 0, or this test proves nothing:\n%s", p.stdout.String())
		}
		for _, command := range commands {
			allow(t, s.adm, "limited", prefix, command)
		}
		succeeds("check", "--config", limited)

		joint := *s
		joint.config = limited
		m := joint.beginReady()
		records := []*kgo.Record{}
		for _, topic := range topics {
			records = append(records, &kgo.Record{Topic: topic, Value: event(topic, 0)}, &kgo.Record{Topic: topic, Value: []byte("no JSON")})
		}
		ctx, cancel := within()
		defer cancel()
		must(t, s.p.cl.ProduceSync(ctx, records...).FirstErr())
		for name, topic := range topics {
			eventually(t, patience, name+" has its row, its dead letter and its offset", func() bool {
				m.alive()
				return s.ws.Table("datafly.events."+name).Count() == 1 && length(t, s.adm, topic+"-dlq-"+name) == 1 && sum(committed(t, s.adm, "zerobus-bridge-"+name, topic)) == 2
			}, func() string { return tail(m.stderr.String()) })
		}
		succeeds("status", "--address", m.address)
		// The state of the groups comes from Kafka.
		if status, body := m.get("/status?scope=group", "application/json"); status != http.StatusOK || strings.Contains(body, "AUTHORIZATION") || !strings.Contains(body, `"Stable"`) {
			t.Errorf("/status?scope=group: got %d and %s", status, body)
		}
		succeeds("dlq", "list", "--config", limited, "--integration", "orders")
		m.terminate(s.drain + time.Second + slack)
		// The dead letter is no JSON still: a redrive reads it and has nothing to write.
		if p, code := run(t, s.e, command{args: []string{"dlq", "redrive", "--config", limited, "--integration", "orders"}}); code != 1 || !strings.Contains(p.stdout.String(), "still rejected") {
			t.Errorf("redrive: got exit code %d and %s%s", code, p.stdout.String(), tail(p.stderr.String()))
		}
		succeeds("replay", "--config", limited, "--integration", "orders", "--to", "earliest", "--execute", "--reason", "test")
		succeeds("run", "--config", limited, "--integration", "orders", "--group", "zerobus-bridge-again", "--from", "earliest", "--until", "now", "--ops-address", kafkatest.FreeAddress(t))

		// Without one of them: the first three are seen by check, which reads nothing.
		for without := range 3 {
			user := fmt.Sprintf("without%d", without)
			for i, command := range commands {
				if i != without {
					allow(t, s.adm, user, prefix, command)
				}
			}
			config := as(user)
			want := []string{"--operation Read --topic", "--operation Read --group", "--operation Write --topic"}[without]
			eventually(t, patience, user+" sees what is missing", func() bool {
				p, code := run(t, s.e, command{args: []string{"check", "--config", config}})
				said := p.stdout.String() + tail(p.stderr.String())
				return code == 1 && strings.Contains(strings.Join(strings.Fields(said), " "), want)
			})
		}
	})
}
