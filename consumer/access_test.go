package consumer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// eachGuarded runs body on Apache Kafka with ACLs; nothing is allowed to the user
// of the configuration. adm is an administrator.
func eachGuarded(t *testing.T, protocol string, body func(t *testing.T, b kafkatest.Broker, cfg consumer.Config, adm *kadm.Client)) {
	t.Helper()
	const user, pass = "limited", "limited-password"
	kafkatest.Each(t, kafkatest.Options{SASL: kafkatest.Plain, Private: true, Config: map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":           "User:ANONYMOUS;User:bridge",
		"listener.name.client.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required " +
			`user_bridge="kafkatest-password" user_` + user + `="` + pass + `";`,
	}}, func(t *testing.T, b kafkatest.Broker) {
		if !b.Apache() {
			t.Skip("kfake asks for no ACL where a group does not exist")
		}
		kafkatest.NeedProtocol(t, b, protocol)
		cfg := config(t, b, kafkatest.Topic(t, b, 2))
		cfg.Protocol = protocol
		cfg.Kafka.SASL.Username, cfg.Kafka.SASL.ReadPassword = user, password(pass)
		body(t, b, cfg, kadm.NewClient(client(t, b)))
	})
}

// access asks for everything that a run needs, as bridge check does.
func access(ctx context.Context, c *consumer.Cluster) error {
	if _, err := c.Topics(ctx); err != nil {
		return err
	}
	if _, err := c.Readable(ctx); err != nil {
		return err
	}
	if err := c.CanRead(ctx); err != nil {
		return err
	}
	if err := c.CanJoin(ctx); err != nil {
		return err
	}
	deadLetters, err := c.DeadLetterTopics(ctx)
	if err != nil {
		return err
	}
	return c.CanReject(ctx, deadLetters)
}

// grant does what the kafka-acls.sh command in an error states, and returns it.
func grant(t *testing.T, adm *kadm.Client, err error) string {
	t.Helper()
	var failure *kafka.Error
	if !errors.As(err, &failure) || !failure.Permanent {
		t.Fatalf("got %v, want a permanent *KafkaError", err)
	}
	if strings.Contains(failure.Remedy, "set rejects.create") {
		t.Errorf("the remedy %q advises what is set already", failure.Remedy)
	}
	_, command, found := strings.Cut(failure.Remedy, "run: kafka-acls.sh ")
	command, _, _ = strings.Cut(command, ";")
	words := strings.Fields(command)
	if !found || !slices.Contains(words, "--add") || !slices.Contains(words, "--command-config") {
		t.Fatalf("the remedy %q has no command that adds an ACL", failure.Remedy)
	}
	flag := func(name string) string {
		if i := slices.Index(words, name); i >= 0 {
			return words[i+1]
		}
		return ""
	}
	op, perr := kmsg.ParseACLOperation(flag("--operation"))
	if perr != nil {
		t.Fatal(perr)
	}
	acl := kadm.NewACLs().Allow(flag("--allow-principal")).AllowHosts("*").Operations(op).ResourcePatternType(kadm.ACLPatternLiteral)
	what := flag("--operation") + " "
	switch {
	case flag("--topic") != "":
		acl.Topics(flag("--topic"))
		what += "topic " + flag("--topic")
	case flag("--group") != "":
		acl.Groups(flag("--group"))
		what += "group " + flag("--group")
	default:
		t.Fatalf("the remedy %q names no resource", failure.Remedy)
	}
	created, cerr := adm.CreateACLs(t.Context(), acl)
	if cerr != nil || len(created) != 1 || created[0].Err != nil {
		t.Fatalf("creating the ACL of %q: %v %+v", command, cerr, created)
	}
	return what
}

// The ACLs that the errors name are those a run needs, and all of them: a user
// to whom nothing was allowed delivers once the commands were run, and asking
// had no effect.
func TestAccessNamesTheACLToAdd(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			eachGuarded(t, protocol, func(t *testing.T, b kafkatest.Broker, cfg consumer.Config, adm *kadm.Client) {
				topic, dlq := cfg.Topics[0], cfg.Topics[0]+"-dlq"
				produce(t, b, topic, 2, "e1", "bad2", "e3")
				cluster, _, _ := newCluster(t, cfg)
				var granted []string
				eventually(t, "all access is granted", func() bool {
					err := access(t.Context(), cluster)
					if err == nil {
						return true
					}
					// An ACL takes a moment to be known to the broker.
					if what := grant(t, adm, err); !slices.Contains(granted, what) {
						granted = append(granted, what)
					}
					return false
				})
				want := []string{"Read topic " + topic, "Read group " + cfg.Group, "Write topic " + dlq, "Create topic " + dlq}
				if slices.Sort(granted); !slices.Equal(granted, sorted(want)) {
					t.Errorf("granted %q, want %q", granted, sorted(want))
				}
				if groups, err := adm.ListGroups(t.Context()); err != nil || len(groups) != 0 {
					t.Errorf("asking has made groups %v (%v)", groups.Groups(), err)
				}
				if found, err := adm.ListTopics(t.Context(), dlq); err != nil || found.Has(dlq) {
					t.Errorf("asking has created %s (%v)", dlq, err)
				}

				tab := newTable(t)
				m := start(t, cfg, tab)
				eventually(t, "all rows delivered", func() bool { return tab.distinct() == 2 })
				eventually(t, "the dead letter was written", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 1 })
				m.stop()
				tab.verify([]string{"e1", "e3"})
				wantAllCommitted(t, b, cfg.Group, topic)
				if err := access(t.Context(), cluster); err != nil {
					t.Errorf("with a dead-letter topic that exists: %v", err)
				}
				if got := endOf(t, b, dlq); got != 1 {
					t.Errorf("the dead-letter topic holds %d records after asking again, want the 1 of the run", got)
				}
			})
		})
	}
}

func sorted(all []string) []string {
	slices.Sort(all)
	return all
}

// A run that lacks READ on its group, or WRITE on the dead-letter topic, states
// which ACL to add while it waits.
func TestRunNamesTheACLToAdd(t *testing.T) {
	t.Parallel()
	eachGuarded(t, "classic", func(t *testing.T, b kafkatest.Broker, cfg consumer.Config, adm *kadm.Client) {
		topic, dlq := cfg.Topics[0], cfg.Topics[0]+"-dlq"
		b.CreateTopic(t, dlq, 1, nil)
		produce(t, b, topic, 2, "e1", "bad2", "e3")
		allow := func(op kadm.ACLOperation, on func(*kadm.ACLBuilder)) {
			t.Helper()
			acl := kadm.NewACLs().Allow("User:limited").AllowHosts("*").Operations(op).ResourcePatternType(kadm.ACLPatternLiteral)
			on(acl)
			if created, err := adm.CreateACLs(t.Context(), acl); err != nil || created[0].Err != nil {
				t.Fatal(err, created)
			}
		}
		allow(kadm.OpDescribe, func(acl *kadm.ACLBuilder) { acl.Topics(dlq) })
		allow(kadm.OpRead, func(acl *kadm.ACLBuilder) { acl.Topics(topic) })
		cluster, _, _ := newCluster(t, cfg)
		eventually(t, "the broker knows the ACLs", func() bool {
			return cluster.CanRead(t.Context()) == nil && cluster.EnsureDeadLetters(t.Context()) == nil
		})
		tab := newTable(t)
		m := start(t, cfg, tab)
		remedied := func(code, want string) func() bool {
			return func() bool {
				return slices.ContainsFunc(m.Status().NotReady, func(r consumer.NotReady) bool { return r.Code == code && strings.Contains(r.Remedy, want) })
			}
		}
		const acls = " --add --allow-principal User:limited --operation "
		eventually(t, "the ACL on the group is named", remedied("fetch_failing", acls+"Read --group "+cfg.Group))
		allow(kadm.OpRead, func(acl *kadm.ACLBuilder) { acl.Groups(cfg.Group) })
		eventually(t, "the ACL on the dead-letter topic is named", remedied("partition_blocked", acls+"Write --topic "+dlq))
		allow(kadm.OpWrite, func(acl *kadm.ACLBuilder) { acl.Topics(dlq) })
		eventually(t, "the dead letter was written", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 1 })
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == 2 })
		m.stop()
		tab.verify([]string{"e1", "e3"})
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// Each answer of a broker brings its own remedy, in one line and at readiness.
func TestGroupAndFetchErrorsHaveTheirOwnRemedy(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		key  kmsg.Key
		err  *kerr.Error
		want string
	}{
		{kmsg.JoinGroup, kerr.InconsistentGroupProtocol, "give the bridge a group of its own (kafka.group)"},
		{kmsg.JoinGroup, kerr.InvalidSessionTimeout, "group.max.session.timeout.ms"},
		{kmsg.JoinGroup, kerr.GroupMaxSizeReached, "group.max.size"},
		{kmsg.JoinGroup, kerr.InvalidGroupID, "kafka.group"},
		{kmsg.Fetch, kerr.TopicAuthorizationFailed, "kafka-acls.sh"},
		{kmsg.Fetch, kerr.UnsupportedForMessageFormat, "message.format.version"},
	} {
		t.Run(tc.err.Message, func(t *testing.T) {
			t.Parallel()
			b := kafkatest.StartFake(t, kafkatest.Options{})
			cfg := config(t, b, kafkatest.Topic(t, b, 1))
			b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{tc.key}, Err: tc.err, Count: -1})
			m := start(t, cfg, newTable(t))
			eventually(t, "readiness names the remedy", func() bool {
				return slices.ContainsFunc(m.Status().NotReady, func(r consumer.NotReady) bool {
					return strings.Contains(r.Remedy, tc.want) && strings.Contains(r.Text, tc.err.Message)
				})
			})
			if got := m.logged(0, tc.want); got != 1 {
				t.Errorf("got %d lines with the remedy, want 1", got)
			}
			m.stop()
		})
	}
}

// A refused commit has its remedy in the log, once.
func TestCommitErrorsHaveTheirOwnRemedy(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	cfg, tab := config(t, b, topic), newTable(t)
	b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: cfg.Group, Err: kerr.InvalidCommitOffsetSize, Count: -1})
	m := start(t, cfg, tab)
	produce(t, b, topic, 1, "e1")
	eventually(t, "the remedy is logged", func() bool { return m.logged(0, "raise max.message.bytes of topic __consumer_offsets") == 1 })
	m.stop()
}

// Another consumer with another assignor holds the group: the bridge reports it,
// and joins when it has left.
func TestForeignAssignor(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, "e1")
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Rejects.Policy = consumer.PolicySkip
		other := client(t, b, kgo.ConsumerGroup(cfg.Group), kgo.ConsumeTopics(kafkatest.Topic(t, b, 1)), kgo.Balancers(kgo.RangeBalancer()))
		adm := kadm.NewClient(client(t, b))
		eventually(t, "the other consumer has joined", func() bool {
			groups, err := adm.DescribeGroups(t.Context(), cfg.Group)
			return err == nil && groups[cfg.Group].State == "Stable"
		})
		m := start(t, cfg, tab)
		eventually(t, "readiness names the remedy", func() bool {
			return slices.ContainsFunc(m.Status().NotReady, func(r consumer.NotReady) bool {
				return strings.Contains(r.Text, "INCONSISTENT_GROUP_PROTOCOL") && strings.Contains(r.Remedy, "give the bridge a group of its own (kafka.group)")
			})
		})
		other.Close()
		eventually(t, "the event delivered once the other has left", func() bool { return tab.distinct() == 1 })
		m.stop()
	})
}

// On brokers before Kafka 4.0 a member whose protocol is consumer joins by classic, and
// the check finds nothing wrong with that. Kafka 3.7 to 3.9 know the request and refuse
// it, earlier releases do not know it.
func TestProtocolConsumerOnOlderBrokers(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		if fake := b.Fake(); fake != nil { // as Kafka 3.9
			fake.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
				fake.KeepControl()
				switch resp := req.ResponseKind().(type) {
				case *kmsg.ConsumerGroupHeartbeatResponse:
					resp.ErrorCode = kerr.UnsupportedVersion.Code
					return resp, nil, true
				case *kmsg.ApiVersionsResponse:
					kversion.Stable().EachMaxKeyVersion(func(key, version int16) {
						if key == int16(kmsg.ConsumerGroupHeartbeat) {
							version = 0
						}
						resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: key, MaxVersion: version})
					})
					return resp, nil, true
				}
				return nil, nil, false
			})
		}
		topic := kafkatest.Topic(t, b, 2)
		produce(t, b, topic, 2, "e1", "e2")
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Protocol = "consumer"
		cluster, _, _ := newCluster(t, cfg)
		if err := cluster.CanJoin(t.Context()); err != nil {
			t.Errorf("got %v, want nil", err)
		}
		if !b.Apache() {
			return // it does not know all the versions that it lists here
		}
		m := start(t, cfg, tab)
		eventually(t, "both rows", func() bool { return tab.count() == 2 })
		m.stop()
	})
}
