package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/bench/naive"
	"github.com/datafly/bridge/zerobus/emulator"
)

// runNaive is the role of the naive bridge: it polls with franz-go, writes as one
// would write it first, and commits.
func runNaive(ctx context.Context, settings []byte) error {
	r, err := readingFrom(settings)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(r.options(),
		kgo.DisableAutoCommit(),
	)...)
	if err != nil {
		return fmt.Errorf("preparing the kafka consumer: %w", err)
	}
	defer cl.Close()
	var ca []byte
	if r.CA != "" {
		ca = []byte(r.CA)
	}
	w, err := naive.NewWriter(ctx, serviceAt(r.Workspace, ca))
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		fetches := cl.PollRecords(ctx, naive.MaxRows)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("polling %s: %w", r.Topic, err)
		}
		records := fetches.Records()
		for _, rec := range records {
			if err := w.Add(rec.Value); err != nil {
				return fmt.Errorf("decoding offset %d of partition %d: %w", rec.Offset, rec.Partition, err)
			}
		}
		if err = w.Flush(ctx); err == nil {
			err = cl.CommitRecords(ctx, records...)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// serviceAt is how the naive bridge reaches the emulated workspace.
func serviceAt(url string, ca []byte) naive.Config {
	return naive.Config{Workspace: url, CA: ca, ClientID: emulator.DefaultClientID, ClientSecret: emulator.DefaultClientSecret, Table: benchTable}
}

// naiveAll has the naive bridge deliver a quarter of the topic, which takes as long
// as the others need for all of it.
func (r *rig) naiveAll(ctx context.Context, topic string) (f figures, err error) {
	c, err := r.startNaive(ctx, topic)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	return r.watch(ctx, c, warm(r.o.events)/2, warm(r.o.events)/2+r.o.events/4)
}

// startNaive starts the naive bridge on a topic, with an empty table.
func (r *rig) startNaive(ctx context.Context, topic string) (*child, error) {
	if err := r.workspace.reset(ctx); err != nil {
		return nil, err
	}
	return startRole(ctx, r.dir, "naive", reading{
		Brokers: r.brokers, Topic: topic, Group: r.name("group"), Workspace: r.workspace.at.URL, CA: r.workspace.at.CA,
	})
}

// watch measures a child that delivers, from one number of rows in the table to
// another. It sees nothing of the child but its processes.
func (r *rig) watch(ctx context.Context, c *child, from, until int) (f figures, err error) {
	ctx, cancel := c.alive(ctx)
	defer cancel()
	var rows [2]int
	var at [2]cpuTimes
	for i, n := range []int{from, until} {
		if err := r.workspace.wait(ctx, n); err != nil {
			return f, err
		}
		if rows[i], _, err = r.workspace.counts(ctx); err != nil {
			return f, err
		}
		if at[i], err = readCPU(c.pid); err != nil {
			return f, err
		}
	}
	f = newFigures(rows[1]-rows[0], at[0], at[1])
	_, peak, err := memoryOfTree(c.pid)
	f.PeakMemory = float64(peak)
	return f, err
}
