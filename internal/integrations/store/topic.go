package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// How old the last look at the topics may be, for who follows them and for a change. If
// they had a problem, both look again.
const followVerified, writeVerified = time.Hour, time.Minute

// Verify looks at both topics and at the permissions without writing a record: policies,
// partitions, transactions, and what can be read of the store. Topics that do not exist
// yet are no problem if they may be created.
func (s *Store) Verify(ctx context.Context) *Problem {
	if err := s.check(ctx, -1); err != nil {
		var p *Problem
		if !errors.As(err, &p) {
			p = s.problemOf(err, kafka.Read)
		}
		return p
	}
	state, err := s.fold(ctx, true)
	if err != nil && state.Problem == nil {
		return s.problemOf(err, kafka.Read)
	}
	return state.Problem
}

// check verifies the topics if that was not done within maxAge, or found a problem. The
// error is a *Problem.
func (s *Store) check(ctx context.Context, maxAge time.Duration) error {
	s.mu.Lock()
	found, due := s.topics, s.topics != nil || s.o.Now().Sub(s.verified) > maxAge
	s.mu.Unlock()
	if due {
		problem, err := s.verify(ctx)
		if err != nil {
			problem = s.problemOf(err, kafka.Describe)
		}
		if problem != nil && problem.Code == Unreachable {
			return problem // nothing was found out about the topics
		}
		s.mu.Lock()
		s.topics, s.verified, found = problem, s.o.Now(), problem
		s.mu.Unlock()
	}
	if found != nil {
		return found
	}
	return nil
}

func (s *Store) verify(ctx context.Context) (*Problem, error) {
	cl, err := s.connected()
	if err != nil {
		return nil, err
	}
	for _, topic := range []string{s.o.Topic, s.audit} {
		found, err := s.describe(ctx, cl, topic)
		if err != nil {
			return nil, err
		}
		if !found.exists {
			if err := s.create(ctx, cl, topic, true); err != nil {
				return s.problemOf(err, kafka.Create), nil
			}
			continue
		}
		if found.partitions != 1 {
			return s.wrongPartitions(topic, found.partitions), nil
		}
		if p := s.permitted(cl, topic, found.operations); p != nil {
			return p, nil
		}
		if p := s.policy(ctx, cl, topic, s.cleanup(topic)); p != nil {
			return p, nil
		}
	}
	// Only the fence shows whether transactions are allowed. A writer that it overtakes
	// begins again.
	t, err := s.fence(ctx)
	if again, ok := errors.AsType[*againError](err); ok {
		return nil, again.err
	}
	if err != nil {
		return s.problemOf(err, kafka.Write), nil
	}
	t.cl.Close()
	return nil, nil
}

// permitted looks at what the broker allows on a topic.
func (s *Store) permitted(cl *kafka.Client, topic string, operations int32) *Problem {
	if operations == math.MinInt32 {
		return nil // not known
	}
	for _, need := range []struct {
		op   kafka.Operation
		bit  int
		code string
	}{{kafka.Read, 3, Unreadable}, {kafka.Write, 4, Unwritable}} {
		if operations&(1<<need.bit) == 0 {
			e := cl.Explain("looking up topic "+topic, kerr.TopicAuthorizationFailed, kafka.Request{Topic: topic, Operation: need.op})
			return &Problem{Code: need.code, Reason: fmt.Sprintf("the bridge has no permission %s on topic %s", need.op, topic), Remedy: e.Remedy}
		}
	}
	return nil
}

func (s *Store) wrongPartitions(topic string, n int) *Problem {
	return &Problem{Code: WrongPolicy, Reason: fmt.Sprintf("topic %s has %d partitions, and a store has 1", topic, n),
		Remedy: "export the integrations (bridge integrations export), delete the topic, and import them again (bridge integrations import)"}
}

// cleanup returns the cleanup.policy that a topic must have.
func (s *Store) cleanup(topic string) string {
	if topic == s.audit {
		return "delete"
	}
	return "compact"
}

// policy compares the cleanup policy of a topic. Where the bridge may not read it, nothing
// is known.
func (s *Store) policy(ctx context.Context, cl *kafka.Client, topic, want string) *Problem {
	found, err := cl.Adm.DescribeTopicConfigs(ctx, topic)
	if err == nil && len(found) == 1 {
		err = found[0].Err
	}
	if err != nil || len(found) != 1 {
		s.noPolicy.Do(func() {
			s.o.Log.Info("policy of the store topic not verified", zap.String("topic", topic), zap.Error(err))
		})
		return nil //nolint:nilerr // nothing is known, which is no problem of the store
	}
	for _, kv := range found[0].Configs {
		if kv.Key == "cleanup.policy" && kv.Value != nil && *kv.Value != want {
			return &Problem{Code: WrongPolicy, Reason: fmt.Sprintf("topic %s has cleanup.policy=%s, and the store needs %s", topic, *kv.Value, want),
				Remedy: fmt.Sprintf("run: kafka-configs.sh %s --alter --entity-type topics --entity-name %s --add-config cleanup.policy=%s", cl.Admin(), topic, want)}
		}
	}
	return nil
}

// create makes a topic of the store; with validate, it only asks whether it could.
func (s *Store) create(ctx context.Context, cl *kafka.Client, topic string, validate bool) error {
	configs := map[string]*string{"cleanup.policy": kadm.StringPtr("compact"), "segment.bytes": kadm.StringPtr("4194304"),
		"segment.ms": kadm.StringPtr("3600000"), "min.cleanable.dirty.ratio": kadm.StringPtr("0.1")}
	if topic == s.audit {
		configs = map[string]*string{"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": kadm.StringPtr("7776000000")} // 90 days
	}
	op := "creating topic " + topic
	brokers, err := cl.Adm.ListBrokers(ctx)
	if err != nil {
		return cl.Explain(op, err, kafka.Request{})
	}
	replicas := int16(-1)
	request := func(ask func(context.Context, int32, int16, map[string]*string, ...string) (kadm.CreateTopicResponses, error)) (kadm.CreateTopicResponse, error) {
		resp, err := ask(ctx, 1, replicas, configs, topic)
		err = cmp.Or(err, resp[topic].Err)
		if errors.Is(err, kerr.TopicAlreadyExists) { // another member was faster
			return resp[topic], nil
		}
		if err != nil {
			e := cl.Explain(op, err, kafka.Request{Topic: topic, Operation: kafka.Create})
			e.Remedy += fmt.Sprintf(". Or create it: kafka-topics.sh %s --create --topic %s --partitions 1 --config cleanup.policy=%s", cl.Admin(), topic, *configs["cleanup.policy"])
			return resp[topic], e
		}
		return resp[topic], nil
	}
	answer, err := request(cl.Adm.ValidateCreateTopics)
	if err != nil || validate {
		return err
	}
	if len(brokers) >= 3 {
		configs["min.insync.replicas"] = kadm.StringPtr("2")
		if answer.ReplicationFactor < 3 {
			replicas = 3
		}
	}
	if _, err = request(cl.Adm.CreateTopics); err == nil {
		s.o.Log.Info("store topic created", zap.String("topic", topic), zap.String("cleanup_policy", *configs["cleanup.policy"]))
	}
	return err
}

// prepare creates the topics that do not exist, for a store that is new or restored.
func (s *Store) prepare(ctx context.Context) error {
	cl, err := s.connected()
	if err != nil {
		return err
	}
	for _, topic := range []string{s.audit, s.o.Topic} {
		found, err := s.describe(ctx, cl, topic)
		if err == nil && !found.exists {
			err = s.create(ctx, cl, topic, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// problemOf returns the problem behind an error. need is what was attempted.
func (s *Store) problemOf(err error, need kafka.Operation) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	p := &Problem{Code: Unreachable, Reason: err.Error(), Remedy: "check that the brokers are up"}
	e, ok := errors.AsType[*kafka.Error](err)
	if !ok {
		e = s.o.Connection.Explain("reading the store of integrations", err, kafka.Request{Topic: s.o.Topic})
	}
	p.Reason, p.Remedy = e.Op+": "+e.Err.Error(), e.Remedy
	is := func(codes ...error) bool { return isAny(err, codes) }
	switch {
	case is(kerr.TransactionalIDAuthorizationFailed, kerr.UnsupportedVersion, kerr.InvalidTransactionTimeout, kerr.UnsupportedForMessageFormat, errNoProducerID) ||
		need == kafka.Write && is(kerr.ClusterAuthorizationFailed):
		p.Code = NoTransactions
		if is(errNoProducerID) {
			p.Remedy = "keep the store on brokers that support transactions, such as Apache Kafka 3.3 or later; see docs/compatibility.md"
		}
	case need == kafka.Create && is(kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.PolicyViolation, kerr.InvalidConfig, kerr.InvalidReplicationFactor):
		p.Code = Missing
	case need == kafka.Write && is(kerr.TopicAuthorizationFailed, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.MessageTooLarge, kerr.RecordListTooLarge,
		kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.PolicyViolation, kerr.CorruptMessage):
		p.Code = Unwritable
	case is(kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed):
		p.Code = Unreadable
	}
	return p
}
