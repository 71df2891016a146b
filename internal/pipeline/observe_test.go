package pipeline

import (
	"bytes"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

func TestSummaryFindsNames(t *testing.T) {
	for _, tc := range []struct {
		value string
		index int
		want  eventSummary
	}{
		{`{"type":"track","event":"Order","messageId":"m"}`, 0, eventSummary{"track", "Order", "m"}},
		{`{"type":"page","name":"Home","message_id":"m","messageId":"n"}`, 0, eventSummary{"page", "Home", "m"}},
		{"\xef\xbb\xbf {\"type\":\"identify\"}", 0, eventSummary{Kind: "identify"}},
		{`{"event":{"type":"track","event":"In"}}`, 0, eventSummary{"track", "In", ""}},
		{`{"data":{"payload":{"type":"track","event":"Deep"}}}`, 0, eventSummary{"track", "Deep", ""}},
		{`[{"type":"a"},{"type":"b"}]`, 1, eventSummary{Kind: "b"}},
		{`{"batch":[{"type":"a"},{"type":"b"}]}`, 1, eventSummary{Kind: "b"}},
		{`{"batch":[{"type":"a"}]}`, 7, eventSummary{}},
		{`{"event_name":"order","event_type":"track","message_id":"m"}`, 0, eventSummary{"track", "order", "m"}},
		{`{"type":1,"event":["x"],"name":null}`, 0, eventSummary{"1", `["x"]`, ""}},
		{"{\"type\":\"a\\u0000b\\u202ec\"}", 0, eventSummary{Kind: "a b c"}},
		{`{"type":"` + strings.Repeat("x", 500) + `"}`, 0, eventSummary{Kind: strings.Repeat("x", 119) + "…"}},
		{`not json`, 0, eventSummary{}}, {``, 0, eventSummary{}}, {`"text"`, 0, eventSummary{}}, {`null`, 0, eventSummary{}},
		{strings.Repeat("[", 1000), 0, eventSummary{}},
	} {
		if got := summaryOf([]byte(tc.value), tc.index); got != tc.want {
			t.Errorf("%.80s: got %+v, want %+v", tc.value, got, tc.want)
		}
	}
}

func FuzzEventSummary(f *testing.F) {
	for _, seed := range []string{`{"type":"track","event":{"type":"a"}}`, `[[[]]]`, `{"batch":[{"data":{}}]}`, "\xef\xbb\xbf"} {
		f.Add([]byte(seed), 0)
	}
	f.Fuzz(func(t *testing.T, value []byte, index int) {
		if index < 0 {
			return
		}
		for _, text := range []string{summaryOf(value, index).Kind, summaryOf(value, index).Name, summaryOf(value, index).ID} {
			if strings.ContainsAny(text, "\x00\n\r\x1b") || len([]rune(text)) > maxName {
				t.Errorf("got name %q, want one short line", text)
			}
		}
	})
}

// The page describes every code.
func TestEveryCodeHasAMeaning(t *testing.T) {
	codes := append(mapping.RejectCodes(), mapping.FilterReasons()...)
	for _, code := range append(codes, zerobus.RefusedSchemaMismatch, zerobus.RefusedTooLarge, zerobus.RefusedOther) {
		if codeMeanings[code] == "" {
			t.Errorf("%s has no meaning", code)
		}
	}
}

func TestPageTextIsSafeToShow(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\x1b[31mb": `a\u001b[31mb`, "two\nlines": "two\nlines", "cut \xe2\x82": "cut ", "right\u202eleft": `right\u202eleft`,
	} {
		if got := pageText([]byte(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := pageText([]byte{0xff, 0xfe, 1, 2}); !strings.Contains(got, "ff fe 01 02") {
		t.Errorf("got %q of bytes, want them in hexadecimal", got)
	}
	// JSON stays the same JSON, with nothing in it that turns lines about.
	for in, want := range map[string]string{
		"{\"a\":\"x\u202ey\u200b\U000e0041\"}": "{\n  \"a\": \"x\\u202ey\\u200b\\udb40\\udc41\"\n}",
		" [\"\\\"[[\",{}]\t":                   "[\n  \"\\\"[[\",\n  {}\n]",
	} {
		if got := pageValue([]byte(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := pageValue([]byte(`{"n":12345678901234567890}`)); !strings.Contains(got, "12345678901234567890") {
		t.Errorf("got %s, want the number as it was written", got)
	}
}

// Brackets within brackets must not become gigabytes of indentation, whoever
// opens the event or lists the dead letters.
func TestPageValueIsBounded(t *testing.T) {
	for name, value := range map[string]string{
		"deep":           strings.Repeat("[", 9_999) + strings.Repeat("]", 9_999),
		"deep and wide":  strings.Repeat("[", 9_000) + "1" + strings.Repeat(",1", 20_000) + strings.Repeat("]", 9_000),
		"deep, as keys":  strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_000),
		"deeper than is": strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000),
		"wide":           "[" + strings.Repeat("1,", 30_000) + "1]",
		"a dead letter":  strings.Repeat("[", maxListedValue/2) + strings.Repeat("]", maxListedValue/2),
	} {
		if got := len(pageValue([]byte(value))); got > maxIndented {
			t.Errorf("%s: got %d bytes of %d, want at most %d", name, got, len(value), maxIndented)
		}
	}
	if got, value := pageValue([]byte(`[[{"a":1}]]`)), "[\n  [\n    {\n      \"a\": 1\n    }\n  ]\n]"; got != value {
		t.Errorf("got %s, want it indented", got)
	}
}

// What is kept of one record is bounded, whatever its producer put where.
func TestKeptRecordIsBounded(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	rec := &kgo.Record{Key: []byte(big), Value: []byte(big)}
	for range 100 {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: big, Value: []byte(big)})
	}
	kept, size := copyRecord(rec)
	held := len(kept.Key) + len(kept.Value)
	for _, h := range kept.Headers {
		held += len(h.Key) + len(h.Value)
	}
	if most := maxKept + 1 + maxKeptKey + 2*maxKeptKey*maxKeptHeaders; held != size || held > most {
		t.Errorf("got %d bytes kept and %d counted, want the same and at most %d", held, size, most)
	}
}

// What one sampled event costs the goroutine that delivers.
func BenchmarkEventSummary(b *testing.B) {
	value := []byte(`{"type":"track","event":"Order Completed","message_id":"m","properties":{"text":"` + strings.Repeat("x", 1000) + `"}}`)
	b.ReportAllocs()
	for b.Loop() {
		summaryOf(value, 0)
	}
}

// A batch whose rows were mapped again can hold fewer records at its end.
func TestLeftOutEventIsNotShownAsDelivered(t *testing.T) {
	p := &consumer.BatchView{Records: make([]*kgo.Record, 1)}
	if got := outcomeOf(p, consumer.Event{Record: 1}).Status; got != live.Abandoned {
		t.Errorf("got %q of an event that was left out, want %q", got, live.Abandoned)
	}
}

// The dry run has the outcomes that Explain has, and keeps no row of them.
func TestOutcomesAreThoseOfTheMapping(t *testing.T) {
	m, err := mapping.Default().Compile(mapping.Options{Settings: mapping.Settings{Input: "auto"}})
	if err != nil {
		t.Fatal(err)
	}
	value := []byte(`[{"type":"track","event":"a","messageId":"m-1"},{"type":"page","timestamp":"no time"},7,{"type":"page","messageId":"m-2"}]`)
	out := outcomesOut{}
	m.NewMapper().Map(&mapping.Record{Topic: "t", Value: value}, &out)
	for i, x := range m.NewMapper().Explain(&mapping.Record{Topic: "t", Value: value}) {
		want := map[string]string{"row": live.Delivered, "reject": live.Rejected, "filter": live.Filtered}[x.Outcome]
		if got := out.events[i]; got.status != want || got.code != x.Code || got.column != x.Column {
			t.Errorf("event %d: got %+v, want %s %s %s", i, got, want, x.Code, x.Column)
		}
	}
	if len(out.events) != 4 || bytes.Contains(out.buf, []byte("m-1")) {
		t.Errorf("got %d outcomes and %q kept, want 4 and the last row alone", len(out.events), out.buf)
	}
}
