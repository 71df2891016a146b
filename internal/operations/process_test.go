package operations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/admin"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus/emulator"
)

var _ admin.Operations = (*Process)(nil)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

// A blueprint that takes a column from the wrong field, and as it was meant.
const (
	wrongRevenue = "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: properties.note, target: revenue, type: \"DECIMAL(12,2)\"}\n"
	rightRevenue = "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: properties.revenue, target: revenue, type: \"DECIMAL(12,2)\"}\n"
)

// stage is a process with one integration, orders, and what it works on.
type stage struct {
	*Process
	t       *testing.T
	broker  kafkatest.Broker
	topic   string
	ws      *emulator.Emulator
	orders  config.Integration
	now     time.Time
	notes   []string
	noteErr error
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ours := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ours) })
	s := &stage{t: t, broker: kafkatest.StartFake(t, kafkatest.Options{}), now: time.Now()}
	s.topic = kafkatest.Topic(t, s.broker, 2)
	var err error
	ddl := strings.Replace(emulator.DefaultDDL, "event_name STRING,", "revenue DECIMAL(12,2),\n  event_name STRING,", 1)
	if s.ws, err = emulator.New(emulator.Config{DDL: ddl}); err != nil {
		t.Fatal(err)
	}
	if err := s.ws.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ws.Close(context.WithoutCancel(t.Context())) })
	s.configure()
	cl, err := pipeline.NewKafkaClient(s.orders.Config, "test", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	s.Process = New(Options{
		Integration: func(_ context.Context, id string) (config.Integration, error) {
			if id != "orders" {
				return config.Integration{}, fmt.Errorf("there is no integration %s", id)
			}
			return s.orders, nil
		},
		All: func() []config.Integration { return []config.Integration{s.orders} }, Base: func() *config.Config { return s.orders.Config },
		StoreTopics: func() []string { return []string{"bridge-integrations", "bridge-integrations-audit"} }, Kafka: cl,
		Note: func(_ context.Context, slug, action, by, requestID, reason string, result map[string]any) error {
			s.notes = append(s.notes, fmt.Sprintf("%s %s %s %s %s %v", slug, action, by, requestID, reason, result))
			return s.noteErr
		},
		Version: "test", Log: zap.NewNop(), Now: func() time.Time { return s.now },
	})
	return s
}

// configure sets the configuration of orders.
func (s *stage) configure(sets ...string) {
	s.t.Helper()
	cfg, err := config.Load(config.Options{File: s.t.TempDir() + "/none.yaml", Sets: append([]string{
		"kafka.brokers=" + strings.Join(s.broker.Addrs(), ","), "kafka.topics=" + s.topic, "kafka.group=" + s.topic,
		"zerobus.workspace_url=" + s.ws.URL(), "zerobus.client_id=" + emulator.DefaultClientID, "zerobus.client_secret=" + emulator.DefaultClientSecret,
		"zerobus.table=datafly.events.stream", "delivery.drain=2s", "ops.live_events=full",
	}, sets...)})
	if err != nil {
		s.t.Fatal(err)
	}
	cfg.Rejects.Integration = "orders"
	s.orders = config.Integration{Name: "orders", Config: cfg}
}

func (s *stage) blueprint(text string) string { return "mapping.blueprint_text=" + text }

// produce sends events, stamped with the time of the test, to the partitions in turn.
func (s *stage) produce(events ...string) {
	s.t.Helper()
	cl, err := kgo.NewClient(append(s.broker.ClientOpts(), kgo.DefaultProduceTopic(s.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	for i, event := range events {
		rec := &kgo.Record{Partition: int32(i % 2), Value: []byte(event), Timestamp: s.now.Add(time.Duration(i-len(events)) * time.Second)}
		if err := cl.ProduceSync(s.t.Context(), rec).FirstErr(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// orderEvents are n events with a revenue.
func orderEvents(n int) (events []string) {
	for i := range n {
		events = append(events, fmt.Sprintf(`{"type":"track","event":"Order Completed","message_id":"m-%d","timestamp":"2026-03-04T09:00:00Z","properties":{"revenue":%d.25,"note":"gift"}}`, i, i))
	}
	return events
}

// run runs the integration; what it returns ends it.
func (s *stage) run() (stop func()) {
	s.t.Helper()
	known := pipeline.KnownLabels(s.orders.Config)
	p, err := pipeline.New(pipeline.Config{Name: "orders", Settings: s.orders.Config}, pipeline.Deps{Log: zap.NewNop(), Version: "test", Metrics: ops.NewMetrics("", nil, true).Integration("orders", known)})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }() // ends with ctx; stop waits for it
	return func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("run: %v", err)
		}
		p.Close()
	}
}

// delivered runs the integration until it has committed n events.
func (s *stage) delivered(n int64) {
	s.t.Helper()
	stop := s.run()
	defer stop()
	await.That(s.t, fmt.Sprintf("%d events committed", n), func() bool {
		at, err := s.o.Kafka.Commits(s.t.Context(), s.topic, []string{s.topic})
		var sum int64
		for _, offset := range at {
			sum += offset
		}
		return err == nil && sum == n
	})
}

func refused(t *testing.T, what, field string, err error) *pipeline.Refused {
	t.Helper()
	r, ok := errors.AsType[*pipeline.Refused](err)
	if !ok || r.Field != field || r.Reason == "" || r.Remedy == "" {
		t.Fatalf("%s: got %#v, want a refusal of field %q with reason and remedy", what, err, field)
	}
	return r
}

func TestReplayOnlyWhileDisabled(t *testing.T) {
	s := newStage(t)
	s.produce(orderEvents(6)...)
	s.delivered(6)
	replay := func(r pipeline.ReplayRequest) (pipeline.ReplayReport, error) {
		r.By, r.RequestID, r.Reason = "alice", "req_1", "a fixed blueprint"
		return s.Replay(t.Context(), "orders", r)
	}
	dry, err := replay(pipeline.ReplayRequest{To: "earliest"})
	if err != nil || dry.Executed || dry.Totals.Again != 6 || len(dry.Partitions) != 2 || dry.Members == nil {
		t.Fatalf("dry run: got %+v and %v, want 6 events again in 2 partitions", dry, err)
	}
	for field, r := range map[string]pipeline.ReplayRequest{
		"to": {To: "yesterday"}, "topics": {To: "earliest", Topics: []string{"other"}}, "partitions": {To: "earliest", Topics: []string{s.topic, s.topic}, Partitions: []int32{0}},
		"to 0": {To: strings.Repeat("0", 101)}, "partitions of one topic": {To: "earliest", Partitions: []int32{-1}},
	} {
		_, err := replay(r)
		refused(t, field, strings.Fields(field)[0], err)
	}
	if _, err := s.Replay(t.Context(), "web", pipeline.ReplayRequest{To: "earliest"}); err == nil || !strings.Contains(err.Error(), "no integration web") {
		t.Errorf("got %v, want the error of an unknown integration", err)
	}

	s.orders.Enabled = true
	_, err = replay(pipeline.ReplayRequest{To: "earliest", Execute: true})
	if r := refused(t, "enabled", "", err); !strings.Contains(r.Remedy, "disable it") {
		t.Errorf("got remedy %q, want to disable it", r.Remedy)
	}
	s.orders.Enabled = false
	stop := s.run()
	await.That(t, "a member", func() bool {
		members, err := s.o.Kafka.Members(t.Context(), s.topic)
		return err == nil && len(members) == 1
	})
	_, err = replay(pipeline.ReplayRequest{To: "earliest", Execute: true})
	if r := refused(t, "a member", "", err); !strings.Contains(r.Reason, "members: 1") || !strings.Contains(r.Remedy, "wait until its last member has left") {
		t.Errorf("got %+v, want the member and to wait", r)
	}
	stop()
	if len(s.notes) != 0 {
		t.Errorf("got notes %q of dry runs and refusals, want none", s.notes)
	}

	done, err := replay(pipeline.ReplayRequest{To: "1", Execute: true})
	if err != nil || !done.Executed || done.Totals.Again != 4 {
		t.Fatalf("got %+v and %v, want 4 events again", done, err)
	}
	if len(s.notes) != 1 || !strings.HasPrefix(s.notes[0], "orders integration.replayed alice req_1 a fixed blueprint map[delivered_again:4 group:") {
		t.Errorf("got notes %q, want one of the replay", s.notes)
	}
	_, err = replay(pipeline.ReplayRequest{To: "latest", Execute: true})
	refused(t, "a skip", "allow_skip", err)
	s.noteErr = errors.New("no broker")
	if done, err = replay(pipeline.ReplayRequest{To: "latest", Execute: true, AllowSkip: true}); err == nil || !done.Executed || !strings.Contains(err.Error(), "it was done") {
		t.Errorf("got %+v and %v, want what was done and that the audit log lacks it", done, err)
	}
}

func TestRedriveIsNoted(t *testing.T) {
	s := newStage(t)
	s.configure(s.blueprint(wrongRevenue))
	events := orderEvents(3)
	for range 8 { // fewer than half are rejected, or the mapping would be at fault
		events = append(events, `{"type":"page","message_id":"p"}`)
	}
	s.produce(events...)
	s.delivered(int64(len(events)))
	groups, err := s.DeadLetters(t.Context(), "orders", pipeline.DeadLetterFilter{})
	if err != nil || groups.Matched != 3 || len(groups.Groups) != 1 || groups.Groups[0].Column != "revenue" || groups.Groups[0].Example == "" || groups.Groups[0].Reason == "" {
		t.Fatalf("got %+v and %v, want 3 dead letters in one group with an example", groups, err)
	}
	if none, err := s.DeadLetters(t.Context(), "orders", pipeline.DeadLetterFilter{Codes: []string{"other"}}); err != nil || none.Matched != 0 || none.Groups == nil {
		t.Errorf("got %+v and %v, want none", none, err)
	}
	redrive := func(execute bool) pipeline.RedriveReport {
		t.Helper()
		r, err := s.Redrive(t.Context(), "orders", pipeline.RedriveRequest{By: "alice", RequestID: "req_2", Reason: "revenue", Execute: execute})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := redrive(false); r.Matched != 3 || r.Rejected != 3 || r.Executed || len(r.Groups) != 1 {
		t.Errorf("with the wrong blueprint: got %+v, want 3 rejected", r)
	}
	s.configure(s.blueprint(rightRevenue))
	if r := redrive(false); r.Delivered != 3 || r.Rows != 3 || r.Groups == nil || len(s.notes) != 0 {
		t.Errorf("dry run: got %+v and notes %q, want 3 that would be delivered", r, s.notes)
	}
	before := len(s.ws.Table("datafly.events.stream").Rows(nil))
	if r := redrive(true); r.Delivered != 3 || !r.Executed || r.Error != "" {
		t.Errorf("got %+v, want 3 delivered", r)
	}
	if got := len(s.ws.Table("datafly.events.stream").Rows(nil)); got != before+3 {
		t.Errorf("got %d rows, want %d", got, before+3)
	}
	if len(s.notes) != 1 || !strings.HasPrefix(s.notes[0], "orders integration.redriven alice req_2 revenue map[delivered:3 ") {
		t.Errorf("got notes %q, want one of the redrive", s.notes)
	}
	if r := redrive(true); r.Matched != 0 || len(s.notes) != 1 {
		t.Errorf("again: got %+v and notes %q, want nothing to do", r, s.notes)
	}
	_, err = s.Redrive(t.Context(), "orders", pipeline.RedriveRequest{Limit: -1})
	refused(t, "a negative limit", "limit", err)
}

func TestLongOperationsTakeTurns(t *testing.T) {
	s := newStage(t)
	s.long <- struct{}{} // one runs
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Redrive(ctx, "orders", pipeline.RedriveRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
	if _, _, err := s.begin(t.Context(), time.Nanosecond, time.Minute); err == nil {
		t.Error("got a turn while another operation runs")
	} else {
		refused(t, "busy", "", err)
	}
	<-s.long
	within, end, err := s.begin(t.Context(), time.Minute, time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	<-within.Done() // it is bounded
	end()
	if len(s.long) != 0 {
		t.Error("the turn was not given back")
	}
}

func TestTopicsWithTheirRates(t *testing.T) {
	s := newStage(t)
	for _, name := range []string{s.topic + "-dlq-orders", "gone-dlq-web", "bridge-integrations", "bridge-integrations-audit", "-dlq"} {
		s.broker.CreateTopic(t, name, 1, nil)
	}
	s.produce(orderEvents(600)...)
	s.now = s.now.Add(2 * time.Minute) // 600 events in 10 minutes, of which 3 minutes count
	topics, err := s.Topics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, topic := range topics {
		names = append(names, topic.Name)
	}
	if len(topics) != 2 || topics[0].Name != "-dlq" || topics[1].Name != s.topic {
		t.Fatalf("got topics %q, want -dlq and %s", names, s.topic)
	}
	got := topics[1]
	if want := s.now.Add(-2*time.Minute - time.Second).UTC().Truncate(time.Millisecond); got.Newest == nil || !got.Newest.Equal(want) {
		t.Errorf("got newest %v, want %v", got.Newest, want)
	}
	if want := 180.0 / 300; got.Partitions != 2 || got.Rate == nil || *got.Rate < want*0.95 || *got.Rate > want*1.05 {
		t.Errorf("got %+v with rate %v, want about %v", got, got.Rate, want)
	}
	if topics[0].Newest != nil || topics[0].Rate == nil || *topics[0].Rate != 0 {
		t.Errorf("got %+v, want rate 0 and no newest event of an empty topic", topics[0])
	}
}

func TestRecentEvents(t *testing.T) {
	s := newStage(t)
	events := append(orderEvents(5), "no json", `"`+strings.Repeat("x", 70<<10)+`"`)
	s.produce(events...)
	got, err := s.RecentEvents(t.Context(), "orders", 3)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %d events and %v, want 3", len(got), err)
	}
	if string(got[0].Event) != `"no json"` || string(got[1].Event) != events[4] || string(got[2].Event) != events[3] {
		t.Errorf("got %s, %s, %s; want the newest of both partitions, without the large one", got[0].Event, got[1].Event, got[2].Event)
	}
	s.configure("ops.live_events=metadata")
	_, err = s.RecentEvents(t.Context(), "orders", 3)
	refused(t, "live_events metadata", "", err)
}

func TestValidateBlueprint(t *testing.T) {
	s := newStage(t)
	validate := func(integration, text string) pipeline.BlueprintReport {
		t.Helper()
		r, err := s.ValidateBlueprint(t.Context(), pipeline.BlueprintRequest{Integration: integration, Blueprint: text})
		if err != nil || r.Problems == nil || r.Warnings == nil {
			t.Fatalf("got %+v and %v", r, err)
		}
		return r
	}
	if r := validate("orders", rightRevenue); !r.Valid || len(r.Problems)+len(r.Warnings) != 0 || r.DDL != "" {
		t.Errorf("got %+v, want it to fit the table", r)
	}
	mistakes := "version: 2\nglobal:\n  mappings:\n    - {source: a, target: b, tpye: STRING}\n    - {source: a, target: c, type: NUMBERS}\n"
	if r := validate("", mistakes); r.Valid || len(r.Problems) != 2 || r.Problems[0].Line != 4 || r.Problems[0].Column == 0 || r.Problems[1].Line != 5 || r.Problems[0].Remedy != "did you mean type?" {
		t.Errorf("got %+v, want two problems with line, column and remedy", r)
	}
	more := strings.Replace(rightRevenue, "target: revenue", "target: discount", 1)
	if r := validate("", more); !r.Valid || !strings.Contains(r.DDL, "CREATE TABLE") || !strings.Contains(r.DDL, "`discount` DECIMAL(12,2)") {
		t.Errorf("without an integration: got %+v, want it valid, and the table for it", r)
	}
	if r := validate("orders", more); r.Valid || len(r.Problems) != 1 || r.Problems[0].Line != 5 || !strings.Contains(r.DDL, "ALTER TABLE") || !strings.Contains(r.DDL, "discount") {
		t.Errorf("got %+v, want that the table lacks discount and the statement for it", r)
	}
	if err := s.ws.Table("datafly.events.stream").AddColumn(emulator.Column{Name: "discount", Type: "DECIMAL(12,2)"}); err != nil {
		t.Fatal(err)
	}
	if validate("orders", more).Valid {
		t.Errorf("got the new column within %v, want the columns that were read", tableAge)
	}
	s.now = s.now.Add(tableAge)
	if r := validate("orders", more); !r.Valid {
		t.Errorf("got %+v after %v, want the table read again", r, tableAge)
	}
	if _, err := s.ValidateBlueprint(t.Context(), pipeline.BlueprintRequest{Blueprint: strings.Repeat("#", 32<<20)}); err == nil {
		t.Error("got a huge blueprint validated")
	} else {
		refused(t, "a huge blueprint", "blueprint", err)
	}
	s.configure("zerobus.workspace_url=http://127.0.0.1:1")
	if r := validate("orders", more); !r.Valid || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "columns cannot be read") {
		t.Errorf("without a workspace: got %+v, want it valid with a warning", r)
	}
}

func TestTryBlueprint(t *testing.T) {
	s := newStage(t)
	try := func(text, event string) pipeline.TryReport {
		t.Helper()
		r, err := s.TryBlueprint(t.Context(), pipeline.TryRequest{BlueprintRequest: pipeline.BlueprintRequest{Integration: "orders", Blueprint: text}, Event: json.RawMessage(event)})
		if err != nil || r.Problems == nil || r.Results == nil {
			t.Fatalf("got %+v and %v", r, err)
		}
		return r
	}
	r := try(rightRevenue, orderEvents(2)[1])
	if len(r.Results) != 1 || r.Results[0].Outcome != "row" || !strings.Contains(string(r.Results[0].Row), `"revenue":"1.25"`) {
		t.Fatalf("got %+v, want a row", r)
	}
	columns := map[string]pipeline.TryColumn{}
	for _, c := range r.Results[0].Columns {
		columns[c.Name] = c
	}
	if columns["revenue"].Source != "properties.revenue" || columns["user_id"].Why == "" || columns["user_id"].Value != "" {
		t.Errorf("got %+v, want the source of revenue, and why user_id is NULL", columns)
	}
	if r := try(wrongRevenue, orderEvents(1)[0]); len(r.Results) != 1 || r.Results[0].Outcome != "reject" || r.Results[0].Code != "type_mismatch" || r.Results[0].Column != "revenue" || r.Results[0].Reason == "" {
		t.Errorf("got %+v, want the reject", r)
	}
	if r := try("", `"no json"`); len(r.Results) != 1 || r.Results[0].Code != "not_json" {
		t.Errorf("got %+v, want the text of the JSON string as the record", r)
	}
	if r := try("", "["+strings.Repeat(`{"type":"page","message_id":"p"},`, 300)+"{}]"); len(r.Results) != maxResults {
		t.Errorf("got %d results, want %d", len(r.Results), maxResults)
	}
	// The expressions of one try have a bound together.
	slow := "version: 2\nglobal:\n  mappings:\n"
	for n := range 40 {
		slow += fmt.Sprintf("    - {target: c%d, expression: 'sum(map(1..900, reduce(1..900, #acc + #, 0))) + n', type: DOUBLE}\n", n)
	}
	began := time.Now()
	events := "[" + strings.Repeat(`{"type":"page","n":1},`, maxResults-1) + `{"type":"page","n":1}]`
	if r, err := s.TryBlueprint(t.Context(), pipeline.TryRequest{BlueprintRequest: pipeline.BlueprintRequest{Blueprint: slow}, Event: json.RawMessage(events)}); err != nil || len(r.Results) != maxResults || r.Results[99].Code != "expression_failed" || !strings.Contains(r.Results[99].Reason, "took too long") {
		t.Fatalf("4,000 slow expressions: got %d results and %v %v", len(r.Results), r.Problems, err)
	}
	if took := time.Since(began); took > 10*tryTimeout { // without the bound about an hour
		t.Errorf("they took %v", took)
	}
	if r := try("version: 7", "{}"); len(r.Problems) != 1 || len(r.Results) != 0 {
		t.Errorf("got %+v, want the problem of the blueprint", r)
	}
}
