package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafkatest"
)

func TestMain(m *testing.M) {
	if replicaMain(context.Background(), os.Stdout) {
		return
	}
	os.Exit(kafkatest.Main(m))
}

// A short run; make store-chaos runs longer.
func TestStoreChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped on Apache Kafka: -short")
	}
	violations, err := chaos(t.Context(), options{duration: 30 * time.Second, replicas: 3, writers: 2, brokers: 3, out: t.Output()})
	if errors.Is(err, kafkatest.ErrUnavailable) && os.Getenv("REQUIRE_APACHE_KAFKA") != "1" {
		t.Skipf("skipped on Apache Kafka: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

// sound is what a run without faults gives: an integration is installed, changed and
// removed, and installed again.
func sound() (*oracle, []version) {
	o := newOracle()
	record := &store.Record{}
	for _, e := range []store.Entry{
		{ID: "1", RequestID: "r1", Slug: "a", ResourceID: "int_1", Revision: 1, Record: record},
		{ID: "2", RequestID: "r2", Slug: "a", ResourceID: "int_1", Revision: 2, Record: record},
		{ID: "3", RequestID: "r3", Slug: "a", ResourceID: "int_1", Revision: 3},
		{ID: "4", RequestID: "r4", Slug: "a", ResourceID: "int_2", Revision: 1, Record: record},
	} {
		o.audit([]store.Entry{e})
		o.take("p", line{Request: e.RequestID, Outcome: acknowledged, ID: e.ResourceID, Revision: e.Revision})
	}
	end := []version{{"a", "int_2", 1, "r4"}}
	o.take("p", line{Request: "r5", Outcome: refused})
	o.take("p", line{Outcome: stateChanged, State: []version{{"a", "int_1", 1, "r1"}}})
	o.take("p", line{Outcome: stateChanged, State: []version{{"a", "int_1", 2, "r2"}}})
	o.take("p", line{Outcome: stateChanged, State: end})
	o.take("p", line{Outcome: finalState, State: end})
	return o, end
}

// The oracle finds each kind of fault, and nothing in a sound run.
func TestOracle(t *testing.T) {
	if o, end := sound(); len(o.violations(end)) != 0 {
		t.Fatalf("a sound run: got %q", o.violations(end))
	}
	for want, damage := range map[string]func(o *oracle, end []version){
		"lost or repeated":   func(o *oracle, _ []version) { o.order = slices.Delete(o.order, 2, 3) },
		"gap":                func(o *oracle, _ []version) { o.order = slices.Delete(o.order, 1, 2) },
		"which nobody made":  func(o *oracle, _ []version) { delete(o.lines, "r2") },
		"written and denied": func(o *oracle, _ []version) { o.take("p", line{Request: "r2", Outcome: unavailable}) },
		"was acknowledged as": func(o *oracle, _ []version) {
			o.take("p", line{Request: "r2", Outcome: acknowledged, ID: "int_1", Revision: 7})
		},
		"the records at the end": func(_ *oracle, end []version) { end[0].Revision = 2 },
		"went back": func(o *oracle, _ []version) {
			o.take("p", line{Outcome: stateChanged, State: []version{{"a", "int_1", 1, "r1"}}})
		},
		"which the audit log does not have": func(o *oracle, _ []version) {
			o.take("p", line{Outcome: stateChanged, State: []version{{"b", "int_3", 1, "r9"}}})
		},
		"installed twice": func(o *oracle, _ []version) {
			o.audit([]store.Entry{{ID: "5", RequestID: "r6", Slug: "a", ResourceID: "int_3", Revision: 1, Record: &store.Record{}}})
		},
	} {
		o, end := sound()
		damage(o, end)
		if got := o.violations(end); !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%s: got %q", want, got)
		}
	}
}
