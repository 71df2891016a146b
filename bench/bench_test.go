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
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain plays the roles too: the measurements start this binary again.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if played, err := play(ctx); played {
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
		{"speed", `unknown measurement "speed"`},
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
		{"--output xml", `"xml"`},
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
	m, err := parseMetrics([]byte("# HELP x y\nx_total{topic=\"a b\",partition=\"0\"} 2\nx_total{topic=\"c\"} 3.5\ny 1e+06\n" +
		"h_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 4\nh_sum 2\n"))
	if err != nil {
		t.Fatal(err)
	}
	if m.sums["x_total"] != 5.5 || m.sums["y"] != 1e6 || m.sums["h_sum"] != 2 {
		t.Errorf("got sums %v", m.sums)
	}
	if want := []bucket{{0.1, 1}, {math.Inf(1), 4}}; !slices.Equal(m.buckets["h"], want) {
		t.Errorf("got buckets %v, want %v", m.buckets["h"], want)
	}
	if got := m.since(m, "h"); got[1].count != 0 {
		t.Errorf("since the same scrape: got %v, want nothing", got)
	}
	for _, bad := range []string{"x many\n", "h_bucket{kind=\"x\"} 1\n"} {
		if _, err := parseMetrics([]byte(bad)); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

// Rounds in which something else kept a core busy do not count while three
// others do.
func TestNoisyRoundsAreDiscarded(t *testing.T) {
	of := func(perCPU, other float64) round {
		f := figures{PerCPU: perCPU, Noise: noise{OtherCPU: other}}
		return round{Bridge: f, Poll: f, Naive: f, Ratios: ratioPair{perCPU, perCPU}}
	}
	for _, tc := range []struct {
		name   string
		rounds []round
		kept   int
		quiet  bool
		ratio  float64
	}{
		{"one noisy", []round{of(1, 0), of(2, 0.09), of(3, 0), of(90, 0.5)}, 3, true, 2},
		{"too many noisy", []round{of(1, 0), of(2, 0), of(80, 0.2), of(90, 0.5)}, 4, false, 41},
		{"a single round", []round{of(7, 0)}, 1, true, 7},
	} {
		c := codecResult{Rounds: tc.rounds}
		c.summarise()
		if c.Kept != tc.kept || c.Quiet != tc.quiet || c.Ratios.ToPoll != tc.ratio || c.Bridge.PerCPU != tc.ratio {
			t.Errorf("%s: got %d kept, quiet %v, ratio %v; want %d, %v, %v", tc.name, c.Kept, c.Quiet, c.Ratios.ToPoll, tc.kept, tc.quiet, tc.ratio)
		}
	}
}

// A run in which something else kept a core busy counts only where no other
// run does.
func TestNoisyRunsOfAComparison(t *testing.T) {
	of := func(perSecond, other float64) steady {
		return steady{figures: figures{PerSecond: perSecond, Noise: noise{OtherCPU: other}}}
	}
	for _, tc := range []struct {
		name string
		runs []steady
		kept int
		want float64
	}{
		{"one noisy", []steady{of(1, 0), of(90, 0.5), of(3, 0.09)}, 2, 2},
		{"all noisy", []steady{of(1, 0.2), of(90, 0.5), of(3, 0.3)}, 3, 3},
	} {
		l := comparedLine{Runs: tc.runs}
		l.summarise()
		if l.Kept != tc.kept || l.Median.PerSecond != tc.want {
			t.Errorf("%s: got %d kept and %v rows/s, want %d and %v", tc.name, l.Kept, l.Median.PerSecond, tc.kept, tc.want)
		}
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
		{99, 99, "99 rows with 99 message ids"},
		{101, 100, "101 rows with 100 message ids"},
		{100, 99, "100 rows with 99 message ids"},
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

// A child that ends by itself is an error that shows its last words.
func TestChildThatDies(t *testing.T) {
	c, err := start(t.Context(), t.TempDir(), "liar", inherited(), "/bin/sh", "-c", "echo out of tea >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	var v any
	err = c.hear(t.Context(), &v)
	if err == nil || !strings.Contains(err.Error(), "out of tea") {
		t.Errorf("hearing from a dead child: got %v, want its last words", err)
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

// What does not answer tells where it stood.
func TestAChildThatDoesNotAnswerIsDumped(t *testing.T) {
	c, err := startRole(t.Context(), t.TempDir(), "broker", nil)
	if err != nil {
		t.Fatal(err)
	}
	var at atBroker
	if err := c.hear(t.Context(), &at); err != nil {
		t.Fatal(err)
	}
	c.dump()
	if err := c.stop(); err == nil || !strings.Contains(err.Error(), "goroutine ") || !strings.Contains(err.Error(), "playBroker") {
		t.Errorf("got %.300v, want where its goroutines stood", err)
	}
}
