package group

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// running is a process with a member of one integration, which owns a partition of
// topic t.
func running(instance, member string, partition int32) ops.Status {
	i := ops.IntegrationStatus{
		Integration: "orders", State: ops.StateRunning, Group: "d-orders", MemberID: member, Sink: zerobus.State{Name: zerobus.Ready},
		Partitions: []consumer.PartitionStatus{{Topic: "t", Partition: partition, State: consumer.StateWriting, Committed: 5, End: 9, Lag: 4, Oldest: consumer.Seconds(3 * time.Second)}},
		Totals:     ops.Totals{RowsDelivered: 10, EventsRejected: 1},
	}
	return ops.NewStatus(ops.Status{Time: noon, Version: "v1", Deployment: "d", Instance: instance}, []ops.IntegrationStatus{i})
}

// failed is a process in which the integration does not run.
func failed(instance, state string) ops.Status {
	return ops.NewStatus(ops.Status{Time: noon, Version: "v1", Deployment: "d", Instance: instance, State: ops.StateRunning},
		[]ops.IntegrationStatus{{Integration: "orders", State: state, Group: "d-orders", Reason: "broken"}})
}

func member(id string, partitions ...int32) kafka.Member {
	m := kafka.Member{ID: id, ClientID: "bridge", Host: "/10.0.0." + id[1:], Partitions: len(partitions)}
	for _, p := range partitions {
		m.Assigned = append(m.Assigned, kafka.TopicPartition{Topic: "t", Partition: p})
	}
	return m
}

// knows is what Kafka knows of the group: partition 0 belongs to the first member, 1 to
// the second.
func knows(members ...kafka.Member) result[map[string]kafka.GroupState] {
	s := kafka.GroupState{State: "Stable", Protocol: "consumer", Members: members}
	for p := range int32(2) {
		at := kafka.GroupPartition{TopicPartition: kafka.TopicPartition{Topic: "t", Partition: p}, Committed: 100, End: 107 + int64(p)}
		if int(p) < len(members) {
			at.Owner = members[p].ID
		}
		s.Partitions = append(s.Partitions, at)
	}
	return result[map[string]kafka.GroupState]{value: map[string]kafka.GroupState{"d-orders": s}, at: noon.Add(-time.Second)}
}

func TestJoin(t *testing.T) {
	enabled := []Integration{{Name: "orders", Group: "d-orders", Topics: []string{"t"}}}
	self := answer{address: "10.0.0.1:9400", self: true}
	down := result[map[string]kafka.GroupState]{err: errors.New("no broker answers"), since: noon.Add(-time.Minute)}
	denied := knows()
	denied.value = map[string]kafka.GroupState{"d-orders": {Err: errors.New("not authorized")}}
	other := running("i9", "m9", 1)
	other.Deployment = "other"
	for _, tc := range []struct {
		name     string
		own      ops.Status
		noPeers  bool
		enabled  []Integration
		answers  []answer
		facts    result[map[string]kafka.GroupState]
		problems string // codes
		want     string // lines, after the problems, with blanks squeezed
	}{
		{
			name: "all answer", own: running("i1", "m1", 0), enabled: enabled,
			answers: []answer{self, {address: "10.0.0.2:9400", status: running("i2", "m2", 1)}}, facts: knows(member("m1", 0), member("m2", 1)),
			want: `ready deployment d, 2 of 2 processes answer
kafka asked 1s ago
10.0.0.1:9400 (this) running v1 i1
10.0.0.2:9400 running v1 i2
orders d-orders Stable 2/2 2 2 15 3s 20 2
m1 10.0.0.1 10.0.0.1:9400 running 1 ready
m2 10.0.0.2 10.0.0.2:9400 running 1 ready
t/0 writing 100 107 7 3s m1
t/1 writing 100 108 8 3s m2`,
		},
		{
			name: "without peers", own: running("i1", "m1", 0), noPeers: true, enabled: enabled, facts: knows(member("m1", 0), member("m2", 1)),
			want: `ready deployment d, 1 of 1 processes answer
peers ops.peers is not set: the other members are shown as Kafka knows them
kafka asked 1s ago
:9400 (this) running v1 i1
orders d-orders Stable 1/2 1 2 15 3s 10 1
m1 10.0.0.1 :9400 running 1 ready
m2 10.0.0.2 - not asked 1 -
t/0 writing 100 107 7 3s m1
t/1 - 100 108 8 - m2`,
		},
		{
			name: "a member was killed", own: running("i1", "m1", 0), enabled: enabled,
			answers: []answer{self, {address: "10.0.0.2:9400", err: errors.New("connection refused")}}, facts: knows(member("m1", 0), member("m2", 1)),
			problems: "peer_not_answering orders/member_not_answering",
			want: `PROBLEMS deployment d, 1 of 2 processes answer
kafka asked 1s ago
10.0.0.1:9400 (this) running v1 i1
10.0.0.2:9400 NO ANSWER - -
orders d-orders Stable 1/2 1 2 15 3s 10 1
m1 10.0.0.1 10.0.0.1:9400 running 1 ready
m2 10.0.0.2 - NO ANSWER 1 -
t/0 writing 100 107 7 3s m1
t/1 - 100 108 8 - m2`,
		},
		{
			name: "a member that Kafka does not know", own: running("i1", "m1", 0), enabled: enabled,
			answers: []answer{self, {address: "10.0.0.2:9400", status: running("i2", "m3", 1)}}, facts: knows(member("m1", 0, 1)),
			want: `ready deployment d, 2 of 2 processes answer
kafka asked 1s ago
10.0.0.1:9400 (this) running v1 i1
10.0.0.2:9400 running v1 i2
orders d-orders Stable 2/2 2 2 15 3s 20 2
m1 10.0.0.1 10.0.0.1:9400 running 2 ready
m3 - 10.0.0.2:9400 running, not in the group 1 ready
t/0 writing 100 107 7 3s m1
t/1 - 100 108 8 - -`,
		},
		{
			name: "kafka does not answer", own: running("i1", "m1", 0), enabled: enabled,
			answers: []answer{self, {address: "10.0.0.2:9400", status: running("i2", "m2", 1)}}, facts: down, problems: "kafka_unknown",
			want: `PROBLEMS deployment d, 2 of 2 processes answer
kafka NO ANSWER for 1m0s
10.0.0.1:9400 (this) running v1 i1
10.0.0.2:9400 running v1 i2
orders d-orders - 2/2 2 2 8 3s 20 2
m1 - 10.0.0.1:9400 running 1 ready
m2 - 10.0.0.2:9400 running 1 ready
t/0 writing 5 9 4 3s m1
t/1 writing 5 9 4 3s m2`,
		},
		{
			name: "the group may not be looked up", own: running("i1", "m1", 0), enabled: enabled, answers: []answer{self}, facts: denied, problems: "orders/kafka_unknown",
			want: `PROBLEMS deployment d, 1 of 1 processes answer
kafka asked 1s ago
10.0.0.1:9400 (this) running v1 i1
orders d-orders - 1/1 1 1 4 3s 10 1
m1 - 10.0.0.1:9400 running 1 ready
t/0 writing 5 9 4 3s m1`,
		},
		{
			name: "no member delivers", own: failed("i1", ops.StateFailed), enabled: enabled,
			answers: []answer{self, {address: "10.0.0.2:9400", status: failed("i2", ops.StateFailed)}}, facts: knows(), problems: "orders/not_delivering",
			want: `PROBLEMS deployment d, 2 of 2 processes answer
kafka asked 1s ago
10.0.0.1:9400 (this) running v1 i1
10.0.0.2:9400 running v1 i2
orders d-orders Stable 2/2 0 2 15 - 0 0
- - 10.0.0.1:9400 failed, not in the group 0 -
- - 10.0.0.2:9400 failed, not in the group 0 -
t/0 - 100 107 7 - -
t/1 - 100 108 8 - -`,
		},
		{
			name: "others may deliver", own: failed("i1", ops.StateFailed), noPeers: true, enabled: enabled, facts: knows(member("m2", 0, 1)),
			want: `ready deployment d, 1 of 1 processes answer
peers ops.peers is not set: the other members are shown as Kafka knows them
kafka asked 1s ago
:9400 (this) running v1 i1
orders d-orders Stable 1/2 0 2 15 - 0 0
m2 10.0.0.2 - not asked 2 -
- - :9400 failed, not in the group 0 -
t/0 - 100 107 7 - m2
t/1 - 100 108 8 - -`,
		},
		{
			name: "another deployment", own: running("i1", "m1", 0), enabled: enabled, answers: []answer{self, {address: "10.0.0.9:9400", status: other}}, facts: knows(member("m1", 0, 1)),
			problems: "peer_not_answering",
			want: `PROBLEMS deployment d, 1 of 2 processes answer
kafka asked 1s ago
10.0.0.1:9400 (this) running v1 i1
10.0.0.9:9400 NO ANSWER v1 i9
orders d-orders Stable 1/1 1 2 15 3s 10 1
m1 10.0.0.1 10.0.0.1:9400 running 2 ready
t/0 writing 100 107 7 3s m1
t/1 - 100 108 8 - -`,
		},
		{
			name: "only a peer has the integration", own: failed("i1", ops.StateDisabled),
			answers: []answer{self, {address: "10.0.0.2:9400", status: running("i2", "m2", 1)}}, facts: result[map[string]kafka.GroupState]{at: noon},
			want: `ready deployment d, 2 of 2 processes answer
kafka asked 0s ago
10.0.0.1:9400 (this) running v1 i1
10.0.0.2:9400 running v1 i2
orders d-orders - 1/1 1 1 4 3s 10 1
m2 - 10.0.0.2:9400 running 1 ready
t/1 writing 5 9 4 3s m2`,
		},
		{
			name: "disabled everywhere", own: failed("i1", ops.StateDisabled), answers: []answer{self}, facts: result[map[string]kafka.GroupState]{at: noon},
			want: `ready deployment d, 1 of 1 processes answer
kafka asked 0s ago
10.0.0.1:9400 (this) running v1 i1`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := join(tc.own, ":9400", tc.enabled, !tc.noPeers, tc.answers, tc.facts)
			var codes []string
			for _, p := range got.Problems {
				codes = append(codes, strings.TrimPrefix(p.Integration+"/"+p.Code, "/"))
			}
			if problems := strings.Join(codes, " "); problems != tc.problems || got.Ready != (tc.problems == "") {
				t.Errorf("got ready %v and problems %q, want %q", got.Ready, problems, tc.problems)
			}
			var text strings.Builder
			if err := got.WriteText(&text, true); err != nil {
				t.Fatal(err)
			}
			var lines []string
			for line := range strings.Lines(text.String()) {
				fields := strings.Fields(line)
				if len(fields) > 0 && !strings.HasPrefix(line, "  ") && !strings.Contains(" PROCESS INTEGRATION MEMBER PARTITION ", " "+fields[0]+" ") {
					lines = append(lines, strings.Join(fields, " "))
				}
			}
			if text := strings.Join(lines, "\n"); text != tc.want {
				t.Errorf("got\n%s\nwant\n%s", text, tc.want)
			}
		})
	}
}

// The verdict, the figures and the ledger of a group are those of its members together.
func TestVerdictAndFiguresAreJoined(t *testing.T) {
	one, two := running("i1", "m1", 0), running("i2", "m2", 1)
	change := func(s *ops.Status, rows float32, v ops.Verdict, ack float64) {
		i := &s.Integrations[0]
		i.Table, i.Name, i.Verdict, i.Ack = "a.b.c", "Orders", &v, &ops.Acks{P99: ack}
		i.History = &ops.History{End: noon, StepSeconds: 15, Rows: ops.Series{rows}}
		i.Ledger = consumer.LedgerStatus{Ledger: consumer.Ledger{Read: 7}, Unaccounted: 1}
		i.Partitions[0].Ledger = consumer.LedgerStatus{Ledger: consumer.Ledger{Delivered: 6, DeadLettered: 2, Skipped: 1, Filtered: 1}}
		i.Partitions[0].Behind = consumer.Seconds(time.Duration(rows) * time.Second)
	}
	change(&one, 3, ops.Verdict{State: "delivering", Level: "ok"}, 0.1)
	change(&two, 4, ops.Verdict{State: "falling behind", Level: "warning", Text: "slow"}, 0.4)
	one.Integrations[0].History.StepSeconds, one.Integrations[0].History.Rows = 5, ops.Series{2, 3, 4} // its own, in short steps
	self := answer{address: "10.0.0.1:9400", self: true}
	joined := func(answers ...answer) ops.GroupIntegration {
		return join(one, "10.0.0.1:9400", nil, true, append(answers, self), knows(member("m1", 0), member("m2", 1))).Integrations[0]
	}
	got := joined(answer{address: "10.0.0.2:9400", status: two})
	if got.Name != "Orders" || got.Table != "a.b.c" || got.Verdict.Text != "slow" || got.Ack.P99 != 0.4 || got.Behind != 4 || got.Ledger.Read != 14 || got.Ledger.Unaccounted != 2 {
		t.Errorf("got %+v, want the worse verdict, the slower acknowledgements and the sums", got)
	}
	if h := got.History; h == nil || h.StepSeconds != 15 || len(h.Rows) != 1 || h.Rows[0] != 7 {
		t.Errorf("got %+v, want 7 rows per second in one step of 15 seconds", h)
	}
	if p := got.Partitions[1]; p.Rejected != 3 || p.Done != 10 || p.Committed != 100 || p.End != 108 || p.State != consumer.StateWriting {
		t.Errorf("got %+v, want 3 of 10 rejected, and Kafka's offsets", p)
	}
	// A member of an older version has no verdict, and one that is gone has none either.
	two.Integrations[0].Verdict = nil
	if got := joined(answer{address: "10.0.0.2:9400", status: two}); got.Verdict.State != "delivering" {
		t.Errorf("got %+v with a member of an older version, want delivering", got.Verdict)
	}
	if got := joined(answer{address: "10.0.0.2:9400", err: errors.New("refused")}); got.Verdict.State != "not answering" || got.Verdict.Level != "warning" {
		t.Errorf("got %+v, want a member that does not answer", got.Verdict)
	}
}
