package e2e_test

import (
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// eachPrivate runs body on brokers it may stop.
func eachPrivate(t *testing.T, o kafkatest.Options, set setting, body func(t *testing.T, s *stage)) {
	t.Helper()
	t.Parallel()
	o.Private = true
	kafkatest.Each(t, o, func(t *testing.T, b kafkatest.Broker) {
		t.Parallel()
		body(t, newStage(t, b, set))
	})
}

func TestBrokerDownAtStart(t *testing.T) {
	eachPrivate(t, kafkatest.Options{}, setting{}, func(t *testing.T, s *stage) {
		s.p.events(100)
		s.broker.StopAll(t)
		m := s.begin()
		reason := m.blocked("kafka_unreachable", patience)
		wants(t, reason.Text+reason.Remedy, s.broker.Addrs()[0])
		s.broker.StartAll(t)
		m.ready()
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none", duplicates)
		}
		if got := m.logged("waiting for dependency"); got != 1 {
			t.Errorf("got %d lines about waiting, want 1", got)
		}

		s.broker.StopAll(t)
		// Without a broker there is nothing to commit to and no group to leave.
		took := m.terminate(s.drain + time.Second + slack)
		t.Logf("stopped in %v without a broker", took.Round(time.Millisecond))
	})
}

func TestSIGTERMWhileWaitingForTheBroker(t *testing.T) {
	eachPrivate(t, kafkatest.Options{}, setting{}, func(t *testing.T, s *stage) {
		s.broker.StopAll(t)
		m := s.begin()
		m.blocked("kafka_unreachable", patience)
		m.terminate(time.Second + slack)
	})
}

func TestBrokerRestartsUnderLoad(t *testing.T) {
	set := setting{partitions: 3, workspace: emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}}}
	eachPrivate(t, kafkatest.Options{}, set, func(t *testing.T, s *stage) {
		s.p.events(6000)
		m := s.beginReady("delivery.max_rows=50")
		s.rows(m, 500)
		s.broker.StopAll(t)
		s.broker.StartAll(t)
		duplicates := s.complete(m)
		t.Logf("%d duplicates", duplicates)
		s.broker.Restart(t)
		s.p.events(600)
		s.complete(m)
		m.ready()
		m.terminate(s.drain + time.Second + slack)
	})
}

func TestTopicCreatedLater(t *testing.T) {
	eachStage(t, setting{noTopic: true, partitions: 2}, func(t *testing.T, s *stage) {
		m := s.begin()
		reason := m.blocked("topic_missing", patience)
		wants(t, reason.Text+reason.Remedy, s.topic, "kafka.topics")
		s.broker.CreateTopic(t, s.topic, 2, nil)
		created := time.Now()
		s.p.events(200)
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none", duplicates)
		}
		t.Logf("delivered within %v of the topic's making", time.Since(created).Round(time.Millisecond))
		m.ready()
	})
}

func TestThreeHundredPartitionsOnOneMember(t *testing.T) {
	eachStage(t, setting{partitions: 300}, func(t *testing.T, s *stage) {
		s.p.events(30_000)
		m := s.beginReady()
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none", duplicates)
		}
		if got := len(m.integration().Partitions); got != 300 {
			t.Errorf("got %d partitions, want 300", got)
		}
		s.inOrder(t)
		took := m.terminate(s.drain + time.Second + slack)
		t.Logf("stopped in %v", took.Round(time.Millisecond))
	})
}

// The password of the brokers is one of the secrets that must not be logged, and
// it, too, is read from a file.
func TestPasswordOfTheBrokersStaysHidden(t *testing.T) {
	eachPrivate(t, kafkatest.Options{SASL: kafkatest.ScramSHA256}, setting{}, func(t *testing.T, s *stage) {
		m := s.beginReady("log.level=debug")
		s.p.events(100)
		s.complete(m)
		m.get("/metrics", "")
		m.snapshot()
		m.terminate(s.drain + time.Second + slack)
	})
}

func TestKIP848(t *testing.T) {
	eachStage(t, setting{partitions: 2}, func(t *testing.T, s *stage) {
		kafkatest.NeedProtocol(t, s.broker, "consumer")
		m := s.beginReady("kafka.protocol=consumer")
		s.p.events(1000)
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none", duplicates)
		}
		m.terminate(s.drain + time.Second + slack)
	})
}
