package browser_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

const tableName = "datafly.events.stream"

// stage is a running bridge and what it stands between.
type stage struct {
	t       *testing.T
	ws      *emulator.Emulator
	cl      *kgo.Client
	topic   string
	address string // of the ops server
	log     *output

	program string
	args    []string
	env     []string // on top of what every bridge gets
	stop    func()   // ends the bridge that runs
}

// output collects what the child writes.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// newStage starts a bridge; sets are key=value. It looks for the browser first,
// so that without one nothing is started.
func newStage(t *testing.T, latency emulator.Latency, sets ...string) (*stage, *page) {
	t.Helper()
	ctx := chromium(t)
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	broker := kafkatest.StartFake(t, kafkatest.Options{})
	s := &stage{t: t, topic: kafkatest.Name(t), address: kafkatest.FreeAddress(t), log: &output{}}
	if os.Getenv("BRIDGE_SCREENSHOTS") != "" {
		s.topic = "signal-events" // it is in the pictures
	}
	broker.CreateTopic(t, s.topic, 3, nil)
	if s.ws, err = emulator.New(emulator.Config{Latency: latency}); err != nil {
		t.Fatal(err)
	}
	if err := s.ws.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.ws.Close(ctx) // what is cut off is the child's, and it is gone
	})
	if s.cl, err = kgo.NewClient(append(broker.ClientOpts(), kgo.DefaultProduceTopic(s.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cl.Close)
	config := filepath.Join(t.TempDir(), "bridge.yaml")
	text := fmt.Sprintf(`kafka: {brokers: ["%s"], topics: [%s], group: %s}
zerobus: {workspace_url: "%s", client_id: %s, client_secret: %s, table: %s, transport: workspace}
ops: {address: "%s"}
`, strings.Join(broker.Addrs(), `", "`), s.topic, s.topic, s.ws.URL(), emulator.DefaultClientID, emulator.DefaultClientSecret, tableName, s.address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.program, s.args = program, []string{"run", "--config", config}
	for _, set := range sets {
		if token, ok := strings.CutPrefix(set, "ops.token="); ok { // a secret is no argument
			s.env = append(s.env, "BRIDGE_OPS_TOKEN="+token)
			continue
		}
		s.args = append(s.args, "--set", set)
	}
	s.start()
	s.eventually("the bridge to be ready", func() bool {
		status, _ := s.get("/readyz")
		return status == http.StatusOK
	})
	return s, &page{t: t, ctx: ctx, s: s}
}

// start starts the bridge; it is stopped with the test, or by stop.
func (s *stage) start() {
	s.t.Helper()
	cmd := exec.Command(s.program, s.args...)
	cmd.Dir = s.t.TempDir()
	cmd.Env = append(slices.Clone(s.env), "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"), "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("starting the bridge: %v", err)
	}
	s.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
		killer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		killer.Stop()
		if err != nil && !s.t.Failed() {
			s.t.Errorf("the bridge ended with %v", err)
		}
	})
	s.t.Cleanup(func() {
		s.stop()
		if text := s.log.String(); s.t.Failed() || strings.Contains(text, "DATA RACE") {
			s.t.Errorf("the bridge said:\n%s", text[max(len(text)-8000, 0):])
		}
	})
}

// produce writes records, each to the partition it names.
func (s *stage) produce(recs ...*kgo.Record) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := s.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		s.t.Fatalf("producing: %v", err)
	}
}

// event writes one record with this value.
func (s *stage) event(value string) {
	s.t.Helper()
	s.produce(&kgo.Record{Value: []byte(value)})
}

// tombstone is a record without a value.
func tombstone() *kgo.Record { return &kgo.Record{Key: []byte("gone")} }

// track is an event of that type.
func track(name, id string) string {
	return fmt.Sprintf(`{"type":"track","event":%q,"message_id":%q,"user_id":"u-1","timestamp":"2026-03-01T12:00:00Z","properties":{"total":12.50}}`, name, id)
}

func (s *stage) rows() int { return s.ws.Table(tableName).Count() }

func (s *stage) eventually(what string, holds func() bool) {
	s.t.Helper()
	await.That(s.t, what, holds)
}

// get asks the ops server; headers are name, value pairs. Status 0 is no answer.
func (s *stage) get(path string, headers ...string) (status int, body string) {
	s.t.Helper()
	return s.ask(http.MethodGet, path, headers...)
}

func (s *stage) ask(method, path string, headers ...string) (status int, body string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.address+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(text)
}
