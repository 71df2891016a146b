package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus/emulator"
)

const tableName = "datafly.events.stream"

// stage is a Kafka and a workspace for apps of a test. It fails the test that
// leaves goroutines behind.
type stage struct {
	t      *testing.T
	topic  string
	kafka  kafkatest.Broker
	ws     *emulator.Emulator
	client *kgo.Client
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ours := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ours) })
	s := &stage{t: t, kafka: kafkatest.StartFake(t, kafkatest.Options{})}
	s.topic = kafkatest.Topic(t, s.kafka, 1)
	var err error
	if s.ws, err = emulator.New(emulator.Config{}); err != nil {
		t.Fatal(err)
	}
	if err := s.ws.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ws.Close(context.WithoutCancel(t.Context())) })
	if s.client, err = kgo.NewClient(append(s.kafka.ClientOpts(), kgo.DefaultProduceTopic(s.topic), kgo.ConsumeTopics(s.topic+"-dlq"))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	return s
}

// integration is one from a topic to a table, in a group of its own.
func (s *stage) integration(name, topic, table string, sets ...string) config.Integration {
	s.t.Helper()
	cfg, err := config.Load(config.Options{File: s.t.TempDir() + "/none.yaml", Sets: append([]string{
		"kafka.brokers=" + strings.Join(s.kafka.Addrs(), ","), "kafka.topics=" + topic, "kafka.group=" + topic,
		"zerobus.workspace_url=" + s.ws.URL(), "zerobus.client_id=" + emulator.DefaultClientID, "zerobus.client_secret=" + emulator.DefaultClientSecret,
		"zerobus.table=" + table, "delivery.drain=2s", "ops.address=127.0.0.1:0",
	}, sets...)})
	if err != nil {
		s.t.Fatal(err)
	}
	cfg.Rejects.Integration = name
	return config.Integration{Name: name, Enabled: true, Config: cfg}
}

// deployment is one of integrations that share the process settings of the first.
func deployment(all ...config.Integration) *config.Deployment {
	return &config.Deployment{Base: all[0].Config, Integrations: all}
}

// run starts an app; the returned func stops it.
func (s *stage) run(all ...config.Integration) (a *App, stop func()) {
	s.t.Helper()
	return s.start(Options{Deployment: deployment(all...), Log: zap.NewNop(), Version: "test"})
}

// start is run with options.
func (s *stage) start(o Options) (a *App, stop func()) {
	s.t.Helper()
	a, err := New(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := a.Listen(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }() // ends with ctx; stop waits for it
	return a, func() {
		cancel()
		if err := errors.Join(<-ended, a.Close(context.WithoutCancel(ctx))); err != nil {
			s.t.Errorf("run: %v", err)
		}
	}
}

// produce sends a record; parent may be empty.
func (s *stage) produce(value, parent string) {
	s.t.Helper()
	rec := &kgo.Record{Value: []byte(value)}
	if parent != "" {
		rec.Headers = []kgo.RecordHeader{{Key: "other", Value: []byte("x")}, {Key: "traceparent", Value: []byte(parent)}, {Key: "tracestate", Value: []byte("vendor=1")}}
	}
	if err := s.client.ProduceSync(s.t.Context(), rec).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) eventually(what string, done func() bool) {
	s.t.Helper()
	await.That(s.t, what, done)
}

// get returns what the ops endpoints answer.
func (s *stage) get(a *App, path string) string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+a.Addr()+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(body)
}

// shown returns the configuration of an integration as /status has it.
func shown(t *testing.T, i ops.IntegrationStatus) string {
	t.Helper()
	text, err := json.Marshal(i.Config)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// of returns the state of an integration; empty if it is not known.
func (a *App) of(name string) ops.IntegrationStatus {
	if s, ok := a.Status().Only(name); ok {
		return s.Integrations[0]
	}
	return ops.IntegrationStatus{}
}
