package consumer

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Status is what the group is doing, at one moment.
type Status struct {
	MemberID      string
	Running       bool      // the poll loop is alive
	Polled        time.Time // when the poll loop last came round; while the budget is spent it stands still
	BufferedBytes int64
	BufferedLimit int64
	LastCommit    time.Time // zero before the first
	Partitions    []PartitionStatus
	// Ledger is the sum over all partitions this process ever owned.
	Ledger   LedgerStatus
	NotReady []NotReady
}

// NotReady is one reason why events are not delivered.
type NotReady struct {
	Code   string `json:"code"` // from a closed set, for machines
	Text   string `json:"text"`
	Remedy string `json:"remedy"` // what the operator can do
}

// LedgerStatus is a ledger and the number of events and offsets that it does not
// account for, over all partitions: anything but 0 is a fault of the bridge.
type LedgerStatus struct {
	Ledger
	Imbalance int64 `json:"imbalance"`
}

// PartitionStatus is one assigned partition. Offsets are -1 where they are not
// known.
type PartitionStatus struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	State     string    `json:"state"` // one of the State constants
	Since     time.Time `json:"-"`
	Paused    bool      `json:"paused"`         // fetches are paused: it holds more than its share while memory is short
	Committed int64     `json:"committed"`      // offset a new owner would begin at
	Marked    int64     `json:"marked"`         // offset after the last delivered event and those behind it that hold none
	End       int64     `json:"end_offset"`     // offset after the last one that can be read
	Lag       int64     `json:"lag"`            // offsets to read and deliver until End
	Pending   int       `json:"pending_events"` // records polled and not delivered yet
	Buffered  int64     `json:"buffered_bytes"` // of them
	Oldest    Seconds   `json:"oldest_unacked_seconds"`
	Reason    string    `json:"reason,omitempty"` // why it is blocked
	Rows      int64     `json:"rows_delivered"`   // since the partition was assigned
	// Ledger accounts for every event since this process first owned it.
	Ledger LedgerStatus `json:"ledger"`
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

// Status takes a snapshot. It is safe to call from any goroutine and never
// waits for a Write or a broker.
func (g *Group) Status() Status {
	now := time.Now()
	s := Status{
		Running:       g.running.Load(),
		Polled:        time.Unix(0, g.polled.Load()),
		BufferedBytes: g.budget.own.Load(),
		BufferedLimit: g.budget.limit,
	}
	var committed map[string]map[int32]kgo.EpochOffset
	g.commits.mu.Lock()
	s.LastCommit = g.commits.last
	g.commits.mu.Unlock()
	if g.running.Load() {
		s.MemberID, _ = g.cl.GroupMetadata()
		committed = g.cl.CommittedOffsets()
	}
	if s.MemberID == "" {
		s.NotReady = append(s.NotReady, NotReady{Code: reasonMember, Text: "not a member of group " + g.cfg.Group + " yet", Remedy: "wait for the first rebalance; if it lasts, check that the brokers are up and the group is authorised"})
	}

	g.mu.Lock()
	parts := make([]*partition, 0, len(g.parts))
	for _, p := range g.parts {
		parts = append(parts, p)
	}
	for _, a := range g.accounts {
		l := a.snapshot()
		s.Ledger.Ledger = s.Ledger.Add(l)
		s.Ledger.Imbalance += l.Imbalance()
	}
	g.mu.Unlock()
	for _, p := range parts {
		ps := p.status(now)
		if at, ok := committed[p.topic][p.id]; ok {
			ps.Committed = at.Offset
			if ps.Marked < 0 && ps.End >= 0 { // nothing came since it was assigned
				ps.Lag = max(ps.End-at.Offset, 0)
			}
		}
		ps.measure()
		s.Partitions = append(s.Partitions, ps)
		if ps.State == StateBlocked {
			c := p.state.Load()
			s.NotReady = append(s.NotReady, NotReady{Code: reasonParts, Text: c.reason, Remedy: c.remedy})
		}
	}
	slices.SortFunc(s.Partitions, func(a, b PartitionStatus) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	if why, is := g.stuckReason(now); is {
		s.NotReady = append(s.NotReady, why)
	}
	for code, e := range g.trouble.list() {
		s.NotReady = append(s.NotReady, NotReady{Code: code, Text: e.Doing + ": " + e.Err.Error(), Remedy: e.Remedy})
	}
	slices.SortFunc(s.NotReady, func(a, b NotReady) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Text, b.Text))
	})
	return s
}

func (p *partition) status(now time.Time) PartitionStatus {
	c := p.state.Load()
	s := PartitionStatus{
		Topic: p.topic, Partition: p.id, State: c.name, Since: c.since, Reason: c.reason, Committed: -1,
		Marked: p.marked.Load(), End: p.end.Load(), Lag: -1, Oldest: Seconds(p.oldest(now)), Rows: p.delivered.Load(),
	}
	l := p.books.snapshot()
	s.Ledger = LedgerStatus{l, l.Imbalance()}
	p.mu.Lock()
	s.Paused, s.Pending, s.Buffered = p.paused, p.events, p.held
	if p.stopped {
		s.State = StateDraining
	}
	first := int64(-1)
	if len(p.pending) > 0 {
		first = p.pending[0].recs[0].Offset
	}
	p.mu.Unlock()
	if s.Marked < 0 {
		s.Marked = first // nothing delivered yet: what we hold is where we are
	}
	s.measure()
	return s
}

// measure fills the lag. Before the first delivery the committed offset is where
// the partition stands.
func (s *PartitionStatus) measure() {
	at := s.Marked
	if at < 0 {
		at = s.Committed
	}
	if s.End >= 0 && at >= 0 {
		s.Lag = max(s.End-at, 0)
	}
}
