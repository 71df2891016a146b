package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/datafly/bridge/internal/oracle"
)

// figures are what one run of one subject cost, from warm to done.
type figures struct {
	Rows       float64 `json:"rows"` // that the times below were spent on
	PerSecond  float64 `json:"rows_per_second"`
	PerCPU     float64 `json:"rows_per_cpu_second"`
	CPUMicros  float64 `json:"cpu_us_per_row"`
	RowBytes   float64 `json:"bytes_per_row,omitempty"`
	EventBytes float64 `json:"bytes_per_event,omitempty"` // uncompressed, with key and headers
	BatchRows  float64 `json:"rows_per_write,omitempty"`
	Ack        float64 `json:"mean_ack_seconds,omitempty"`
	FirstRow   float64 `json:"first_row_seconds,omitempty"` // from the start of the process
	PeakMemory float64 `json:"peak_rss_bytes"`
	Bound      float64 `json:"rss_bound_bytes,omitempty"` // the memory to plan with
	Idle       float64 `json:"idle_cpu,omitempty"`        // share of one core while no event passes
	noise
}

// measures are the columns of a report. Those without a figure are left out.
var measures = []struct {
	title, format string
	unit          float64 // the figure is divided by it
	of            func(*figures) *float64
}{
	{"rows/s", "%.0f", 1, func(f *figures) *float64 { return &f.PerSecond }},
	{"rows/CPU s", "%.0f", 1, func(f *figures) *float64 { return &f.PerCPU }},
	{"us/row", "%.3f", 1, func(f *figures) *float64 { return &f.CPUMicros }},
	{"B/row", "%.0f", 1, func(f *figures) *float64 { return &f.RowBytes }},
	{"rows/write", "%.0f", 1, func(f *figures) *float64 { return &f.BatchRows }},
	{"mean ack", "%.0f ms", 1e-3, func(f *figures) *float64 { return &f.Ack }},
	{"first row", "%.0f ms", 1e-3, func(f *figures) *float64 { return &f.FirstRow }},
	{"peak RSS", "%.0f MiB", 1 << 20, func(f *figures) *float64 { return &f.PeakMemory }},
	{"bound", "%.0f MiB", 1 << 20, func(f *figures) *float64 { return &f.Bound }},
	{"idle CPU", "%.2f ms/s", 1e-3, func(f *figures) *float64 { return &f.Idle }},
	{"other CPU", "%.0f %%", 1e-2, func(f *figures) *float64 { return &f.OtherCPU }},
	{"steal", "%.0f %%", 1e-2, func(f *figures) *float64 { return &f.Steal }},
}

func newFigures(rows int, from, to cpuTimes) figures {
	// A short run can fall between two ticks; doubt counts against the subject.
	cpu, n := max(to.subject-from.subject, tick).Seconds(), float64(rows)
	return figures{Rows: n, PerSecond: n / to.at.Sub(from.at).Seconds(), PerCPU: n / cpu, CPUMicros: cpu * 1e6 / n, noise: noiseBetween(from, to)}
}

// subject is one of those that take turns in a comparison.
type subject struct {
	name string
	run  func(ctx context.Context) (figures, error)
}

// series are the runs of one subject.
type series struct {
	Name   string    `json:"name"`
	Runs   []figures `json:"runs"`
	Kept   int       `json:"runs_kept"` // quiet enough to count, or all when too few were
	Median figures   `json:"median"`
	Most   float64   `json:"highest_peak_rss_bytes"`
	// Ratio is CPU per row to the first subject's in the same round: the median,
	// the least and the most.
	Ratio [3]float64 `json:"cpu_per_row_to_first"`
}

// comparison are subjects that took turns under the same conditions.
type comparison struct {
	Name   string   `json:"name"`
	Series []series `json:"series"`
	Note   string   `json:"note,omitempty"`
}

type comparisons []comparison

// takeTurns runs every subject once in each round. Every second round is backwards,
// so that none always comes first.
func (r *rig) takeTurns(ctx context.Context, name string, rounds int, subjects ...subject) (comparison, error) {
	c := comparison{Name: name, Series: make([]series, len(subjects))}
	for round := range rounds {
		for i := range subjects {
			if round%2 == 1 {
				i = len(subjects) - 1 - i
			}
			f, err := subjects[i].run(ctx)
			if err != nil {
				return c, fmt.Errorf("%s: %w", strings.TrimSpace(name+" "+subjects[i].name), err)
			}
			s := &c.Series[i]
			s.Name, s.Runs = subjects[i].name, append(s.Runs, f)
			r.logf("%s %s, round %d: %.0f rows/s, %.3f us/row, peak RSS %.0f MiB; %s", name, s.Name, round+1, f.PerSecond, f.CPUMicros, f.PeakMemory/(1<<20), f.noise)
		}
	}
	for i := range c.Series {
		c.Series[i].summarise(c.Series[0].Runs)
	}
	return c, nil
}

// summarise takes medians over the quiet runs, or over all when fewer than three of
// them, or than all, were quiet.
func (s *series) summarise(first []figures) {
	kept := slices.DeleteFunc(slices.Clone(s.Runs), func(f figures) bool { return f.OtherCPU > noisy })
	if len(kept) < min(3, len(s.Runs)) {
		kept = s.Runs
	}
	s.Kept, s.Median.Rows = len(kept), kept[0].Rows
	for _, m := range measures {
		*m.of(&s.Median) = median(kept, func(f figures) float64 { return *m.of(&f) })
	}
	var ratios []float64
	for i, f := range s.Runs {
		s.Most = max(s.Most, f.PeakMemory)
		if first[i].CPUMicros > 0 {
			ratios = append(ratios, f.CPUMicros/first[i].CPUMicros)
		}
	}
	if len(ratios) > 0 {
		s.Ratio = [3]float64{medianOf(ratios), slices.Min(ratios), slices.Max(ratios)}
	}
}

func medianOf(all []float64) float64 { return median(all, func(v float64) float64 { return v }) }

// median of a value of a list that is not empty.
func median[T any](list []T, of func(T) float64) float64 {
	all := make([]float64, 0, len(list))
	for _, v := range list {
		all = append(all, of(v))
	}
	slices.Sort(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

func (all comparisons) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	has := make([]bool, len(measures))
	for _, c := range all {
		for _, line := range c.Series {
			for i, m := range measures {
				has[i] = has[i] || *m.of(&line.Median) != 0
			}
		}
	}
	fmt.Fprint(w, "topic\tsubject\t")
	for i, m := range measures {
		if has[i] {
			fmt.Fprint(w, m.title, "\t")
		}
	}
	fmt.Fprint(w, "highest RSS\tCPU to first\tleast\tmost\truns\t\n")
	for _, c := range all {
		for _, line := range c.Series {
			fmt.Fprintf(w, "%s\t%s\t", c.Name, line.Name)
			for i, m := range measures {
				if has[i] {
					fmt.Fprintf(w, m.format+"\t", *m.of(&line.Median)/m.unit)
				}
			}
			fmt.Fprintf(w, "%.0f MiB\t", line.Most/(1<<20))
			for _, ratio := range line.Ratio {
				fmt.Fprintf(w, "%+.1f %%\t", 100*(ratio-1))
			}
			fmt.Fprintf(w, "%d of %d\t\n", line.Kept, len(line.Runs))
		}
	}
	_ = w.Flush() // into memory
	for _, c := range all {
		s.WriteString(c.Note)
	}
	fmt.Fprintf(&s, "\nMedians of the rounds with other CPU below %.0f %%, or of all where fewer than three were. CPU to first is CPU per row against the first "+
		"subject in the same round: median, least and most. Every run left as many rows and message ids in the table as events were produced.\n", 100*noisy)
	return s.String()
}

// delivery is one run of the bridge over a full topic.
type delivery struct {
	topic     string
	events    int
	rejects   int        // of them, which become dead letters
	to        *workspace // the rig's if nil
	transport string
	sets, env []string
	binary    string // the rig's if empty
	unset     bool   // without the settings of --set
	until     int    // rows at which the measurement ends; 0: all
	bound     int64  // the memory to plan with
	// beside runs beside the bridge from the first row to the last; it gets the
	// bridge's ops address and returns what ends it.
	beside func(ctx context.Context, ops string) (end func() error)
}

// warm is how many of n events pass before the measurement begins: an eighth, which
// is more than two fetches of the default sizes from about 30,000 events on.
func warm(n int) int { return max(n/8, 1) }

// deliver has the bridge deliver everything in the topic and returns what it cost.
// Lost or duplicate rows are an error.
func (r *rig) deliver(ctx context.Context, d delivery) (f figures, err error) {
	d.to = cmp.Or(d.to, r.workspace)
	if err := d.to.reset(ctx); err != nil {
		return f, err
	}
	began := time.Now()
	b, err := r.startBridge(ctx, d)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()
	if err := d.to.wait(ctx, 1); err != nil {
		return f, err
	}
	first := time.Since(began)
	if d.beside != nil {
		end := d.beside(ctx, b.ops)
		defer func() { err = errors.Join(err, end()) }()
	}
	var at [2]cpuTimes
	var scraped [2]*metrics
	all := d.events - d.rejects
	for i, n := range []int{warm(all), cmp.Or(d.until, all)} {
		if err := d.to.wait(ctx, n); err != nil {
			return f, err
		}
		if scraped[i], err = b.scrape(ctx); err != nil {
			return f, err
		}
		if at[i], err = readCPU(b.pid); err != nil {
			return f, err
		}
	}
	since := func(name string) float64 { return scraped[1].sum(name) - scraped[0].sum(name) }
	// What was read before does not count as work done, nor does what is still to be
	// written: doubt counts against the bridge.
	rows, read := since("bridge_rows_delivered_total"), since("bridge_events_read_total")
	done := min(rows+since("bridge_dead_letters_total"), read)
	if done < float64(d.events)/8 {
		return f, fmt.Errorf("the bridge had read all but %.0f of %d events before it was warm; take more --events, or lower delivery.max_buffered with --set", done, d.events)
	}
	f = newFigures(int(done), at[0], at[1])
	f.FirstRow, f.Bound = first.Seconds(), float64(d.bound)
	f.RowBytes, f.EventBytes = since("bridge_rows_delivered_bytes_total")/rows, since("bridge_events_read_bytes_total")/read
	if writes := since("bridge_ack_latency_seconds_count"); writes > 0 {
		f.BatchRows, f.Ack = rows/writes, since("bridge_ack_latency_seconds_sum")/writes
	}
	if err := d.to.wait(ctx, all); err != nil {
		return f, err
	}
	if err := b.deadLetters(ctx, d.rejects); err != nil {
		return f, err
	}
	_, peak, err := memoryOf(b.pid)
	if err != nil {
		return f, err
	}
	f.PeakMemory = float64(peak)
	return f, d.to.complete(ctx, all)
}

// deadLetters waits until the dead-letter topic has acknowledged n of them.
func (b *running) deadLetters(ctx context.Context, n int) error {
	for n > 0 {
		m, err := b.scrape(ctx)
		if err != nil {
			return err
		}
		switch got := int(m.sum("bridge_dead_letters_total")); {
		case got > n:
			return fmt.Errorf("the bridge wrote %d dead letters for %d events", got, n)
		case got == n:
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("waiting for %d dead letters, of which there are %.0f: %w", n, m.sum("bridge_dead_letters_total"), err)
		}
	}
	return nil
}

// complete wants every event in the table, once.
func (w *workspace) complete(ctx context.Context, produced int) error {
	rows, distinct, err := w.counts(ctx)
	if err != nil {
		return err
	}
	duplicates, err := oracle.Duplicates(produced, rows, distinct)
	if err == nil && duplicates > 0 {
		err = fmt.Errorf("%d events were produced and the table has %d rows, %d of them duplicates", produced, rows, duplicates)
	}
	return err
}
