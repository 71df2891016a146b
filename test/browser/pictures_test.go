package browser_test

import (
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/traffic"
	"github.com/datafly/bridge/zerobus/emulator"
)

// flow keeps traffic coming until the test ends.
func (s *stage) flow(perSecond int) {
	done, ended := make(chan struct{}), make(chan struct{})
	s.t.Cleanup(func() { close(done); <-ended })
	go func() { // ends with the test
		defer close(ended)
		gen := traffic.New(traffic.Config{Seed: 7, MalformedEvery: 60, TombstoneEvery: 90})
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var e traffic.Event
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			for i := range max(perSecond/50, 1) {
				gen.Next(&e)
				rec := &kgo.Record{Partition: int32((n + i) % 3), Key: append([]byte{}, e.Key...), Value: append([]byte{}, e.Value...)}
				if e.Value == nil {
					rec.Value = nil
				}
				s.cl.Produce(s.t.Context(), rec, nil)
			}
		}
	}()
}

// Pictures for the documentation, from traffic that looks like Signal's.
func TestPictures(t *testing.T) {
	if os.Getenv("BRIDGE_SCREENSHOTS") == "" {
		t.Skip("BRIDGE_SCREENSHOTS names no folder")
	}
	s, p := newStage(t, emulator.Latency{P50: 40 * time.Millisecond, P95: 120 * time.Millisecond}, "ops.live_events=full")
	s.flow(400)
	p.look(1360, 900, "light")
	p.open()
	p.until("(document.querySelector('#figures .line')?.getAttribute('d') || '').split('L').length > 15")
	p.picture("live-light")
	p.look(1360, 900, "dark")
	p.picture("live-dark")
	p.openRow("successful", "track")
	p.do("document.querySelector('#detail').scrollIntoView()")
	p.picture("detail-dark")
	p.look(1360, 900, "light")
	p.picture("detail-light")
	p.back()
	p.openRow("rejected")
	p.do("document.querySelector('#detail').scrollIntoView()")
	p.picture("rejected")
	p.back()
	p.look(390, 860, "light")
	p.do("scrollTo(0, 0)")
	p.picture("narrow-light")
	p.look(390, 860, "dark")
	p.do("document.querySelector('#events').scrollIntoView()")
	p.picture("narrow-events")
	p.look(1360, 900, "light")
	p.do("scrollTo(0, 0)")
	p.tab("Partitions")
	p.until("document.querySelector('#partitions tr[data-row]')")
	p.picture("partitions")
	p.tab("Dead letters")
	p.until("document.querySelector('#rejects tr[data-row]')")
	p.click("#dry-run")
	p.text("#dry-run-result", "would be rows now")
	p.do("document.querySelector('.tabs').scrollIntoView()")
	p.picture("dead-letters")
	if err := s.ws.Revoke(emulator.PrivilegeModify, tableName); err != nil {
		t.Fatal(err)
	}
	p.tab("Live Events")
	p.do("scrollTo(0, 0)")
	p.text("#verdict", "GRANT")
	p.row("retrying")
	p.picture("blocked")
}
