package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/datafly/bridge/internal/kafka"
)

// Position names a place in the log of every partition.
type Position struct {
	Kind   PositionKind
	Time   time.Time // of AtTime
	Offset int64     // of AtOffset
}

// PositionKind tells how a [Position] is found.
type PositionKind int

// The kinds of a [Position].
const (
	Earliest PositionKind = iota // the first event the log still holds
	Latest                       // behind the last event of the log
	AtTime                       // the first event with Time or later, by the records' timestamps; Latest if there is none
	AtOffset                     // Offset itself
)

// String says what the position is, for people.
func (p Position) String() string {
	switch p.Kind {
	case Earliest:
		return "earliest"
	case Latest:
		return "latest"
	case AtTime:
		return p.Time.UTC().Format(time.RFC3339Nano)
	default:
		return "offset " + strconv.FormatInt(p.Offset, 10)
	}
}

// milli is the first millisecond that is not before the position's time:
// Kafka's timestamps have no finer grain.
func (p Position) milli() int64 {
	return p.Time.Add(time.Millisecond - 1).UnixMilli()
}

// span is what can be read of a partition's log: offsets from start up to, and
// without, end.
type span struct{ start, end int64 }

// clamp returns the offset within the log that is nearest to at.
func (s span) clamp(at int64) int64 { return min(max(at, s.start), s.end) }

// spans looks up what the logs of topics hold. A topic that does not exist, or
// a partition without a leader, is an error.
func (c *Cluster) spans(ctx context.Context, topics []string) (map[topicPartition]span, error) {
	doing := "reading offsets of " + strings.Join(topics, ", ")
	starts, err := c.listed(ctx, doing, func() (kadm.ListedOffsets, error) { return c.adm.ListStartOffsets(ctx, topics...) })
	if err != nil {
		return nil, err
	}
	ends, err := c.listed(ctx, doing, func() (kadm.ListedOffsets, error) { return c.listEnds(ctx, topics...) })
	if err != nil {
		return nil, err
	}
	all := make(map[topicPartition]span)
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok {
			all[topicPartition{end.Topic, end.Partition}] = span{start.Offset, end.Offset}
		}
	})
	return all, nil
}

var errNoTopic = errors.New("does not exist")

func (c *Cluster) listed(ctx context.Context, doing string, list func() (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
	offsets, err := list()
	if err == nil {
		err = offsets.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		for topic, partitions := range offsets {
			if !exists(partitions) {
				return nil, &KafkaError{Doing: doing, Err: fmt.Errorf("topic %s %w", topic, errNoTopic), Permanent: true,
					Remedy: "correct kafka.topics, or create the topic"}
			}
		}
	}
	if err != nil {
		return nil, c.explainTopics(ctx, doing, err)
	}
	return offsets, nil
}

// find resolves a position in every partition of logs. Offsets may lie outside
// of what can be read when the position is AtOffset and, behind an open
// transaction, when it is AtTime.
func (c *Cluster) find(ctx context.Context, at Position, topics []string, logs map[topicPartition]span) (map[topicPartition]int64, error) {
	found := make(map[topicPartition]int64, len(logs))
	var stamped kadm.ListedOffsets
	if at.Kind == AtTime {
		var err error
		stamped, err = c.listed(ctx, "looking for "+at.String()+" in "+strings.Join(topics, ", "), func() (kadm.ListedOffsets, error) {
			return c.adm.ListOffsetsAfterMilli(ctx, at.milli(), topics...)
		})
		if err != nil {
			return nil, err
		}
	}
	for tp, log := range logs {
		switch at.Kind {
		case Earliest:
			found[tp] = log.start
		case Latest:
			found[tp] = log.end
		case AtOffset:
			found[tp] = at.Offset
		case AtTime:
			o, ok := stamped.Lookup(tp.topic, tp.id)
			if !ok { // made in this moment
				o.Offset = log.end
			}
			// Not before log.end alone: events with an earlier time may follow that
			// an open transaction holds back.
			found[tp] = max(o.Offset, log.start)
		}
	}
	return found, nil
}

// commits returns what a group has committed for topics, and nothing of what it
// committed for a deleted topic of that name.
func (c *Cluster) commits(ctx context.Context, group string, topics []string) (map[topicPartition]int64, error) {
	all, err := c.allCommits(ctx, group, topics)
	if err != nil {
		return nil, err
	}
	at := make(map[topicPartition]int64, len(all))
	if len(all) == 0 {
		return at, nil
	}
	found, err := c.metadata(ctx, topics...)
	if err != nil {
		return nil, err
	}
	for tp, o := range all {
		now := found[tp.topic].TopicID // none where the broker does not know it
		if under, ok := topicIDOf(o.Metadata); !ok || now == noTopicID || now == under {
			at[tp] = o.At
		}
	}
	return at, nil
}

// allCommits returns what a group has committed for topics of these names;
// nothing when there is no such group.
func (c *Cluster) allCommits(ctx context.Context, group string, topics []string) (map[topicPartition]kadm.Offset, error) {
	doing := "reading the committed offsets of group " + group
	var offsets kadm.OffsetResponses
	err := coordinated(ctx, func() (err error) {
		offsets, err = c.adm.FetchOffsets(ctx, group)
		return err
	})
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	at := make(map[topicPartition]kadm.Offset)
	offsets.Each(func(o kadm.OffsetResponse) {
		switch {
		case !slices.Contains(topics, o.Topic):
		case o.Err != nil:
			err = errors.Join(err, fmt.Errorf("%s/%d: %w", o.Topic, o.Partition, o.Err))
		case o.At >= 0:
			at[topicPartition{o.Topic, o.Partition}] = o.Offset
		}
	})
	if err != nil {
		return nil, c.cfg.Kafka.explain(doing, err, kafka.Request{Group: group})
	}
	return at, nil
}

// commitOutside commits offsets without being a member, which the coordinator
// allows only while the group has none.
func (c *Cluster) commitOutside(ctx context.Context, group string, at map[topicPartition]int64) error {
	doing := "committing offsets of group " + group
	offsets := make(kadm.Offsets)
	for tp, offset := range at {
		// No leader epoch: the offset may be older than any that is known.
		offsets.Add(kadm.Offset{Topic: tp.topic, Partition: tp.id, At: offset, LeaderEpoch: -1})
	}
	err := coordinated(ctx, func() error {
		answers, err := c.adm.CommitOffsets(ctx, group, offsets)
		answers.Each(func(o kadm.OffsetResponse) {
			if o.Err != nil {
				err = errors.Join(err, fmt.Errorf("%s/%d: %w", o.Topic, o.Partition, o.Err))
			}
		})
		return err
	})
	if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.StaleMemberEpoch) || errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.RebalanceInProgress) {
		return &KafkaError{Doing: doing, Err: &joinedError{err}, Permanent: true, Remedy: "stop the group's members and try again"}
	}
	if err != nil {
		return c.cfg.Kafka.explain(doing, err, kafka.Request{Group: group})
	}
	return nil
}

// joinedError says that the group has members, so only they may commit.
type joinedError struct{ err error }

func (j *joinedError) Error() string {
	return "the group has members, and only they may commit: " + j.err.Error()
}
func (j *joinedError) Unwrap() error { return j.err }
