// Package kafkatest provides a Kafka for tests and benchmarks, over loopback
// sockets: Apache Kafka in KRaft mode, as child processes without a container,
// and kfake, the in-process broker of franz-go, behind one interface.
//
// Most tests use [Each], which runs one body on both. A test binary that uses
// Each or [Start] should pass its TestMain to [Main], so that its tests share
// one Apache cluster:
//
//	func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }
//
//	func TestDelivery(t *testing.T) {
//		kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
//			topic := kafkatest.Topic(t, b, 3)
//			...
//		})
//	}
//
// To start a broker by hand: go run ./internal/kafkatest/kafka.
//
// Environment:
//
//   - REQUIRE_APACHE_KAFKA=1 makes the Apache tests fail instead of skip on a
//     machine without Java or Maven.
//   - KAFKATEST_CACHE is the folder of Kafka's jars, by default .cache/kafka in
//     the module root.
//   - KAFKATEST_VERSION is the release of Apache Kafka, by default [DefaultVersion].
//   - KAFKATEST_ONLY_APACHE=1 skips the tests on kfake.
//   - KAFKATEST_COUNT_FILE names a file to which every test on Apache Kafka
//     appends one line: the version and the test's name.
//
// The package runs on Linux and macOS. On Linux the brokers end with the test
// process in any case; elsewhere they outlive a test process killed by SIGKILL.
package kafkatest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

// Options describe the Kafka a test needs. The zero value is one broker without
// TLS and SASL.
type Options struct {
	// Brokers is 1 or 3. Default 1. Each broker is also a KRaft controller.
	Brokers int

	// Config is added to every broker's server.properties and overrides this
	// package's values. kfake uses the keys it knows.
	Config map[string]string

	// JVM is appended to the arguments of java, for example "-Xmx2g" in a
	// benchmark. Default heap: 384 MiB.
	JVM []string

	// TLS requires clients to use TLS; see [Security.CAFile].
	TLS bool

	// ClientCert requires a client certificate. Needs TLS.
	ClientCert bool

	// SASL is the mechanism clients authenticate with: PLAIN, SCRAM-SHA-256,
	// SCRAM-SHA-512 or OAUTHBEARER (Apache only, with the tokens of
	// [UnsecuredToken]). Empty: none.
	SASL string

	// Advertise returns the address that broker i, counted from 0, advertises
	// to clients, such as a proxy's; the broker listens on addr. It is called
	// once per broker before the first one starts. Nil, or "": addr itself, which
	// this package uses in any case.
	Advertise func(i int, addr string) string

	// Private gives the test its own cluster under [Each], which it may stop and
	// restart. It takes one or two seconds more on Apache Kafka.
	Private bool
}

func (o Options) brokers() int { return max(o.Brokers, 1) }

func (o Options) validate() error {
	if n := o.brokers(); n != 1 && n != 3 {
		return fmt.Errorf("kafkatest: %d brokers; use 1 or 3", n)
	}
	if o.ClientCert && !o.TLS {
		return errors.New("kafkatest: ClientCert without TLS; set TLS too")
	}
	switch o.SASL {
	case "", Plain, ScramSHA256, ScramSHA512, OAuthBearer:
		return nil
	}
	return fmt.Errorf("kafkatest: unknown SASL mechanism %q; use %s, %s, %s or %s", o.SASL, Plain, ScramSHA256, ScramSHA512, OAuthBearer)
}

// A Broker is the Kafka a test runs on. Failures of its methods end the test.
type Broker interface {
	// Apache reports whether it is Apache Kafka, not kfake.
	Apache() bool
	// Addrs returns the bootstrap addresses; a restart keeps them.
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
	// Restart stops the brokers by a controlled shutdown and starts them again.
	Restart(t testing.TB)

	// Cluster is the Apache cluster behind the broker, or nil on kfake.
	Cluster() *Cluster
	// Fake is the kfake cluster behind the broker, or nil on Apache Kafka. It is
	// another one after a restart.
	Fake() *kfake.Cluster
}

// Each runs body twice, as the subtests "kfake" and "apache". Both start from
// the same options. Other tests share the Apache cluster unless o.Private is
// set, so body needs unique names of [Topic] and [Name] for topics and groups.
// Mechanisms kfake lacks skip its subtest.
func Each(t *testing.T, o Options, body func(t *testing.T, b Broker)) {
	t.Helper()
	if err := o.validate(); err != nil {
		t.Fatal(err)
	}
	t.Run("kfake", func(t *testing.T) { body(t, StartFake(t, o)) })
	t.Run("apache", func(t *testing.T) { body(t, startApache(t, o)) })
}

var names atomic.Int64

// Name returns a name no other test of this cluster uses, derived from the
// test's name: letters, digits, dashes, at most 100 bytes. It suits topics and
// groups.
func Name(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
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

// topicTimeout bounds the creation of one topic; the largest take a second or
// two on an idle machine.
const topicTimeout = 5 * time.Minute

func createTopic(t testing.TB, opts []kgo.Opt, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), topicTimeout)
	defer cancel()
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatalf("creating topic %s: %v", topic, err)
	}
	defer cl.Close()

	values := make(map[string]*string)
	for k, v := range configs {
		values[k] = &v
	}
	const brokerDefault = -1 // replication factor
	// The client repeats a request whose answer it did not get, and then the topic exists.
	_, err = kadm.NewClient(cl).CreateTopic(ctx, partitions, brokerDefault, values, topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatalf("creating topic %s: %v", topic, err)
	}
	for _, b := range cl.SeedBrokers() {
		for {
			err := hasTopic(ctx, b, topic, partitions)
			if err == nil {
				break
			}
			if timeout := pause(ctx, 10*time.Millisecond); timeout != nil {
				t.Fatalf("waiting for topic %s: %v", topic, errors.Join(timeout, err))
			}
		}
	}
}

// hasTopic returns what one broker does not know of the topic yet.
func hasTopic(ctx context.Context, b *kgo.Broker, topic string, partitions int32) error {
	resp, err := metadata(ctx, b, topic)
	if err != nil {
		return err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != int(partitions) {
		return fmt.Errorf("the broker does not list %d partitions", partitions)
	}
	return leaders(resp, nil)
}

// shared holds the clusters that the tests of one binary share, by their
// options. It is open while [Main] runs.
var shared clusters

type clusters struct {
	open atomic.Bool

	mu sync.Mutex // held while a cluster starts, so that it starts once
	m  map[string]*Cluster
}

// parallel is how many parallel tests run at a time without -parallel. They wait
// for groups and brokers more than they work, so the number of cores is too
// low. Each may have a broker of a third of a gigabyte.
const parallel = "4"

// Main runs the tests of a binary, closes the clusters they shared and looks for
// leaked goroutines, which opts may except. It returns the exit code.
func Main(m *testing.M, opts ...goleak.Option) int {
	if err := setParallel(); err != nil {
		fmt.Fprintln(os.Stderr, "kafkatest:", err)
		return 1
	}
	shared.open.Store(true)
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "kafkatest:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(opts...); err != nil {
			fmt.Fprintln(os.Stderr, "kafkatest: leaked goroutines:", err)
			code = 1
		}
	}
	return code
}

// setParallel sets -parallel unless the command line does.
func setParallel() error {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if chosen {
		return nil
	}
	return flag.Set("test.parallel", parallel)
}

// get returns the running cluster with these options. The first test that asks
// starts it.
func (s *clusters) get(ctx context.Context, o Options) (*Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprintf("%+v", o) // maps print in key order
	if c := s.m[key]; c != nil {
		return c, nil
	}
	// No test stops a shared broker, so one that does not respond is busy.
	config := map[string]string{"broker.session.timeout.ms": "60000"}
	maps.Copy(config, o.Config)
	o.Config = config
	c, err := Run(ctx, "", o)
	if err != nil {
		return nil, err
	}
	if s.m == nil {
		s.m = make(map[string]*Cluster)
	}
	s.m[key] = c
	return c, nil
}

func (s *clusters) close() error {
	s.open.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, c := range s.m {
		errs = append(errs, c.Close())
	}
	s.m = nil
	return errors.Join(errs...)
}

// Start starts an Apache cluster for one test and closes it when the test ends.
// On a machine that cannot run Kafka it skips the test, or fails it with
// REQUIRE_APACHE_KAFKA=1. Under go test -short it always skips. When the test
// fails, it logs the ends of the brokers' logs.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	return obtain(t, o, func(ctx context.Context, o Options) (*Cluster, error) {
		c, err := Run(ctx, "", o)
		if err == nil {
			t.Cleanup(func() { // runs after logging a failure
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		return c, err
	})
}

// obtain gets a cluster for a test from start.
func obtain(t testing.TB, o Options, start func(context.Context, Options) (*Cluster, error)) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped on Apache Kafka: -short")
	}
	if o.SASL == ScramSHA256 || o.SASL == ScramSHA512 {
		need(t, "3.5", "SCRAM in KRaft mode (KIP-900)")
	}
	c, err := start(t.Context(), o)
	if errors.Is(err, ErrUnavailable) && os.Getenv("REQUIRE_APACHE_KAFKA") != "1" {
		t.Skipf("skipped on Apache Kafka: %v", err)
	}
	if err != nil {
		t.Fatalf("starting Apache Kafka %s: %v", Version, err)
	}
	if err := record(t.Name()); err != nil {
		t.Fatalf("counting the tests on Apache Kafka: %v; check KAFKATEST_COUNT_FILE", err)
	}
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, n := range c.nodes {
			if t.Failed() {
				t.Logf("end of the log of broker %d:\n%s", n.id, n.tail(20))
			}
		}
	})
	return c
}

// record counts a test that runs on Apache Kafka, for the summary of make test.
func record(test string) error {
	name := os.Getenv("KAFKATEST_COUNT_FILE")
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s\n", Version, test) // short appends are atomic
	return errors.Join(err, f.Close())
}

// apache is a [Broker] on an Apache cluster, its own or the shared one.
type apache struct {
	c       *Cluster
	private bool
}

func startApache(t testing.TB, o Options) Broker {
	t.Helper()
	if o.Private || !shared.open.Load() {
		return apache{c: Start(t, o), private: o.Private}
	}
	return apache{c: obtain(t, o, shared.get)}
}

func (a apache) Apache() bool          { return true }
func (a apache) Addrs() []string       { return a.c.Brokers() }
func (a apache) Security() Security    { return a.c.Security() }
func (a apache) ClientOpts() []kgo.Opt { return a.c.ClientOpts() }
func (a apache) Cluster() *Cluster     { return a.c }
func (a apache) Fake() *kfake.Cluster  { return nil }

func (a apache) CreateTopic(t testing.TB, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	createTopic(t, a.ClientOpts(), topic, partitions, configs)
}

func (a apache) StopAll(t testing.TB) {
	t.Helper()
	needPrivate(t, a.private)
	a.c.KillAll()
}

func (a apache) StartAll(t testing.TB) {
	t.Helper()
	needPrivate(t, a.private)
	if err := a.c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (a apache) Restart(t testing.TB) {
	t.Helper()
	needPrivate(t, a.private)
	for i := range a.c.Brokers() {
		if err := a.c.Restart(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
}

// needPrivate ends tests that stop a cluster which other tests may share. On
// kfake, a cluster that is not private would also lose its state.
func needPrivate(t testing.TB, private bool) {
	t.Helper()
	if !private {
		t.Fatal("this cluster must not be stopped; set kafkatest.Options.Private")
	}
}
