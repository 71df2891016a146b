package mapping_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/datafly/bridge/mapping"
)

// A large context around many small events must not fill the memory.
// What does not fit is rejected event by event, and the next record is mapped.
func TestEnvelopeIsBounded(t *testing.T) {
	const events, size = 2000, 100 << 10
	for name, tc := range map[string]struct{ blueprint, ip string }{
		"text":   {"", `"` + strings.Repeat("x", size) + `"`},
		"object": {"version: 2\nglobal: {mappings: [{source: type, target: t}, {source: context, target: context, type: VARIANT}]}\n", `{"a":"` + strings.Repeat("x", size) + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			mapper := mustCompile(t, tc.blueprint, mapping.Options{}).NewMapper()
			value := fmt.Appendf(nil, `{"context":{"ip":%s},"batch":[%s{"type":"last","context":{"z":1}}]}`, tc.ip, strings.Repeat(`{"type":"a","context":{"z":1}},`, events-1))
			out := &outcomes{}
			mapper.Map(recordAt(value), out)
			rows, bytesOut := 0, 0
			for i, code := range out.codes {
				switch code {
				case "row":
					rows++
				case mapping.CodeOutOfRange:
					if !strings.Contains(out.lines[i], "send fewer events in a batch") {
						t.Fatalf("got %s, want a remedy", out.lines[i])
					}
				default:
					t.Fatalf("got %s", out.lines[i])
				}
			}
			for _, r := range out.rows {
				bytesOut += len(r)
			}
			if len(out.codes) != events || rows == 0 || rows == events || bytesOut > 32<<20 {
				t.Errorf("got %d outcomes, %d rows and %d bytes, want %d outcomes, some rows of at most 32 MiB", len(out.codes), rows, bytesOut, events)
			}
			if got := mapOne(mapper, []byte(`{"context":{"ip":"203.0.113.9"},"payload":{"type":"a"}}`)).codes; got[0] != "row" {
				t.Errorf("the next record: got %q, want a row", got)
			}
		})
	}
}

// The same events say the same wherever the context stands: around them, or
// inside each of them.
func TestEnvelopeMeansWhatTheEventWouldSay(t *testing.T) {
	const context = `"context":{"ip":"203.0.113.9","userAgent":"srv/1","page":{"url":"https://a.example/","referrer":"r"},"timezone":"UTC"},"timestamp":"2026-01-01T00:00:00Z"`
	blueprint := "version: 2\nextends: default\nglobal: {mappings: [{source: context, target: context, type: VARIANT}, {target: x, expression: context.page.url + context.ip}]}\n"
	w := twinsOf(t, blueprint, mapping.Options{})
	var want []string
	for i := range 3 {
		_, out := w.check(t, fmt.Appendf(nil, `{"type":"a","message_id":"%d",%s}`, i, context))
		want = append(want, out.lines...)
	}
	event := func(i int) string { return fmt.Sprintf(`{"type":"a","message_id":"%d"}`, i) }
	for name, value := range map[string]string{
		"batch":             `{"batch":[` + event(0) + `,` + event(1) + `,` + event(2) + `],` + context + `}`,
		"behind the batch":  `{` + context + `,"batch":[` + event(0) + `,` + event(1) + `,` + event(2) + `]}`,
		"wrappers":          `[{"payload":` + event(0) + `,` + context + `},{` + context + `,"data":` + event(1) + `},{"event":{"payload":` + event(2) + `},` + context + `}]`,
		"batch of wrappers": `{"batch":[{"payload":` + event(0) + `},{"event":` + event(1) + `},` + event(2) + `],` + context + `}`,
	} {
		_, got := w.check(t, []byte(value))
		if strings.Join(got.lines, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: got %q, want %q", name, got.lines, want)
		}
	}
}

// bridge map --explain separates what an event holds from what surrounds it.
func TestEnvelopeIsExplained(t *testing.T) {
	mapper := mustCompile(t, "", mapping.Options{}).NewMapper()
	got := map[string]string{}
	for _, x := range mapper.Explain(recordAt([]byte(`{"context":{"ip":"1","locale":"de"},"batch":[{"type":"a","context":{"locale":"en"}}]}`))) {
		for _, c := range x.Columns {
			got[c.Name] = c.Source
		}
	}
	for column, want := range map[string]string{"ip_address": "context.ip of the envelope", "locale": "context.locale", "event_type": "type", "timezone": ""} {
		if got[column] != want {
			t.Errorf("%s: got source %q, want %q", column, got[column], want)
		}
	}
}

// What was merged stands behind a copy: the record itself is not written to.
func TestEnvelopeLeavesTheRecordAlone(t *testing.T) {
	mapper := mustCompile(t, "version: 2\nglobal: {mappings: [{source: context, target: c, type: VARIANT}]}\n", mapping.Options{}).NewMapper()
	value := append(make([]byte, 0, 4096), `{"context":{"ip":"1"},"batch":[{"context":{"a":1}},{"context":{"b":2}}]}`...)
	before := bytes.Clone(value[:cap(value)])
	if out := mapOne(mapper, value); len(out.rows) != 2 {
		t.Fatalf("got %q, want two rows", out.lines)
	}
	if !bytes.Equal(before, value[:cap(value)]) {
		t.Error("the record was written to")
	}
}
