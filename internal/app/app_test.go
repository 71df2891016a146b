package app

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
)

// An error that waiting cannot resolve ends the process where `default` is the only
// integration.
func TestErrorOfTheOnlyIntegrationEndsTheProcess(t *testing.T) {
	s := newStage(t)
	a, err := New(t.Context(), Options{Deployment: deployment(s.integration("default", s.topic, tableName, "zerobus.client_secret=wrong")), Log: zap.NewNop(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close(context.WithoutCancel(t.Context())) }()
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "client") {
		t.Errorf("got %v, want the refused credentials", err)
	}
}

// A blueprint that cannot be read is an error of the configuration where it is of the
// only integration; otherwise it is that one's own.
func TestOneThatCannotBeBuilt(t *testing.T) {
	s := newStage(t)
	first := s.integration("default", s.topic, tableName)
	bad := s.integration("bad", kafkatest.Topic(t, s.kafka, 1), tableName)
	bad.Config.Mapping.Blueprint = s.t.TempDir() + "/none.yaml"
	if _, err := New(t.Context(), Options{Deployment: deployment(bad), Log: zap.NewNop()}); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("got %v, want the file named", err)
	}
	a, stop := s.run(first, bad)
	defer stop()
	s.eventually("the bad one failed and the first ready", func() bool { return a.of("bad").State == ops.StateFailed && a.of("default").Ready })
	if got := a.Status(); !got.Ready || len(got.NotReady) != 1 || got.NotReady[0].Code != "integration_failed" || got.NotReady[0].Integration != "bad" || !strings.Contains(got.NotReady[0].Text, "reading mapping.blueprint") {
		t.Errorf("got ready %v, %+v; want it ready, and the bad one named", got.Ready, got.NotReady)
	}
}
