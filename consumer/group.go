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
)

// Group is one member of a consumer group.
type Group struct {
	cfg       Config
	log       *zap.Logger
	cluster   *Cluster
	sink      Sink
	newMapper func() Mapper
	obs       Observer
	budget    *groupBudget
	inflow    *inflow
	batches   *batches
	probe     time.Duration
	heartbeat time.Duration

	// cl is set by Run before it polls. The client joins while it is made, so
	// the rebalance callbacks can run earlier: they use the client they are
	// given, and partitions have no use for one before something is pushed.
	cl   *kgo.Client
	stop context.CancelCauseFunc // set by Run, too
	ends *StopOffsets            // of a bounded run; else nil

	mu    sync.Mutex // guards the fields below
	parts map[topicPartition]*partition
	// accounts holds one entry for each partition this process ever owned.
	accounts map[topicPartition]*account
	owned    map[topicPartition]bool  // partitions the group has given to us, though nothing may read them
	purged   map[string]time.Time     // topics that were deleted and are not subscribed to again yet
	over     bool                     // no partition may begin any more
	ended    time.Time                // when that came to be
	halted   map[topicPartition]bool  // the client reads them no further
	starts   map[topicPartition]int64 // start positions that are not committed yet
	// begins holds where partitions began that were assigned with an offset.
	begins map[topicPartition]kgo.EpochOffset

	trouble troubles
	dog     watchdog
	polled  atomic.Int64 // when the poll loop last came round, Unix nanoseconds
	arrived atomic.Int64 // records polled and handed over
	running atomic.Bool
	commits commitLog

	fetched      map[topicPartition][16]byte // see offsetsFetched
	incarnations incarnations
	reading      map[string][16]byte  // the topic ids we read; owned by watch
	unpolled     map[string]*unpolled // see polledAll; owned by watch
	lookNow      chan struct{}        // one token: watch shall not wait for its tick
	first        chan struct{}        // one token: a partition has marked its first batch
	begun        chan struct{}        // one token: there are starts to commit
	asides       sync.WaitGroup       // see aside
}

type topicPartition struct {
	topic string
	id    int32
}

// NewGroup prepares a member; Run joins. newMapper is called once per assigned
// partition. The cluster stays the caller's to close, after Run has returned.
func NewGroup(cfg Config, cluster *Cluster, sink Sink, newMapper func() Mapper, obs Observer, log *zap.Logger) *Group {
	g := &Group{
		cfg: cfg, log: log, cluster: cluster, sink: sink, newMapper: newMapper, obs: obs,
		batches: newBatches(int64(cfg.MaxBytes), int64(cfg.MaxBuffered)/4), probe: probeInterval, heartbeat: min(3*time.Second, cfg.SessionTimeout/3),
		parts: make(map[topicPartition]*partition), accounts: make(map[topicPartition]*account),
		owned: make(map[topicPartition]bool), purged: make(map[string]time.Time),
		starts: make(map[topicPartition]int64), begins: make(map[topicPartition]kgo.EpochOffset), reading: make(map[string][16]byte),
		unpolled: make(map[string]*unpolled),
		lookNow:  make(chan struct{}, 1), first: make(chan struct{}, 1), begun: make(chan struct{}, 1),
	}
	shared := cfg.Budget
	if shared == nil {
		shared = NewBudget(int64(cfg.MaxBuffered))
	}
	g.budget = shared.group()
	g.inflow = &inflow{budget: g.budget}
	g.trouble.log = log
	g.dog.log = log
	g.commits.log = log
	return g
}

// Run joins the group and delivers until ctx ends, then drains, commits and
// leaves within Drain and a second. It returns nil when ctx ended it, whatever
// its cause, and the reason when the member cannot go on, such as an event
// rejected under the stop policy. Run may be called once.
func (g *Group) Run(ctx context.Context) error {
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
	clientCtx = kgo.PreCommitFnContext(clientCtx, noteTopicID)
	if g.cl, err = kgo.NewClient(append(opts, kgo.WithContext(clientCtx))...); err != nil {
		return fmt.Errorf("preparing the kafka consumer: %w", err)
	}
	ctx, g.stop = context.WithCancelCause(ctx)
	defer g.stop(nil)

	g.budget.join()
	defer g.budget.leave()
	g.running.Store(true)
	eg, egCtx := errgroup.WithContext(ctx)
	eg.Go(func() error { return g.poll(egCtx) })
	eg.Go(func() error { return g.watch(egCtx) })
	eg.Go(func() error { return g.commitEarly(egCtx, clientCtx) })
	eg.Go(func() error { return g.retire(egCtx) })
	if g.ends != nil {
		eg.Go(func() error { return g.approach(egCtx) })
	}
	_ = eg.Wait() // they end with ctx only; why it ended is its cause
	g.running.Store(false)

	committed := g.shutdown(clientCtx)
	closeClient() // without brokers, leaving would otherwise be retried
	g.cl.CloseAllowingRebalance()
	// franz-go 1.22.2 polls once more in Close, and what it began to leave the
	// group with would wait for ever for that poll to be over.
	g.cl.AllowRebalance()
	<-committed
	g.asides.Wait()

	var failed *failure
	if errors.As(context.Cause(ctx), &failed) {
		return failed.err
	}
	return nil
}

// failure is a reason to end the run that is ours, told apart from whatever
// cause the caller's context may end with.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }

// fail ends the run with err.
func (g *Group) fail(err error) { g.stop(&failure{err}) }

func (g *Group) options() ([]kgo.Opt, error) {
	opts, err := g.cfg.Kafka.options(g.log, g.cfg.Version)
	if err != nil {
		return nil, err
	}
	if g.inflow.inner, err = newDecompressor(g.cfg.maxBatch()); err != nil {
		return nil, err
	}
	opts = append(opts,
		kgo.FetchIsolationLevel(g.cfg.isolation()),
		kgo.KeepControlRecords(), // no events, but a log can end with them
		kgo.ConsumerGroup(g.cfg.Group),
		kgo.ConsumeTopics(g.cfg.Topics...),
		// Whatever Start is, which is committed before the member joins. Offsets
		// that fell out of the log resume at its start as well.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // the client's own skips what is older than a minute
		kgo.OnOffsetsFetched(g.offsetsFetched),
		kgo.AdjustFetchOffsetsFn(g.startOffsets),
		kgo.SessionTimeout(g.cfg.SessionTimeout),
		kgo.RebalanceTimeout(g.cfg.RebalanceTimeout),
		kgo.HeartbeatInterval(g.heartbeat),
		kgo.FetchMaxBytes(int32(g.cfg.FetchMaxBytes)),
		kgo.FetchMaxPartitionBytes(int32(g.cfg.FetchMaxPartitionBytes)),
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.WithDecompressor(g.inflow),
		kgo.WithHooks(g.inflow),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(commitInterval),
		kgo.AutoCommitCallback(g.committed),
		// A rebalance waits until polled records are handed over, so a
		// record never reaches a partition that is gone.
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

// poll hands what is fetched to the partitions. It never waits for a sink: when
// the budget is spent it stops polling, which stops the fetching.
func (g *Group) poll(ctx context.Context) error {
	for {
		g.polled.Store(time.Now().UnixNano())
		if err := g.budget.wait(ctx); err != nil {
			return err
		}
		// An idle topic must not look like a loop that is stuck.
		polling, cancel := context.WithTimeout(ctx, pollTimeout)
		fetches := g.cl.PollRecords(polling, g.cfg.maxPoll())
		cancel()
		counted := g.inflow.polled(g.cl)
		g.cl.UpdateFetchMaxBytes(g.inflow.size(g.cfg.FetchMaxBytes), g.inflow.size(g.cfg.FetchMaxPartitionBytes))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed := false
		fetches.EachError(func(topic string, id int32, err error) {
			failed = g.fetchFailed(topic, id, err) || failed
		})
		share, ids := g.share(), topicIDs(fetches)
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			if len(f.Records) == 0 {
				return
			}
			g.mu.Lock()
			p := g.parts[topicPartition{f.Topic, f.Partition}]
			g.mu.Unlock()
			if p == nil {
				return // unmarked, so the owner reads it again
			}
			p.end.Store(g.cfg.readableEnd(f))
			p.identify(ids[f.Topic])
			g.arrive(p, f, share)
		})
		counted()
		g.arrived.Add(int64(fetches.NumRecords()))
		g.cl.AllowRebalance()
		if failed {
			// A loop of immediate errors must not become a busy loop. One
			// wait for all partitions, and none while a rebalance waits.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// fetchFailed tells whether polling again at once would meet the error again.
func (g *Group) fetchFailed(topic string, id int32, err error) bool {
	var loss *kgo.ErrDataLoss
	var bomb *kgo.ErrDecompressTooLarge
	switch {
	case errors.As(err, &loss):
		g.dataLoss(loss)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrClientClosed):
	case errors.Is(err, errNoRoom):
	case errors.As(err, &bomb):
		g.halt(bomb)
	case errors.Is(err, kerr.UnknownTopicID):
		g.idRefused(topic)
		return true
	default:
		e := g.cfg.Kafka.explain(fmt.Sprintf("fetching %s/%d", topic, id), err, kafka.Request{Topic: topic, Group: g.cfg.Group})
		var session *kgo.ErrGroupSession
		if errors.As(err, &session) {
			e.Doing = "joining group " + g.cfg.Group
		}
		// Without an answer of a broker it is the brokers that are away,
		// which watch looks at too: one failure, one line.
		reason := reasonKafka
		var answer *kerr.Error
		if errors.As(err, &answer) {
			reason = reasonFetch
		}
		g.trouble.add(reason, e)
		return true
	}
	return false
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

// retire has every partition take no more from the moment the run ends. A
// rebalance may hold the poll loop, and shutdown after it, for as long as its
// own drain takes: the drain of a stop begins beside that, not behind it.
func (g *Group) retire(ctx context.Context) error {
	<-ctx.Done()
	g.mu.Lock()
	g.over, g.ended = true, time.Now()
	all := slices.Collect(maps.Values(g.parts))
	g.mu.Unlock()
	for _, p := range all {
		p.stop()
	}
	return ctx.Err()
}

// shutdown is what a stop does between the last poll and the last goodbye. The
// channel it returns is closed when the last commit has ended, which is after
// the client was closed if the brokers hang.
func (g *Group) shutdown(ctx context.Context) <-chan struct{} {
	g.cl.AllowRebalance()
	g.mu.Lock()
	began := g.ended
	all := slices.Collect(maps.Values(g.parts))
	g.mu.Unlock()

	g.drain(all, g.cfg.Drain-time.Since(began), errDrained)

	// The client has a commit wait for the one before it, however long a
	// broker takes over that, so the bound must be kept from outside.
	committing, cancel := context.WithTimeout(ctx, g.goodbye(began, commitOnStop, commitOnStopMax))
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
	leaving, stopLeaving := context.WithTimeout(ctx, g.goodbye(began, leaveOnStop, leaveOnStopMax))
	defer stopLeaving()
	if err := g.leave(leaving); err != nil && !errors.Is(err, kerr.UnknownMemberID) {
		g.log.Warn("left without telling the group; its partitions move when the session times out", zap.Error(err), zap.Duration("session_timeout", g.cfg.SessionTimeout))
	}
	g.log.Info("stopped", zap.Int("partitions", len(all)), zap.Duration("drained_in", time.Since(began)), zap.Object("events", g.books()))
	return committed
}

// goodbye is how long a request after the drain may take: least at any rate,
// and up to most of what the drain that began then has left of its time.
func (g *Group) goodbye(began time.Time, least, most time.Duration) time.Duration {
	return max(least, min(g.cfg.Drain-time.Since(began), most))
}

// leave tells the group that this member goes.
func (g *Group) leave(ctx context.Context) error {
	err := g.cl.LeaveGroupContext(ctx)
	member, _ := g.cl.GroupMetadata()
	if g.cfg.Protocol != "consumer" || g.cfg.InstanceID == "" || member == "" {
		return err
	}
	// franz-go 1.22 leaves the instance id out of a static member's goodbye,
	// which Kafka 4 refuses as an invalid request. The member would then hold
	// its id until its session times out, and its own restart would be
	// refused with UNRELEASED_INSTANCE_ID.
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.InstanceID = g.cfg.Group, member, &g.cfg.InstanceID
	req.MemberEpoch = -2 // a static member that means to come back, see KIP-848
	resp, err := req.RequestWith(ctx, g.cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// commit commits what is marked, now, but of the partitions named.
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

// committed hears the outcome of every commit.
func (g *Group) committed(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
	asked := kafka.Request{Group: g.cfg.Group}
	if err == nil && resp != nil {
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if code := kerr.ErrorForCode(p.ErrorCode); code != nil {
					err = fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, code)
					asked.Topic = t.Topic
				}
			}
		}
	}
	if errors.Is(err, context.Canceled) {
		return // superseded by a newer commit or by the end
	}
	g.obs.Committed(err)
	if err != nil {
		err = g.cfg.Kafka.explain("committing offsets of group "+g.cfg.Group, err, asked)
	}
	g.commits.note(err)
}
