package pipeline

import (
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/mapping"
)

// A mapper must not keep its last record. That may be part of a whole fetch answer,
// and a partition's next event may be a day away.
func TestMapperKeepsNoRecord(t *testing.T) {
	plan, err := mapping.Parse("blueprint.yaml", []byte(`version: 2
global:
  mappings:
    - {source: message_id, target: message_id, type: STRING}
    - {source: properties.geo, target: geo, type: "STRUCT<country: STRING>"}
    - {source: $kafka.headers.origin, target: origin, type: STRING}
`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := plan.Compile(mapping.Options{Settings: mapping.Settings{Input: "auto"}})
	if err != nil {
		t.Fatal(err)
	}
	var s Schema
	s.current.Store(&Compiled{Mapping: m})
	mapper := s.NewMapper()
	held := mapOne(t, mapper)
	deadline := time.Now().Add(time.Minute)
	for _, p := range held {
		for runtime.GC(); p.Value() != nil; runtime.GC() {
			if time.Now().After(deadline) {
				t.Fatal("the mapper holds the record that it mapped last")
			}
		}
	}
	runtime.KeepAlive(mapper)
}

// mapOne is a function of its own so that no variable of the test keeps the
// record.
func mapOne(t *testing.T, mapper consumer.Mapper) []weak.Pointer[byte] {
	t.Helper()
	value := []byte(`{"type":"track","event":"e","message_id":"1","properties":{"geo":{"country":"` + strings.Repeat("x", 1<<20) + `"}}}`)
	header := []byte(strings.Repeat("y", 1<<20))
	var out consumer.Batch
	out.Add(&kgo.Record{Topic: "events", Value: value, Headers: []kgo.RecordHeader{{Key: "origin", Value: header}}}, mapper)
	if rows := len(out.Rows()); rows != 1 {
		t.Fatalf("got %d rows, want 1", rows)
	}
	return []weak.Pointer[byte]{weak.Make(&value[0]), weak.Make(&header[0])}
}
