package browser_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/zerobus/emulator"
)

// secretly marks every value in these events.
const secretly = "PRIVATE-7731"

// private are events that become rows, rejects and filtered ones, with the mark
// in every value that is neither a name nor an id.
func private() []*kgo.Record {
	v := func(text string) string { return strings.ReplaceAll(text, "$", secretly) }
	var recs []*kgo.Record
	for i, value := range []string{
		`{"type":"track","event":"Order Completed","message_id":"m-0","user_id":"$","anonymous_id":"$","context":{"ip":"$","locale":"$"},"properties":{"a":"$"}}`,
		`{"type":"track","event":"Bad Time","message_id":"m-1","user_id":"$","timestamp":"$"}`,
		`{"type":"page","name":"Home","message_id":"m-2","user_id":"$","user_id":"$"}`,
		`{"type":"track","event":"Cut Off","message_id":"m-3","user_id":"$`,
		`"$"`,
		`[{"type":"track","event":"One","message_id":"m-5","user_id":"$"},{"type":"track","event":"Two","message_id":"m-6","timestamp":"$"}]`,
		`{"batch":[{"type":"identify","message_id":"m-7","traits":{"email":"$"}}]}`,
		`{"type":"track","event":"Refused","message_id":"m-8","user_id":"$"}`,
	} {
		recs = append(recs, &kgo.Record{Partition: int32(i % 3), Key: []byte(secretly), Value: []byte(v(value)), Headers: []kgo.RecordHeader{{Key: "who", Value: []byte(secretly)}}})
	}
	return recs
}

// everything gathers what a visitor can get to see: the page with every event
// and dead letter opened, each answer of the API, and the stream.
func everything(t *testing.T, s *stage, p *page, wantRows int) map[string]string {
	t.Helper()
	seen := map[string]string{}
	const rows = "[...document.querySelectorAll('#events tr[data-row]')]"
	p.until(fmt.Sprintf("%s.length >= %d", rows, wantRows))
	p.until("!" + rows + ".some(r => r.innerText.includes('in flight'))")
	// With what is said of elements, not only their text.
	whole := func() string { return js[string](p, "document.documentElement.outerHTML") }
	seen["the page"] = whole()
	for i, name := range p.listed() {
		p.do(fmt.Sprintf("%s[%d].querySelector('a.row').click()", rows, i))
		p.until("document.querySelector('#detail .facts') && (document.querySelector('#hidden') || document.querySelector('#detail pre'))")
		seen[fmt.Sprintf("the details of event %d, %s", i, name)] = whole()
		p.back()
	}
	p.tab("Dead letters")
	p.click("#rejects a.row")
	p.text("#dead-letter", "Dead letter at")
	seen["a dead letter"] = whole()
	p.keys(escape)
	p.until("!document.querySelector('#dead-letter')")
	p.click("#dry-run")
	p.text("#dry-run-result", "would be rows now")
	seen["dead letters"] = whole()
	p.tab("Partitions")
	p.until("document.querySelector('#partitions tr[data-row]')")
	seen["partitions"] = whole()
	p.tab("Configuration")
	p.text("#main pre", "max_rows")
	seen["configuration"] = whole()

	for _, path := range []string{"/live/events", "/live/dead-letters", "/live/config", "/live/summary", "/live/history", "/live/partitions", "/status", "/readyz", "/metrics", "/"} {
		_, seen[path] = s.get(path)
	}
	for id := 1; id <= 40; id++ {
		path := fmt.Sprintf("/live/events/%d", id)
		_, seen[path] = s.get(path)
	}
	_, seen["the dry run"] = s.ask(http.MethodPost, "/live/dead-letters/dry-run")
	seen["the stream"] = stream(t, s)
	return seen
}

// stream reads the backlog of the stream, up to its second status.
func stream(t *testing.T, s *stage) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/live/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 8<<20)
	for statuses := 0; statuses < 2 && lines.Scan(); {
		b.WriteString(lines.Text() + "\n")
		if lines.Text() == "event: status" {
			statuses++
		}
	}
	return b.String()
}

// In metadata mode no value of an event is anywhere; in full mode the same
// search finds them, so the search is not blind.
func TestNothingLeaksInMetadataMode(t *testing.T) {
	for _, mode := range []string{"metadata", "full"} {
		t.Run(mode, func(t *testing.T) {
			s, p := newStage(t, emulator.Latency{}, "ops.live_events="+mode)
			// The service quotes the row it refuses.
			if _, err := s.ws.AddFault(emulator.Fault{Endpoint: emulator.EndpointIngest, Effect: emulator.EffectRefuse, Rows: &emulator.RowMatch{MessageIDs: []string{"m-8"}},
				Message: "cannot take value '" + secretly + "' of column 'user_id'"}); err != nil {
				t.Fatal(err)
			}
			p.open()
			for _, rec := range private() {
				s.produce(rec)
			}
			found := 0
			for where, text := range everything(t, s, p, 9) {
				at := strings.Index(text, secretly)
				if at < 0 {
					continue
				}
				found++
				if mode == "metadata" {
					t.Errorf("%s contains a value: %s", where, text[max(at-200, 0):min(at+100, len(text))])
				}
			}
			if mode == "full" && found < 9 {
				t.Errorf("got values in %d places in full mode, want them in the details and the dead letters", found)
			}
			if log := s.log.String(); strings.Contains(log, secretly) {
				t.Errorf("the log contains a value: %s", log)
			}
		})
	}
}

// What is in an event never becomes markup or script.
func TestHostileContentStaysText(t *testing.T) {
	const bad = `<img src=x onerror="window.owned=1"><script>window.owned=1</script><b>x</b>`
	s, p := newStage(t, emulator.Latency{}, "ops.live_events=full")
	p.open()
	s.produce(&kgo.Record{Key: []byte(bad), Headers: []kgo.RecordHeader{{Key: bad, Value: []byte(bad)}},
		Value: []byte(fmt.Sprintf(`{"type":%[1]q,"event":%[1]q,"message_id":%[1]q,"user_id":%[1]q,"%[2]s":1}`, bad, "</pre><svg onload=window.owned=1>"))})
	s.event("</script><script>window.owned=1</script>")
	s.event(`{"type":"track","event":"right\u202eto left\u0000\u200b","message_id":"m-2"}`)
	p.row("rejected")
	p.row("successful", "<img src=x")
	p.openRow("successful", "<img src=x")
	p.text("#detail", "<script>window.owned=1</script>")
	p.back()
	p.openRow("rejected")
	p.text("#detail", "</script><script>")
	p.back()
	p.row("right to left")
	p.tab("Dead letters")
	p.click("#rejects a.row")
	p.text("#dead-letter", "</script><script>")
	if p.is("window.owned !== undefined || document.querySelector('main img, main script, #dead-letter b, #dead-letter img, #dead-letter script, #dead-letter svg')") {
		t.Errorf("an event became markup: %.2000s", js[string](p, "document.body.outerHTML"))
	}
}
