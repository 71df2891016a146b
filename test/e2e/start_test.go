package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/zerobus/emulator"
)

// With start: latest, what was read while the sink refused, and what came while
// the bridge was down, is delivered by the next one.
func TestStartLatestLosesNothing(t *testing.T) {
	eachStage(t, setting{partitions: 2}, func(t *testing.T, s *stage) {
		m := s.beginReady("kafka.start=latest")
		refused := onState(emulator.Fault{Effect: emulator.EffectStatus, Status: http.StatusServiceUnavailable})(s)
		s.p.events(10)
		eventually(t, patience, "a write that is refused", func() bool { return refused(m) })
		m.terminate(s.drain + time.Second + slack)
		s.p.events(10)
		noFault(s)
		again := s.beginReady("kafka.start=latest")
		if got := s.complete(again); got != 0 {
			t.Errorf("got %d duplicates, want none: nothing was acknowledged", got)
		}
		again.terminate(s.drain + time.Second + slack)
	})
}

// A topic that is deleted and created again is read again without a restart, and
// its events, which bring no id and have the offsets of those before, get others.
func TestTopicIsDeletedAndCreatedAgain(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		m := s.beginReady()
		anonymous := func(n int) {
			t.Helper()
			ctx, cancel := within()
			defer cancel()
			cl := client(t, s.broker) // of its own: a client holds on to a topic's id
			for range n {
				if err := cl.ProduceSync(ctx, &kgo.Record{Topic: s.topic, Value: []byte(`{"type":"track","event":"order_completed"}`)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		table := s.ws.table()
		anonymous(10)
		s.rows(m, 10)
		eventually(t, patience, "the offsets are committed", func() bool { return sum(committed(t, s.adm, s.group, s.topic)) == 10 })
		ctx, cancel := within()
		defer cancel()
		if _, err := s.adm.DeleteTopic(ctx, s.topic); err != nil {
			t.Fatal(err)
		}
		m.blocked("topic_missing", patience)
		s.broker.CreateTopic(t, s.topic, 1, nil)
		anonymous(10)
		s.rows(m, 20)
		m.ready()
		if rows, ids := table.Count(), table.Distinct("message_id"); rows != 20 || ids != 20 {
			t.Errorf("got %d rows with %d message ids, want 20 of each", rows, ids)
		}
		eventually(t, patience, "the new topic's offsets are committed", func() bool { return fmt.Sprint(committed(t, s.adm, s.group, s.topic)) == "map[0:10]" })
		m.terminate(s.drain + time.Second + slack)
	})
}
