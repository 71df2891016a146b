package pipeline

import (
	"context"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/panics"
	"github.com/datafly/bridge/zerobus/emulator"
)

// crashing is an observer that panics when events are read.
type crashing struct{ consumer.Observer }

func (crashing) EventsRead(string, int32, int, int) { panic("injected at EventsRead") }

// A panic in a goroutine of the pipeline, or in what the process lends to it, is the
// error of Run. The group has left then, and no goroutine is left.
func TestPanicIsTheErrorOfRun(t *testing.T) {
	for at, arm := range map[string]func(*Config, *Deps){
		"EventsRead": func(_ *Config, d *Deps) {
			d.Observer = func(o consumer.Observer) consumer.Observer { return crashing{o} }
		},
		"Resized": func(_ *Config, d *Deps) {
			d.Resized = func(_, partitions int) {
				if partitions > 0 {
					panic("injected at Resized")
				}
			}
		},
		"ShowProgress": func(c *Config, d *Deps) {
			c.Until = &kafka.Position{Kind: kafka.Latest}
			d.ShowProgress = func(context.Context, func() consumer.Progress) { panic("injected at ShowProgress") }
		},
		"Observer": func(_ *Config, d *Deps) {
			d.Observer = func(consumer.Observer) consumer.Observer { panic("injected at Observer") }
		},
	} {
		t.Run(at, func(t *testing.T) {
			ours := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, ours) })
			b := kafkatest.StartFake(t, kafkatest.Options{})
			topic := kafkatest.Topic(t, b, 1)
			produceOne(t, b, topic, `{"type":"track","message_id":"m"}`)
			ws, err := emulator.New(emulator.Config{})
			if err == nil {
				err = ws.Start("127.0.0.1:0")
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ws.Close(context.WithoutCancel(t.Context())) })
			settings := config.Defaults()
			settings.Kafka.Brokers, settings.Kafka.Topics = b.Addrs(), []string{topic}
			z := &settings.Zerobus
			z.WorkspaceURL, z.ClientID, z.ClientSecret = ws.URL(), emulator.DefaultClientID, emulator.DefaultClientSecret
			z.Catalog, z.Schema, z.Table = "datafly", "events", "stream"
			cfg, deps := Config{Settings: &settings}, Deps{Log: zap.NewNop(), Metrics: ops.NewMetrics("test", nil, true).Integration("default", KnownLabels(&settings))}
			arm(&cfg, &deps)
			p, err := New(cfg, deps)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			err = p.Run(t.Context())
			if !panics.Is(err) || !strings.Contains(err.Error(), "panic: injected at "+at) {
				t.Errorf("got %v, want the panic", err)
			}
			if g := p.group.Load(); g != nil && g.Status().Running {
				t.Error("the group still runs")
			}
		})
	}
}

func produceOne(t *testing.T, b kafkatest.Broker, topic, value string) {
	t.Helper()
	cl, err := kgo.NewClient(b.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}
