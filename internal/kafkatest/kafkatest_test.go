package kafkatest_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

func TestRoundTrip(t *testing.T) {
	for _, brokers := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d brokers", brokers), func(t *testing.T) {
			kafkatest.Each(t, kafkatest.Options{Brokers: brokers}, func(t *testing.T, b kafkatest.Broker) {
				if got := len(b.Addrs()); got != brokers {
					t.Fatalf("got %d addresses, want %d", got, brokers)
				}
				topic := kafkatest.Topic(t, b, 3)
				produce(t, b, topic, 0, 100)
				consume(t, b, topic, "", 100)
			})
		})
	}
}

func TestRestartKeepsDataAndOffsets(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{Private: true}, func(t *testing.T, b kafkatest.Broker) {
		topic, group := kafkatest.Topic(t, b, 1), kafkatest.Name(t)
		addrs := fmt.Sprint(b.Addrs())
		produce(t, b, topic, 0, 50)
		consume(t, b, topic, group, 50)

		b.Restart(t)
		if got := fmt.Sprint(b.Addrs()); got != addrs {
			t.Errorf("addresses after a restart: got %s, want %s", got, addrs)
		}
		produce(t, b, topic, 50, 20)

		b.StopAll(t)
		if err := ping(t, b); err == nil {
			t.Error("a stopped cluster answers")
		}
		b.StartAll(t)
		consume(t, b, topic, group, 20) // the first 50 are committed
		consume(t, b, topic, "", 70)
	})
}

func client(t *testing.T, b kafkatest.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	return kgoClient(t, append(b.ClientOpts(), opts...)...)
}

func kgoClient(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func ping(t *testing.T, b kafkatest.Broker) error {
	t.Helper()
	cl := client(t, b)
	defer cl.Close()
	return pingClient(t, cl)
}

// pingClient gives up before the retries of the client do, some of which have a
// busy machine's time.
func pingClient(t *testing.T, cl *kgo.Client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return cl.Ping(ctx)
}

// produce writes n records with the values first, first+1, ...
func produce(t *testing.T, b kafkatest.Broker, topic string, first, n int) {
	t.Helper()
	cl := client(t, b, kgo.DefaultProduceTopic(topic))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	var recs []*kgo.Record
	for i := range n {
		recs = append(recs, kgo.StringRecord(fmt.Sprint(first+i)))
	}
	if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// consume reads from the start, or from the committed offsets, until it has
// seen want different records, and commits them for the group.
func consume(t *testing.T, b kafkatest.Broker, topic, group string, want int) {
	t.Helper()
	opts := []kgo.Opt{kgo.ConsumeTopics(topic)}
	if group != "" {
		opts = append(opts, kgo.ConsumerGroup(group), kgo.DisableAutoCommit())
	}
	cl := client(t, b, opts...)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	seen := make(map[string]bool)
	for len(seen) < want {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(seen), want, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
	if len(seen) != want {
		t.Errorf("got %d records, want %d", len(seen), want)
	}
	if group != "" {
		if err := cl.CommitUncommittedOffsets(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
