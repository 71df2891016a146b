package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/procfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/zerobus"
)

// idleCost is what a process with a number of idle integrations costs.
type idleCost struct {
	Integrations int           `json:"integrations"`
	Memory       int64         `json:"rss_bytes"`
	Heap         int64         `json:"heap_bytes"` // in use, as the runtime counts it
	Goroutines   float64       `json:"goroutines"`
	Kafka        float64       `json:"kafka_connections"`
	Workspace    float64       `json:"workspace_connections"`
	CPU          time.Duration `json:"cpu_per_minute_ns"`
	Noise        noise         `json:"noise"`
}

// addition is the effect of one more integration on those that run.
type addition struct {
	Before  time.Duration `json:"before_ns"`  // the longest time between two acknowledgements of an integration, before
	With    time.Duration `json:"with_ns"`    // the same while one more is added
	Started time.Duration `json:"started_ns"` // from the file until the new one delivers
}

type integrationsResult struct {
	Idle    []idleCost `json:"idle"`
	OneMore idleCost   `json:"one_more"` // between the first and the last of Idle
	Busy    int        `json:"busy"`     // integrations in Added at first
	Added   []addition `json:"added"`
}

const (
	busyIntegrations = 20
	busyRate         = 100              // events per second of each, by default
	idleDelay        = 10 * time.Second // from when all deliver until the first look
	addedWithin      = time.Minute      // from the file until the new one delivers, at most
)

// integrations measures idle processes, and then adds integrations to a busy one.
func integrations(ctx context.Context, r *rig) (any, error) {
	var out integrationsResult
	for _, n := range r.o.idle {
		one, err := r.idleProcess(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("%d idle: %w", n, err)
		}
		r.logf("%d idle integrations: %.0f MiB, %.0f goroutines, %.0f connections, %.2f s of processor time a minute; %s", n,
			mib(one.Memory), one.Goroutines, one.Kafka+one.Workspace, one.CPU.Seconds(), one.Noise)
		out.Idle = append(out.Idle, one)
	}
	a, b := out.Idle[0], out.Idle[len(out.Idle)-1]
	n := b.Integrations - a.Integrations
	out.OneMore = idleCost{1, (b.Memory - a.Memory) / int64(n), (b.Heap - a.Heap) / int64(n), (b.Goroutines - a.Goroutines) / float64(n),
		(b.Kafka - a.Kafka) / float64(n), (b.Workspace - a.Workspace) / float64(n), (b.CPU - a.CPU) / time.Duration(n), noise{}}
	out.Busy = busyIntegrations
	var err error
	out.Added, err = r.add(ctx)
	return out, err
}

// deployment is a process with integrations, each with a topic of its own.
type deployment struct {
	*running
	r      *rig
	name   string
	dir    string // integrations_dir
	topics []string
}

// deploy starts a process with n integrations and waits until all deliver; there are
// topics for spare ones more. With paths each integration has an ingest path of its
// own.
func (r *rig) deploy(ctx context.Context, n, spare int, transport string, paths bool) (_ *deployment, err error) {
	d := &deployment{r: r, name: r.name("deployment")}
	for i := range n + spare {
		d.topics = append(d.topics, fmt.Sprintf("%s-%d", d.name, i))
	}
	created, err := kadm.NewClient(r.admin).CreateTopics(ctx, int32(r.o.partitions), 1, nil, d.topics...)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("creating %d topics: %w", len(d.topics), err)
	}
	d.dir = filepath.Join(r.dir, d.name)
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return nil, err
	}
	for i := range n {
		if err := d.put(i, paths); err != nil {
			return nil, err
		}
	}
	to := r.workspace
	if paths {
		to = to.plain()
	}
	d.running, err = r.launch(ctx, d.name, delivery{transport: transport, to: to}, "", "",
		fmt.Sprintf("deployment: %s\nintegrations_dir: %q\n", d.name, d.dir))
	if err != nil {
		return nil, err
	}
	if err := d.ready(ctx, n); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// put adds the file of integration i.
func (d *deployment) put(i int, path bool) error {
	text := fmt.Sprintf("i%d:\n  kafka: {topics: [%s]}\n  zerobus: {table: %s", i, d.topics[i], benchTable)
	if path {
		text += ", ingest_path: " + memberPath + strconv.Itoa(i)
	}
	file := filepath.Join(d.dir, fmt.Sprintf("i%d.yaml", i))
	if err := os.WriteFile(file+".new", []byte(text+"}\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// ready waits until n integrations deliver.
func (d *deployment) ready(ctx context.Context, n int) error {
	ctx, cancel := d.alive(ctx)
	defer cancel()
	delivering, last := 0, ""
	for {
		text, err := request(ctx, http.MethodGet, "http://"+d.ops+"/status", nil)
		if err == nil {
			var status struct {
				Integrations []struct {
					Ready  bool   `json:"ready"`
					Reason string `json:"reason"`
				} `json:"integrations"`
			}
			if err := json.Unmarshal(text, &status); err != nil {
				return fmt.Errorf("reading /status: %w", err)
			}
			delivering = 0
			for _, i := range status.Integrations {
				if i.Ready {
					delivering++
				} else if i.Reason != "" {
					last = i.Reason
				}
			}
		}
		if delivering >= n {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d integrations deliver (%s): %w", delivering, n, last, err)
		}
	}
}

// end stops the process and deletes its topics.
func (d *deployment) end(ctx context.Context) error {
	err := d.stop()
	_, derr := kadm.NewClient(d.r.admin).DeleteTopics(context.WithoutCancel(ctx), d.topics...)
	return errors.Join(err, derr)
}

// idleProcess measures n integrations without events.
func (r *rig) idleProcess(ctx context.Context, n int) (c idleCost, err error) {
	d, err := r.deploy(ctx, n, 0, r.o.transport, false)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, d.end(ctx)) }()
	if err := pause(ctx, idleDelay); err != nil {
		return c, err
	}
	from, err := readCPU(d.pid)
	if err != nil {
		return c, err
	}
	if err := pause(ctx, r.o.duration); err != nil {
		return c, err
	}
	to, err := readCPU(d.pid)
	if err != nil {
		return c, err
	}
	c = idleCost{Integrations: n, Noise: noiseBetween(from, to)}
	c.CPU = time.Duration(float64(to.subject-from.subject) * float64(time.Minute) / float64(to.at.Sub(from.at)))
	if c.Memory, _, err = memoryOf(d.pid); err != nil {
		return c, err
	}
	if c.Kafka, c.Workspace, err = r.connections(d.pid); err != nil {
		return c, err
	}
	m, err := d.scrape(ctx)
	if err != nil {
		return c, err
	}
	c.Goroutines, c.Heap = m.sum("go_goroutines"), int64(m.sum("go_memstats_heap_inuse_bytes"))
	return c, nil
}

// connections counts the established connections of a process.
func (r *rig) connections(pid int) (kafka, workspace float64, err error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, 0, err
	}
	files, err := p.FileDescriptorTargets()
	if err != nil {
		return 0, 0, fmt.Errorf("listing the connections of process %d: %w", pid, err)
	}
	own := map[string]bool{}
	for _, f := range files {
		own[f] = true
	}
	table, err := os.ReadFile("/proc/net/tcp") // proc_net_tcp of the kernel's documentation
	if err != nil {
		return 0, 0, err
	}
	brokers := map[uint64]bool{}
	for _, b := range r.brokers {
		if _, port, err := net.SplitHostPort(b); err == nil {
			n, _ := strconv.ParseUint(port, 10, 16) // one that is none matches nothing
			brokers[n] = true
		}
	}
	const established = "01"
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != established || !own["socket:["+f[9]+"]"] {
			continue
		}
		_, hex, _ := strings.Cut(f[2], ":") // of the remote address
		if port, err := strconv.ParseUint(hex, 16, 16); err == nil && brokers[port] {
			kafka++
		} else {
			workspace++
		}
	}
	return kafka, workspace, nil
}

// add adds integrations to a process of busy ones, one by one, and measures the pauses of
// the others.
func (r *rig) add(ctx context.Context) (out []addition, err error) {
	d, err := r.deploy(ctx, busyIntegrations, r.o.rounds, zerobus.TransportWorkspace, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.end(ctx)) }()
	l, err := newLoad(r.brokers, "", "none", 2*time.Millisecond, 0)
	if err != nil {
		return nil, err
	}
	rate := r.o.rate
	if rate == 0 {
		rate = busyRate * busyIntegrations
	}
	sending, enough := context.WithCancel(ctx)
	sent := make(chan error, 1)
	go func() { // ends with sending; waited for below
		l.steady(sending, rate, func(ctx context.Context) {
			i := int(l.sent) % busyIntegrations
			l.send(ctx, &kgo.Record{Topic: d.topics[i], Value: fmt.Appendf(nil,
				`{"type":"track","event":"Order Completed","message_id":"%s%d-%d","properties":{"note":"%s"}}`, spreadID, i, l.sent, padding)})
		})
		sent <- l.finish(ctx)
	}()
	for i := range r.o.rounds {
		var a addition
		if a, err = d.addOne(ctx, busyIntegrations+i); err != nil {
			break
		}
		r.logf("one more than %d: the longest pause of the others is %v, %v before; it delivers after %v", busyIntegrations+i,
			a.With.Round(time.Millisecond), a.Before.Round(time.Millisecond), a.Started.Round(time.Millisecond))
		out = append(out, a)
	}
	enough()
	return out, errors.Join(err, <-sent)
}

// addOne adds integration i.
func (d *deployment) addOne(ctx context.Context, i int) (a addition, err error) {
	if a.Before, err = d.longest(ctx, func() error { return nil }); err != nil {
		return a, err
	}
	a.With, err = d.longest(ctx, func() error {
		began := time.Now()
		if err := d.put(i, true); err != nil {
			return err
		}
		waiting, cancel := context.WithTimeoutCause(ctx, addedWithin, fmt.Errorf("not within %v", addedWithin))
		defer cancel()
		err := d.ready(waiting, i+1)
		a.Started = time.Since(began)
		return err
	})
	return a, err
}

// longest returns the longest time between two acknowledgements of an integration in
// --duration, or longer if what is to be done meanwhile takes longer.
func (d *deployment) longest(ctx context.Context, do func() error) (longest time.Duration, err error) {
	if err := d.r.workspace.call(ctx, http.MethodDelete, "/bench/owners", nil, nil); err != nil {
		return 0, err
	}
	over := time.After(d.r.o.duration)
	if err := do(); err != nil {
		return 0, err
	}
	select {
	case <-over:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	owners, err := d.r.workspace.owners(ctx)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	for i := range busyIntegrations {
		row, ok := owners.Partitions[i]
		if !ok {
			return 0, fmt.Errorf("integration %d has delivered nothing in %v", i, d.r.o.duration)
		}
		longest = max(longest, row.Longest, now.Sub(row.At))
	}
	return longest, nil
}

func (r integrationsResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "idle integrations\tRSS\tGo heap\tgoroutines\tconnections to brokers\tto the workspace\tCPU per minute\tother CPU\t")
	line := func(name string, c idleCost) {
		fmt.Fprintf(w, "%s\t%.1f MiB\t%.1f MiB\t%.1f\t%.1f\t%.1f\t%.3f s\t%.0f %%\t\n", name, mib(c.Memory), mib(c.Heap), c.Goroutines, c.Kafka, c.Workspace,
			c.CPU.Seconds(), 100*c.Noise.OtherCPU)
	}
	for _, c := range r.Idle {
		line(strconv.Itoa(c.Integrations), c)
	}
	line("one more", r.OneMore)
	_ = w.Flush() // into memory
	var before, with, started []time.Duration
	for _, a := range r.Added {
		before, with, started = append(before, a.Before), append(with, a.With), append(started, a.Started)
	}
	ms := func(all []time.Duration) string {
		of := spanOf(all)
		return fmt.Sprintf("%d / %d ms", of.P50.Milliseconds(), of.Max.Milliseconds())
	}
	fmt.Fprintf(&s, "\nThe longest time between two acknowledgements of any of %d integrations, p50 / longest of %d additions: %s; without an addition %s. The added one delivered after %s.\n",
		r.Busy, len(r.Added), ms(with), ms(before), ms(started))
	return s.String()
}
