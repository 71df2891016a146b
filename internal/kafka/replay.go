package kafka

import (
	"fmt"
	"strings"
)

// ReplaySummary is what a replay does, for a report.
type ReplaySummary struct {
	Partitions []ReplayPartition `json:"partitions"`
	Totals     ReplayTotals      `json:"totals"`
}

// ReplayPartition is one partition. Counts of events are differences of offsets.
type ReplayPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed *int64 `json:"committed"` // null: none
	Target    int64  `json:"target"`
	LogStart  int64  `json:"log_start"`
	LogEnd    int64  `json:"log_end"`
	ToRead    int64  `json:"to_read"`         // from the target to the log's end
	Again     int64  `json:"delivered_again"` // delivered before, as far as the group has committed
	Skipped   int64  `json:"skipped"`         // never delivered, and skipped
	Note      string `json:"note,omitempty"`
}

// ReplayTotals are sums over partitions.
type ReplayTotals struct {
	Partitions int   `json:"partitions"`
	Changed    int   `json:"changed"`
	ToRead     int64 `json:"to_read"`
	Again      int64 `json:"delivered_again"`
	Skipped    int64 `json:"skipped"`
}

// Summarize returns the summary of what PlanReplay returned.
func Summarize(moves []Move) (r ReplaySummary) {
	for _, m := range moves {
		p := ReplayPartition{Topic: m.Topic, Partition: m.Partition, Target: m.Target, LogStart: m.LogStart, LogEnd: m.LogEnd,
			ToRead: m.LogEnd - m.Target, Again: m.Redelivered, Skipped: m.Skipped, Note: replayNote(m)}
		if m.Committed >= 0 {
			p.Committed = &m.Committed
		}
		r.Partitions = append(r.Partitions, p)
		r.Totals.Partitions++
		if m.Changed() {
			r.Totals.Changed++
		}
		r.Totals.ToRead += p.ToRead
		r.Totals.Again += m.Redelivered
		r.Totals.Skipped += m.Skipped
	}
	return r
}

// replayNote returns what is unusual about the partition.
func replayNote(m Move) string {
	var notes []string
	if m.Requested < m.LogStart {
		notes = append(notes, fmt.Sprintf("the log begins at %d: %d events before it are removed already", m.LogStart, m.LogStart-m.Requested))
	}
	if m.Requested > m.LogEnd {
		notes = append(notes, fmt.Sprintf("%d is past the log's end", m.Requested))
	}
	if m.Committed > m.LogEnd {
		notes = append(notes, "the committed offset is past the log's end: was the topic recreated?")
	}
	if !m.Changed() {
		notes = append(notes, "is there already")
	}
	return strings.Join(notes, "; ")
}

// Offsets are the changed partitions as topic/partition:from->to.
func (r *ReplaySummary) Offsets() []string {
	var all []string
	for _, p := range r.Partitions {
		if p.Committed == nil || *p.Committed != p.Target {
			all = append(all, fmt.Sprintf("%s/%d:%s->%d", p.Topic, p.Partition, p.CommittedText(), p.Target))
		}
	}
	return all
}

// CommittedText returns the committed offset; none if there is none.
func (p *ReplayPartition) CommittedText() string {
	if p.Committed == nil {
		return "none"
	}
	return fmt.Sprint(*p.Committed)
}
