package browser_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

// The faults of a page that a machine can find. Each is one line.
const faults = `(() => {
  const out = [], seen = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && e.getClientRects().length > 0;
  const text = (e) => (e?.textContent || '').trim();
  // Every control has a name.
  for (const e of document.querySelectorAll('button, input, select, a, [tabindex="0"]')) {
    if (!seen(e)) continue;
    const by = (e.getAttribute('aria-labelledby') || '').split(' ').map((id) => text(document.getElementById(id))).join('');
    const name = e.getAttribute('aria-label') || by || [...(e.labels || [])].map(text).join('') || text(e);
    if (!name) out.push('no name: ' + e.outerHTML.slice(0, 120));
  }
  // Ids are unique, and what is referred to is there.
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) out.push('id twice: ' + id);
  for (const name of ['aria-labelledby', 'aria-controls', 'aria-describedby', 'for'])
    for (const e of document.querySelectorAll('[' + name + ']'))
      for (const id of e.getAttribute(name).split(' ')) if (!document.getElementById(id)) out.push(name + ' of nothing: ' + id);
  // Landmarks, one heading of the first order, tables with heads, a language.
  if (document.querySelectorAll('main').length !== 1) out.push('not one main');
  if (document.querySelectorAll('h1').length !== 1) out.push('not one h1');
  if (!document.documentElement.lang) out.push('no language');
  for (const t of document.querySelectorAll('table')) if (![...t.tHead.rows[0].cells].every((c) => c.scope === 'col')) out.push('table head without scope: ' + t.id);
  // Nothing sticks out to the side.
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) out.push('wider than the window: ' + page.scrollWidth + ' of ' + page.clientWidth);
  // Text stands out from what is behind it: 4.5 to 1, WCAG 2 level AA.
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
  const reported = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !seen(e) || e.closest('script, .unseen, .skip, option, noscript') || e.disabled) continue;
    const a = light(rgba(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const key = e.tagName + '.' + e.className;
    if (ratio < 4.5 && !reported.has(key)) { reported.add(key); out.push('contrast ' + ratio.toFixed(2) + ': ' + key + ' ' + walk.currentNode.data.trim().slice(0, 40)); }
  }
  return out;
})()`

func (p *page) faultless(where string) {
	p.t.Helper()
	for _, fault := range js[[]string](p, faults) {
		p.t.Errorf("%s: %s", where, fault)
	}
}

// Both colours and both widths, with everything open that can be.
func TestLooks(t *testing.T) {
	s, p := newStage(t, emulator.Latency{}, "ops.live_events=full")
	for _, id := range []string{"m-1", "m-2", "m-3"} {
		s.event(track("Order Completed", id))
	}
	s.event("not json")
	s.produce(tombstone())
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1360, 400} {
			where := fmt.Sprintf("%s, %d wide", scheme, width)
			p.look(width, 860, scheme)
			p.open()
			p.row("Rejected")
			p.row("Filtered")
			p.row("Delivered")
			p.until("document.querySelector('#sink dd') && document.querySelector('#partitions tbody tr')")
			p.faultless(where + ", events")
			p.openRow("Delivered")
			p.text("#drawer", "Source")
			p.faultless(where + ", details")
			p.keys(escape)
			p.click("#tab-dead-letters")
			p.until("document.querySelector('#dead-letters-table tbody tr')")
			p.click("#dead-letters-dry-run")
			p.text("#dry-run", "would be rows now")
			p.faultless(where + ", dead letters")
			p.click("#tab-config")
			p.text("#config-body", "max_rows")
			p.faultless(where + ", configuration")
		}
	}

	// The search must find what it is for.
	p.do(`document.querySelector('main').insertAdjacentHTML('beforeend', '<button></button><p id="q" style="color:#777;background:#888">dim</p><div style="width:3000px">wide</div>')`)
	if got := js[[]string](p, faults); len(got) < 3 {
		t.Errorf("got %q of a page with faults, want a nameless button, an id twice and a window too wide at least", got)
	}
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
	p.text("#link", "no connection")
	p.text("#health-word", "No connection")
	s.start()
	p.text("#link", "live")
	p.text("#health-word", "Delivering")
	s.event(track("After", "m-2"))
	p.row("After")
	if raw, _ := json.Marshal(p.listed()); len(p.listed()) != 1 {
		t.Errorf("got %s, want the events of the new process alone", raw)
	}
}
