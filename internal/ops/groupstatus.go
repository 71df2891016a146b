package ops

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/zerobus"
)

// Scopes of /status.
const (
	ScopeProcess = "process"
	ScopeGroup   = "group"
)

// GroupSource returns the state of the whole group. It answers within 2 seconds, also
// while neither Kafka nor a peer does. It is safe for concurrent use.
type GroupSource func(context.Context) GroupStatus

// GroupStatus is the state of a deployment over all its members at one moment, and the
// JSON of /status?scope=group. Offsets and lags that are unknown are -1.
type GroupStatus struct {
	Scope      string    `json:"scope"` // ScopeGroup
	Time       time.Time `json:"time"`
	Deployment string    `json:"deployment"`
	// Ready is false if there is a problem: a member or a peer that does not answer, an
	// integration that no member delivers, or Kafka's part is missing.
	Ready    bool                `json:"ready"`
	Problems []consumer.NotReady `json:"problems"`

	Kafka KafkaLookUp `json:"kafka"`
	// PeersConfigured is false without ops.peers: then only the process that answers is
	// in Peers, and of the other members only what Kafka knows is shown.
	PeersConfigured bool               `json:"peers_configured"`
	Peers           []Peer             `json:"peers"`
	Integrations    []GroupIntegration `json:"integrations"`
}

// KafkaLookUp is the state of the look-ups of groups in Kafka.
type KafkaLookUp struct {
	OK    bool      `json:"ok"`
	At    time.Time `json:"at,omitzero"`     // of the facts shown; zero: there are none
	Error string    `json:"error,omitempty"` // why they are missing or old
	Since time.Time `json:"since,omitzero"`  // when that began
}

// Peer is one process of the deployment.
type Peer struct {
	Address string `json:"address"` // host:port of its ops endpoints, or the name that did not resolve
	Self    bool   `json:"self"`    // the process that answers
	OK      bool   `json:"ok"`      // it answered
	Error   string `json:"error,omitempty"`
	// Since is when it was found not to answer first. It is looked up when somebody asks.
	Since    time.Time `json:"since,omitzero"`
	Version  string    `json:"version,omitempty"`
	State    string    `json:"state,omitempty"`
	Instance string    `json:"instance,omitempty"` // random id of the process
	Started  time.Time `json:"started,omitzero"`

	BufferedBytes int64        `json:"buffered_bytes"`
	BufferedLimit int64        `json:"buffered_limit_bytes"`
	Memory        memory.State `json:"memory,omitzero"`
}

// GroupIntegration is one integration over all members of its group.
type GroupIntegration struct {
	Integration string `json:"integration"`
	Name        string `json:"name"`
	Table       string `json:"table"` // empty: no member answers
	Group       string `json:"group"`
	State       string `json:"state"`           // of the group, as its coordinator names it; empty: unknown
	Protocol    string `json:"protocol"`        // consumer or classic; empty: unknown
	Error       string `json:"error,omitempty"` // why a part of what Kafka knows is missing
	// Delivering counts the members that are ready, Answering those that answer.
	Delivering int              `json:"members_delivering"`
	Answering  int              `json:"members_answering"`
	Members    []GroupMember    `json:"members"`
	Lag        int64            `json:"lag"` // over the partitions whose lag is known
	Oldest     consumer.Seconds `json:"oldest_unacked_seconds"`
	Partitions []GroupPartition `json:"partitions"`
	Totals     Totals           `json:"totals"`        // over the members that answer
	Ack        *Acks            `json:"ack,omitempty"` // the slowest of them
	Behind     float64          `json:"seconds_behind"`
	Verdict    Verdict          `json:"verdict"`
	// Ledger and History are over the members that answer.
	Ledger  consumer.LedgerStatus `json:"ledger"`
	History *History              `json:"-"`
}

// GroupMember is one member of a group.
type GroupMember struct {
	MemberID string `json:"member_id"` // empty: not joined yet
	ClientID string `json:"client_id,omitempty"`
	Host     string `json:"host,omitempty"` // address from which it reaches Kafka
	Peer     string `json:"peer,omitempty"` // address of the peer that reports it
	// Answering is nil if nobody could ask it: ops.peers is not set.
	Answering *bool `json:"answering"`
	// InGroup is false for a member that a peer reports and Kafka does not know, nil if
	// Kafka did not answer.
	InGroup    *bool `json:"in_group"`
	Partitions int   `json:"partitions"` // assigned to it

	// Of a member that answers.
	State    string              `json:"state,omitempty"`
	Ready    bool                `json:"ready"`
	NotReady []consumer.NotReady `json:"not_ready,omitempty"`
	Sink     zerobus.State       `json:"sink,omitzero"`
}

// GroupPartition is one partition of an integration.
type GroupPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"`
	End       int64  `json:"end_offset"`
	Lag       int64  `json:"lag"`
	MemberID  string `json:"member_id"` // of its owner; empty: none
	Peer      string `json:"peer,omitempty"`

	// Of a partition whose owner answers.
	State  string           `json:"state,omitempty"`
	Oldest consumer.Seconds `json:"oldest_unacked_seconds"`
	Reason string           `json:"reason,omitempty"`
	// Rejected counts the events that were rejected since its owner first had it, of Done.
	Rejected int64 `json:"events_rejected"`
	Done     int64 `json:"events_done"`
}

// PartitionOf returns what a member reports of a partition. peer is its address.
func PartitionOf(member, peer string, p consumer.PartitionStatus) GroupPartition {
	rejected := p.Ledger.DeadLettered + p.Ledger.Skipped
	return GroupPartition{Topic: p.Topic, Partition: p.Partition, Committed: p.Committed, End: p.End, Lag: p.Lag, MemberID: member, Peer: peer,
		State: p.State, Oldest: p.Oldest, Reason: p.Reason, Rejected: rejected, Done: rejected + p.Ledger.Delivered + p.Ledger.Filtered}
}

// Only returns the state as if the named integration were the only one; ok is false if
// there is none of this name.
func (s GroupStatus) Only(integration string) (only GroupStatus, ok bool) {
	only = s
	only.Integrations, only.Problems = []GroupIntegration{}, []consumer.NotReady{} // [] in JSON
	for _, i := range s.Integrations {
		if i.Integration == integration {
			only.Integrations = append(only.Integrations, i)
		}
	}
	for _, p := range s.Problems {
		if p.Integration == "" || p.Integration == integration {
			only.Problems = append(only.Problems, p)
		}
	}
	only.Ready = len(only.Problems) == 0
	return only, len(only.Integrations) > 0
}

// WriteText prints the state for people: problems with remedies first, then the peers,
// and a table of the integrations. With partitions, the members and the partitions of
// each integration follow.
func (s GroupStatus) WriteText(w io.Writer, partitions bool) error {
	t := &text{now: s.Time}
	answering := 0
	for _, p := range s.Peers {
		if p.OK {
			answering++
		}
	}
	health := "ready"
	if !s.Ready {
		health = "PROBLEMS"
	}
	t.line(health, "deployment "+orDash(s.Deployment), fmt.Sprintf("%d of %d processes answer", answering, len(s.Peers)))
	for _, p := range s.Problems {
		t.detail(strings.TrimPrefix(p.Integration+": "+p.Code, ": "), p.Text)
		t.detail("remedy", p.Remedy)
	}
	if !s.PeersConfigured {
		t.line("peers", "ops.peers is not set: the other members are shown as Kafka knows them")
	}
	switch {
	case s.Kafka.OK:
		t.line("kafka", "asked"+t.since(" %s ago", s.Kafka.At))
	case s.Kafka.At.IsZero():
		t.line("kafka", "NO ANSWER"+t.since(" for %s", s.Kafka.Since))
	default:
		t.line("kafka", "NO ANSWER"+t.since(" for %s", s.Kafka.Since)+", shown as it was"+t.since(" %s ago", s.Kafka.At))
	}
	t.table("PROCESS\tSTATE\tVERSION\tINSTANCE", func(tab io.Writer) {
		for _, p := range s.Peers {
			address := oneLine(p.Address)
			if p.Self {
				address += " (this)"
			}
			state := orDash(p.State)
			if !p.OK {
				state = "NO ANSWER"
			}
			fmt.Fprintf(tab, "%s\t%s\t%s\t%s\n", address, state, orDash(p.Version), orDash(p.Instance))
		}
	})
	t.table("INTEGRATION\tGROUP\tSTATE\tANSWERING\tDELIVERING\tPARTITIONS\tLAG\tOLDEST\tDELIVERED\tREJECTED", func(tab io.Writer) {
		for _, i := range s.Integrations {
			fmt.Fprintf(tab, "%s\t%s\t%s\t%d/%d\t%d\t%d\t%s\t%s\t%d\t%d\n", orDash(i.Integration), orDash(i.Group), orDash(i.State), i.Answering, len(i.Members),
				i.Delivering, len(i.Partitions), offset(i.Lag), oldest(time.Duration(i.Oldest)), i.Totals.RowsDelivered, i.Totals.EventsRejected)
		}
	})
	for _, i := range s.Integrations {
		if partitions {
			i.writeTables(t)
		}
	}
	_, err := w.Write(t.Bytes())
	return err
}

func (i *GroupIntegration) writeTables(t *text) {
	t.table("MEMBER\tHOST\tPROCESS\tSTATE\tPARTITIONS\tSINK", func(tab io.Writer) {
		for _, m := range i.Members {
			state := orDash(m.State)
			if m.Answering == nil {
				state = "not asked"
			} else if !*m.Answering {
				state = "NO ANSWER"
			}
			if m.InGroup != nil && !*m.InGroup {
				state += ", not in the group"
			}
			fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%d\t%s\n", orDash(m.MemberID), orDash(m.Host), orDash(m.Peer), state, m.Partitions, orDash(m.Sink.Name))
		}
	})
	for _, m := range i.Members {
		for _, r := range m.NotReady {
			t.detail(cmp.Or(m.MemberID, m.Peer)+": "+r.Code, r.Text)
			t.detail("remedy", r.Remedy)
		}
	}
	t.table("PARTITION\tSTATE\tCOMMITTED\tEND\tLAG\tOLDEST\tMEMBER", func(tab io.Writer) {
		for _, p := range i.Partitions {
			fmt.Fprintf(tab, "%s/%d\t%s\t%s\t%s\t%s\t%s\t%s", oneLine(p.Topic), p.Partition, orDash(p.State), offset(p.Committed), offset(p.End), offset(p.Lag),
				oldest(time.Duration(p.Oldest)), orDash(p.MemberID))
			if p.Reason != "" {
				fmt.Fprint(tab, "\t", oneLine(p.Reason))
			}
			fmt.Fprintln(tab)
		}
	})
}

// table prints a blank line, a heading and rows.
func (t *text) table(heading string, rows func(io.Writer)) {
	t.WriteByte('\n')
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, heading)
	rows(tab)
	_ = tab.Flush() // a bytes.Buffer accepts everything
}
