package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"text/template"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/bench/naive"
	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// peer is another program that delivers the topic, as its file describes it. All
// texts but the name are templates with the fields of peerData.
type peer struct {
	Name    string            `yaml:"name"`
	Needs   []string          `yaml:"needs"`   // programs; without one of them the peer is left out
	Build   [][]string        `yaml:"build"`   // commands that run once, before the first round
	Files   map[string]string `yaml:"files"`   // written to Dir before each run, by name
	Env     map[string]string `yaml:"env"`     // besides what every subject has
	Command []string          `yaml:"command"` // runs until SIGTERM

	here string // the folder of its file
	dir  string // for its files; kept from round to round
}

// peerData is what the texts of a peer can contain, as in {{.Topic}}.
type peerData struct {
	Here string // the folder of the peer's file
	Dir  string // a folder for what the peer builds and writes

	Brokers string // bootstrap addresses, with commas between
	Topic   string
	Group   string // a new one for each run

	Workspace    string // the workspace's URL
	ClientID     string
	ClientSecret string
	Table        string // catalog.schema.table
	Ingest       string // URL that takes {"table": Table, "records": [row, ...]}
	Rows         string // URL that takes [row, ...], for programs that cannot send the form above
	Token        string // bearer token for either URL, valid for an hour
}

// readPeer reads a peer's file.
func readPeer(file string) (*peer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := &peer{}
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	d.KnownFields(true)
	if err := d.Decode(p); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if p.Name == "" || len(p.Command) == 0 {
		return nil, fmt.Errorf("%s: a peer needs a name and a command", file)
	}
	if p.here, err = filepath.Abs(filepath.Dir(file)); err != nil {
		return nil, err
	}
	for name := range p.Files {
		if !filepath.IsLocal(name) || name != filepath.Base(name) {
			return nil, fmt.Errorf("%s: %q is no plain file name", file, name)
		}
	}
	if _, err := p.filled(peerData{}); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

// filled returns the peer with the data in its texts.
func (p *peer) filled(data peerData) (*peer, error) {
	var errs []error
	fill := func(text string) string {
		var out strings.Builder
		t, err := template.New("").Parse(text)
		if err == nil {
			err = t.Execute(&out, data)
		}
		errs = append(errs, err)
		return out.String()
	}
	all := func(texts []string) (out []string) {
		for _, text := range texts {
			out = append(out, fill(text))
		}
		return out
	}
	q := *p
	q.Command, q.Build, q.Files, q.Env = all(p.Command), nil, map[string]string{}, map[string]string{}
	for _, command := range p.Build {
		q.Build = append(q.Build, all(command))
	}
	for name, text := range p.Files {
		q.Files[name] = fill(text)
	}
	for key, text := range p.Env {
		q.Env[key] = fill(text)
	}
	return &q, errors.Join(errs...)
}

// missing returns the first program the peer needs that this machine lacks.
func (p *peer) missing() string {
	for _, program := range p.Needs {
		if _, err := exec.LookPath(program); err != nil {
			return program
		}
	}
	return ""
}

// build runs the peer's build commands in a folder of its own.
func (p *peer) build(ctx context.Context, parent string) (err error) {
	if p.dir, err = os.MkdirTemp(parent, "peer-*"); err != nil {
		return fmt.Errorf("making a folder for %s: %w", p.Name, err)
	}
	f, err := p.filled(peerData{Here: p.here, Dir: p.dir})
	if err != nil {
		return err
	}
	for _, command := range f.Build {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = p.here
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %s: %w\n%s", p.Name, strings.Join(command, " "), err, text)
		}
	}
	return nil
}

// peersResult is the comparison with other programs.
type peersResult struct {
	comparison
	LeftOut []string `json:"left_out,omitempty"` // peers that this machine cannot run, and why
}

// The first two subjects of a peersResult.
const (
	pollOnly = iota
	theBridge
)

// peers has the consumer that only polls, the bridge, the naive bridge and other
// programs deliver the same topic to the same sink, each all of it.
func peers(ctx context.Context, r *rig) (any, error) {
	files := r.o.peers
	if len(files) == 0 {
		root, err := buildtest.Root()
		if err == nil {
			files, err = filepath.Glob(filepath.Join(root, "bench", "peers", "*.yaml"))
		}
		if err != nil {
			return nil, err
		}
	}
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], r.o.events)
	if err != nil {
		return nil, err
	}
	subjects := []subject{
		{"poll-only", func(ctx context.Context) (figures, error) { return r.pollAll(ctx, topic) }},
		r.asSubject("bridge", r.full(topic)),
		{"naive", func(ctx context.Context) (figures, error) {
			c, err := r.startNaive(ctx, topic)
			if err != nil {
				return figures{}, err
			}
			f, err := r.everything(ctx, c, time.Now())
			return f, errors.Join(err, c.stop())
		}},
	}
	var result peersResult
	for _, file := range files {
		p, err := readPeer(file)
		if err != nil {
			return nil, err
		}
		if program := p.missing(); program != "" {
			result.LeftOut = append(result.LeftOut, p.Name+" needs "+program)
			continue
		}
		r.logf("building %s", p.Name)
		if err := p.build(ctx, r.dir); err != nil {
			return nil, err
		}
		subjects = append(subjects, subject{p.Name, func(ctx context.Context) (figures, error) { return r.peerAll(ctx, topic, p) }})
	}
	result.comparison, err = r.takeTurns(ctx, "", r.o.rounds, subjects...)
	return result, errors.Join(err, r.drop(ctx, topic))
}

// peerAll has a peer deliver everything in the topic.
func (r *rig) peerAll(ctx context.Context, topic string, p *peer) (f figures, err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return f, err
	}
	token, err := naive.Token(ctx, http.DefaultClient, serviceAt(r.workspace.at.Control, nil))
	if err != nil {
		return f, fmt.Errorf("getting a token: %w", err)
	}
	q, err := p.filled(peerData{
		Here: p.here, Dir: p.dir, Brokers: strings.Join(r.brokers, ","), Topic: topic, Group: r.name("group"),
		Workspace: r.workspace.at.Control, ClientID: emulator.DefaultClientID, ClientSecret: emulator.DefaultClientSecret,
		Table: benchTable, Ingest: r.workspace.at.Control + emulator.IngestPath, Rows: r.workspace.at.Control + rowsPath, Token: token,
	})
	if err != nil {
		return f, err
	}
	for name, text := range q.Files {
		if err := os.WriteFile(filepath.Join(q.dir, name), []byte(text), 0o600); err != nil {
			return f, err
		}
	}
	env := inherited()
	for key, value := range q.Env {
		env = append(env, key+"="+value)
	}
	began := time.Now()
	c, err := start(ctx, r.dir, "peer", env, q.Command[0], q.Command[1:]...)
	if err != nil {
		return f, err
	}
	f, err = r.everything(ctx, c, began)
	return f, errors.Join(err, c.end())
}

// everything measures a child from a warm start to the last row, and wants every event
// in the table at least once.
func (r *rig) everything(ctx context.Context, c *child, began time.Time) (f figures, err error) {
	alive, cancel := c.alive(ctx)
	defer cancel()
	if err := r.workspace.wait(alive, 1); err != nil {
		return f, err
	}
	first := time.Since(began)
	if f, err = r.watch(alive, c, warm(r.o.events), r.o.events); err != nil {
		return f, err
	}
	f.FirstRow = first.Seconds()
	_, err = r.workspace.delivered(alive, r.o.events)
	return f, err
}

// end stops a child of which it is not known how it ends on SIGTERM, and all it started:
// its process group.
func (c *child) end() error {
	select {
	case <-c.done:
		_ = syscall.Kill(-c.pid, syscall.SIGKILL) // usually empty
		return c.died()
	default:
	}
	_ = syscall.Kill(-c.pid, syscall.SIGTERM) // it may have ended just now
	select {
	case <-c.done:
	case <-time.After(stopWithin):
	}
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	<-c.done
	c.cancel()
	var exit *exec.ExitError
	if !errors.As(c.err, &exit) || exit.ExitCode() == 128+int(syscall.SIGTERM) || exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM {
		return nil
	}
	return fmt.Errorf("stopping %s: %w\n%s", c.name, c.err, c.tail())
}

// ratio is rows per CPU second of one subject to those of another in the same round:
// the median, the least and the most.
func (c comparison) ratio(of, to int) (median, least, most float64) {
	var all []float64
	for round, f := range c.Series[of].Runs {
		all = append(all, c.Series[to].Runs[round].CPUMicros/f.CPUMicros)
	}
	return medianOf(all), slices.Min(all), slices.Max(all)
}

func (p peersResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "subject\trows/s\trows/CPU s\tus/row\tpeak RSS\tfirst row\tto poll-only\tto the bridge\tleast\tmost\tother CPU\truns\t")
	for i, one := range p.Series {
		m := one.Median
		toPoll, _, _ := p.ratio(i, pollOnly)
		toBridge, least, most := p.ratio(i, theBridge)
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.2f\t%.0f MiB\t%.2f s\t%.3f\t%.3f\t%.3f\t%.3f\t%.0f %%\t%d of %d\t\n", one.Name, m.PerSecond, m.PerCPU, m.CPUMicros,
			m.PeakMemory/(1<<20), m.FirstRow, toPoll, toBridge, least, most, 100*m.OtherCPU, one.Kept, len(one.Runs))
	}
	_ = w.Flush() // into memory
	for _, why := range p.LeftOut {
		fmt.Fprintf(&s, "left out: %s\n", why)
	}
	s.WriteString("\nRatios are rows per CPU second, of a subject and all processes it started, against poll-only and the bridge in the same round. " +
		"Every subject read the whole topic, and every event was in the table at least once.\n")
	return s.String()
}
