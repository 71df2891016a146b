package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// waitReady returns once every running broker answers a metadata request that
// lists all running brokers and, when none is missing, a leader for every
// partition.
func (c *Cluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %v", startTimeout))
	defer cancel()
	for _, n := range c.nodes {
		if !n.running() || n.paused {
			continue
		}
		if err := c.waitNode(ctx, n); err != nil {
			return fmt.Errorf("waiting for broker %d at %s: %w; end of its log:\n%s", n.id, n.client.addr(), err, n.tail(40))
		}
	}
	return nil
}

func (c *Cluster) waitNode(ctx context.Context, n *node) error {
	opts := append(c.security.opts(),
		kgo.SeedBrokers(n.client.addr()),
		kgo.DialTimeout(2*time.Second),
		kgo.RequestRetries(0),
		kgo.RetryTimeout(2*time.Second))
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		last := c.probe(ctx, cl)
		if last == nil {
			return nil
		}
		if n.died() {
			n.kill() // reaps it
			return errors.New("it ended while starting")
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return errors.Join(err, last)
		}
	}
}

// probe asks the client's one seed broker and says what is missing.
func (c *Cluster) probe(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := metadata(ctx, cl.SeedBrokers()[0], nil)
	if err != nil {
		return err
	}
	listed := make(map[int32]bool)
	for _, b := range resp.Brokers {
		listed[b.NodeID] = true
	}
	live := make(map[int32]bool)
	for _, n := range c.nodes {
		if !n.running() || n.paused {
			continue
		}
		live[int32(n.id)] = true
		if !listed[int32(n.id)] {
			return fmt.Errorf("broker %d is not in the metadata", n.id)
		}
	}
	if len(live) < len(c.nodes) {
		return nil // partitions of the missing brokers may have no leader
	}
	return leaders(resp, live)
}

// leaders says which partition has no leader among the live brokers; nil live
// means any leader will do.
func leaders(resp *kmsg.MetadataResponse, live map[int32]bool) error {
	for _, t := range resp.Topics {
		name := ""
		if t.Topic != nil {
			name = *t.Topic
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", name, err)
		}
		for _, p := range t.Partitions {
			if p.Leader < 0 || live != nil && !live[p.Leader] {
				return fmt.Errorf("partition %s/%d has no leader", name, p.Partition)
			}
		}
	}
	return nil
}

// metadata asks one broker about the topics, or about all of them when nil.
func metadata(ctx context.Context, b *kgo.Broker, topics []string) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, t := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, rt)
	}
	resp, err := b.Request(ctx, req)
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.MetadataResponse), nil
}
