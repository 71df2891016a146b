package consumer

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// SetProbe changes how often a blocked partition tries again. Call it before Run.
func (g *Group) SetProbe(d time.Duration) { g.probe = d }

// SetHeartbeat changes how often a classic member is heard, and hears of a
// rebalance. Call it before Run.
func (g *Group) SetHeartbeat(d time.Duration) { g.heartbeat = d }

// SetRoom replaces what bounds the decompression of fetches. Call it before Run.
func (g *Group) SetRoom(room func() int64) { g.limiter.Room = room }

// Lab runs one partition without brokers: for tests of what happens between a
// poll and a mark.
type Lab struct {
	g *Group
	p *partition
}

// NewLab starts the partition. Close ends it.
func NewLab(cfg Config, sink Sink, m Mapper, obs Observer, log *zap.Logger) (*Lab, error) {
	g := NewGroup(cfg, nil, sink, func() Mapper { return m }, obs, log)
	cl, err := kgo.NewClient(kgo.Dialer(func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("a lab has no brokers")
	}))
	if err != nil {
		return nil, err
	}
	_, g.stop = context.WithCancelCause(context.Background())
	g.assigned(context.Background(), cl, map[string][]int32{"lab": {0}})
	g.cl = cl // as late as Run has it: callbacks come before
	return &Lab{g: g, p: g.parts[partitionKey("lab", 0)]}, nil
}

// Push hands records over as a poll does.
func (l *Lab) Push(recs ...*kgo.Record) { l.PushFrom(0, recs...) }

// PushFrom hands records over whose log begins at start.
func (l *Lab) PushFrom(start int64, recs ...*kgo.Record) {
	l.g.arrive(l.p, kgo.FetchTopicPartition{Topic: "lab", FetchPartition: kgo.FetchPartition{
		LogStartOffset: start, HighWatermark: recs[len(recs)-1].Offset + 1, Records: recs,
	}}, l.g.share())
}

// DataLoss has the client find that the log was cut.
func (l *Lab) DataLoss(loss kgo.ErrDataLoss) {
	loss.Topic = "lab"
	l.g.fetchFailed("lab", 0, &loss)
}

// Status is the partition's.
func (l *Lab) Status() PartitionStatus { return l.p.status(time.Now()) }

// Watch looks for a partition that is stalled, as watch does.
func (l *Lab) Watch() { l.g.stuckLog.update(l.g.stuck(time.Now())) }

// KnowsTopics reports whether the ids of all topics have been looked up.
func (g *Group) KnowsTopics() bool {
	for _, topic := range g.cfg.Topics {
		if _, known := g.topicIDs.newest(topic); !known {
			return false
		}
	}
	return true
}

// Fetched is how many records the client holds that were not polled. Call it
// after something was.
func (g *Group) Fetched() int64 { return g.cl.BufferedFetchRecords() }

// Held is how many bytes of events the member holds: those in the budget and
// those that were not polled. Call it after something was.
func (g *Group) Held() int64 { return g.budget.own.Load() + kafka.Unpolled(g.cl) }

// HeldBySlow is how many of the bytes in the budget partitions hold that deliver slowly.
func (g *Group) HeldBySlow() int64 { return g.budget.slow.Load() }

// Group is the partition's, which never ran.
func (l *Lab) Group() *Group { return l.g }

// Buffered is what the budget counts.
func (l *Lab) Buffered() int64 { return l.g.budget.own.Load() }

// Paused reports whether the client fetches the partition no more.
func (l *Lab) Paused() bool { return len(l.g.cl.PauseFetchPartitions(nil)["lab"]) > 0 }

// Revoke gives the partition up.
func (l *Lab) Revoke() { l.g.drain([]*partition{l.p}, l.g.cfg.Drain, errDrained) }

// Reassign gives the partition back after it was lost or revoked.
func (l *Lab) Reassign() {
	l.g.assigned(context.Background(), l.g.cl, map[string][]int32{"lab": {0}})
	l.p = l.g.parts[partitionKey("lab", 0)]
}

// Lose takes the partition away.
func (l *Lab) Lose() { l.g.drain([]*partition{l.p}, 0, errLost) }

// Close ends what NewLab began.
func (l *Lab) Close() {
	l.Lose()
	l.g.cl.Close()
}

// WriteBatch writes one batch of records to the sink and returns the rejects as
// positions of their records.
func WriteBatch(cfg Config, sink Sink, m Mapper, obs Observer, recs []*kgo.Record) ([]int, error) {
	g := NewGroup(cfg, nil, sink, func() Mapper { return m }, obs, zap.NewNop())
	p := newPartition(g, "lab", 0)
	defer p.cancel(nil)
	p.push(recs, kgo.EpochOffset{Offset: int64(len(recs))}, gaps{}, int64(cfg.MaxBuffered))
	p.fill()
	err := p.write()
	var rejected []int
	for _, r := range p.batch.rejected {
		rejected = append(rejected, r.rec)
	}
	return rejected, err
}

// Window is the memory of a partition's last rows.
type Window struct{ w refusalRate }

// Accept notes accepted rows, Refuse one refused row.
func (w *Window) Accept(rows int) { w.w.accept(rows) }
func (w *Window) Refuse() bool    { return w.w.refuse(cause{}) }

// GroupBudget is what one group uses of a Budget.
type GroupBudget struct{ b *groupBudget }

// Group adds a group that runs.
func (b *Budget) Group() GroupBudget {
	g := GroupBudget{b.group()}
	g.b.join()
	return g
}

func (b GroupBudget) Leave()                         { b.b.leave() }
func (b GroupBudget) Take(n int64)                   { b.b.take(n) }
func (b GroupBudget) Give(n int64)                   { b.b.give(n) }
func (b GroupBudget) Wait(ctx context.Context) error { return b.b.wait(ctx, func() {}) }
func (b GroupBudget) Share(n int) int64              { return b.b.share(n) }
func (b GroupBudget) Tight() bool                    { return b.b.tight() }
func (b GroupBudget) Room() int64                    { return b.b.room() }
func (b GroupBudget) Prefetch() int64                { return b.b.prefetch() }

// Batches hands out batches.
type Batches struct{ bs *batches }

func NewBatches(maxBytes, spare int64) Batches {
	return Batches{newBatches(maxBytes, func() int64 { return spare })}
}
func (bs Batches) Take() *Batch  { return bs.bs.take() }
func (bs Batches) Give(b *Batch) { bs.bs.give(b) }
func (bs Batches) Used() int64   { return bs.bs.used.Load() }

// Incarnations knows the topics of one name one after the other.
type Incarnations struct{ in topicIDs }

// Current notes the id that a broker gives for a topic and returns the newest.
func (i *Incarnations) Current(topic string, id [16]byte) [16]byte {
	return i.in.current(map[string]kmsg.MetadataResponseTopic{topic: {TopicID: id}})[topic]
}

// RefusedTooLong notes that the topic's id was refused at a moment, and reports
// whether it has been for too long then.
func (i *Incarnations) RefusedTooLong(topic string, at time.Time) bool {
	i.in.refused(topic, at)
	return i.in.refusedTooLong(topic, at)
}

// Accepted forgets the refusals.
func (i *Incarnations) Accepted(topic string) { i.in.accepted(topic) }
