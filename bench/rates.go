package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// ratesLead is how long a load runs at a rate before it counts.
const ratesLead = time.Second

// rateFigures are what the bridge cost at a steady load.
type rateFigures struct {
	figures
	Core     float64   `json:"core"`                // its share of one core
	Requests float64   `json:"requests_per_second"` // or messages on a stream
	Fetches  float64   `json:"fetches_per_second"`  // from the broker, the mean of two bridges; 0 where it does not count them
	ToRow    quantiles `json:"produce_to_row"`      // until the row is stored, before the time of the acknowledgement
	RSS      float64   `json:"rss_bytes"`           // at the end
}

// rateMeasures are the columns of the report.
var rateMeasures = []struct {
	title, format string
	of            func(rateFigures) float64
}{
	{"us/event", "%.1f", func(f rateFigures) float64 { return f.CPUMicros }},
	{"core", "%.1f %%", func(f rateFigures) float64 { return 100 * f.Core }},
	{"requests/s", "%.0f", func(f rateFigures) float64 { return f.Requests }},
	{"rows each", "%.1f", func(f rateFigures) float64 { return f.BatchRows }},
	{"fetches/s", "%.0f", func(f rateFigures) float64 { return f.Fetches }},
	{"to row p50", "%.1f ms", func(f rateFigures) float64 { return 1e3 * f.ToRow.P50 }},
	{"p99", "%.1f ms", func(f rateFigures) float64 { return 1e3 * f.ToRow.P99 }},
	{"RSS", "%.0f MiB", func(f rateFigures) float64 { return f.RSS / (1 << 20) }},
	{"other CPU", "%.0f %%", func(f rateFigures) float64 { return 100 * f.OtherCPU }},
}

// rateCell is one line of the report: one bridge under one load, round by round.
type rateCell struct {
	Transport string        `json:"transport"`
	Ack       time.Duration `json:"ack_ns"`
	Page      string        `json:"page"` // open or closed
	Rate      int           `json:"events_per_second"`
	Bridge    string        `json:"bridge"` // old, of --against, or new
	Runs      []rateFigures `json:"runs"`
	// Ratio is CPU per event to the old bridge's in the same round: the median, the
	// least and the most. Zero for the old one and without one.
	Ratio [3]float64 `json:"cpu_per_event_to_old"`
}

type ratesResult []*rateCell

// rates measures the bridge at loads that leave it idle most of the time. A bridge
// goes through the rates in one run, each after the other. Two bridges read the same
// topic at the same time, each with a workspace of its own: what else the machine does
// disturbs both, where runs in turns would compare the disturbance.
func rates(ctx context.Context, r *rig) (any, error) {
	rounds, lasts := 1, 3*time.Second
	if r.o.given["rounds"] {
		rounds = r.o.rounds
	}
	if r.o.given["duration"] {
		lasts = r.o.duration
	}
	var out ratesResult
	for _, ack := range r.o.acks {
		for _, transport := range r.o.transports {
			for _, page := range r.o.pages {
				if page == "open" && ack != r.o.acks[0] {
					continue // what a page costs does not depend on it
				}
				var cells ratesResult
				for round := range rounds {
					found, err := r.walk(ctx, transport, ack, page, lasts)
					if err != nil {
						return nil, fmt.Errorf("%s, ack %s, page %s: %w", transport, ack, page, err)
					}
					for i, c := range found {
						if round == 0 {
							cells = append(cells, c)
						} else {
							cells[i].Runs = append(cells[i].Runs, c.Runs...)
						}
						r.logf("%s, ack %s, page %s, %d events/s, %s, round %d: %.1f us/event, %.0f requests/s; %s", transport, ack, page, c.Rate, c.Bridge, round+1,
							c.Runs[0].CPUMicros, c.Runs[0].Requests, c.Runs[0].noise)
					}
				}
				for i := 1; i < len(cells) && r.o.against != ""; i += 2 {
					cells[i].compare(cells[i-1].Runs)
				}
				out = append(out, cells...)
			}
		}
	}
	return out, nil
}

func (c *rateCell) compare(old []rateFigures) {
	var ratios []float64
	for i, f := range c.Runs {
		ratios = append(ratios, f.CPUMicros/old[i].CPUMicros)
	}
	c.Ratio = [3]float64{median(ratios, func(v float64) float64 { return v }), slices.Min(ratios), slices.Max(ratios)}
}

// rated is one bridge under a load.
type rated struct {
	name string
	w    *workspace
	*running
}

// rate starts a bridge with a workspace of its own.
func (r *rig) rate(ctx context.Context, name string, d delivery, ack time.Duration) (_ *rated, err error) {
	if d.to, err = startWorkspace(ctx, r.dir, emulatorSettings{TLS: true, Ack: emulator.Latency{P50: ack}, Probes: true}); err != nil {
		return nil, err
	}
	if r.o.profile != "" {
		d.sets = append(d.sets, "ops.pprof=true")
	}
	b, err := r.startBridge(ctx, d)
	if err != nil {
		return nil, errors.Join(err, d.to.stop())
	}
	return &rated{name, d.to, b}, nil
}

// walk measures the bridges at each rate, and wants every event in each table once.
func (r *rig) walk(ctx context.Context, transport string, ack time.Duration, page string, lasts time.Duration) (out ratesResult, err error) {
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.drop(ctx, topic)) }()
	subjects := []delivery{{topic: topic, transport: transport}}
	if r.o.against != "" {
		subjects = []delivery{{topic: topic, transport: transport, binary: r.o.against, unset: true}, subjects[0]}
	}
	var bridges []*rated
	for i, d := range subjects {
		b, err := r.rate(ctx, []string{"new", "old"}[len(subjects)-1-i], d, ack)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.stop(), b.w.stop()) }()
		var cancel context.CancelFunc
		ctx, cancel = b.alive(ctx)
		defer cancel()
		bridges = append(bridges, b)
	}
	l, err := newLoad(r.brokers, topic, r.o.codecs[0], 2*time.Millisecond, 0)
	if err != nil {
		return nil, err
	}
	l.nextProbed(context.WithoutCancel(ctx))
	for _, b := range bridges {
		if err := b.w.wait(ctx, 1); err != nil {
			return nil, errors.Join(err, l.finish(ctx))
		}
		if page == "open" {
			end := viewers(1)(ctx, b.ops)
			defer func() { err = errors.Join(err, end()) }()
		}
	}
	for _, rate := range r.o.rates {
		loading, stopLoad := context.WithCancel(ctx)
		sent := make(chan struct{})
		go func() { // ends with loading; waited for below
			defer close(sent)
			l.steady(loading, rate, l.nextProbed)
		}()
		found, err := r.atRate(ctx, bridges, lasts)
		stopLoad()
		<-sent
		if err != nil {
			return nil, errors.Join(err, l.finish(ctx))
		}
		for i, f := range found {
			out = append(out, &rateCell{Transport: transport, Ack: ack, Page: page, Rate: rate, Bridge: bridges[i].name, Runs: []rateFigures{f}})
		}
	}
	if err := l.finish(ctx); err != nil {
		return nil, err
	}
	for _, b := range bridges {
		if err := b.w.wait(ctx, int(l.sent)); err != nil {
			return nil, err
		}
		err = errors.Join(err, b.w.complete(ctx, int(l.sent)))
	}
	return out, err
}

// look is what is counted at one moment.
type look struct {
	cpu      cpuTimes
	metrics  *metrics
	fetches  int
	arrivals []time.Duration
}

func (r *rig) look(ctx context.Context, b *rated) (l look, err error) {
	if l.metrics, err = b.scrape(ctx); err != nil {
		return l, err
	}
	if l.fetches, err = r.fetches(ctx); err != nil {
		return l, err
	}
	var t timings
	if err = b.w.call(ctx, http.MethodGet, "/bench/timings", nil, &t); err != nil {
		return l, err
	}
	l.arrivals = t.Arrivals
	l.cpu, err = readCPU(b.pid)
	return l, err
}

// atRate waits until the load is steady and then measures for a while.
func (r *rig) atRate(ctx context.Context, bridges []*rated, lasts time.Duration) (out []rateFigures, err error) {
	if err := pause(ctx, ratesLead); err != nil {
		return nil, err
	}
	if r.o.profile != "" {
		end := r.profiles(lasts.Seconds())(ctx, bridges[len(bridges)-1].ops)
		defer func() { err = errors.Join(err, end()) }()
	}
	looks := make([][2]look, len(bridges))
	for i := range 2 {
		for j, b := range bridges {
			if looks[j][i], err = r.look(ctx, b); err != nil {
				return nil, err
			}
		}
		if i == 0 {
			if err := pause(ctx, lasts); err != nil {
				return nil, err
			}
		}
	}
	for i, b := range bridges {
		f, err := newRateFigures(looks[i][0], looks[i][1])
		if err != nil {
			return nil, fmt.Errorf("%w in %s; raise --rates or --duration", err, lasts)
		}
		rss, peak, err := memoryOf(b.pid)
		if err != nil {
			return nil, err
		}
		f.RSS, f.PeakMemory = float64(rss), float64(peak)
		f.Fetches /= float64(len(bridges)) // the broker does not know whose they are
		out = append(out, f)
	}
	return out, nil
}

func newRateFigures(from, to look) (f rateFigures, err error) {
	sum := func(name string) float64 { return to.metrics.sum(name) - from.metrics.sum(name) }
	rows, writes := sum("bridge_rows_delivered_total"), sum("bridge_ack_latency_seconds_count")
	if rows == 0 || writes == 0 {
		return f, errors.New("nothing was delivered")
	}
	seconds := to.cpu.at.Sub(from.cpu.at).Seconds()
	f.figures = newFigures(int(rows), from.cpu, to.cpu)
	f.BatchRows = rows / writes
	f.Core = (to.cpu.subject - from.cpu.subject).Seconds() / seconds
	f.Requests, f.Fetches = writes/seconds, float64(to.fetches-from.fetches)/seconds
	f.ToRow = ofSorted(to.arrivals)
	return f, nil
}

func (all ratesResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	compared := slices.ContainsFunc(all, func(c *rateCell) bool { return c.Bridge == "old" })
	fmt.Fprint(w, "transport\tack\tpage\tevents/s\t")
	if compared {
		fmt.Fprint(w, "bridge\t")
	}
	for _, m := range rateMeasures {
		fmt.Fprint(w, m.title, "\t")
	}
	if compared {
		fmt.Fprint(w, "CPU to old\tleast\tmost\t")
	}
	fmt.Fprintln(w)
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t", c.Transport, c.Ack, c.Page, c.Rate)
		if compared {
			fmt.Fprintf(w, "%s\t", c.Bridge)
		}
		for _, m := range rateMeasures {
			fmt.Fprintf(w, m.format+"\t", median(c.Runs, m.of))
		}
		for _, ratio := range c.Ratio {
			if compared {
				fmt.Fprintf(w, "%+.1f %%\t", 100*(cmp.Or(ratio, 1)-1))
			}
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&s, "\nRows over TLS. Medians of the rounds. To row: from producing an event, with a linger of 2 ms, until the row is stored; the acknowledgement comes its time later. "+
		"CPU to old is CPU per event against the other bridge in the same round: median, least and most. Every run left as many rows and message ids in the table as events were produced.\n")
	return s.String()
}
