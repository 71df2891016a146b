package mapping_test

import (
	"slices"
	"strings"
	"testing"

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

// The bound has bounds of its own.
func TestMaxEventsIsChecked(t *testing.T) {
	for most, ok := range map[int]bool{-1: false, 0: true, 1: true, 1 << 20: true, 1<<20 + 1: false} {
		if _, err := mapping.Default().Compile(mapping.Options{Settings: mapping.Settings{MaxEventsPerRecord: most}}); (err == nil) != ok {
			t.Errorf("MaxEvents %d: got error %v, want it taken: %v", most, err, ok)
		}
	}
}
