package consumer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// Status is the state of a group at one moment.
type Status struct {
	MemberID      string
	Running       bool      // the poll loop is alive
	Polled        time.Time // when the poll loop last began a poll; it waits while the budget is spent
	BufferedBytes int64
	BufferedLimit int64     // that the group may hold now; it waits while it holds as much
	LastCommit    time.Time // zero before the first
	Partitions    []PartitionStatus
	// Ledger is the sum over all partitions this process ever owned.
	Ledger LedgerStatus
	// TopicLedgers are its parts, by topic.
	TopicLedgers map[string]LedgerStatus
	NotReady     []NotReady
}

// NotReady is one reason why events are not delivered.
type NotReady struct {
	Code   string `json:"code"` // from a closed set, for machines
	Text   string `json:"text"`
	Remedy string `json:"remedy"` // what the operator can do
	// Integration is the one that the reason is about, where reasons of several stand
	// together.
	Integration string `json:"integration,omitempty"`
}

// LedgerStatus is a ledger and the number of events and offsets that it does not
// account for, over all partitions: anything but 0 is a fault of the bridge.
type LedgerStatus struct {
	Ledger
	Unaccounted int64 `json:"unaccounted"`
}

// PartitionStatus is one assigned partition. Offsets are -1 where they are not
// known.
type PartitionStatus struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	State     string    `json:"state"` // one of the State constants
	Since     time.Time `json:"-"`
	Paused    bool      `json:"paused"`                 // fetches are paused: it holds more than its share while memory is short
	Committed int64     `json:"committed"`              // offset a new owner would begin at
	Marked    int64     `json:"marked"`                 // offset after the last delivered event and those after it that hold none
	End       int64     `json:"end_offset"`             // offset after the last one that can be read
	Lag       int64     `json:"lag"`                    // offsets to read and deliver until End
	Pending   int       `json:"pending_events"`         // records polled and not delivered yet
	Buffered  int64     `json:"buffered_bytes"`         // of them
	Oldest    Seconds   `json:"oldest_unacked_seconds"` // since the first of them was polled
	Behind    Seconds   `json:"behind_seconds"`         // since the timestamp of the first of them; 0 without any
	Reason    string    `json:"reason,omitempty"`       // why it is blocked
	Rows      int64     `json:"rows_delivered"`         // since the partition was assigned
	// Ledger accounts for every event since this process first owned it.
	Ledger LedgerStatus `json:"ledger"`
}

// Behind returns the age of the oldest unacknowledged event by its timestamp, over
// the partitions that are not blocked; 0 if there is none. It is for autoscalers:
// more members cannot help a partition that is blocked. A sink that is blocked does
// not show here: all its partitions wait then.
func Behind(partitions []PartitionStatus) (behind time.Duration) {
	for _, p := range partitions {
		if p.State != StateBlocked {
			behind = max(behind, time.Duration(p.Behind))
		}
	}
	return behind
}

// Seconds is a duration that JSON has in seconds.
type Seconds time.Duration

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(s).Seconds())
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Seconds) UnmarshalJSON(text []byte) error {
	var seconds float64
	err := json.Unmarshal(text, &seconds)
	*s = Seconds(seconds * float64(time.Second))
	return err
}

// Reason codes of a group that is not ready.
const (
	reasonKafka  = "kafka_unreachable"
	reasonTopic  = "topic_missing"
	reasonFetch  = "fetch_failing"
	reasonMember = "not_joined"
	reasonParts  = "partition_blocked"
	reasonStuck  = "partition_stuck"
	reasonBatch  = "batch_too_large"
	reasonStart  = "start_position"
	// reasonRecreated is a topic that is not the one that was read before.
	reasonRecreated = "topic_recreated"
)

// Status takes a snapshot. It is safe to call from any goroutine and never waits
// for a Write or a broker.
func (g *Group) Status() Status {
	now := time.Now()
	s := Status{
		Running:       g.running.Load(),
		Polled:        time.Unix(0, g.polled.Load()),
		BufferedBytes: g.budget.own.Load(),
	}
	s.BufferedLimit = s.BufferedBytes + g.budget.room()
	var committed map[string]map[int32]kgo.EpochOffset
	g.commits.mu.Lock()
	s.LastCommit = g.commits.last
	g.commits.mu.Unlock()
	if s.Running {
		s.MemberID, _ = g.cl.GroupMetadata()
		committed = g.cl.CommittedOffsets()
	}
	if s.MemberID == "" {
		s.NotReady = append(s.NotReady, NotReady{Code: reasonMember, Text: "not a member of group " + g.cfg.Group + " yet", Remedy: "wait for the first rebalance; if it lasts, check that the brokers are up and the group is authorised"})
	}

	parts := g.partitions()
	g.mu.Lock()
	s.Ledger, s.TopicLedgers = g.sumLedgers()
	g.mu.Unlock()
	for _, p := range parts {
		ps := p.status(now)
		if at, ok := committed[p.topic][p.id]; ok {
			ps.Committed = at.Offset
			if ps.Marked < 0 && ps.End >= 0 { // nothing came since it was assigned
				ps.Lag = max(ps.End-at.Offset, 0)
			}
		}
		ps.setLag()
		s.Partitions = append(s.Partitions, ps)
		if ps.State == StateBlocked {
			c := p.state.Load()
			s.NotReady = append(s.NotReady, NotReady{Code: reasonParts, Text: c.reason, Remedy: c.remedy})
		}
	}
	slices.SortFunc(s.Partitions, func(a, b PartitionStatus) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	// A blocked partition has a reason of its own already.
	idle := slices.DeleteFunc(g.stuck(now), func(s stuck) bool { return s.state.Load().name == StateBlocked })
	if len(idle) > 0 {
		s.NotReady = append(s.NotReady, NotReady{Code: reasonStuck, Remedy: idle[0].remedy,
			Text: fmt.Sprintf("no event delivered for over %s: %s: %s", g.cfg.StuckAfter, describe(idle), idle[0].reason)})
	}
	for code, e := range g.problems.list() {
		s.NotReady = append(s.NotReady, NotReady{Code: code, Text: e.Op + ": " + e.Err.Error(), Remedy: e.Remedy})
	}
	slices.SortFunc(s.NotReady, func(a, b NotReady) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Text, b.Text))
	})
	return s
}

// setLag sets the lag. Before the first delivery it counts from the committed
// offset.
func (s *PartitionStatus) setLag() {
	at := s.Marked
	if at < 0 {
		at = s.Committed
	}
	if s.End >= 0 && at >= 0 {
		s.Lag = max(s.End-at, 0)
	}
}

// stuck is a partition that holds events and has not delivered any for longer than
// StuckAfter, with the first of them.
type stuck struct {
	*partition
	offset int64
	idle   time.Duration
	reason string
	remedy string
}

// stuck returns the stuck partitions, the longest first.
func (g *Group) stuck(now time.Time) []stuck {
	if g.cfg.StuckAfter <= 0 {
		return nil
	}
	var all []stuck
	for _, p := range g.partitions() {
		if offset, idle := p.stuckFor(now); idle > g.cfg.StuckAfter {
			s := stuck{partition: p, offset: offset, idle: idle}
			s.reason, s.remedy = p.stuckReason(now)
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b stuck) int {
		return cmp.Or(cmp.Compare(b.idle, a.idle), cmp.Compare(a.topic, b.topic), cmp.Compare(a.id, b.id))
	})
	return all
}

// describe names at most five of the stuck partitions.
func describe(all []stuck) string {
	names := make([]string, 0, 6)
	for i, s := range all {
		if i == 5 {
			names = append(names, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		names = append(names, fmt.Sprintf("%s/%d at offset %d for %s", s.topic, s.id, s.offset, s.idle.Round(time.Second)))
	}
	return strings.Join(names, ", ")
}

// stuckLog writes one line when partitions become stuck for a reason, and one when
// all of them deliver again.
type stuckLog struct {
	log *zap.Logger

	mu     sync.Mutex              // guards logged
	logged map[topicPartition]bool // partitions that a line named
}

func (w *stuckLog) update(all []stuck) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := make(map[topicPartition]bool, len(all))
	fresh := make(map[string][]stuck) // by reason
	for _, s := range all {
		tp := partitionKey(s.topic, s.id)
		now[tp] = true
		if !w.logged[tp] {
			fresh[s.reason] = append(fresh[s.reason], s)
		}
	}
	for reason, some := range fresh {
		w.log.Error("no event delivered for too long", zap.Int("partitions", len(some)), zap.String("where", describe(some)),
			zap.String("reason", reason), zap.String("remedy", some[0].remedy))
	}
	if len(w.logged) > 0 && len(now) == 0 {
		w.log.Info("all partitions deliver again")
	}
	w.logged = now
}

// watch looks up, every few seconds, what polling does not show: whether the
// brokers answer, whether the topics exist, and where the partitions end even while
// their fetches are paused.
func (g *Group) watch(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		g.stuckLog.update(g.stuck(time.Now()))
		g.look(ctx)
		select {
		case <-tick.C:
		case <-g.lookNow:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *Group) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchInterval)
	defer cancel()
	g.forgetHalted()
	g.updateSize(g.cl)
	ends, err := g.cluster.ListEnds(ctx, g.cfg.Topics...)
	if err != nil {
		err = g.cluster.ExplainTopics(ctx, "reading end offsets", err, g.cfg.Topics...)
		var failure *kafka.Error
		if errors.As(err, &failure) && ctx.Err() != context.Canceled {
			g.problems.add(reasonKafka, failure)
		}
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			g.followTopics(ctx) // the other topics
		}
		return
	}
	g.problems.clear(reasonKafka)
	g.followTopics(ctx)
	g.problems.expire(reasonFetch, 3*watchInterval)

	var missing []string
	for _, topic := range g.cfg.Topics {
		if !kafka.Exists(ends[topic]) {
			missing = append(missing, topic)
		}
	}
	if len(missing) > 0 {
		list := strings.Join(missing, ", ")
		g.problems.add(reasonTopic, &kafka.Error{Op: "looking for topic " + list, Err: errors.New("it does not exist yet"),
			Remedy: "create it or correct kafka.topics; reading begins automatically when it appears"})
	} else if g.problems.clear(reasonTopic) {
		g.cl.ForceMetadataRefresh() // or it would be noticed half a minute later
	}

	g.enterEmptied(ctx)
	ends.Each(func(o kadm.ListedOffset) {
		if p := g.partition(o.Topic, o.Partition); p != nil && o.Err == nil {
			p.end.Store(o.Offset)
		}
	})
}

// halt notes that the client reads a partition no further, because the next batch
// is too large. Nothing of it was delivered and nothing after it is, so this
// problem does not pass without a change.
func (g *Group) halt(e *kgo.ErrDecompressTooLarge) {
	g.mu.Lock()
	g.halted[partitionKey(e.Topic, e.Partition)] = true
	g.mu.Unlock()
	g.problems.add(reasonBatch, kafka.BatchTooLarge(e, kafka.MaxBatch(int64(g.cfg.MaxBuffered)), fmt.Sprintf("the partition is stopped, the others continue; if the batch is legitimate, raise delivery.max_buffered above its size and restart; "+
		"else find out who produced it, stop the bridge and set the group's offset to %d", e.NextOffset)))
}

// forgetHalted forgets halted partitions that are no longer assigned, and the
// problem with the last of them.
func (g *Group) forgetHalted() {
	g.mu.Lock()
	for tp := range g.halted {
		if g.parts[tp] == nil {
			delete(g.halted, tp)
		}
	}
	none := len(g.halted) == 0
	g.mu.Unlock()
	if none {
		g.problems.clear(reasonBatch)
	}
}

// problems keep the group from being ready. One failure is one log line when it
// begins and one when it ends, however often it recurs.
type problems struct {
	log *zap.Logger

	mu  sync.Mutex // guards now
	now map[string]problem
}

type problem struct {
	err  *kafka.Error
	seen time.Time // last
}

func (t *problems) add(code string, e *kafka.Error) {
	t.mu.Lock()
	_, known := t.now[code]
	if t.now == nil {
		t.now = make(map[string]problem)
	}
	t.now[code] = problem{err: e, seen: time.Now()}
	t.mu.Unlock()
	if !known {
		t.log.Warn("kafka problem; waiting for it to pass", zap.String("code", code), zap.Error(e))
	}
}

// clear ends a problem and reports whether there was one.
func (t *problems) clear(code string) bool {
	t.mu.Lock()
	_, known := t.now[code]
	delete(t.now, code)
	t.mu.Unlock()
	if known {
		t.log.Info("kafka problem is over", zap.String("code", code))
	}
	return known
}

func (t *problems) list() map[string]*kafka.Error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]*kafka.Error, len(t.now))
	for code, tr := range t.now {
		all[code] = tr.err
	}
	return all
}

// expire clears a problem that was not seen for a while.
func (t *problems) expire(code string, after time.Duration) {
	t.mu.Lock()
	tr, known := t.now[code]
	t.mu.Unlock()
	if known && time.Since(tr.seen) > after {
		t.clear(code)
	}
}

// commitLog writes one line when commits begin to fail and one when they work
// again.
type commitLog struct {
	log *zap.Logger

	mu      sync.Mutex // guards the fields below
	failing error
	last    time.Time // of the last accepted commit
}

func (c *commitLog) note(err error) {
	c.mu.Lock()
	before := c.failing
	c.failing = err
	if err == nil {
		c.last = time.Now()
	}
	c.mu.Unlock()
	switch {
	case err != nil && before == nil:
		c.log.Warn("committing offsets fails; nothing is lost, but what is delivered meanwhile is delivered again after a restart", zap.Error(err))
	case err == nil && before != nil:
		c.log.Info("committing offsets works again")
	}
}
