package kafkatest

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

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
	skipShort(t)
	c, err := shared.get(t.Context(), o)
	if err != nil {
		giveUp(t, err)
	}
	record(t)
	t.Cleanup(func() { c.logFailure(t) })
	return apache{c: c}
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
	a.needPrivate(t)
	a.c.KillAll()
}

func (a apache) StartAll(t testing.TB) {
	t.Helper()
	a.needPrivate(t)
	if err := a.c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (a apache) Restart(t testing.TB) {
	t.Helper()
	a.needPrivate(t)
	for i := range a.c.Brokers() {
		if err := a.c.Restart(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
}

func (a apache) needPrivate(t testing.TB) {
	t.Helper()
	if !a.private {
		t.Fatal("this cluster is shared with other tests and must not be stopped; set kafkatest.Options.Private")
	}
}
