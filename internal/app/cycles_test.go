package app

import (
	"runtime"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus/emulator"
)

// An integration that is added and removed many times leaves no connection and no
// goroutine, and each time resumes where it ended. The other is not touched.
func TestAddAndRemoveManyTimes(t *testing.T) {
	s := newStage(t)
	stays, comes := s.lane("stays"), s.lane("comes")
	core, logs := observer.New(zap.InfoLevel)
	a, stop := s.start(Options{Deployment: deployment(stays.spec()), Log: zap.New(core), Version: "test"})
	defer stop()
	if err := s.ws.StartZerobus("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	// One that has a connection to the service of its own.
	added := comes.spec("zerobus.transport=grpc", "zerobus.endpoint="+s.ws.ZerobusURL(), "zerobus.workspace_id="+emulator.DefaultWorkspaceID)
	cycle := func() {
		t.Helper()
		s.follow(a, stays.spec(), added)
		comes.produce(3)
		comes.complete()
		s.follow(a, stays.spec())
		s.eventually("it is removed", func() bool { return len(a.Status().Integrations) == 1 })
	}
	for range 3 {
		cycle()
	}
	open, _, err := countDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	goroutines, series := runtime.NumGoroutine(), strings.Count(s.get(a, "/metrics"), "\n")
	for range 20 {
		cycle()
	}
	const few = 10 // connections are opened and closed meanwhile
	s.eventually("as few connections and goroutines as before", func() bool {
		now, _, err := countDescriptors()
		return err == nil && now <= open+few && runtime.NumGoroutine() <= goroutines+few
	})
	if got := strings.Count(s.get(a, "/metrics"), "\n"); got > series+few {
		t.Errorf("got %d lines of metrics, want %d as before", got, series)
	}
	if got := logs.FilterMessage("joining the group").FilterField(zap.String("integration", "stays")).Len(); got != 1 {
		t.Errorf("got %d starts of the other, want 1", got)
	}
	for _, line := range logs.All() {
		if line.Level > zap.InfoLevel {
			t.Errorf("got %s: %s %v, want no warning", line.Level, line.Message, line.ContextMap())
		}
	}
}

// An integration with another name and the same group continues where the old one
// ended, also as a static member: nothing is written twice.
func TestAnotherNameForAGroup(t *testing.T) {
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			s := newStage(t)
			old := s.lane("old")
			sets := []string{"kafka.protocol=" + protocol, "kafka.instance_id=one"}
			named := func(name string) config.Integration { return old.integration(name, old.topic, old.table, sets...) }
			core, logs := observer.New(zap.InfoLevel)
			a, stop := s.start(Options{Deployment: deployment(named("default")), Log: zap.New(core), Version: "test"})
			defer stop()
			name := "default"
			for _, next := range []string{"orders", "sales", "default"} {
				old.produce(2000)
				s.eventually("some of them delivered", func() bool { return s.ws.Table(old.table).Distinct("message_id") > old.produced-1500 })
				s.follow(a, named(next))
				s.eventually(next+" ready alone", func() bool { return len(a.Status().Integrations) == 1 && a.of(next).Ready })
				old.complete()
				name = next
			}
			if got := a.of(name).State; got != ops.StateRunning {
				t.Errorf("got %s %s, want it running", name, got)
			}
			for _, line := range logs.All() {
				if line.Level > zap.InfoLevel {
					t.Errorf("got %s: %s %v, want no warning", line.Level, line.Message, line.ContextMap())
				}
			}
		})
	}
}

// A disabled integration is shown as it is wanted, with the counts of its last run.
func TestDisabledIsShownAsWanted(t *testing.T) {
	s := newStage(t)
	one, two := s.lane("one"), s.lane("two")
	a, stop := s.run(one.spec(), two.spec())
	defer stop()
	two.produce(5)
	two.complete()
	two.table = "datafly.events.other"
	off := two.spec()
	off.Enabled = false
	s.follow(a, one.spec(), off)
	s.eventually("the second disabled", func() bool { return a.of("two").State == ops.StateDisabled })
	if got := a.of("two"); got.Table != two.table || got.Totals.RowsDelivered != 5 || !strings.Contains(shown(t, got), `"table":"other"`) {
		t.Errorf("got table %s, %d rows and %v, want %s, and the rows of before", got.Table, got.Totals.RowsDelivered, shown(t, got), two.table)
	}
}

// A panic of one pipeline in its status leaves the status of the others.
func TestPanicInTheStatus(t *testing.T) {
	c := config.Defaults()
	got := statusOf(integrations.Status{Integration: config.Integration{Name: "a", Enabled: true, Config: &c}, State: integrations.Running, Runner: new(pipeline.Pipeline)})
	if got.Integration != "a" || got.State != ops.StateFailed || !strings.Contains(got.Reason, "panic: ") || got.Config == nil {
		t.Errorf("got %s, %s, %q; want it failed with the panic", got.Integration, got.State, got.Reason)
	}
}
