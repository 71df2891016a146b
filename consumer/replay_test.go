package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// epoch is the timestamp of the first record of replayed topics; each of the
// next is a minute later. It is years ago, so that no test passes only because
// it runs within some broker's retention of that day.
var epoch = time.Date(2019, 11, 22, 6, 0, 0, 0, time.UTC)

func minute(n int) time.Time { return epoch.Add(time.Duration(n) * time.Minute) }

// produceMinutes puts n records into a partition, one for each minute.
func produceMinutes(t *testing.T, b kafkatest.Broker, topic string, partition int32, n int) {
	t.Helper()
	var recs []*kgo.Record
	for i := range n {
		recs = append(recs, &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Appendf(nil, "minute%d", i), Timestamp: minute(i)})
	}
	produceRecords(t, b, recs...)
}

// replayer plans and commits for one group of one topic.
type replayer struct {
	t       *testing.T
	b       kafkatest.Broker
	cluster *consumer.Cluster
	start   string
	group   string
	topic   string
}

func newReplayer(t *testing.T, b kafkatest.Broker, cfg consumer.Config) *replayer {
	t.Helper()
	cluster, _, _ := newCluster(t, cfg)
	return &replayer{t: t, b: b, cluster: cluster, start: cfg.Start, group: cfg.Group, topic: cfg.Topics[0]}
}

func (r *replayer) plan(to kafka.Position, partitions ...int32) []kafka.Move {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	moves, err := r.cluster.PlanReplay(ctx, kafka.Replay{Start: r.start, Group: r.group, To: to, Topics: []string{r.topic}, Partitions: partitions})
	if err != nil {
		r.t.Fatal(err)
	}
	return moves
}

func (r *replayer) commit(moves []kafka.Move) error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	return r.cluster.CommitReplay(ctx, r.group, moves)
}

// trim removes what lies before an offset, as retention does.
func trim(t *testing.T, b kafkatest.Broker, topic string, partition int32, before int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(t, b)
	defer cl.Close()
	offsets := make(kadm.Offsets)
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: before})
	answers, err := kadm.NewClient(cl).DeleteRecords(ctx, offsets)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		t.Fatalf("removing records: %v", err)
	}
}

func at(n time.Time) kafka.Position { return kafka.Position{Kind: kafka.AtTime, Time: n} }

func atOffset(n int64) kafka.Position {
	return kafka.Position{Kind: kafka.AtOffset, Offset: n}
}

var earliest, latest = kafka.Position{Kind: kafka.Earliest}, kafka.Position{Kind: kafka.Latest}

// Three partitions: 0 is committed to 6 of 10, the log beginning at 2; 1 is
// empty; 2 holds 5 and has no commit.
func TestReplayIsPlannedWithinTheLog(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 3)
		produceMinutes(t, b, topic, 0, 10)
		produceMinutes(t, b, topic, 2, 5)
		trim(t, b, topic, 0, 2)
		cfg := config(t, b, topic)
		r := newReplayer(t, b, cfg)
		if err := r.commit([]kafka.Move{{Topic: topic, Partition: 0, Target: 6}}); err != nil {
			t.Fatal(err)
		}
		type want struct{ target, again, skipped int64 }
		for _, tc := range []struct {
			name string
			to   kafka.Position
			want [3]want
		}{
			{"earliest", earliest, [3]want{{2, 4, 0}, {0, 0, 0}, {0, 0, 0}}},
			{"latest", latest, [3]want{{10, 0, 4}, {0, 0, 0}, {5, 0, 5}}},
			{"a minute", at(minute(4)), [3]want{{4, 2, 0}, {0, 0, 0}, {4, 0, 4}}},
			{"between minutes", at(minute(3).Add(time.Second)), [3]want{{4, 2, 0}, {0, 0, 0}, {4, 0, 4}}},
			{"a moment after a minute", at(minute(4).Add(time.Nanosecond)), [3]want{{5, 1, 0}, {0, 0, 0}, {5, 0, 5}}},
			{"before all", at(epoch.AddDate(-1, 0, 0)), [3]want{{2, 4, 0}, {0, 0, 0}, {0, 0, 0}}},
			{"after all", at(epoch.AddDate(1, 0, 0)), [3]want{{10, 0, 4}, {0, 0, 0}, {5, 0, 5}}},
			{"an offset", atOffset(3), [3]want{{3, 3, 0}, {0, 0, 0}, {3, 0, 3}}},
			{"an offset that is removed", atOffset(0), [3]want{{2, 4, 0}, {0, 0, 0}, {0, 0, 0}}},
			{"an offset past the end", atOffset(1000), [3]want{{10, 0, 4}, {0, 0, 0}, {5, 0, 5}}},
			{"where it is", atOffset(6), [3]want{{6, 0, 0}, {0, 0, 0}, {5, 0, 5}}},
		} {
			moves := r.plan(tc.to)
			if len(moves) != 3 {
				t.Fatalf("%s: got %d partitions, want 3: %v", tc.name, len(moves), moves)
			}
			for id, m := range moves {
				if got := (want{m.Target, m.Redelivered, m.Skipped}); got != tc.want[id] {
					t.Errorf("%s, partition %d: got %+v, want %+v", tc.name, id, got, tc.want[id])
				}
			}
		}
		if m := r.plan(atOffset(0), 0)[0]; m.Requested != 0 || m.LogStart != 2 || m.LogEnd != 10 || m.Committed != 6 {
			t.Errorf("got %+v, want what was asked for and what the log holds", m)
		}
		if m := r.plan(earliest, 2); len(m) != 1 || m[0].Partition != 2 || m[0].Committed != -1 {
			t.Errorf("got %+v, want partition 2 alone, without a commit", m)
		}

		// A group that begins at the end misses nothing by going there, but the
		// partitions that were added later begin at their start.
		cfg.Start = "latest"
		if m := newReplayer(t, b, cfg).plan(latest, 2)[0]; m.Skipped != 5 {
			t.Errorf("start latest, added later: got %d skipped, want all 5", m.Skipped)
		}
		cfg.Group = kafkatest.Name(t)
		if m := newReplayer(t, b, cfg).plan(latest, 2)[0]; m.Skipped != 0 {
			t.Errorf("start latest: got %d skipped, want none", m.Skipped)
		}
	})
}

func TestReplayRefusesWhatDoesNotExist(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		r := newReplayer(t, b, config(t, b, topic))
		for _, tc := range []struct {
			topic     string
			partition int32
			want      string
		}{
			{topic, 2, "has no partition 2; it has 2"},
			{"absent-" + topic, 0, "topic absent-" + topic + " does not exist; correct kafka.topics"},
		} {
			_, err := r.cluster.PlanReplay(t.Context(), kafka.Replay{Group: r.group, To: earliest, Topics: []string{tc.topic}, Partitions: []int32{tc.partition}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		}
	})
}

func TestReplayOfAnActiveGroupNamesItsMembers(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				kafkatest.NeedProtocol(t, b, protocol)
				topic := kafkatest.Topic(t, b, 4)
				produce(t, b, topic, 4, texts("a", 40)...)
				cfg := config(t, b, topic)
				cfg.Protocol = protocol
				if protocol == "classic" { // the other keeps the place of a static member for a session
					cfg.InstanceID = "bridge-0"
				}
				tab := newTable(t)
				m := start(t, cfg, tab)
				eventually(t, "all rows", func() bool { return tab.count() == 40 })
				r := newReplayer(t, b, cfg)

				moves := r.plan(earliest)
				err := r.commit(moves)
				var active *kafka.ActiveGroupError
				if !errors.As(err, &active) || len(active.Members) != 1 {
					t.Fatalf("got %v, want an ActiveGroupError with one member", err)
				}
				got := active.Members[0]
				if got.ID == "" || got.ClientID != "bridge-test" || got.Host == "" || got.InstanceID != cfg.InstanceID || got.Partitions != 4 {
					t.Errorf("got %+v, want the member with its 4 partitions", got)
				}

				m.stop()
				eventually(t, "a group without members", func() bool {
					members, err := r.cluster.Members(t.Context(), cfg.Group)
					return err == nil && len(members) == 0
				})
				wantAllCommitted(t, b, cfg.Group, topic)
				if err := r.commit(r.plan(atOffset(7), 1, 3)); err != nil {
					t.Fatal(err)
				}
				for id, want := range []int64{10, 7, 10, 7} {
					if got := committed(t, b, cfg.Group, topic)[int32(id)]; got != want {
						t.Errorf("partition %d: committed %d, want %d", id, got, want)
					}
				}
				start(t, cfg, tab)
				eventually(t, "the last 3 of two partitions again", func() bool { return tab.count() == 46 })
				if got := tab.distinct(); got != 40 {
					t.Errorf("got %d different rows, want the 40 there were", got)
				}
			})
		})
	}
}
