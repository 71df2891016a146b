package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// topicTimeout bounds the making of one topic; the largest take a second or
// two on a quiet machine.
const topicTimeout = 5 * time.Minute

func createTopic(t testing.TB, opts []kgo.Opt, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), topicTimeout)
	defer cancel()
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatalf("creating topic %s: %v", topic, err)
	}
	defer cl.Close()

	values := make(map[string]*string)
	for k, v := range configs {
		values[k] = &v
	}
	const brokerDefault = -1 // replication factor
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, brokerDefault, values, topic); err != nil {
		t.Fatalf("creating topic %s: %v", topic, err)
	}
	for _, b := range cl.SeedBrokers() {
		for {
			err := hasTopic(ctx, b, topic, partitions)
			if err == nil {
				break
			}
			if timeout := pause(ctx, 10*time.Millisecond); timeout != nil {
				t.Fatalf("waiting for topic %s: %v", topic, errors.Join(timeout, err))
			}
		}
	}
}

// hasTopic says what one broker does not know of the topic yet.
func hasTopic(ctx context.Context, b *kgo.Broker, topic string, partitions int32) error {
	resp, err := metadata(ctx, b, []string{topic})
	if err != nil {
		return err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != int(partitions) {
		return fmt.Errorf("the broker does not list %d partitions", partitions)
	}
	return leaders(resp, nil)
}
