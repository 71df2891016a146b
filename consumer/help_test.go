package consumer_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/setting"
)

// patience is how long a test waits for what should take moments.
const patience = await.Patience

// room is what a busy machine adds to a stop that the test measures: more than
// that takes something that is waited for, such as the ten seconds the client
// gives a broker to answer.
const room = 8 * time.Second

// heartbeat is how often a classic member of a test is heard: often, so that a
// rebalance takes no longer than it must.
const heartbeat = 500 * time.Millisecond

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	await.That(t, what, holds)
}

// wait lets time pass, or the context end.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// config is a working configuration for the broker, in a group of its own.
func config(t testing.TB, b kafkatest.Broker, topics ...string) consumer.Config {
	return consumer.Config{
		Kafka:    connection(t, b, topics...),
		Delivery: consumer.Delivery{MaxRows: 500, MaxBytes: 4 << 20, MaxBuffered: 64 << 20, Drain: 30 * time.Second},
		Rejects:  consumer.Rejects{Policy: consumer.PolicyDeadLetter, Create: true, ReplicationFactor: -1},
		Version:  "1.2.3",
	}
}

func connection(t testing.TB, b kafkatest.Broker, topics ...string) consumer.Kafka {
	sec := b.Security()
	k := consumer.Kafka{
		Brokers: b.Addrs(), ClientID: "bridge-test",
		Topics: topics, Group: kafkatest.Name(t), Start: "earliest", Protocol: "classic",
		// Long enough for a busy machine; a test that waits for the end of a session
		// sets a shorter one.
		SessionTimeout: 30 * time.Second, RebalanceTimeout: time.Minute,
		FetchMaxBytes: 4 << 20, FetchMaxPartitionBytes: 256 << 10,
	}
	if sec.CAFile != "" {
		k.TLS = kafka.TLS{Enabled: true, CAFile: sec.CAFile, CertFile: sec.CertFile, KeyFile: sec.KeyFile}
	}
	if sec.Mechanism != "" {
		k.SASL = kafka.SASL{Mechanism: strings.ToLower(sec.Mechanism), Username: sec.Username, Password: setting.Secret(sec.Password)}
	}
	return k
}

// member is a running group member.
type member struct {
	*consumer.Group
	t      *testing.T
	counts *counts
	logs   *observer.ObservedLogs
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run, once done is closed
}

// newCluster makes a Cluster that the test's end closes.
func newCluster(t *testing.T, cfg consumer.Config) (*consumer.Cluster, *zap.Logger, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	t.Cleanup(func() {
		if t.Failed() {
			for _, e := range logs.All() {
				t.Logf("%s %s %s %v", e.Time.Format("05.000"), e.Level.CapitalString(), e.Message, e.ContextMap())
			}
		}
	})
	log := zap.New(core)
	cluster, err := consumer.NewCluster(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster, log, logs
}

// start runs a member until the test ends or stop is called. Blocked partitions
// probe often.
func start(t *testing.T, cfg consumer.Config, sink consumer.Sink) *member {
	t.Helper()
	return startProbing(t, cfg, sink, 200*time.Millisecond)
}

func startProbing(t *testing.T, cfg consumer.Config, sink consumer.Sink, probe time.Duration) *member {
	t.Helper()
	cluster, log, logs := newCluster(t, cfg)
	ensureDeadLetters(t, cluster)
	m := &member{t: t, counts: newCounts(), logs: logs, done: make(chan struct{})}
	m.Group = consumer.NewGroup(cfg, cluster, sink, newToRow, m.counts, log)
	m.SetProbe(probe)
	m.SetHeartbeat(heartbeat)
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(m.done)
		m.err = m.Run(ctx)
	}()
	t.Cleanup(func() {
		m.cancel()
		<-m.done
		m.audit()
	})
	return m
}

// audit holds the ledger of a member that has stopped against itself and
// with what the member's observer counted.
func (m *member) audit() {
	m.t.Helper()
	l := m.Status().Ledger
	balanced(m.t, m.Status())
	m.counts.with(func() {
		// Rows that are written again for new columns count twice.
		if got, counted := l.Delivered, int64(m.counts.delivered); got > counted {
			m.t.Errorf("ledger: %d events delivered, and the observer counted %d rows", got, counted)
		}
		if got, counted := l.Filtered, int64(total(m.counts.filtered)); got != counted {
			m.t.Errorf("ledger: %d events filtered, and the observer counted %d", got, counted)
		}
		if got, counted := l.DeadLettered+l.Skipped, int64(total(m.counts.rejected)); got != counted {
			m.t.Errorf("ledger: %d events rejected, and the observer counted %d", got, counted)
		}
		if got, counted := l.Read, int64(m.counts.read); got < counted {
			m.t.Errorf("ledger: %d events read, and the observer counted %d records", got, counted)
		}
	})
}

// balanced wants the equation of a ledger to hold and nothing to be in flight
// after a stop.
func balanced(t testing.TB, s consumer.Status) {
	t.Helper()
	if l := s.Ledger; l.Unaccounted != 0 || l.Ledger.Unaccounted() != 0 || l.InFlight != 0 {
		t.Errorf("the ledger does not close: %+v, out by %d", l, l.Unaccounted)
	}
}

func total(by map[string]int) (n int) {
	for _, some := range by {
		n += some
	}
	return n
}

func ensureDeadLetters(t *testing.T, cluster *consumer.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// A topic the test has not made yet has its dead-letter topic made, too.
	if err := cluster.EnsureDeadLetters(ctx); err != nil {
		t.Fatal(err)
	}
}

// stop ends the member as a signal does and returns how long that took.
func (m *member) stop() time.Duration {
	m.t.Helper()
	began := time.Now()
	m.cancel()
	select {
	case <-m.done:
	case <-time.After(patience):
		m.t.Fatal("Run has not returned after its context ended")
	}
	if m.err != nil {
		m.t.Errorf("Run returned %v, want nil after its context ended", m.err)
	}
	return time.Since(began)
}

// partition returns the status of one assigned partition.
func (m *member) partition(id int32) (consumer.PartitionStatus, bool) {
	for _, p := range m.Status().Partitions {
		if p.Partition == id {
			return p, true
		}
	}
	return consumer.PartitionStatus{}, false
}

// reasons are the codes of NotReady, sorted.
func (m *member) reasons() []string {
	var codes []string
	for _, r := range m.Status().NotReady {
		codes = append(codes, r.Code)
	}
	return codes
}

// logged counts the lines at or above warn, or at all levels, that contain text.
func (m *member) logged(level zapcore.Level, text string) int {
	n := 0
	for _, e := range m.logs.All() {
		if e.Level >= level && strings.Contains(fmt.Sprint(e.Message, e.ContextMap()), text) {
			n++
		}
	}
	return n
}

// client is a plain client of the broker.
func client(t *testing.T, b kafkatest.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(b.ClientOpts(), append([]kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
	}, opts...)...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// produce spreads texts over the partitions, round robin.
func produce(t *testing.T, b kafkatest.Broker, topic string, partitions int32, texts ...string) {
	t.Helper()
	var recs []*kgo.Record
	for i, text := range texts {
		recs = append(recs, &kgo.Record{Topic: topic, Partition: int32(i) % partitions, Value: []byte(text)})
	}
	produceRecords(t, b, recs...)
}

func produceRecords(t *testing.T, b kafkatest.Broker, recs ...*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var opts []kgo.Opt
	if len(recs[0].Value) > 500<<10 {
		opts = append(opts, kgo.ProducerBatchMaxBytes(32<<20))
	}
	cl := client(t, b, opts...)
	defer cl.Close()
	if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		t.Fatalf("producing: %v", err)
	}
}

// texts are n different events.
func texts(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s%06d", prefix, i)
	}
	return all
}

// committed returns the group's offsets by partition; nil if there are none.
func committed(t *testing.T, b kafkatest.Broker, group, topic string) map[int32]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(t, b)
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(ctx, group)
	if err != nil {
		t.Fatalf("reading committed offsets: %v", err)
	}
	var at map[int32]int64
	for id, o := range offsets[topic] {
		if at == nil {
			at = map[int32]int64{}
		}
		at[id] = o.At
	}
	return at
}

// wantStartCommitted wants nothing committed but the start of each partition.
func wantStartCommitted(t *testing.T, b kafkatest.Broker, group, topic string) {
	t.Helper()
	for id, at := range committed(t, b, group, topic) {
		if at != 0 {
			t.Errorf("%s/%d: committed %d, want nothing but the start position 0", topic, id, at)
		}
	}
}

// wantAllCommitted wants every partition committed to its end.
func wantAllCommitted(t *testing.T, b kafkatest.Broker, group, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(t, b)
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatalf("reading end offsets: %v", err)
	}
	at := committed(t, b, group, topic)
	for id, end := range ends[topic] {
		if end.Offset > 0 && at[id] != end.Offset {
			t.Errorf("%s/%d: committed %d, want the log's end %d", topic, id, at[id], end.Offset)
		}
	}
}

// readAll reads n records of a topic from its start, and fails if more come.
func readAll(t *testing.T, b kafkatest.Broker, topic string, n int) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(t, b, kgo.ConsumeTopics(topic))
	defer cl.Close()
	if got := endOf(t, b, topic); got != int64(n) {
		t.Fatalf("topic %s holds %d records, want %d", topic, got, n)
	}
	var recs []*kgo.Record
	for len(recs) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("reading %s: %v", topic, err)
		}
		recs = append(recs, fetches.Records()...)
	}
	return recs
}

// endOf counts the records ever produced to a topic.
func endOf(t *testing.T, b kafkatest.Broker, topic string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(t, b)
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatalf("reading end offsets of %s: %v", topic, err)
	}
	var n int64
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

func header(rec *kgo.Record, key string) string {
	value := ""
	for _, h := range rec.Headers {
		if h.Key == key {
			value = string(h.Value)
		}
	}
	return value
}

// produceTo spreads texts over some of the partitions, round robin.
func produceTo(t *testing.T, b kafkatest.Broker, topic string, partitions []int32, all ...string) {
	t.Helper()
	var recs []*kgo.Record
	for i, text := range all {
		recs = append(recs, &kgo.Record{Topic: topic, Partition: partitions[i%len(partitions)], Value: []byte(text)})
	}
	produceRecords(t, b, recs...)
}

var nopLog = zap.NewNop()

func produceRecordsWith(t *testing.T, cl *kgo.Client, topic, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(text)}).FirstErr(); err != nil {
		t.Fatalf("producing: %v", err)
	}
}
