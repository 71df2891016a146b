package consumer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
)

// eventsIn are the events that a dead letter with this header names.
func eventsIn(t *testing.T, text string) (consumer.Events, bool) {
	t.Helper()
	headers := headersOf(strings.ReplaceAll(wholeLetter, "bridge-event-index=1,4", "bridge-event-index="+text))
	l := consumer.ParseDeadLetter(&kgo.Record{Headers: headers})
	return l.Events, l.Fault == ""
}

// Lists as earlier bridges wrote them and runs are read alike; what cannot be
// meant is not, however large it says it is.
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

// Every header that a dead letter gets is bounded, whatever the event, the table
// and the configuration say, and is UTF-8. Of very many runs of events the
// smallest gaps are closed: no event that failed is left out.
func TestHeadersAreBounded(t *testing.T) {
	huge := strings.Repeat("ä\xff", 1<<14)
	code, column, reason := "code"+huge, "column"+huge, "reason"+huge
	for name, fails := range map[string]func(event int) bool{
		"all":          func(int) bool { return true },
		"every second": func(event int) bool { return event%2 == 0 },
		"some far off": func(event int) bool { return event%2 == 0 || event < 200_000 },
		"two":          func(event int) bool { return event == 17 || event == 399_999 },
	} {
		var failed []int
		rec := &kgo.Record{Topic: "events", Value: []byte("["), Headers: []kgo.RecordHeader{{Key: "own", Value: []byte("1")}}}
		letter := consumer.MakeDeadLetterOf(consumer.Config{Version: huge, Kafka: consumer.Kafka{Group: huge}}, rec, func(_ *kgo.Record, out *consumer.Batch) {
			for event := range 400_000 {
				if !fails(event) {
					out.Row(out.Buf())
					continue
				}
				failed = append(failed, event)
				out.Reject(code, column, reason)
			}
		})
		size := 0
		for _, h := range letter.Headers[1:] {
			size += len(h.Key) + len(h.Value)
			if strings.ToValidUTF8(string(h.Value), "") != string(h.Value) {
				t.Errorf("%s: header %s is not UTF-8", name, h.Key)
			}
		}
		if size > 18<<10 {
			t.Errorf("%s: got %d bytes of headers, want at most 18 KiB", name, size)
		}
		l := consumer.ParseDeadLetter(letter)
		if l.Fault != "" || l.EventCount != 400_000 || !l.OfGroup(huge) || l.OfGroup("another") {
			t.Errorf("%s: got fault %q, %d events, of the group %v", name, l.Fault, l.EventCount, l.OfGroup(huge))
		}
		for _, event := range failed {
			if !l.Events.Has(event) {
				t.Fatalf("%s: event %d is missing in %.100v", name, event, l.Events)
			}
		}
		if name == "two" && l.Events.String() != "17,399999" || name == "all" && l.Events.String() != "0-399999" {
			t.Errorf("%s: got events %v", name, l.Events)
		}
		// Those that were delivered are named only where the list is too long.
		if more := l.Events.Count() - len(failed); more > 0 && len(header(letter, consumer.HeaderEvents)) < 8<<10-20 {
			t.Errorf("%s: %d events are named that did not fail, in %d bytes", name, more, len(header(letter, consumer.HeaderEvents)))
		}
	}
}

// A copy as a bridge would write it: the same record, later.
func (box *letterBox) copyOf(rec *kgo.Record, value string, group string, later time.Duration) {
	box.t.Helper()
	box.copied++
	again := *rec
	again.Topic, again.Value = box.cfg.Topics[0], []byte(value)
	letter := consumer.MakeDeadLetterOf(consumer.Config{Version: "1.2.3", Kafka: consumer.Kafka{Group: group}}, &again, refusing("bad"))
	letter.Topic, letter.Partition = box.dlq(), int32(box.copied%2)
	for i, h := range letter.Headers {
		if h.Key == consumer.HeaderFailedAt {
			letter.Headers[i].Value = []byte(time.Unix(1_800_000_000, 0).Add(later).UTC().Format(time.RFC3339Nano))
		}
	}
	produceRecords(box.t, box.b, letter)
}

// entriesOf are dead letters as "<source offset> <events> <value> <copies> <attempts>".
func entriesOf(letters []*consumer.DeadLetter) (all []string) {
	for _, l := range letters {
		all = append(all, fmt.Sprintf("%d %s %s %d %d", l.Original.Offset, l.Events, l.Original.Value, l.Copies, l.Attempts))
	}
	slices.Sort(all)
	return all
}
