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
	refused bool              // a write was
	probed  bool              // a write was a Probe
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
	for _, w := range p.Writes {
		if w.Rows == 0 || w.Bytes == 0 || w.Took <= 0 || w.Began.Before(p.Taken) || w.Attempts != 1 {
			s.ended["?"] = fmt.Sprintf("write %+v", w)
		}
		s.refused = s.refused || w.Err != nil
		s.probed = s.probed || w.Probe
	}
	for i := range p.Records {
		if at := p.Polled(i); at.IsZero() || at.After(p.Began) {
			s.ended["?"] = fmt.Sprintf("record %d polled at %v, mapping began at %v", i, at, p.Began)
		}
	}
	if p.Written != len(p.Writes) || p.Rows() > 0 && p.Written == 0 || p.Began.After(p.Taken) {
		s.ended["?"] = fmt.Sprintf("%d writes of %d told, mapped from %v to %v", len(p.Writes), p.Written, p.Began, p.Taken)
	}
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
		if !tap.refused || !tap.probed {
			t.Errorf("got a refused write %v and a probe %v, want both", tap.refused, tap.probed)
		}
		if tap.open != 0 || tap.crossed {
			t.Errorf("got %d batches Taken and not Settled, crossed %v, want each settled before the next", tap.open, tap.crossed)
		}
	})
}
