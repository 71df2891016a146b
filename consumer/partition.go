package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/panics"
)

// partition delivers the events of one assigned partition, in order, one batch at
// a time. Writing its rows and rejects is in write.go.
type partition struct {
	topic string
	id    int32
	g     *Group
	log   *zap.Logger
	next  Mapper
	// member is the id under which the group gave us the partition; set before
	// start.
	member string
	ledger *partitionLedger

	ctx    context.Context // ends when draining has taken too long, or the partition is lost
	cancel context.CancelCauseFunc
	quit   chan struct{} // closed by stop: map no more
	done   chan struct{} // closed by run
	wake   chan struct{} // one token: something was pushed

	arriving sync.Mutex // serializes what moves at, and guards the fields below; locked before mu
	logStart int64      // as last fetched; -1 unknown
	behind   int64      // position found below the log start by the last look, or -1
	// behindUntil is how many records will have arrived when the client has
	// handed over all that it held at that look.
	behindUntil int64

	mu           sync.Mutex      // guards the fields below
	at           kgo.EpochOffset // the position: where the next poll should begin; offset -1 unknown
	pending      []chunk         // appended by push, consumed from the front by run
	held         int64           // bytes of pending, in-flight included
	events       int             // events of pending, in-flight included
	lastDelivery time.Time       // when something was last delivered
	slow         bool            // that took longer than promptDelivery, or the next one has; see hold
	paused       bool
	leaving      bool // pauses no more; see leaveTopic
	stopped      bool
	topicID      [16]byte // of the topic the records come from; zero where the broker gives none

	// owned by run
	began         bool        // a batch was marked
	batch         *Batch      // from fill until it is delivered, else nil
	resolved      []bool      // by row of the batch: durable, or found to be refused
	refusedRows   []Reject    // rows of the batch that were refused alone
	sent          refusalRate // of the last rows
	mapped        refusalRate // of the last events mapped
	mappedVersion int64       // of the schema they were mapped by
	view          BatchView   // what the BatchObserver sees
	inside        int         // events found inside the batch's records, beyond one each

	unlogged      int       // rejects since the last line about them
	unloggedLoops int       // those of them without a dead letter
	logged        time.Time // that line

	state     atomic.Pointer[condition]
	marked    atomic.Int64 // offset after the last one marked; -1 before the first
	end       atomic.Int64 // offset after the last record that can be read, as last looked up; -1 unknown
	delivered atomic.Int64 // rows
}

// chunk is a run of records that were polled together.
type chunk struct {
	recs []*kgo.Record
	at   time.Time // when they were polled
}

// condition is what a partition is doing, for people.
type condition struct {
	name   string // one of the State constants
	reason string
	remedy string
	since  time.Time
}

// States of a partition.
const (
	StateWaiting   = "waiting"   // nothing to do
	StateWriting   = "writing"   // a Write is in flight, or being made
	StateRejecting = "rejecting" // dead letters are being written
	StateBlocked   = "blocked"   // waiting for an operator; see the reason
	StateDraining  = "draining"  // finishing what is in flight
)

func newPartition(g *Group, topic string, id int32) *partition {
	p := &partition{
		topic: topic, id: id, g: g, next: g.newMapper(), ledger: g.ledgerOf(partitionKey(topic, id)),
		log:  g.log.With(zap.String("topic", topic), zap.Int32("partition", id)),
		quit: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	// Not the group's context: a stop must let the write in flight finish.
	p.ctx, p.cancel = context.WithCancelCause(context.Background()) //nolint:forbidigo // bounded by drain, which cancels it
	p.at.Offset, p.behind, p.logStart = -1, -1, -1
	p.marked.Store(-1)
	p.end.Store(-1)
	p.enter(StateWaiting, "", "")
	return p
}

func (p *partition) enter(name, reason, remedy string) {
	p.state.Store(&condition{name: name, reason: reason, remedy: remedy, since: time.Now()})
}

// start begins the partition's goroutine; stop and wait end it.
func (p *partition) start() {
	go func() {
		defer close(p.done)
		defer panics.Catch(func(err error) { p.g.panicked(fmt.Errorf("delivering %s/%d: %w", p.topic, p.id, err)) })
		p.run()
	}()
}

// stop makes the partition map no more. It does not wait.
func (p *partition) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		p.stopped = true
		close(p.quit)
	}
}

// wait returns when the partition's goroutine has ended, and releases what was not
// mapped for redelivery.
func (p *partition) wait() {
	<-p.done
	p.cancel(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.g.budget.give(p.held)
	p.hold(-p.held, false)
	if p.paused {
		p.paused = false
		p.g.resume(p.topic, p.id)
	}
	p.pending, p.events = nil, 0
	p.ledger.release()
}

// Cost is what a buffered record takes of the budget: its bytes and the client's
// overhead.
func Cost(r *kgo.Record) int64 {
	return int64(RecordBytes(r) + kafka.RecordCost)
}

// push queues the events among the records, moves the position to the offset
// after the last and never blocks. When memory is short and this partition holds
// more than its share, its fetches pause until half of that is delivered.
func (p *partition) push(recs []*kgo.Record, to kgo.EpochOffset, gap gaps, share int64) (events, bytes int) {
	var size, control int64
	for _, r := range recs {
		if r.Attrs.IsControl() {
			control++
			continue
		}
		size += Cost(r)
	}
	if control > 0 {
		gap.skipped += control
		recs = slices.DeleteFunc(recs, func(r *kgo.Record) bool { return r.Attrs.IsControl() })
	}
	p.g.budget.take(size)
	p.mu.Lock()
	passed := to.Offset - p.at.Offset
	p.at = to
	p.ledger.polled(len(recs), passed, gap)
	if len(recs) > 0 {
		p.pending = append(p.pending, chunk{recs: recs, at: time.Now()})
	}
	p.hold(size, p.slow)
	p.events += len(recs)
	if !p.paused && !p.leaving && p.held > share && p.g.budget.tight() {
		p.paused = true
		p.g.pause(p.topic, p.id)
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	if gap != (gaps{}) {
		p.g.obs.OffsetsPassed(p.topic, p.id, gap.lost, gap.skipped)
	}
	return len(recs), int(size) - kafka.RecordCost*len(recs)
}

// release gives back what the first n records held.
func (p *partition) release(n int) {
	var size int64
	p.mu.Lock()
	since := p.stillSince()
	p.events -= n
	for n > 0 {
		c := &p.pending[0]
		k := min(n, len(c.recs))
		for _, r := range c.recs[:k] {
			size += Cost(r)
		}
		clear(c.recs[:k]) // the array outlives the records it held
		c.recs = c.recs[k:]
		n -= k
		if len(c.recs) == 0 {
			p.pending[0] = chunk{}
			p.pending = p.pending[1:]
		}
	}
	now := time.Now()
	p.hold(-size, now.Sub(since) > promptDelivery)
	p.lastDelivery = now
	if p.paused && p.held <= p.g.share()/2 {
		p.paused = false
		p.g.resume(p.topic, p.id)
	}
	p.mu.Unlock()
	p.g.budget.give(size)
}

func (p *partition) run() {
	defer p.logRejectCounts()
	for p.await() {
		p.enter(StateWriting, "", "")
		err := p.process()
		n := len(p.batch.recs)
		p.observeDone(err)
		if err != nil {
			p.enterAbandoned()
			p.abandon(err)
			p.g.batches.forget(p.batch)
			return
		}
		p.enterDone()
		p.mark(p.batch.recs[n-1])
		p.release(n)
		p.g.batches.give(p.batch) // what is given back to the budget must not be held on to
		p.batch, p.resolved, p.refusedRows = nil, p.resolved[:0], p.refusedRows[:0]
		p.enter(StateWaiting, "", "")
	}
}

// process maps a batch and delivers it. A panic on the way is an error.
func (p *partition) process() (err error) {
	defer panics.To(&err)
	p.fill()
	p.observeMapped()
	err = p.deliver()
	for old := stale(nil); errors.As(err, &old) && old.Stale(); {
		p.enter(StateWriting, "", "") // it may have been blocked for the old rows
		p.refill()
		err = p.deliver()
	}
	return err
}

// await returns true when there is something to map and false when the partition
// has to stop.
func (p *partition) await() bool {
	for {
		select {
		case <-p.quit:
			p.markPassed()
			return false
		default:
		}
		if p.backlog() > 0 {
			return p.linger()
		}
		p.markPassed()
		select {
		case <-p.wake:
		case <-p.quit:
			return false
		}
	}
}

func (p *partition) backlog() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.events
}

// linger waits for a fuller batch when the configuration asks for it.
func (p *partition) linger() bool {
	if p.g.cfg.Linger <= 0 {
		return true
	}
	timer := time.NewTimer(p.g.cfg.Linger)
	defer timer.Stop()
	for p.backlog() < p.g.cfg.MaxRows {
		select {
		case <-p.wake:
		case <-timer.C:
			return true
		case <-p.quit:
			return false
		}
	}
	return true
}

// fill maps what has gathered, up to one Write's worth.
func (p *partition) fill() {
	p.mu.Lock()
	chunks, id := p.pending, p.topicID // push only appends; what is here now stays as it is
	p.mu.Unlock()

	b := p.g.batches.take()
	if p.g.cfg.BatchObserver != nil {
		b.observed, b.began = true, time.Now()
	}
	b.topicID = id
	p.batch = b
	defer p.enterSplit()
	// The most that one event became so far. Rows that do not fit into the Write would be
	// another one, which takes as long.
	mostRows, mostBytes := 1, 0
	for _, c := range chunks {
		if b.observed {
			b.polled = append(b.polled, polled{len(b.recs), c.at})
		}
		for _, rec := range c.recs {
			// Events that are no rows count, too: many rejects take memory.
			rows, size := len(b.ends), len(b.buf)
			full := rows+mostRows > p.g.cfg.MaxRows || int64(size+max(mostBytes, len(rec.Value))) > int64(p.g.cfg.MaxBytes) || max(len(b.recs), b.events) >= 2*p.g.cfg.MaxRows
			if full && len(b.recs) > 0 {
				b.Rows()
				return
			}
			b.Add(rec, p.next)
			mostRows, mostBytes = max(mostRows, len(b.ends)-rows), max(mostBytes, len(b.buf)-size)
		}
	}
	b.Rows()
}

// refill maps the same records again, and what has gathered since: the mapping has
// changed. Rows of the old batch that are durable already become duplicates; that
// takes a change of the table in the middle of a split batch.
func (p *partition) refill() {
	p.g.batches.give(p.batch)
	p.fill()
}

// deliver returns nil once every event of the batch is durable, dead-lettered,
// skipped or filtered. An error means that nothing may be marked.
func (p *partition) deliver() error {
	if err := p.write(); err != nil {
		return err
	}
	if err := p.reject(); err != nil {
		return err
	}
	for reason, n := range p.batch.filtered {
		if n > 0 {
			p.g.obs.EventFiltered(p.topic, reason, n)
		}
	}
	return nil
}

// mark is the only place that may mark events, and run calls it only after
// deliver's nil.
func (p *partition) mark(last *kgo.Record) {
	p.g.mark(last)
	p.marked.Store(last.Offset + 1)
	if !p.began {
		p.began = true
		p.g.markedFirst()
	}
}

// markPassed marks the position while no event before it is held: the offsets
// since the last event hold none. Only run calls it, between two batches.
func (p *partition) markPassed() {
	p.mu.Lock()
	at, held := p.at, p.events
	p.mu.Unlock()
	if held > 0 || at.Offset < 0 || at.Offset == p.marked.Load() {
		return
	}
	p.g.markOffset(p.topic, p.id, at)
	p.marked.Store(at.Offset)
}

// Why a batch was abandoned.
var (
	errStopped = errors.New("the partition was stopped while blocked")
	errDrained = errors.New("the drain time was over")
	errLost    = errors.New("the partition was lost with the membership")
)

// abandon reports a batch that was not delivered.
func (p *partition) abandon(err error) {
	first, last := p.batch.recs[0].Offset, p.batch.recs[len(p.batch.recs)-1].Offset
	cause := context.Cause(p.ctx)
	if errors.Is(err, errStopped) {
		cause = err
	}
	failed := fmt.Errorf("delivering %s/%d offsets %d to %d: %w", p.topic, p.id, first, last, err)
	switch {
	case panics.Is(err):
		p.g.panicked(failed)
		return
	case cause == nil:
		p.g.fail(failed)
		return
	}
	p.log.Warn("batch abandoned unmarked; its rows will be written again",
		zap.NamedError("cause", cause), zap.Int64("first_offset", first), zap.Int64("last_offset", last), zap.Int("rows", len(p.batch.rows)))
}

// oldest returns how long ago the first unmarked event was polled; 0 if none.
func (p *partition) oldest(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) == 0 {
		return 0
	}
	return now.Sub(p.pending[0].at)
}

// setTopicID notes which topic the next records come from.
func (p *partition) setTopicID(id [16]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topicID = id
}

// leaveTopic makes the partition pause no more: its topic is deleted, and at the
// next poll the client drops what it has fetched of a paused partition.
func (p *partition) leaveTopic() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = true
	if p.paused {
		p.paused = false
		p.g.resume(p.topic, p.id)
	}
}

func (p *partition) setPosition(at kgo.EpochOffset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = at
}

// logLoss writes the one line about a loss.
func (p *partition) logLoss(first, count int64, cause, remedy string) {
	p.log.Warn("kafka removed events before they were delivered", zap.String("cause", cause),
		zap.Int64("first_offset", first), zap.Int64("last_offset", first+count-1), zap.Int64("offsets", count), zap.String("remedy", remedy))
}

// enterSplit enters the events that mapping found inside the batch's records,
// beyond the one that each record counted as when it was read.
func (p *partition) enterSplit() {
	more := p.batch.events - len(p.batch.recs)
	p.ledger.split(more - p.inside)
	p.inside = more
}

// enterDone enters the outcome of every event of a batch that is done.
func (p *partition) enterDone() {
	b := p.batch
	outcomes := Ledger{Delivered: p.durable()}
	if p.g.cfg.Rejects.Policy == PolicyDeadLetter {
		outcomes.DeadLettered, outcomes.Skipped = int64(len(b.rejected)-b.passed), int64(b.passed)
	} else {
		outcomes.Skipped = int64(len(b.rejected))
	}
	for _, n := range b.filtered {
		outcomes.Filtered += int64(n)
	}
	p.ledger.done(len(b.recs)+p.inside, outcomes)
	p.inside = 0
}

// enterAbandoned enters the rows of an abandoned batch that were acknowledged all
// the same; wait releases the rest.
func (p *partition) enterAbandoned() {
	n := p.durable()
	p.ledger.done(int(n), Ledger{Delivered: n})
	p.inside = 0
}

// durable counts the rows of the batch that the sink has acknowledged.
func (p *partition) durable() int64 {
	n := int64(-len(p.refusedRows)) // resolved, but by refusal
	for _, done := range p.resolved {
		if done {
			n++
		}
	}
	return n
}

func (p *partition) status(now time.Time) PartitionStatus {
	c := p.state.Load()
	s := PartitionStatus{
		Topic: p.topic, Partition: p.id, State: c.name, Since: c.since, Reason: c.reason, Committed: -1,
		Marked: p.marked.Load(), End: p.end.Load(), Lag: -1, Oldest: Seconds(p.oldest(now)), Rows: p.delivered.Load(),
	}
	l := p.ledger.snapshot()
	s.Ledger = LedgerStatus{l, l.Unaccounted()}
	p.mu.Lock()
	s.Paused, s.Pending, s.Buffered = p.paused, p.events, p.held
	if p.stopped {
		s.State = StateDraining
	}
	first := int64(-1)
	if len(p.pending) > 0 {
		oldest := p.pending[0].recs[0]
		first = oldest.Offset
		if oldest.Timestamp.UnixMilli() > 0 { // else it has none
			s.Behind = Seconds(max(now.Sub(oldest.Timestamp), 0))
		}
	}
	p.mu.Unlock()
	if s.Marked < 0 {
		s.Marked = first // nothing delivered yet
	}
	s.setLag()
	return s
}

// stuckFor returns the offset of the first event that is not delivered, and how
// long the partition has delivered nothing; 0 when it holds no event.
func (p *partition) stuckFor(now time.Time) (offset int64, still time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) == 0 {
		return -1, 0
	}
	return p.pending[0].recs[0].Offset, now.Sub(p.stillSince())
}

// stillSince returns since when the partition holds events and has delivered none.
// The caller holds mu.
func (p *partition) stillSince() time.Time {
	since := p.pending[0].at
	if p.lastDelivery.After(since) {
		since = p.lastDelivery
	}
	return since
}

// hold changes how many bytes the partition holds, and whether it delivers slowly. One
// that holds nothing does not: how prompt its next delivery is nobody knows. The caller
// holds mu.
func (p *partition) hold(change int64, slow bool) {
	if p.slow {
		p.g.budget.slow.Add(-p.held)
	}
	p.held += change
	p.slow = slow && p.held > 0
	if p.slow {
		p.g.budget.slow.Add(p.held)
	}
}

// noteSlow notes that the next delivery has taken longer than promptDelivery by now.
func (p *partition) noteSlow(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.slow && len(p.pending) > 0 && now.Sub(p.stillSince()) > promptDelivery {
		p.hold(0, true)
	}
}

// stuckReason returns what a partition that delivers nothing is waiting for.
func (p *partition) stuckReason(now time.Time) (reason, remedy string) {
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
		return fmt.Sprintf("a write has been in flight for %s and the sink reports no problem", now.Sub(c.since).Round(time.Second)),
			"look at bridge_sink_request_duration_seconds: the service takes the rows and does not acknowledge them; if it is well, restart this member, its events are read again"
	case StateRejecting:
		return "dead letters are being written and not acknowledged", "check the brokers and the dead-letter topic's in-sync replicas"
	}
	return "events wait and nothing takes them", "restart this member, its events are read again, and report this as a fault of the bridge"
}

// The methods below cost one comparison where there is no BatchObserver.

func (p *partition) observeMapped() {
	if p.g.cfg.BatchObserver == nil {
		return
	}
	p.view = BatchView{Topic: p.topic, Partition: p.id, Began: p.batch.began, Mapped: time.Now(), Writes: p.view.Writes[:0]}
	p.fillView()
	p.g.cfg.BatchObserver.BatchMapped(&p.view)
}

func (p *partition) observeDone(err error) {
	if p.view.Mapped.IsZero() { // also where a panic kept it from being mapped
		return
	}
	p.fillView()
	p.view.Duration, p.view.Err = time.Since(p.view.Mapped), err
	p.g.cfg.BatchObserver.BatchDone(&p.view)
	clear(p.view.Writes)
	p.view = BatchView{Writes: p.view.Writes[:0]} // it must not keep the records
}

// observeWrite notes a call of the sink that has ended.
func (p *partition) observeWrite(w SinkWrite, rows [][]byte) {
	if p.g.cfg.BatchObserver == nil {
		return
	}
	p.view.WriteCount++
	if len(p.view.Writes) == maxWrites {
		return
	}
	w.Duration = time.Since(w.Began)
	for _, row := range rows {
		w.Bytes += len(row)
	}
	p.view.Writes = append(p.view.Writes, w)
}

func (p *partition) fillView() {
	p.view.batch, p.view.Records, p.view.RowBytes = p.batch, p.batch.recs, len(p.batch.buf)
}
