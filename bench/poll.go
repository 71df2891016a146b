package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pollMark is what the consumer that only polls says twice: when it is warm
// and when it has everything.
type pollMark struct {
	Events int           `json:"events"`
	CPU    time.Duration `json:"cpu_ns"` // user and system time since it started
}

// playPoll is the role of the consumer that only polls: the floor under every
// consumer written with this client. Its options are those of the bridge.
func playPoll(ctx context.Context, settings []byte) error {
	r, err := readingFrom(settings)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(r.Brokers...),
		kgo.ConsumerGroup(r.Group),
		kgo.ConsumeTopics(r.Topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(4<<20),
		kgo.FetchMaxPartitionBytes(256<<10),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(time.Second),
		kgo.BlockRebalanceOnPoll(),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
	)
	if err != nil {
		return fmt.Errorf("preparing the kafka consumer: %w", err)
	}
	defer cl.CloseAllowingRebalance()
	events, warm := 0, false
	for events < r.All {
		fetches := cl.PollRecords(ctx, 10_000)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("polling %s: %w", r.Topic, err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if n := len(p.Records); n > 0 {
				events += n
				cl.MarkCommitRecords(p.Records[n-1])
			}
		})
		cl.AllowRebalance()
		if !warm && events >= r.Warm {
			warm = true
			if err := sayMark(events); err != nil {
				return err
			}
		}
	}
	if err := sayMark(events); err != nil {
		return err
	}
	<-ctx.Done() // memory is read from outside first
	return nil
}

func sayMark(events int) error {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return fmt.Errorf("reading the own processor time: %w", err)
	}
	return tell(pollMark{Events: events, CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano())})
}
