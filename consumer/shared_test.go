package consumer_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/setting"
)

// full reports whether a group holds as much as it may.
func full(m *member) bool {
	s := m.Status()
	return s.BufferedBytes > 0 && s.BufferedBytes >= s.BufferedLimit
}

// Groups whose sinks do not answer hold all they can of a budget. The others deliver
// everything, also events that are larger than their share.
func TestStalledGroupsCostTheOthersNothing(t *testing.T) {
	t.Parallel()
	const each, events, large = 5, 2000, 20
	b := kafkatest.StartFake(t, kafkatest.Options{})
	shared := consumer.NewBudget(2 << 20)
	shared.Reserve(2 * each)
	release := make(chan struct{})
	var stalled, healthy []*member
	var tabs []*table
	var wanted [][]string
	join := func(i int, texts []string) (m *member, tab *table) {
		topic := kafkatest.Topic(t, b, 2)
		produce(t, b, topic, 2, texts...)
		cfg := config(t, b, topic)
		cfg.Budget, cfg.Group = shared, fmt.Sprintf("%s-%d", cfg.Group, i)
		tab = newTable(t)
		if i < each {
			tab.set(hold(release, every))
		}
		tabs, wanted = append(tabs, tab), append(wanted, texts)
		return start(t, cfg, tab), tab
	}
	for i := range each {
		m, _ := join(i, padded(fmt.Sprintf("s%d-", i), events))
		stalled = append(stalled, m)
	}
	eventually(t, "the stalled groups hold all they can", func() bool {
		for _, m := range stalled {
			if !full(m) {
				return false
			}
		}
		return true
	})
	for i := range each {
		texts := padded(fmt.Sprintf("h%d-", i), events)
		if i == 0 {
			texts = nil
			for n := range large {
				text := fmt.Sprintf("l%06d", n)
				texts = append(texts, text+strings.Repeat("x", 300<<10))
			}
		}
		m, tab := join(each+i, texts)
		healthy = append(healthy, m)
		eventually(t, fmt.Sprintf("healthy group %d delivers everything beside the stalled ones", i), func() bool { return tab.count() >= len(texts) })
	}
	for i, m := range stalled {
		if !full(m) || tabs[i].count() > 0 {
			t.Errorf("stalled group %d holds %d bytes and has delivered %d rows, want it stalled", i, m.Status().BufferedBytes, tabs[i].count())
		}
	}
	for _, m := range healthy {
		m.stop()
	}
	close(release)
	for i, m := range stalled {
		eventually(t, "the stalled groups deliver, too", func() bool { return tabs[i].count() >= events })
		m.stop()
	}
	for i, tab := range tabs {
		tab.verify(wanted[i])
	}
}

// silent is a sink that never answers and keeps nothing.
type silent struct{}

func (silent) Write(ctx context.Context, _ int64, _ [][]byte) (int, error) {
	<-ctx.Done()
	return 1, ctx.Err()
}

func (s silent) Probe(ctx context.Context, version int64, rows [][]byte) (int, error) {
	return s.Write(ctx, version, rows)
}

// liveHeap returns the bytes of objects in use.
func liveHeap() int64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// Twenty groups whose sinks never answer stay within the published bound, with what
// their clients have fetched and hold.
func TestStalledGroupsStayWithinTheMemoryBound(t *testing.T) {
	const groups, topics, partitions, events, size = 20, 5, 4, 12_000, 1400
	b := kafkatest.StartFake(t, kafkatest.Options{})
	var names []string
	dice := rand.New(rand.NewPCG(1, 2))
	for range topics {
		topic := kafkatest.Topic(t, b, partitions)
		names = append(names, topic)
		cl := client(t, b, kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerBatchMaxBytes(64<<10), kgo.MaxBufferedRecords(events))
		recs := make([]*kgo.Record, events)
		noise := make([]byte, size/4)
		for i := range recs {
			for j := range noise {
				noise[j] = byte(dice.Uint32())
			}
			recs[i] = &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: fmt.Appendf(nil, "e%06d%s%s", i, hex.EncodeToString(noise), strings.Repeat("x", size/2))}
		}
		if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		cl.Close()
	}
	plan := memory.Plan{MaxBuffered: 16 << 20, MaxBytes: 4 << 20, FetchMaxBytes: 4 << 20, Brokers: 1, Partitions: groups * partitions, Integrations: groups}
	shared := consumer.NewBudget(plan.MaxBuffered)
	shared.Reserve(groups)
	before := liveHeap()
	var all []*member
	for i := range groups {
		cfg := config(t, b, names[i%topics])
		cfg.Group, cfg.Budget, cfg.Drain = fmt.Sprintf("%s-%d", cfg.Group, i), shared, 100*time.Millisecond
		cfg.MaxBuffered, cfg.FetchMaxBytes, cfg.FetchMaxPartitionBytes = setting.Size(plan.MaxBuffered), setting.Size(plan.FetchMaxBytes), 1<<20
		all = append(all, start(t, cfg, silent{}))
	}
	// The bound counts these twice, for the garbage collector, and adds an idle process.
	inUse := plan.Buffered()*145/100 + groups*plan.Fetched() + int64(plan.Partitions)<<20/5 + groups*2<<20
	held := int64(0)
	look := func() (stalled bool) {
		stalled = true
		sum := int64(0)
		for _, m := range all {
			stalled = stalled && full(m)
			if m.Status().Running && m.Status().BufferedBytes > 0 {
				sum += m.Held()
			}
		}
		held = max(held, sum)
		return stalled
	}
	eventually(t, "every group holds all it can", look)
	heap := int64(math.MaxInt64) // the least of some looks: on a busy machine one of them sees garbage
	await.Within(2*time.Second, func() bool { look(); heap = min(heap, liveHeap()-before); return false })
	t.Logf("%d MiB held, %d MiB of heap in use; of the bound of %d MiB that are up to %d MiB", memory.MiB(held), memory.MiB(heap), memory.MiB(plan.Bound()), memory.MiB(inUse))
	// Beside the plan, each group may hold one batch of the broker's.
	if most := plan.Buffered() + groups*(plan.Fetched()+1<<20); held > most {
		t.Errorf("the groups hold %d bytes of events, want at most %d", held, most)
	}
	if held < plan.MaxBuffered {
		t.Errorf("the groups hold %d bytes, want at least the budget of %d: they are not stalled", held, plan.MaxBuffered)
	}
	if heap > inUse {
		t.Errorf("the heap has grown by %d bytes, want at most %d", heap, inUse)
	}
	for _, m := range all {
		m.cancel()
	}
}
