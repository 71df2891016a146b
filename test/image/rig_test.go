//go:build engines

package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/oracle"
	"github.com/datafly/bridge/internal/traffic"
	"github.com/datafly/bridge/zerobus/emulator"
)

// rig is what the containers of a test share: an image and a Kafka on the host.
type rig struct {
	ctx   context.Context
	image string
	kafka *kafkatest.Cluster
	cl    *kgo.Client
	adm   *kadm.Client
	dir   string
	runs  int
}

func newRig(t *testing.T, image string) *rig {
	r := &rig{ctx: t.Context(), image: image, kafka: kafkatest.Start(t, kafkatest.Options{}), dir: t.TempDir()}
	var err error
	r.cl, err = kgo.NewClient(append(r.kafka.ClientOpts(), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerBatchMaxBytes(12<<20), kgo.MaxBufferedRecords(20_000))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.cl.Close)
	r.adm = kadm.NewClient(r.cl)
	return r
}

// stage is a topic, a workspace and a configuration between them.
type stage struct {
	*rig
	name      string // of the topic and the group
	workspace *emulator.Emulator
	gen       *traffic.Generator
	produced  atomic.Int64
	folder    string            // mounted as /etc/bridge
	files     map[string]string // in it
}

const (
	table = "datafly.events.stream"
	ddl   = "CREATE TABLE datafly.events.stream (message_id STRING, event_name STRING, note STRING);\n" +
		"CREATE TABLE datafly.events.second (message_id STRING, event_name STRING, note STRING);"
	blueprint = `version: 2
global:
  mappings:
    - {source: message_id, target: message_id, type: STRING}
    - {source: event, target: event_name, type: STRING}
    - {source: properties.note, target: note, type: STRING}
`
	// session is short, so that a member that is silent loses its partitions soon.
	session = 10 * time.Second
)

// on runs body on a new stage, whose acknowledgements take ack.
func (r *rig) on(partitions int32, ack time.Duration, body func(*stage) (string, error)) (figure string, err error) {
	r.runs++
	s := &stage{rig: r, name: fmt.Sprintf("image-%d", r.runs), gen: traffic.New(traffic.Config{Seed: uint64(r.runs)})}
	s.folder = filepath.Join(r.dir, s.name)
	maxBytes := "12582912"
	if _, err := r.adm.CreateTopic(r.ctx, partitions, 1, map[string]*string{"max.message.bytes": &maxBytes}, s.name); err != nil {
		return "", err
	}
	s.workspace, err = emulator.New(emulator.Config{DDL: ddl, MaxRows: 10, Latency: emulator.Latency{P50: ack}, TokenLifetime: 5 * time.Second})
	if err != nil {
		return "", err
	}
	if err := s.workspace.Start("127.0.0.1:0"); err != nil {
		return "", err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.workspace.Close(ctx) // connections of containers that are gone
	}()
	err = s.mount(map[string]string{
		"config.yaml": fmt.Sprintf(`kafka: {brokers: [%s], topics: [%s], group: %s, session_timeout: %s}
zerobus: {workspace_url: "%s", client_id: %s, client_secret_file: /etc/bridge/client-secret, table: %s}
mapping: {blueprint: /etc/bridge/blueprint.yaml}
`, strings.Join(r.kafka.Brokers(), ", "), s.name, s.name, session, s.workspace.URL(), emulator.DefaultClientID, table),
		"client-secret":  emulator.DefaultClientSecret,
		"blueprint.yaml": blueprint,
	})
	if err != nil {
		return "", err
	}
	return body(s)
}

// mount sets files of the folder as the kubelet does: in a folder of their own, to
// which the symbolic link ..data is switched.
func (s *stage) mount(files map[string]string) error {
	if s.files == nil {
		s.files = map[string]string{}
	}
	for name, text := range files {
		s.files[name] = text
	}
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return err
	}
	version, err := os.MkdirTemp(s.folder, "..version-")
	if err != nil {
		return err
	}
	if err := os.Chmod(version, 0o755); err != nil {
		return err
	}
	for name, text := range s.files {
		if err := os.WriteFile(filepath.Join(version, name), []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(s.folder, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	next := filepath.Join(s.folder, "..data_tmp")
	if err := os.Symlink(filepath.Base(version), next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(s.folder, "..data"))
}

// produce appends n well-formed events and returns when Kafka has them.
func (s *stage) produce(n int) error {
	var failed atomic.Pointer[error]
	var e traffic.Event
	for range n {
		s.gen.Next(&e)
		s.cl.Produce(s.ctx, &kgo.Record{Topic: s.name, Key: bytes.Clone(e.Key), Value: bytes.Clone(e.Value)}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				return
			}
			s.produced.Add(1)
		})
	}
	if err := s.cl.Flush(s.ctx); err != nil {
		return fmt.Errorf("producing: %w", err)
	}
	if err := failed.Load(); err != nil {
		return fmt.Errorf("producing: %w", *err)
	}
	return nil
}

// produceLarge appends n events of about size bytes, which compress well.
func (s *stage) produceLarge(n, size int) error {
	note := strings.Repeat("x", size)
	for i := range n {
		value := fmt.Sprintf(`{"type":"track","event":"Order Completed","message_id":"large-%d","properties":{"note":"%s"}}`, i, note)
		if err := s.cl.ProduceSync(s.ctx, &kgo.Record{Topic: s.name, Value: []byte(value)}).FirstErr(); err != nil {
			return fmt.Errorf("producing: %w", err)
		}
		s.produced.Add(1)
	}
	return nil
}

// traffic produces rate events per second until end is called, which returns when
// Kafka has them all.
func (s *stage) traffic(rate int) (end func() error) {
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // ends with stop
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for began, sent := time.Now(), 0; ; {
			select {
			case <-stop:
				done <- nil
				return
			case <-tick.C:
			}
			due := int(time.Since(began).Seconds()*float64(rate)) - sent
			if err := s.produce(due); err != nil {
				done <- err
				return
			}
			sent += due
		}
	}()
	return func() error { close(stop); return <-done }
}

// container is a bridge in one.
type container struct {
	s   *stage
	id  string
	ops string
	pid int // of the bridge, on the host
}

// run starts the bridge in a container and has use do the rest. The container ends
// with it. Arguments are those of docker run.
func (s *stage) run(args []string, use func(*container) (string, error)) (figure string, err error) {
	address, err := freeAddress()
	if err != nil {
		return "", err
	}
	return s.runAt(address, append([]string{"--no-healthcheck", "--env", "BRIDGE_OPS_ADDRESS=" + address}, args...), use)
}

func (s *stage) runAt(address string, args []string, use func(*container) (string, error)) (figure string, err error) {
	// As docker-compose.yml and the chart restrict it.
	args = append([]string{"run", "--detach", "--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--stop-timeout", "30", "--volume", s.folder + ":/etc/bridge:ro"}, args...)
	id, err := docker.Docker(s.ctx, append(args, s.image)...)
	if err != nil {
		return "", err
	}
	c := &container{s: s, id: id, ops: address}
	defer func() {
		if err != nil {
			logs, _ := docker.Command(s.ctx, "logs", "--tail", "5", id).CombinedOutput()
			err = fmt.Errorf("%w\n%s", err, logs)
		}
		_, rerr := docker.Docker(context.Background(), "rm", "--force", id)
		err = errors.Join(err, rerr)
	}()
	return use(c)
}

// state is what docker inspect shows of a container.
type state struct {
	Running, OOMKilled bool
	ExitCode           int
	Health             *struct {
		Status string
		Log    []struct{ Output string }
	}
}

func (c *container) state() (s state, err error) {
	err = inspect(c.s.ctx, c.id, "{{json .State}}", &s)
	return s, err
}

// ended returns why a container does not run, and nil while it does.
func (c *container) ended() error {
	s, err := c.state()
	switch {
	case err != nil || s.Running:
		return err
	case s.OOMKilled:
		return errors.New("the kernel killed the bridge for want of memory (OOM)")
	}
	return fmt.Errorf("the container ended with exit code %d", s.ExitCode)
}

// until waits for a condition while the container runs.
func (c *container) until(what string, holds func() bool) error {
	return c.untilWithin(await.Patience, what, holds)
}

func (c *container) untilWithin(limit time.Duration, what string, holds func() bool) error {
	var died error
	looked := time.Now()
	ok := await.Within(limit, func() bool {
		if holds() {
			return true
		}
		if time.Since(looked) > time.Second {
			died, looked = c.ended(), time.Now()
		}
		return died != nil
	})
	if died != nil {
		return fmt.Errorf("waiting until %s: %w", what, died)
	}
	if !ok {
		_, body := c.get("/readyz")
		return fmt.Errorf("waited %v until %s; /readyz: %s", limit, what, body)
	}
	return nil
}

// ready waits until the bridge delivers and finds its process.
func (c *container) ready() error {
	if err := c.until("the bridge is ready", func() bool { code, _ := c.get("/readyz"); return code == http.StatusOK }); err != nil {
		return err
	}
	return c.find()
}

// find looks for the process of the bridge, which is the first in its PID namespace.
func (c *container) find() error {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return err
	}
	for _, group := range groups {
		if text, err := os.ReadFile(group); err != nil || !strings.Contains(string(text), c.id) {
			continue
		}
		c.pid, err = strconv.Atoi(filepath.Base(filepath.Dir(group)))
		if ns := c.process("NSpid"); err == nil && len(ns) > 0 && ns[len(ns)-1] == "1" {
			return nil
		}
	}
	return errors.New("no process of the container is in /proc")
}

// process returns the words of a field in /proc/<pid>/status.
func (c *container) process(field string) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 0 && words[0] == field+":" {
			return words[1:]
		}
	}
	return nil
}

// peak returns the largest resident set that the bridge has had.
func (c *container) peak() string {
	words := c.process("VmHWM")
	if len(words) == 0 {
		return "peak RSS unknown"
	}
	kib, _ := strconv.Atoi(words[0])
	return fmt.Sprintf("peak RSS %d MiB", kib>>10)
}

func (c *container) get(path string) (code int, body string) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + c.ops + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// status is what the checks need of /status.
type status struct {
	BufferedBytes int64 `json:"buffered_bytes"`
	BufferedLimit int64 `json:"buffered_limit_bytes"`
	LogDropped    int64 `json:"log_lines_dropped"`
}

func (c *container) status() (s status) {
	if _, body := c.get("/status"); json.Unmarshal([]byte(body), &s) != nil {
		return status{}
	}
	return s
}

// metric adds up the series of a metric whose labels contain label.
func (c *container) metric(name, label string) (sum float64) {
	_, body := c.get("/metrics")
	for line := range strings.Lines(body) {
		if series, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && strings.HasPrefix(series, name+"{") && strings.Contains(series, label) {
			n, _ := strconv.ParseFloat(value, 64)
			sum += n
		}
	}
	return sum
}

// delivered counts the events in the table.
func (s *stage) delivered() int { return s.workspace.Table(table).Distinct("message_id") }

// complete waits until every event is in the table and returns how many rows are
// duplicates. Events are lost that the group has committed past without a row.
func (c *container) complete() (duplicates int, err error) {
	s := c.s
	produced := int(s.produced.Load())
	passed := false
	err = c.until(fmt.Sprintf("%d events are rows", produced), func() bool {
		passed = s.committed()
		return passed || s.delivered() >= produced
	})
	if missing := produced - s.delivered(); passed && missing > 0 {
		return 0, fmt.Errorf("%d events are lost", missing)
	}
	if err != nil {
		return 0, err
	}
	return oracle.Duplicates(produced, s.workspace.Table(table).Count(), s.delivered())
}

// committed reports whether the group has committed all that was produced.
func (s *stage) committed() bool {
	offsets, err := s.adm.FetchOffsets(s.ctx, s.name)
	sum := int64(0)
	for _, o := range offsets[s.name] {
		sum += o.At
	}
	return err == nil && offsets.Error() == nil && sum == s.produced.Load()
}

// stop stops the container as docker stop does and wants it to end in good order.
func (c *container) stop(args ...string) (took time.Duration, err error) {
	began := time.Now()
	if _, err := docker.Docker(c.s.ctx, append(append([]string{"stop"}, args...), c.id)...); err != nil {
		return 0, err
	}
	took = time.Since(began)
	s, err := c.state()
	if err == nil && s.ExitCode != 0 {
		err = fmt.Errorf("after docker stop: exit code %d, want 0", s.ExitCode)
	}
	return took, err
}

// again starts a container that has ended.
func (c *container) again() error {
	if _, err := docker.Docker(c.s.ctx, "start", c.id); err != nil {
		return err
	}
	return c.ready()
}

// alive reports whether the process is the one that was found.
func (c *container) alive() error {
	if err := syscall.Kill(c.pid, 0); err != nil {
		return fmt.Errorf("the bridge was restarted: %w", err)
	}
	return nil
}

func inspect(ctx context.Context, what, format string, into any) error {
	out, err := docker.Docker(ctx, "inspect", "--format", format, what)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// freeAddress finds a port on loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
