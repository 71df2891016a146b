package consumer_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

// seen keeps, as a BatchObserver, the outcome of each event.
type seen struct {
	mu      sync.Mutex        // guards the fields below
	begun   map[string]string // at BatchMapped, by event
	ended   map[string]string // at BatchDone
	open    int               // BatchMapped without BatchDone
	crossed bool              // more than one open for the only partition
	refused bool              // a write was
	probed  bool              // a write was a Probe
}

func (s *seen) note(p *consumer.BatchView, in map[string]string) {
	text := func(e consumer.Event) string { return string(p.Records[e.Record].Value) }
	for i := range p.Rows() {
		in[text(p.Row(i))] = "row"
	}
	for i := range p.Rejects() {
		e, r := p.Reject(i)
		in[text(e)] = "reject " + r.Code
	}
	for i := range p.Filtered() {
		e, why := p.FilteredEvent(i)
		in[text(e)] = "filter " + why
	}
}

func (s *seen) BatchMapped(p *consumer.BatchView) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	s.crossed = s.crossed || s.open > 1
	s.note(p, s.begun)
}

func (s *seen) BatchDone(p *consumer.BatchView) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	for _, w := range p.Writes {
		if w.Rows == 0 || w.Bytes == 0 || w.Duration <= 0 || w.Began.Before(p.Mapped) || w.Attempts != 1 {
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
	if p.WriteCount != len(p.Writes) || p.Rows() > 0 && p.WriteCount == 0 || p.Began.After(p.Mapped) {
		s.ended["?"] = fmt.Sprintf("%d writes of %d seen, mapped from %v to %v", len(p.Writes), p.WriteCount, p.Began, p.Mapped)
	}
	if p.Err != nil || p.Duration <= 0 || p.Rows() > 0 && p.RowBytes == 0 || p.Topic == "" {
		s.ended["?"] = fmt.Sprintf("%v after %v, %d bytes of %s", p.Err, p.Duration, p.RowBytes, p.Topic)
	}
	s.note(p, s.ended)
}

// A batch observer sees every event twice: as mapped, and with its outcome.
func TestBatchObserverSeesEveryEvent(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, "a", "bad", "drop", "refuse-me", "z")
		cfg, tab := config(t, b, topic), newTable(t)
		observer := &seen{begun: map[string]string{}, ended: map[string]string{}}
		cfg.BatchObserver = observer
		tab.set(refuse(func(row string) bool { return textOf(row) == "refuse-me" }))
		m := start(t, cfg, tab)
		eventually(t, "all resolved", func() bool { observer.mu.Lock(); defer observer.mu.Unlock(); return len(observer.ended) >= 5 })
		m.stop()
		begun := map[string]string{"a": "row", "bad": "reject bad", "drop": "filter test", "refuse-me": "row", "z": "row"}
		if !maps.Equal(observer.begun, begun) {
			t.Errorf("at BatchMapped: got %v, want %v", observer.begun, begun)
		}
		begun["refuse-me"] = "reject schema_mismatch"
		if !maps.Equal(observer.ended, begun) {
			t.Errorf("at BatchDone: got %v, want %v", observer.ended, begun)
		}
		if !observer.refused || !observer.probed {
			t.Errorf("got a refused write %v and a probe %v, want both", observer.refused, observer.probed)
		}
		if observer.open != 0 || observer.crossed {
			t.Errorf("got %d batches mapped and not done, crossed %v, want each done before the next", observer.open, observer.crossed)
		}
	})
}
