package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Replay says which committed offsets of a group are to be set to what.
type Replay struct {
	Group string
	To    Position
	// Topics to set; they must exist.
	Topics []string
	// Partitions of the only topic in Topics; none means all.
	Partitions []int32
}

// Move is what a [Replay] does to one partition. Offsets stand for events:
// compaction and transactions leave offsets without any, so the numbers of
// events are upper bounds.
type Move struct {
	Topic     string
	Partition int32
	Committed int64 // by the group; -1 none
	Asked     int64 // where the position is; may lie outside the log
	Target    int64 // Asked, within what the log holds
	LogStart  int64 // first offset the log still holds
	LogEnd    int64 // offset after the last
	Again     int64 // events delivered before that will be delivered again
	Skipped   int64 // events never delivered that never will be
}

// PlanReplay works out what r would do to each partition, by topic and
// partition. It changes nothing.
func (c *Cluster) PlanReplay(ctx context.Context, r Replay) ([]Move, error) {
	logs, err := c.spans(ctx, r.Topics)
	if err != nil {
		return nil, err
	}
	if len(r.Partitions) > 0 {
		chosen := make(map[topicPartition]span)
		for _, id := range r.Partitions {
			tp := topicPartition{r.Topics[0], id}
			log, ok := logs[tp]
			if !ok {
				return nil, fmt.Errorf("topic %s has no partition %d; it has %d, counted from 0", tp.topic, id, len(logs))
			}
			chosen[tp] = log
		}
		logs = chosen
	}
	asked, err := c.find(ctx, r.To, r.Topics, logs)
	if err != nil {
		return nil, err
	}
	committed, err := c.commits(ctx, r.Group, r.Topics)
	if err != nil {
		return nil, err
	}
	begun := make(map[string]bool) // topics in which the group has committed
	for tp := range committed {
		begun[tp.topic] = true
	}
	moves := make([]Move, 0, len(logs))
	for tp, log := range logs {
		m := Move{Topic: tp.topic, Partition: tp.id, Committed: -1, Asked: asked[tp], Target: log.clamp(asked[tp]), LogStart: log.start, LogEnd: log.end}
		if at, ok := committed[tp]; ok {
			m.Committed = at
		}
		start := c.cfg.Start
		if begun[tp.topic] {
			start = "earliest" // of a partition that was added later
		}
		m.count(start)
		moves = append(moves, m)
	}
	slices.SortFunc(moves, func(a, b Move) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return moves, nil
}

// count works out what the move means for a group that begins at start where
// it has not committed.
func (m *Move) count(start string) {
	log := span{m.LogStart, m.LogEnd}
	next := m.LogStart // where the group would go on
	switch {
	case m.Committed >= 0 && m.Committed <= m.LogEnd:
		next = log.clamp(m.Committed)
	case m.Committed < 0 && start == "latest":
		next = m.LogEnd
	}
	if m.Committed >= 0 {
		m.Again = max(log.clamp(m.Committed)-m.Target, 0)
	}
	m.Skipped = max(m.Target-next, 0)
}

// Changed tells whether the group's offset becomes another.
func (m Move) Changed() bool { return m.Committed != m.Target }

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
// them back and compares. A group that does not exist is made. The error is an
// *[ActiveGroupError] when the group has members.
func (c *Cluster) CommitReplay(ctx context.Context, group string, moves []Move) error {
	members, err := c.Members(ctx, group)
	if err != nil {
		return err
	}
	if len(members) > 0 {
		return &ActiveGroupError{Group: group, Members: members}
	}
	at := make(map[topicPartition]int64, len(moves))
	var topics []string
	for _, m := range moves {
		at[topicPartition{m.Topic, m.Partition}] = m.Target
		if !slices.Contains(topics, m.Topic) {
			topics = append(topics, m.Topic)
		}
	}
	if err := c.commitOutside(ctx, group, at); err != nil {
		return err
	}
	now, err := c.commits(ctx, group, topics)
	if err != nil {
		return fmt.Errorf("the offsets are committed and could not be read back: %w", err)
	}
	var wrong []error
	for _, m := range moves {
		tp := topicPartition{m.Topic, m.Partition}
		if got, ok := now[tp]; !ok || got != m.Target {
			wrong = append(wrong, fmt.Errorf("%s/%d: committed offset reads %d, not %d; a member joined meanwhile: stop it and try again", m.Topic, m.Partition, got, m.Target))
		}
	}
	return errors.Join(wrong...)
}
