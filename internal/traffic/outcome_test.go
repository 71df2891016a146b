package traffic_test

import (
	"maps"
	"testing"

	"github.com/datafly/bridge/internal/traffic"
	"github.com/datafly/bridge/mapping"
)

// What an event is said to be is what the default mapping makes of it: the
// demo's arithmetic rests on this.
func TestDefaultMappingOutcomes(t *testing.T) {
	compiled, err := mapping.Default().Compile(mapping.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{traffic.OK: "row", traffic.Tombstone: "filtered as " + mapping.FilterTombstone}
	for _, f := range traffic.Faults() {
		want[f.Kind] = "rejected as " + f.Code
	}
	mapper := compiled.NewMapper()
	c := traffic.Config{Seed: 5, MalformedEvery: 4, TombstoneEvery: 10}
	g := traffic.New(c)
	var e traffic.Event
	got := map[string]int{}
	for i := range 20_000 {
		g.Next(&e)
		var o outcome
		mapper.Map(&mapping.Record{Topic: "events", Offset: int64(i), Key: e.Key, Value: e.Value}, &o)
		if len(o.what) != 1 || o.what[0] != want[e.Kind] {
			t.Fatalf("event %d, %s: got %v, want %s: %q", i, e.Kind, o.what, want[e.Kind], e.Value)
		}
		got[e.Kind]++
	}
	if want := c.Count(20_000); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// outcome records the outcome of one event.
type outcome struct{ what []string }

func (o *outcome) Buf() []byte              { return nil }
func (o *outcome) Row([]byte)               { o.what = append(o.what, "row") }
func (o *outcome) Reject(code, _, _ string) { o.what = append(o.what, "rejected as "+code) }
func (o *outcome) Filter(reason string)     { o.what = append(o.what, "filtered as "+reason) }
