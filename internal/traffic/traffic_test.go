package traffic_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/datafly/bridge/internal/traffic"
)

const manyEvents = 6_000

func TestWellFormedEvents(t *testing.T) {
	g := traffic.New(traffic.Config{Seed: 7})
	var e traffic.Event
	var size int
	seen := map[string]bool{}
	types, names, keys, spellings := map[string]int{}, map[string]int{}, map[string]bool{}, map[string]int{}
	for i := range manyEvents {
		g.Next(&e)
		if e.Kind != traffic.OK || !json.Valid(e.Value) || !utf8.Valid(e.Value) {
			t.Fatalf("event %d of kind %s is not valid: %s", i, e.Kind, e.Value)
		}
		if err := refusal(e.Value); err != nil { // duplicate names included
			t.Fatalf("event %d: %v: %s", i, err, e.Value)
		}
		var m map[string]any
		if err := json.Unmarshal(e.Value, &m); err != nil {
			t.Fatal(err)
		}
		id, _ := first(m, "message_id", "messageId").(string)
		if n, ok := traffic.Sequence(id); id != e.MessageID || n != uint64(i) || !ok {
			t.Fatalf("event %d: got id %q holding %d, MessageID %q", i, id, n, e.MessageID)
		}
		if seen[id] {
			t.Fatalf("event %d: id %s came before", i, id)
		}
		seen[id] = true
		if anon, ok := first(m, "anonymous_id", "anonymousId").(string); ok && anon != string(e.Key) {
			t.Fatalf("event %d: got key %q, want %q", i, e.Key, anon)
		}
		_, snake := m["message_id"]
		_, camel := m["messageId"]
		switch {
		case snake && camel:
			spellings["both"]++
		case snake:
			spellings["snake"]++
		default:
			spellings["camel"]++
		}
		kind := m["type"].(string)
		types[kind]++
		if name, ok := m["event"].(string); ok {
			names[name]++
		}
		if _, ok := m["context"].(map[string]any)["ip"].(string); !ok {
			t.Fatalf("event %d: no context.ip: %s", i, e.Value)
		}
		keys[string(e.Key)] = true
		size += len(e.Value)
	}
	if mean := size / manyEvents; mean < 1000 || mean > 1400 {
		t.Errorf("got a mean of %d bytes, want 1000 to 1400", mean)
	}
	for _, kind := range []string{"track", "page", "identify", "group", "screen", "alias"} {
		if types[kind] < manyEvents/500 {
			t.Errorf("got %d events of type %s, want at least %d", types[kind], kind, manyEvents/500)
		}
	}
	if len(types) != 6 || len(names) < 12 {
		t.Errorf("got %d types and %d event names, want 6 and at least 12: %v", len(types), len(names), names)
	}
	for _, s := range []string{"both", "snake", "camel"} {
		if spellings[s] < manyEvents/50 {
			t.Errorf("got %d events spelt %s, want at least %d", spellings[s], s, manyEvents/50)
		}
	}
	if len(keys) < manyEvents/2 {
		t.Errorf("got %d keys, want enough to spread over partitions", len(keys))
	}
}

func TestTimestampsFollowTheClock(t *testing.T) {
	start := time.Date(2027, 1, 31, 23, 59, 59, 990_000_000, time.UTC)
	for _, c := range []struct{ given, want time.Time }{
		{start, start},
		{time.Unix(0, 0), time.Unix(0, 0)},
		{time.Time{}, time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC)},
	} {
		g := traffic.New(traffic.Config{Start: c.given})
		var e traffic.Event
		forms := map[string]bool{}
		for i := range 3000 {
			g.Next(&e)
			var m map[string]any
			if err := json.Unmarshal(e.Value, &m); err != nil {
				t.Fatal(err)
			}
			var got time.Time
			switch v := m["timestamp"].(type) {
			case float64:
				got = time.UnixMilli(int64(v))
				forms["number"] = true
			case string:
				var err error
				if got, err = time.Parse(time.RFC3339Nano, v); err != nil {
					t.Fatal(err)
				}
				forms[v[19:20]+v[23:]] = true
			}
			if want := c.want.Add(time.Duration(i) * time.Millisecond); !got.Truncate(time.Millisecond).Equal(want) {
				t.Fatalf("event %d: got %v, want %v", i, m["timestamp"], want)
			}
			if sent, ok := first(m, "sent_at", "sentAt").(string); ok {
				if at, err := time.Parse(time.RFC3339, sent); err != nil || !at.After(got) {
					t.Fatalf("event %d: got sent %q, %v, want after %v", i, sent, err, got)
				}
			}
		}
		for _, form := range []string{"number", ".Z", ".250Z", ".+02:00"} {
			if !forms[form] {
				t.Errorf("no timestamp of the form %q among %v", form, forms)
			}
		}
	}
}

func TestMalformedEventsAreRefused(t *testing.T) {
	faults := traffic.Faults()
	g := traffic.New(traffic.Config{Seed: 3, MalformedEvery: 1})
	var e traffic.Event
	for i := range 50 * len(faults) {
		g.Next(&e)
		want := faults[i%len(faults)]
		if e.Kind != want.Kind {
			t.Fatalf("event %d: got kind %s, want %s", i, e.Kind, want.Kind)
		}
		if n, ok := traffic.Sequence(e.MessageID); !ok || n != uint64(i) {
			t.Fatalf("event %d: got id %q", i, e.MessageID)
		}
		err := refusal(e.Value)
		reason := map[string]string{
			"invalid_utf8": "invalid UTF-8", "lone_surrogate": "surrogate", "duplicate_key": "duplicate object member name",
			"too_deep": "nested too deep", "bad_escape": "escape", "control_character": "invalid character '\\n'",
			"bad_number": "invalid character 'N'", "trailing_garbage": "more follows", "binary": "invalid character '\\x00'",
			"not_json": "invalid character 'I'", "truncated": "unexpected EOF", "empty": "EOF",
		}[e.Kind]
		switch e.Kind {
		case "not_object":
			if err != nil || e.Value[0] == '{' {
				t.Errorf("event %d: got %s, %v, want JSON that is no object", i, e.Value, err)
			}
		case "bad_timestamp":
			var m map[string]any
			if jsonErr := json.Unmarshal(e.Value, &m); jsonErr != nil || err != nil || m["timestamp"] != "not a time" {
				t.Errorf("event %d: got %v, %v, want a well-formed event at no time", i, m["timestamp"], err)
			}
		default:
			if err == nil || reason == "" || !strings.Contains(err.Error(), reason) {
				t.Errorf("event %d, %s: got %v, want %q", i, e.Kind, err, reason)
			}
		}
		if e.Kind == "empty" && (e.Value == nil || len(e.Value) != 0) {
			t.Errorf("event %d: got %q, want a value of no bytes, which is no tombstone", i, e.Value)
		}
	}
}

func TestCountMatchesTheStream(t *testing.T) {
	for _, c := range []traffic.Config{
		{}, {MalformedEvery: 1}, {TombstoneEvery: 1}, {MalformedEvery: 10, TombstoneEvery: 15}, {MalformedEvery: 7, TombstoneEvery: 7},
		{MalformedEvery: 100, TombstoneEvery: 500}, {MalformedEvery: 3, TombstoneEvery: 2}, {MalformedEvery: -1, TombstoneEvery: -1},
	} {
		g := traffic.New(c)
		got := map[string]int{}
		var e traffic.Event
		for n := range 1000 {
			if want := c.Count(n); !maps.Equal(got, want) {
				t.Fatalf("%+v: after %d events got %v, want %v", c, n, got, want)
			}
			g.Next(&e)
			got[e.Kind]++
			if (e.Kind == traffic.Tombstone) != (e.Value == nil) || len(e.Key) == 0 || e.MessageID == "" {
				t.Fatalf("%+v: event %d: %+v", c, n, e)
			}
		}
	}
}

func TestStreamIsAFunctionOfItsConfig(t *testing.T) {
	c := traffic.Config{Seed: 11, MalformedEvery: 5, TombstoneEvery: 9}
	a, b, other := traffic.New(c), traffic.New(c), traffic.New(traffic.Config{Seed: 12, MalformedEvery: 5, TombstoneEvery: 9})
	var x, y, z traffic.Event
	same := 0
	for i := range 2000 {
		a.Next(&x)
		b.Next(&y)
		other.Next(&z)
		if !bytes.Equal(x.Value, y.Value) || !bytes.Equal(x.Key, y.Key) || x.Kind != y.Kind || x.MessageID != y.MessageID {
			t.Fatalf("event %d: got %s and %s, want the same", i, x.Value, y.Value)
		}
		if x.MessageID == z.MessageID {
			t.Fatalf("event %d: two seeds share id %s", i, x.MessageID)
		}
		if bytes.Equal(x.Value, z.Value) {
			same++
		}
	}
	if most := 2000/9 + 2000/5; same > most { // tombstones and empty values are alike
		t.Errorf("got %d equal events of two seeds, want at most %d", same, most)
	}
}

func TestSequenceOfForeignIDs(t *testing.T) {
	g := traffic.New(traffic.Config{})
	var e traffic.Event
	g.Next(&e)
	for _, id := range []string{"", "mid-77", "5f0c2e9a-7a51-4d0e-9c3b-2f6f1f0b8a11", e.MessageID + "0", e.MessageID[:35] + "G", e.MessageID[:23] + "0" + e.MessageID[24:]} {
		if n, ok := traffic.Sequence(id); ok {
			t.Errorf("%q: got %d, want none", id, n)
		}
	}
}

func TestNextAllocatesTheIDOnly(t *testing.T) {
	g := traffic.New(traffic.Config{MalformedEvery: 100, TombstoneEvery: 500})
	var e traffic.Event
	for range 5000 { // until the buffers have grown
		g.Next(&e)
	}
	if got := testing.AllocsPerRun(5000, func() { g.Next(&e) }); got > 1 {
		t.Errorf("got %v allocations per event, want 1", got)
	}
}

func BenchmarkNext(b *testing.B) {
	g := traffic.New(traffic.Config{MalformedEvery: 100, TombstoneEvery: 500})
	var e traffic.Event
	var size int64
	b.ReportAllocs()
	for b.Loop() {
		g.Next(&e)
		size += int64(len(e.Value))
	}
	b.SetBytes(size / int64(b.N))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// refusal reads a record strictly, as one JSON value, and returns what is
// against it.
func refusal(value []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(value))
	for {
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		if d.StackDepth() > 1000 {
			return errors.New("nested too deep")
		}
		if d.StackDepth() == 0 {
			break
		}
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("more follows the first value")
	}
	return nil
}

func first(m map[string]any, names ...string) any {
	for _, name := range names {
		if v, ok := m[name]; ok {
			return v
		}
	}
	return nil
}
