package e2e_test

import (
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/zerobus/emulator"
)

// One row that the table refuses among a hundred thousand it takes.
func TestOneRefusedRowAmong100000(t *testing.T) {
	const events, partitions, maxRows = 100_000, 2, 20_000
	bad := eventID(1, 31_337)
	eachHeavyStage(t, setting{partitions: partitions}, func(t *testing.T, s *stage) {
		s.ws.fault(emulator.Fault{Endpoint: emulator.EndpointIngest, Effect: emulator.EffectRefuse, Rows: &emulator.RowMatch{MessageIDs: []string{bad}}})
		s.p.events(events)
		m := s.beginReady()
		s.rows(m, events-1)
		s.commits()
		table := s.ws.table()
		if got, distinct := table.Count(), table.Distinct("message_id"); got != events-1 || distinct != events-1 {
			t.Errorf("got %d rows and %d different, want %d of both", got, distinct, events-1)
		}

		got := deadLetters(t, s.broker, s.adm, s.topic+"-dlq")
		if len(got) != 1 {
			t.Fatalf("got %d dead letters, want 1", len(got))
		}
		if want := event(bad, 0); string(got[0].Value) != string(want) || header(got[0], "bridge-source-offset") != "31337" || header(got[0], "bridge-source-partition") != "1" {
			t.Errorf("got dead letter %s of %s/%s, want %s", got[0].Value, header(got[0], "bridge-source-partition"), header(got[0], "bridge-source-offset"), want)
		}
		t.Logf("dead letter: %s: %s", header(got[0], "bridge-error-code"), header(got[0], "bridge-error-reason"))

		s.inOrder(t)

		// Each refused batch is split and written again, and the row alone,
		// which is the last, again.
		refused := s.ws.Stats().Responses[emulator.EndpointIngest]["400"]
		splits := refused - 2
		extra := 2*splits + 1
		bound := int64(2*math.Log2(maxRows) + 2 + 1)
		t.Logf("%d extra requests; at most %d are allowed", extra, bound)
		if refused < 2 || extra > bound {
			t.Errorf("got %d extra requests, want at most %d", extra, bound)
		}
		if got := m.snapshot().Totals; got.BatchesSplit != splits || got.EventsRejected != 1 || got.DeadLetters != 1 {
			t.Errorf("got totals %+v, want %d splits, 1 rejected, 1 dead letter", got, splits)
		}
	})
}

// inOrder holds the rows of each partition to the order of their offsets.
func (s *stage) inOrder(t *testing.T) {
	t.Helper()
	last := make([]int64, len(s.p.next))
	for i := range last {
		last[i] = -1
	}
	for _, row := range s.ws.table().Rows(nil) {
		id, _ := row.Value("message_id")
		partition, offset := parseID(t, id)
		if offset <= last[partition] {
			t.Fatalf("partition %d: row %d came after row %d", partition, offset, last[partition])
		}
		last[partition] = offset
	}
}

func TestPolicyStopEndsAtTheReject(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		s.p.events(20)
		cl := client(t, s.broker, kgo.DefaultProduceTopic(s.topic))
		ctx, cancel := within()
		defer cancel()
		must(t, cl.ProduceSync(ctx, &kgo.Record{Value: []byte("nonsense")}).FirstErr())
		m := s.begin("rejects.policy=stop")
		if code := m.wait(patience); code != 1 {
			t.Errorf("got exit code %d, want 1", code)
		}
		wants(t, m.stderr.String(), "offset 20", "not_json", "rejects.policy")
		if got := committed(t, s.adm, s.group, s.topic)[0]; got > 20 {
			t.Errorf("got offset %d committed, want the reject not passed", got)
		}

		again := s.beginReady("rejects.policy=skip")
		eventually(t, patience, "the reject passed", func() bool { return committed(t, s.adm, s.group, s.topic)[0] == 21 })
		if got := s.ws.table().Distinct("message_id"); got != 20 {
			t.Errorf("got %d events in the table, want 20", got)
		}
		if got := again.snapshot().Totals.EventsRejected; got != 1 {
			t.Errorf("got %d rejected, want 1", got)
		}
		if got := length(t, s.adm, s.topic+"-dlq"); got != 0 {
			t.Errorf("got %d dead letters under skip, want none", got)
		}
	})
}
