package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/datafly/bridge/bench/naive"
	"github.com/datafly/bridge/zerobus/emulator"
)

// figures are what one run of one subject cost, from warm to done.
type figures struct {
	Rows       int           `json:"rows"` // that the times below were spent on
	Wall       time.Duration `json:"wall_ns"`
	CPU        time.Duration `json:"cpu_ns"`
	PerSecond  float64       `json:"rows_per_second"`
	PerCPU     float64       `json:"rows_per_cpu_second"`
	CPUMicros  float64       `json:"cpu_us_per_row"`
	PeakMemory int64         `json:"peak_rss_bytes"`
	FirstRow   time.Duration `json:"first_row_ns,omitempty"` // from the start of the process; the bridge's only
	Noise      noise         `json:"noise"`
}

func newFigures(rows int, from, to cpuTimes) figures {
	// A short run can fall between two ticks; what is in doubt goes against the
	// subject.
	cpu := max(to.subject-from.subject, tick)
	f := figures{Rows: rows, Wall: to.at.Sub(from.at), CPU: cpu, Noise: noiseBetween(from, to)}
	return f.rated()
}

func (f figures) rated() figures {
	f.PerSecond = float64(f.Rows) / f.Wall.Seconds()
	f.PerCPU = float64(f.Rows) / f.CPU.Seconds()
	f.CPUMicros = f.CPU.Seconds() * 1e6 / float64(f.Rows)
	return f
}

// warm is how many of n events pass before the clock starts: an eighth, which
// is more than two fetches of the default sizes from about 30,000 events on.
func warm(n int) int { return max(n/8, 1) }

// running is a bridge at work.
type running struct {
	*child
	ops string
}

// startBridge starts the bridge on a topic, in a group of its own.
func (r *rig) startBridge(ctx context.Context, topic string, to atEmulator, sets ...string) (*running, error) {
	ops, err := freeAddress()
	if err != nil {
		return nil, err
	}
	group := r.name("group")
	text := fmt.Sprintf(`kafka: {brokers: ["%s"], topics: [%s], group: %s}
zerobus: {workspace_url: "%s", client_id: %s, client_secret: %s, table: %s`,
		strings.Join(r.brokers, `", "`), topic, group, to.URL, emulator.DefaultClientID, emulator.DefaultClientSecret, benchTable)
	if ca := to.CA; ca != "" {
		file := filepath.Join(r.dir, group+"-ca.pem")
		if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
			return nil, err
		}
		text += fmt.Sprintf(`, ca_file: "%s"`, file)
	}
	text += fmt.Sprintf("}\nops: {address: \"%s\"}\nlog: {level: warn}\n", ops)
	file := filepath.Join(r.dir, group+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	args := []string{"run", "--config", file}
	for _, s := range append(sets, r.o.sets...) {
		args = append(args, "--set", s)
	}
	c, err := start(ctx, r.dir, "bridge", append(inherited(), r.env...), r.bridge, args...)
	if err != nil {
		return nil, err
	}
	return &running{child: c, ops: ops}, nil
}

// freeAddress finds a port on loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// carryAll has the bridge deliver everything in the topic and returns what it
// cost. Lost or doubled rows are an error.
func (r *rig) carryAll(ctx context.Context, topic string, sets ...string) (f figures, err error) {
	return r.carryBeside(ctx, topic, nil, sets...)
}

// carryBeside is carryAll with something that goes on beside it from the first
// row to the last; it gets the bridge's ops address and returns what ends it.
func (r *rig) carryBeside(ctx context.Context, topic string, beside func(ctx context.Context, ops string) (end func() error), sets ...string) (f figures, err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return f, err
	}
	began := time.Now()
	b, err := r.startBridge(ctx, topic, r.workspace.at, append(r.workspace.at.reached(r.o.transport), sets...)...)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()
	if err := r.workspace.wait(ctx, 1); err != nil {
		return f, err
	}
	first := time.Since(began)
	if beside != nil {
		end := beside(ctx, b.ops)
		defer func() { err = errors.Join(err, end()) }()
	}
	if err := r.workspace.wait(ctx, warm(r.o.events)); err != nil {
		return f, err
	}
	m, err := scrape(ctx, b)
	if err != nil {
		return f, err
	}
	from, err := readCPU(b.pid)
	if err != nil {
		return f, err
	}
	if err := r.workspace.wait(ctx, r.o.events); err != nil {
		return f, err
	}
	to, err := readCPU(b.pid)
	if err != nil {
		return f, err
	}
	// Events read before the clock started are not counted, though part of
	// their cost is: what is in doubt goes against the bridge.
	rows := r.o.events - int(m.sums["bridge_events_read_total"])
	if rows < r.o.events/4 {
		return f, fmt.Errorf("the bridge had read all but %d of %d events before it was warm; take more --events, or lower delivery.max_buffered with --set", rows, r.o.events)
	}
	f = newFigures(rows, from, to)
	f.FirstRow = first
	if _, f.PeakMemory, err = memoryOf(b.pid); err != nil {
		return f, err
	}
	return f, r.workspace.complete(ctx, r.o.events)
}

// complete holds the table against what was produced.
func (w *workspace) complete(ctx context.Context, produced int) error {
	rows, distinct, err := w.counts(ctx)
	if err == nil && (rows != produced || distinct != produced) {
		err = fmt.Errorf("produced %d events and the table has %d rows with %d message ids", produced, rows, distinct)
	}
	return err
}

// pollAll has the consumer that only polls read everything in the topic.
func (r *rig) pollAll(ctx context.Context, topic string) (f figures, err error) {
	c, err := startRole(ctx, r.dir, "poll", reading{
		Brokers: r.brokers, Topic: topic, Group: r.name("group"), Warm: warm(r.o.events), All: r.o.events,
	})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	var marks [2]pollMark
	var at [2]cpuTimes
	for i := range marks {
		if err := c.hear(ctx, &marks[i]); err != nil {
			return f, err
		}
		if at[i], err = readCPU(c.pid); err != nil {
			return f, err
		}
		at[i].subject = marks[i].CPU // the finer clock
	}
	f = newFigures(marks[1].Events-marks[0].Events, at[0], at[1])
	_, f.PeakMemory, err = memoryOf(c.pid)
	return f, err
}

// plodAll has the naive bridge deliver a quarter of the topic: it takes long
// enough.
func (r *rig) plodAll(ctx context.Context, topic string) (f figures, err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return f, err
	}
	c, err := startRole(ctx, r.dir, "naive", reading{
		Brokers: r.brokers, Topic: topic, Group: r.name("group"), Workspace: r.workspace.at.URL, CA: r.workspace.at.CA,
	})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	ctx, cancel := c.alive(ctx)
	defer cancel()
	var rows [2]int
	var at [2]cpuTimes
	for i, n := range []int{warm(r.o.events) / 2, warm(r.o.events)/2 + r.o.events/4} {
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
	_, f.PeakMemory, err = memoryOf(c.pid)
	return f, err
}

func playNaive(ctx context.Context, settings []byte) error {
	r, err := readingFrom(settings)
	if err != nil {
		return err
	}
	var ca []byte
	if r.CA != "" {
		ca = []byte(r.CA)
	}
	return naive.Run(ctx, naive.Config{
		Brokers: r.Brokers, Topic: r.Topic, Group: r.Group, MaxRows: 5000,
		Workspace: r.Workspace, CA: ca, ClientID: emulator.DefaultClientID, ClientSecret: emulator.DefaultClientSecret, Table: benchTable,
	})
}
