package consumer

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"
)

// CommitStartOffsets commits from for every partition of the group that has no committed
// offset, so that a member that starts again begins at the same place. It
// returns how many partitions begin there and how many have offsets already,
// which are kept. While the group has members it changes nothing: they have
// done it.
func (c *Cluster) CommitStartOffsets(ctx context.Context, from Position) (begun, kept int, err error) {
	logs, err := c.spans(ctx, c.cfg.Topics)
	if err != nil {
		return 0, 0, err
	}
	at, err := c.find(ctx, from, c.cfg.Topics, logs)
	if err != nil {
		return 0, 0, err
	}
	committed, err := c.commits(ctx, c.cfg.Group, c.cfg.Topics)
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
	err = c.commitOutside(ctx, c.cfg.Group, at)
	var joined *joinedError
	if err != nil && !errors.As(err, &joined) {
		return 0, kept, err
	}
	return len(at), kept, nil
}

// StopOffsets limit a run to what lies before an offset in each partition.
type StopOffsets struct {
	mu    sync.Mutex                 // guards at and over of the courses
	parts map[topicPartition]*course // never changes
	later map[topicPartition]bool    // partitions made after the ends, as seen by approach
}

// course is what a group has to deliver of one partition.
type course struct {
	from int64 // where the group went on when the ends were made
	end  int64 // the first offset not to be delivered; never changes
	at   int64 // how far it has come, committed or not
	over bool  // committed to the end, or nothing before the end is left in the log
}

// Progress is how far a group has come on its way to its [StopOffsets], in offsets of
// all partitions and over all members.
type Progress struct {
	Total, Done         int64
	Partitions, Reached int
}

// StopOffsets resolves until in every partition. Events that are produced later, and
// partitions that are made later, are not part of it.
func (c *Cluster) StopOffsets(ctx context.Context, until Position) (*StopOffsets, error) {
	logs, err := c.spans(ctx, c.cfg.Topics)
	if err != nil {
		return nil, err
	}
	ends, err := c.find(ctx, until, c.cfg.Topics, logs)
	if err != nil {
		return nil, err
	}
	committed, err := c.commits(ctx, c.cfg.Group, c.cfg.Topics)
	if err != nil {
		return nil, err
	}
	e := &StopOffsets{parts: make(map[topicPartition]*course), later: make(map[topicPartition]bool)}
	for tp, log := range logs {
		s := &course{from: log.start, end: ends[tp], over: log.start >= ends[tp]}
		if at, ok := committed[tp]; ok {
			s.from, s.over = max(at, log.start), s.over || at >= s.end
		}
		s.at = s.from
		e.parts[tp] = s
	}
	return e, nil
}

// Progress returns how far the group has come.
func (e *StopOffsets) Progress() Progress {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := Progress{Partitions: len(e.parts)}
	for _, s := range e.parts {
		size := max(s.end-s.from, 0)
		p.Total += size
		if s.over {
			p.Reached++
			p.Done += size
		} else {
			p.Done += min(max(s.at-s.from, 0), size)
		}
	}
	return p
}

// Reached tells whether everything before the ends is delivered and committed.
func (e *StopOffsets) Reached() bool {
	p := e.Progress()
	return p.Reached == p.Partitions
}

// StopAt makes Run return nil when the group has reached the
// ends; no event at or past them is delivered. Members that share the work
// each have ends of their own, and end together if these are the same. Call it
// before Run.
func (g *Group) StopAt(e *StopOffsets) { g.ends = e }

// of returns the partition's end; 0, which takes nothing, if it was made later.
func (e *StopOffsets) of(p *partition) int64 {
	if s := e.parts[topicPartition{p.topic, p.id}]; s != nil {
		return s.end
	}
	return 0
}

// endInterval is how often a bounded run looks whether it is over.
const endInterval = time.Second

var errReached = errors.New("every partition has reached its end")

// approach ends the run when the group has reached its ends, whichever member
// owns which partition.
func (g *Group) approach(ctx context.Context) error {
	tick := time.NewTicker(endInterval)
	defer tick.Stop()
	for {
		g.advance()
		g.measure(ctx)
		if g.ends.Reached() {
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

// advance notes how far our partitions have come.
func (g *Group) advance() {
	g.mu.Lock()
	ours := maps.Clone(g.parts)
	g.mu.Unlock()
	for tp, p := range ours {
		if s := g.ends.parts[tp]; s != nil {
			g.ends.advance(s, p.marked.Load(), false)
		}
	}
}

func (e *StopOffsets) advance(s *course, at int64, over bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.at = max(s.at, at)
	s.over = s.over || over
}

// measure looks up what the group has committed and what the logs still hold.
// When brokers do not answer nothing is learned; watch tells of that.
func (g *Group) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*endInterval)
	defer cancel()
	committed, err := g.cluster.commits(ctx, g.cfg.Group, g.cfg.Topics)
	if err != nil {
		return
	}
	for tp, at := range committed {
		if s := g.ends.parts[tp]; s != nil {
			g.ends.advance(s, at, at >= s.end)
		}
	}
	starts, err := g.cluster.adm.ListStartOffsets(ctx, g.cfg.Topics...)
	if err != nil {
		return
	}
	starts.Each(func(o kadm.ListedOffset) {
		tp := topicPartition{o.Topic, o.Partition}
		s := g.ends.parts[tp]
		switch {
		case o.Err != nil:
		case s != nil:
			g.ends.advance(s, o.Offset, o.Offset >= s.end)
		case !g.ends.later[tp]:
			g.ends.later[tp] = true
			g.log.Warn("a partition was made after this bounded run began and is not part of it", zap.String("topic", tp.topic), zap.Int32("partition", tp.id))
		}
	})
}
