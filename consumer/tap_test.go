package consumer_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

// seen keeps, as a tap, what became of each event.
type seen struct {
	mu      sync.Mutex        // guards the fields below
	begun   map[string]string // at Taken, by event
	ended   map[string]string // at Settled
	open    int               // Taken without Settled
	crossed bool              // more than one open for the only partition
}

func (s *seen) note(p *consumer.Passage, in map[string]string) {
	text := func(e consumer.Event) string { return string(p.Records[e.Record].Value) }
	for i := range p.Rows() {
		in[text(p.Row(i))] = "row"
	}
	for i := range p.Rejects() {
		e, r := p.Reject(i)
		in[text(e)] = "reject " + r.Code
	}
	for i := range p.Filtered() {
		e, why := p.Drop(i)
		in[text(e)] = "filter " + why
	}
}

func (s *seen) Taken(p *consumer.Passage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	s.crossed = s.crossed || s.open > 1
	s.note(p, s.begun)
}

func (s *seen) Settled(p *consumer.Passage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if p.Err != nil || p.Took <= 0 || p.Rows() > 0 && p.RowBytes == 0 || p.Topic == "" {
		s.ended["?"] = fmt.Sprintf("%v after %v, %d bytes of %s", p.Err, p.Took, p.RowBytes, p.Topic)
	}
	s.note(p, s.ended)
}

// The tap sees every event twice: as the mapper left it, and at its end.
func TestTapSeesEveryEvent(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, "a", "bad", "drop", "refuse-me", "z")
		cfg, tab := config(t, b, topic), newTable(t)
		tap := &seen{begun: map[string]string{}, ended: map[string]string{}}
		cfg.Tap = tap
		tab.set(refuse(func(row string) bool { return textOf(row) == "refuse-me" }))
		m := start(t, cfg, tab)
		eventually(t, "all settled", func() bool { tap.mu.Lock(); defer tap.mu.Unlock(); return len(tap.ended) >= 5 })
		m.stop()
		begun := map[string]string{"a": "row", "bad": "reject bad", "drop": "filter test", "refuse-me": "row", "z": "row"}
		if !maps.Equal(tap.begun, begun) {
			t.Errorf("at Taken: got %v, want %v", tap.begun, begun)
		}
		begun["refuse-me"] = "reject schema_mismatch"
		if !maps.Equal(tap.ended, begun) {
			t.Errorf("at Settled: got %v, want %v", tap.ended, begun)
		}
		if tap.open != 0 || tap.crossed {
			t.Errorf("got %d batches Taken and not Settled, crossed %v, want each settled before the next", tap.open, tap.crossed)
		}
	})
}
