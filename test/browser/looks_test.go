package browser_test

import (
	"encoding/json"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

// All views of an integration in all looks, with everything open that can be.
func TestConsoleIntegrationLooks(t *testing.T) {
	s, p := newStage(t, emulator.Latency{}, "ops.live_events=full")
	p.watched()
	for _, id := range []string{"m-1", "m-2", "m-3"} {
		s.event(track("Order Completed", id))
	}
	s.event("not json")
	s.produce(tombstone())
	s.eventually("the charts", func() bool {
		_, body := s.get("/live/history")
		var h struct {
			History struct {
				Rows []any `json:"rows_per_second"`
			}
		}
		return json.Unmarshal([]byte(body), &h) == nil && len(h.History.Rows) > 1
	})
	const at = "/integrations/default/"
	p.inspect(at+"events", "document.querySelector('#figures') && document.querySelectorAll('#events tr[data-row]').length === 5")
	p.inspect(at+"events/0/0", "document.querySelector('#detail pre')")
	p.inspect(at+"partitions", "document.querySelectorAll('#partitions tr[data-row]').length === 3")
	p.inspect(at+"dead-letters", "document.querySelector('#rejects tr[data-row]')", func(string) {
		p.click("#dry-run")
		p.text("#dry-run-result", "would be rows now")
		p.click("#rejects a.row")
		p.text("#dead-letter", "Dead letter at")
	})
	p.inspect(at+"configuration", "document.querySelector('#sink')")
}

// A choice of colours overrides the setting of the system.
func TestColoursCanBeChosen(t *testing.T) {
	_, p := newStage(t, emulator.Latency{})
	p.look(1360, 860, "light")
	p.open()
	background := func() string { return js[string](p, "getComputedStyle(document.body.parentElement).backgroundColor") }
	light := background()
	p.click("#theme") // light
	p.click("#theme") // dark
	p.until("document.documentElement.dataset.theme === 'dark'")
	if dark := background(); dark == light {
		t.Errorf("got background %s in the dark and in the light", dark)
	}
	p.open()
	if !p.is("document.documentElement.dataset.theme === 'dark'") {
		t.Error("the choice did not outlive a reload")
	}
	p.click("#theme")
	p.until("!document.documentElement.dataset.theme && document.querySelector('#theme').innerText === 'Auto'")
}

// The page shows that the bridge is unreachable and reconnects automatically.
func TestConnectionLostAndFound(t *testing.T) {
	s, p := newStage(t, emulator.Latency{})
	p.open()
	s.event(track("Before", "m-1"))
	p.row("Before")
	s.stop()
	p.text("#lost", "No connection to the bridge since")
	s.start()
	p.until("!document.querySelector('#lost')")
	s.event(track("After", "m-2"))
	p.row("After")
	if got := p.listed(); len(got) != 1 {
		t.Errorf("got %q, want the events of the new process alone", got)
	}
}
