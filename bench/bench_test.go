package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain runs the roles too: the scenarios start this binary again.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if started, err := runRole(ctx); started {
		stop()
		os.Exit(failed(err, os.Stderr))
	}
	stop()
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

func TestCommandLine(t *testing.T) {
	for _, tc := range []struct {
		args string
		want string // in the error; empty for none
	}{
		{"", ""},
		{"latency --rate 10 --output json", ""},
		{"speed", `unknown scenario "speed"`},
		{"memory later", `unexpected argument "later"`},
		{"--events 10", "--events is 10"},
		{"--events 90000000", "--events is 90000000"},
		{"--rounds 0", "at least 1"},
		{"--load 1.5", "at most 1"},
		{"--stall 0s", "above 0"},
		{"--codec zip", `names "zip"`},
		{"--transport soap", `--transport is "soap"`},
		{"throughput --transport grpc --tls", ""},
		{"latency --transport rest", "transport workspace only"},
		{"transports --ack soon", "soon"},
		{"scale --members 9 --across 8", "--across is 8"},
		{"scale --members 0", "at least 1"},
		{"scale --groups share", `names "share"`},
		{"integrations --integrations 1,none", `names "none"`},
		{"integrations --integrations 10", "two different numbers"},
		{"integrations --integrations 1,300", `names "300"`},
		{"--output xml", `"xml"`},
		{"rates --rates 50 --acks 1ms,0s --transports rest --pages open", ""},
		{"rates --rates 50,some", `names "some"`},
		{"rates --acks 5", `names "5"`},
		{"rates --transports soap", `names "soap"`},
		{"rates --pages torn", `names "torn"`},
	} {
		_, err := parse(strings.Fields(tc.args), io.Discard)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("bench %s: got error %v, want %q", tc.args, err, tc.want)
		}
	}
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "Examples:") {
		t.Errorf("--help: got %v and\n%s", err, &help)
	}
}

func TestCodeOfABadCommandLine(t *testing.T) {
	var stderr bytes.Buffer
	if got := bench(t.Context(), []string{"speed"}, io.Discard, &stderr); got != 2 {
		t.Errorf("got exit code %d, want 2", got)
	}
}

func TestQuantileOfBuckets(t *testing.T) {
	b := []bucket{{0.001, 0}, {0.01, 50}, {0.1, 100}, {math.Inf(1), 100}}
	for _, tc := range []struct {
		b       []bucket
		q, want float64
	}{
		{b, 0.5, 0.01},
		{b, 0.25, 0.0055},
		{b, 0.75, 0.055},
		{b, 1, 0.1},
		{[]bucket{{0.1, 0}, {math.Inf(1), 3}}, 0.5, 0.1}, // beyond the last bound
		{[]bucket{{0.1, 0}, {math.Inf(1), 0}}, 0.5, 0},
		{nil, 0.5, 0},
	} {
		if got := quantile(tc.b, tc.q); math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("quantile %v of %v: got %v, want %v", tc.q, tc.b, got, tc.want)
		}
	}
}

func TestMetricsText(t *testing.T) {
	m, err := parseMetrics([]byte("# HELP x_total y\n# TYPE x_total counter\nx_total{topic=\"a b\",partition=\"0\"} 2\nx_total{topic=\"c\"} 3.5\n" +
		"# TYPE y gauge\ny 1e+06\n# TYPE h histogram\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 4\nh_sum 2\nh_count 4\n"))
	if err != nil {
		t.Fatal(err)
	}
	if m.sum("x_total") != 5.5 || m.sum("y") != 1e6 || m.sum("h_sum") != 2 || m.sum("h_count") != 4 || m.sum("absent") != 0 {
		t.Errorf("got %v", m.families)
	}
	if got, want := m.since(&metrics{}, "h"), []bucket{{0.1, 1}, {math.Inf(1), 4}}; !slices.Equal(got, want) {
		t.Errorf("got buckets %v, want %v", got, want)
	}
	if got := m.since(m, "h"); got[1].count != 0 {
		t.Errorf("since the same scrape: got %v, want nothing", got)
	}
	if _, err := parseMetrics([]byte("x many\n")); err == nil {
		t.Error("a metric without a number: got no error")
	}
}

// Runs in which something else kept a core busy do not count while three others do.
func TestNoisyRunsAreDiscarded(t *testing.T) {
	of := func(micros, other float64) figures { return figures{CPUMicros: micros, noise: noise{OtherCPU: other}} }
	for _, tc := range []struct {
		name   string
		runs   []figures
		kept   int
		median float64
	}{
		{"one noisy", []figures{of(1, 0), of(2, 0.09), of(3, 0), of(90, 0.5)}, 3, 2},
		{"too many noisy", []figures{of(1, 0), of(2, 0), of(80, 0.2), of(90, 0.5)}, 4, 41},
		{"a single run", []figures{of(7, 0)}, 1, 7},
	} {
		s := series{Runs: tc.runs}
		s.summarise(tc.runs)
		if s.Kept != tc.kept || s.Median.CPUMicros != tc.median || s.Ratio != [3]float64{1, 1, 1} {
			t.Errorf("%s: got %d kept, median %v, ratios %v; want %d, %v, all 1", tc.name, s.Kept, s.Median.CPUMicros, s.Ratio, tc.kept, tc.median)
		}
	}
}

// Ratios are taken round by round: what slows a whole round does not count.
func TestRatiosAreOfARound(t *testing.T) {
	runs := func(micros ...float64) (out []figures) {
		for _, m := range micros {
			out = append(out, figures{CPUMicros: m})
		}
		return out
	}
	s := series{Runs: runs(4.4, 8, 4)}
	s.summarise(runs(4, 8, 5))
	if math.Abs(s.Ratio[0]-1) > 1e-9 || math.Abs(s.Ratio[1]-0.8) > 1e-9 || math.Abs(s.Ratio[2]-1.1) > 1e-9 {
		t.Errorf("got ratios %v, want 1, 0.8 and 1.1", s.Ratio)
	}
}

// Every second round is backwards.
func TestSubjectsTakeTurns(t *testing.T) {
	var order []string
	run := func(name string) subject {
		return subject{name, func(context.Context) (figures, error) { order = append(order, name); return figures{CPUMicros: 1}, nil }}
	}
	r := &rig{screen: io.Discard}
	c, err := r.takeTurns(t.Context(), "", 3, run("a"), run("b"))
	if err != nil || strings.Join(order, "") != "abbaab" || len(c.Series) != 2 || len(c.Series[1].Runs) != 3 {
		t.Errorf("got order %v, %+v, %v; want a b, b a, a b", order, c, err)
	}
}

func TestNoiseIsWhatOthersUse(t *testing.T) {
	began := time.Now()
	from := cpuTimes{at: began, ours: time.Second, busy: 10 * time.Second, steal: time.Second}
	to := cpuTimes{at: began.Add(2 * time.Second), ours: 3 * time.Second, busy: 12500 * time.Millisecond, steal: 1200 * time.Millisecond}
	got := noiseBetween(from, to)
	if math.Abs(got.OtherCPU-0.25) > 1e-9 || math.Abs(got.Steal-0.1) > 1e-9 {
		t.Errorf("got %+v, want a quarter of a core and a tenth stolen", got)
	}
}

// Rows that are missing or doubled fail a run, whatever its speed.
func TestIncompleteTable(t *testing.T) {
	for _, tc := range []struct {
		rows, distinct int
		want           string // in the error; empty for none
	}{
		{100, 100, ""},
		{99, 99, "1 are lost"},
		{101, 100, "1 of them duplicates"},
		{100, 99, "1 are lost"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"rows":%d,"distinct":%d}`, tc.rows, tc.distinct)
		}))
		w := &workspace{at: atEmulator{Control: server.URL}}
		err := w.complete(t.Context(), 100)
		server.Close()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%d rows, %d distinct of 100: got %v, want %q", tc.rows, tc.distinct, err, tc.want)
		}
	}
}

// A child that ends early is an error that shows the end of its log.
func TestChildThatDies(t *testing.T) {
	c, err := start(t.Context(), t.TempDir(), "liar", inherited(), "/bin/sh", "-c", "echo out of tea >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	var v any
	err = c.read(t.Context(), &v)
	if err == nil || !strings.Contains(err.Error(), "out of tea") {
		t.Errorf("hearing from a dead child: got %v, want the end of its log", err)
	}
	if err := c.stop(); err == nil {
		t.Error("stopping a child that failed before: got no error")
	}
}

// A run shorter than a tick of processor time has figures that are numbers.
func TestShortRunsHaveFigures(t *testing.T) {
	now := time.Now()
	f := newFigures(100, cpuTimes{at: now}, cpuTimes{at: now.Add(time.Millisecond)})
	if _, err := json.Marshal(f); err != nil || f.PerCPU != 10_000 {
		t.Errorf("got %v rows per second of processor time, %v, want 10000: one tick", f.PerCPU, err)
	}
}

// A child that does not answer shows its goroutines.
func TestAChildThatDoesNotAnswerIsDumped(t *testing.T) {
	c, err := startRole(t.Context(), t.TempDir(), "broker", nil)
	if err != nil {
		t.Fatal(err)
	}
	var at atBroker
	if err := c.read(t.Context(), &at); err != nil {
		t.Fatal(err)
	}
	c.dump()
	if err := c.stop(); err == nil || !strings.Contains(err.Error(), "goroutine ") || !strings.Contains(err.Error(), "runBroker") {
		t.Errorf("got %.300v, want its goroutines", err)
	}
}

func TestPartitionOfARow(t *testing.T) {
	for body, want := range map[string]int{
		`{"rows":[{"message_id":"s-17-3"},{"message_id":"s-18-4"}]}`: 17,
		`{"rows":[{"event_name":"x","message_id":"s-0-0"}]}`:         0,
		`{"rows":[{"message_id":"s-x-3"}]}`:                          -1,
		`{"rows":[{"message_id":"another"}]}`:                        -1,
		`{"rows":[]}`:                                                -1,
	} {
		got, ok := partitionOf([]byte(body))
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%s: got partition %d, %v; want %d", body, got, ok, want)
		}
	}
}

func TestHandoversAreRecorded(t *testing.T) {
	at := time.Unix(1000, 0)
	var o owners
	o.record(1, "a", at)
	o.record(2, "a", at)
	o.record(1, "a", at.Add(time.Second))
	o.record(1, "b", at.Add(3*time.Second))
	if len(o.moves) != 1 || len(o.last) != 2 {
		t.Fatalf("got %d handovers of %d partitions, want 1 of 2", len(o.moves), len(o.last))
	}
	want := handover{Partition: 1, From: "a", To: "b", Last: at.Add(time.Second), First: at.Add(3 * time.Second)}
	if o.moves[0] != want {
		t.Errorf("got %+v, want %+v", o.moves[0], want)
	}
}

func TestSpanOfTimes(t *testing.T) {
	got := spanOf([]time.Duration{4, 9, 1})
	if want := (span{Count: 3, P50: 4, Max: 9}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := spanOf(nil); got != (span{}) {
		t.Errorf("of nothing: got %+v", got)
	}
}

// docs/operations.md has the bound: it must not be below what was measured.
func TestBoundCoversWhatWasMeasured(t *testing.T) {
	for _, m := range []struct {
		budget     int
		partitions int
		peak       float64 // MiB
	}{
		{16, 4, 115}, {16, 300, 171}, {64, 4, 218}, {64, 16, 257}, {64, 64, 270}, {64, 256, 301},
		{96, 4, 285}, {96, 16, 350}, {96, 64, 359}, {96, 256, 390}, {256, 4, 556}, {256, 16, 560},
	} {
		if got := mib(boundOf(m.budget, m.partitions)); got < m.peak || got > 1.75*m.peak {
			t.Errorf("%d MiB, %d partitions: got a bound of %.0f MiB, measured %.0f; want it above and not far", m.budget, m.partitions, got, m.peak)
		}
	}
}

// Every scenario reports what it found in rows of its own.
func TestReports(t *testing.T) {
	f := figures{PerSecond: 2000, PerCPU: 4000, CPUMicros: 250, PeakMemory: 64 << 20}
	full := f
	full.RowBytes, full.BatchRows, full.Ack, full.FirstRow, full.Bound, full.Idle = 300, 50, 0.021, 1, 128<<20, 0.002
	took := span{Count: 8, P50: time.Second, Max: 2 * time.Second}
	for name, tc := range map[string]struct {
		report fmt.Stringer
		want   []string // in the report; runs of spaces count as one
	}{
		"comparison": {comparisons{{Name: "lz4", Note: "a note", Series: []series{{Name: "bridge", Runs: make([]figures, 3), Kept: 2, Median: f, Most: 80 << 20, Ratio: [3]float64{1.02, 0.9, 1.1}}}}},
			[]string{"topic subject rows/s rows/CPU s us/row peak RSS highest RSS", "lz4 bridge 2000 4000 250.000 64 MiB 80 MiB +2.0 % -10.0 % +10.0 % 2 of 3", "a note"}},
		"all columns": {comparisons{{Name: "4 partitions", Series: []series{{Name: "grpc", Runs: []figures{full}, Kept: 1, Median: full}}}},
			[]string{"4 partitions grpc 2000 4000 250.000 300 50 21 ms 1000 ms 64 MiB 128 MiB 2.00 ms/s"}},
		"latency": {latencyResult{Ack: quantiles{0.001, 0.002, 0.003}, Emulator: quantiles{0.004, 0.005, 0.006}, ToRow: quantiles{0.007, 0.008, 0.009}},
			[]string{"as the bridge counts it 1.00 2.00 3.00", "in the emulator 4.00 5.00 6.00", "to the row 7.00 8.00 9.00"}},
		"memory": {memoryResult{{Partitions: 300, Samples: make([]memorySample, 8), Budget: 16 << 20, Buffered: 15 << 20, Heap: 40 << 20, Stalled: 90 << 20, Growth: 1 << 20, Peak: 99 << 20}},
			[]string{"300 16 MiB 15 MiB 40 MiB 90 MiB +1 MiB 99 MiB", "RSS with 300 partitions"}},
		"rates": {ratesResult{
			{Transport: "grpc", Ack: time.Millisecond, Page: "closed", Rate: 500, Bridge: "old", Runs: []rateFigures{{figures: f, Core: 0.2, Requests: 9}}},
			{Transport: "grpc", Ack: time.Millisecond, Page: "closed", Rate: 500, Bridge: "new", Runs: []rateFigures{{figures: f, Fetches: 7, RSS: 3 << 20}}, Ratio: [3]float64{0.5, 0.4, 0.6}}},
			[]string{"grpc 1ms closed 500 old 250.0 20.0 % 9", "7 0.0 ms 0.0 ms 3 MiB 0 % -50.0 % -60.0 % -40.0 %"}},
		"scale": {scaleResult{{Kind: "classic", Partitions: 8, Members: 2, Rate: 500, Produced: 900, Restarts: []restart{{Exit: time.Second, Moved: 4}}, Takeover: took, Stopped: took, KillTook: took}},
			[]string{"classic 2 8 500", "1.00 / 2.00 s", "0 of 900"}},
	} {
		report := strings.Join(strings.Fields(tc.report.String()), " ")
		for _, want := range tc.want {
			if !strings.Contains(report, want) {
				t.Errorf("%s: got\n%s\nwant %q in it", name, tc.report, want)
			}
		}
	}
}

func TestVersionsNeedsAnotherBridge(t *testing.T) {
	if _, err := versions(t.Context(), &rig{o: &options{what: "versions"}}); err == nil || !strings.Contains(err.Error(), "--against") {
		t.Errorf("got %v, want the missing flag named", err)
	}
}

// One slow round is noise; most of them are not.
func TestVerdictOfVersions(t *testing.T) {
	runs := func(micros ...float64) (out []figures) {
		for _, m := range micros {
			out = append(out, figures{CPUMicros: m})
		}
		return out
	}
	for _, tc := range []struct {
		name          string
		before, after []figures
		want          string
	}{
		{"the same", runs(2, 2, 2), runs(2, 2.02, 1.98), "new is not slower than old: CPU per row +0.0 % (least -1.0 %, most +1.0 %; 0 of 3 rounds"},
		{"slower", runs(2, 4, 2), runs(2.2, 4.28, 2.2), "new is slower than old: CPU per row +10.0 % (least +7.0 %, most +10.0 %; 3 of 3 rounds are beyond +5 %)"},
		{"one slow round", runs(2, 2, 2), runs(2, 4, 2), "not slower"},
		{"half of the rounds", runs(2, 2), runs(2, 3), "not slower"},
		{"faster", runs(2, 2, 2), runs(1, 1, 1), "new is not slower than old: CPU per row -50.0 %"},
	} {
		if got := verdict(tc.before, tc.after); !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %q, want %q in it", tc.name, got, tc.want)
		}
	}
}

// The rig works: its roles start, the bridge takes the configuration it is given,
// and a row arrives over each transport. Figures depend on what else the
// machine does; make measure runs all scenarios.
func TestFirstRowOverEachTransport(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("bench reads /proc")
	}
	o, err := parse(strings.Fields("startup --events 1000"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := newRig(t.Context(), o, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	topic, err := r.topic(t.Context(), 1, "lz4", o.events)
	if err != nil {
		t.Fatal(err)
	}
	for transport := range protocols {
		if took, err := r.firstRow(t.Context(), delivery{topic: topic, transport: transport}); err != nil || took <= 0 {
			t.Errorf("%s: got the first row after %v, %v", transport, took, err)
		}
	}
}
