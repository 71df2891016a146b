package deadletter

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/plaintext"
)

// Filter selects dead letters; a zero field selects all. Match counts in Resolved.
type Filter struct {
	Codes      []string
	Column     string
	From, To   time.Time // of FailedAt; To is not included
	Partitions []int32   // of the source topic
	All        bool      // resolved ones, too
	Resolved   int       // among those that the other fields select
}

// Match reports whether the dead letter is selected.
func (f *Filter) Match(r *Record) bool {
	switch {
	case len(f.Codes) > 0 && !slices.Contains(f.Codes, r.Code),
		f.Column != "" && f.Column != r.Column,
		!f.From.IsZero() && r.FailedAt.Before(f.From),
		!f.To.IsZero() && (r.FailedAt.IsZero() || !r.FailedAt.Before(f.To)),
		len(f.Partitions) > 0 && (r.Original.Topic == "" || !slices.Contains(f.Partitions, r.Original.Partition)):
		return false
	}
	if r.Resolved {
		f.Resolved++
		return f.All
	}
	return true
}

// Name is what ParseName reads: partition/offset, with the dead-letter topic in front
// where there are several.
func (r *Record) Name(topics int) string {
	name := fmt.Sprintf("%d/%d", r.Partition, r.Offset)
	if topics > 1 {
		name = r.Topic + "/" + name
	}
	return name
}

// ParseName reads the name of a dead letter; topic is empty where it has none.
func ParseName(name string) (topic string, partition int32, offset int64, err error) {
	parts := strings.Split(name, "/")
	if len(parts) == 3 {
		topic, parts = parts[0], parts[1:]
	}
	if len(parts) == 2 {
		p, perr := strconv.ParseUint(parts[0], 10, 31)
		o, oerr := strconv.ParseUint(parts[1], 10, 63)
		if perr == nil && oerr == nil {
			return topic, int32(p), int64(o), nil
		}
	}
	return "", 0, 0, fmt.Errorf("%q names no dead letter; use partition/offset as in 0/17, or topic/0/17 where there are several dead-letter topics", plaintext.ShortLine(name, 300))
}

// codeUnreadable is the code of dead letters without an error code.
const codeUnreadable = "unreadable"

// MaxReason is how much of a reason is shown, in bytes.
const MaxReason = 2000

// Listed is a dead letter without its event, for a report. Its texts are fit for a
// terminal.
type Listed struct {
	Name        string          `json:"dead_letter"` // what dlq show takes
	Topic       string          `json:"topic"`
	Integration string          `json:"integration,omitempty"`
	Source      string          `json:"source"` // topic/partition/offset
	Events      consumer.Events `json:"events"` // those that failed, as runs: "0,3-5"
	Code        string          `json:"code"`
	Column      string          `json:"column,omitempty"`
	Reason      string          `json:"reason"`
	Attempts    int             `json:"attempts"`         // in all copies
	Copies      int             `json:"copies,omitempty"` // dead letters of the event
	Parts       int             `json:"parts,omitempty"`  // records of the dead letter, if several
	FailedAt    *time.Time      `json:"failed_at,omitempty"`
	Fault       string          `json:"fault,omitempty"` // why it cannot be redriven
	Resolved    bool            `json:"resolved,omitempty"`
	// Delivered are the events that a redrive delivered.
	Delivered consumer.Events `json:"delivered,omitempty"`
	Replaced  bool            `json:"replaced,omitempty"` // by a newer copy

	partition int32
	offset    int64
}

// Listed describes the dead letter, which is of one of so many dead-letter topics.
func (r *Record) Listed(topics int) Listed {
	x := Listed{Name: r.Name(topics), Topic: r.Topic, Integration: plaintext.ShortLine(r.Integration, 64), Source: "unknown", Events: r.Events,
		Code: plaintext.ShortLine(cmp.Or(r.Code, codeUnreadable), 64), Column: plaintext.ShortLine(r.Column, 255), Reason: plaintext.ShortLine(r.Reason, MaxReason),
		Attempts: r.Attempts, Copies: r.Copies, Parts: r.Parts, Fault: plaintext.ShortLine(r.Fault, MaxReason), Resolved: r.Resolved, Delivered: r.Delivered,
		Replaced: r.Replaced, partition: r.Partition, offset: r.Offset}
	if r.Original.Topic != "" {
		x.Source = fmt.Sprintf("%s/%d/%d", plaintext.ShortLine(r.Original.Topic, 249), r.Original.Partition, r.Original.Offset)
	}
	if at := r.FailedAt; !at.IsZero() {
		x.FailedAt = &at
	}
	return x
}

// Group counts the dead letters of one integration, outcome, code and column. A list
// has times, a redrive has an outcome and an example.
type Group struct {
	Integration string     `json:"integration,omitempty"`
	Outcome     string     `json:"outcome,omitempty"` // rejected, filtered or failed
	Code        string     `json:"code,omitempty"`
	Column      string     `json:"column,omitempty"`
	Count       int        `json:"dead_letters"`
	First       *time.Time `json:"first,omitempty"` // failed at
	Last        *time.Time `json:"last,omitempty"`
	Example     string     `json:"example,omitempty"` // a dead letter
	Reason      string     `json:"reason,omitempty"`
}

type groupKey struct{ integration, outcome, code, column string }

// Groups are the groups of a report.
type Groups map[groupKey]*Group

// maxGroups bounds the groups that headers of others can make.
const maxGroups = 1000

// Count counts a dead letter and returns its group, and whether that is new.
func (g Groups) Count(integration, outcome, code, column string) (group *Group, added bool) {
	key := groupKey{integration, outcome, plaintext.ShortLine(cmp.Or(code, codeUnreadable), 64), plaintext.ShortLine(column, 255)}
	if g[key] == nil && len(g) >= maxGroups {
		key = groupKey{code: "others"}
	}
	if added = g[key] == nil; added {
		g[key] = &Group{Integration: key.integration, Outcome: key.outcome, Code: key.code, Column: key.column}
	}
	g[key].Count++
	return g[key], added
}

// Sorted returns the largest groups first.
func (g Groups) Sorted() []*Group {
	return slices.SortedFunc(maps.Values(g), func(a, b *Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Integration, b.Integration), cmp.Compare(a.Outcome, b.Outcome),
			cmp.Compare(a.Code, b.Code), cmp.Compare(a.Column, b.Column))
	})
}

// List counts dead letters and keeps the newest of them.
type List struct {
	Matched     int      `json:"matched"`
	Older       int      `json:"-"` // further dead letters of the same events
	Groups      []*Group `json:"groups"`
	DeadLetters []Listed `json:"dead_letters"`

	limit, topics int
	groups        Groups
}

// NewList returns a list that keeps up to limit dead letters of so many topics.
func NewList(limit, topics int) *List {
	return &List{DeadLetters: []Listed{}, limit: limit, topics: topics, groups: Groups{}}
}

// Add adds a dead letter that [Reader.Each] handed over.
func (s *List) Add(r *Record) {
	s.Matched++
	g, _ := s.groups.Count(r.Integration, "", r.Code, r.Column)
	if at := r.FailedAt; !at.IsZero() {
		if g.First == nil || at.Before(*g.First) {
			g.First = &at
		}
		if g.Last == nil || at.After(*g.Last) {
			g.Last, g.Example, g.Reason = &at, r.Name(s.topics), plaintext.ShortLine(r.Reason, MaxReason)
		}
	}
	s.Older += max(r.Copies-1, 0)
	if s.DeadLetters = append(s.DeadLetters, r.Listed(s.topics)); len(s.DeadLetters) >= 2*s.limit {
		s.newest()
	}
}

// Done sorts the list: the largest groups and the newest dead letters first.
func (s *List) Done() {
	s.newest()
	s.Groups = s.groups.Sorted()
}

// newest keeps the newest dead letters. Those without a time are the oldest.
func (s *List) newest() {
	failedAt := func(x Listed) int64 {
		if x.FailedAt == nil {
			return math.MinInt64
		}
		return x.FailedAt.UnixMilli()
	}
	slices.SortStableFunc(s.DeadLetters, func(a, b Listed) int {
		return cmp.Or(cmp.Compare(failedAt(b), failedAt(a)), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.partition, b.partition), cmp.Compare(b.offset, a.offset))
	})
	n := min(len(s.DeadLetters), s.limit)
	clear(s.DeadLetters[n:])
	s.DeadLetters = s.DeadLetters[:n]
}
