package consumer_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/memory"
)

// hold stalls the Writes it is asked to until release is closed.
func hold(release <-chan struct{}, stalled func(w write) bool) hook {
	return func(ctx context.Context, w write) error {
		if !stalled(w) {
			return nil
		}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func every(write) bool { return true }

// padded are n events of 1 KiB.
func padded(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		text := fmt.Sprintf("%s%06d", prefix, i)
		all[i] = text + strings.Repeat("x", 1024-len(text))
	}
	return all
}

// A sink that stalls costs MaxBuffered and one poll, whatever waits in Kafka. It
// does not cost the membership, nor hold up a rebalance.
func TestBudgetBoundsMemory(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		const partitions, polled = 16, 1000 // records of one poll: twice MaxRows
		topic := kafkatest.Topic(t, b, partitions)
		want := padded("e", 16_000)
		produce(t, b, topic, partitions, want...)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.MaxBuffered, cfg.FetchMaxBytes, cfg.FetchMaxPartitionBytes = 4<<20, 1<<20, 64<<10
		cfg.SessionTimeout, cfg.Drain = 6*time.Second, time.Second
		release := make(chan struct{})
		tab.set(hold(release, every))
		m := start(t, cfg, tab)
		eventually(t, "the budget is spent", func() bool { return m.Status().BufferedBytes >= int64(cfg.MaxBuffered) })
		limit := int64(cfg.MaxBuffered) + polled*(1024+256)
		worst := int64(0)
		await.Within(cfg.SessionTimeout+time.Second, func() bool { worst = max(worst, m.Status().BufferedBytes); return false })
		if worst > limit {
			t.Errorf("%d bytes are buffered, want at most %d", worst, limit)
		}
		if s := m.Status(); s.BufferedLimit != int64(cfg.MaxBuffered) || len(s.NotReady) > 0 || s.MemberID == "" {
			t.Errorf("status of a slow sink: got limit %d, member %q, not ready %v", s.BufferedLimit, s.MemberID, s.NotReady)
		}
		if got := m.counts.get(func() int { return m.counts.rebalanced["lost"] }); got > 0 {
			t.Errorf("%d partitions were lost while the sink stalled", got)
		}
		second := start(t, cfg, tab)
		eventually(t, "the second member has its half", func() bool { return len(second.Status().Partitions) == partitions/2 })
		close(release)
		eventually(t, "all rows are delivered", func() bool { return tab.count() >= len(want) })
		eventually(t, "the budget is free again", func() bool { return m.Status().BufferedBytes == 0 && second.Status().BufferedBytes == 0 })
		m.stop()
		second.stop()
		tab.verify(want)
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// A broker's answer that decompresses to many times its size, or is one event
// that is larger than the fetch size, costs no more than the plan allows. Nothing
// of it is lost, and no trouble is reported.
func TestAnswersThatDecompressToMuch(t *testing.T) {
	for _, tc := range []struct {
		name  string
		codec kgo.CompressionCodec
	}{
		{"gzip", kgo.GzipCompression()},
		{"snappy", kgo.SnappyCompression()},
		{"lz4", kgo.Lz4Compression()},
		{"zstd", kgo.ZstdCompression()},
		{"none", kgo.NoCompression()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				const partitions, events, size = 8, 64, 900 << 10
				topic := kafkatest.Topic(t, b, partitions)
				var want []string
				cl := client(t, b, kgo.ProducerBatchCompression(tc.codec))
				defer cl.Close()
				for i := range events {
					text := fmt.Sprintf("e%06d", i)
					want = append(want, text+strings.Repeat("x", size-len(text)))
					rec := &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: []byte(want[i])}
					if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil { // a batch for each
						t.Fatal(err)
					}
				}
				cfg, tab := config(t, b, topic), newTable(t)
				cfg.MaxBuffered, cfg.MaxBytes = 4<<20, 1<<20
				cfg.FetchMaxBytes, cfg.FetchMaxPartitionBytes = 512<<10, 256<<10
				var sized sync.Map
				cfg.OnSizeChange = func(brokers, partitions int) { sized.Store([2]int{brokers, partitions}, true) }
				release := make(chan struct{})
				tab.set(hold(release, every))
				m := start(t, cfg, tab)
				eventually(t, "the budget is spent", func() bool { return m.Status().BufferedBytes >= int64(cfg.MaxBuffered) })
				// The plan, and one event that was admitted while there was room.
				plan := memory.Plan{FetchMaxBytes: int64(cfg.FetchMaxBytes), Brokers: len(b.Addrs())}
				limit := int64(cfg.MaxBuffered) + plan.Fetched() + 2*size
				worst := int64(0)
				await.Within(2*time.Second, func() bool { worst = max(worst, m.Held()); return false })
				close(release)
				eventually(t, "all rows are delivered", func() bool { worst = max(worst, m.Held()); return tab.count() >= len(want) })
				if worst > limit {
					t.Errorf("got %d bytes held at a time, want at most %d", worst, limit)
				}
				if got := m.Status().NotReady; len(got) > 0 {
					t.Errorf("got not ready %v, want nothing", got)
				}
				if _, ok := sized.Load([2]int{len(b.Addrs()), partitions}); !ok {
					t.Errorf("OnSizeChange was not called with %d brokers and %d partitions", len(b.Addrs()), partitions)
				}
				m.stop()
				tab.verify(want)
				wantAllCommitted(t, b, cfg.Group, topic)
			})
		})
	}
}

// A record takes memory besides its bytes, which for very small ones is most of it.
func TestAnswersOfManySmallEvents(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		const events, perBatch, perPoll = 120_000, 64 << 10 / 14, 1000
		topic := kafkatest.Topic(t, b, 1)
		recs := make([]*kgo.Record, events)
		for i := range recs {
			recs[i] = &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "e%06d", i)}
		}
		cl := client(t, b, kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerBatchMaxBytes(64<<10), kgo.MaxBufferedRecords(events))
		if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.MaxBuffered, cfg.FetchMaxBytes, cfg.FetchMaxPartitionBytes = 4<<20, 512<<10, 512<<10
		release := make(chan struct{})
		tab.set(hold(release, every))
		m := start(t, cfg, tab)
		eventually(t, "the budget is spent", func() bool { return m.Status().BufferedBytes >= int64(cfg.MaxBuffered) })
		plan := memory.Plan{FetchMaxBytes: int64(cfg.FetchMaxBytes), Brokers: len(b.Addrs())}
		limit := int64(cfg.MaxBuffered) + plan.Fetched() + (2*perBatch+perPoll)*(256+7)
		worst := int64(0)
		await.Within(2*time.Second, func() bool { worst = max(worst, m.Held()); return false })
		close(release)
		eventually(t, "all rows are delivered", func() bool { worst = max(worst, m.Held()); return tab.count() >= events })
		if worst > limit {
			t.Errorf("got %d bytes held at a time, want at most %d", worst, limit)
		}
		m.stop()
		wantAllCommitted(t, b, cfg.Group, topic)
		if got := tab.distinct(); got != events {
			t.Errorf("got %d rows, want %d", got, events)
		}
	})
}

// One batch that is much larger once it is decompressed makes the answers small,
// and what comes uncompressed after it makes them large again.
func TestAnswersGrowAgain(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	var asked atomic.Int32
	b.Fake().ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.Fake().KeepControl()
		asked.Store(req.(*kmsg.FetchRequest).MaxBytes)
		return nil, nil, false
	})
	cfg, tab := config(t, b, topic), newTable(t)
	m := start(t, cfg, tab)
	dense, plain := client(t, b, kgo.ProducerBatchCompression(kgo.ZstdCompression())), client(t, b, kgo.ProducerBatchCompression(kgo.NoCompression()))
	send := func(cl *kgo.Client, text string) {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(text)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	send(dense, "e"+strings.Repeat("x", 900<<10))
	eventually(t, "smaller answers are asked for", func() bool { return asked.Load() < int32(cfg.FetchMaxBytes)/8 })
	n := 0
	eventually(t, "answers of the configured size are asked for", func() bool {
		n++
		send(plain, fmt.Sprintf("p%06d", n)+strings.Repeat("x", 10<<10))
		return asked.Load() == int32(cfg.FetchMaxBytes)
	})
	m.stop()
}

// A partition whose Writes stall is paused before it takes the room of the
// others, and resumed; also when it was taken away and given back meanwhile.
func TestHotPartitionIsPaused(t *testing.T) {
	t.Parallel()
	for name, expelled := range map[string]bool{"resumed": false, "expelled and assigned again": true} {
		t.Run(name, func(t *testing.T) {
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				const partitions = 4
				topic := kafkatest.Topic(t, b, partitions)
				hot := padded("h", 12_000)
				produce(t, b, topic, 1, hot...) // all in partition 0
				cfg, tab := config(t, b, topic), newTable(t)
				cfg.MaxBuffered, cfg.FetchMaxBytes, cfg.FetchMaxPartitionBytes = 4<<20, 1<<20, 64<<10
				release := make(chan struct{})
				tab.set(hold(release, func(w write) bool { return w.partition == "0" }))
				m := start(t, cfg, tab)
				paused := func() bool { p, ok := m.partition(0); return ok && p.Paused }
				eventually(t, "the hot partition is paused", paused)
				cold := padded("c", 2000)
				produceTo(t, b, topic, []int32{1, 2, 3}, cold...)
				eventually(t, "the others' rows are delivered meanwhile", func() bool { return tab.distinct() == len(cold) })
				if !paused() {
					t.Error("the hot partition is not paused any more")
				}
				if expelled {
					// Where the member hears of it by its next join, and not by a
					// heartbeat, its partitions are left with it.
					before := m.Status().MemberID
					expel(t, b, cfg.Group, before)
					eventually(t, "it has its partitions under a new name", func() bool {
						s := m.Status()
						return s.MemberID != "" && s.MemberID != before && len(s.Partitions) == partitions
					})
				}
				close(release)
				want := append(hot, cold...)
				eventually(t, "all rows are delivered", func() bool { return tab.distinct() >= len(want) })
				eventually(t, "what was read again is delivered, too", func() bool {
					return !slices.ContainsFunc(m.Status().Partitions, func(p consumer.PartitionStatus) bool { return p.Lag != 0 })
				})
				m.stop()
				if expelled {
					tab.verifyDelivered(want)
				} else {
					tab.verify(want)
				}
				wantAllCommitted(t, b, cfg.Group, topic)
			})
		})
	}
}

// What was delivered is not held on to: it is in no budget any more.
func TestDeliveredEventsAreLetGo(t *testing.T) {
	tab := newTable(t)
	l, err := consumer.NewLab(labConfig(), tab, toRow, newCounts(), nopLog)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	held := push(l)
	eventually(t, "the events are delivered", func() bool { return l.Status().Marked == 10 && l.Status().State == consumer.StateWaiting })
	eventually(t, "the events are garbage", func() bool {
		runtime.GC()
		for _, p := range held {
			if p.Value() != nil {
				return false
			}
		}
		return true
	})
}

// The buffer of a full batch goes from partition to partition. While many of them
// wait with a row each, they must not end up with such a buffer each.
func TestBuffersOfFullBatchesAreNotKeptForSmallOnes(t *testing.T) {
	const (
		full, small = 4 << 20, 600
		atOnce      = 300 // batches in flight
		hot         = 100 // every so many batches one is full
		spare       = 16 << 20
	)
	bs := consumer.NewBatches(full, spare)
	rows, worst := make([]byte, full), 0
	var flying []*consumer.Batch
	for i := range 20 * atOnce {
		b, size := bs.Take(), small
		if i%hot == 0 {
			size = full
		}
		b.Row(append(b.Buf(), rows[:size]...))
		flying = append(flying, b)
		if len(flying) < atOnce {
			continue
		}
		bs.Give(flying[0])
		flying = flying[1:]
		held := 0
		for _, b := range flying {
			held += cap(b.Buf())
		}
		worst = max(worst, held)
	}
	// Three full batches at a time, what each leaves behind, and what is spare.
	if most := 3 * (2*full + spare); worst > most {
		t.Errorf("got buffers of %d MiB for %d batches, want at most %d", worst>>20, atOnce, most>>20)
	}
	for _, b := range flying {
		bs.Give(b)
	}
	if got := bs.Used(); got != 0 {
		t.Errorf("got %d bytes in use when all are given back, want 0", got)
	}
}

// push is a function of its own so that no variable of the test keeps the events.
func push(l *consumer.Lab) []weak.Pointer[kgo.Record] {
	var held []weak.Pointer[kgo.Record]
	recs := events(0, 10)
	for _, rec := range recs {
		held = append(held, weak.Make(rec))
	}
	l.Push(recs...)
	return held
}

func TestThreeHundredPartitions(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		const partitions = 300
		topic := kafkatest.Topic(t, b, partitions)
		want := texts("e", 30*partitions)
		produce(t, b, topic, partitions, want...)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Rejects.Partitions = 1
		m := start(t, cfg, tab)
		eventually(t, "all rows are delivered", func() bool { return tab.count() >= len(want) })
		if got := len(m.Status().Partitions); got != partitions {
			t.Errorf("got %d partitions, want %d", got, partitions)
		}
		for _, p := range m.Status().Partitions {
			if p.State == consumer.StateBlocked {
				t.Errorf("partition %d is blocked: %s", p.Partition, p.Reason)
			}
		}
		m.stop()
		tab.verify(want)
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}
