package consumer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// stuck is a partition that holds events and has not delivered any for longer
// than StuckAfter, with the first of them.
type stuck struct {
	*partition
	offset int64
	still  time.Duration
	reason string
	remedy string
}

// standstill returns the offset of the first event that is not delivered, and
// how long the partition has not moved past it; 0 when it holds none. A long
// queue that moves is no standstill.
func (p *partition) standstill(now time.Time) (offset int64, still time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) == 0 {
		return -1, 0
	}
	first := p.pending[0]
	since := first.at
	if p.moved.After(since) {
		since = p.moved
	}
	return first.recs[0].Offset, now.Sub(since)
}

// stuck returns the partitions that stand still, the longest first.
func (g *Group) stuck(now time.Time) []stuck {
	if g.cfg.StuckAfter <= 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []stuck
	for _, p := range g.parts {
		if offset, still := p.standstill(now); still > g.cfg.StuckAfter {
			s := stuck{partition: p, offset: offset, still: still}
			s.reason, s.remedy = p.why(now)
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b stuck) int {
		return cmp.Or(cmp.Compare(b.still, a.still), cmp.Compare(a.topic, b.topic), cmp.Compare(a.id, b.id))
	})
	return all
}

// why says what a partition that stands still is waiting for.
func (p *partition) why(now time.Time) (reason, remedy string) {
	c := p.state.Load()
	switch c.name {
	case StateBlocked:
		return c.reason, c.remedy
	case StateWriting:
		if p.g.cfg.SinkProblem != nil {
			if reason, remedy = p.g.cfg.SinkProblem(); reason != "" {
				return reason, remedy
			}
		}
		return fmt.Sprintf("a write has been in flight for %s and the sink reports no trouble", now.Sub(c.since).Round(time.Second)),
			"look at bridge_sink_request_duration_seconds: the service takes the rows and does not acknowledge them; if it is well, restart this member, its events are read again"
	case StateRejecting:
		return "dead letters are being written and not acknowledged", "check the brokers and the dead-letter topic's in-sync replicas"
	}
	return "events wait and nothing takes them", "restart this member, its events are read again, and report this as a fault of the bridge"
}

// describe names at most five of the partitions that stand still.
func describe(all []stuck) string {
	names := make([]string, 0, 6)
	for i, s := range all {
		if i == 5 {
			names = append(names, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		names = append(names, fmt.Sprintf("%s/%d at offset %d for %s", s.topic, s.id, s.offset, s.still.Round(time.Second)))
	}
	return strings.Join(names, ", ")
}

// stuckReason is the readiness's view of the partitions that stand still. What
// is blocked says so itself already.
func (g *Group) stuckReason(now time.Time) (NotReady, bool) {
	all := slices.DeleteFunc(g.stuck(now), func(s stuck) bool { return s.state.Load().name == StateBlocked })
	if len(all) == 0 {
		return NotReady{}, false
	}
	return NotReady{
		Code:   reasonStuck,
		Text:   fmt.Sprintf("no event delivered for over %s: %s: %s", g.cfg.StuckAfter, describe(all), all[0].reason),
		Remedy: all[0].remedy,
	}, true
}

// watchdog writes one line when partitions begin to stand still for a reason,
// and one when all of them move again.
type watchdog struct {
	log *zap.Logger

	mu   sync.Mutex              // guards told
	told map[topicPartition]bool // partitions that a line named
}

func (w *watchdog) look(all []stuck) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := make(map[topicPartition]bool, len(all))
	fresh := make(map[string][]stuck) // by reason
	for _, s := range all {
		tp := topicPartition{s.topic, s.id}
		now[tp] = true
		if !w.told[tp] {
			fresh[s.reason] = append(fresh[s.reason], s)
		}
	}
	for reason, some := range fresh {
		w.log.Error("no event delivered for too long", zap.Int("partitions", len(some)), zap.String("where", describe(some)),
			zap.String("reason", reason), zap.String("remedy", some[0].remedy))
	}
	if len(w.told) > 0 && len(now) == 0 {
		w.log.Info("all partitions move again")
	}
	w.told = now
}
