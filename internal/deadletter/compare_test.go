package deadletter_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafkatest"
)

// A replay or a restart writes several dead letters of one event. The newest counts,
// whatever its partition. Other groups, offsets, topics and events are other events.
func TestOneEntryPerEvent(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		box := newDeadLetterBox(t, b, 2)
		rec := func(offset int64) *kgo.Record { return &kgo.Record{Offset: offset} }
		g := box.cfg.Group
		box.copyOf(rec(1), "bad1-old", g, 0)
		box.copyOf(rec(1), "bad1-newest", g, 2*time.Minute) // in the other partition than those beside it
		box.copyOf(rec(1), "bad1-older", g, time.Minute)
		box.copyOf(rec(1), "bad1-of-another-group", "another", 3*time.Minute)
		box.copyOf(rec(2), "bad2", g, 0)
		box.copyOf(rec(3), "many bad0 good1 bad2", g, 0)
		box.copyOf(rec(3), "many good0 good1 bad2", g, time.Minute) // a replay, of which event 0 became a row
		box.copyOf(rec(4), "many bad0 good1", g, 0)                 // and two that have no event in common
		box.copyOf(rec(4), "many good0 bad1", g, time.Minute)
		wantList(t, "entries", entriesOf(box.collect()), []string{
			"1 0 bad1-newest 3 3", "2 0 bad2 1 1", "3 2 many good0 good1 bad2 2 2", "4 0 many bad0 good1 1 1", "4 1 many good0 bad1 1 1",
		})

		// A redrive writes each once and resolves it for good.
		tab := newTable(t)
		if did := box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab}); did.count(deadletter.Delivered) != 5 || len(did.all) != 5 {
			t.Errorf("got %v, want five that were delivered", did.all)
		}
		rows := map[string]int{}
		for _, row := range tab.snapshot() {
			rows[textOf(row)]++
		}
		if want := map[string]int{"bad1-newest": 1, "bad2": 2, "bad0": 1, "bad1": 1}; fmt.Sprint(rows) != fmt.Sprint(want) { // bad2 of the offsets 2 and 3
			t.Errorf("got rows %v, want %v", rows, want)
		}
		if did := box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab}); len(did.all) != 0 {
			t.Errorf("got %v of a second redrive, want nothing left", did.all)
		}

		// Dead-lettered again after that, it is open again.
		box.copyOf(rec(2), "bad2-again", g, time.Hour)
		open := 0
		for _, l := range box.collect() {
			if !l.Resolved {
				open++
				if string(l.Original.Value) != "bad2-again" || l.Copies != 2 {
					t.Errorf("got %s of %d copies open, want the one that came last", l.Original.Value, l.Copies)
				}
			}
		}
		if open != 1 {
			t.Errorf("got %d open dead letters, want the one that came last", open)
		}
	})
}

// An older copy can be looked at, and is marked as one.
func TestReplacedDeadLetter(t *testing.T) {
	box := newDeadLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 2)
	for _, text := range []string{"bad-old", "bad-elsewhere", "bad-new"} { // in turns on two partitions
		box.copyOf(&kgo.Record{Offset: int64(len(text) % 2)}, text, box.cfg.Group, time.Duration(box.copied)*time.Minute)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for offset, replaced := range map[int64]bool{0: true, 1: false} {
		if l, err := deadLetters.At(ctx, box.dlq(), 1, offset); err != nil || l == nil || l.Replaced != replaced {
			t.Errorf("offset %d: got %+v, %v, want replaced %v", offset, l, err, replaced)
		}
	}
}

// The page shows the newest of the dead letters of an event.
func TestNewestDeadLettersAreOnePerEvent(t *testing.T) {
	box := newDeadLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 2)
	for n := range 5 {
		for offset := range int64(3) {
			box.copyOf(&kgo.Record{Offset: offset}, fmt.Sprintf("bad%d-%d", offset, n), box.cfg.Group, time.Duration(n)*time.Minute)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err != nil {
		t.Fatal(err)
	}
	found, err := deadLetters.Newest(ctx, 100)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "newest", entriesOf(found), []string{"0 0 bad0-4 5 5", "1 0 bad1-4 5 5", "2 0 bad2-4 5 5"})
}

// The memory for comparing is bounded: what comes after is counted, handed over
// all the same, and copies of what is known already are still found.
func TestComparingIsBounded(t *testing.T) {
	box := newDeadLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 2)
	for _, offset := range []int64{1, 2, 3, 1, 2, 3} {
		box.copyOf(&kgo.Record{Offset: offset}, fmt.Sprintf("bad%d", offset), box.cfg.Group, time.Duration(box.copied)*time.Minute)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err != nil {
		t.Fatal(err)
	}
	deadLetters.SetEntries(300) // the origin and one entry
	var all []*deadletter.Record
	if err := deadLetters.Each(ctx, func(l *deadletter.Record) error { all = append(all, l); return nil }); err != nil {
		t.Fatal(err)
	}
	seen := map[int64]int{}
	for _, l := range all {
		seen[l.Original.Offset]++
	}
	once := 0
	for offset := range int64(4) {
		if seen[offset] == 1 {
			once++
		}
	}
	if len(all) != 5 || once != 1 || deadLetters.Uncompared() != 4 {
		t.Errorf("got %v by offset, %d not compared, want one event once, the others as they lie there, and four that were not compared", seen, deadLetters.Uncompared())
	}
}

// Brokers without topic ids: what lies at the same offset of a topic that was
// created again is another event, and no copy.
func TestEventsOfARecreatedTopicAreNoCopies(t *testing.T) {
	box := newDeadLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 2)
	for i, text := range []string{"bad-first", "bad-second"} {
		box.copyOf(&kgo.Record{Offset: 7, Timestamp: time.UnixMilli(1_790_000_000_000 + int64(i))}, text, box.cfg.Group, time.Duration(i)*time.Minute)
	}
	wantList(t, "entries", entriesOf(box.collect()), []string{"7 0 bad-first 1 1", "7 0 bad-second 1 1"})

	// Parts have the time, too: what is missing of a copy does not count beside the whole.
	deadLetter := makeDeadLetterOf(box.cfg, &kgo.Record{Topic: box.cfg.Topics[0], Offset: 7, Timestamp: time.UnixMilli(1_790_000_000_000), Value: []byte("bad-first")}, toRow)
	box.copyParts(split(deadLetter, 100)[0])
	if all := box.collect(); len(all) != 2 {
		t.Errorf("got %d dead letters %v, want two", len(all), entriesOf(all))
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
		deadLetter := makeDeadLetterOf(consumer.Config{Version: huge, Kafka: consumer.Kafka{Group: huge}, Rejects: consumer.Rejects{Integration: huge}}, rec, func(_ *kgo.Record, out *consumer.Batch) {
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
		for _, h := range deadLetter.Headers[1:] {
			size += len(h.Key) + len(h.Value)
			if strings.ToValidUTF8(string(h.Value), "") != string(h.Value) {
				t.Errorf("%s: header %s is not UTF-8", name, h.Key)
			}
		}
		if size > 18<<10 {
			t.Errorf("%s: got %d bytes of headers, want at most 18 KiB", name, size)
		}
		l := deadletter.Parse(deadLetter)
		if l.Fault != "" || l.EventCount != 400_000 || l.Group != consumer.CutText(huge, consumer.MaxHeaderText) || l.Integration != l.Group {
			t.Errorf("%s: got fault %q, %d events, of the group %.20q and the integration %.20q", name, l.Fault, l.EventCount, l.Group, l.Integration)
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
		if more := l.Events.Count() - len(failed); more > 0 && len(consumer.HeaderOf(deadLetter, consumer.HeaderEvents)) < 8<<10-20 {
			t.Errorf("%s: %d events are named that did not fail, in %d bytes", name, more, len(consumer.HeaderOf(deadLetter, consumer.HeaderEvents)))
		}
	}
}

// A copy as a bridge would write it: the same record, later.
func (box *deadLetterBox) copyOf(rec *kgo.Record, value string, group string, later time.Duration) {
	box.t.Helper()
	box.copied++
	again := *rec
	again.Topic, again.Value = box.cfg.Topics[0], []byte(value)
	deadLetter := makeDeadLetterOf(consumer.Config{Version: "1.2.3", Kafka: consumer.Kafka{Group: group}}, &again, refusing("bad"))
	deadLetter.Topic, deadLetter.Partition = box.dlq(), int32(box.copied%2)
	for i, h := range deadLetter.Headers {
		if h.Key == consumer.HeaderFailedAt {
			deadLetter.Headers[i].Value = []byte(time.Unix(1_800_000_000, 0).Add(later).UTC().Format(time.RFC3339Nano))
		}
	}
	produceRecords(box.t, box.b, deadLetter)
}

// entriesOf are dead letters as "<source offset> <events> <value> <copies> <attempts>".
func entriesOf(deadLetters []*deadletter.Record) (all []string) {
	for _, l := range deadLetters {
		all = append(all, fmt.Sprintf("%d %s %s %d %d", l.Original.Offset, l.Events, l.Original.Value, l.Copies, l.Attempts))
	}
	slices.Sort(all)
	return all
}
