package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/panics"
)

// A group that has committed nothing begins anywhere else after a restart. Its
// start position is therefore committed when it begins:
//
//   - For a topic in which the group has no committed offset at all, Config.Start is
//     resolved once. It is committed for all partitions of the topic together, before
//     this member joins.
//   - A partition that a member is given without a committed offset was added
//     later. It begins at the start of its log, and the member commits that.
//
// A commit carries the id of the topic, see [kafka.AddTopicIDs].

// startAt returns where a topic begins in which the group has committed nothing.
func (c *Config) startAt() kafka.Position {
	switch {
	case !c.StartAt.IsZero():
		return kafka.Position{Kind: kafka.AtTime, Time: c.StartAt}
	case c.Start == "latest":
		return kafka.Position{Kind: kafka.Latest}
	default:
		return kafka.Position{Kind: kafka.Earliest}
	}
}

// commitStart commits the start position before the member joins. It returns
// nil when ctx ends, and an error that waiting does not help.
func (g *Group) commitStart(ctx context.Context) error {
	from := g.cfg.startAt()
	if from.Kind == kafka.Earliest {
		return nil // the same as for partitions that are added later
	}
	for failure := g.tryStart(ctx, from); failure != nil; failure = g.tryStart(ctx, from) {
		if failure.Permanent {
			return failure
		}
		select {
		case <-ctx.Done():
			return nil
		default:
			g.problems.add(reasonStart, failure)
		}
		select {
		case <-time.After(time.Second + time.Duration(rand.Int64N(int64(time.Second)))):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// tryStart is one attempt of commitStart.
func (g *Group) tryStart(ctx context.Context, from kafka.Position) *kafka.Error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	begun, err := g.cluster.commitStart(ctx, from)
	var failure *kafka.Error
	switch {
	case err == nil:
		g.problems.clear(reasonStart)
		if begun > 0 {
			g.log.Info("start position committed", zap.Stringer("start", from), zap.Int("partitions", begun))
		}
		return nil
	case errors.As(err, &failure):
		return failure
	default:
		return g.conn.Explain("committing the start position", err, kafka.Request{})
	}
}

// commitStart commits from for all partitions of those topics in which the group
// has no committed offset. It returns how many partitions begin there: none while
// the group has members, as the first of them did it for all of them.
func (c *Cluster) commitStart(ctx context.Context, from kafka.Position) (int, error) {
	found, err := c.Topics(ctx)
	if err != nil {
		return 0, err
	}
	// Also what was committed for a deleted topic of that name: the new one is then
	// read from its start, see startOffsets, which skips nothing.
	committed, err := c.AllCommits(ctx, c.cfg.Group, c.cfg.Topics)
	if err != nil {
		return 0, err
	}
	var fresh []string
	for _, t := range found {
		if t.Exists && !slices.ContainsFunc(slices.Collect(maps.Keys(committed)), func(tp topicPartition) bool { return tp.Topic == t.Name }) {
			fresh = append(fresh, t.Name)
		}
	}
	if len(fresh) == 0 {
		return 0, nil
	}
	logs, err := c.Spans(ctx, fresh...)
	if err != nil {
		return 0, retryMissing(err)
	}
	at, err := c.Find(ctx, from, fresh, logs)
	if err != nil {
		return 0, retryMissing(err)
	}
	// Another member may have been faster, and have delivered since.
	if committed, err = c.AllCommits(ctx, c.cfg.Group, fresh); err != nil {
		return 0, err
	}
	for tp := range committed {
		maps.DeleteFunc(at, func(other topicPartition, _ int64) bool { return other.Topic == tp.Topic })
	}
	if len(at) == 0 {
		return 0, nil
	}
	err = c.CommitOutside(ctx, c.cfg.Group, at)
	if errors.Is(err, kafka.ErrHasMembers) {
		return 0, nil
	}
	return len(at), err
}

// retryMissing makes the failure of a missing topic one to try again: the topic
// existed a moment ago. A topic that does not exist is not waited for.
func retryMissing(err error) error {
	var failure *kafka.Error
	if errors.As(err, &failure) && errors.Is(failure.Err, kafka.ErrNoTopic) {
		again := *failure
		again.Permanent = false
		return &again
	}
	return err
}

// offsetsFetched keeps the topic ids that the offsets of newly assigned partitions
// were committed under for startOffsets, which the client calls next in the same
// goroutine.
func (g *Group) offsetsFetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	defer panics.Catch(g.panicked)
	g.fetched = make(map[topicPartition][16]byte)
	for _, group := range resp.Groups {
		for _, t := range group.Topics {
			for _, p := range t.Partitions {
				if p.Metadata == nil || p.Offset < 0 {
					continue
				}
				if id, ok := kafka.CommittedTopicID(*p.Metadata); ok {
					g.fetched[partitionKey(g.topicName(t), p.Partition)] = id
				}
			}
		}
	}
	return nil
}

// startOffsets returns where newly assigned partitions begin. Those that are
// without a committed offset, or whose offset was committed for a topic of this
// name that has been deleted since, begin at the start of their log, which
// commitEarly commits: until then, whoever is given the partition begins there.
func (g *Group) startOffsets(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	defer panics.Catch(g.panicked)
	defer g.noteBegins(offsets)
	if err := g.dropDeleted(ctx, offsets); err != nil {
		return nil, err
	}
	var fresh []topicPartition
	var topics []string
	for topic, partitions := range offsets {
		for id, o := range partitions {
			if o.EpochOffset().Offset < 0 {
				fresh = append(fresh, partitionKey(topic, id))
				topics = append(topics, topic)
			}
		}
	}
	if len(fresh) == 0 {
		return offsets, nil
	}
	slices.Sort(topics)
	asking, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	starts, err := g.cluster.Adm.ListStartOffsets(asking, slices.Compact(topics)...)
	if err != nil && len(starts) == 0 {
		// The client asks again when it can, and finds the same position. The
		// first batch commits one.
		return offsets, ctx.Err()
	}
	g.mu.Lock()
	for _, tp := range fresh {
		if o, ok := starts.Lookup(tp.Topic, tp.Partition); ok && o.Err == nil {
			offsets[tp.Topic][tp.Partition] = kgo.NewOffset().At(o.Offset)
			g.starts[tp] = o.Offset
		}
	}
	g.mu.Unlock()
	select {
	case g.begun <- struct{}{}:
	default:
	}
	return offsets, nil
}

// noteBegins keeps where newly assigned partitions begin. The client's own
// CommittedOffsets has 0 for one that begins without an offset.
func (g *Group) noteBegins(offsets map[string]map[int32]kgo.Offset) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for topic, partitions := range offsets {
		for id, o := range partitions {
			tp := partitionKey(topic, id)
			delete(g.begins, tp)
			if at := o.EpochOffset(); at.Offset >= 0 {
				g.begins[tp] = at
			}
		}
	}
}

// dropDeleted turns offsets that were committed for a topic that has been
// deleted into no offset.
func (g *Group) dropDeleted(ctx context.Context, offsets map[string]map[int32]kgo.Offset) error {
	var topics []string
	for tp := range g.fetched {
		topics = append(topics, tp.Topic)
	}
	if len(topics) == 0 {
		return nil
	}
	slices.Sort(topics)
	ids, err := g.currentTopicIDs(ctx, slices.Compact(topics))
	if err != nil {
		return err
	}
	dropped := make(map[string]int)
	for tp, under := range g.fetched {
		now, known := ids[tp.Topic]
		if _, ours := offsets[tp.Topic][tp.Partition]; ours && known && now != under {
			offsets[tp.Topic][tp.Partition] = kgo.NewOffset().AtStart()
			dropped[tp.Topic]++
		}
	}
	for topic, n := range dropped {
		g.log.Warn("the committed offsets belong to a topic of this name that was deleted; reading the new topic from its start",
			zap.String("topic", topic), zap.Int("partitions", n))
	}
	return nil
}

// errNothingToCommit is returned when nothing is left of a commit.
var errNothingToCommit = errors.New("nothing is left to commit")

// commitStarts commits the start positions that are not committed yet, of
// partitions that are still ours and have nothing later to commit.
func (g *Group) commitStarts(ctx context.Context, cl *kgo.Client) {
	at := make(map[string]map[int32]kgo.EpochOffset)
	member, _ := cl.GroupMetadata()
	g.mu.Lock()
	for tp, offset := range g.starts {
		if p := g.parts[tp]; p == nil || p.member != member || p.marked.Load() >= 0 {
			delete(g.starts, tp)
			continue
		}
		if at[tp.Topic] == nil {
			at[tp.Topic] = make(map[int32]kgo.EpochOffset)
		}
		at[tp.Topic][tp.Partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	g.mu.Unlock()
	if len(at) == 0 {
		return
	}
	cl.CommitOffsetsSync(kgo.PreCommitFnContext(ctx, g.dropPassed), at, func(cl *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if errors.Is(err, errNothingToCommit) {
			return
		}
		if !deletedTopic(resp) {
			g.committed(cl, req, resp, err)
		}
		if err != nil || resp == nil {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 || p.ErrorCode == kerr.UnknownTopicID.Code {
					delete(g.starts, partitionKey(t.Topic, p.Partition))
				}
			}
		}
	})
}

// dropPassed leaves out of a commit of start positions, as it is sent, the
// partitions that have delivered since, or that the membership which commits was
// not given: it would set them, or their new owner, back. The client may hold the
// commit until it has joined again.
func (g *Group) dropPassed(req *kmsg.OffsetCommitRequest) error {
	return g.drop(req, func(tp topicPartition) bool {
		p := g.parts[tp]
		return p == nil || p.member != req.MemberID || p.marked.Load() >= 0
	})
}

// dropForeign leaves out of a commit, as it is sent, the partitions that an earlier
// membership was given. The group has forgotten that one, and a new owner may have
// committed more. The client may hold a commit until it has joined again, also that of
// a stop.
func (g *Group) dropForeign(req *kmsg.OffsetCommitRequest) error {
	if len(req.Topics) == 0 {
		return nil // of a deleted topic, which the client answers itself
	}
	return g.drop(req, func(tp topicPartition) bool {
		p := cmp.Or(g.parts[tp], g.ended[tp])
		return p != nil && req.MemberID != "" && p.member != req.MemberID
	})
}

// drop leaves out of a commit what which returns true for. It is called with mu held.
func (g *Group) drop(req *kmsg.OffsetCommitRequest, which func(tp topicPartition) bool) (err error) {
	defer panics.Catch(func(crash error) {
		g.panicked(crash)
		err = crash // or all of them would be committed
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range req.Topics {
		t := &req.Topics[i]
		t.Partitions = slices.DeleteFunc(t.Partitions, func(rp kmsg.OffsetCommitRequestTopicPartition) bool {
			return which(partitionKey(t.Topic, rp.Partition))
		})
	}
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.OffsetCommitRequestTopic) bool { return len(t.Partitions) == 0 })
	if len(req.Topics) == 0 {
		return errNothingToCommit
	}
	return kafka.AddTopicIDs(req)
}

// deletedTopic reports whether a start position was refused because its topic has
// been deleted since, which watch reports.
func deletedTopic(resp *kmsg.OffsetCommitResponse) bool {
	if resp == nil {
		return false
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == kerr.UnknownTopicID.Code {
				return true
			}
		}
	}
	return false
}

// firstCommitGap is how long after the first commit of an assignment the second
// one comes. Each further gap is twice as long, up to commitInterval: one member
// sends at most ten commits a second, however many partitions it is given.
const firstCommitGap = 100 * time.Millisecond

// markedFirst notes that a partition has marked its first batch.
func (g *Group) markedFirst() {
	select {
	case g.first <- struct{}{}:
	default: // one commit covers both
	}
}

// commitEarly commits the first batch of an assignment as soon as it is marked, and
// the next ones in growing gaps, so that a process that keeps crashing makes
// progress. It also commits the start positions that are left.
func (g *Group) commitEarly(ctx, outliving context.Context) error {
	again := time.NewTicker(watchInterval)
	defer again.Stop()
	for {
		select {
		case <-g.first:
			g.commitOften(ctx, outliving)
		case <-g.begun:
			g.aside(ctx, func() { g.commitStarts(outliving, g.cl) })
		case <-again.C:
			g.aside(ctx, func() { g.commitStarts(outliving, g.cl) })
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *Group) commitOften(ctx, outliving context.Context) {
	for gap := firstCommitGap; gap < commitInterval && ctx.Err() == nil; gap *= 2 {
		g.aside(ctx, func() { g.commit(outliving, g.cl) })
		select {
		case <-time.After(firstCommitGap):
		case <-ctx.Done():
		}
		select {
		case <-time.After(gap - firstCommitGap):
		case <-g.first: // of another partition
			gap = firstCommitGap / 2
		case <-ctx.Done():
		}
	}
}

// aside runs what may wait for a broker, and waits for it until ctx ends. Run waits
// for the rest when the client is closed.
func (g *Group) aside(ctx context.Context, do func()) {
	done := make(chan struct{})
	g.asides.Go(func() {
		defer close(done)
		g.guard(do)
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// unknownTries is how often a topic in which the group has committed is looked up
// before it counts as deleted: a broker may not know yet of one that was created.
const unknownTries = 20

// currentTopicIDs returns the ids of topics in which the group has committed. It
// asks until a broker answers or ctx ends. A topic that may not be looked up has
// the id that is known of it, if any, and one that does not exist has none of the
// ids that were ever committed: to begin at its start skips nothing.
func (g *Group) currentTopicIDs(ctx context.Context, topics []string) (map[string][16]byte, error) {
	for try := 1; ; try++ {
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		found, err := g.cluster.Metadata(asking, topics...)
		cancel()
		if err == nil {
			ids := g.topicIDs.current(found)
			unknown := false
			for topic, t := range found {
				switch known, ok := g.topicIDs.newest(topic); {
				case t.ErrorCode == 0:
				case t.ErrorCode != kerr.TopicAuthorizationFailed.Code:
					ids[topic], unknown = kafka.NoTopicID, true
				case ok:
					ids[topic] = known
				}
			}
			if !unknown || try >= unknownTries {
				return ids, nil
			}
		} else {
			try = 0
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("looking up the ids of topics: %w", ctx.Err())
		}
	}
}

// topicName returns the name of a topic in an answer that may hold its id alone.
func (g *Group) topicName(t kmsg.OffsetFetchResponseGroupTopic) string {
	if t.Topic != "" {
		return t.Topic
	}
	return g.topicIDs.name(kadm.TopicID(t.TopicID))
}
