package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafkatest"
)

// client connects to the broker for the length of the test.
func client(t testing.TB, b kafkatest.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(b.ClientOpts(), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// within bounds one exchange with the broker.
func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// eventID names the event at an offset, so that a row shows where it came from.
func eventID(partition int32, offset int64) string { return fmt.Sprintf("%d-%d", partition, offset) }

// event is a small well-formed event; pad makes it larger.
func event(id string, pad int) []byte {
	return fmt.Appendf(nil, `{"type":"track","event":"Order Completed","message_id":%q,"user_id":"u-1","anonymous_id":"a-1","timestamp":"2026-03-04T09:00:00.000Z",`+
		`"context":{"ip":"198.51.100.7","page":{"url":"https://shop.example/done"}},"properties":{"revenue":12.5,"note":"%s"}}`, id, strings.Repeat("x", pad))
}

// producer appends numbered events to the partitions of one topic.
type producer struct {
	t     testing.TB
	cl    *kgo.Client
	topic string
	next  []int64 // offset of the next event, by partition
	pad   int     // bytes added to each event
}

func newProducer(t testing.TB, b kafkatest.Broker, topic string, partitions int32) *producer {
	t.Helper()
	return &producer{t: t, topic: topic, next: make([]int64, partitions), cl: client(t, b,
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(20_000))}
}

// events appends n events, spread evenly, and returns when all are
// acknowledged.
func (p *producer) events(n int) {
	p.t.Helper()
	failed := make(chan error, 1)
	ctx, cancel := within()
	defer cancel()
	for i := range n {
		partition := int32(i % len(p.next))
		want := p.next[partition]
		p.next[partition]++
		p.cl.Produce(ctx, &kgo.Record{Topic: p.topic, Partition: partition, Key: []byte("k"), Value: event(eventID(partition, want), p.pad)},
			func(r *kgo.Record, err error) {
				if err == nil && r.Offset != want {
					err = fmt.Errorf("%s/%d: got offset %d, want %d", r.Topic, r.Partition, r.Offset, want)
				}
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
	}
	if err := p.cl.Flush(ctx); err != nil {
		p.t.Fatalf("producing %d events: %v", n, err)
	}
	select {
	case err := <-failed:
		p.t.Fatalf("producing %d events: %v", n, err)
	default:
	}
}

func (p *producer) total() int {
	n := 0
	for _, next := range p.next {
		n += int(next)
	}
	return n
}

// committed returns the group's offset by partition; none for a group that has
// not committed yet.
func committed(t testing.TB, adm *kadm.Client, group, topic string) map[int32]int64 {
	t.Helper()
	var offsets kadm.OffsetResponses
	var err error
	eventually(t, patience, "the offsets of "+group, func() bool {
		ctx, cancel := within()
		defer cancel()
		// Brokers that hold no group yet are still making the topic for them.
		offsets, err = adm.FetchOffsets(ctx, group)
		if errors.Is(err, kerr.GroupIDNotFound) {
			offsets, err = nil, nil
		}
		return err == nil && offsets.Error() == nil
	}, func() string { return fmt.Sprint(err) })
	got := map[int32]int64{}
	for _, o := range offsets[topic] {
		got[o.Partition] = o.At
	}
	return got
}

// sum adds committed offsets up.
func sum(offsets map[int32]int64) (n int64) {
	for _, o := range offsets {
		n += max(o, 0)
	}
	return n
}

// length is how many records a topic holds; 0 if there is no such topic.
func length(t testing.TB, adm *kadm.Client, topic string) (n int64) {
	t.Helper()
	ctx, cancel := within()
	defer cancel()
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatalf("reading the end of %s: %v", topic, err)
	}
	ends.Each(func(o kadm.ListedOffset) { n += max(o.Offset, 0) })
	return n
}

// deadLetters reads the dead-letter topic to its end.
func deadLetters(t testing.TB, b kafkatest.Broker, adm *kadm.Client, topic string) (all []*kgo.Record) {
	t.Helper()
	want := length(t, adm, topic)
	if want == 0 {
		return nil
	}
	cl := client(t, b, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(64<<20))
	ctx, cancel := within()
	defer cancel()
	for int64(len(all)) < want {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("reading %s: %v", topic, err)
		}
		all = append(all, fetches.Records()...)
	}
	return all
}

// header returns the last value of a header.
func header(r *kgo.Record, key string) string {
	value := ""
	for _, h := range r.Headers {
		if h.Key == key {
			value = string(h.Value)
		}
	}
	return value
}

// session is long enough for a machine that is too busy to be heard from. A
// test that kills a member sets a shorter one, so that its partitions move in
// good time.
const session = 30 * time.Second

// keepAhead produces until n events are not in the table, for tests of what
// happens while events are on their way, however long it takes to happen.
func (s *stage) keepAhead(n int) {
	s.t.Helper()
	if missing := n - (s.p.total() - s.ws.table().Count()); missing > 0 {
		s.p.events(missing)
	}
}

// parseID is the reverse of eventID.
func parseID(t testing.TB, id string) (partition int32, offset int64) {
	t.Helper()
	if _, err := fmt.Sscanf(id, "%d-%d", &partition, &offset); err != nil {
		t.Fatalf("message id %q: %v", id, err)
	}
	return partition, offset
}
