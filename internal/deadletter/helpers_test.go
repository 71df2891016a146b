package deadletter_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/setting"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

// patience is how long a test waits for what should take moments.
const patience = await.Patience

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	await.That(t, what, holds)
}

// config is a working configuration for the broker, in a group of its own.
func config(t testing.TB, b kafkatest.Broker, topics ...string) consumer.Config {
	sec := b.Security()
	k := consumer.Kafka{
		Brokers: b.Addrs(), ClientID: "bridge-test", Topics: topics, Group: kafkatest.Name(t), Start: "earliest", Protocol: "classic",
		SessionTimeout: 30 * time.Second, RebalanceTimeout: time.Minute, FetchMaxBytes: 4 << 20, FetchMaxPartitionBytes: 256 << 10,
	}
	if sec.CAFile != "" {
		k.TLS = kafka.TLS{Enabled: true, CAFile: sec.CAFile, CertFile: sec.CertFile, KeyFile: sec.KeyFile}
	}
	if sec.Mechanism != "" {
		k.SASL = kafka.SASL{Mechanism: strings.ToLower(sec.Mechanism), Username: sec.Username, Password: setting.Secret(sec.Password)}
	}
	return consumer.Config{
		Kafka: k, Version: "1.2.3",
		Delivery: consumer.Delivery{MaxRows: 500, MaxBytes: 4 << 20, MaxBuffered: 64 << 20, Drain: 30 * time.Second},
		Rejects:  consumer.Rejects{Policy: consumer.PolicyDeadLetter, Create: true, ReplicationFactor: -1},
	}
}

// newClient returns a client that the test's end closes, with its log.
func newClient(t *testing.T, cfg consumer.Config) (*kafka.Client, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	cl, err := kafka.NewClient(cfg.Connection(), zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl, logs
}

// member is a running group member.
type member struct {
	consumer.Observer
	t            *testing.T
	logs         *observer.ObservedLogs
	deadLettered atomic.Int64
	stop         func()
}

func (m *member) EventsRead(string, int32, int, int)                   {}
func (m *member) OffsetsPassed(string, int32, int64, int64)            {}
func (m *member) RowsDelivered(string, int32, int, int, time.Duration) {}
func (m *member) EventRejected(string, string)                         {}
func (m *member) EventFiltered(string, string, int)                    {}
func (m *member) BatchSplit(string)                                    {}
func (m *member) Committed(error)                                      {}
func (m *member) Rebalanced(string, int)                               {}
func (m *member) Forget(string, int32)                                 {}
func (m *member) DeadLettered(_ string, n int)                         { m.deadLettered.Add(int64(n)) }

// start runs a member until the test ends or stop is called.
func start(t *testing.T, cfg consumer.Config, sink consumer.Sink) *member {
	t.Helper()
	return startMapping(t, cfg, sink, toRow)
}

func startMapping(t *testing.T, cfg consumer.Config, sink consumer.Sink, mapper consumer.Mapper) *member {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	log := zap.New(core)
	cluster, err := consumer.NewCluster(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := cluster.EnsureDeadLetters(ctx); err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, logs: logs}
	group := consumer.NewGroup(cfg, cluster, sink, func() consumer.Mapper { return mapper }, m, log)
	running, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- group.Run(running) }()
	m.stop = sync.OnceFunc(func() {
		end()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil after its context ended", err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

// logged counts the log lines with this text.
func (m *member) logged(text string) int { return m.logs.FilterMessageSnippet(text).Len() }

// makeDeadLetter returns the dead letter of a record, as a partition writes it.
func makeDeadLetter(rec *kgo.Record, m consumer.Mapper) *kgo.Record {
	return makeDeadLetterOf(consumer.Config{Version: "1.2.3", Kafka: consumer.Kafka{Group: "g"}}, rec, m)
}

func makeDeadLetterOf(cfg consumer.Config, rec *kgo.Record, m consumer.Mapper) *kgo.Record {
	var b consumer.Batch
	b.Add(rec, m)
	return b.DeadLetters(&cfg, time.Unix(1_800_000_000, 0))[0]
}

// split returns the parts of a dead letter.
func split(deadLetter *kgo.Record, size int) []*kgo.Record {
	return slices.Collect(consumer.SplitRecord(deadLetter, consumer.EncodeRecord(deadLetter), size))
}

// partsOfBytes splits bytes into parts as if they were a dead letter's.
func partsOfBytes(rec *kgo.Record, whole []byte, size int) []*kgo.Record {
	parts := split(rec, size)
	var forged []*kgo.Record
	of := (len(whole) + size - 1) / size
	for piece := range slices.Chunk(whole, size) {
		headers := slices.Clone(parts[0].Headers)
		headers[0].Value = fmt.Appendf(nil, "%d/%d", len(forged)+1, of)
		headers[1].Value = []byte(consumer.PartName(whole))
		forged = append(forged, &kgo.Record{Topic: rec.Topic, Value: piece, Headers: headers})
	}
	return forged
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

// offsets returns the log end and what a group has committed, by partition.
func offsets(t *testing.T, b kafkatest.Broker, group, topic string) (ends, committed map[int32]int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	adm := kadm.NewClient(client(t, b))
	listed, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatalf("reading end offsets of %s: %v", topic, err)
	}
	ends, committed = map[int32]int64{}, map[int32]int64{}
	for id, o := range listed[topic] {
		ends[id] = o.Offset
	}
	if group == "" {
		return ends, nil
	}
	fetched, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		t.Fatalf("reading committed offsets: %v", err)
	}
	for id, o := range fetched[topic] {
		committed[id] = o.At
	}
	return ends, committed
}

// wantAllCommitted wants every partition committed to its end.
func wantAllCommitted(t *testing.T, b kafkatest.Broker, group, topic string) {
	t.Helper()
	ends, committed := offsets(t, b, group, topic)
	for id, end := range ends {
		if end > 0 && committed[id] != end {
			t.Errorf("%s/%d: committed %d, want the log's end %d", topic, id, committed[id], end)
		}
	}
}

// endOf counts the records ever produced to a topic.
func endOf(t *testing.T, b kafkatest.Broker, topic string) (n int64) {
	t.Helper()
	ends, _ := offsets(t, b, "", topic)
	for _, end := range ends {
		n += end
	}
	return n
}

// readAll reads all records of a topic.
func readAll(t *testing.T, b kafkatest.Broker, topic string, n int) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(t, b, kgo.ConsumeTopics(topic))
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

// noise is n characters that no compression makes much smaller.
func noise(n int) string {
	raw := make([]byte, n/2+1)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(raw) // never fails
	return hex.EncodeToString(raw)[:n]
}
