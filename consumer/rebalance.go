package consumer

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// The callbacks of a rebalance. The client never calls two of them at once, nor
// one of them between a poll and its AllowRebalance.

func (g *Group) assigned(_ context.Context, cl *kgo.Client, partitions map[string][]int32) {
	// The client hands a partition over once; should it ever do so twice, two
	// goroutines must not write the same events.
	g.drain(g.named(partitions), 0, errLost)
	n := 0
	member, _ := cl.GroupMetadata()
	g.mu.Lock()
	g.own(partitions, true)
	if g.over {
		partitions = nil // nothing polls any more
	}
	// What the group left with us when it gave us a new name is ours under
	// that: revoked comes first, and would have taken what is not.
	for _, p := range g.parts {
		p.member = member
	}
	for topic, ids := range partitions {
		for _, id := range ids {
			p := newPartition(g, topic, id)
			p.member = member
			g.parts[topicPartition{topic, id}] = p
			delete(g.starts, topicPartition{topic, id}) // of an earlier assignment
			p.start()
			g.obs.OffsetsPassed(topic, id, 0, 0)
			n++
		}
	}
	g.mu.Unlock()
	g.follow(cl)
	if n == 0 {
		return
	}
	// A pause outlives a revoke in the client.
	cl.ResumeFetchPartitions(partitions)
	g.obs.Rebalanced("assigned", n)
	g.log.Info("partitions assigned", zap.Any("partitions", partitions))
}

// revoked gives partitions up: what is in flight may finish, what is not
// started is dropped, what is marked is committed.
func (g *Group) revoked(ctx context.Context, cl *kgo.Client, partitions map[string][]int32) {
	defer g.follow(cl)
	defer g.disown(partitions)
	gone, foreign := g.ours(cl, g.named(partitions))
	if len(foreign) > 0 {
		g.drain(foreign, 0, errLost)
		g.obs.Rebalanced("lost", len(foreign))
		g.log.Warn("partitions lost: the group had forgotten this member, which has joined anew; what it had not committed by then is read again by the new owners", zap.Any("partitions", partitions))
	}
	if len(gone) > 0 {
		began := time.Now()
		g.drain(gone, g.cfg.Drain, errDrained)
		g.obs.Rebalanced("revoked", len(gone))
		g.log.Info("partitions revoked", zap.Any("partitions", partitions), zap.Duration("drained_in", time.Since(began)))
	}
	// Also when nothing is revoked: the callback ends a generation.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	g.commit(ctx, cl, foreign...)
}

// ours tells partitions apart that were assigned to a membership which has
// ended since. When the coordinator no longer knows a member that joins again,
// the client joins anew without a word and then gives up what it had. Others
// may have owned that meanwhile: to commit our marks would set theirs back.
func (g *Group) ours(cl *kgo.Client, all []*partition) (ours, foreign []*partition) {
	member, _ := cl.GroupMetadata()
	for _, p := range all {
		if p.member == member || member == "" {
			ours = append(ours, p)
		} else {
			foreign = append(foreign, p)
		}
	}
	return ours, foreign
}

// lost ends partitions that another member may already own: nothing of theirs
// can be committed any more.
func (g *Group) lost(_ context.Context, cl *kgo.Client, partitions map[string][]int32) {
	defer g.follow(cl)
	defer g.disown(partitions)
	gone := g.named(partitions)
	if len(gone) == 0 {
		return
	}
	g.drain(gone, 0, errLost)
	g.obs.Rebalanced("lost", len(gone))
	g.log.Warn("partitions lost: the group expelled this member, or its brokers could not be reached; what was not committed is read again by the new owners", zap.Any("partitions", partitions))
}

// named returns those of the partitions that are ours.
func (g *Group) named(partitions map[string][]int32) []*partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	var gone []*partition
	for topic, ids := range partitions {
		for _, id := range ids {
			if p := g.parts[topicPartition{topic, id}]; p != nil {
				gone = append(gone, p)
			}
		}
	}
	return gone
}

// drain stops partitions softly, after limit hard, and returns when their
// goroutines have ended. Only then do they leave the books: a rebalance in the
// middle of a stop, or a stop in the middle of a rebalance, must find what is
// still in flight and wait for it, or the next owner would begin beside it.
func (g *Group) drain(gone []*partition, limit time.Duration, cause error) {
	for _, p := range gone {
		p.stop()
	}
	hard := time.AfterFunc(limit, func() {
		for _, p := range gone {
			p.cancel(cause)
		}
	})
	defer hard.Stop()
	for _, p := range gone {
		p.wait()
		g.obs.Forget(p.topic, p.id)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range gone {
		if tp := (topicPartition{p.topic, p.id}); g.parts[tp] == p {
			delete(g.parts, tp)
		}
	}
}
