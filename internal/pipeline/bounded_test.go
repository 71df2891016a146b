package pipeline

import (
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
)

// A look-up that fails after the start was committed is retried. The offsets that
// it then finds are not mistaken for somebody else's.
func TestStartIsCommittedOnce(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	var committed, failed atomic.Bool
	fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		committed.Store(true)
		return nil, nil, false
	})
	fake.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		if !committed.Load() || !failed.CompareAndSwap(false, true) {
			return nil, nil, false
		}
		return kafkatest.RefusedOffsets(r.(*kmsg.OffsetFetchRequest), kerr.UnknownServerError), nil, true
	})
	c := config.Defaults()
	c.Kafka.Brokers, c.Kafka.Topics = fake.ListenAddrs(), []string{"events"}
	z := &c.Zerobus
	z.WorkspaceURL, z.ClientID, z.ClientSecret, z.Catalog, z.Schema, z.Table = "http://127.0.0.1:1", "id", "s1", "c", "s", "t"
	core, logs := observer.New(zap.InfoLevel)
	p, err := New(Config{Settings: &c, Range: Range{From: &kafka.Position{Kind: kafka.Earliest}, Until: &kafka.Position{Kind: kafka.Latest}}},
		Deps{Log: zap.New(core), Metrics: ops.NewMetrics("", nil, true).Integration("default", KnownLabels(&c))})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ends, err := p.bound(t.Context())
	if err != nil || !ends.Reached() || !failed.Load() {
		t.Fatalf("got %v after a failure %v, want the ends", err, failed.Load())
	}
	if n := logs.FilterMessageSnippet("--from is not used").Len(); n != 0 {
		t.Errorf("got %d lines about offsets of others, want none", n)
	}
	if n := logs.FilterMessage("beginning at --from").Len(); n != 1 {
		t.Errorf("got the start logged %d times, want once", n)
	}
}
