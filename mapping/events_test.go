package mapping_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/traffic"
	"github.com/datafly/bridge/mapping"
)

// A record of very many events costs no more memory than one of few: they are
// counted before the first is mapped.
func TestManyEventsAreOneReject(t *testing.T) {
	m := mustCompile(t, "", mapping.Options{}).NewMapper()
	for name, record := range map[string]string{
		"array of numbers": "[" + strings.Repeat("1,", 399_999) + "1]",
		"batch of objects": `{"batch":[` + strings.Repeat("{},", 399_999) + "{}]}",
	} {
		value := []byte(record)
		if got := mapOne(m, value); !slices.Equal(got.codes, []string{mapping.CodeTooManyEvents}) || !strings.Contains(got.lines[0], "400000 events and mapping.max_events_per_record is 10000") {
			t.Errorf("%s: got %d outcomes, the first %.200s, want one reject with both numbers", name, len(got.lines), got.lines[0])
		}
		if allocs := testing.AllocsPerRun(3, func() { m.Map(recordAt(value), &outcomes{}) }); allocs > 50 {
			t.Errorf("%s: got %.0f allocations, want a few", name, allocs)
		}
	}
}

// The events of a record are counted where it holds them: another batch, below an
// object that might be a wrapper, neither lifts the bound nor uses it up.
func TestTheBatchOfTheRecordIsCounted(t *testing.T) {
	m := mustCompile(t, "", mapping.Options{Settings: mapping.Settings{MaxEventsPerRecord: 3}}).NewMapper()
	few, many := `[{"type":"x"},{"type":"y"}]`, `[1,{"type":"x"},3,4]`
	for _, around := range []string{`{"batch":%s,"payload":{"batch":%s}}`, `{"batch":%s,"data":{"payload":{"batch":%s}}}`, `{"batch":%s,"original_event":{"batch":%[2]s,"batch":%[2]s}}`} {
		if got := mapOne(m, fmt.Appendf(nil, around, few, many)).codes; !slices.Equal(got, []string{"row", "row"}) {
			t.Errorf("%s: got %q, want the two rows of the record's batch", around, got)
		}
		if got := mapOne(m, fmt.Appendf(nil, around, many, few)).codes; !slices.Equal(got, []string{mapping.CodeTooManyEvents}) {
			t.Errorf("%s: got %q, want one reject", around, got)
		}
	}
}

// The bound has bounds of its own.
func TestMaxEventsIsChecked(t *testing.T) {
	for most, ok := range map[int]bool{-1: false, 0: true, 1: true, 1 << 20: true, 1<<20 + 1: false} {
		if _, err := mapping.Default().Compile(mapping.Options{Settings: mapping.Settings{MaxEventsPerRecord: most}}); (err == nil) != ok {
			t.Errorf("MaxEvents %d: got error %v, want it taken: %v", most, err, ok)
		}
	}
}

// An event has the same outcome alone and in a batch: where the scan of the record
// has kept its values, where it stopped because of a fault before it, and where
// there are more than it keeps.
func TestEventsAreTheSameInABatch(t *testing.T) {
	g := traffic.New(traffic.Config{Seed: 3, MalformedEvery: 90, TombstoneEvery: 7})
	alone := []string{`{"type":"x","message_id":"1","payload":{"type":"y"}}`, `{"payload":{"type":"w","message_id":"3"}}`,
		`{"data":{"type":"v","userId":null},"payload":{"event":{"type":"w"},"message_id":"4"},"message_id":"4"}`, `{"payload":{"type":"a","type":"b"}}`, `{"payload":{"type":"a","message_id":"é"},"payload":1}`, `{}`, `1`}
	var e traffic.Event
	for range 600 {
		if g.Next(&e); accepts(e.Value) || e.Kind == "invalid_utf8" || e.Kind == "lone_surrogate" {
			alone = append(alone, string(e.Value))
		}
	}
	const nested = `{"type":"x","message_id":"2","batch":[1,{"type":"y"}]}` // alone, a row would be a batch
	for name, o := range map[string]mapping.Options{"reject": {}, "replace": {Settings: mapping.Settings{InvalidUTF8: "replace"}}, "mapped": {Settings: mapping.Settings{Input: "mapped"}}, "consent": {Settings: mapping.Settings{RequireConsent: []string{"analytics"}}}} {
		w := twinsOf(t, "version: 2\nextends: default\nglobal: {mappings: [{source: [message_id, userId], target: message_id}]}\n", o)
		// Twice, in another order: what is kept of one record must not reach the next.
		for range 2 {
			slices.Reverse(alone)
			alone := alone
			if name != "mapped" {
				alone = slices.Insert(slices.Clone(alone), 20, nested)
			}
			var want outcomes
			for _, a := range alone {
				out := mapOne(w.protobuf, []byte(a))
				want.codes, want.rows = append(want.codes, out.codes...), append(want.rows, out.rows...)
			}
			for _, around := range [][2]string{{"[", "]"}, {`{"batch":[ `, ` ]}`}} {
				got := mapOne(w.protobuf, []byte(around[0]+strings.Join(alone, " ,\n ")+around[1]))
				if !slices.Equal(got.codes, want.codes) || !slices.EqualFunc(got.rows, want.rows, bytes.Equal) {
					t.Errorf("%s, in %s: got %d outcomes and %d rows, want %d and %d, each the same", name, around, len(got.codes), len(got.rows), len(want.codes), len(want.rows))
				}
				broken := mapOne(w.protobuf, []byte(around[0]+strings.Join(alone, ",")+around[1]+"x"))
				if !slices.Equal(broken.codes, []string{mapping.CodeNotJSON}) {
					t.Errorf("%s, in %s: got %q for a batch that is no JSON, want one reject", name, around, broken.codes)
				}
			}
		}
	}
}
