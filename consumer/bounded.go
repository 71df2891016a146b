package consumer

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// CommitStartOffsets commits from for every partition in which the group has
// committed no offset, so that a member that starts again begins at the same place.
// It returns how many partitions begin there and how many have offsets already,
// which are kept. While the group has members it changes nothing: they have done
// it.
func (c *Cluster) CommitStartOffsets(ctx context.Context, from kafka.Position) (begun, kept int, err error) {
	_, at, committed, err := c.resolve(ctx, from)
	if err != nil {
		return 0, 0, err
	}
	for tp := range at {
		if _, ok := committed[tp]; ok {
			delete(at, tp)
			kept++
		}
	}
	if len(at) == 0 {
		return 0, kept, nil
	}
	if err = c.CommitOutside(ctx, c.cfg.Group, at); err != nil && !errors.Is(err, kafka.ErrHasMembers) {
		return 0, kept, err
	}
	return len(at), kept, nil
}

// resolve looks up a position in every source partition, and what the group has
// committed.
func (c *Cluster) resolve(ctx context.Context, p kafka.Position) (spans map[topicPartition]kafka.Span, at, committed map[topicPartition]int64, err error) {
	if spans, err = c.Spans(ctx, c.cfg.Topics...); err == nil {
		at, err = c.Find(ctx, p, c.cfg.Topics, spans)
	}
	if err == nil {
		committed, err = c.Commits(ctx, c.cfg.Group, c.cfg.Topics)
	}
	return spans, at, committed, err
}

// StopOffsets limit a run to what lies before an offset in each partition.
type StopOffsets struct {
	mu    sync.Mutex               // guards at and done of the goals
	goals map[topicPartition]*goal // never changes
	later map[topicPartition]bool  // partitions created afterwards, as far as they are logged
}

// goal is what a group has to deliver of one partition.
type goal struct {
	from int64 // the group's position when the StopOffsets were made
	end  int64 // the first offset not to be delivered; never changes
	at   int64 // the group's position, committed or not
	done bool  // committed to the end, or nothing before the end is left in the log
}

// Progress is how far a group has come on its way to its [StopOffsets], in offsets
// of all partitions and over all members.
type Progress struct {
	Total, Done         int64
	Partitions, Reached int
}

// StopOffsets resolves until in every partition. Events that are produced later,
// and partitions that are created later, are not part of it.
func (c *Cluster) StopOffsets(ctx context.Context, until kafka.Position) (*StopOffsets, error) {
	spans, ends, committed, err := c.resolve(ctx, until)
	if err != nil {
		return nil, err
	}
	e := &StopOffsets{goals: make(map[topicPartition]*goal), later: make(map[topicPartition]bool)}
	for tp, log := range spans {
		s := &goal{from: log.Start, end: ends[tp], done: log.Start >= ends[tp]}
		if at, ok := committed[tp]; ok {
			s.from, s.done = max(at, log.Start), s.done || at >= s.end
		}
		s.at = s.from
		e.goals[tp] = s
	}
	return e, nil
}

// Progress returns how far the group has come.
func (e *StopOffsets) Progress() Progress {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := Progress{Partitions: len(e.goals)}
	for _, s := range e.goals {
		size := max(s.end-s.from, 0)
		p.Total += size
		if s.done {
			p.Reached++
			p.Done += size
		} else {
			p.Done += min(max(s.at-s.from, 0), size)
		}
	}
	return p
}

// Reached reports whether everything before the offsets is delivered and committed.
func (e *StopOffsets) Reached() bool {
	p := e.Progress()
	return p.Reached == p.Partitions
}

// of returns the partition's end; 0, which delivers nothing, if it was created
// later.
func (e *StopOffsets) of(p *partition) int64 {
	if s := e.goals[partitionKey(p.topic, p.id)]; s != nil {
		return s.end
	}
	return 0
}

func (e *StopOffsets) advance(tp topicPartition, at int64, committed bool) {
	s := e.goals[tp]
	if s == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s.at = max(s.at, at)
	s.done = s.done || committed && at >= s.end
}

// StopAt makes Run return nil when the group has reached the offsets; no event at
// or after them is delivered. Members that share the work have StopOffsets of their
// own, and end together if these are the same. Call it before Run.
func (g *Group) StopAt(e *StopOffsets) { g.stopAt = e }

// endInterval is how often a bounded run checks whether it is done.
const endInterval = time.Second

var errReached = errors.New("every partition has reached its end")

// awaitStopOffsets ends the run when the group has reached its stop offsets,
// whichever member owns which partition.
func (g *Group) awaitStopOffsets(ctx context.Context) error {
	tick := time.NewTicker(endInterval)
	defer tick.Stop()
	for {
		g.mu.Lock()
		parts := maps.Clone(g.parts)
		g.mu.Unlock()
		for tp, p := range parts {
			g.stopAt.advance(tp, p.marked.Load(), false)
		}
		g.lookUpProgress(ctx)
		if g.stopAt.Reached() {
			g.log.Info(errReached.Error())
			g.stop(errReached)
			return errReached
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookUpProgress looks up what the group has committed and what the logs hold.
// When brokers do not answer it does nothing; watch reports that.
func (g *Group) lookUpProgress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*endInterval)
	defer cancel()
	committed, err := g.cluster.Commits(ctx, g.cfg.Group, g.cfg.Topics)
	if err != nil {
		return
	}
	for tp, at := range committed {
		g.stopAt.advance(tp, at, true)
	}
	starts, err := g.cluster.Adm.ListStartOffsets(ctx, g.cfg.Topics...)
	if err != nil {
		return
	}
	starts.Each(func(o kadm.ListedOffset) {
		tp := partitionKey(o.Topic, o.Partition)
		if o.Err != nil {
			return
		}
		g.stopAt.advance(tp, o.Offset, true)
		if g.stopAt.goals[tp] == nil && !g.stopAt.later[tp] {
			g.stopAt.later[tp] = true
			g.log.Warn("a partition was created after this bounded run began and is not part of it", zap.String("topic", tp.Topic), zap.Int32("partition", tp.Partition))
		}
	})
}
