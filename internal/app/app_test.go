package app

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// Two pipelines deliver in one process, each to its own table. One whose table
// refuses its writes does not delay the other, nor the stop.
func TestPipelinesAreIndependent(t *testing.T) {
	s := newStage(t)
	const other = "datafly.events.other"
	if _, err := s.ws.CreateTable(strings.ReplaceAll(s.ws.Table(tableName).DDL(), "stream", "other")); err != nil {
		t.Fatal(err)
	}
	second := kafkatest.Topic(t, s.kafka, 1)
	a, stop := s.run(s.integration("first", s.topic, tableName), s.integration("second", second, other))
	defer stop()
	produced := 0
	produce := func(n int) {
		t.Helper()
		for range n {
			value := []byte(fmt.Sprintf(`{"type":"track","event":"a","message_id":"m-%d"}`, produced))
			produced++
			if err := s.client.ProduceSync(t.Context(), &kgo.Record{Topic: s.topic, Value: value}, &kgo.Record{Topic: second, Value: value}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	distinct := func(table string) int { return s.ws.Table(table).Distinct("message_id") }
	produce(50)
	s.eventually("the rows of both", func() bool { return distinct(tableName) == 50 && distinct(other) == 50 })
	if got := a.Status(); !got.Ready {
		t.Errorf("got %+v, want the bridge ready", got.NotReady)
	}

	if _, err := s.ws.AddFault(emulator.Fault{Endpoint: emulator.EndpointIngest, Table: other, Effect: emulator.EffectStatus, Status: http.StatusForbidden}); err != nil {
		t.Fatal(err)
	}
	produce(50)
	s.eventually("the rows of the first, while the second is blocked", func() bool {
		return distinct(tableName) == 100 && a.Status().Integrations[1].Sink.Name == zerobus.Blocked
	})
	if got := distinct(other); got != 50 {
		t.Errorf("got %d rows in the blocked table, want 50", got)
	}
	got := a.Status()
	if first, second := got.Integrations[0], got.Integrations[1]; !got.Ready || !first.Ready || second.Ready || len(got.NotReady) == 0 ||
		got.NotReady[0].Code != "sink_blocked" || got.NotReady[0].Integration != "second" {
		t.Errorf("got ready %v, %+v; want the process ready, since the first delivers, and the second named", got.Ready, got.NotReady)
	}
	metrics := s.get(a, "/metrics")
	for _, want := range []string{`bridge_ready{integration="first"} 1`, `bridge_ready{integration="second"} 0`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// The error of one pipeline ends the others, and is the error of the process.
func TestOnePipelinesErrorEndsTheProcess(t *testing.T) {
	s := newStage(t)
	refused := s.integration("refused", kafkatest.Topic(t, s.kafka, 1), "datafly.events.other", "zerobus.client_secret=wrong", "kafka.group=other")
	a, err := New(t.Context(), Options{Pipelines: []pipeline.Config{s.integration("first", s.topic, tableName), refused}, Log: zap.NewNop(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close(context.WithoutCancel(t.Context())) }()
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "client") {
		t.Errorf("got %v, want the refused credentials", err)
	}
	for _, i := range a.Status().Integrations {
		if i.State != ops.StateStopped {
			t.Errorf("%s: got state %s, want stopped", i.Integration, i.State)
		}
	}
}
