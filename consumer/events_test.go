package consumer_test

import (
	"slices"
	"testing"

	"github.com/datafly/bridge/consumer"
)

// eventsIn are the events that a dead letter with this header names.
func eventsIn(t *testing.T, text string) (consumer.Events, bool) {
	t.Helper()
	return consumer.ParseEvents(text)
}

// Lists as earlier bridges wrote them and runs are read alike; what cannot be
// meant is not, however large the number is.
func TestEventsOfAHeader(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "1,4": "1,4", "0,1,2": "0-2", "0-2": "0-2", "0,3-5": "0,3-5", "0-2,3,4-9": "0-9", "7-8,10": "7-8,10", "1048575": "1048575", "0-1048575": "0-1048575",
		"": "", ",": "", "1,": "", "2,1": "", "1,1": "", "1-1": "", "2-1": "", "0-2,2": "", "0-3,1-5": "", "-1": "", "1-": "", "+1": "", "1-+2": "", "0--2": "", "0-1-2": "",
		"1048576": "", "0-1048576": "", "0-999999999999": "", "999999999999-0": "", "99999999999999999999": "", "0x1": "", "a": "", " 1": "",
	} {
		events, ok := eventsIn(t, text)
		if ok != (want != "") || events.String() != want {
			t.Errorf("%q: got %q, believed: %v, want %q", text, events, ok, want)
		}
		if again, _ := eventsIn(t, want); want != "" && again.String() != want {
			t.Errorf("%q: got %q of what was written", want, again)
		}
	}
}

func TestEvents(t *testing.T) {
	e, _ := eventsIn(t, "0,3-5,9-10")
	if e.Count() != 6 || !slices.Equal(slices.Collect(e.All()), []int{0, 3, 4, 5, 9, 10}) {
		t.Errorf("got %d events %v", e.Count(), slices.Collect(e.All()))
	}
	for event := range 12 {
		if got, want := e.Has(event), slices.Contains([]int{0, 3, 4, 5, 9, 10}, event); got != want {
			t.Errorf("event %d: got %v", event, got)
		}
	}
	for _, tc := range []struct {
		other, without, and string
		overlap             bool
	}{
		{"0", "3-5,9-10", "0,3-5,9-10", true},
		{"1-2", "0,3-5,9-10", "0-5,9-10", false},
		{"4", "0,3,5,9-10", "0,3-5,9-10", true},
		{"2-6,8", "0,9-10", "0,2-6,8-10", true},
		{"0-100", "", "0-100", true},
		{"11-12", "0,3-5,9-10", "0,3-5,9-12", false},
		{"6-8", "0,3-5,9-10", "0,3-10", false},
		{"3,5,10", "0,4,9", "0,3-5,9-10", true},
	} {
		o, _ := eventsIn(t, tc.other)
		if got := e.Without(o).String(); got != tc.without {
			t.Errorf("%v without %v: got %q, want %q", e, o, got, tc.without)
		}
		if got := e.And(o).String(); got != tc.and {
			t.Errorf("%v and %v: got %q, want %q", e, o, got, tc.and)
		}
		if e.Overlap(o) != tc.overlap || o.Overlap(e) != tc.overlap {
			t.Errorf("%v and %v: got overlap %v, want %v", e, o, e.Overlap(o), tc.overlap)
		}
	}
}
