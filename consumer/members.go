package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/datafly/bridge/internal/kafka"
)

// Member is one member of a group, as the group's coordinator knows it.
type Member struct {
	ID         string // given by the coordinator
	InstanceID string // of a static member; else empty
	ClientID   string // kafka.client_id
	Host       string // address it connects from
	Partitions int    // assigned to it now
}

// Members returns who is in a group, of either protocol; none when the group is
// empty or does not exist. A static member that has stopped is in its group
// until its session times out.
func (c *Cluster) Members(ctx context.Context, group string) (members []Member, err error) {
	err = coordinated(ctx, func() error {
		members, err = c.members(ctx, group)
		return err
	})
	if err != nil {
		return nil, c.cfg.Kafka.explain("looking up the members of group "+group, err, kafka.Request{Group: group})
	}
	return members, nil
}

func (c *Cluster) members(ctx context.Context, group string) (members []Member, err error) {
	described, err := c.adm.DescribeConsumerGroups(ctx, group)
	if errors.Is(err, kerr.GroupAuthorizationFailed) {
		return nil, err
	}
	// Any other failure is that of a broker that knows no such groups, or one
	// that asking the classic way meets again.
	if g, ok := described[group]; err == nil && ok && g.Err == nil {
		for _, m := range g.Members {
			n := 0
			m.Assignment.Each(func(string, int32) { n++ })
			members = append(members, Member{ID: m.MemberID, InstanceID: text(m.InstanceID), ClientID: m.ClientID, Host: m.ClientHost, Partitions: n})
		}
		return members, nil
	}

	classic, err := c.adm.DescribeGroups(ctx, group)
	var g kadm.DescribedGroup
	if err == nil {
		g = classic[group]
		err = g.Err
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, m := range g.Members {
		n := 0
		if assigned, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range assigned.Topics {
				n += len(t.Partitions)
			}
		}
		members = append(members, Member{ID: m.MemberID, InstanceID: text(m.InstanceID), ClientID: m.ClientID, Host: m.ClientHost, Partitions: n})
	}
	return members, nil
}

// coordinated repeats ask while the group's coordinator is on its way: the first
// group of a cluster has the topic of offsets made, and an elected one loads.
func coordinated(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if !errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.CoordinatorLoadInProgress) && !errors.Is(err, kerr.NotCoordinator) {
			return err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
