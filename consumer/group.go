package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/panics"
)

// Group is one member of a consumer group.
type Group struct {
	cfg       Config
	conn      kafka.Connection
	log       *zap.Logger
	cluster   *Cluster
	sink      Sink
	newMapper func() Mapper
	obs       Observer
	budget    *groupBudget
	limiter   *kafka.FetchLimiter
	pacer     kafka.FetchPacer
	batches   *batches
	probe     time.Duration
	heartbeat time.Duration

	// cl is set by Run before it polls. The client joins while it is made, so the
	// rebalance callbacks can run earlier: they use the client that they get, and
	// partitions need none before something is pushed.
	cl     *kgo.Client
	stop   context.CancelCauseFunc // set by Run before the client is made
	stopAt *StopOffsets            // of a bounded run; else nil

	mu        sync.Mutex // guards the fields below
	parts     map[topicPartition]*partition
	ledgers   map[topicPartition]*partitionLedger // of each partition this process ever owned
	owned     map[topicPartition]bool             // partitions assigned by the group, even if nothing may read them
	purged    map[string]time.Time                // topics that were deleted and are not subscribed to again yet
	stopping  bool                                // no partition may begin any more
	stoppedAt time.Time                           // when that began
	ended     map[topicPartition]*partition       // those that the stop has ended
	halted    map[topicPartition]bool             // the client reads them no further
	starts    map[topicPartition]int64            // start positions that are not committed yet
	begins    map[topicPartition]kgo.EpochOffset  // where partitions began that were assigned with an offset

	problems problems
	stuckLog stuckLog
	polled   atomic.Int64 // when the poll loop last began a poll, Unix nanoseconds
	arrived  atomic.Int64 // records polled and handed over
	running  atomic.Bool
	brokers  atomic.Int64            // of the cluster, as far as known
	crashed  atomic.Pointer[failure] // the first panic
	commits  commitLog

	fetched  map[topicPartition][16]byte // see offsetsFetched
	topicIDs topicIDs
	reading  map[string][16]byte  // the topic ids we read; owned by watch
	unpolled map[string]*unpolled // see polledAll; owned by watch
	lookNow  chan struct{}        // one token: watch does not wait for its tick
	first    chan struct{}        // one token: a partition has marked its first batch
	begun    chan struct{}        // one token: there are starts to commit
	asides   sync.WaitGroup       // see aside
}

type topicPartition = kafka.TopicPartition

func partitionKey(topic string, id int32) topicPartition {
	return topicPartition{Topic: topic, Partition: id}
}

// NewGroup prepares a member; Run joins. newMapper is called once per assigned
// partition. The caller closes the cluster, after Run has returned.
func NewGroup(cfg Config, cluster *Cluster, sink Sink, newMapper func() Mapper, obs Observer, log *zap.Logger) *Group {
	g := &Group{
		cfg: cfg, conn: cfg.Connection(), log: log, cluster: cluster, sink: sink, newMapper: newMapper, obs: obs,
		probe: probeInterval, heartbeat: min(3*time.Second, cfg.SessionTimeout/3),
		parts: make(map[topicPartition]*partition), ledgers: make(map[topicPartition]*partitionLedger),
		owned: make(map[topicPartition]bool), halted: make(map[topicPartition]bool), purged: make(map[string]time.Time),
		starts: make(map[topicPartition]int64), begins: make(map[topicPartition]kgo.EpochOffset), reading: make(map[string][16]byte),
		unpolled: make(map[string]*unpolled), lookNow: make(chan struct{}, 1), first: make(chan struct{}, 1), begun: make(chan struct{}, 1),
	}
	shared := cfg.Budget
	if shared == nil {
		shared = NewBudget(int64(cfg.MaxBuffered))
	}
	g.budget = shared.group()
	g.conn.Wrap = g.pacer.Wrap
	g.batches = newBatches(int64(cfg.MaxBytes), func() int64 { return g.budget.even() / 4 })
	g.limiter = &kafka.FetchLimiter{Room: g.budget.prefetch, Panicked: g.panicked}
	g.problems.log, g.stuckLog.log, g.commits.log = log, log, log
	return g
}

// Run joins the group and delivers until ctx ends, then drains, commits and leaves
// within Drain and a second. It returns nil when ctx ended it, whatever its cause,
// and the reason when the member cannot continue, such as an event rejected under
// the stop policy. A panic in a goroutine of the group, or in what the Kafka client
// calls for it, ends the run in the same way, also during a stop: the error has
// its stack, see [panics.Stack], and the batch at hand is not committed. Run may be
// called once.
func (g *Group) Run(ctx context.Context) (err error) {
	defer panics.To(&err)
	opts, err := g.options()
	if err != nil {
		return err
	}
	if err := g.commitStart(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	// The client outlives ctx: draining still commits and leaves.
	clientCtx, closeClient := context.WithCancel(context.WithoutCancel(ctx))
	defer closeClient()
	clientCtx = kgo.PreCommitFnContext(clientCtx, g.dropForeign)
	g.budget.join() // before the client may fetch: it asks for room
	defer g.budget.leave()
	ctx, g.stop = context.WithCancelCause(ctx)
	defer g.stop(nil)
	total, each := g.fetchSizes()
	if g.cl, err = kgo.NewClient(append(opts, kgo.FetchMaxBytes(total), kgo.FetchMaxPartitionBytes(each), kgo.WithContext(clientCtx))...); err != nil {
		return fmt.Errorf("preparing the kafka consumer: %w", err)
	}

	g.running.Store(true)
	eg, egCtx := errgroup.WithContext(ctx)
	run := func(do func(context.Context) error) {
		eg.Go(func() error {
			defer panics.Catch(g.panicked)
			return do(egCtx)
		})
	}
	run(g.poll)
	run(g.watch)
	run(func(ctx context.Context) error { return g.commitEarly(ctx, clientCtx) })
	run(g.stopAll)
	if g.stopAt != nil {
		run(g.awaitStopOffsets)
	}
	_ = eg.Wait() // they end with ctx only; why it ended is its cause
	g.running.Store(false)

	committed := g.shutdown(clientCtx)
	closeClient() // without brokers, leaving would otherwise be retried
	g.cl.CloseAllowingRebalance()
	// franz-go 1.22.2 polls again in Close, and leaving the group would wait for
	// that poll to be over.
	g.cl.AllowRebalance()
	<-committed
	g.asides.Wait()

	failed := g.crashed.Load()
	if failed != nil || errors.As(context.Cause(ctx), &failed) {
		return failed.err
	}
	return nil
}

// failure is a reason of the group to end the run, as opposed to the cause of the
// caller's context.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }

// fail ends the run with err.
func (g *Group) fail(err error) { g.stop(&failure{err}) }

// panicked ends the run with the error of a panic, also a run that is ending.
func (g *Group) panicked(err error) {
	g.crashed.CompareAndSwap(nil, &failure{err})
	g.fail(err)
}

// guard calls f. After a panic in f the run ends, and what follows here is still
// done.
func (g *Group) guard(f func()) {
	defer panics.Catch(g.panicked)
	f()
}

func (g *Group) options() ([]kgo.Opt, error) {
	opts, err := g.conn.Options(g.log)
	if err != nil {
		return nil, err
	}
	bounds, err := g.limiter.Options(kafka.MaxBatch(int64(g.cfg.MaxBuffered)))
	if err != nil {
		return nil, err
	}
	opts = append(append(opts, bounds...),
		kgo.KeepControlRecords(), // no events, but a log can end with them
		kgo.ConsumerGroup(g.cfg.Group),
		kgo.ConsumeTopics(g.cfg.Topics...),
		// Whatever Start is, which is committed before the member joins. Offsets that
		// fell out of the log resume at its start as well.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // the client's default skips what is older than a minute
		kgo.OnOffsetsFetched(g.offsetsFetched),
		kgo.AdjustFetchOffsetsFn(g.startOffsets),
		kgo.SessionTimeout(g.cfg.SessionTimeout),
		kgo.RebalanceTimeout(g.cfg.RebalanceTimeout),
		kgo.HeartbeatInterval(g.heartbeat),
		kgo.FetchMaxWait(kafka.FetchMaxWait),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(commitInterval),
		kgo.AutoCommitCallback(g.committed),
		// A rebalance waits until polled records are handed over, so a record never
		// reaches a partition that is gone.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(g.assigned),
		kgo.OnPartitionsRevoked(g.revoked),
		kgo.OnPartitionsLost(g.lost),
	)
	if g.cfg.Protocol == "consumer" {
		opts = append(opts, kgo.ServerSideBalancer())
	} else {
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	if g.cfg.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(g.cfg.InstanceID))
	}
	return opts, nil
}

// poll hands what is fetched to the partitions. It never waits for a sink: when the
// budget is spent it stops polling, which stops the fetching.
func (g *Group) poll(ctx context.Context) error {
	var cost float64     // of a record, by the budget; recent
	var looked time.Time // for slow partitions
	look := func() {
		g.updateFetchSizes()
		if now := time.Now(); now.Sub(looked) >= promptDelivery/2 {
			looked = now
			for _, p := range g.partitions() {
				p.noteSlow(now)
			}
		}
	}
	for {
		g.polled.Store(time.Now().UnixNano())
		if err := g.budget.wait(ctx, look); err != nil {
			return err
		}
		// An idle topic must not look like a loop that is stuck.
		polling, cancel := context.WithTimeout(ctx, pollTimeout)
		fetches := g.cl.PollRecords(polling, g.maxPoll(cost))
		cancel()
		counted := g.limiter.Polled(g.cl)
		look()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed := false
		fetches.EachError(func(topic string, id int32, err error) {
			failed = g.fetchFailed(topic, id, err) || failed
		})
		share, ids, size, caughtUp := g.share(), fetchedTopicIDs(fetches), 0, true
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			if len(f.Records) == 0 {
				return
			}
			p := g.partition(f.Topic, f.Partition)
			if p == nil {
				return // unmarked, so the owner reads it again
			}
			end := g.cfg.readableEnd(f)
			caughtUp = caughtUp && f.Records[len(f.Records)-1].Offset >= end-1
			p.end.Store(end)
			p.setTopicID(ids[f.Topic])
			size += g.arrive(p, f, share)
		})
		counted()
		n := fetches.NumRecords()
		g.pacer.Polled(n, !caughtUp)
		if n > 0 {
			now := float64(size) / float64(n)
			cost = max(now, cost+(now-cost)/8) // rises at once, falls slowly
			g.arrived.Add(int64(n))
		}
		g.cl.AllowRebalance()
		if failed {
			// A loop of immediate errors must not become a busy loop. One wait for all
			// partitions, and none while a rebalance waits.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// maxPoll returns how many records to poll at most, given what one takes of the
// budget: as many as there is room for, and one at least.
func (g *Group) maxPoll(cost float64) int {
	n := g.cfg.maxPoll()
	if cost > 0 {
		n = min(n, max(int(float64(g.budget.room())/cost), 1))
	}
	return n
}

// fetchFailed reports whether polling again at once would return the same error.
func (g *Group) fetchFailed(topic string, id int32, err error) bool {
	var loss *kgo.ErrDataLoss
	var large *kgo.ErrDecompressTooLarge
	switch {
	case errors.As(err, &loss):
		g.enterDataLoss(loss)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrClientClosed):
	case errors.Is(err, kafka.ErrNoRoom):
	case panics.Is(err):
		g.panicked(err)
	case errors.As(err, &large):
		g.halt(large)
	case errors.Is(err, kerr.UnknownTopicID):
		g.idRefused(topic)
		return true
	default:
		e := g.conn.Explain(fmt.Sprintf("fetching %s/%d", topic, id), err, kafka.Request{Topic: topic, Group: g.cfg.Group})
		var session *kgo.ErrGroupSession
		if errors.As(err, &session) {
			e.Op = "joining group " + g.cfg.Group
		}
		// Without an answer of a broker the brokers are unreachable, which watch
		// reports too: one failure, one line.
		reason := reasonKafka
		var answer *kerr.Error
		if errors.As(err, &answer) {
			reason = reasonFetch
		}
		g.problems.add(reason, e)
		return true
	}
	return false
}

// partition returns an assigned partition, or nil.
func (g *Group) partition(topic string, id int32) *partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.parts[partitionKey(topic, id)]
}

// partitions returns the assigned partitions.
func (g *Group) partitions() []*partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.parts))
}

func (g *Group) share() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.budget.share(len(g.parts))
}

func (g *Group) pause(topic string, id int32) {
	g.cl.PauseFetchPartitions(map[string][]int32{topic: {id}})
}

func (g *Group) resume(topic string, id int32) {
	g.cl.ResumeFetchPartitions(map[string][]int32{topic: {id}})
}

func (g *Group) mark(rec *kgo.Record) { g.cl.MarkCommitRecords(rec) }

func (g *Group) markOffset(topic string, id int32, at kgo.EpochOffset) {
	g.cl.MarkCommitOffsets(map[string]map[int32]kgo.EpochOffset{topic: {id: at}})
}

// updateSize takes over the number of brokers and of assigned partitions, which
// determine how much memory there may be.
func (g *Group) updateSize(cl *kgo.Client) {
	brokers := len(cl.DiscoveredBrokers())
	g.brokers.Store(int64(brokers))
	g.limiter.SetPlan(g.plan())
	if g.cfg.OnSizeChange != nil {
		g.cfg.OnSizeChange(brokers, len(g.partitions()))
	}
}

// plan is what the prefetch of this group's client depends on.
func (g *Group) plan() memory.Plan {
	return memory.Plan{FetchMaxBytes: int64(g.cfg.FetchMaxBytes), Brokers: int(g.brokers.Load()), Integrations: int(g.budget.shared())}
}

// fetchSizes returns how many bytes to request of a broker at a time, and of each
// partition. They shrink with the number of groups that share the budget.
func (g *Group) fetchSizes() (total, partition int32) {
	total = g.limiter.Size(int32(g.plan().FetchMax()))
	return total, min(int32(g.cfg.FetchMaxPartitionBytes), total)
}

// updateFetchSizes applies the fetch sizes. Only the poll loop calls it.
func (g *Group) updateFetchSizes() {
	g.limiter.SetPlan(g.plan())
	g.cl.UpdateFetchMaxBytes(g.fetchSizes())
}

// The callbacks of a rebalance. The client never calls two of them at once, nor one
// of them between a poll and its AllowRebalance.

func (g *Group) assigned(_ context.Context, cl *kgo.Client, partitions map[string][]int32) {
	defer panics.Catch(g.panicked)
	// The client hands a partition over once; should it ever do so twice, two
	// goroutines must not write the same events.
	g.drain(g.assignedAmong(partitions), 0, errLost)
	started := g.begin(cl, partitions)
	g.updateSize(cl)
	if len(started) == 0 {
		return
	}
	// A pause outlives a revoke in the client.
	cl.ResumeFetchPartitions(started)
	n := 0
	for topic, ids := range started {
		n += len(ids)
		for _, id := range ids {
			g.obs.OffsetsPassed(topic, id, 0, 0)
		}
	}
	g.obs.Rebalanced("assigned", n)
	g.log.Info("partitions assigned", zap.Any("partitions", started))
}

// begin starts the partitions that were assigned, and returns them: none while the
// run ends.
func (g *Group) begin(cl *kgo.Client, partitions map[string][]int32) map[string][]int32 {
	member, _ := cl.GroupMetadata()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setOwned(partitions, true)
	if g.stopping {
		partitions = nil // nothing polls any more
	}
	// What the group left with us when it gave us a new member id is ours under that:
	// revoked comes first, and would have taken the rest.
	for _, p := range g.parts {
		p.member = member
	}
	for topic, ids := range partitions {
		for _, id := range ids {
			p := newPartition(g, topic, id)
			p.member = member
			g.parts[partitionKey(topic, id)] = p
			delete(g.starts, partitionKey(topic, id)) // of an earlier assignment
			p.start()
		}
	}
	return partitions
}

// rebalanced notes partitions that went away. Whatever the observer does, what is
// marked is still committed.
func (g *Group) rebalanced(kind string, n int) {
	g.guard(func() { g.obs.Rebalanced(kind, n) })
}

// revoked ends partitions: what is in flight may finish, what is not mapped is
// released, what is marked is committed.
func (g *Group) revoked(ctx context.Context, cl *kgo.Client, partitions map[string][]int32) {
	defer panics.Catch(g.panicked)
	defer g.updateSize(cl)
	defer g.disown(partitions)
	gone, foreign := g.byMembership(cl, g.assignedAmong(partitions))
	if len(foreign) > 0 {
		g.drain(foreign, 0, errLost)
		g.rebalanced("lost", len(foreign))
		g.log.Warn("partitions lost: the group no longer knew this member, which has joined again; what it had not committed by then is read again by the new owners", zap.Any("partitions", partitions))
	}
	if len(gone) > 0 {
		began := time.Now()
		g.drain(gone, g.cfg.Drain, errDrained)
		g.rebalanced("revoked", len(gone))
		g.log.Info("partitions revoked", zap.Any("partitions", partitions), zap.Duration("drained_in", time.Since(began)))
	}
	// Also when nothing is revoked: the callback ends a generation.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	g.commit(ctx, cl, foreign...)
}

// byMembership separates partitions of a membership that has ended. When the
// coordinator no longer knows a member, the client joins again without a callback
// and then gives up what it had. Others may have owned that meanwhile: to commit
// our marks would set theirs back.
func (g *Group) byMembership(cl *kgo.Client, all []*partition) (ours, foreign []*partition) {
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

// lost ends partitions that another member may already own: nothing of theirs can
// be committed any more.
func (g *Group) lost(_ context.Context, cl *kgo.Client, partitions map[string][]int32) {
	defer panics.Catch(g.panicked)
	defer g.updateSize(cl)
	defer g.disown(partitions)
	gone := g.assignedAmong(partitions)
	if len(gone) == 0 {
		return
	}
	g.drain(gone, 0, errLost)
	g.rebalanced("lost", len(gone))
	g.log.Warn("partitions lost: the group expelled this member, or its brokers could not be reached; what was not committed is read again by the new owners", zap.Any("partitions", partitions))
}

func (g *Group) assignedAmong(partitions map[string][]int32) []*partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	var found []*partition
	for topic, ids := range partitions {
		for _, id := range ids {
			if p := g.parts[partitionKey(topic, id)]; p != nil {
				found = append(found, p)
			}
		}
	}
	return found
}

// drain stops partitions softly, after limit hard, and returns when their
// goroutines have ended. Only then are they no longer assigned: a rebalance in the
// middle of a stop, or a stop in the middle of a rebalance, must find what is still
// in flight and wait for it, or the next owner would begin beside it.
func (g *Group) drain(gone []*partition, limit time.Duration, cause error) {
	for _, p := range gone {
		p.stop()
	}
	end := func() {
		for _, p := range gone {
			p.cancel(cause)
		}
	}
	// Not a timer of no length: in virtual time Go 1.26 runs it on the system stack, where
	// the race detector may crash.
	if limit > 0 {
		defer time.AfterFunc(limit, end).Stop()
	} else {
		end()
	}
	for _, p := range gone {
		p.wait()
		g.guard(func() { g.obs.Forget(p.topic, p.id) })
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range gone {
		if tp := partitionKey(p.topic, p.id); g.parts[tp] == p {
			delete(g.parts, tp)
		}
	}
}

// stopAll makes every partition map no more from the moment the run ends. A
// rebalance may hold the poll loop, and shutdown after it, for as long as its own
// drain takes: the drain of a stop begins beside that, not after it.
func (g *Group) stopAll(ctx context.Context) error {
	<-ctx.Done()
	g.mu.Lock()
	g.stopping, g.stoppedAt = true, time.Now()
	g.mu.Unlock()
	for _, p := range g.partitions() {
		p.stop()
	}
	return ctx.Err()
}

// shutdown is what a stop does between the last poll and closing the client. The
// channel it returns is closed when the last commit has ended, which is after the
// client was closed if the brokers hang.
func (g *Group) shutdown(ctx context.Context) <-chan struct{} {
	g.cl.AllowRebalance()
	g.mu.Lock()
	began := g.stoppedAt
	g.ended = maps.Clone(g.parts)
	g.mu.Unlock()
	all := g.partitions()
	g.drain(all, g.cfg.Drain-time.Since(began), errDrained)

	// The client has a commit wait for the one before it, however long a broker takes
	// over that, so the bound must be kept from outside.
	committing, cancel := context.WithTimeout(ctx, g.requestBudget(began, commitOnStop, commitOnStopMax))
	committed := make(chan struct{})
	go func() {
		defer close(committed)
		defer cancel()
		g.commit(committing, g.cl)
	}()
	select {
	case <-committed:
	case <-committing.Done():
	}
	leaving, stopLeaving := context.WithTimeout(ctx, g.requestBudget(began, leaveOnStop, leaveOnStopMax))
	defer stopLeaving()
	if err := g.leave(leaving); err != nil && !errors.Is(err, kerr.UnknownMemberID) {
		g.log.Warn("left without notifying the group; its partitions move when the session times out", zap.Error(err), zap.Duration("session_timeout", g.cfg.SessionTimeout))
	}
	g.mu.Lock()
	ledger, _ := g.sumLedgers()
	g.mu.Unlock()
	g.log.Info("stopped", zap.Int("partitions", len(all)), zap.Duration("drained_in", time.Since(began)), zap.Object("events", ledger.Ledger))
	return committed
}

// requestBudget is how long a request after the drain may take: at least least, and
// up to most of what is left of the drain's time.
func (g *Group) requestBudget(began time.Time, least, most time.Duration) time.Duration {
	return max(least, min(g.cfg.Drain-time.Since(began), most))
}

// leave notifies the group that this member leaves.
func (g *Group) leave(ctx context.Context) error {
	err := g.cl.LeaveGroupContext(ctx)
	member, _ := g.cl.GroupMetadata()
	if g.cfg.Protocol != "consumer" || g.cfg.InstanceID == "" || member == "" {
		return err
	}
	// franz-go 1.22 leaves the instance id out when a static member leaves, which
	// Kafka 4 refuses as an invalid request. The member would then hold its id until
	// its session times out, and its own restart would be refused with
	// UNRELEASED_INSTANCE_ID.
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.InstanceID = g.cfg.Group, member, &g.cfg.InstanceID
	req.MemberEpoch = -2 // a static member that comes back, see KIP-848
	resp, err := req.RequestWith(ctx, g.cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// commit commits what is marked now, except of the partitions named.
func (g *Group) commit(ctx context.Context, cl *kgo.Client, but ...*partition) {
	marked := cl.MarkedOffsets()
	for _, p := range but {
		delete(marked[p.topic], p.id)
	}
	if len(marked) == 0 {
		return
	}
	cl.CommitOffsetsSync(ctx, marked, g.committed)
}

// committed is called with the outcome of every commit.
func (g *Group) committed(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
	defer panics.Catch(g.panicked)
	request := kafka.Request{Group: g.cfg.Group}
	if err == nil && resp != nil {
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if code := kerr.ErrorForCode(p.ErrorCode); code != nil {
					err = fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, code)
					request.Topic = t.Topic
				}
			}
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, errNothingToCommit) {
		return // superseded by a newer commit or by the end
	}
	g.obs.Committed(err)
	if err != nil {
		err = g.conn.Explain("committing offsets of group "+g.cfg.Group, err, request)
	}
	g.commits.note(err)
}
