package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// child is a process that this one started and will stop.
type child struct {
	name   string
	pid    int
	log    string // file with its standard error
	lines  chan []byte
	done   chan struct{} // closed when it has ended; err is set by then
	err    error
	cancel context.CancelFunc
}

// stopWithin is how long a child may take to end after SIGTERM: the bridge's
// drain and some.
const stopWithin = 25 * time.Second

// start runs a program until ctx ends or stop is called. Its standard output is
// lines for the reader, its standard error goes to a file in dir.
func start(ctx context.Context, dir, name string, env []string, program string, args ...string) (*child, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.SysProcAttr = env, childAttr()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	log, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		cancel()
		return nil, fmt.Errorf("making a log file for %s: %w; free some space in %s", name, err, dir)
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	c := &child{name: name, pid: cmd.Process.Pid, log: log.Name(), lines: make(chan []byte, 16), done: make(chan struct{}), cancel: cancel}
	go func() { // ends with the process; stop waits for it
		defer close(c.done)
		in := bufio.NewScanner(out)
		for in.Scan() {
			select {
			case c.lines <- []byte(in.Text()):
			default: // nobody reads more than the few lines a role reports
			}
		}
		c.err = cmd.Wait()
	}()
	return c, nil
}

// dump ends a child of Go that does not answer: where its goroutines stand goes
// to its log, which the error of stop quotes.
func (c *child) dump() {
	if p, err := os.FindProcess(c.pid); err == nil {
		_ = p.Signal(syscall.SIGQUIT) // it may have ended just now
	}
	select {
	case <-c.done:
	case <-time.After(stopWithin): // a kernel that does not let go of it, say; stop kills it
	}
}

// stop ends the child and waits for it.
func (c *child) stop() error {
	select {
	case <-c.done:
		return c.died()
	default:
	}
	c.cancel()
	<-c.done
	var exit *exec.ExitError
	if errors.As(c.err, &exit) {
		return fmt.Errorf("stopping %s: %w\n%s", c.name, c.err, c.tail())
	}
	return nil
}

// died returns how a child ended that should be running.
func (c *child) died() error {
	cause := c.err
	if cause == nil {
		cause = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended without being stopped: %w; the end of its log:\n%s", c.name, cause, c.tail())
}

func (c *child) tail() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	most := 2000
	if bytes.Contains(text, []byte("SIGQUIT: quit")) {
		most = 1 << 20 // see dump
	}
	return strings.TrimSpace(string(text[max(len(text)-most, 0):]))
}

// read decodes the next line the child reports.
func (c *child) read(ctx context.Context, v any) error {
	select {
	case line := <-c.lines:
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("%s reported %q: %w", c.name, line, err)
		}
		return nil
	case <-c.done:
		return c.died()
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", c.name, context.Cause(ctx))
	}
}

// alive returns a context that also ends when the child does.
func (c *child) alive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // ends with ctx, which the caller cancels
		select {
		case <-c.done:
			cancel(c.died())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// Roles are what this program runs in other processes of itself.
const (
	roleEnv     = "BENCH_ROLE"
	settingsEnv = "BENCH_ROLE_SETTINGS"
)

// startRole starts another process of this program in a role.
func startRole(ctx context.Context, dir, role string, settings any) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program's own file: %w", err)
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	return start(ctx, dir, role, append(inherited(), roleEnv+"="+role, settingsEnv+"="+string(text)), self)
}

// runRole runs the role that the environment names, if it names one.
func runRole(ctx context.Context) (started bool, err error) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return false, nil
	}
	run, ok := roles[role]
	if !ok {
		return true, fmt.Errorf("unknown role %q in %s", role, roleEnv)
	}
	return true, run(ctx, []byte(os.Getenv(settingsEnv)))
}

var roles = map[string]func(context.Context, []byte) error{
	"broker":   runBroker,
	"emulator": runEmulator,
	"poll":     runPoll,
	"naive":    runNaive,
}

// report sends one line to the process that started this one.
func report(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// inherited is the environment of children: what programs need, and the knobs
// of the Go runtime, but no setting of the bridge.
func inherited() []string {
	var env []string
	for _, kv := range os.Environ() {
		key, _, _ := strings.Cut(kv, "=")
		switch key {
		case "PATH", "HOME", "TMPDIR", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG":
			env = append(env, kv)
		}
	}
	return env
}

// atBroker is what the broker's process reports once it serves.
type atBroker struct {
	Addresses []string `json:"addresses"`
	Control   string   `json:"control"` // counts fetches; empty: it does not
}

// brokerConfig has groups of the KIP-848 protocol give a silent member up as
// soon as classic ones do in scale: there the brokers' setting counts, not the
// member's.
var brokerConfig = map[string]string{"group.consumer.session.timeout.ms": strconv.FormatInt(scaleSession.Milliseconds(), 10)}

// runBroker is the role of the in-process Kafka of franz-go, in a process of its own
// so that its processor time is not the bridge's.
func runBroker(ctx context.Context, _ []byte) error {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(brokerConfig))
	if err != nil {
		return fmt.Errorf("starting the in-process kafka: %w", err)
	}
	defer fake.Close()
	var fetches atomic.Int64
	fake.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		fetches.Add(1)
		return nil, nil, false
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for the benchmark: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(fetches.Load()) // the benchmark may have ended
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends with Close; waited for below
	if err := report(atBroker{Addresses: fake.ListenAddrs(), Control: "http://" + listener.Addr().String()}); err != nil {
		return err
	}
	<-ctx.Done()
	err = server.Close()
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// fetches returns how many the broker has answered; 0 where it does not count them.
func (r *rig) fetches(ctx context.Context) (n int, err error) {
	if r.broker.Control == "" {
		return 0, nil
	}
	text, err := request(ctx, http.MethodGet, r.broker.Control, nil)
	if err != nil {
		return 0, err
	}
	return n, json.Unmarshal(text, &n)
}

// startBroker starts the broker that the options name and returns where it is and
// how to stop it.
func startBroker(ctx context.Context, o *options, dir string) (at atBroker, stop func() error, err error) {
	if o.apache {
		cluster, err := kafkatest.Run(ctx, dir, kafkatest.Options{JVM: []string{"-Xmx1g"}, Config: brokerConfig})
		if err != nil {
			return at, nil, err
		}
		return atBroker{Addresses: cluster.Brokers()}, cluster.Close, nil
	}
	c, err := startRole(ctx, dir, "broker", nil)
	if err != nil {
		return at, nil, err
	}
	if err := c.read(ctx, &at); err != nil {
		return at, nil, fmt.Errorf("%w; stopping it: %w", err, c.stop())
	}
	return at, c.stop, nil
}

// reading is what a consumer needs to know; it travels to the roles as JSON.
type reading struct {
	Brokers []string `json:"brokers"`
	Topic   string   `json:"topic"`
	Group   string   `json:"group"`
	// Warm is how many events pass before the clock starts, All how many
	// there are.
	Warm int `json:"warm"`
	All  int `json:"all"`

	// Where rows go; not for the consumer that only polls.
	Workspace string `json:"workspace,omitempty"`
	CA        string `json:"ca,omitempty"` // PEM; empty without TLS
}

// options are those that the consumers have in common with the bridge.
func (r *reading) options() []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(r.Brokers...),
		kgo.ConsumerGroup(r.Group),
		kgo.ConsumeTopics(r.Topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(4 << 20),
		kgo.FetchMaxPartitionBytes(256 << 10),
	}
}

func readingFrom(settings []byte) (r reading, err error) {
	if err := json.Unmarshal(settings, &r); err != nil {
		return r, fmt.Errorf("reading the role's settings: %w", err)
	}
	return r, nil
}

// pollMark is what the consumer that only polls reports three times: with its first
// events, when it is warm and when it has everything.
type pollMark struct {
	Events int           `json:"events"`
	CPU    time.Duration `json:"cpu_ns"` // user and system time since it started
}

// runPoll is the role of the consumer that only polls: the least that a consumer with
// this client costs. Its options are those of the bridge.
func runPoll(ctx context.Context, settings []byte) error {
	r, err := readingFrom(settings)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(r.options(),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(time.Second),
		kgo.BlockRebalanceOnPoll(),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
	)...)
	if err != nil {
		return fmt.Errorf("preparing the kafka consumer: %w", err)
	}
	defer cl.CloseAllowingRebalance()
	events, first, warm := 0, false, false
	for events < r.All {
		fetches := cl.PollRecords(ctx, 10_000)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("polling %s: %w", r.Topic, err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if n := len(p.Records); n > 0 {
				events += n
				cl.MarkCommitRecords(p.Records[n-1])
			}
		})
		cl.AllowRebalance()
		if !first && events > 0 {
			first = true
			if err := reportMark(events); err != nil {
				return err
			}
		}
		if !warm && events >= r.Warm {
			warm = true
			if err := reportMark(events); err != nil {
				return err
			}
		}
	}
	if err := reportMark(events); err != nil {
		return err
	}
	<-ctx.Done() // memory is read from outside first
	return nil
}

func reportMark(events int) error {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return fmt.Errorf("reading the own processor time: %w", err)
	}
	return report(pollMark{Events: events, CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano())})
}

// pollAll has the consumer that only polls read everything in the topic.
func (r *rig) pollAll(ctx context.Context, topic string) (f figures, err error) {
	began := time.Now()
	c, err := startRole(ctx, r.dir, "poll", reading{
		Brokers: r.brokers, Topic: topic, Group: r.name("group"), Warm: warm(r.o.events), All: r.o.events,
	})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	var marks [2]pollMark
	if err := c.read(ctx, &marks[0]); err != nil {
		return f, err
	}
	first := time.Since(began)
	var at [2]cpuTimes
	for i := range marks {
		if err := c.read(ctx, &marks[i]); err != nil {
			return f, err
		}
		if at[i], err = readCPU(c.pid); err != nil {
			return f, err
		}
		at[i].subject = marks[i].CPU // the finer clock
	}
	f = newFigures(marks[1].Events-marks[0].Events, at[0], at[1])
	f.FirstRow = first.Seconds()
	_, peak, err := memoryOf(c.pid)
	f.PeakMemory = float64(peak)
	return f, err
}
