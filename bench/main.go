// Command bench measures the bridge as a process. It builds cmd/bridge and starts it
// between a broker and the emulated workspace, each in a process of its own. It reads
// processor time and memory from outside.
//
//	go -C bench run . --help
//
// Figures are read from /proc, so it measures on Linux only. What the figures
// mean, and how they were taken for the documentation, is in
// docs/performance.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var code int
	if started, err := runRole(ctx); started {
		code = failed(err, os.Stderr)
	} else {
		code = bench(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	stop()
	os.Exit(code)
}

// options are the command line.
type options struct {
	what       string
	events     int
	rounds     int
	partitions int
	codecs     []string
	transport  string
	ack        emulator.Latency
	tls        bool
	apache     bool
	rate       int
	load       float64
	duration   time.Duration
	stall      time.Duration
	wide       int
	across     int // partitions, for scale
	members    int
	idle       []int    // numbers of integrations
	groups     []string // of groupKinds
	timeout    time.Duration
	bridge     string
	against    string
	profile    string
	peers      []string // files
	lines      []string // of costs, by how their names begin
	sets       []string
	rates      []int
	acks       []time.Duration
	transports []string
	pages      []string
	given      map[string]bool // flags of the command line
	json       bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{what: "all"}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		o.what, args = args[0], args[1:]
	}
	var codecs, groups, idle, output, rates, acks, transports, pages string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { usage(f) }
	f.IntVar(&o.events, "events", 400_000, "`number` of events in the topic")
	f.IntVar(&o.rounds, "rounds", 5, "times each subject runs, in turns; rates: once unless given")
	f.IntVar(&o.partitions, "partitions", 4, "partitions of the topic")
	f.StringVar(&codecs, "codec", "lz4", "compression of the topic: lz4, zstd, snappy, gzip or none; lz4,none for both in throughput")
	f.StringVar(&o.transport, "transport", zerobus.TransportWorkspace, "throughput, memory, partitions, acks, bound, crash, integrations: `workspace`, rest or grpc")
	f.TextVar(&o.ack, "ack", emulator.Latency{P50: 150 * time.Millisecond, P95: 500 * time.Millisecond}, "transports, streams, bound: `time` until rows are acknowledged, such as 20ms or p50=150ms,p95=500ms")
	f.BoolVar(&o.tls, "tls", false, "write rows over TLS")
	f.BoolVar(&o.apache, "apache", false, "use Apache Kafka (needs Java and Maven) instead of the in-process broker of franz-go")
	f.IntVar(&o.rate, "rate", 0, "latency, scale: `events` per second; 0 takes --load, in scale two for each partition")
	f.Float64Var(&o.load, "load", 0.5, "latency: `share` of what is delivered while the producer is at its maximum, which is measured first")
	f.DurationVar(&o.duration, "duration", 15*time.Second, "latency: how long the load lasts once it is steady; rates: the same, 3s unless given; integrations: how long each look lasts")
	f.DurationVar(&o.stall, "stall", 20*time.Second, "memory: how long the sink does not answer")
	f.IntVar(&o.wide, "wide", 300, "memory: partitions of the second topic")
	f.IntVar(&o.across, "across", 1000, "scale: partitions of the topic")
	f.IntVar(&o.members, "members", 8, "scale: members of the group")
	f.StringVar(&groups, "groups", strings.Join(groupKinds, ","), "scale: `kinds` of groups: classic (cooperative-sticky) or consumer (KIP-848), each with -static members or without")
	f.StringVar(&idle, "integrations", "1,10,50", "integrations: `numbers` of idle ones, two at least")
	f.DurationVar(&o.timeout, "timeout", 40*time.Minute, "give up after this time")
	f.StringVar(&o.bridge, "bridge", "", "`file` of a bridge that is built already (default: build ./cmd/bridge)")
	f.StringVar(&o.against, "against", "", "versions, rates: `file` of the bridge to compare with")
	f.StringVar(&o.profile, "profile", "", "throughput, rates: write a processor profile of the bridge's last round to this `file`")
	f.Func("set", "a `key=value` of the bridge's configuration, in rates not for the bridge of --against; repeatable", func(s string) error {
		o.sets = append(o.sets, s)
		return nil
	})
	f.Func("peer", "peers: `file` that describes a program to compare with; repeatable (default: all of bench/peers)", func(s string) error {
		o.peers = append(o.peers, s)
		return nil
	})
	f.Func("lines", "costs: the `beginnings` of the lines to measure, such as size,codec zstd (default: all)", func(s string) error {
		o.lines = strings.Split(s, ",")
		return nil
	})
	f.StringVar(&rates, "rates", "1000,3000,10000", "rates: `numbers` of events per second")
	f.StringVar(&acks, "acks", "1ms,30ms,150ms", "rates, crash: `times` until rows are acknowledged")
	f.StringVar(&transports, "transports", "workspace,grpc", "rates: `names` of transports")
	f.StringVar(&pages, "pages", "closed,open", "rates: whether somebody looks at the page of live events: closed, open or both; open at the first of --acks only")
	f.StringVar(&output, "output", "text", "text or json")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	o.codecs, o.groups = strings.Split(codecs, ","), strings.Split(groups, ",")
	o.transports, o.pages = strings.Split(transports, ","), strings.Split(pages, ",")
	o.given = map[string]bool{}
	f.Visit(func(f *flag.Flag) { o.given[f.Name] = true })
	o.json = output == "json"
	for _, text := range strings.Split(rates, ",") {
		rate, err := strconv.Atoi(text)
		if err != nil || rate < 1 {
			return o, fmt.Errorf("--rates names %q; take numbers of events per second", text)
		}
		o.rates = append(o.rates, rate)
	}
	for _, text := range strings.Split(acks, ",") {
		ack, err := time.ParseDuration(text)
		if err != nil || ack < 0 {
			return o, fmt.Errorf("--acks names %q; take times such as 30ms", text)
		}
		o.acks = append(o.acks, ack)
	}
	for _, n := range strings.Split(idle, ",") {
		count, err := strconv.Atoi(n)
		if err != nil || count < 1 || count > 250 {
			return o, fmt.Errorf("--integrations names %q; take numbers from 1 to 250", n)
		}
		o.idle = append(o.idle, count)
	}
	return o, o.check(f.Args(), output)
}

func (o *options) check(rest []string, output string) error {
	known := []string{"all"}
	for _, m := range scenarios {
		known = append(known, m.name)
	}
	switch {
	case !slices.Contains(known, o.what):
		return fmt.Errorf("unknown scenario %q; it is one of %s", o.what, strings.Join(known, ", "))
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q; the scenario comes first, then the flags", rest[0])
	case o.events < 1000 || o.events > 20_000_000:
		return fmt.Errorf("--events is %d; take 1000 to 20000000", o.events)
	case o.rounds < 1 || o.partitions < 1 || o.wide < 1 || o.members < 1:
		return errors.New("--rounds, --partitions, --wide and --members are at least 1")
	case len(o.idle) < 2 || o.idle[0] == o.idle[len(o.idle)-1]:
		return errors.New("--integrations needs two different numbers, so that one more can be computed")
	case o.across < o.members:
		return fmt.Errorf("--across is %d; a member without a partition cannot be timed, so take at least --members %d", o.across, o.members)
	case o.rate < 0 || o.load <= 0 || o.load > 1:
		return errors.New("--rate is not negative and --load is above 0 and at most 1")
	case o.duration <= 0 || o.stall <= 0 || o.timeout <= 0:
		return errors.New("--duration, --stall and --timeout are above 0")
	case protocols[o.transport] == "":
		return fmt.Errorf("--transport is %q; take workspace, rest or grpc", o.transport)
	case o.transport != zerobus.TransportWorkspace && o.what == "latency":
		return errors.New("latency is taken with transport workspace only: only its requests are timed; leave --transport out")
	case o.tls && o.what == "peers":
		return errors.New("peers are measured over HTTP in clear, for which every program is set up; leave --tls out")
	case output != "text" && output != "json":
		return fmt.Errorf("--output is %q; take text or json", output)
	}
	for _, name := range o.transports {
		if protocols[name] == "" {
			return fmt.Errorf("--transports names %q; take of workspace, rest and grpc", name)
		}
	}
	for _, page := range o.pages {
		if page != "open" && page != "closed" {
			return fmt.Errorf("--pages names %q; take closed, open or both", page)
		}
	}
	for _, kind := range o.groups {
		if !slices.Contains(groupKinds, kind) {
			return fmt.Errorf("--groups names %q; take of %s", kind, strings.Join(groupKinds, ", "))
		}
	}
	for _, c := range o.codecs {
		if _, known := codecs[c]; !known {
			return fmt.Errorf("--codec names %q; take lz4, zstd, snappy, gzip or none", c)
		}
	}
	for _, line := range o.lines {
		if !slices.ContainsFunc(costLines, func(l costLine) bool { return strings.HasPrefix(l.name, line) }) {
			return fmt.Errorf("--lines names %q, with which no line begins", line)
		}
	}
	return nil
}

func usage(f *flag.FlagSet) {
	w := f.Output()
	fmt.Fprint(w, "bench measures the bridge as a process, on this machine, over loopback.\n\n  go -C bench run . [scenario] [flags]\n\nScenarios (default all):\n")
	for _, m := range scenarios {
		fmt.Fprintf(w, "  %-12s %s\n", m.name, m.about)
	}
	fmt.Fprint(w, `
Examples:
  go -C bench run .                                         everything, about half an hour
  go -C bench run . throughput --codec lz4,none             with a compressed and an uncompressed topic
  go -C bench run . throughput --tls --rounds 7             rows over HTTPS
  go -C bench run . throughput --apache                     from Apache Kafka
  go -C bench run . throughput --transport grpc --tls       rows over gRPC
  go -C bench run . transports --rounds 3
  go -C bench run . throughput --profile cpu.pprof --rounds 1
  go -C bench run . peers --rounds 5
  go -C bench run . costs --lines size,columns --rounds 3
  go -C bench run . latency --rate 10000
  go -C bench run . rates --rates 3000 --acks 1ms --against old/bridge --rounds 5
  go -C bench run . scale --groups classic,consumer
  go -C bench run . scale --apache --across 300
  go -C bench run . crash --acks 150ms --transport grpc
  go -C bench run . integrations --duration 60s --transport grpc
  go -C bench run . memory --stall 60s --output json

Flags:
`)
	f.PrintDefaults()
}

// bench is the command. The exit code is 2 for a command line that is wrong, 1
// for anything that failed, lost rows included.
func bench(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done after --timeout %s", o.timeout))
	defer cancel()
	return failed(measure(ctx, o, stdout, stderr), stderr)
}

func failed(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "bench: %v\n", err)
	return 1
}

func measure(ctx context.Context, o *options, stdout, stderr io.Writer) (err error) {
	r, err := newRig(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	results := map[string]any{"machine": r.machine}
	for _, m := range scenarios {
		if o.what != "all" && o.what != m.name {
			continue
		}
		r.logf("%s: %s", m.name, m.about)
		result, err := m.run(ctx, r)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = fmt.Errorf("%w (%w)", err, cause)
			}
			return fmt.Errorf("%s: %w", m.name, err)
		}
		results[m.name] = result
		if !o.json {
			fmt.Fprintf(stdout, "\n%s\n\n%s", m.name, result)
		}
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(results)
	}
	_, err = fmt.Fprintf(stdout, "\n%s\n", r.machine)
	return err
}
