package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// refused makes a change that must fail with a problem.
func refused(t testing.TB, s *store.Store, code string) *store.Problem {
	t.Helper()
	_, err := s.Update(within(t), "refused", installing("refused"))
	var p *store.Problem
	if !errors.As(err, &p) || p.Code != code || !errors.Is(err, store.ErrUnavailable) || p.Remedy == "" || !strings.HasSuffix(err.Error(), p.Remedy) {
		t.Fatalf("got %v, want the problem %s and its remedy", err, code)
	}
	return p
}

func TestKafkaDown(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{Private: true}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		f := follow(t, o)
		update(t, f.Store, "r1", installing("orders"))
		f.await(t, "orders@1")
		b.StopAll(t)
		f.await(t, "orders@1 !unreachable")
		refused(t, f.Store, store.Unreachable)
		if _, err := f.Read(within(t)); err == nil {
			t.Error("reading without a broker: got no error")
		}
		b.StartAll(t)
		f.await(t, "orders@1")
		if state := update(t, f.Store, "r2", renaming("orders", "again")); slugs(state) != "orders@2" {
			t.Errorf("got %s after the restart, want orders@2", slugs(state))
		}
	})
}

// A process that stops does not wait for a broker that takes connections and answers
// nothing.
func TestCloseWhileKafkaIsSilent(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, silent.Close()) }()
	s := store.New(store.Options{Topic: "t", Connection: kafka.Connection{Brokers: []string{silent.Addr().String()}, ClientID: "test"}, Log: zap.NewNop()})
	asked, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		close(asked)
		_, err := s.Update(within(t), "r1", installing("orders"))
		ended <- err
	}()
	<-asked
	began := time.Now()
	if _, err := silent.Accept(); err != nil { // it is under way
		t.Fatal(err)
	}
	s.Close()
	if err := <-ended; err == nil || time.Since(began) > 8*time.Second {
		t.Errorf("closed after %v, and the change got %v; want an error within a second or so, not after 10", time.Since(began), err)
	}
}

// A store that is gone is never taken for an empty one.
func TestStoreIsGone(t *testing.T) {
	t.Parallel()
	setPolicy := func(t *testing.T, adm *kadm.Client, topic, policy string) {
		_, err := adm.AlterTopicConfigs(within(t), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &policy}}, topic)
		must(t, err)
	}
	for name, lose := range map[string]func(t *testing.T, b kafkatest.Broker, topic string){
		"deleted": func(t *testing.T, b kafkatest.Broker, topic string) {
			_, err := admin(t, b).DeleteTopics(within(t), topic)
			must(t, err)
		},
		"created again": func(t *testing.T, b kafkatest.Broker, topic string) {
			_, err := admin(t, b).DeleteTopics(within(t), topic)
			must(t, err)
			compacted := map[string]string{"cleanup.policy": "compact"}
			await.That(t, "the topic is gone", func() bool {
				_, err := admin(t, b).CreateTopic(within(t), 1, -1, map[string]*string{"cleanup.policy": kadm.StringPtr(compacted["cleanup.policy"])}, topic)
				return err == nil
			})
		},
		"emptied": func(t *testing.T, b kafkatest.Broker, topic string) {
			adm := admin(t, b)
			setPolicy(t, adm, topic, "delete")
			offsets := kadm.Offsets{}
			offsets.AddOffset(topic, 0, -1, -1)
			await.That(t, "the records are deleted", func() bool {
				answer, err := adm.DeleteRecords(within(t), offsets)
				return err == nil && answer.Error() == nil
			})
			setPolicy(t, adm, topic, "compact")
		},
		"of another store": func(t *testing.T, b kafkatest.Broker, topic string) {
			put(t, b, topic, "store", `{"store_id":"store_other","format":1}`)
		},
		"without a sentinel": func(t *testing.T, b kafkatest.Broker, topic string) {
			must(t, client(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner())).ProduceSync(within(t), &kgo.Record{Topic: topic, Key: []byte("store")}).FirstErr())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				o := options(b, kafkatest.Name(t))
				f := follow(t, o)
				state := update(t, f.Store, "r1", installing("orders"))
				update(t, f.Store, "r2", installing("carts"))
				lose(t, b, o.Topic)
				f.await(t, "carts@1 orders@1 !missing")
				refused(t, f.Store, store.Missing)
				if p := f.Verify(within(t)); p == nil || p.Code != store.Missing {
					t.Errorf("got %v, want the problem", p)
				}
				fresh := open(t, o)
				if name != "of another store" { // which is a sound one for who knows nothing
					if now, err := fresh.Read(within(t)); !errors.Is(err, store.ErrUnavailable) || now.Known {
						t.Errorf("a new process: got %+v, %v, want the problem", now, err)
					}
					refused(t, fresh, store.Missing)
				}
				// An import brings back what it has, from the process that knows the store.
				back, err := f.Restore(within(t), "import", state.StoreID, []store.Record{*record("orders")}, entry("integration.imported"))
				must(t, err)
				if back.StoreID != state.StoreID || slugs(back) != "orders@2" {
					t.Errorf("got %s of %s, want orders@2 of %s", slugs(back), back.StoreID, state.StoreID)
				}
				f.await(t, "orders@2")
				if now := update(t, fresh, "r3", renaming("orders", "after")); slugs(now) != "orders@3" {
					t.Errorf("got %s after the import, want orders@3", slugs(now))
				}
				f.await(t, "orders@3")
				if _, err := f.Restore(within(t), "again", "", nil, entry("integration.imported")); !errors.Is(err, store.ErrRefused) {
					t.Errorf("got %v, want a refusal to replace a sound store", err)
				}
			})
		})
	}
}

// An import by one process is taken over by the others, which knew more.
func TestRestoredByAnother(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		f := follow(t, o)
		update(t, f.Store, "r1", installing("orders"))
		update(t, f.Store, "r2", renaming("orders", "new"))
		update(t, f.Store, "r3", installing("carts"))
		_, err := admin(t, b).DeleteTopics(within(t), o.Topic)
		must(t, err)
		f.await(t, "carts@1 orders@2 !missing")
		old := record("orders")
		old.Revision = 1
		_, err = open(t, o).Restore(within(t), "import", "", []store.Record{*old}, entry("integration.imported"))
		must(t, err)
		f.await(t, "orders@2")
	})
}

// Brokers without transactions, such as Apache Kafka 2.8 in KRaft mode, cannot hold a
// store, and the remedy is not to look at the network.
func TestBrokersWithoutTransactions(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	b.Fake().ControlKey(int16(kmsg.ApiVersions), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.Fake().KeepControl()
		resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
		kversion.Stable().EachMaxKeyVersion(func(key, version int16) {
			if key != int16(kmsg.InitProducerID) {
				resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: key, MaxVersion: version})
			}
		})
		return resp, nil, true
	})
	p := open(t, options(b, kafkatest.Name(t))).Verify(within(t))
	if p == nil || p.Code != store.NoTransactions || !strings.Contains(p.Remedy, "support transactions") || strings.Contains(p.Remedy, "network") {
		t.Errorf("got %+v, want the code no_transactions and brokers that support them as the remedy", p)
	}
}

func TestWrongPolicy(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, topic, audit string
		partitions         int32
		remedy             string
	}{
		{"deletes", "delete", "delete", 1, "--add-config cleanup.policy=compact"},
		{"compacts and deletes", "compact,delete", "delete", 1, "--add-config cleanup.policy=compact"},
		{"compacts the audit log", "compact", "compact", 1, "--add-config cleanup.policy=delete"},
		{"two partitions", "compact", "delete", 2, "bridge integrations export"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				o := options(b, kafkatest.Name(t))
				b.CreateTopic(t, o.Topic, tc.partitions, map[string]string{"cleanup.policy": tc.topic})
				b.CreateTopic(t, o.Topic+"-audit", 1, map[string]string{"cleanup.policy": tc.audit})
				s := open(t, o)
				if p := s.Verify(within(t)); p == nil || p.Code != store.WrongPolicy || !strings.Contains(p.Remedy, tc.remedy) {
					t.Errorf("got %v, want a remedy with %s", p, tc.remedy)
				}
				refused(t, s, store.WrongPolicy)
				f := follow(t, o)
				f.await(t, "!wrong_policy")
				if tc.partitions == 2 {
					return
				}
				for topic, policy := range map[string]string{o.Topic: "compact", o.Topic + "-audit": "delete"} {
					_, err := admin(t, b).AlterTopicConfigs(within(t), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &policy}}, topic)
					must(t, err)
				}
				f.await(t, "")
				update(t, s, "r1", installing("orders"))
			})
		})
	}
}

// A policy that changes later is found within an hour, and by a change within a minute.
func TestPolicyChanges(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		var ahead atomic.Int64 // of the clock
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		f, s := follow(t, o), open(t, o)
		update(t, s, "r1", installing("orders"))
		f.await(t, "orders@1")
		_, err := admin(t, b).AlterTopicConfigs(within(t), []kadm.AlterConfig{{Name: "cleanup.policy", Value: kadm.StringPtr("delete")}}, o.Topic)
		must(t, err)
		other := open(t, o)
		await.That(t, "the broker describes the new policy", func() bool {
			p := other.Verify(within(t))
			return p != nil && p.Code == store.WrongPolicy
		})
		ahead.Add(int64(time.Minute + time.Second))
		refused(t, s, store.WrongPolicy)
		ahead.Add(int64(time.Hour))
		f.await(t, "orders@1 !wrong_policy")
	})
}

// A partition that is added later makes the store read-only, too.
func TestPartitionIsAdded(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		f := follow(t, o)
		update(t, f.Store, "r1", installing("orders"))
		_, err := admin(t, b).CreatePartitions(within(t), 1, o.Topic)
		must(t, err)
		f.await(t, "orders@1 !wrong_policy")
		refused(t, f.Store, store.WrongPolicy)
	})
}

// The topics are safe where there are three brokers, whatever their default is.
func TestTopicsAreReplicated(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{Brokers: 3, Config: map[string]string{"default.replication.factor": "1"}}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		update(t, open(t, o), "r1", installing("orders"))
		adm := admin(t, b)
		found, err := adm.ListTopics(within(t), o.Topic, o.Topic+"-audit")
		must(t, err)
		configs, err := adm.DescribeTopicConfigs(within(t), o.Topic, o.Topic+"-audit")
		must(t, err)
		want := map[string]map[string]string{
			o.Topic:            {"cleanup.policy": "compact", "min.insync.replicas": "2"},
			o.Topic + "-audit": {"cleanup.policy": "delete", "min.insync.replicas": "2", "retention.ms": "7776000000"},
		}
		for _, c := range configs {
			for _, kv := range c.Configs {
				if w, ok := want[c.Name][kv.Key]; ok && kv.MaybeValue() != w {
					t.Errorf("%s of %s: got %s, want %s", kv.Key, c.Name, kv.MaybeValue(), w)
				}
			}
		}
		for topic := range want {
			if d := found[topic]; len(d.Partitions) != 1 || d.Partitions.NumReplicas() != 3 {
				t.Errorf("%s has %d partitions with %d replicas, want 1 with 3", topic, len(d.Partitions), d.Partitions.NumReplicas())
			}
		}
	})
}

// A commit whose answer is lost was a commit or was none: the change is written once.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		for _, committed := range []bool{true, false} {
			t.Run(fmt.Sprintf("committed %v", committed), func(t *testing.T) {
				o := options(b, kafkatest.Name(t))
				s, other := open(t, o), open(t, o)
				update(t, s, "r1", installing("orders"))
				attempts := 0
				s.BeforeCommit(func(id int64, epoch int16) {
					if attempts++; attempts > 1 {
						return
					}
					if committed {
						req := kmsg.NewPtrEndTxnRequest()
						req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = o.Topic, id, epoch, true
						resp, err := req.RequestWith(within(t), client(t, b))
						must(t, err)
						if resp.ErrorCode != 0 {
							t.Errorf("committing: code %d", resp.ErrorCode)
						}
					}
					update(t, other, "between", renaming("orders", "other"))
				})
				update(t, s, "r2", renaming("orders", "ours"))
				state, err := other.Read(within(t))
				must(t, err)
				want, tries := "other", 1
				if !committed {
					want, tries = "ours", 2
				}
				if slugs(state) != "orders@3" || state.Records[0].Name != want || attempts != tries {
					t.Errorf("got %s named %s after %d attempts, want orders@3 named %s after %d", slugs(state), state.Records[0].Name, attempts, want, tries)
				}
				entries, err := s.Audit(within(t), 10, func(e *store.Entry) bool { return e.RequestID == "r2" })
				if err != nil || len(entries) != 1 {
					t.Errorf("got %d audit entries, %v, want 1", len(entries), err)
				}
			})
		}
	})
}

// All brokers are killed between produce and commit. The change is there or not, as the
// answer states, and the audit log agrees.
func TestBrokerIsKilled(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{Private: true}, func(t *testing.T, b kafkatest.Broker) {
		s := open(t, options(b, kafkatest.Name(t)))
		update(t, s, "r1", installing("orders"))
		killed := false
		s.BeforeCommit(func(int64, int16) {
			if !killed {
				killed = true
				b.StopAll(t)
				b.StartAll(t)
			}
		})
		_, err := s.Update(within(t), "r2", renaming("orders", "r2"))
		t.Logf("the change during the kill: %v", err)
		if err != nil && !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("got %v, want an error about the store", err)
		}
		await.That(t, "the next change is written", func() bool {
			_, err := s.Update(within(t), "r3", renaming("orders", "r3"))
			return err == nil
		})
		state, readErr := s.Read(within(t))
		must(t, readErr)
		entries, readErr := s.Audit(within(t), 10, func(e *store.Entry) bool { return e.RequestID != "r3" })
		must(t, readErr)
		if err == nil && len(entries) != 2 || err != nil && !errors.Is(err, store.ErrOutcome) && len(entries) != 1 || state.Records[0].Revision != int64(len(entries)+1) {
			t.Errorf("got %s, %d entries before the last change and %v", slugs(state), len(entries), err)
		}
	})
}

func TestForeignTransaction(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		var ahead atomic.Int64 // of the clock
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		f := follow(t, o)
		update(t, f.Store, "r1", installing("orders"))
		other := client(t, b, kgo.TransactionalID(kafkatest.Name(t)), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		must(t, other.BeginTransaction())
		must(t, other.ProduceSync(within(t), &kgo.Record{Topic: o.Topic, Key: []byte("x")}).FirstErr())
		if p := refused(t, f.Store, store.OpenTransaction); !strings.Contains(p.Remedy, "kafka-transactions.sh") {
			t.Errorf("the remedy is %q", p.Remedy)
		}
		ahead.Store(int64(time.Minute))
		f.await(t, "orders@1 !open_transaction")
		must(t, other.EndTransaction(within(t), kgo.TryAbort))
		f.await(t, "orders@1")
		update(t, f.Store, "r2", renaming("orders", "again"))
	})
}

func TestInstallOneNameAtOnce(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		replicas := []*store.Store{open(t, o), open(t, o)} // the first install makes the store, too
		for round := range 5 {
			slug := fmt.Sprintf("orders-%d", round)
			var wg sync.WaitGroup
			errs := make([]error, len(replicas))
			for i, s := range replicas {
				wg.Go(func() { _, errs[i] = change(t, s, fmt.Sprintf("%s-%d", slug, i), installing(slug)) })
			}
			wg.Wait()
			if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), errTaken) {
				t.Fatalf("%s: got %v, want one success and one name taken", slug, errs)
			}
		}
		state, err := replicas[0].Read(within(t))
		must(t, err)
		if len(state.Records) != 5 {
			t.Errorf("got %s, want 5 records", slugs(state))
		}
	})
}

// An older record over a newer one is kept out, and the next change resolves it.
func TestRevisionWentBack(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		f := follow(t, o)
		old := update(t, f.Store, "r1", installing("orders"))
		update(t, f.Store, "r2", renaming("orders", "new"))
		f.await(t, "orders@2")
		put(t, b, o.Topic, "integration/orders", encode(t, old.Records[0]))
		f.await(t, "orders@2 !went_back")
		if f.last().Records[0].Name != "new" {
			t.Error("the older record is in force")
		}
		state := update(t, f.Store, "r3", renaming("orders", "again"))
		if slugs(state) != "orders@3" || state.Problem != nil {
			t.Errorf("got %s, want orders@3 and no problem", describe(state))
		}
		f.await(t, "orders@3")
	})
}

func encode(t testing.TB, r store.Record) string {
	t.Helper()
	value, err := json.Marshal(r)
	must(t, err)
	return string(value)
}

// A record of a newer version is kept as it was last known, and is not overwritten.
func TestNewerFormat(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		f := follow(t, o)
		state := update(t, f.Store, "r1", installing("orders"))
		newer := state.Records[0]
		newer.Format, newer.Revision, newer.Name = store.Format+1, 2, "newer"
		put(t, b, o.Topic, "integration/orders", encode(t, newer))
		await.That(t, "the newer record is noted", func() bool { return f.last().Ignored == 1 })
		if now := f.last(); describe(now) != "orders@1" || !strings.Contains(strings.Join(now.IgnoredNotes, ""), "newer version") {
			t.Errorf("got %s and the notes %q, want orders@1 and a note", describe(now), now.IgnoredNotes)
		}
		fresh := open(t, o)
		for name, s := range map[string]*store.Store{"who knew it": f.Store, "a new process": fresh} {
			for op, decide := range map[string]func(store.State) ([]store.Write, error){
				"install": func(store.State) ([]store.Write, error) {
					return []store.Write{{Record: record("orders"), Entry: entry("integration.installed")}}, nil
				},
				"remove": removing("orders"),
			} {
				if _, err := s.Update(within(t), "r2", decide); !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "upgrade") {
					t.Errorf("%s, %s: got %v, want a refusal", name, op, err)
				}
			}
			update(t, s, "r3", installing("other-"+name[:1])) // the others can be changed
		}
		newer.Format, newer.Revision = store.Format, 3 // after a downgrade of the writer
		put(t, b, o.Topic, "integration/orders", encode(t, newer))
		f.await(t, "orders@3 other-a@1 other-w@1")
	})
}

// What somebody else writes into the topic is counted and ignored.
func TestGarbage(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		f := follow(t, o)
		update(t, f.Store, "r1", installing("orders"))
		other := *record("orders")
		other.Format, other.Revision, other.Slug = 1, 1, "carts"
		huge := other
		huge.Slug, huge.Blueprint = "huge", strings.Repeat("x", 900<<10)
		garbage := [][2]string{
			{"foreign", "text"}, {"\x1b[31m\x00", "terminal"}, {"integration/", "{}"}, {"integration/A B", "{}"}, {"integration/" + strings.Repeat("a", 41), "{}"},
			{"integration/orders", "{"}, {"integration/orders", `{"format":1}`}, {"integration/orders", encode(t, other)}, {"integration/orders", `[]`},
			{"integration/huge", encode(t, huge)}, {"store", "{"}, {"store", `{"format":1}`},
		}
		for _, g := range garbage {
			put(t, b, o.Topic, g[0], g[1])
		}
		await.That(t, "the garbage is counted", func() bool { return f.last().Ignored == len(garbage) }, func() string { return fmt.Sprint(f.last().Ignored) })
		now := f.last()
		if describe(now) != "orders@1" || len(now.IgnoredNotes) != 5 || !strings.Contains(now.IgnoredNotes[0], `"foreign"`) || strings.ContainsAny(strings.Join(now.IgnoredNotes, ""), "\x1b\x00") {
			t.Errorf("got %s and the notes %q, want orders@1 and 5 printable notes", describe(now), now.IgnoredNotes)
		}
		// A batch that decompresses to more than the store holds.
		bomb := client(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerBatchMaxBytes(40<<20))
		must(t, bomb.ProduceSync(within(t), &kgo.Record{Topic: o.Topic, Key: []byte("bomb"), Value: make([]byte, 32<<20)}).FirstErr())
		await.That(t, "the batch is passed over", func() bool { return f.last().Ignored == len(garbage)+1 })
		if state := update(t, f.Store, "r2", renaming("orders", "after")); slugs(state) != "orders@2" {
			t.Errorf("got %s, want orders@2", slugs(state))
		}
		f.await(t, "orders@2")
		if fresh, err := open(t, o).Read(within(t)); err != nil || slugs(fresh) != "orders@2" || fresh.Ignored != len(garbage)+1 {
			t.Errorf("a new process: got %s, %d ignored, %v", slugs(fresh), fresh.Ignored, err)
		}
	})
}

// A topic that is filled by hand with more than a store holds is read within its bounds.
func TestTooManyRecords(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		s := open(t, o)
		update(t, s, "r1", installing("orders"))
		cl := client(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		var records []*kgo.Record
		for i := range store.MaxRecords + 500 {
			r := record(fmt.Sprintf("n%d", i))
			r.Format, r.Revision = 1, 1
			records = append(records, &kgo.Record{Topic: o.Topic, Key: []byte("integration/" + r.Slug), Value: []byte(encode(t, *r))})
		}
		must(t, cl.ProduceSync(within(t), records...).FirstErr())
		state, err := s.Read(within(t))
		if err != nil || len(state.Records) != store.MaxRecords || state.Ignored != 501 || state.Find("orders") == nil {
			t.Errorf("got %d records and %d ignored, %v, want %d and 501", len(state.Records), state.Ignored, err, store.MaxRecords)
		}
		if _, err := s.Update(within(t), "r2", installing("one-more")); !errors.Is(err, store.ErrRefused) {
			t.Errorf("got %v, want a refusal of one more", err)
		}
		update(t, s, "r3", renaming("orders", "may change"))
		update(t, s, "r4", removing("orders"))
	})
}

// The context ends a change that waits, and not one that is being written.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	s := open(t, options(kafkatest.StartFake(t, kafkatest.Options{}), "t"))
	update(t, s, "r1", installing("orders"))
	writing, goOn := make(chan struct{}), make(chan struct{})
	s.BeforeCommit(func(int64, int16) {
		close(writing)
		<-goOn
	})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := s.Update(ctx, "r2", renaming("orders", "being written"))
		first <- err
	}()
	<-writing
	waiting, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Update(waiting, "r3", removing("orders")); !errors.Is(err, context.Canceled) {
		t.Errorf("a change that waits: got %v, want that its context ended", err)
	}
	cancel()
	close(goOn)
	if err := <-first; err != nil {
		t.Errorf("a change that is being written: %v", err)
	}
	if state, err := s.Read(t.Context()); err != nil || slugs(state) != "orders@2" {
		t.Errorf("got %s, %v, want orders@2", slugs(state), err)
	}
	s.Close()
	if _, err := s.Update(t.Context(), "r4", removing("orders")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a closed store: got %v", err)
	}
}
