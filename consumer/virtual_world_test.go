//go:build synctests

package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/consumer"
)

const (
	vtopic  = "events"
	vdead   = vtopic + "-dlq"
	vgroup  = "bridge"
	vrows   = 10              // MaxRows
	vdrain  = 5 * time.Second // Drain
	vprobe  = 30 * time.Second
	vbeat   = 3 * time.Second // a member hears of a rebalance within this
	vcommit = time.Second
	vexpiry = 9 * time.Second // SessionTimeout
)

// world is brokers, a group and its table in one bubble: nothing in it waits
// for anything outside, so its clock moves only when all of it waits.
type world struct {
	*ledger
	cfg     consumer.Config
	net     *kfake.VirtualNetwork
	latency time.Duration
	kafka   *kfake.Cluster
	client  *kgo.Client
	members []*vmember

	restless        bool // a member that is gone may yet cause a rebalance
	faults          []*kfake.FaultHandle
	furthest        map[int32]int64            // the group's offset by partition, as last seen
	released        chan struct{}              // closed by release
	deadLetterFault atomic.Pointer[kerr.Error] // what dead letters are refused with
}

// worldSetup is what a world begins with.
type worldSetup struct {
	protocol   string // classic unless said
	brokers    int    // 1 unless said
	partitions int
	adjust     func(*consumer.Config)
	// latency is what each request of a member takes on its way; 0: no time,
	// so that durations are exact.
	latency time.Duration
}

// virtually runs body in a world and, when it returns, brings the world to rest
// and compares the end with the promise. The bubble fails alone if a
// goroutine is left.
func virtually(t *testing.T, s worldSetup, body func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s)
		defer w.close()
		body(w)
		w.finish()
	})
}

// bothProtocols runs body in a world for each group protocol.
func bothProtocols(t *testing.T, s worldSetup, body func(w *world)) {
	t.Helper()
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			s.protocol = protocol
			virtually(t, s, body)
		})
	}
}

func newWorld(t *testing.T, s worldSetup) *world {
	w := &world{ledger: newLedger(t, s.partitions), net: new(kfake.VirtualNetwork), latency: s.latency, released: make(chan struct{}), furthest: map[int32]int64{}}
	ports := []int{9092, 9093, 9094}[:max(s.brokers, 1)]
	var err error
	w.kafka, err = kfake.NewCluster(
		kfake.Ports(ports...), kfake.ListenFn(w.net.Listen),
		kfake.SeedTopics(int32(s.partitions), vtopic), kfake.SeedTopics(1, vdead),
		kfake.BrokerConfigs(map[string]string{
			"group.consumer.heartbeat.interval.ms": fmt.Sprint(vbeat.Milliseconds()),
			"group.consumer.session.timeout.ms":    fmt.Sprint(vexpiry.Milliseconds()),
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = consumer.Config{
		Kafka: consumer.Kafka{
			Brokers: w.kafka.ListenAddrs(), ClientID: "virtual",
			Topics: []string{vtopic}, Group: vgroup, Start: "earliest", Protocol: "classic",
			SessionTimeout: vexpiry, RebalanceTimeout: 20 * time.Second,
			FetchMaxBytes: 1 << 20, FetchMaxPartitionBytes: 64 << 10,
		},
		Delivery: consumer.Delivery{MaxRows: vrows, MaxBytes: 1 << 20, MaxBuffered: 1 << 20, Drain: vdrain},
		Rejects:  consumer.Rejects{Policy: consumer.PolicyDeadLetter}, Version: "1.2.3",
	}
	if s.protocol != "" {
		w.cfg.Protocol = s.protocol
	}
	if s.adjust != nil {
		s.adjust(&w.cfg)
	}
	w.skips = w.cfg.Rejects.Policy == consumer.PolicySkip
	w.client, err = kgo.NewClient(
		kgo.SeedBrokers(w.cfg.Kafka.Brokers...), kgo.Dialer(w.net.DialContext), kgo.DisableClientMetrics(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.ProducerLinger(time.Millisecond), // what is produced together arrives together
	)
	if err != nil {
		t.Fatal(err)
	}
	w.kafka.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.committing(req.(*kmsg.OffsetCommitRequest))
		return nil, nil, false
	})
	w.kafka.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.KeepControl()
		return w.neverTruncated(req.(*kmsg.OffsetForLeaderEpochRequest)), nil, true
	})
	deadLetters := w.kafka.TopicInfo(vdead).TopicID
	w.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.KeepControl()
		produce := req.(*kmsg.ProduceRequest)
		for _, t := range produce.Topics {
			if t.TopicID != deadLetters && t.Topic != vdead {
				continue
			}
			if refusal := w.deadLetterFault.Load(); refusal != nil {
				return refuseProduce(produce, refusal), nil, true
			}
			w.burying(t)
		}
		return nil, nil, false
	})
	return w
}

// produce appends events to a partition.
func (w *world) produce(partition int32, texts ...string) {
	w.t.Helper()
	recs := make([]*kgo.Record, len(texts))
	for i, text := range texts {
		w.produced(partition, text)
		recs[i] = &kgo.Record{Topic: vtopic, Partition: partition, Value: []byte(text)}
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Minute)
	defer cancel()
	if err := w.client.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		w.t.Fatalf("producing: %v", err)
	}
}

// plain are n events that nothing is wrong with.
func plain(n int) []string { return texts("e", n) }

// pass lets time pass and everything that is due happen.
func (w *world) pass(d time.Duration) {
	_ = wait(w.t.Context(), d)
	synctest.Wait()
}

// until waits, a hundredth of a second at a time, and returns how long.
func (w *world) until(what string, limit time.Duration, holds func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for synctest.Wait(); !holds(); w.pass(10 * time.Millisecond) {
		if time.Since(began) > limit {
			for _, m := range w.members {
				w.t.Logf("%s, ended %v: %+v", m.name, m.ended(), m.Status())
			}
			w.t.Logf("group: %+v", w.kafka.GroupInfo(vgroup))
			w.t.Fatalf("waited %v of virtual time for this: %s", limit, what)
		}
	}
	return time.Since(began)
}

// resolved waits until every event has its end.
func (w *world) resolved(limit time.Duration) time.Duration {
	w.t.Helper()
	return w.until("every event has its end", limit, func() bool { return w.unsettled() == 0 })
}

// committedTo is the group's offset; -1 if it has none.
func (w *world) committedTo(p int32) int64 {
	if g := w.kafka.GroupInfo(vgroup); g != nil {
		if c, ok := g.Commits[vtopic][p]; ok {
			return c.Offset
		}
	}
	return -1
}

// look holds every member's ledger and commits against the promise: events in
// are events out, the group's offsets never go back, and what was marked is committed with the second commit that
// goes well from then on (the first may have been under way).
func (w *world) look() {
	w.t.Helper()
	var commits map[int32]kfake.GroupCommit
	if g := w.kafka.GroupInfo(vgroup); g != nil {
		commits = g.Commits[vtopic]
	}
	for p, c := range commits {
		if before := w.furthest[p]; c.Offset < before {
			w.t.Errorf("partition %d: the group's offset went back from %d to %d", p, before, c.Offset)
		}
		w.furthest[p] = c.Offset
	}
	for _, m := range w.members {
		good := m.counts.get(func() int { return m.counts.committed })
		s := m.Status()
		if s.Ledger.Unaccounted != 0 {
			w.t.Errorf("%s: the ledger is out by %d events: %+v", m.name, s.Ledger.Unaccounted, s.Ledger)
		}
		now := map[int32]sight{}
		for _, p := range s.Partitions {
			stay := w.latest(m, p.Partition)
			if stay == nil || p.Marked <= stay.first {
				continue
			}
			before, ok := m.seen[p.Partition]
			if !ok || before.stay != stay || good >= before.commits+2 {
				if ok && before.stay == stay && !m.strayed() {
					if at := commits[p.Partition].Offset; at < before.marked {
						w.t.Errorf("%s: partition %d was marked up to %d and two commits went well, but %d is committed", m.name, p.Partition, before.marked, at)
					}
					w.cover(p.Partition, before.marked)
				}
				before = sight{stay, p.Marked, good}
			}
			now[p.Partition] = before
		}
		m.seen = now
	}
}

// finish ends the faults, waits until the group is idle and checks all of it.
func (w *world) finish() {
	w.t.Helper()
	w.release()
	alive := false
	for _, m := range w.members {
		m.fix()
		alive = alive || !m.ended()
	}
	if !alive {
		w.join()
	}
	// A stop in the middle of a rebalance may not be able to commit.
	waiting, exorcised := time.Now(), false
	w.until("the group is at rest", 5*time.Minute, func() bool {
		if time.Since(waiting) > time.Minute && !exorcised {
			exorcised = true
			w.exorcise()
		}
		parts := 0
		for _, m := range w.members {
			if !m.ended() {
				parts += len(m.Status().Partitions)
			}
		}
		g := w.kafka.GroupInfo(vgroup)
		return g != nil && g.State == "Stable" && len(g.Members) == w.alive() && parts == len(w.ends()) && g.NumAssigned() == parts
	})
	ends := w.ends()
	for p := range ends {
		w.produce(int32(p), "last")
	}
	w.resolved(10 * time.Minute)
	if w.restless || w.alive() > 1 { // one that stops is a rebalance for the next
		w.until("all is committed", time.Minute, func() bool {
			for p, end := range w.ends() {
				if w.committedTo(int32(p)) != end {
					return false
				}
			}
			return true
		})
	}
	w.look()
	for _, m := range w.members {
		if !m.isKilled() {
			m.stop()
		}
	}
	for p, end := range w.ends() {
		if got := w.committedTo(int32(p)); got != end {
			w.t.Errorf("partition %d: committed %d at the end, want the log's end %d", p, got, end)
		}
	}
}

// exorcise has members leave whom nobody is, and the others join again. This
// kfake never expires a member whose connection ended while it waited for a
// rebalance, and may wait for it for ever.
func (w *world) exorcise() {
	w.t.Helper()
	g := w.kafka.GroupInfo(vgroup)
	if g == nil || w.cfg.Protocol != "classic" {
		return
	}
	for _, ghost := range g.Members {
		if slices.ContainsFunc(w.members, func(m *vmember) bool { return !m.ended() && m.Status().MemberID == ghost.MemberID }) {
			continue
		}
		w.expel(ghost.MemberID)
	}
	for _, m := range w.members {
		if !m.ended() {
			m.sever()
			m.fix()
		}
	}
}

// expel has the group forget a member of the classic protocol.
func (w *world) expel(id string) {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = vgroup, id
	leaving := kmsg.NewLeaveGroupRequestMember()
	leaving.MemberID = id
	req.Members = append(req.Members, leaving)
	if _, err := req.RequestWith(w.t.Context(), w.client); err != nil {
		w.t.Errorf("expelling member %s: %v", id, err)
	}
}

// close ends what is left, which after a failure is much.
func (w *world) close() {
	for _, m := range w.members {
		m.mu.Lock()
		m.cut = false
		m.mu.Unlock()
		m.fix()
		m.cancel()
	}
	for _, m := range w.members {
		<-m.done
		m.cluster.Close()
	}
	w.client.Close()
	w.kafka.Close()
	// What is on its way may arrive; what is left then is a leak.
	_ = wait(context.Background(), dialRefused)
}
