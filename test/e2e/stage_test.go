package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/oracle"
	"github.com/datafly/bridge/zerobus/emulator"
)

// stage is what a bridge stands on in one test: a topic, a workspace, and a
// configuration that joins them.
type stage struct {
	t      testing.TB
	broker kafkatest.Broker
	ws     *workspace
	e      *evidence
	adm    *kadm.Client
	p      *producer
	topic  string
	group  string
	config string // path
	plain  bool   // run the build without the race detector
	panics bool   // run the build with a bug
	drain  time.Duration
	cgroup *cgroup // the bridge runs in; nil: the test's
	later  func()  // fixes what the test has broken
}

// setting alters a stage before it is set.
type setting struct {
	partitions int32
	workspace  emulator.Config
	topic      map[string]string // topic configs
	noTopic    bool
}

// eachStage runs body on both brokers, in parallel with the other tests.
func eachStage(t *testing.T, set setting, body func(t *testing.T, s *stage)) {
	t.Helper()
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		t.Parallel()
		body(t, newStage(t, b, set))
	})
}

// eachHeavyStage runs body on both brokers, one after the other, while nothing
// else runs: it works hard, or counts on the machine's pace.
func eachHeavyStage(t *testing.T, set setting, body func(t *testing.T, s *stage)) {
	t.Helper()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) { body(t, newStage(t, b, set)) })
}

func newStage(t testing.TB, b kafkatest.Broker, set setting) *stage {
	t.Helper()
	e := newEvidence(t)
	s := &stage{t: t, broker: b, e: e, ws: newWorkspace(t, e, set.workspace), topic: kafkatest.Name(t) + ".events_v1", group: kafkatest.Name(t), drain: 3 * time.Second}
	e.secret("the SASL password", b.Security().Password)
	s.adm = kadm.NewClient(client(t, b))
	partitions := max(set.partitions, 1)
	if !set.noTopic {
		b.CreateTopic(t, s.topic, partitions, set.topic)
	}
	s.p = newProducer(t, b, s.topic, partitions)
	s.write()
	return s
}

// write makes the configuration file.
func (s *stage) write() {
	s.t.Helper()
	table := strings.SplitN(tableName, ".", 3)
	text := fmt.Sprintf(`kafka:
  brokers: [%s]
  topics: [%s]
  group: %s
  session_timeout: %s
zerobus:
  workspace_url: %s
  client_id: %s
  client_secret_file: %s
  catalog: %s
  schema: %s
  table: %s
  transport: workspace
delivery:
  drain: %s
`, strings.Join(s.broker.Addrs(), ", "), s.topic, s.group, session, s.ws.url, clientID, s.ws.file, table[0], table[1], table[2], s.drain)
	if sec := s.broker.Security(); sec.Mechanism != "" {
		file := filepath.Join(s.t.TempDir(), "kafka-password")
		if err := os.WriteFile(file, []byte(sec.Password), 0o600); err != nil {
			s.t.Fatal(err)
		}
		text = strings.Replace(text, "zerobus:\n", fmt.Sprintf("  sasl: {mechanism: %s, username: %s, password_file: %s}\nzerobus:\n",
			strings.ToLower(sec.Mechanism), sec.Username, file), 1)
	}
	s.config = filepath.Join(s.t.TempDir(), "bridge.yaml")
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// args are those of a command that reads the configuration; sets go behind.
func (s *stage) args(name string, sets ...string) []string {
	args := []string{name, "--config", s.config}
	for _, set := range sets {
		args = append(args, "--set", set)
	}
	return args
}

// member is a running `bridge run`.
type member struct {
	*process
	s       *stage
	address string // of its ops endpoints
}

// begin starts `bridge run`; sets are key=value.
func (s *stage) begin(sets ...string) *member {
	s.t.Helper()
	return s.beginAt(kafkatest.FreeAddress(s.t), sets...)
}

// beginAt is begin with the address of the ops endpoints.
func (s *stage) beginAt(address string, sets ...string) *member {
	s.t.Helper()
	p := start(s.t, s.e, command{args: append(s.args("run", sets...), "--ops-address", address), plain: s.plain, panics: s.panics, cgroup: s.cgroup})
	m := &member{process: p, s: s, address: address}
	s.t.Cleanup(m.audit)
	return m
}

// audit checks the member's accounts of events: those it logged when it stopped, or the
// present ones. A member that was killed has none.
func (m *member) audit() {
	var all []oracle.Account
	if m.running() {
		resp, err := (&http.Client{Timeout: time.Minute}).Get("http://" + m.address + "/status")
		if err != nil {
			return // it is still starting, or frozen
		}
		defer resp.Body.Close()
		var s struct {
			Integrations []struct{ Ledger oracle.Account }
		}
		if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
			m.t.Errorf("reading the status of %s: %v", m.name, err)
			return
		}
		for _, i := range s.Integrations {
			all = append(all, i.Ledger)
		}
	} else {
		for line := range strings.Lines(m.stderr.String()) {
			var entry struct {
				Msg    string
				Events oracle.Account
			}
			if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "stopped" {
				continue
			}
			if all = append(all, entry.Events); entry.Events.InFlight != 0 {
				m.t.Errorf("%s stopped with %d events in flight, want them delivered or released: %+v", m.name, entry.Events.InFlight, entry.Events)
			}
		}
	}
	for _, l := range all {
		if err := l.Check(); err != nil {
			m.t.Errorf("the ledger of %s: %v", m.name, err)
		}
	}
}

// beginReady starts `bridge run` and waits until it delivers.
func (s *stage) beginReady(sets ...string) *member {
	s.t.Helper()
	m := s.begin(sets...)
	m.ready()
	return m
}

var browser = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}

// get fetches a page of the ops endpoints; status 0 means no answer.
func (m *member) get(path, accept string) (status int, body string) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+m.address+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := browser.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	body = string(text)
	m.s.e.text(m.name+" at "+path+" "+accept, func() string { return body })
	return resp.StatusCode, body
}

// notReady returns the codes and texts of /readyz; nil when it is ready.
func (m *member) notReady() (status int, reasons []consumer.NotReady) {
	m.t.Helper()
	status, body := m.get("/readyz", "application/json")
	var answer struct {
		Reasons []consumer.NotReady `json:"reasons"`
	}
	if status != 0 {
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			m.t.Fatalf("/readyz: %v in %s", err, body)
		}
	}
	return status, answer.Reasons
}

// snapshot reads /status.
func (m *member) snapshot() (s ops.Status) {
	m.t.Helper()
	var status int
	var body string
	eventually(m.t, patience, m.name+" answers /status", func() bool { // a busy machine may take longer than a client waits
		status, body = m.get("/status", "application/json")
		return status == http.StatusOK
	}, func() string { return fmt.Sprintf("got %d, want 200", status) })
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		m.t.Fatalf("/status: %v in %s", err, body)
	}
	return s
}

// ready waits for /readyz to say so.
func (m *member) ready() {
	m.t.Helper()
	last := ""
	eventually(m.t, patience, m.name+" ready", func() bool {
		m.alive()
		status, reasons := m.notReady()
		last = fmt.Sprint(status, reasons)
		return status == http.StatusOK
	}, func() string { return last })
}

// integration returns what /status shows of the only integration.
func (m *member) integration() ops.IntegrationStatus {
	m.t.Helper()
	s := m.snapshot()
	if len(s.Integrations) != 1 {
		m.t.Fatalf("/status: got %d integrations, want 1", len(s.Integrations))
	}
	return s.Integrations[0]
}

// alive fails the test when the child has ended alone.
func (m *member) alive() {
	m.t.Helper()
	if !m.running() {
		m.t.Fatalf("%s ended alone with %v; its stderr:\n%s", m.name, m.cmd.ProcessState, tail(m.stderr.String()))
	}
}

// blocked waits for a reason at /readyz and returns it.
func (m *member) blocked(code string, limit time.Duration) (r consumer.NotReady) {
	m.t.Helper()
	last := ""
	eventually(m.t, limit, m.name+" not ready with "+code, func() bool {
		m.alive()
		status, reasons := m.notReady()
		last = fmt.Sprint(status, reasons)
		for _, r = range reasons {
			if r.Code == code {
				return status == http.StatusServiceUnavailable
			}
		}
		return false
	}, func() string { return last })
	return r
}

// rows waits until the table has had n rows.
func (s *stage) rows(m *member, n int) {
	s.t.Helper()
	table := s.ws.table()
	eventually(s.t, patience, fmt.Sprintf("%d rows", n), func() bool {
		if m != nil {
			m.alive()
		}
		return table.Count() >= n
	}, func() string { return fmt.Sprintf("got %d rows", table.Count()) })
}

// complete waits until the table has every event and the group has committed
// them all, reports what is lost if that never comes, and returns how many rows
// are there more than once.
func (s *stage) complete(m *member) (duplicates int) {
	s.t.Helper()
	table, want := s.ws.table(), s.p.total()
	eventually(s.t, patience, fmt.Sprintf("%d events in the table", want), func() bool {
		if m != nil {
			m.alive()
		}
		return table.Count() >= want && table.Distinct("message_id") >= want
	}, func() string {
		return fmt.Sprintf("got %d: %d are lost", table.Distinct("message_id"), want-table.Distinct("message_id"))
	})
	// Only when it is committed is it over: a lost acknowledgement has a batch
	// written again.
	s.commits()
	duplicates, err := oracle.Duplicates(want, table.Count(), table.Distinct("message_id"))
	if err != nil {
		s.t.Fatal(err)
	}
	return duplicates
}

// commits waits until the group has committed everything.
func (s *stage) commits() {
	s.t.Helper()
	want := int64(s.p.total())
	eventually(s.t, patience, fmt.Sprintf("%d offsets committed", want), func() bool {
		return sum(committed(s.t, s.adm, s.group, s.topic)) == want
	}, func() string { return fmt.Sprint(committed(s.t, s.adm, s.group, s.topic)) })
}

// nothingPastTheAck compares every committed offset with the rows.
func (s *stage) nothingPastTheAck() {
	s.t.Helper()
	offsets := committed(s.t, s.adm, s.group, s.topic)
	ids := s.ws.ids() // read later, so that it can only have more
	for partition, offset := range offsets {
		for o := range max(offset, 0) {
			if ids[eventID(partition, o)] == 0 {
				s.t.Fatalf("partition %d: offset %d is committed, and event %d is not in the table", partition, offset, o)
			}
		}
	}
}
