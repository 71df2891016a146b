//go:build synctests

package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

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
	*book
	cfg     consumer.Config
	net     *kfake.VirtualNetwork
	kafka   *kfake.Cluster
	client  *kgo.Client
	members []*vmember

	faults      []*kfake.FaultHandle
	furthest    map[int32]int64            // the group's offset by partition, as last seen
	released    chan struct{}              // closed by release
	letterFault atomic.Pointer[kerr.Error] // what dead letters are refused with
}

// setting is what a world begins with.
type setting struct {
	protocol   string // classic unless said
	brokers    int    // 1 unless said
	partitions int
	adjust     func(*consumer.Config)
}

// virtually runs body in a world and, when it returns, brings the world to rest
// and holds the end against the promise. The bubble fails by itself if a
// goroutine is left.
func virtually(t *testing.T, s setting, body func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s)
		defer w.close()
		body(w)
		w.finish()
	})
}

// bothProtocols runs body in a world for each group protocol.
func bothProtocols(t *testing.T, s setting, body func(w *world)) {
	t.Helper()
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			s.protocol = protocol
			virtually(t, s, body)
		})
	}
}

func newWorld(t *testing.T, s setting) *world {
	w := &world{book: newBook(t, s.partitions), net: new(kfake.VirtualNetwork), released: make(chan struct{}), furthest: map[int32]int64{}}
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
		Kafka:  consumer.Kafka{Brokers: w.kafka.ListenAddrs(), ClientID: "virtual"},
		Topics: []string{vtopic}, Group: vgroup, Start: "earliest", Protocol: "classic",
		SessionTimeout: vexpiry, RebalanceTimeout: 20 * time.Second,
		FetchMaxBytes: 1 << 20, FetchMaxPartitionBytes: 64 << 10,
		MaxRows: vrows, MaxBytes: 1 << 20, MaxBuffered: 1 << 20, Drain: vdrain,
		Rejects: consumer.Rejects{Policy: consumer.PolicyDeadLetter}, Version: "1.2.3",
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
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.MetadataMinAge(100*time.Millisecond),
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
	letters := w.kafka.TopicInfo(vdead).TopicID
	w.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.KeepControl()
		produce := req.(*kmsg.ProduceRequest)
		for _, t := range produce.Topics {
			if t.TopicID != letters && t.Topic != vdead {
				continue
			}
			if refusal := w.letterFault.Load(); refusal != nil {
				return refuseProduce(produce, refusal), nil, true
			}
			w.burying(t)
		}
		return nil, nil, false
	})
	return w
}

// neverTruncated answers where an epoch ended. This kfake does not know while
// nothing was produced since a leader moved, which the client takes for a log
// that was cut off; ours never are.
func (w *world) neverTruncated(req *kmsg.OffsetForLeaderEpochRequest) kmsg.Response {
	ends := w.ends()
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	for _, t := range req.Topics {
		topic := kmsg.NewOffsetForLeaderEpochResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			part := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			part.Partition, part.LeaderEpoch, part.EndOffset = p.Partition, p.LeaderEpoch, ends[p.Partition]
			topic.Partitions = append(topic.Partitions, part)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

func refuseProduce(req *kmsg.ProduceRequest, with *kerr.Error) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.Topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			part := kmsg.NewProduceResponseTopicPartition()
			part.Partition, part.ErrorCode = p.Partition, with.Code
			topic.Partitions = append(topic.Partitions, part)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// fault has the brokers refuse requests until release.
func (w *world) fault(f kfake.Fault) *kfake.FaultHandle {
	h := w.kafka.Fault(f)
	w.faults = append(w.faults, h)
	return h
}

// refuseLetters has the brokers refuse dead letters until release.
func (w *world) refuseLetters(with *kerr.Error) { w.letterFault.Store(with) }

// burying reads the dead letters of a request.
func (w *world) burying(t kmsg.ProduceRequestTopic) {
	for _, p := range t.Partitions {
		part := kmsg.NewFetchResponseTopicPartition()
		part.RecordBatches = p.Records
		got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{}, &part, kgo.DefaultDecompressor(), nil)
		for _, rec := range got.Records {
			w.buried(rec)
		}
	}
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

// settled waits until every event has its end.
func (w *world) settled(limit time.Duration) time.Duration {
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

// look holds every member's books and commits against the promise: events in
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
		if s.Imbalance != 0 {
			w.t.Errorf("%s: the books are out by %d events: %+v", m.name, s.Imbalance, s.Ledger)
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

// finish mends what is broken, lets the group come to rest and holds it all
// against the promise.
func (w *world) finish() {
	w.t.Helper()
	w.release()
	alive := false
	for _, m := range w.members {
		m.mend()
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
	w.settled(10 * time.Minute)
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

// exorcise has members leave whom nobody is. This kfake never expires a member
// whose connection ended while it waited for a rebalance.
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
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group, req.MemberID = vgroup, ghost.MemberID
		leaving := kmsg.NewLeaveGroupRequestMember()
		leaving.MemberID = ghost.MemberID
		req.Members = append(req.Members, leaving)
		if _, err := req.RequestWith(w.t.Context(), w.client); err != nil {
			w.t.Fatalf("expelling a member that is gone: %v", err)
		}
	}
}

// close ends what is left, which after a failure is much.
func (w *world) close() {
	for _, m := range w.members {
		m.mu.Lock()
		m.cut = false
		m.mu.Unlock()
		m.mend()
		m.cancel()
	}
	for _, m := range w.members {
		<-m.done
		m.cluster.Close()
	}
	w.client.Close()
	w.kafka.Close()
}

// vmember is a member of the group in a world of its own network.
type vmember struct {
	*consumer.Group
	w       *world
	name    string
	counts  *counts
	logs    *observer.ObservedLogs
	cluster *consumer.Cluster
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // of Run, once done is closed

	mu     sync.Mutex
	script script
	mended chan struct{} // closed when the sink is
	cut    bool          // its network is
	stray  bool          // its network was cut, or its heartbeats refused: it may write beside a new owner
	killed bool
	conns  map[net.Conn]bool
	writes int
	seen   map[int32]sight // by partition; owned by look
}

// sight is what was marked at a moment, and the commits that had gone well.
type sight struct {
	stay    *assignment
	marked  int64
	commits int
}

// script decides a Write of a member; nil takes the rows. land makes them
// durable without saying so.
type script func(ctx context.Context, m *vmember, rows []vrow, land func()) error

// join starts a member.
func (w *world) join(adjust ...func(*consumer.Config)) *vmember {
	w.t.Helper()
	m := &vmember{w: w, name: fmt.Sprintf("member %d", len(w.members)), done: make(chan struct{}), mended: make(chan struct{}), conns: map[net.Conn]bool{}}
	cfg := w.cfg
	cfg.Kafka.SetDial(m.dial)
	for _, f := range adjust {
		f(&cfg)
	}
	core, logs := observer.New(zap.InfoLevel)
	m.logs = logs
	w.t.Cleanup(func() {
		if w.t.Failed() {
			for _, e := range logs.All() {
				w.t.Logf("%s %s %s %s %v", m.name, e.Time.Format("04:05.000"), e.Level.CapitalString(), e.Message, e.ContextMap())
			}
		}
	})
	var err error
	if m.cluster, err = consumer.NewCluster(cfg, zap.New(core)); err != nil {
		w.t.Fatal(err)
	}
	m.counts = newCounts()
	m.Group = consumer.NewGroup(cfg, m.cluster, m, func() consumer.Mapper { return w.mapper(m) }, m.counts, zap.New(core))
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(m.done)
		m.err = m.Run(ctx)
	}()
	w.members = append(w.members, m)
	return m
}

// joined waits until the member has as many partitions.
func (m *vmember) joined(partitions int) *vmember {
	m.w.t.Helper()
	m.w.until(fmt.Sprintf("%s has %d partitions", m.name, partitions), 2*time.Minute, func() bool { return len(m.Status().Partitions) == partitions })
	return m
}

func (m *vmember) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut {
		return nil, errors.New("the network is cut")
	}
	conn, err := m.w.net.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	m.conns[conn] = true
	return conn, nil
}

// sever cuts the member off from the brokers.
func (m *vmember) sever() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut, m.stray = true, true
	for conn := range m.conns {
		conn.Close()
	}
	clear(m.conns)
}

// kill ends the member without a word to anyone: nobody hears of it any more,
// and nothing of it lands. What is left of it ends with the world, over a network
// that works: without one, franz-go 1.22.2 leaves the goroutine behind that
// tried to leave the group.
func (m *vmember) kill() {
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	m.sever()
}

func (m *vmember) strayed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stray
}

func (m *vmember) ended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.done:
		return true
	default:
		return m.killed
	}
}

// act sets how the member's Writes fare from now on.
func (m *vmember) act(s script) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.script = s
}

// mend ends the member's troubles.
func (m *vmember) mend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.killed {
		m.script, m.cut = nil, false
		close(m.mended)
		m.mended = make(chan struct{})
	}
}

// mendSink ends the troubles of the member's sink.
func (m *vmember) mendSink() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.script = nil
	close(m.mended)
	m.mended = make(chan struct{})
}

// stop ends the member as a signal does and returns how long that took.
func (m *vmember) stop() time.Duration {
	m.w.t.Helper()
	began := time.Now()
	m.cancel()
	<-m.done
	took := time.Since(began)
	if m.err != nil {
		m.w.t.Errorf("%s: Run returned %v, want nil after its context ended", m.name, m.err)
	}
	s := m.Status()
	if s.Running || len(s.Partitions) > 0 || s.BufferedBytes != 0 {
		m.w.t.Errorf("%s: status after Run: got %+v, want nothing left", m.name, s)
	}
	if s.Imbalance != 0 || s.Ledger.InFlight != 0 {
		m.w.t.Errorf("%s: the books do not balance after Run: %+v", m.name, s.Ledger)
	}
	m.cluster.Close()
	return took
}

// Write implements consumer.Sink. Texts that begin with poison are refused.
func (m *vmember) Write(ctx context.Context, _ int64, raw [][]byte) error {
	a, rows := m.w.parse(raw)
	m.w.begin(a)
	defer m.w.end(a)
	m.mu.Lock()
	m.writes++
	decide, killed := m.script, m.killed
	m.mu.Unlock()
	if killed {
		<-ctx.Done()
		return ctx.Err()
	}
	if decide != nil {
		if err := decide(ctx, m, rows, func() { m.w.land(a, rows, false) }); err != nil {
			var no *refusal
			if errors.As(err, &no) {
				m.w.loosen(a)
				if len(rows) == 1 {
					m.w.refused(a, rows[0]) // under the skip policy that may be its end
				}
			}
			return err
		}
	}
	for _, r := range rows {
		if strings.HasPrefix(r.text, "poison") {
			if len(rows) == 1 {
				m.w.refused(a, r)
			}
			return &refusal{"test"}
		}
	}
	if m.isKilled() {
		<-ctx.Done()
		return ctx.Err()
	}
	m.w.land(a, rows, true)
	return nil
}

func (m *vmember) isKilled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.killed
}

// Probe is Write.
func (m *vmember) Probe(ctx context.Context, made int64, rows [][]byte) error {
	return m.Write(ctx, made, rows)
}

// takes is a script of a sink that takes its time.
func takes(d time.Duration) script {
	return func(ctx context.Context, _ *vmember, _ []vrow, _ func()) error { return wait(ctx, d) }
}

// hangs is a script of a sink that does not answer until it is mended.
func hangs(ctx context.Context, m *vmember, _ []vrow, _ func()) error {
	m.mu.Lock()
	mended := m.mended
	m.mu.Unlock()
	select {
	case <-mended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuses is a script of a sink whose table takes no row.
func refuses(context.Context, *vmember, []vrow, func()) error { return &refusal{"schema_mismatch"} }

// loses is a script of a sink that takes the rows, loses the acknowledgement,
// and writes them again when it is mended.
func loses(ctx context.Context, m *vmember, rows []vrow, land func()) error {
	land()
	return hangs(ctx, m, rows, land)
}

// holdFetches has fetches of the group's topic answered by nobody until release.
func (w *world) holdFetches() {
	w.hold(kmsg.Fetch, func(kmsg.Request) bool { return true }, time.Hour)
}

// holdLetters has each dead letter taken only after d.
func (w *world) holdLetters(d time.Duration) {
	letters := w.kafka.TopicInfo(vdead).TopicID
	w.hold(kmsg.Produce, func(req kmsg.Request) bool {
		for _, t := range req.(*kmsg.ProduceRequest).Topics {
			if t.TopicID == letters || t.Topic == vdead {
				return true
			}
		}
		return false
	}, d)
}

// hold has requests wait for d, or for release, before the brokers act on them.
func (w *world) hold(key kmsg.Key, which func(kmsg.Request) bool, d time.Duration) {
	released := w.released
	w.kafka.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
		select {
		case <-released:
			return nil, nil, false
		default:
		}
		if which(req) {
			w.kafka.SleepControl(func() {
				timer := time.NewTimer(d)
				defer timer.Stop()
				select {
				case <-released:
				case <-timer.C:
				}
			})
		}
		return nil, nil, false
	})
}

// release lets go of what is held.
func (w *world) release() {
	close(w.released)
	w.released = make(chan struct{})
	w.mapping(nil)
	w.letterFault.Store(nil)
	for _, h := range w.faults {
		h.Remove()
	}
	w.faults = nil
}

// addPartitions has the topic hold n partitions.
func (w *world) addPartitions(n int32) {
	w.t.Helper()
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = 1000
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = vtopic, n
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(w.t.Context(), w.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		w.t.Fatalf("adding partitions: %v", err)
	}
	w.mu.Lock()
	for int(n) > len(w.logs) {
		w.logs = append(w.logs, nil)
	}
	w.mu.Unlock()
	w.client.ForceMetadataRefresh()
	w.pass(time.Second)
}
