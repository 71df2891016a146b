package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Position is a place in the log of every partition.
type Position struct {
	Kind   PositionKind
	Time   time.Time // of AtTime
	Offset int64     // of AtOffset
}

// PositionKind is how a [Position] is found.
type PositionKind int

// The kinds of a [Position].
const (
	Earliest PositionKind = iota // the first event in the log
	Latest                       // after the last event of the log
	AtTime                       // the first event with Time or later, by the records' timestamps; Latest if there is none
	AtOffset                     // Offset itself
)

// String returns the position for people.
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

// Span is what can be read of a partition's log: offsets from Start up to, and
// without, End.
type Span struct{ Start, End int64 }

// clamp returns the offset within the log that is nearest to at.
func (s Span) clamp(at int64) int64 { return min(max(at, s.Start), s.End) }

// ListEnds looks up the offset after the last record that can be read: under
// read_committed the last stable offset.
func (c *Client) ListEnds(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
	if c.Isolation == IsolationUncommitted {
		return c.Adm.ListEndOffsets(ctx, topics...)
	}
	return c.Adm.ListCommittedOffsets(ctx, topics...)
}

// ErrNoTopic is behind the error of Spans and Find for a topic that does not exist.
var ErrNoTopic = errors.New("does not exist")

// Spans looks up the spans of topics. A topic that does not exist, or a partition
// without a leader, is an error.
func (c *Client) Spans(ctx context.Context, topics ...string) (map[TopicPartition]Span, error) {
	op := "reading offsets of " + strings.Join(topics, ", ")
	starts, err := c.listed(ctx, op, topics, c.Adm.ListStartOffsets)
	if err != nil {
		return nil, err
	}
	ends, err := c.listed(ctx, op, topics, c.ListEnds)
	if err != nil {
		return nil, err
	}
	all := make(map[TopicPartition]Span)
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok {
			all[TopicPartition{end.Topic, end.Partition}] = Span{start.Offset, end.Offset}
		}
	})
	return all, nil
}

func (c *Client) listed(ctx context.Context, op string, topics []string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
	offsets, err := list(ctx, topics...)
	if err == nil {
		err = offsets.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		for topic, partitions := range offsets {
			if !Exists(partitions) {
				return nil, &Error{Op: op, Err: fmt.Errorf("topic %s %w", topic, ErrNoTopic), Permanent: true,
					Remedy: "correct kafka.topics, or create the topic"}
			}
		}
	}
	if err != nil {
		return nil, c.ExplainTopics(ctx, op, err, topics...)
	}
	return offsets, nil
}

// Exists reports whether the topic of listed offsets exists, even without leaders.
func Exists(partitions map[int32]kadm.ListedOffset) bool {
	for _, o := range partitions {
		if !errors.Is(o.Err, kerr.UnknownTopicOrPartition) && o.Partition >= 0 {
			return true
		}
	}
	return false
}

// Find resolves a position in every partition of spans. Offsets may lie outside
// of what can be read when the position is AtOffset and, beyond an open
// transaction, when it is AtTime.
func (c *Client) Find(ctx context.Context, at Position, topics []string, spans map[TopicPartition]Span) (map[TopicPartition]int64, error) {
	found := make(map[TopicPartition]int64, len(spans))
	var stamped kadm.ListedOffsets
	if at.Kind == AtTime {
		var err error
		stamped, err = c.listed(ctx, "looking for "+at.String()+" in "+strings.Join(topics, ", "), topics, func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
			// The first millisecond that is not before it: timestamps have no finer grain.
			return c.Adm.ListOffsetsAfterMilli(ctx, at.Time.Add(time.Millisecond-1).UnixMilli(), topics...)
		})
		if err != nil {
			return nil, err
		}
	}
	for tp, log := range spans {
		switch at.Kind {
		case Earliest:
			found[tp] = log.Start
		case Latest:
			found[tp] = log.End
		case AtOffset:
			found[tp] = at.Offset
		case AtTime:
			o, ok := stamped.Lookup(tp.Topic, tp.Partition)
			if !ok { // created at this moment
				o.Offset = log.End
			}
			// Beyond log.End too: an open transaction may hold back events with an
			// earlier time that follow.
			found[tp] = max(o.Offset, log.Start)
		}
	}
	return found, nil
}

// Commits returns what a group has committed for topics, without what it committed
// for a deleted topic of that name.
func (c *Client) Commits(ctx context.Context, group string, topics []string) (map[TopicPartition]int64, error) {
	all, err := c.AllCommits(ctx, group, topics)
	if err != nil {
		return nil, err
	}
	at := make(map[TopicPartition]int64, len(all))
	if len(all) == 0 {
		return at, nil
	}
	found, err := c.Metadata(ctx, topics...)
	if err != nil {
		return nil, err
	}
	for tp, o := range all {
		if currentTopic(o.Metadata, found[tp.Topic].TopicID) {
			at[tp] = o.At
		}
	}
	return at, nil
}

// AllCommits returns what a group has committed for topics of these names, deleted
// ones included; nothing when there is no such group.
func (c *Client) AllCommits(ctx context.Context, group string, topics []string) (map[TopicPartition]kadm.Offset, error) {
	var offsets kadm.OffsetResponses
	err := Coordinated(ctx, func() (err error) {
		offsets, err = c.Adm.FetchOffsets(ctx, group)
		return err
	})
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	at := make(map[TopicPartition]kadm.Offset)
	offsets.Each(func(o kadm.OffsetResponse) {
		switch {
		case !slices.Contains(topics, o.Topic):
		case o.Err != nil:
			err = errors.Join(err, fmt.Errorf("%s/%d: %w", o.Topic, o.Partition, o.Err))
		case o.At >= 0:
			at[TopicPartition{o.Topic, o.Partition}] = o.Offset
		}
	})
	if err != nil {
		return nil, c.Explain("reading the committed offsets of group "+group, err, Request{Group: group})
	}
	return at, nil
}

// ErrHasMembers is behind the error of CommitOutside for a group that has members:
// only they may commit.
var ErrHasMembers = errors.New("the group has members, and only they may commit")

// CommitOutside commits offsets without being a member, which the coordinator
// allows only while the group has none.
func (c *Client) CommitOutside(ctx context.Context, group string, at map[TopicPartition]int64) error {
	op := "committing offsets of group " + group
	offsets := make(kadm.Offsets)
	for tp, offset := range at {
		// No leader epoch: the offset may be older than any that is known.
		offsets.Add(kadm.Offset{Topic: tp.Topic, Partition: tp.Partition, At: offset, LeaderEpoch: -1})
	}
	err := Coordinated(ctx, func() error {
		answers, err := c.Adm.CommitOffsets(ctx, group, offsets)
		answers.Each(func(o kadm.OffsetResponse) {
			if o.Err != nil {
				err = errors.Join(err, fmt.Errorf("%s/%d: %w", o.Topic, o.Partition, o.Err))
			}
		})
		return err
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.StaleMemberEpoch), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.RebalanceInProgress):
		return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrHasMembers, err), Permanent: true, Remedy: "stop the group's members and try again"}
	}
	return c.Explain(op, err, Request{Group: group})
}

// Replay is which committed offsets of a group to set to what.
type Replay struct {
	Group string
	To    Position
	// Topics to set; they must exist.
	Topics []string
	// Partitions of the only topic in Topics; none means all.
	Partitions []int32
	// Start is kafka.start: where the group begins in a topic without a commit.
	Start string
}

// Move is what a [Replay] does to one partition. Numbers of events are upper
// bounds, counted in offsets: compaction and transactions leave offsets without
// events.
type Move struct {
	Topic       string
	Partition   int32
	Committed   int64 // by the group; -1 none
	Requested   int64 // where the position is; may lie outside the log
	Target      int64 // Requested, within the log
	LogStart    int64 // first offset in the log
	LogEnd      int64 // offset after the last
	Redelivered int64 // events delivered before that will be delivered again
	Skipped     int64 // events that have not been delivered and never will be
}

// Changed reports whether the group's offset changes.
func (m Move) Changed() bool { return m.Committed != m.Target }

// ErrNoPartition is behind the error of PlanReplay for a partition that the topic does not
// have.
var ErrNoPartition = errors.New("no partition")

// PlanReplay returns what r would do to each partition, by topic and partition.
// It changes nothing.
func (c *Client) PlanReplay(ctx context.Context, r Replay) ([]Move, error) {
	spans, err := c.Spans(ctx, r.Topics...)
	if err != nil {
		return nil, err
	}
	if len(r.Partitions) > 0 {
		chosen := make(map[TopicPartition]Span)
		for _, id := range r.Partitions {
			tp := TopicPartition{r.Topics[0], id}
			log, ok := spans[tp]
			if !ok {
				return nil, fmt.Errorf("topic %s has %w %d; it has %d, counted from 0", tp.Topic, ErrNoPartition, id, len(spans))
			}
			chosen[tp] = log
		}
		spans = chosen
	}
	requested, err := c.Find(ctx, r.To, r.Topics, spans)
	if err != nil {
		return nil, err
	}
	committed, err := c.Commits(ctx, r.Group, r.Topics)
	if err != nil {
		return nil, err
	}
	started := make(map[string]bool) // topics in which the group has committed
	for tp := range committed {
		started[tp.Topic] = true
	}
	moves := make([]Move, 0, len(spans))
	for tp, log := range spans {
		m := Move{Topic: tp.Topic, Partition: tp.Partition, Committed: -1, Requested: requested[tp], Target: log.clamp(requested[tp]), LogStart: log.Start, LogEnd: log.End}
		next := log.Start // where the group would resume
		if at, ok := committed[tp]; ok {
			m.Committed, m.Redelivered = at, max(log.clamp(at)-m.Target, 0)
			if at <= log.End {
				next = log.clamp(at)
			}
		} else if r.Start == "latest" && !started[tp.Topic] { // else it was added later
			next = log.End
		}
		m.Skipped = max(m.Target-next, 0)
		moves = append(moves, m)
	}
	slices.SortFunc(moves, func(a, b Move) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return moves, nil
}

// ActiveGroupError refuses a replay of a group that has members: they would
// commit over it.
type ActiveGroupError struct {
	Group   string
	Members []Member
}

func (e *ActiveGroupError) Error() string {
	return fmt.Sprintf("group %s is in use (members: %d), and they would commit over the new offsets; stop them first", e.Group, len(e.Members))
}

// CommitReplay commits the targets of moves for a group without members, reads
// them back and compares. A group that does not exist is created. The error is an
// *[ActiveGroupError] when the group has members.
func (c *Client) CommitReplay(ctx context.Context, group string, moves []Move) error {
	members, err := c.Members(ctx, group)
	if err != nil {
		return err
	}
	if len(members) > 0 {
		return &ActiveGroupError{Group: group, Members: members}
	}
	at := make(map[TopicPartition]int64, len(moves))
	var topics []string
	for _, m := range moves {
		at[TopicPartition{m.Topic, m.Partition}] = m.Target
		if !slices.Contains(topics, m.Topic) {
			topics = append(topics, m.Topic)
		}
	}
	if err := c.CommitOutside(ctx, group, at); err != nil {
		return err
	}
	committed, err := c.Commits(ctx, group, topics)
	if err != nil {
		return fmt.Errorf("the offsets are committed and could not be read back: %w", err)
	}
	var wrong []error
	for _, m := range moves {
		if got, ok := committed[TopicPartition{m.Topic, m.Partition}]; !ok || got != m.Target {
			wrong = append(wrong, fmt.Errorf("%s/%d: committed offset reads %d, not %d; a member joined meanwhile: stop it and try again", m.Topic, m.Partition, got, m.Target))
		}
	}
	return errors.Join(wrong...)
}
