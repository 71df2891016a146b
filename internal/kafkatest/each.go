package kafkatest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Broker is the Kafka a test runs on. Failures of its methods end the test.
type Broker interface {
	// Apache tells Apache Kafka from kfake.
	Apache() bool
	// Addrs returns the bootstrap addresses; they survive a restart.
	Addrs() []string
	// Security returns what a client needs besides the addresses.
	Security() Security
	// ClientOpts returns the options with which a kgo client connects.
	ClientOpts() []kgo.Opt

	// CreateTopic makes a topic with one replica per broker and returns once
	// every broker knows a leader for every partition.
	CreateTopic(t testing.TB, topic string, partitions int32, configs map[string]string)

	// StopAll cuts every connection and stops every broker at once: by SIGKILL
	// on Apache Kafka. Topics, records and committed offsets are kept. Needs
	// Options.Private, as StartAll and Restart do.
	StopAll(t testing.TB)
	// StartAll starts the brokers again and returns once they serve clients.
	StartAll(t testing.TB)
	// Restart stops the brokers in good order and starts them again.
	Restart(t testing.TB)

	// Cluster is the Apache cluster behind the broker, or nil on kfake.
	Cluster() *Cluster
	// Fake is the kfake cluster behind the broker, or nil on Apache Kafka. It is
	// another one after a restart.
	Fake() *kfake.Cluster
}

// Each runs body twice, as the subtests "kfake" and "apache". Both start from
// the same options; body gets unique names for its topics and groups from
// [Topic] and [Name], as other tests of the binary share the Apache cluster
// unless o.Private is set. Mechanisms kfake lacks skip its subtest.
func Each(t *testing.T, o Options, body func(t *testing.T, b Broker)) {
	t.Helper()
	if err := o.validate(); err != nil {
		t.Fatal(err)
	}
	t.Run("kfake", func(t *testing.T) { body(t, StartFake(t, o)) })
	t.Run("apache", func(t *testing.T) { body(t, startApache(t, o)) })
}

var names atomic.Int64

// Name returns a name no other test of this cluster uses, made of the test's own
// name: letters, digits, dashes, at most 100 bytes. It suits topics and groups.
func Name(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, t.Name())
	return fmt.Sprintf("%.80s-%d", name, names.Add(1))
}

// Topic creates a topic with a unique name and returns the name.
func Topic(t testing.TB, b Broker, partitions int32) string {
	t.Helper()
	topic := Name(t)
	b.CreateTopic(t, topic, partitions, nil)
	return topic
}
