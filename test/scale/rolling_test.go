package scale_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

const (
	partitions = 1000
	members    = 8
	portion    = 12 // events produced to each partition for each restart
	batch      = 4  // delivery.max_rows: each portion takes a partition some Writes

	ack = 50 * time.Millisecond
)

// owners counts, over the members, how often each partition is held.
func owners(ms []*member) (held, twice int) {
	seen := make(map[int32]bool, partitions)
	for _, m := range ms {
		for _, p := range m.Status().Partitions {
			if seen[p.Partition] {
				twice++
			}
			seen[p.Partition] = true
		}
	}
	return len(seen), twice
}

// Eight members share a thousand partitions, and each of them is replaced while
// events keep coming. Every event is delivered, each partition in order and without a
// gap, no partition is written by two members at once, and in the end
// everything is committed.
func TestRollingRestartOfEightMembersOverAThousandPartitions(t *testing.T) {
	for _, tc := range []struct {
		name, protocol string
		static         bool
	}{
		{"classic", "classic", false},
		{"classic, static", "classic", true},
		{"consumer", "consumer", false},
		{"consumer, static", "consumer", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // they wait for heartbeats more than they work
			b := kafkatest.StartFake(t, kafkatest.Options{})
			topic := kafkatest.Topic(t, b, partitions)
			cl := client(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(partitions*portion))
			tab := newTable(partitions, ack)
			cfg := consumer.Config{
				Kafka: consumer.Kafka{
					Brokers: b.Addrs(), ClientID: "bridge-test",
					Topics: []string{topic}, Group: kafkatest.Name(t), Start: "earliest", Protocol: tc.protocol,
					// None of these is waited for: members leave when they stop. On a busy
					// machine a member must not be evicted, nor its last commit cut off.
					SessionTimeout: 45 * time.Second, RebalanceTimeout: 3 * time.Minute,
					FetchMaxBytes: 4 << 20, FetchMaxPartitionBytes: 256 << 10,
				},
				Delivery: consumer.Delivery{MaxRows: batch, MaxBytes: 4 << 20, MaxBuffered: 16 << 20, Drain: time.Minute},
				Rejects:  consumer.Rejects{Policy: consumer.PolicySkip}, Version: "1.2.3",
			}
			if tc.static { // long enough for any restart: only then is it static
				cfg.SessionTimeout = patience
			}
			begin := func(i int) *member {
				if tc.static {
					cfg.InstanceID = fmt.Sprintf("bridge-%d", i)
				}
				return start(t, b, cfg, tab)
			}
			var all []*member
			for i := range members {
				all = append(all, begin(i))
			}
			shared := func() bool {
				held, twice := owners(all)
				least := partitions
				for _, m := range all {
					least = min(least, len(m.Status().Partitions))
				}
				return held == partitions && twice == 0 && least >= partitions/members/2
			}
			said := func() string {
				s := ""
				for i, m := range all {
					st := m.Status()
					s += fmt.Sprintf("\nmember %d has %d partitions %v", i, len(st.Partitions), st.NotReady)
				}
				return s
			}
			eventually(t, "every partition has one owner and every member its share", shared, said)

			each, moved := int64(0), int64(0)
			for i := range members {
				began := time.Now()
				sent := make(chan error, 1)
				go func() { sent <- produce(t.Context(), cl, topic, partitions, portion) }()
				eventually(t, "the first events of this step are delivered", func() bool { return tab.distinct() > each*partitions+batch*partitions }, said)
				old := all[i]
				old.stop(t)
				left := (each+portion)*partitions - tab.distinct()
				all[i] = begin(i)
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				each += portion
				eventually(t, "every partition has one owner again", shared, said)
				eventually(t, "the events of this step are delivered", func() bool { return tab.distinct() == each*partitions },
					func() string { return fmt.Sprintf("%d of %d%s", tab.distinct(), each*partitions, said()) })
				moved += old.counts.moved.Load()
				t.Logf("member %d left with %d events on their way and was replaced; all delivered after %v", i, left, time.Since(began).Round(time.Millisecond))
			}
			var read, delivered int64
			for _, m := range all {
				m.stop(t)
				read, delivered = read+m.counts.read.Load(), delivered+m.counts.delivered.Load()
				if n := m.counts.commitErrors.Load(); n > 0 {
					t.Logf("%d of %d commits of a member failed", n, m.counts.commits.Load())
				}
			}
			duplicates := tab.verify(t, each)
			if got := committed(t, cl, cfg.Group, topic); got != each*partitions {
				t.Errorf("got %d events committed, want %d", got, each*partitions)
			}
			if delivered == 0 || delivered > read {
				t.Errorf("the last members delivered %d of %d events they read", delivered, read)
			}
			t.Logf("%d events, 0 lost, %d duplicates; %d partitions moved", each*partitions, duplicates, moved)
		})
	}
}
