package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Member is one member of a group, as the group's coordinator knows it.
type Member struct {
	ID         string `json:"member_id"`             // given by the coordinator
	InstanceID string `json:"instance_id,omitempty"` // of a static member; else empty
	ClientID   string `json:"client_id"`             // kafka.client_id
	Host       string `json:"host"`                  // address it connects from
	Partitions int    `json:"partitions"`            // assigned to it now

	Assigned []TopicPartition `json:"-"` // those partitions
}

// Members returns the members of a group, of either protocol; none when the group
// is empty or does not exist. A static member that has stopped is in its group
// until its session times out.
func (c *Client) Members(ctx context.Context, group string) ([]Member, error) {
	var found described
	err := Coordinated(ctx, func() error {
		found = c.describe(ctx, nil, group)[group]
		return found.err
	})
	if err != nil {
		return nil, c.Explain("looking up the members of group "+group, err, Request{Group: group})
	}
	return found.members, nil
}

// GroupQuery names a group and the topics it reads.
type GroupQuery struct {
	Group  string
	Topics []string
}

// GroupState is a group as the brokers know it.
type GroupState struct {
	// State is that of the coordinator, such as Stable, Empty, or Dead for a group
	// that does not exist; empty if it could not be looked up.
	State    string
	Protocol string // "consumer" or "classic"; empty if State is
	Members  []Member
	// Partitions are those of the topics, by topic and partition.
	Partitions []GroupPartition
	// Err is why a part of it is missing; each part has an [*Error] with a remedy.
	Err error
}

// GroupPartition is where a group stands in a partition. Offsets that are unknown
// are -1.
type GroupPartition struct {
	TopicPartition
	Committed int64  // -1 also where the group has committed nothing
	End       int64  // offset after the last record that can be read
	Owner     string // id of the member it is assigned to; empty: none
}

// Groups looks up groups, of either protocol, in the order of the queries: a few
// requests to each broker, however many groups there are. A group that may not be
// looked up has an Err of its own. The error is that nothing was found out.
func (c *Client) Groups(ctx context.Context, queries []GroupQuery) ([]GroupState, error) {
	groups, topics := []string{}, []string{}
	for _, q := range queries {
		groups, topics = append(groups, q.Group), append(topics, q.Topics...)
	}
	slices.Sort(topics)
	topics = slices.Compact(topics)
	if len(groups) == 0 {
		return nil, nil
	}
	meta, err := c.Metadata(ctx, topics...)
	if err != nil {
		return nil, err
	}
	var (
		wait    sync.WaitGroup
		members map[string]described
		commits kadm.FetchOffsetsResponses
		ends    kadm.ListedOffsets
		endsErr error
	)
	ids := make(map[[16]byte]string, len(meta))
	for name, t := range meta {
		ids[t.TopicID] = name
	}
	wait.Go(func() { members = c.describe(ctx, ids, groups...) })
	wait.Go(func() { commits = c.Adm.FetchManyOffsets(ctx, groups...) })
	wait.Go(func() { ends, endsErr = c.ListEnds(ctx, topics...) })
	wait.Wait()

	states := make([]GroupState, 0, len(queries))
	for _, q := range queries {
		d, fetched := members[q.Group], commits[q.Group]
		s := GroupState{State: d.state, Protocol: d.protocol, Members: d.members}
		fail := func(op string, err error, r Request) {
			if err != nil {
				s.Err = errors.Join(s.Err, c.Explain(op, err, r))
			}
		}
		fail("looking up the members of group "+q.Group, d.err, Request{Group: q.Group})
		if !errors.Is(fetched.Err, kerr.GroupIDNotFound) {
			fail("reading the committed offsets of group "+q.Group, fetched.Err, Request{Group: q.Group})
		}
		for _, topic := range q.Topics {
			fail("looking up topic "+topic, kerr.ErrorForCode(meta[topic].ErrorCode), Request{Topic: topic})
			listed := endsErr
			for _, p := range meta[topic].Partitions {
				at := GroupPartition{TopicPartition: TopicPartition{topic, p.Partition}, Committed: -1, End: -1}
				if end, ok := ends.Lookup(topic, p.Partition); ok && end.Err == nil {
					at.End = end.Offset
				} else if ok {
					listed = cmp.Or(listed, end.Err)
				}
				if o, ok := fetched.Fetched.Lookup(topic, p.Partition); ok && o.Err == nil && currentTopic(o.Metadata, meta[topic].TopicID) {
					at.Committed = o.At
				}
				s.Partitions = append(s.Partitions, at)
			}
			fail("reading the end offsets of topic "+topic, listed, Request{Topic: topic})
		}
		s.assign()
		states = append(states, s)
	}
	return states, nil
}

// assign sorts the partitions and sets their owners. A partition that is assigned
// and not in a topic of the query is added.
func (s *GroupState) assign() {
	owners := make(map[TopicPartition]string)
	for _, m := range s.Members {
		for _, tp := range m.Assigned {
			owners[tp] = m.ID
		}
	}
	for i := range s.Partitions {
		p := &s.Partitions[i]
		p.Owner = owners[p.TopicPartition]
		delete(owners, p.TopicPartition)
	}
	for tp, owner := range owners {
		s.Partitions = append(s.Partitions, GroupPartition{TopicPartition: tp, Committed: -1, End: -1, Owner: owner})
	}
	slices.SortFunc(s.Partitions, func(a, b GroupPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}

// Protocols of a group.
const (
	protocolConsumer = "consumer" // KIP-848
	protocolClassic  = "classic"
)

// described is the answer of a coordinator about one group.
type described struct {
	state, protocol string
	members         []Member
	err             error
}

// describe asks the coordinators of groups, first for groups of the consumer
// protocol. A failure for one group leaves the others. topics has the names of
// topics that an answer names by id only.
func (c *Client) describe(ctx context.Context, topics map[[16]byte]string, groups ...string) map[string]described {
	found := make(map[string]described, len(groups))
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = groups
	for _, shard := range c.RequestSharded(ctx, req) {
		resp, ok := shard.Resp.(*kmsg.ConsumerGroupDescribeResponse)
		if shard.Err != nil || !ok {
			continue // an old broker, or the classic request fails as well
		}
		for _, g := range resp.Groups {
			switch err := kerr.ErrorForCode(g.ErrorCode); {
			case err == nil:
				found[g.Group] = describedConsumer(g, topics)
			case errors.Is(err, kerr.GroupAuthorizationFailed):
				found[g.Group] = described{err: err}
			}
		}
	}
	classic := kmsg.NewPtrDescribeGroupsRequest()
	for _, group := range groups {
		if _, ok := found[group]; !ok {
			classic.Groups = append(classic.Groups, group)
		}
	}
	if len(classic.Groups) == 0 {
		return found
	}
	for _, shard := range c.RequestSharded(ctx, classic) {
		resp, ok := shard.Resp.(*kmsg.DescribeGroupsResponse)
		if shard.Err != nil || !ok {
			for _, group := range shard.Req.(*kmsg.DescribeGroupsRequest).Groups {
				found[group] = described{err: cmp.Or(shard.Err, error(kerr.UnknownServerError))}
			}
			continue
		}
		for _, g := range resp.Groups {
			found[g.Group] = describedClassic(g)
		}
	}
	for _, group := range classic.Groups {
		if _, ok := found[group]; !ok {
			found[group] = described{err: fmt.Errorf("the coordinator did not answer about it: %w", kerr.UnknownServerError)}
		}
	}
	return found
}

func describedConsumer(g kmsg.ConsumerGroupDescribeResponseGroup, topics map[[16]byte]string) described {
	d := described{state: g.State, protocol: protocolConsumer}
	for _, m := range g.Members {
		member := Member{ID: m.MemberID, InstanceID: deref(m.InstanceID), ClientID: m.ClientID, Host: m.ClientHost}
		for _, t := range m.Assignment.TopicPartitions {
			member.assign(cmp.Or(t.Topic, topics[t.TopicID]), t.Partitions)
		}
		d.members = append(d.members, member)
	}
	return d
}

func describedClassic(g kmsg.DescribeGroupsResponseGroup) described {
	d := described{state: g.State, protocol: protocolClassic}
	err := kerr.ErrorForCode(g.ErrorCode)
	if errors.Is(err, kerr.GroupIDNotFound) {
		d.state, err = "Dead", nil // what brokers before Kafka 4 answer
	}
	if err != nil {
		return described{err: err}
	}
	for _, m := range g.Members {
		member := Member{ID: m.MemberID, InstanceID: deref(m.InstanceID), ClientID: m.ClientID, Host: m.ClientHost}
		var assigned kmsg.ConsumerMemberAssignment
		if assigned.ReadFrom(m.MemberAssignment) == nil { // it is empty while the group rebalances
			for _, t := range assigned.Topics {
				member.assign(t.Topic, t.Partitions)
			}
		}
		d.members = append(d.members, member)
	}
	return d
}

func (m *Member) assign(topic string, partitions []int32) {
	for _, p := range partitions {
		m.Assigned = append(m.Assigned, TopicPartition{topic, p})
	}
	m.Partitions = len(m.Assigned)
}
