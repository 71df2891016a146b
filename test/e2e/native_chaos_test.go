package e2e_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/oracle"
	"github.com/datafly/bridge/zerobus/emulator"
)

// chaosDDL is the default table with columns that show where a row came from.
const chaosDDL = `CREATE TABLE datafly.events.stream (
  event_name STRING, event_type STRING, message_id STRING, user_id STRING, anonymous_id STRING, event_timestamp TIMESTAMP, ip_address STRING,
  user_agent STRING, locale STRING, timezone STRING, page_url STRING, page_referrer STRING, source_id STRING,
  source_partition INT, source_offset BIGINT)`

const chaosBlueprint = `version: 2
extends: default
global:
  mappings:
    - {source: $kafka.partition, target: source_partition, type: INT}
    - {source: $kafka.offset, target: source_offset, type: BIGINT}
`

const (
	chaosPartitions = 8
	poisonEvery     = 10_000
	chaosAge        = 2 * time.Second // of streams
)

// chaos is what happens to the rows on their way, and the record of it.
type chaos struct {
	poison map[string]bool // message ids of rows that the service refuses
	ledger *oracle.Ledger
	v      *oracle.Violations

	mu      sync.Mutex // guards the fields below
	dice    *rand.Rand
	errors  int            // requests and messages answered with a passing error, nothing kept
	lost    int            // those whose rows were kept and never acknowledged
	cuts    int            // connections cut
	refused int            // answered for a poison row
	unacked map[string]int // by request id of the REST insert, which repeats keep: times its rows were kept without an answer
	streams map[string]emulator.StreamInfo
	again   map[string]int // by such a request and row: copies seen so far
}

// idKey stands before a row's message id.
var idKey = []byte(`"message_id":"`)

// fault decides what happens to one request, or one message of a stream: one
// throw of the dice each.
func (c *chaos) fault(r emulator.IngestRequest) *emulator.Fault {
	for _, row := range r.Rows {
		at := bytes.Index(row, idKey)
		if at < 0 {
			continue
		}
		id, _, _ := bytes.Cut(row[at+len(idKey):], []byte(`"`))
		if c.poison[string(id)] {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.refused++
			return &emulator.Fault{Endpoint: r.Endpoint, Effect: emulator.EffectRefuse, Rows: &emulator.RowMatch{MessageIDs: []string{string(id)}}}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := &emulator.Fault{Endpoint: r.Endpoint, Effect: emulator.EffectStatus}
	stream := r.Endpoint == emulator.EndpointStream
	switch p := c.dice.Float64(); {
	case p < 0.004:
		c.errors++
		f.Status = []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable}[c.errors%3]
		if stream {
			f.Status, f.GRPCCode = 0, []string{"UNAVAILABLE", "INTERNAL", "ABORTED", "RESOURCE_EXHAUSTED", "UNKNOWN"}[c.errors%5]
		}
		return f
	case p < 0.006: // kept, and the end comes in place of the ack
		f.Status, f.Keep = http.StatusGatewayTimeout, true
		if stream {
			f.Status, f.GRPCCode = 0, "UNAVAILABLE"
		}
	case p < 0.008: // kept, and the connection is cut
		f.Effect = emulator.EffectLoseAck
		c.cuts++
	case p < 0.010 && stream:
		return &emulator.Fault{Endpoint: r.Endpoint, Effect: emulator.EffectGoAway}
	default:
		return nil
	}
	c.lost++
	if !stream {
		c.unacked[r.RequestID]++
	}
	return f
}

// keep records the emulator's streams: the emulator forgets the oldest, and
// a search for a poison row ends many.
func (c *chaos) keep(ws *workspace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, info := range ws.Streams() {
		c.streams[info.ID] = info
	}
}

// acked reports whether the emulator acknowledged a row, and whether it cannot
// be known that the ack arrived: the stream was cut off with acks on the way.
// It is asked once for each row, in the order they were kept.
func (c *chaos) acked(row emulator.Row, id string) (acked, perhaps bool) {
	if row.Transport == emulator.TransportGRPC {
		info := c.streams[row.StreamID]
		return row.Offset <= info.AckedOffset, info.Code == "CANCELLED"
	}
	lost := c.unacked[row.RequestID]
	if lost == 0 {
		return true, false
	}
	key := row.RequestID + " " + id
	c.again[key]++
	return c.again[key] > lost, false
}

// aged counts the streams that lived until their age ended them.
func (c *chaos) aged() (n int) {
	for _, info := range c.streams {
		if !info.EndedAt.IsZero() && info.EndedAt.Sub(info.OpenedAt) > chaosAge-10*time.Millisecond {
			n++
		}
	}
	return n
}

func TestNativeChaosLosesNothing(t *testing.T) {
	events, maxRows := 100_000, 80
	if os.Getenv("BRIDGE_LONG_TESTS") == "1" {
		events, maxRows = 1_000_000, 200
	} else {
		t.Logf("%d events instead of 1,000,000; set BRIDGE_LONG_TESTS=1 for all", events)
	}
	for _, tc := range []struct {
		transport string
		settings  []string
	}{
		{"grpc", []string{"streams: 4"}}, // a poison row ends the stream it came by: with fewer, none would reach its age
		{"rest", nil},
	} {
		t.Run(tc.transport, func(t *testing.T) {
			set := setting{partitions: chaosPartitions, workspace: emulator.Config{
				DDL: chaosDDL, Latency: emulator.Latency{P50: 25 * time.Millisecond}, StreamMaxAge: chaosAge,
			}}
			eachHeavyStage(t, set, func(t *testing.T, s *stage) {
				s.native(tc.transport, tc.settings...)
				s.plain = true
				s.chaos(t, tc.transport, events, maxRows)
			})
		})
	}
}

func (s *stage) chaos(t *testing.T, transport string, events, maxRows int) {
	c := &chaos{
		poison: map[string]bool{}, dice: rand.New(rand.NewPCG(7, 7)),
		unacked: map[string]int{}, streams: map[string]emulator.StreamInfo{}, again: map[string]int{},
	}
	for i := range events / poisonEvery {
		n := i*poisonEvery + 37*(i+1)%poisonEvery // spread over partitions and places
		c.poison[eventID(int32(n%chaosPartitions), int64(n/chaosPartitions))] = true
	}
	c.v = oracle.NewViolations()
	c.ledger = oracle.NewLedger(oracle.Config{
		Kind: func(number uint32) oracle.Kind {
			if c.poison[eventID(int32(number%chaosPartitions), int64(number/chaosPartitions))] {
				return oracle.DeadLetter
			}
			return oracle.Row
		},
		MaxRows: maxRows, Uncommitted: time.Minute, AckMayBeLost: func(string, time.Time) bool { return true },
	}, c.v)
	s.ws.OnIngest(c.fault)
	s.ws.table().OnRows(c.kept)
	s.p.events(events)
	for partition, n := range s.p.next {
		for offset := range n {
			c.ledger.Acknowledged(chaosEvent(int32(partition), offset))
		}
	}
	began := time.Now()
	m := s.beginReady(fmt.Sprintf("delivery.max_rows=%d", maxRows), "mapping.blueprint="+file(t, "blueprint.yaml", chaosBlueprint))
	table, want := s.ws.table(), events-len(c.poison)
	done := func() bool {
		m.alive()
		c.keep(s.ws)
		return table.Count() >= want && table.Distinct("message_id") >= want && sum(committed(t, s.adm, s.group, s.topic)) == int64(events)
	}
	eventually(t, patience, fmt.Sprintf("%d rows and %d offsets committed", want, events), done, func() string {
		return fmt.Sprintf("%d rows are missing; %d offsets are committed", want-table.Distinct("message_id"), sum(committed(t, s.adm, s.group, s.topic)))
	})
	took := time.Since(began)
	totals := m.snapshot().Totals
	m.terminate(s.drain + time.Second + slack)
	ctx, cancel := within()
	defer cancel()
	must(t, s.ws.WaitStreams(ctx, 0))
	c.keep(s.ws)
	stats := s.ws.Stats()
	if got := int64(len(c.streams)); got != stats.StreamsOpened {
		t.Fatalf("got %d streams recorded, want all %d", got, stats.StreamsOpened)
	}

	s.chaosAcks(t, c)
	s.chaosDeadLetters(t, c)
	c.ledger.Committed(committed(t, s.adm, s.group, s.topic), time.Now())
	c.ledger.Close(func(string, int32) bool { return true }) // assignments are not read from the log
	for _, v := range c.v.List() {
		t.Errorf("rule %s, broken %d times: %s", v.Rule, v.Count, v.Examples[0])
	}
	sum := c.ledger.Totals()
	duplicates := int(sum.Rows - sum.DistinctRows)
	if sum.AgainDeadLetters != 0 || duplicates != table.Count()-want {
		t.Errorf("got %d dead letters again, want none; %d duplicates by the ledger, %d by the counts", sum.AgainDeadLetters, duplicates, table.Count()-want)
	}
	t.Logf("%d events in %v, %.0f/s: 0 lost, %d poison rows in the dead-letter topic, %d duplicates; %d passing errors, %d lost acks (%d of them cuts), %d refusals, %d streams, %d ended by age, %d retries, %d connections",
		events, took.Round(time.Millisecond), float64(events)/took.Seconds(), len(c.poison), duplicates, c.errors, c.lost, c.cuts, c.refused, len(c.streams), c.aged(), totals.SinkRetries, stats.Connections)
	if c.errors == 0 || c.lost == 0 || c.cuts == 0 || duplicates == 0 {
		t.Errorf("got %d errors, %d lost acks, %d cuts and %d duplicates, want some of each", c.errors, c.lost, c.cuts, duplicates)
	}
	if transport == "grpc" && c.aged() == 0 {
		t.Error("no stream lived until its age ended it; the test needs more time")
	}
	if got := s.ws.arrivedBy()[transport]; got != table.Count() {
		t.Errorf("got %d rows by %s, want all %d", got, transport, table.Count())
	}
}

// chaosEvent is an event of the test as the ledger knows it.
func chaosEvent(partition int32, offset int64) oracle.Event {
	return oracle.Event{Number: uint32(offset)*chaosPartitions + uint32(partition), Partition: partition, Offset: offset}
}

// kept adds rows to the ledger as the service keeps them.
func (c *chaos) kept(rows []emulator.Row) {
	var kept []oracle.DeliveredRow
	for _, row := range rows {
		var e oracle.DeliveredRow
		id, _ := row.Value("message_id")
		var partition int32
		var offset int64
		if _, err := fmt.Sscanf(id, "%d-%d", &partition, &offset); err != nil {
			c.v.Add(oracle.RuleUnexpected, "a row with message id %q", id)
			return
		}
		e.Event, e.Process = chaosEvent(partition, offset), "member"
		for column, want := range map[string]string{"source_partition": fmt.Sprint(partition), "source_offset": fmt.Sprint(offset)} {
			if got, _ := row.Value(column); got != want {
				e.Difference = fmt.Sprintf("%s is %s, want %s", column, got, want)
			}
		}
		kept = append(kept, e)
	}
	c.ledger.Written(kept, time.Now())
}

// chaosAcks compares the rows of the table with their acknowledgements: every event
// was acknowledged, and none was written again after its acknowledgement had arrived.
func (s *stage) chaosAcks(t *testing.T, c *chaos) {
	t.Helper()
	type copies struct{ all, acked, confirmed int }
	seen := map[string]*copies{}
	for _, row := range s.ws.table().Rows(nil) {
		id, _ := row.Value("message_id")
		n := seen[id]
		if n == nil {
			n = &copies{}
			seen[id] = n
		}
		n.all++
		acked, perhaps := c.acked(row, id)
		if acked {
			n.acked++
		}
		if acked && !perhaps {
			n.confirmed++
		}
	}
	for id, n := range seen {
		if n.acked == 0 || n.confirmed > 1 {
			t.Fatalf("row %s is there %d times, acknowledged %d times, and %d of these arrived; want one that arrived", id, n.all, n.acked, n.confirmed)
		}
	}
}

// chaosDeadLetters adds the dead-letter topic to the ledger.
func (s *stage) chaosDeadLetters(t *testing.T, c *chaos) {
	t.Helper()
	for _, r := range deadLetters(t, s.broker, s.adm, s.topic+"-dlq") {
		id := header(r, "bridge-source-partition") + "-" + header(r, "bridge-source-offset")
		partition, offset := parseID(t, id)
		difference := ""
		if want := event(eventID(partition, offset), 0); !bytes.Equal(r.Value, want) {
			difference = fmt.Sprintf("got %s, want the original", r.Value)
		}
		// Which of the two depends on the detail of the refusal.
		if code := header(r, "bridge-error-code"); code != "schema_mismatch" && code != "refused" {
			difference = fmt.Sprintf("got code %q, want schema_mismatch or refused", code)
		}
		c.ledger.DeadLettered(chaosEvent(partition, offset), difference)
	}
}
