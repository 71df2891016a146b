// Package demo runs a real bridge between an in-process Kafka and an emulated
// workspace, over real sockets, and feeds it generated events. It counts what went
// in and what came out, each at its own end.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/app"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

const (
	// rowsKept bounds the rows that the emulator keeps for the report; its counts
	// continue beyond it.
	rowsKept = 2000
	// quietTimeout is how long nothing may arrive at the end before the demo stops
	// waiting and counts what is there.
	quietTimeout = 30 * time.Second
	// logBytes is what all partitions of the in-process Kafka keep of a topic: far more than
	// maxLag events of a kilobyte, so that nothing is removed before it is delivered. Old
	// records are removed every cleanEvery.
	logBytes   = 64 << 20
	maxLag     = 20_000
	cleanEvery = 2 * time.Second
)

// Options describe a run. MaxEvents, Topic, Transport, Log, Serve and Show are required.
type Options struct {
	Events         int           // to produce; 0: until Duration or the context ends, at most MaxEvents
	MaxEvents      int           // bounds the memory: the emulator keeps each message id, at 40 bytes per table
	Duration       time.Duration // 0: until Events or the context ends
	Rate           float64       // events per second; 0: as fast as possible
	Partitions     int           // of the topics that are created
	MalformedEvery int           // one event in so many is malformed; 0: none
	TombstoneEvery int           // one record in so many has no value; 0: none
	Seed           uint64        // determines the events
	Kafka          string        // brokers to use; "": in-process
	Topic          string
	Latency        emulator.Latency
	Transport      string
	OpsAddress     string
	LogLevel       string
	Sets           []string // of the bridge's configuration

	// Log returns the bridge's log.
	Log func(config.Log) *zap.Logger
	// Serve runs the app until ctx ends and calls listening before delivery begins.
	Serve func(ctx context.Context, o app.Options, listening func(*app.App)) error
	// Message shows a line about the run.
	Message func(format string, args ...any)
	// Show shows progress, at the start, every ShowEvery and at the end.
	Show      func(Progress)
	ShowEvery time.Duration
}

// ConfigError is a mistake in Options.Sets or the other settings of the bridge.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the problems of the configuration.
func (e *ConfigError) Unwrap() error { return e.Err }

// Progress is a moment of a run, as the bridge sees it.
type Progress struct {
	Elapsed                                  time.Duration
	Produced, Done, Rows, Rejected, Filtered int64
	AckP50, AckP99                           time.Duration
	SinkProblem                              string // why rows are not taken now; "" if they are
}

// Lag is how many events are produced and not done.
func (p Progress) Lag() int64 { return max(p.Produced-p.Done, 0) }

// Report is the result of a run. Produced was counted at the producer, by
// acknowledgement; Rows, Distinct and Duplicates in the table; Rejected in the
// dead-letter topic; Filtered by the bridge, since a filtered event leaves no
// other trace.
type Report struct {
	Produced   int64 `json:"produced"`
	Rows       int64 `json:"rows"`
	Distinct   int64 `json:"distinct"`
	Duplicates int64 `json:"duplicates"`
	Rejected   int64 `json:"rejected"`
	Filtered   int64 `json:"filtered"`
	Lost       int64 `json:"lost"`

	Elapsed         time.Duration    `json:"-"`
	ElapsedSeconds  float64          `json:"elapsed_seconds"`
	EventsPerSecond float64          `json:"events_per_second"`
	AckP50          float64          `json:"ack_p50_seconds"`
	AckP99          float64          `json:"ack_p99_seconds"`
	RejectedBy      map[string]int64 `json:"rejected_by_code"`
	Kafka           string           `json:"kafka,omitempty"`
	Topic           string           `json:"topic"`
	// Others are the rows in further tables, those of installed integrations.
	Others map[string]int64 `json:"other_tables,omitempty"`

	Newest []emulator.Row `json:"-"` // by event time, at most ten
}

// demo is one run: Kafka, the workspace, the bridge and the producer.
type demo struct {
	o         Options
	open      bool // Options have no number of events
	workspace *emulator.Emulator
	table     *emulator.Table
	brokers   string
	admin     *kgo.Client
	producer  *producer
	bridge    *app.App
}

// Run runs a demo until its events are delivered. When ctx ends it stops
// producing, and waits for the events that are in flight.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	d := &demo{o: o, open: o.Events == 0}
	if d.open {
		d.o.Events = o.MaxEvents
	}
	// What is set up here is torn down in reverse, also when ctx has ended.
	down := context.WithoutCancel(ctx)
	if d.workspace, err = startWorkspace(o.Latency); d.workspace != nil {
		defer func() { err = errors.Join(err, d.workspace.Close(down)) }()
	}
	if err != nil {
		return nil, err
	}
	d.table = d.workspace.Table(Table)

	keep := int64(0) // bytes per partition
	if d.brokers = o.Kafka; d.brokers == "" {
		keep = logBytes / int64(o.Partitions)
		fake, ferr := startKafka(keep)
		if ferr != nil {
			return nil, ferr
		}
		defer fake.Close()
		d.brokers = strings.Join(fake.ListenAddrs(), ",")
	}
	if d.admin, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(d.brokers, ",")...), kgo.RetryTimeout(10*time.Second)); err != nil {
		return nil, fmt.Errorf("preparing the kafka client: %w; give --kafka as host:port", err)
	}
	defer d.admin.Close()
	if err := createTopic(ctx, d.admin, o.Topic, o.Partitions, keep); err != nil {
		return nil, err
	}
	if d.producer, err = newProducer(d.brokers, d.o); err != nil {
		return nil, err
	}
	defer d.producer.close()

	keyFile, removeKey, err := newKey()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, removeKey()) }()
	settings := d.settings(keyFile)
	running, stop := context.WithCancel(down)
	defer stop()
	ended, cfg, err := d.serve(running, settings)
	if taken := err; errors.Is(err, syscall.EADDRINUSE) {
		settings.Sets = append(slices.Clip(settings.Sets), "admin.enabled=false")
		if ended, cfg, err = d.serve(running, settings); err == nil {
			d.o.Message("this demo has no install API: %v, as in --set admin.address=127.0.0.1:0", taken)
		}
	}
	if err != nil {
		return nil, err
	}

	report, err = d.deliver(ctx, ended)
	stop()
	if err != nil {
		return nil, errors.Join(err, <-ended)
	}
	if err := <-ended; err != nil {
		return nil, err
	}
	return report, d.count(down, cfg, report)
}

// serve starts the bridge and returns when it listens. ended has its error at the end,
// then it is closed for who has the error already. cfg is of the demo's own integration.
func (d *demo) serve(ctx context.Context, settings config.Options) (ended <-chan error, cfg *config.Config, err error) {
	deployment, err := config.LoadDeployment(settings)
	if err != nil {
		return nil, nil, &ConfigError{err}
	}
	cfg = deployment.Integrations[0].Config
	begun, done := make(chan struct{}), make(chan error, 1)
	go func() { // ends with ctx; Run waits for done
		defer close(done)
		done <- d.o.Serve(ctx, app.Options{Deployment: deployment, Log: d.o.Log(cfg.Log), Network: networkOf(d.workspace)}, func(a *app.App) {
			d.bridge = a
			close(begun)
		})
	}()
	select {
	case <-begun:
		return done, cfg, nil
	case err := <-done:
		return nil, nil, err
	}
}

// settings are the configuration of the bridge, as a user would write it. The events are
// generated, so the console shows their values where only this machine reaches it.
func (d *demo) settings(keyFile string) config.Options {
	liveEvents := "metadata"
	if (ops.Settings{Address: d.o.OpsAddress}).Loopback() {
		liveEvents = "full"
	}
	return config.Options{
		File: os.DevNull,
		Env: []string{
			// A deployment of its own: its topics are beside those of others in a real Kafka.
			"BRIDGE_DEPLOYMENT=" + d.o.Topic, "BRIDGE_ADMIN_ENABLED=true", "BRIDGE_STORE_KEYS=" + keyFile,
			"BRIDGE_KAFKA_BROKERS=" + d.brokers, "BRIDGE_KAFKA_TOPICS=" + d.o.Topic, "BRIDGE_KAFKA_GROUP=" + d.o.Topic,
			"BRIDGE_ZEROBUS_WORKSPACE_URL=https://" + pageHost, "BRIDGE_ZEROBUS_TRANSPORT=" + d.o.Transport,
			"BRIDGE_ZEROBUS_ENDPOINT=" + d.workspace.ZerobusURL(), "BRIDGE_ZEROBUS_WORKSPACE_ID=" + emulator.DefaultWorkspaceID,
			"BRIDGE_ZEROBUS_TABLE=" + Table,
			"BRIDGE_ZEROBUS_CLIENT_ID=" + pageClientID, "BRIDGE_ZEROBUS_CLIENT_SECRET=" + pageClientSecret,
			"BRIDGE_LOG_FORMAT=console", "BRIDGE_OPS_LIVE_EVENTS=" + liveEvents,
		},
		Flags: map[string]string{"ops-address": d.o.OpsAddress, "log-level": d.o.LogLevel},
		Sets:  d.o.Sets,
	}
}

// deliver produces, waits until the bridge is done with everything, and shows
// progress meanwhile.
func (d *demo) deliver(ctx context.Context, ended <-chan error) (*Report, error) {
	began := time.Now()
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { d.watch(watching, began) })
	defer watch.Wait()
	defer unwatch()

	producing := ctx
	if d.o.Duration > 0 {
		var cancel context.CancelFunc
		producing, cancel = context.WithTimeout(ctx, d.o.Duration)
		defer cancel()
	}
	if err := d.producer.run(producing, func() int64 { return d.progress(began).Done }); err != nil {
		return nil, err
	}
	produced := d.producer.written.Load()
	if left := produced - d.progress(began).Done; left > 0 && ctx.Err() != nil {
		d.o.Message("stopped producing; waiting for %d events in flight, Ctrl-C again ends the demo at once", left)
	}
	last, lastAt := int64(-1), time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		done := d.progress(began).Done
		if done != last {
			last, lastAt = done, time.Now()
		}
		if done >= produced || time.Since(lastAt) > quietTimeout {
			p := d.progress(began)
			return &Report{Produced: produced, Elapsed: p.Elapsed, AckP50: p.AckP50.Seconds(), AckP99: p.AckP99.Seconds(), Kafka: d.o.Kafka, Topic: d.o.Topic}, nil
		}
		select {
		case <-tick.C:
		case err := <-ended:
			return nil, fmt.Errorf("the bridge ended early: %w", err)
		}
	}
}

// watch shows progress until ctx ends, and at the end.
func (d *demo) watch(ctx context.Context, began time.Time) {
	d.o.Message("bridge: %s -> %s; its state at http://%s, metrics at /metrics", d.o.Topic, Table, d.bridge.Addr())
	d.invite()
	tick := time.NewTicker(d.o.ShowEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.o.Show(d.progress(began))
		case <-ctx.Done():
			d.o.Show(d.progress(began))
			return
		}
	}
}

// own returns the state of the demo's own integration; others may be installed.
func (d *demo) own() ops.IntegrationStatus {
	for _, i := range d.bridge.Status().Integrations {
		if i.Integration == config.DefaultIntegration {
			return i
		}
	}
	return ops.IntegrationStatus{}
}

// progress returns the present counts of the demo's own integration. They decide when
// to stop; the report has counts of its own.
func (d *demo) progress(began time.Time) Progress {
	s := d.own()
	p := Progress{Elapsed: time.Since(began), Produced: d.producer.written.Load(), Rows: int64(d.table.Count()), Rejected: s.Totals.EventsRejected, Filtered: s.Totals.EventsFiltered}
	p.Done = s.Totals.RowsDelivered + p.Rejected + p.Filtered
	if s.Ack != nil {
		p.AckP50, p.AckP99 = seconds(s.Ack.P50), seconds(s.Ack.P99)
	}
	if s.Sink.Name != zerobus.Ready {
		p.SinkProblem = s.Sink.Name + ": " + s.Sink.Reason
	}
	return p
}

// count fills in the report from both ends of the run.
func (d *demo) count(ctx context.Context, cfg *config.Config, r *Report) error {
	r.Rows = int64(d.table.Count())
	r.Distinct = int64(d.table.Distinct("message_id"))
	r.Duplicates = r.Rows - r.Distinct
	r.Filtered = d.own().Totals.EventsFiltered
	for _, name := range d.workspace.Tables() {
		if rows := d.workspace.Table(name).Count(); name != Table && rows > 0 {
			if r.Others == nil {
				r.Others = map[string]int64{}
			}
			r.Others[name] = int64(rows)
		}
	}
	if err := d.countDeadLetters(ctx, cfg, r); err != nil {
		return fmt.Errorf("counting the dead letters: %w", err)
	}
	r.Lost = r.Produced - r.Distinct - r.Rejected - r.Filtered
	r.ElapsedSeconds = r.Elapsed.Seconds()
	r.EventsPerSecond = float64(r.Produced) / r.ElapsedSeconds

	rows := d.table.Newest(rowsKept)
	eventTime := func(row emulator.Row) string { v, _ := row.Value("event_timestamp"); return v }
	slices.SortStableFunc(rows, func(a, b emulator.Row) int { return cmp.Compare(eventTime(b), eventTime(a)) })
	r.Newest = rows[:min(10, len(rows))]
	return nil
}

// countDeadLetters counts every event in the dead-letter topic once, by its code.
func (d *demo) countDeadLetters(ctx context.Context, cfg *config.Config, r *Report) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cl, err := pipeline.NewKafkaClient(cfg, "", zap.NewNop())
	if err != nil {
		return err
	}
	defer cl.Close()
	deadLetters, err := pipeline.OpenDeadLetters(ctx, cl, cfg)
	if err != nil {
		return err
	}
	r.RejectedBy = map[string]int64{}
	return deadLetters.Each(ctx, func(l *deadletter.Record) error {
		r.Rejected += int64(l.Events.Count())
		r.RejectedBy[l.Code] += int64(l.Events.Count())
		return nil
	})
}

// startKafka starts an in-process Kafka, which has its logs in memory: each partition of a
// topic keeps about so many bytes.
func startKafka(keep int64) (*kfake.Cluster, error) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{
		"log.retention.bytes": fmt.Sprint(keep), "log.segment.bytes": fmt.Sprint(keep / 4), "log.cleaner.backoff.ms": fmt.Sprint(cleanEvery.Milliseconds()),
	}))
	if err != nil {
		return nil, fmt.Errorf("starting the in-process kafka: %w", err)
	}
	return cluster, nil
}

// createTopic creates the topic. The in-process Kafka removes old records only if a topic
// has a bound of its own: keep bytes per partition, 0 for that of the brokers.
func createTopic(ctx context.Context, cl *kgo.Client, topic string, partitions int, keep int64) error {
	creating, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	configs := map[string]*string{}
	if keep > 0 {
		configs["retention.bytes"] = kadm.StringPtr(fmt.Sprint(keep))
	}
	resp, err := kadm.NewClient(cl).CreateTopic(creating, int32(partitions), -1, configs, topic)
	if err == nil {
		err = resp.Err
	}
	if ctx.Err() != nil {
		return errors.New("stopped before the first event; nothing was sent")
	}
	if err != nil {
		return fmt.Errorf("creating topic %s: %w; check that the broker is up and that topics may be created, or choose another --topic", topic, err)
	}
	return nil
}
