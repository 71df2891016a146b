package group

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/ops"
)

// process is one process that answered.
type process struct {
	address string
	status  ops.Status
}

// joining is the state while it is joined.
type joining struct {
	ops.GroupStatus
	processes []process
	complete  bool // every member could be asked: ops.peers is set
	known     bool // Kafka answered
}

// join returns the state of the group from the status of this process, which listens at
// address, the answers of its peers and what Kafka knows of the groups.
func join(own ops.Status, address string, enabled []Integration, peers bool, answers []answer, facts result[map[string]kafka.GroupState]) ops.GroupStatus {
	j := &joining{complete: peers, known: !facts.at.IsZero()}
	j.GroupStatus = ops.GroupStatus{
		Scope: ops.ScopeGroup, Time: own.Time, Deployment: own.Deployment, PeersConfigured: peers,
		Problems: []consumer.NotReady{}, Integrations: []ops.GroupIntegration{},
		Kafka: ops.KafkaLookUp{OK: facts.err == nil && j.known, At: facts.at, Since: facts.since},
	}
	if facts.err != nil {
		j.Kafka.Error = facts.err.Error()
		j.problem("", "kafka_unknown", "Kafka's part is missing or old: "+facts.err.Error(), "see whether the brokers answer; the rest of this answer comes from the members")
	}
	if i := slices.IndexFunc(answers, func(a answer) bool { return a.self }); i >= 0 {
		address = answers[i].address
	}
	j.add(answer{address: address, self: true, status: own})
	for _, a := range answers {
		if !a.self {
			j.add(a)
		}
	}
	for _, i := range j.integrations(enabled) {
		j.Integrations = append(j.Integrations, j.integration(i, facts.value))
	}
	j.Ready = len(j.Problems) == 0
	return j.GroupStatus
}

func (j *joining) problem(integration, code, text, remedy string) {
	j.Problems = append(j.Problems, consumer.NotReady{Integration: integration, Code: code, Text: text, Remedy: remedy})
}

// add adds a process. One of another deployment is named and not used.
func (j *joining) add(a answer) {
	if a.err == nil && a.status.Deployment != j.Deployment {
		a.err = fmt.Errorf("it belongs to deployment %s; correct ops.peers, or give all members the same deployment", a.status.Deployment)
	}
	p := ops.Peer{Address: a.address, Self: a.self, OK: a.err == nil, Since: a.since, Version: a.status.Version, State: a.status.State, Instance: a.status.Instance,
		Started: a.status.Started, BufferedBytes: a.status.BufferedBytes, BufferedLimit: a.status.BufferedLimit, Memory: a.status.Memory}
	if a.err != nil {
		p.Error = a.err.Error()
		j.problem("", "peer_not_answering", a.address+": "+p.Error, "")
	} else {
		j.processes = append(j.processes, process{a.address, a.status})
	}
	j.Peers = append(j.Peers, p)
}

// integrations returns those that the configuration of this process enables and those
// that a process runs, by name.
func (j *joining) integrations(enabled []Integration) []Integration {
	all := slices.Clone(enabled)
	for _, p := range j.processes {
		for _, i := range p.status.Integrations {
			if i.State != ops.StateDisabled && !slices.ContainsFunc(all, func(have Integration) bool { return have.Name == i.Integration }) {
				all = append(all, Integration{Name: i.Integration, Group: i.Group})
			}
		}
	}
	slices.SortFunc(all, func(a, b Integration) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (j *joining) integration(i Integration, facts map[string]kafka.GroupState) ops.GroupIntegration {
	state, found := facts[i.Group]
	g := ops.GroupIntegration{Integration: i.Name, Group: i.Group, State: state.State, Protocol: state.Protocol, Members: []ops.GroupMember{}, Partitions: []ops.GroupPartition{}, Lag: -1}
	switch {
	case state.Err != nil:
		g.Error = state.Err.Error()
	case j.known && !found:
		g.Error = "not looked up yet: it is not enabled in the configuration of the process that answers, or was a moment ago"
	}
	if state.Err != nil {
		j.problem(i.Name, "kafka_unknown", "a part of what Kafka knows is missing: "+g.Error, "")
	}
	for _, m := range state.Members {
		member := ops.GroupMember{MemberID: m.ID, ClientID: m.ClientID, Host: strings.TrimPrefix(m.Host, "/"), InGroup: new(true), Partitions: m.Partitions}
		if j.complete {
			member.Answering = new(false)
		}
		g.Members = append(g.Members, member)
	}
	for _, p := range state.Partitions {
		at := ops.GroupPartition{Topic: p.Topic, Partition: p.Partition, Committed: p.Committed, End: p.End, Lag: -1, MemberID: p.Owner}
		if p.Committed >= 0 && p.End >= 0 {
			at.Lag = max(p.End-p.Committed, 0)
		}
		g.Partitions = append(g.Partitions, at)
	}
	partitions := make(map[kafka.TopicPartition]int, len(g.Partitions)) // where they are
	for n, p := range g.Partitions {
		partitions[kafka.TopicPartition{Topic: p.Topic, Partition: p.Partition}] = n
	}
	unknown := false // a member may deliver that cannot be asked
	var verdicts []ops.Verdict
	var histories []*ops.History
	for n, p := range j.processes {
		for _, s := range p.status.Integrations {
			if s.Integration != i.Name {
				continue
			}
			g.Name, g.Table = s.Name, s.Table
			if s.State == ops.StateDisabled {
				continue
			}
			report(&g, partitions, p.address, s, state.State != "")
			if s.Verdict == nil { // of an older version
				s.Verdict = new(ops.Judge(p.status.Time, &s))
			}
			verdicts = append(verdicts, *s.Verdict)
			if s.History != nil && n == 0 { // its own, in short steps
				s.History = s.History.Coarse(ops.PeerHistory)
			}
			histories = append(histories, s.History)
		}
	}
	for _, m := range g.Members {
		switch {
		case m.Answering == nil:
			unknown = true
		case *m.Answering:
			g.Answering++
		default:
			j.problem(i.Name, "member_not_answering", fmt.Sprintf("member %s (%s) does not answer; it has %d partitions", m.MemberID, m.Host, m.Partitions),
				"see the log of the process at that address; when it has ended, its partitions are assigned to others after kafka.session_timeout")
		}
		if m.Ready {
			g.Delivering++
		}
	}
	if g.Delivering == 0 && !unknown {
		j.problem(i.Name, "not_delivering", "no member delivers", "see the reasons of its members: bridge status --scope group --integration "+i.Name)
	}
	for _, p := range g.Partitions {
		if p.Lag >= 0 {
			g.Lag = max(g.Lag, 0) + p.Lag
		}
		g.Oldest = max(g.Oldest, p.Oldest)
	}
	silent := 0
	for _, m := range g.Members {
		if m.Answering != nil && !*m.Answering {
			silent++
		}
	}
	g.Name, g.History, g.Verdict = cmp.Or(g.Name, i.Name), ops.JoinHistories(histories), ops.JoinVerdicts(verdicts, silent)
	return g
}

// report adds what one process reports of an integration. known is true if Kafka knows
// the members.
func report(g *ops.GroupIntegration, partitions map[kafka.TopicPartition]int, address string, s ops.IntegrationStatus, known bool) {
	at := slices.IndexFunc(g.Members, func(m ops.GroupMember) bool { return m.MemberID == s.MemberID && s.MemberID != "" })
	if at < 0 {
		m := ops.GroupMember{MemberID: s.MemberID, Partitions: len(s.Partitions)}
		if known {
			m.InGroup = new(false)
		}
		at = len(g.Members)
		g.Members = append(g.Members, m)
	}
	m := &g.Members[at]
	m.Peer, m.Answering, m.State, m.Ready, m.NotReady, m.Sink = address, new(true), s.State, s.Ready, s.NotReady, s.Sink
	g.Totals.Add(s.Totals)
	g.Ledger = consumer.LedgerStatus{Ledger: g.Ledger.Add(s.Ledger.Ledger), Unaccounted: g.Ledger.Unaccounted + s.Ledger.Unaccounted}
	if s.Ack != nil && (g.Ack == nil || s.Ack.P99 > g.Ack.P99) {
		g.Ack = s.Ack
	}
	g.Behind = max(g.Behind, s.SecondsBehind())
	for _, p := range s.Partitions {
		tp := kafka.TopicPartition{Topic: p.Topic, Partition: p.Partition}
		at, ok := partitions[tp]
		if !ok {
			at = len(g.Partitions)
			partitions[tp] = at
			g.Partitions = append(g.Partitions, ops.GroupPartition{Topic: p.Topic, Partition: p.Partition, Committed: -1, End: -1, Lag: -1, MemberID: s.MemberID})
		}
		part := &g.Partitions[at]
		if part.MemberID != s.MemberID {
			continue // it is moving to another member
		}
		all := ops.PartitionOf(s.MemberID, address, p)
		if part.Committed >= 0 || part.End >= 0 { // Kafka knows better
			all.Committed, all.End, all.Lag = part.Committed, part.End, part.Lag
		}
		*part = all
	}
}
