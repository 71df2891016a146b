package deadletter_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafkatest"
)

// collect reads all dead letters.
func (box *deadLetterBox) collect() (all []*deadletter.Record) {
	box.t.Helper()
	ctx, cancel := context.WithTimeout(box.t.Context(), patience)
	defer cancel()
	deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err == nil {
		err = deadLetters.Each(ctx, func(l *deadletter.Record) error { all = append(all, l); return nil })
	}
	if err != nil {
		box.t.Fatalf("reading dead letters: %v", err)
	}
	return all
}

// deadLettersOf opens the box of a topic that members have dead-lettered from.
func deadLettersOf(t *testing.T, b kafkatest.Broker, cfg consumer.Config) *deadLetterBox {
	t.Helper()
	box := &deadLetterBox{t: t, b: b, cfg: cfg}
	box.cl, _ = newClient(t, cfg)
	return box
}

// Events that their dead-letter topic does not take as one record are written in
// parts, whether the value, the key or the headers are too large, and come back
// as they were.
func TestDeadLettersInParts(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		b.CreateTopic(t, topic+"-dlq", 3, map[string]string{"max.message.bytes": "20000"})
		records := []*kgo.Record{
			{Value: []byte("bad" + noise(50_000)), Key: []byte("k"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h"}, {Key: "", Value: []byte{}}}},
			{Value: []byte("good1")},
			{Value: []byte("bad small")},
			{Value: []byte("bad key"), Key: []byte(noise(30_000))},
			{Value: []byte("bad header"), Headers: []kgo.RecordHeader{{Key: "large", Value: []byte(noise(30_000))}, {Key: noise(30_000)}}},
			{Value: []byte("good2")},
			{Value: []byte("bad" + strings.Repeat("z", 50_000))}, // fits once it is compressed
		}
		for _, rec := range records {
			rec.Topic = topic
		}
		produceRecords(t, b, records...)
		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		eventually(t, "the dead letters were written", func() bool { return m.deadLettered.Load() == 5 })
		m.stop()
		tab.verify([]string{"good1", "good2"})
		wantAllCommitted(t, b, cfg.Group, topic)
		if got := m.logged("partition blocked"); got != 0 {
			t.Errorf("got %d lines about a blocked partition, want it to continue", got)
		}

		box := deadLettersOf(t, b, cfg)
		inParts := 0
		all := box.collect()
		for _, l := range all {
			want := records[l.Original.Offset]
			o := l.Original
			if l.Fault != "" || !bytes.Equal(o.Key, want.Key) || !bytes.Equal(o.Value, want.Value) || (o.Key == nil) != (want.Key == nil) || len(o.Headers) != len(want.Headers) {
				t.Errorf("offset %d: got fault %q, %d bytes of key, %d of value and %d headers, want the original", o.Offset, l.Fault, len(o.Key), len(o.Value), len(o.Headers))
				continue
			}
			for i, h := range want.Headers {
				if got := o.Headers[i]; got.Key != h.Key || !bytes.Equal(got.Value, h.Value) || (got.Value == nil) != (h.Value == nil) {
					t.Errorf("offset %d header %d: got %.40v, want %.40v", o.Offset, i, got, h)
				}
			}
			if l.Code != "bad" || l.Attempts != 1 || l.Copies != 1 || l.Events.String() != "0" {
				t.Errorf("offset %d: got %+v, want code, attempts, copies and events", o.Offset, l)
			}
			if l.Parts > 0 {
				inParts++
			}
		}
		if len(all) != 5 || inParts != 3 {
			t.Errorf("got %d dead letters, %d of them in parts, want 5 and 3", len(all), inParts)
		}

		// Any part names it; a redrive resolves it as any other.
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			for offset := l.Offset; offset > l.Offset-int64(max(l.Parts, 1)); offset-- {
				if found, err := deadLetters.At(ctx, l.Topic, l.Partition, offset); err != nil || found == nil || found.Offset != l.Offset || !bytes.Equal(found.Original.Value, l.Original.Value) {
					t.Errorf("at %d/%d: got %+v, %v, want the dead letter of offset %d", l.Partition, offset, found, err, l.Offset)
				}
			}
		}
		out := newTable(t)
		if did := box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: out}); did.count(deadletter.Delivered) != 5 || out.count() != 5 {
			t.Errorf("got %v and %d rows, want all 5 once", did.all, out.count())
		}
		if open, _ := box.open(); len(open) != 0 {
			t.Errorf("got open dead letters %v after the redrive, want none", open)
		}
	})
}

// Nine mebibytes that cannot be compressed go into a topic of Kafka's default
// limit, and come back whole; what the limit is need not be known.
func TestNineMebibytesInParts(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Name(t)
		b.CreateTopic(t, topic, 1, map[string]string{"max.message.bytes": fmt.Sprint(10 << 20)})
		b.CreateTopic(t, topic+"-dlq", 1, nil)
		bad := "bad" + noise(9<<20)
		for _, text := range []string{"first", bad, "last"} {
			produceRecords(t, b, &kgo.Record{Topic: topic, Value: []byte(text)})
		}
		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		eventually(t, "the last event delivered", func() bool { return tab.count() == 2 })
		m.stop()
		wantAllCommitted(t, b, cfg.Group, topic)
		all := deadLettersOf(t, b, cfg).collect()
		if len(all) != 1 || all[0].Fault != "" || all[0].Parts < 18 || string(all[0].Original.Value) != bad {
			t.Fatalf("got %d dead letters, the first %+v, want one of the original in parts", len(all), all[0])
		}
	})
}

// partsOf has an event dead-lettered in parts and returns them.
func partsOf(t *testing.T, b kafkatest.Broker) (box *deadLetterBox, parts []*kgo.Record) {
	t.Helper()
	topic := kafkatest.Topic(t, b, 1)
	b.CreateTopic(t, topic+"-dlq", 1, map[string]string{"max.message.bytes": "20000"})
	produceRecords(t, b, &kgo.Record{Topic: topic, Value: []byte("bad" + noise(50_000))})
	cfg := config(t, b, topic)
	m := start(t, cfg, newTable(t))
	eventually(t, "the dead letter was written", func() bool { return m.deadLettered.Load() == 1 })
	m.stop()
	box = deadLettersOf(t, b, cfg)
	if parts = readAll(t, b, box.dlq(), int(endOf(t, b, box.dlq()))); len(parts) != 3 {
		t.Fatalf("got %d records, want three parts", len(parts))
	}
	return box, parts
}

// copyParts produces copies of parts one by one.
func (box *deadLetterBox) copyParts(parts ...*kgo.Record) {
	box.t.Helper()
	for _, p := range parts {
		produceRecords(box.t, box.b, &kgo.Record{Topic: box.dlq(), Value: p.Value, Headers: p.Headers})
	}
}

// A dead letter of which parts are missing or spoilt is reported as that, and
// nothing of it becomes a row.
func TestPartsAreMissing(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		box, parts := partsOf(t, b)
		spoilt := *parts[1]
		spoilt.Value = slices.Concat(spoilt.Value[:1], []byte{spoilt.Value[1] + 1}, spoilt.Value[2:])
		unnumbered := *parts[2]
		unnumbered.Headers = slices.Clone(unnumbered.Headers)
		unnumbered.Headers[0].Value = []byte("3/")
		for _, tc := range []struct {
			name  string
			parts []*kgo.Record
			want  string // in the fault; empty for a whole one
		}{
			{"only the first", parts[:1], "of which the first 1 are there"},
			{"not the second", []*kgo.Record{parts[0], parts[2]}, "some of them are missing"},
			{"not the first", parts[1:], "some of them are missing"},
			{"in another order", []*kgo.Record{parts[1], parts[0], parts[2]}, "some of them are missing"},
			{"one of them spoilt", []*kgo.Record{parts[0], &spoilt, parts[2]}, "not what was written"},
			{"one without a number", []*kgo.Record{&unnumbered}, "header bridge-part is \"3/\""},
			{"a writer that began again", []*kgo.Record{parts[0], parts[1], parts[0], parts[1], parts[2]}, ""},
			{"parts twice", []*kgo.Record{parts[0], parts[0], parts[1], parts[1], parts[2]}, ""},
		} {
			t.Run(tc.name, func(t *testing.T) {
				cfg := box.cfg
				cfg.Rejects.Topic = kafkatest.Topic(t, b, 1)
				own := deadLettersOf(t, b, cfg)
				for _, p := range tc.parts {
					produceRecords(t, b, &kgo.Record{Topic: cfg.Rejects.Topic, Value: p.Value, Headers: p.Headers})
				}
				all, tab := own.collect(), newTable(t)
				if len(all) != 1 || all[0].Original.Topic != box.cfg.Topics[0] || all[0].Original.Offset != 0 {
					t.Fatalf("got %d dead letters %+v, want one of the event", len(all), all)
				}
				did := own.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab})
				if tc.want == "" {
					if all[0].Fault != "" || tab.count() != 1 {
						t.Errorf("got fault %q and %d rows, want the event", all[0].Fault, tab.count())
					}
					return
				}
				if !strings.Contains(all[0].Fault, tc.want) || len(all[0].Original.Value) != 0 {
					t.Errorf("got fault %q and %d bytes, want %q and none", all[0].Fault, len(all[0].Original.Value), tc.want)
				}
				if did.count("failed") != 1 || len(did.errs) != 1 || tab.count() != 0 {
					t.Errorf("got %v, errors %v and %d rows, want it to fail", did.all, did.errs, tab.count())
				}
			})
		}

		// Beside a whole one, what never came to its end is a copy of it.
		box.copyParts(parts[0], parts[1])
		if all := box.collect(); len(all) != 1 || all[0].Fault != "" || all[0].Copies != 2 {
			t.Errorf("got %d dead letters, %+v, want the whole one of two copies", len(all), all[0])
		}
	})
}

// A topic whose first parts were removed by its retention reports the rest.
func TestFirstPartsAreRemoved(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		box, _ := partsOf(t, b)
		var cut kadm.Offsets
		cut.AddOffset(box.dlq(), 0, 1, -1)
		if deleted, err := kadm.NewClient(client(t, b)).DeleteRecords(t.Context(), cut); err != nil || deleted.Error() != nil {
			t.Fatalf("deleting records: %v, %v", err, deleted.Error())
		}
		all := box.collect()
		if len(all) != 1 || !strings.Contains(all[0].Fault, "some of them are missing") {
			t.Errorf("got %d dead letters, %+v, want one of which parts are missing", len(all), all)
		}
	})
}

// Where parts of several dead letters lie between each other, each offset names
// the one whose part it is.
func TestMingledPartsAreFoundByOffset(t *testing.T) {
	box := newDeadLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 1)
	var parts [][]*kgo.Record
	for i := range 3 {
		rec := &kgo.Record{Topic: box.cfg.Topics[0], Offset: int64(i), Value: fmt.Appendf(nil, "bad%d%s", i, strings.Repeat("x", 1000))}
		parts = append(parts, split(makeDeadLetter(rec, toRow), 900))
	}
	whose := []int64{0, 1, 2, 1, 0} // the last part of 2 is missing
	next := map[int64]int{}
	for _, i := range whose {
		box.copyParts(parts[i][next[i]])
		next[i]++
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for offset, want := range whose {
		l, err := deadLetters.At(ctx, box.dlq(), 0, int64(offset))
		if err != nil || l == nil || l.Original.Offset != want || (l.Fault == "") != (want != 2) {
			t.Errorf("offset %d: got %+v, %v, want the dead letter of event %d", offset, l, err, want)
		}
	}
}

// A topic may take so little that a dead letter has very many parts, each with headers
// of its own: a writer holds one of them at a time.
func TestPartsAreYieldedOneByOne(t *testing.T) {
	deadLetter := makeDeadLetter(&kgo.Record{Topic: "t", Value: append([]byte("bad"), make([]byte, 4<<20)...)}, toRow)
	whole := consumer.EncodeRecord(deadLetter)
	allocated := testing.AllocsPerRun(10, func() {
		for part := range consumer.SplitRecord(deadLetter, whole, 1<<10) {
			if got := consumer.HeaderOf(part, consumer.HeaderPart); got != "1/4097" {
				t.Errorf("got part %s, want 1/4097", got)
			}
			break
		}
	})
	if allocated > 100 {
		t.Errorf("the first part takes %.0f allocations, want those of one part", allocated)
	}
}
