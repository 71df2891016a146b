package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxPartitions keeps an hour's run from drowning in partitions.
const maxPartitions = 32

// turn waits until no other broker is away: with two of three gone, Kafka
// promises nothing that could be held against the bridge.
func (r *run) turn() (done func(), ok bool) {
	select {
	case r.brokers <- struct{}{}:
		return func() { <-r.brokers }, true
	case <-r.ctx.Done():
		return nil, false
	}
}

func (r *run) brokerKill(d *doing) error { return r.killBroker(d, d.Target%r.o.brokers) }

func (r *run) killBroker(d *doing, i int) error {
	done, ok := r.turn()
	if !ok {
		return nil
	}
	defer done()
	if err := r.rig.cluster.Kill(i); err != nil {
		return err
	}
	r.last(d)
	return r.rig.cluster.Restart(r.ctx, i)
}

func (r *run) coordinatorKill(d *doing) error {
	var node int32
	err := r.retry(func(ctx context.Context) error {
		c, ok := r.rig.adm.FindGroupCoordinators(ctx, group)[group]
		if !ok {
			return errors.New("no answer")
		}
		node = c.NodeID
		return c.Err
	})
	if err != nil {
		return fmt.Errorf("finding the group's coordinator: %w", err)
	}
	return r.killBroker(d, int(node)-1)
}

func (r *run) brokerPause(d *doing) error {
	done, ok := r.turn()
	if !ok {
		return nil
	}
	defer done()
	i := d.Target % r.o.brokers
	if err := r.rig.cluster.Pause(i); err != nil {
		return err
	}
	r.last(d)
	return r.rig.cluster.Resume(i)
}

// leaderMove turns the replicas of every partition round by one, so that
// another is preferred, and has it elected.
func (r *run) leaderMove(*doing) error {
	done, ok := r.turn()
	if !ok {
		return nil
	}
	defer done()
	err := r.retry(func(ctx context.Context) error {
		topics, err := r.rig.adm.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		var req kadm.AlterPartitionAssignmentsReq
		for _, p := range topics[topic].Partitions.Sorted() {
			if n := len(p.Replicas); n > 1 {
				req.Assign(topic, p.Partition, append(p.Replicas[1:n:n], p.Replicas[0]))
			}
		}
		moved, err := r.rig.adm.AlterPartitionAssignments(ctx, req)
		if err != nil {
			return err
		}
		return moved.Error()
	})
	if err != nil {
		return fmt.Errorf("moving leaders: %w", err)
	}
	// Kafka may find that some are where they should be already.
	req := kmsg.NewPtrElectLeadersRequest()
	req.TimeoutMillis = 5000
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	if _, err := req.RequestWith(ctx, r.rig.cl); err != nil && r.ctx.Err() == nil {
		return fmt.Errorf("electing leaders: %w", err)
	}
	return nil
}

func (r *run) partitionAdd(*doing) error {
	done, ok := r.turn()
	if !ok {
		return nil
	}
	defer done()
	// A request that has timed out may have been heard: the number wanted is
	// fixed before.
	var want int
	err := r.retry(func(ctx context.Context) error {
		topics, err := r.rig.adm.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		n := len(topics[topic].Partitions)
		if want == 0 {
			want = min(n+1, maxPartitions)
		}
		if n >= want {
			return nil
		}
		made, err := r.rig.adm.UpdatePartitions(ctx, want, topic)
		if err != nil {
			return err
		}
		return made.Error()
	})
	if err != nil {
		return fmt.Errorf("adding a partition: %w", err)
	}
	return nil
}

// lettersDown has the dead-letter topic refuse every record as too large.
func (r *run) lettersDown(d *doing) error {
	set := func(op kadm.IncrementalOp) error {
		one := "1"
		c := kadm.AlterConfig{Op: op, Name: "max.message.bytes"}
		if op == kadm.SetConfig {
			c.Value = &one
		}
		return r.retry(func(ctx context.Context) error {
			changed, err := r.rig.adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{c}, letters)
			if err != nil {
				return err
			}
			_, err = changed.On(letters, func(r *kadm.AlterConfigsResponse) error { return r.Err })
			return err
		})
	}
	r.closing.Lock()
	defer r.closing.Unlock()
	if err := set(kadm.SetConfig); err != nil {
		return fmt.Errorf("closing the dead-letter topic: %w", err)
	}
	r.last(d)
	if err := set(kadm.DeleteConfig); err != nil {
		return fmt.Errorf("opening the dead-letter topic: %w", err)
	}
	return nil
}
