package ops_test

import (
	"context"
	"flag"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

var update = flag.Bool("update", false, "rewrite testdata and docs/metrics.md")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time of every snapshot in these tests.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// known is a small closed set of each label.
var known = ops.Known{
	Topics:        []string{"events"},
	RejectCodes:   []string{"malformed", "too_large"},
	FilterReasons: []string{"tombstone"},
	Outcomes:      []string{"ok", "refused"},
	RetryReasons:  []string{"unavailable"},
	StreamEnds:    []string{"announced"},
}

// integration is one that delivers, with every field set.
func integration() ops.IntegrationStatus {
	return ops.IntegrationStatus{
		Integration: "default", Table: "datafly.events.stream", Group: "zerobus-bridge", MemberID: "bridge-0-1f", State: ops.StateRunning,
		LastPoll: now.Add(-250 * time.Millisecond),
		Sink: zerobus.State{
			Name: zerobus.Ready, Since: now.Add(-time.Hour), Table: "datafly.events.stream", Transport: "grpc",
			Endpoint: "https://42.zerobus.us-west-2.cloud.databricks.com", TransportReason: "zerobus.endpoint is set; it answers over gRPC", Streams: []string{"7d0c8f1e"},
			TokenMintedAt: now.Add(-10 * time.Minute), TokenExpiresAt: now.Add(50 * time.Minute),
		},
		BufferedBytes: 64 << 20,
		Ack:           &ops.Acks{P50: 0.04, P99: 0.2},
		Ledger:        consumer.LedgerStatus{Ledger: consumer.Ledger{Read: 2000, Delivered: 1267, DeadLettered: 5, Skipped: 7, Filtered: 21, InFlight: 300, Released: 400, Offsets: 2030, Records: 2000, Lost: 25, SkippedOffsets: 5}},
		Partitions: []consumer.PartitionStatus{
			{
				Topic: "events", Partition: 10, State: consumer.StateWaiting, Committed: 500, Marked: 500, End: -1, Lag: -1,
				Rows: 77,
			},
			{
				Topic: "events", Partition: 2, State: consumer.StateWriting, Paused: true, Committed: 1000, Marked: 1200,
				End: 5000, Lag: 4000, Pending: 300, Buffered: 64 << 20, Oldest: consumer.Seconds(1500 * time.Millisecond), Behind: consumer.Seconds(42 * time.Second),
				Rows:   1190,
				Ledger: consumer.LedgerStatus{Ledger: consumer.Ledger{Read: 1500, Delivered: 1190, DeadLettered: 4, Filtered: 5, InFlight: 300}, Unaccounted: 1},
			},
		},
	}
}

// refused is an integration whose sink refuses it.
func refused() ops.IntegrationStatus {
	i := integration()
	i.NotReady = []consumer.NotReady{{
		Code: "sink_blocked", Text: "the table refuses writes (403)", Remedy: "grant MODIFY on the table to the service principal",
	}}
	i.Sink.Name, i.Sink.Since = zerobus.Blocked, now.Add(-4*time.Minute)
	i.Sink.Reason, i.Sink.Remedy = "403 PERMISSION_DENIED", "grant MODIFY"
	return i
}

// named is an integration under another name.
func named(name string, i ops.IntegrationStatus) ops.IntegrationStatus {
	i.Integration, i.Group = name, "zerobus-bridge-"+name
	return i
}

// process is one with these integrations, with every field set.
func process(all ...ops.IntegrationStatus) ops.Status {
	return ops.NewStatus(ops.Status{
		Time: now, Version: "v0.1.0", Deployment: "zerobus-bridge", Started: now.Add(-3 * time.Hour), BufferedLimit: 256 << 20,
		Memory: memory.State{Bound: 630 << 20, SoftLimit: 448 << 20, Cgroup: 512 << 20, Warning: "up to 630 MiB are needed; raise the limit"},
		Store: &ops.StoreStatus{Topic: "zerobus-bridge-integrations", Known: true, Revision: 12, Integrations: 3, Ignored: 1, Notes: []string{"record x: format 2"}, Since: now,
			Problem: &consumer.NotReady{Code: "wrong_policy", Text: "cleanup.policy is delete", Remedy: "set it to compact"}},
		Webhook: &ops.WebhookStatus{Sent: 4, Failed: 2, Dropped: 1, Error: "HTTP 500"},
	}, all)
}

// healthy is a bridge that delivers.
func healthy() ops.Status { return process(integration()) }

// blocked is a bridge whose sink refuses it.
func blocked() ops.Status { return process(refused()) }

func fixed(s ops.Status) ops.Source { return func() ops.Status { return s } }

// serve runs a server for one integration and returns its metrics and its URL.
func serve(t *testing.T, known ops.Known, source ops.Source) (m *ops.IntegrationMetrics, url string) {
	t.Helper()
	all := ops.NewMetrics("v0.1.0", source, true)
	m = all.Integration("default", known)
	return m, start(t, ops.Config{}, all, source, zaptest.NewLogger(t))
}

// registry returns the metrics of a process with one integration.
func registry(source ops.Source) *ops.Metrics {
	all := ops.NewMetrics("v0.1.0", source, true)
	all.Integration("default", known)
	return all
}

// start runs a server on a free port until the test ends and returns its URL.
func start(t *testing.T, cfg ops.Config, m *ops.Metrics, source ops.Source, log *zap.Logger) string {
	t.Helper()
	cfg.Address = "127.0.0.1:0"
	s := ops.New(cfg, m, source, log)
	if err := s.Start(t.Context()); err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return "http://" + s.Addr()
}

type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends one request on a connection of its own. headers are name, value
// pairs.
func ask(t *testing.T, method, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: reading the body: %v", method, url, err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// scrape returns the families of /metrics and their text.
func scrape(t *testing.T, url string) (map[string]*dto.MetricFamily, string) {
	t.Helper()
	got := ask(t, http.MethodGet, url+"/metrics")
	if got.status != http.StatusOK {
		t.Fatalf("GET /metrics: got %d, want 200: %s", got.status, got.body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(got.body))
	if err != nil {
		t.Fatalf("GET /metrics: not the text format: %v", err)
	}
	return families, got.body
}

// hasLine fails the test unless text has the line.
func hasLine(t *testing.T, text, line string) {
	t.Helper()
	if !strings.Contains("\n"+text, "\n"+line+"\n") {
		name, _, _ := strings.Cut(line, "{")
		name, _, _ = strings.Cut(name, " ")
		var near []string
		for l := range strings.Lines(text) {
			if strings.HasPrefix(l, name) {
				near = append(near, l)
			}
		}
		t.Errorf("no line %q; got\n%s", line, strings.Join(near, ""))
	}
}
