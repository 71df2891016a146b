package kafkatest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

// shared holds the clusters that the tests of one binary share, by their
// options. It is open only while [Main] runs, which closes them.
var shared clusters

type clusters struct {
	open atomic.Bool

	mu sync.Mutex // held while a cluster starts, so that it starts once
	m  map[string]*Cluster
}

// atOnce is how many parallel tests run at a time unless -parallel says so: they
// wait for groups and brokers far more than they work, so the usual number, that
// of the cores, would only stretch the waits. Each may have a broker of its own,
// of a third of a gigabyte.
const atOnce = "4"

// Main runs the tests of a binary, [atOnce] of the parallel ones at a time, closes the clusters they shared and looks for
// goroutines left behind, which opts may except. It returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }
func Main(m *testing.M, opts ...goleak.Option) int {
	if err := widen(); err != nil {
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
			fmt.Fprintln(os.Stderr, "kafkatest: goroutines were left behind:", err)
			code = 1
		}
	}
	return code
}

// widen sets -parallel where nobody has.
func widen() error {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if chosen {
		return nil
	}
	return flag.Set("test.parallel", atOnce)
}

// get returns the running cluster with these options, starting it for the first
// test that asks.
func (s *clusters) get(ctx context.Context, o Options) (*Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprintf("%+v", o) // maps print in key order
	if c := s.m[key]; c != nil {
		return c, nil
	}
	// Nobody stops a shared broker, so one that is not heard from is busy.
	patient := map[string]string{"broker.session.timeout.ms": "60000"}
	maps.Copy(patient, o.Config)
	o.Config = patient
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
