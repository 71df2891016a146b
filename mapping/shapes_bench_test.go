//go:build unix

package mapping_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/traffic"
	"github.com/datafly/bridge/mapping"
)

// BenchmarkShapes maps events of one shape after the other, into protobuf and into
// JSON, and reports the processor time of one event. It compares two versions of
// this package: build the tests of both and run them in turns.
func BenchmarkShapes(b *testing.B) {
	for _, shape := range []struct {
		name, blueprint string
		records         [][]byte
		events          int // in a record
	}{
		{"generator", "", generated(4000), 1},
		{"generator in batches", "", inRecords(generated(4000), 100, `{"batch":[`, `]}`), 100},
		{"generator in arrays", "", inRecords(generated(4000), 100, `[`, `]`), 100},
		{"generator wrapped", "", inRecords(generated(1000), 1, `{"payload":`, `}`), 1},
		{"one type", "", benchEvents(1000), 1},
		{"reordered", "", reordered(b, benchEvents(1000)), 1},
		{"unknown keys", "", unknownKeys(1000), 1},
		{"escaped keys", "", escapedKeys(benchEvents(1000)), 1},
		{"deep", "", deep(1000), 1},
		{"300 columns", wideBlueprint(300), wideEvents(300, 200), 1},
		{"mapped already", "", rows(1000), 1},
	} {
		w := twinsOf(b, shape.blueprint, mapping.Options{ClusterID: "bench"})
		for format, mapper := range map[string]*mapping.Mapper{"protobuf": w.protobuf, "json": w.json} {
			b.Run(shape.name+"/"+format, func(b *testing.B) {
				out, rec := &discard{}, mapping.Record{Topic: "t"}
				var took time.Duration
				runs := 0
				for b.Loop() {
					from := cpu(b)
					for _, rec.Value = range shape.records {
						mapper.Map(&rec, out)
					}
					took += cpu(b) - from
					runs++
				}
				if out.rejects+out.filtered > 0 || out.rows != runs*len(shape.records)*shape.events {
					b.Fatalf("got %d rows, %d rejects and %d filtered in %d runs, want rows only", out.rows, out.rejects, out.filtered, runs)
				}
				b.ReportMetric(float64(took)/float64(out.rows), "cpu-ns/event")
			})
		}
	}
}

// generated returns n events of the generator.
func generated(n int) [][]byte {
	g := traffic.New(traffic.Config{Seed: 1})
	var e traffic.Event
	var out [][]byte
	for range n {
		g.Next(&e)
		out = append(out, bytes.Clone(e.Value))
	}
	return out
}

// inRecords puts n events each between before and after, with commas between them.
func inRecords(events [][]byte, n int, before, after string) (out [][]byte) {
	for chunk := range slices.Chunk(events, n) {
		out = append(out, slices.Concat([]byte(before), bytes.Join(chunk, []byte(",")), []byte(after)))
	}
	return out
}

// reordered shuffles the members of every event, at the top and in its context.
func reordered(tb testing.TB, events [][]byte) (out [][]byte) {
	tb.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	var shuffle func(object []byte) []byte
	shuffle = func(object []byte) []byte {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(object, &members); err != nil {
			tb.Fatal(err)
		}
		keys := slices.Sorted(maps.Keys(members))
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		text := []byte{'{'}
		for _, k := range keys {
			if k == "context" {
				members[k] = shuffle(members[k])
			}
			text = append(fmt.Appendf(text, "%q:", k), members[k]...)
			text = append(text, ',')
		}
		text[len(text)-1] = '}'
		return text
	}
	for _, e := range events {
		out = append(out, shuffle(e))
	}
	return out
}

// unknownKeys makes events most of whose keys nothing reads and that differ from
// event to event.
func unknownKeys(n int) (out [][]byte) {
	r := rand.New(rand.NewPCG(5, 6))
	for i := range n {
		e := fmt.Appendf(nil, `{"type":"track","message_id":"%d"`, i)
		for range 20 {
			e = fmt.Appendf(e, `,"field_%x":%d,"%x":"text"`, r.Uint32(), r.IntN(1e6), r.Uint32())
		}
		out = append(out, append(e, `,"properties":{"a":1}}`...))
	}
	return out
}

// escapedKeys writes the first character of many keys as an escape.
func escapedKeys(events [][]byte) (out [][]byte) {
	for _, e := range events {
		for _, key := range []string{"type", "event", "message_id", "user_id", "timestamp", "context", "page", "url", "properties", "campaign", "device", "geo"} {
			e = bytes.ReplaceAll(e, []byte(`"`+key+`":`), fmt.Appendf(nil, `"\u%04x%s":`, key[0], key[1:]))
		}
		out = append(out, e)
	}
	return out
}

// deep makes events with objects and arrays in one another.
func deep(n int) (out [][]byte) {
	for i := range n {
		levels := 20 + i%30
		out = append(out, fmt.Appendf(nil, `{"type":"track","event":"x","properties":%s1%s,"context":{"ip":"198.51.100.1","tree":%s"leaf"%s}}`,
			strings.Repeat(`{"a":`, levels), strings.Repeat(`}`, levels), strings.Repeat(`[{"k":`, levels), strings.Repeat(`}]`, levels)))
	}
	return out
}

func wideBlueprint(columns int) string {
	var b strings.Builder
	b.WriteString("version: 2\nextends: default\nglobal:\n  mappings:\n")
	for i := range columns {
		fmt.Fprintf(&b, "    - {source: properties.column_%d, target: column_%d, type: %s}\n", i, i, []string{"STRING", "BIGINT", "DOUBLE", "BOOLEAN"}[i%4])
	}
	return b.String()
}

// wideEvents fills every second of the columns.
func wideEvents(columns, n int) (out [][]byte) {
	for i := range n {
		e := fmt.Appendf(nil, `{"type":"track","event":"wide","message_id":"%d","properties":{"n":0`, i)
		for c := i % 2; c < columns; c += 2 {
			e = fmt.Appendf(e, `,"column_%d":%s`, c, []string{`"some text"`, "12345", "1.25", "true"}[c%4])
		}
		out = append(out, append(e, "}}"...))
	}
	return out
}

// rows makes events that are rows of the default table already.
func rows(n int) (out [][]byte) {
	for i := range n {
		out = append(out, fmt.Appendf(nil, `{"event_name":"page_viewed","event_type":"page","message_id":"%d","user_id":"u%d","event_timestamp":"2026-03-04T09:15:27.482Z","ip_address":"198.51.100.1","page_url":"https://www.teashop.example/p/%d","source_id":"src"}`, i, i, i))
	}
	return out
}
