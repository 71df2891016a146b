package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/app"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

const (
	demoTable = "datafly.events.stream"
	// demoKept bounds the rows the emulator keeps for the summary; its counts
	// go on beyond it.
	demoKept = 2000
	// demoQuiet is how long nothing may arrive at the end before the demo
	// stops waiting and counts what is there.
	demoQuiet = 30 * time.Second
)

// demo is one run: Kafka, the workspace, the bridge and the producer.
type demo struct {
	o      demoOptions
	screen *liveLine
	log    zapcore.WriteSyncer
	// logging, if not nil, is told in which form the log is written.
	logging func(config.Log)

	workspace *emulator.Emulator
	table     *emulator.Table
	brokers   string
	admin     *kgo.Client
	producer  *producer
	bridge    *app.App
	acks      ackTimes
}

func (d *demo) run(ctx context.Context) (report *demoReport, err error) {
	// What is set up here is torn down in reverse, also when ctx has ended.
	down := context.WithoutCancel(ctx)
	if d.workspace, err = emulator.New(emulator.Config{MaxRows: demoKept, Latency: d.o.latency}); err != nil {
		return nil, err
	}
	if err := d.workspace.Start("127.0.0.1:0"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.workspace.Close(down)) }()
	if err := d.workspace.StartZerobus("127.0.0.1:0"); err != nil {
		return nil, err
	}
	d.table = d.workspace.Table(demoTable)

	if d.brokers = d.o.kafka; d.brokers == "" {
		fake, ferr := kfake.NewCluster(kfake.NumBrokers(1))
		if ferr != nil {
			return nil, fmt.Errorf("starting the in-process kafka: %w", ferr)
		}
		defer fake.Close()
		d.brokers = strings.Join(fake.ListenAddrs(), ",")
	}
	if d.admin, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(d.brokers, ",")...), kgo.RetryTimeout(10*time.Second)); err != nil {
		return nil, fmt.Errorf("preparing the kafka client: %w; give --kafka as host:port", err)
	}
	defer d.admin.Close()
	if err := createTopic(ctx, d.admin, d.o.topic, d.o.partitions, d.o.kafka == ""); err != nil {
		return nil, err
	}
	if d.producer, err = newProducer(d.brokers, d.o); err != nil {
		return nil, err
	}
	defer d.producer.close()

	cfg, err := d.o.config(d.brokers, d.workspace)
	if err != nil {
		return nil, &usageError{err}
	}
	if d.logging != nil {
		d.logging(cfg.Log)
	}
	begun := make(chan struct{})
	carrying, stop := context.WithCancel(down)
	defer stop()
	carried := make(chan error, 1)
	go func() { // ends with carrying; waited for in settle, or below
		carried <- serve(carrying, app.Options{
			Pipelines: []pipeline.Config{{Settings: cfg}}, Log: newLogger(cfg.Log, d.log),
			Observer: func(next consumer.Observer) consumer.Observer { return &ackTap{Observer: next, acks: &d.acks} },
		}, func(a *app.App) {
			d.bridge = a
			d.screen.say("bridge: %s -> %s; live events at http://%s%s and metrics at /metrics", d.o.topic, demoTable, a.Addr(), ops.LivePath)
			close(begun)
		})
	}()
	select {
	case <-begun:
	case err := <-carried:
		return nil, err
	}

	watching, unwatch := context.WithCancel(down)
	var watch sync.WaitGroup
	watch.Go(func() { d.watch(watching) })
	report, err = d.drive(ctx, carried)
	unwatch()
	watch.Wait()
	if err != nil {
		stop()
		return nil, errors.Join(err, <-carried)
	}
	stop()
	if err := <-carried; err != nil {
		return nil, err
	}
	return report, d.count(down, report)
}

// drive produces, then waits until the other end has everything.
func (d *demo) drive(ctx context.Context, carried <-chan error) (*demoReport, error) {
	interrupted := ctx
	if d.o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.o.duration)
		defer cancel()
	}
	began := time.Now()
	if err := d.producer.run(ctx); err != nil {
		return nil, err
	}
	produced := d.producer.acked()
	if left := produced - d.done(); left > 0 && interrupted.Err() != nil {
		d.screen.say("stopped sending; %d events are on their way and waited for, Ctrl-C again ends it at once", left)
	}
	last, lastAt := int64(-1), time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		done := d.done()
		if done != last {
			last, lastAt = done, time.Now()
		}
		if done >= produced || time.Since(lastAt) > demoQuiet {
			return &demoReport{Produced: produced, Elapsed: time.Since(began), Kafka: d.o.kafka, Topic: d.o.topic}, nil
		}
		select {
		case <-tick.C:
		case err := <-carried:
			return nil, fmt.Errorf("the bridge ended early: %w", err)
		}
	}
}

// done is how many events have come to an end, as the bridge sees it. It only
// tells when to stop; what is reported is counted elsewhere.
func (d *demo) done() int64 {
	t := d.bridge.Status().Totals
	return t.RowsDelivered + t.EventsRejected + t.EventsFiltered
}

// watch shows the live line.
func (d *demo) watch(ctx context.Context) {
	every := time.Second
	if d.screen.bar != nil {
		every = barInterval
	}
	began := time.Now()
	var pc pace
	show := func() {
		pc.note(time.Now(), d.done())
		d.screen.show(d.progress(time.Since(began), &pc), d.line())
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			show()
			d.screen.end()
			return
		}
		show()
	}
}

// progress is the line for a terminal: how much of --events or --duration is
// over, and what came of it so far.
func (d *demo) progress(elapsed time.Duration, pc *pace) string {
	done := d.done()
	part := 0.0
	if d.o.events > 0 {
		part = float64(done) / float64(d.o.events)
	}
	if d.o.duration > 0 {
		part = max(part, elapsed.Seconds()/d.o.duration.Seconds())
	}
	_, p99 := d.acks.quantiles()
	line := gauge(100*min(part, 1)) + fmt.Sprintf("  %.0f events/s  lag %d", pc.rate(), max(d.producer.acked()-done, 0))
	if s := d.bridge.Status().Sink; s.Name != zerobus.Ready {
		return line + "  sink " + s.Name + ": " + s.Reason
	}
	t := d.bridge.Status().Totals
	return line + fmt.Sprintf("  rows %d  rejected %d  ack p99 %s", d.table.Count(), t.EventsRejected, round(p99))
}

func (d *demo) line() string {
	t := d.bridge.Status().Totals
	produced := d.producer.acked()
	lag := max(produced-d.done(), 0)
	p50, p99 := d.acks.quantiles()
	line := fmt.Sprintf("events in %d   rows landed %d   rejected %d   filtered %d   lag %d   ack p50 %s p99 %s",
		produced, d.table.Count(), t.EventsRejected, t.EventsFiltered, lag, round(p50), round(p99))
	if s := d.bridge.Status().Sink; s.Name != zerobus.Ready {
		line += "   sink " + s.Name + ": " + s.Reason
	}
	return line
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// ackTap passes everything on and keeps the ack times for the live line.
type ackTap struct {
	consumer.Observer
	acks *ackTimes
}

func (t *ackTap) RowsDelivered(topic string, partition int32, rows, bytes int, ack time.Duration) {
	t.acks.add(ack)
	t.Observer.RowsDelivered(topic, partition, rows, bytes, ack)
}

// createTopic makes the demo's topic. The in-process Kafka keeps everything in
// memory, so there old segments leave.
func createTopic(ctx context.Context, cl *kgo.Client, topic string, partitions int, inProcess bool) error {
	whole := ctx
	ctx, cancel := context.WithTimeout(whole, 20*time.Second)
	defer cancel()
	configs := map[string]*string{}
	if inProcess {
		configs["retention.bytes"] = kadm.StringPtr(fmt.Sprint(64 << 20))
		configs["segment.bytes"] = kadm.StringPtr(fmt.Sprint(16 << 20))
	}
	resp, err := kadm.NewClient(cl).CreateTopic(ctx, int32(partitions), -1, configs, topic)
	if err == nil {
		err = resp.Err
	}
	if context.Cause(whole) != nil {
		return errors.New("stopped before the first event; nothing was sent")
	}
	if err != nil {
		return fmt.Errorf("creating topic %s: %w; check that the broker is up and that topics may be created, or choose another --topic", topic, err)
	}
	return nil
}
