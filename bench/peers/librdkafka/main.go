// Command librdkafka is the naive bridge with librdkafka in place of franz-go. It polls
// with confluent-kafka-go, makes rows with encoding/json, posts them, and commits after
// the answer. It has a module of its own because that client needs cgo.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/datafly/bridge/bench/naive"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "librdkafka:", err)
		os.Exit(1)
	}
}

// pollMillis is how long a poll waits for a first event.
const pollMillis = 100

func run(ctx context.Context) error {
	var c naive.Config
	brokers := flag.String("brokers", "", "bootstrap `addresses`, with commas between")
	topic := flag.String("topic", "", "topic to read")
	group := flag.String("group", "", "consumer group")
	flag.StringVar(&c.Workspace, "workspace", "", "`URL` of the workspace")
	flag.StringVar(&c.ClientID, "client-id", "", "client id of the service principal")
	flag.StringVar(&c.ClientSecret, "client-secret", "", "its secret")
	flag.StringVar(&c.Table, "table", "", "catalog.schema.table")
	flag.Parse()
	consumer, err := kafka.NewConsumer(&kafka.ConfigMap{
		"bootstrap.servers":  *brokers,
		"group.id":           *group,
		"auto.offset.reset":  "earliest",
		"enable.auto.commit": false,
		// As in the other subjects.
		"fetch.max.bytes":           4 << 20,
		"max.partition.fetch.bytes": 256 << 10,
	})
	if err != nil {
		return fmt.Errorf("preparing the kafka consumer: %w", err)
	}
	err = deliver(ctx, consumer, *topic, c)
	return errors.Join(err, consumer.Close())
}

func deliver(ctx context.Context, consumer *kafka.Consumer, topic string, c naive.Config) error {
	if err := consumer.Subscribe(topic, nil); err != nil {
		return fmt.Errorf("subscribing to %s: %w", topic, err)
	}
	w, err := naive.NewWriter(ctx, c)
	if err != nil {
		return err
	}
	defer w.Close()
	for ctx.Err() == nil {
		n, err := poll(consumer, w)
		if err == nil && n > 0 {
			if err = w.Flush(ctx); err == nil {
				_, err = consumer.Commit()
			}
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// poll adds a batch of rows: what is there when the first event is, up to the most
// of one request.
func poll(consumer *kafka.Consumer, w *naive.Writer) (n int, err error) {
	wait := pollMillis
	for n < naive.MaxRows {
		switch e := consumer.Poll(wait).(type) {
		case nil:
			return n, nil
		case *kafka.Message:
			if e.TopicPartition.Error != nil {
				return n, fmt.Errorf("polling: %w", e.TopicPartition.Error)
			}
			if err := w.Add(e.Value); err != nil {
				return n, fmt.Errorf("decoding %s: %w", e.TopicPartition, err)
			}
			n, wait = n+1, 0
		case kafka.Error:
			if e.IsFatal() {
				return n, e
			}
		}
	}
	return n, nil
}
