package kafkatest

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fake is a [Broker] on kfake. It keeps its ports and, in a folder, its state, so
// that it can be stopped and started.
type fake struct {
	opts     []kfake.Opt
	ports    []port
	security Security
	private  bool

	mu sync.Mutex
	c  *kfake.Cluster // nil while stopped
}

// StartFake starts a kfake cluster for one test and closes it when the test
// ends; [Each] does so for its subtest "kfake". It skips the test if kfake lacks
// the SASL mechanism.
func StartFake(t testing.TB, o Options) Broker {
	t.Helper()
	if os.Getenv("KAFKATEST_ONLY_APACHE") == "1" {
		t.Skip("skipped on kfake: KAFKATEST_ONLY_APACHE=1")
	}
	if o.SASL == OAuthBearer {
		t.Skip("kfake does not support SASL OAUTHBEARER")
	}
	if err := o.validate(); err != nil {
		t.Fatal(err)
	}
	sec, err := NewSecurity(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{private: o.Private, security: sec}
	f.opts = []kfake.Opt{
		kfake.ClusterID(clusterID()),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond), // as on Apache Kafka, see properties
		kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "500"}),
		kfake.BrokerConfigs(keepAnyDate),
		kfake.BrokerConfigs(o.Config),
	}
	if o.Private {
		f.opts = append(f.opts, kfake.DataDir(t.TempDir()))
	}
	f.opts = append(f.opts, sec.FakeOpts()...)
	f.startOnFreePorts(t, o.brokers())
	t.Cleanup(f.stop)
	return f
}

// startOnFreePorts reserves ports and starts the cluster on them. If a program
// that does not reserve takes one, it tries others.
func (f *fake) startOnFreePorts(t testing.TB, brokers int) {
	t.Helper()
	base := f.opts
	for try := 1; ; try++ {
		f.ports = nil
		var numbers []int
		for range brokers {
			p, err := reservePort()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.release)
			f.ports = append(f.ports, p)
			numbers = append(numbers, p.number)
		}
		f.opts = append(base[:len(base):len(base)], kfake.Ports(numbers...))
		c, err := kfake.NewCluster(f.opts...)
		if err == nil {
			f.c = c
			return
		}
		if !errors.Is(err, syscall.EADDRINUSE) || try == 5 {
			t.Fatalf("starting kfake: %v", err)
		}
	}
}

func (f *fake) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.c != nil {
		f.c.Close()
		f.c = nil
	}
}

func (f *fake) Apache() bool       { return false }
func (f *fake) Security() Security { return f.security }
func (f *fake) Cluster() *Cluster  { return nil }
func (f *fake) ClientOpts() []kgo.Opt {
	return append(f.security.ClientOpts(), kgo.SeedBrokers(f.Addrs()...))
}

func (f *fake) Fake() *kfake.Cluster {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.c
}

func (f *fake) Addrs() []string {
	var addrs []string
	for _, p := range f.ports {
		addrs = append(addrs, p.addr())
	}
	return addrs
}

func (f *fake) CreateTopic(t testing.TB, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	createTopic(t, f.ClientOpts(), topic, partitions, configs)
}

func (f *fake) StopAll(t testing.TB) {
	t.Helper()
	needPrivate(t, f.private)
	f.stop()
}

func (f *fake) StartAll(t testing.TB) {
	t.Helper()
	needPrivate(t, f.private)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.c != nil {
		return
	}
	c, err := kfake.NewCluster(f.opts...)
	if err != nil {
		t.Fatalf("starting kfake: %v", err)
	}
	f.c = c
}

func (f *fake) Restart(t testing.TB) {
	t.Helper()
	f.StopAll(t)
	f.StartAll(t)
}

// RefusedOffsets is the answer of a broker that refuses a look-up of committed offsets.
func RefusedOffsets(req *kmsg.OffsetFetchRequest, why *kerr.Error) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	resp.ErrorCode = why.Code
	for _, g := range req.Groups {
		answer := kmsg.NewOffsetFetchResponseGroup()
		answer.Group, answer.ErrorCode = g.Group, why.Code
		resp.Groups = append(resp.Groups, answer)
	}
	return resp
}
