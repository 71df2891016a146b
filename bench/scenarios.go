package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// scenarios in the order in which "all" runs them.
var scenarios = []struct {
	name, about string
	run         func(context.Context, *rig) (any, error)
}{
	{"throughput", "a full topic, as fast as possible, in turns with a consumer that only polls and with a naive bridge", throughput},
	{"peers", "a full topic, in turns with a consumer that only polls and with the programs of bench/peers: processor time per row", peers},
	{"costs", "what a row costs when events, table, topic, rejects, compression, security or cores differ, line by line beside the usual; and the first row", costs},
	{"latency", "a steady load: acknowledgement time, and the time from producing to the row", latency},
	{"rates", "1,000 to 10,000 events a second at three acknowledgement times: processor time per event, requests, time to the row", rates},
	{"memory", "a full topic and a sink that never answers: where resident memory ends", stalledSink},
	{"partitions", "the same topic in 1, 4, 64 and 256 partitions: processor time per row and memory", partitions},
	{"transports", "an acknowledgement time like the service's: the three transports side by side on 1, 4 and 16 partitions", transports},
	{"streams", "gRPC with 1, 2, 4 and 8 streams for 16 partitions, at three acknowledgement times", streams},
	{"acks", "one partition at four acknowledgement times: what topics are sized by", acks},
	{"bound", "many busy partitions and slow acknowledgements: peak memory beside the bound to plan with", bounds},
	{"scale", "eight members share a thousand partitions under a steady load and are replaced one by one; then one is killed", scale},
	{"crash", "a full topic, kill -9 and another start, with Writes of 5,000 and of 20,000 rows: what is in the table twice", crash},
	{"integrations", "1, 10 and 50 idle integrations in one process: memory, goroutines, connections, processor time; and the pause that adding one causes 20 others", integrations},
	{"neighbours", "15 integrations deliver full topics, alone and beside four that cannot deliver: the time it takes", neighbours},
	{"page", "the page of live events off, closed and open: processor time per row, and per second while nothing happens", pages},
	{"tracing", "traces off, of 100 and of 10,000 events a second: processor time per row", traced},
	{"versions", "this bridge and the one of --against in turns on a full topic: processor time per row, round by round", versions},
	{"startup", "the released binary: its size, and how long it takes to its first row", startup},
}

// full is the delivery of a full topic as fast as possible.
func (r *rig) full(topic string) delivery {
	return delivery{topic: topic, events: r.o.events, transport: r.o.transport}
}

// asSubject makes a subject of a delivery.
func (r *rig) asSubject(name string, d delivery) subject {
	return subject{name, func(ctx context.Context) (figures, error) { return r.deliver(ctx, d) }}
}

func throughput(ctx context.Context, r *rig) (any, error) {
	var out comparisons
	for _, codec := range r.o.codecs {
		topic, err := r.topic(ctx, r.o.partitions, codec, r.o.events)
		if err != nil {
			return nil, err
		}
		c, err := r.takeTurns(ctx, codec, r.o.rounds, r.asSubject("bridge", r.full(topic)),
			subject{"poll-only", func(ctx context.Context) (figures, error) { return r.pollAll(ctx, topic) }},
			subject{"naive", func(ctx context.Context) (figures, error) { return r.naiveAll(ctx, topic) }})
		if err != nil {
			return nil, err
		}
		if r.o.profile != "" {
			d := r.full(topic)
			d.sets, d.beside = []string{"ops.pprof=true"}, r.profiles(float64(r.o.events)/c.Series[0].Median.PerSecond)
			if _, err := r.deliver(ctx, d); err != nil {
				return nil, err
			}
		}
		if err := r.drop(ctx, topic); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// profiles writes a processor profile of the bridge over the seconds of a run, and
// what it allocated.
func (r *rig) profiles(seconds float64) func(ctx context.Context, ops string) (end func() error) {
	return func(ctx context.Context, ops string) func() error {
		done := make(chan error, 1)
		go func() { // ends with the profile; the function returned waits for it
			var err error
			whole := max(int(math.Ceil(seconds*3/4)), 1) // 0 would be the default of half a minute
			for path, file := range map[string]string{fmt.Sprintf("profile?seconds=%d", whole): r.o.profile, "allocs": r.o.profile + ".allocs"} {
				text, ferr := request(ctx, http.MethodGet, "http://"+ops+"/debug/pprof/"+path, nil)
				if ferr == nil {
					ferr = os.WriteFile(file, text, 0o600)
				}
				err = errors.Join(err, ferr)
			}
			r.logf("profiles written to %s and %s.allocs; read them with go tool pprof", r.o.profile, r.o.profile)
			done <- err
		}()
		return func() error { return <-done }
	}
}

// partitions has the bridge read the same events from topics of several widths.
func partitions(ctx context.Context, r *rig) (any, error) {
	var subjects []subject
	var topics []string
	for _, n := range []int{1, 4, 64, 256} {
		topic, err := r.topic(ctx, n, r.o.codecs[0], r.o.events)
		if err != nil {
			return nil, err
		}
		topics = append(topics, topic)
		subjects = append(subjects, r.asSubject(strconv.Itoa(n)+" partitions", r.full(topic)))
	}
	c, err := r.takeTurns(ctx, "", min(r.o.rounds, 3), subjects...)
	for _, topic := range topics {
		err = errors.Join(err, r.drop(ctx, topic))
	}
	return comparisons{c}, err
}

// versions has the bridge of --against and this one deliver the same topic.
func versions(ctx context.Context, r *rig) (any, error) {
	if r.o.against == "" {
		if r.o.what == "all" {
			return comparisons{{Note: "versions: left out, because --against names no other bridge\n"}}, nil
		}
		return nil, errors.New("versions compares two binaries: name the other one with --against FILE")
	}
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], r.o.events)
	if err != nil {
		return nil, err
	}
	old := r.full(topic)
	old.binary = r.o.against
	c, err := r.takeTurns(ctx, r.o.transport, r.o.rounds, r.asSubject("old", old), r.asSubject("new", r.full(topic)))
	if err == nil {
		c.Note = verdict(c.Series[0].Runs, c.Series[1].Runs)
	}
	return comparisons{c}, errors.Join(err, r.drop(ctx, topic))
}

// slower is the difference of processor time per row from which versions calls the new
// bridge slower.
const slower = 0.05

// verdict compares two subjects of the same rounds. A single round proves nothing, so
// most of them must show the difference, and so must the median.
func verdict(before, after []figures) string {
	var ratios []float64
	beyond := 0
	for round, f := range after {
		ratio := f.CPUMicros / before[round].CPUMicros
		ratios = append(ratios, ratio)
		if ratio > 1+slower {
			beyond++
		}
	}
	median := medianOf(ratios)
	finding := "not slower"
	if median > 1+slower && 2*beyond > len(ratios) {
		finding = "slower"
	}
	return fmt.Sprintf("verdict: new is %s than old: CPU per row %+.1f %% (least %+.1f %%, most %+.1f %%; %d of %d rounds are beyond %+.0f %%)\n", finding,
		100*(median-1), 100*(slices.Min(ratios)-1), 100*(slices.Max(ratios)-1), beyond, len(ratios), 100*slower)
}

// Sizes of delivery.max_buffered: the default, and one that is no limit when 16
// partitions wait for acknowledgements.
const (
	budget     = 96
	wideBudget = 256
)

// terms are what the subjects of a comparison with slow acknowledgements share.
type terms struct {
	partitions int
	ack        emulator.Latency // before rows are acknowledged
	buffered   int              // MiB of delivery.max_buffered
}

// withAcks compares ways of writing one topic to a service that waits before it
// acknowledges. It measures from an eighth to three quarters of the topic: buffers
// are full at both ends, so what is read and what is written is the same.
func (r *rig) withAcks(ctx context.Context, t terms, ways []delivery, names ...string) (c comparison, err error) {
	events := r.o.events * min(t.partitions, 4) * 3 / 4
	w, err := startWorkspace(ctx, r.dir, emulatorSettings{TLS: r.o.tls, Ack: t.ack})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	topic, err := r.topic(ctx, t.partitions, r.o.codecs[0], events)
	if err != nil {
		return c, err
	}
	var subjects []subject
	for i, d := range ways {
		d.topic, d.events, d.until, d.to = topic, events, events*3/4, w
		d.sets = append([]string{fmt.Sprintf("delivery.max_buffered=%dMiB", t.buffered)}, d.sets...)
		d.bound = boundOf(t.buffered, t.partitions)
		subjects = append(subjects, r.asSubject(names[i], d))
	}
	c, err = r.takeTurns(ctx, fmt.Sprintf("%d partitions, ack %s, %d MiB", t.partitions, t.ack, t.buffered), r.o.rounds, subjects...)
	return c, errors.Join(err, r.drop(ctx, topic))
}

func (r *rig) allWithAcks(ctx context.Context, all []terms, ways []delivery, names ...string) (any, error) {
	var out comparisons
	for _, t := range all {
		c, err := r.withAcks(ctx, t, ways, names...)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// boundOf is the resident memory to plan with for one broker, in bytes;
// delivery.max_buffered is in MiB.
func boundOf(buffered, partitions int) int64 {
	c := config.Defaults()
	return memory.Plan{
		MaxBuffered: int64(buffered) << 20, MaxBytes: int64(c.Delivery.MaxBytes), FetchMaxBytes: int64(c.Kafka.FetchMaxBytes),
		Brokers: 1, Partitions: partitions,
	}.Bound()
}

// transports compares the three transports, gRPC with both formats of a row, at the
// acknowledgement time of --ack.
func transports(ctx context.Context, r *rig) (any, error) {
	grpc := func(format string) delivery {
		return delivery{transport: zerobus.TransportGRPC, sets: []string{"zerobus.record_format=" + format}}
	}
	return r.allWithAcks(ctx, []terms{{1, r.o.ack, budget}, {4, r.o.ack, budget}, {16, r.o.ack, budget}, {16, r.o.ack, wideBudget}},
		[]delivery{{transport: zerobus.TransportWorkspace}, {transport: zerobus.TransportREST}, grpc(zerobus.FormatProtobuf), grpc(zerobus.FormatJSON)},
		"workspace", "rest", "grpc, protobuf", "grpc, json")
}

// streams compares numbers of shared gRPC streams, and one stream with more room, at
// the acknowledgement time of --ack, at its median every time, and at none. Where the
// time varies, one stream is slower than several: a long time drawn for one batch
// delays all that follow.
func streams(ctx context.Context, r *rig) (any, error) {
	var ways []delivery
	names := []string{"1", "2", "4", "8", "1 of 128 MiB"}
	for _, n := range names {
		sets := []string{"zerobus.streams=" + n[:1]}
		if strings.Contains(n, "MiB") {
			sets = append(sets, "zerobus.max_in_flight=128MiB")
		}
		ways = append(ways, delivery{transport: zerobus.TransportGRPC, sets: sets})
	}
	return r.allWithAcks(ctx, []terms{{16, r.o.ack, wideBudget}, {16, emulator.Latency{P50: r.o.ack.P50}, wideBudget}, {16, emulator.Latency{}, wideBudget}}, ways, names...)
}

// acks measures what one partition delivers at several acknowledgement times.
func acks(ctx context.Context, r *rig) (any, error) {
	var all []terms
	for _, ack := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond} {
		all = append(all, terms{1, emulator.Latency{P50: ack}, budget})
	}
	return r.allWithAcks(ctx, all, []delivery{{transport: r.o.transport}}, r.o.transport)
}

// bounds measures the memory of a bridge with many busy partitions and slow
// acknowledgements, which needs the most.
func bounds(ctx context.Context, r *rig) (any, error) {
	ack := r.o.ack
	return r.allWithAcks(ctx, []terms{{4, ack, budget}, {16, ack, budget}, {64, ack, budget}, {256, ack, budget}, {16, ack, wideBudget}, {64, ack, wideBudget}},
		[]delivery{{transport: r.o.transport}}, r.o.transport)
}

// idleFor is how long an idle bridge is watched.
const idleFor = 5 * time.Second

// pages has the bridge deliver the same topic with the page of live events off,
// closed and open.
func pages(ctx context.Context, r *rig) (any, error) {
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], r.o.events)
	if err != nil {
		return nil, err
	}
	var subjects []subject
	var all []delivery
	for _, way := range []struct {
		name, mode string
		viewers    int
	}{{"off", "off", 0}, {"metadata, closed", "metadata", 0}, {"full, closed", "full", 0}, {"metadata, open", "metadata", 1}, {"full, open", "full", 1}, {"full, open 4 times", "full", 4}} {
		d := r.full(topic)
		d.sets, d.beside = []string{"ops.live_events=" + way.mode}, viewers(way.viewers)
		all, subjects = append(all, d), append(subjects, r.asSubject(way.name, d))
	}
	c, err := r.takeTurns(ctx, "", r.o.rounds, subjects...)
	for i, d := range all {
		if err == nil {
			c.Series[i].Median.Idle, err = r.idle(ctx, d)
		}
	}
	return comparisons{c}, errors.Join(err, r.drop(ctx, topic))
}

// viewers opens the page n times: the requests of a browser, without its own cost.
func viewers(n int) func(ctx context.Context, ops string) (end func() error) {
	return func(ctx context.Context, ops string) (end func() error) {
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, n)
		for range n {
			go func() { done <- view(ctx, ops) }() // ends with ctx; end waits for it
		}
		return func() error {
			cancel()
			var errs []error
			for range n {
				if err := <-done; !errors.Is(err, context.Canceled) {
					errs = append(errs, fmt.Errorf("the viewer ended: %w", err))
				}
			}
			return errors.Join(errs...)
		}
	}
}

// view reads the stream of live events until ctx ends; it always returns an error.
func view(ctx context.Context, ops string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ops+"/live/stream", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the stream answered %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, io.ErrUnexpectedEOF)
}

// idle measures a bridge after it has delivered everything, as a share of one core.
func (r *rig) idle(ctx context.Context, d delivery) (share float64, err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return 0, err
	}
	b, err := r.startBridge(ctx, d)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()
	if err := r.workspace.wait(ctx, d.events); err != nil {
		return 0, err
	}
	end := d.beside(ctx, b.ops)
	defer func() { err = errors.Join(err, end()) }()
	var at [2]cpuTimes
	for i := range at {
		if err := pause(ctx, idleFor/time.Duration(2-i)); err != nil { // half of it until it is idle
			return 0, err
		}
		if at[i], err = readCPU(b.pid); err != nil {
			return 0, err
		}
	}
	return float64(at[1].subject-at[0].subject) / float64(at[1].at.Sub(at[0].at)), nil
}

// traced has the bridge deliver the same topic without traces and with. The events
// have no trace context, so that each is sampled until the bound is reached.
func traced(ctx context.Context, r *rig) (any, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the collector: %w", err)
	}
	var received atomic.Int64 // bytes
	collector := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n, _ := io.Copy(io.Discard, req.Body)
		received.Add(n)
		w.Header().Set("Content-Type", "application/x-protobuf") // an empty answer: all accepted
	})}
	done := make(chan struct{})
	go func() { // ends with Close; waited for below
		defer close(done)
		_ = collector.Serve(listener)
	}()
	defer func() {
		_ = collector.Close() // every delivery has ended
		<-done
	}()
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], r.o.events)
	if err != nil {
		return nil, err
	}
	var subjects []subject
	for _, way := range []struct{ name, most string }{{"off", ""}, {"100 a second, the default", "100"}, {"10,000 a second", "10000"}} {
		d := r.full(topic)
		if way.most != "" {
			d.env = []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT=http://" + listener.Addr().String(), "BRIDGE_TRACING_MAX_PER_SECOND=" + way.most}
		}
		subjects = append(subjects, subject{way.name, func(ctx context.Context) (figures, error) {
			before := received.Load()
			f, err := r.deliver(ctx, d)
			if sent := received.Load() - before; err == nil && (sent > 0) != (way.most != "") {
				err = fmt.Errorf("the collector received %d bytes", sent)
			}
			return f, err
		}})
	}
	c, err := r.takeTurns(ctx, "", r.o.rounds, subjects...)
	return comparisons{c}, errors.Join(err, r.drop(ctx, topic))
}

// startup measures the binary as make build builds it.
func startup(ctx context.Context, r *rig) (any, error) {
	released := filepath.Join(r.dir, "released")
	if err := buildtest.Build(ctx, released, "-trimpath", "-ldflags", "-s -w"); err != nil {
		return nil, err
	}
	info, err := os.Stat(released)
	if err != nil {
		return nil, err
	}
	topic, err := r.topic(ctx, 1, r.o.codecs[0], 1000)
	if err != nil {
		return nil, err
	}
	subjects := []subject{{"bridge version", func(ctx context.Context) (f figures, err error) {
		began := time.Now()
		text, err := exec.CommandContext(ctx, released, "version").CombinedOutput()
		f.FirstRow = time.Since(began).Seconds()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, text)
		}
		return f, err
	}}}
	for _, transport := range []string{zerobus.TransportWorkspace, zerobus.TransportREST, zerobus.TransportGRPC} {
		subjects = append(subjects, subject{transport, func(ctx context.Context) (figures, error) {
			first, err := r.firstRow(ctx, delivery{topic: topic, transport: transport, binary: released})
			return figures{FirstRow: first.Seconds()}, err
		}})
	}
	c, err := r.takeTurns(ctx, "", 4*r.o.rounds, subjects...)
	c.Note = fmt.Sprintf("\nbinary (CGO_ENABLED=0 -trimpath -ldflags '-s -w'): %.1f MiB; first row: from the start of the process to the first row in the table\n", mib(info.Size()))
	return comparisons{c}, errors.Join(err, r.drop(ctx, topic))
}

// firstRow starts the bridge and waits for its first row.
func (r *rig) firstRow(ctx context.Context, d delivery) (took time.Duration, err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return 0, err
	}
	began := time.Now()
	b, err := r.startBridge(ctx, d)
	if err != nil {
		return 0, err
	}
	alive, cancel := b.alive(ctx)
	defer cancel()
	err = r.workspace.wait(alive, 1)
	took = time.Since(began)
	return took, errors.Join(err, b.stop())
}
