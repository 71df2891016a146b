package deadletter_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// refusing is toRow for events whose rejects begin with a prefix, and with a column at
// fault.
func refusing(prefix string) consumer.Mapper { return mapperFor(prefix, "col") }

func mapperFor(prefix, column string) consumer.Mapper {
	return func(rec *kgo.Record, out *consumer.Batch) {
		words := []string{string(rec.Value)}
		if rest, ok := strings.CutPrefix(words[0], "many "); ok {
			words = strings.Fields(rest)
		}
		for _, w := range words {
			switch {
			case strings.HasPrefix(w, "drop"):
				out.Filter("test")
			case strings.HasPrefix(w, prefix):
				out.Reject("bad", column, "the text begins with "+prefix)
			default:
				out.Row(fmt.Appendf(out.Buf(), "%d:%d:%s", rec.Partition, rec.Offset, w))
			}
		}
	}
}

// deadLetterBox is a dead-letter topic that was filled as a partition does.
type deadLetterBox struct {
	copied int // by copyOf
	t      *testing.T
	b      kafkatest.Broker
	cfg    consumer.Config
	cl     *kafka.Client
}

// newDeadLetterBox dead-letters records, on one partition unless they say otherwise.
func newDeadLetterBox(t *testing.T, b kafkatest.Broker, partitions int32, recs ...*kgo.Record) *deadLetterBox {
	t.Helper()
	topic := kafkatest.Topic(t, b, partitions)
	b.CreateTopic(t, topic+"-dlq", partitions, nil)
	box := &deadLetterBox{t: t, b: b, cfg: config(t, b, topic)}
	box.cfg.Group = "g"
	box.cl, _ = newClient(t, box.cfg)
	box.add(refusing("bad"), recs...)
	return box
}

func (box *deadLetterBox) dlq() string { return box.cfg.Topics[0] + "-dlq" }

func (box *deadLetterBox) add(m consumer.Mapper, recs ...*kgo.Record) {
	box.t.Helper()
	var deadLetters []*kgo.Record
	for _, rec := range recs {
		rec.Topic = box.cfg.Topics[0]
		deadLetter := makeDeadLetter(rec, m)
		deadLetter.Topic, deadLetter.Partition = box.dlq(), rec.Partition
		deadLetters = append(deadLetters, deadLetter)
	}
	if len(deadLetters) > 0 {
		produceRecords(box.t, box.b, deadLetters...)
	}
}

// bads are n records that were rejected, at the offsets 1000 and up.
func bads(n int) (recs []*kgo.Record, rows []string) {
	for i := range n {
		text := fmt.Sprintf("bad%04d", i)
		recs = append(recs, &kgo.Record{Offset: int64(1000 + i), Value: []byte(text)})
		rows = append(rows, fmt.Sprintf("0:%d:%s", 1000+i, text))
	}
	return recs, rows
}

// outcomes are the outcomes of a redrive, by dead letter, in order.
type outcomes struct {
	all     []string // "<offset> <outcome> <rows>"
	rejects []consumer.Reject
	errs    []error
}

func (f *outcomes) count(outcome string) (n int) {
	for _, one := range f.all {
		if strings.Contains(one, " "+outcome+" ") {
			n++
		}
	}
	return n
}

func (box *deadLetterBox) redrive(ctx context.Context, o deadletter.RedriveOptions) (*outcomes, error) {
	box.t.Helper()
	f := &outcomes{}
	deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err != nil {
		box.t.Fatal(err)
	}
	if o.Match == nil {
		o.Match = func(*deadletter.Record) bool { return true }
	}
	o.By = "tester"
	o.OnResult = func(outcome *deadletter.RedriveResult) {
		f.all = append(f.all, fmt.Sprintf("%d %s %d", outcome.Record.Offset, outcome.Outcome, outcome.Rows))
		f.rejects = append(f.rejects, outcome.Rejects...)
		if outcome.Err != nil {
			f.errs = append(f.errs, outcome.Err)
		}
	}
	return f, deadLetters.Redrive(ctx, o)
}

// mustRedrive wants it to come to its end.
func (box *deadLetterBox) mustRedrive(o deadletter.RedriveOptions) *outcomes {
	box.t.Helper()
	ctx, cancel := context.WithTimeout(box.t.Context(), patience)
	defer cancel()
	f, err := box.redrive(ctx, o)
	if err != nil {
		box.t.Fatalf("redriving: %v", err)
	}
	return f
}

// open are the dead letters that are not resolved, "<offset> <delivered>".
func (box *deadLetterBox) open() (open []string, doubtful int) {
	box.t.Helper()
	ctx, cancel := context.WithTimeout(box.t.Context(), patience)
	defer cancel()
	deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err == nil {
		err = deadLetters.Each(ctx, func(l *deadletter.Record) error {
			if !l.Resolved {
				open = append(open, fmt.Sprintf("%d [%s]", l.Offset, l.Delivered))
			}
			return nil
		})
	}
	if err != nil {
		box.t.Fatalf("reading dead letters: %v", err)
	}
	return open, deadLetters.UnverifiedMarkers()
}

func wantList(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// What the new rules make rows is delivered once, as the event it was; the rest stays.
func TestRedrive(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, rows := bads(1200)
		poison := &kgo.Record{Offset: 7, Value: []byte("badpoison")}
		dropped := &kgo.Record{Offset: 8, Value: []byte("many bad dropped")}
		box := newDeadLetterBox(t, b, 1, slices.Concat(recs[:600], []*kgo.Record{poison}, recs[600:], []*kgo.Record{dropped})...)
		rules := func(rec *kgo.Record, out *consumer.Batch) {
			if string(rec.Value) == "many bad dropped" {
				out.Filter("test")
				out.Filter("test")
				return
			}
			refusing("badpoison")(rec, out)
		}

		dry := box.mustRedrive(deadletter.RedriveOptions{Mapper: rules})
		if len(dry.all) != 1202 || dry.count(deadletter.Delivered) != 1200 || dry.count("rejected") != 1 || dry.count("filtered") != 1 || dry.rejects[0].Column != "col" {
			t.Errorf("dry run: got %d outcomes, rejects %+v", len(dry.all), dry.rejects)
		}
		if open, _ := box.open(); len(open) != 1202 || endOf(t, b, box.dlq()) != 1202 {
			t.Errorf("after the dry run: got %d open dead letters and the log's end %d, want nothing changed", len(open), endOf(t, b, box.dlq()))
		}

		tab := newTable(t)
		did := box.mustRedrive(deadletter.RedriveOptions{Mapper: rules, Sink: tab})
		wantList(t, "outcomes", did.all, dry.all)
		wantList(t, "rows", tab.snapshot(), rows)
		wantList(t, "open dead letters", first(box.open()), []string{"600 []", "1201 []"})
		wantList(t, "second redrive", box.mustRedrive(deadletter.RedriveOptions{Mapper: rules, Sink: tab}).all, []string{"600 rejected 0", "1201 filtered 0"})
		if tab.count() != 1200 {
			t.Errorf("got %d rows after the second redrive, want no more than 1200", tab.count())
		}

		all := readAll(t, b, box.dlq(), int(endOf(t, b, box.dlq())))
		marker := all[1202]
		if marker.Key != nil || marker.Value != nil || consumer.HeaderOf(marker, deadletter.HeaderRedriven) != "0-499" || consumer.HeaderOf(marker, deadletter.HeaderRedrivenBy) != "tester" || consumer.HeaderOf(marker, consumer.HeaderVersion) != "1.2.3" {
			t.Errorf("got marker %q %q %v", marker.Key, marker.Value, marker.Headers)
		}
	})
}

func first[T any](x T, _ int) T { return x }

// Of a record that holds several events only those that failed are written, and
// each of them once.
func TestRedriveOfBatchRecords(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		box := newDeadLetterBox(t, b, 2,
			&kgo.Record{Partition: 1, Offset: 5, Value: []byte("many bad0 good1 badworse2 good3")},
			&kgo.Record{Partition: 0, Offset: 6, Value: []byte("many good0 bad1")})
		tab := newTable(t)
		some := box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("badworse"), Sink: tab})
		wantList(t, "outcomes", some.all, []string{"0 delivered 1", "0 rejected 1"})
		wantList(t, "rows", tab.snapshot(), []string{"0:6:bad1", "1:5:bad0"})
		wantList(t, "open dead letters", first(box.open()), []string{"0 [0]"})

		rest := box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab})
		wantList(t, "outcomes of the rest", rest.all, []string{"0 delivered 1"})
		wantList(t, "rows of both", tab.snapshot(), []string{"0:6:bad1", "1:5:bad0", "1:5:badworse2"})
		wantList(t, "open dead letters at the end", first(box.open()), nil)

		// Read as other events than then, the indexes say nothing.
		box.add(func(_ *kgo.Record, out *consumer.Batch) { out.Reject("bad", "", "all of it") }, &kgo.Record{Offset: 9, Value: []byte("many a b c")})
		wantList(t, "outcomes of what was one event", box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("bad"), Sink: tab}).all, []string{"2 delivered 3"})
		wantList(t, "its rows", tab.snapshot()[3:], []string{"0:9:a", "0:9:b", "0:9:c"})
	})
}

// Rows that the table refuses are found by splitting, and their dead letters stay.
func TestRedriveOfRefusedRows(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, rows := bads(300)
		box := newDeadLetterBox(t, b, 1, recs...)
		no := map[string]bool{rows[0]: true, rows[150]: true, rows[299]: true}
		tab := newTable(t)
		tab.set(func(_ context.Context, w write) error {
			for _, row := range w.rows {
				if no[row] {
					return &refusal{"schema_mismatch"}
				}
			}
			return nil
		})
		f := box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab})
		if f.count(deadletter.Delivered) != 297 || len(f.rejects) != 3 || f.rejects[0].Code != "schema_mismatch" {
			t.Errorf("got %d delivered, rejects %+v", f.count(deadletter.Delivered), f.rejects)
		}
		wantList(t, "open dead letters", first(box.open()), []string{"0 []", "150 []", "299 []"})
		if tab.count() != 297 || len(slices.Compact(sorted(tab))) != 297 {
			t.Errorf("got %d rows, %d different, want 297", tab.count(), len(slices.Compact(sorted(tab))))
		}
	})
}

// When it is stopped, it lets the Write in flight finish and marks what delivered; run
// again it continues where it was.
func TestRedriveIsStopped(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, rows := bads(100)
		box := newDeadLetterBox(t, b, 1, recs...)
		box.cfg.MaxRows = 10
		box.cl, _ = newClient(t, box.cfg)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tab := newTable(t)
		tab.set(func(writing context.Context, w write) error {
			if w.n == 3 {
				cancel()
			}
			return writing.Err()
		})
		f, err := box.redrive(ctx, deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab})
		if err == nil || ctx.Err() == nil || f.count(deadletter.Delivered) != 30 {
			t.Errorf("got error %v and %d delivered, want the context's and the 30 of three Writes", err, f.count(deadletter.Delivered))
		}
		if open, _ := box.open(); len(open) != 70 {
			t.Errorf("got %d open dead letters, want 70", len(open))
		}
		tab.set(nil)
		box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab})
		wantList(t, "rows", tab.snapshot(), rows)
	})
}

// A Write that outlasts the drain is given up: what had delivered is marked.
func TestRedriveIsCutOff(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, _ := bads(20)
		box := newDeadLetterBox(t, b, 1, recs...)
		box.cfg.MaxRows, box.cfg.Drain = 10, 1
		box.cl, _ = newClient(t, box.cfg)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tab := newTable(t)
		tab.set(func(writing context.Context, w write) error {
			if w.n == 2 {
				cancel()
				<-writing.Done()
			}
			return writing.Err()
		})
		f, err := box.redrive(ctx, deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab})
		if err == nil || f.count(deadletter.Delivered) != 10 || f.count("failed") != 10 || len(f.errs) != 10 {
			t.Errorf("got error %v, outcomes %v, want 10 delivered and 10 failed", err, f.all)
		}
		if open, _ := box.open(); len(open) != 10 {
			t.Errorf("got %d open dead letters, want 10", len(open))
		}
	})
}

// Records that are no dead letters, and markers that are none, change nothing and
// are reported.
func TestForeignAmongDeadLetters(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, _ := bads(1)
		recs[0].Headers = []kgo.RecordHeader{{Key: deadletter.HeaderRedriven, Value: []byte("0-9")}} // of the event itself
		box := newDeadLetterBox(t, b, 1, recs...)
		mark := func(list, in string) *kgo.Record {
			return &kgo.Record{Topic: box.dlq(), Headers: []kgo.RecordHeader{{Key: deadletter.HeaderRedriven, Value: []byte(list)}, {Key: deadletter.HeaderRedrivenIn, Value: []byte(in)}}}
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		id, err := box.cl.ID(ctx)
		if err != nil {
			t.Fatal(err)
		}
		home := fmt.Sprintf("%s/%s/0", id, box.dlq())
		produceRecords(t, b,
			&kgo.Record{Topic: box.dlq(), Value: []byte("a others")},
			&kgo.Record{Topic: box.dlq(), Value: nil, Headers: []kgo.RecordHeader{{Key: consumer.HeaderCode, Value: []byte("x")}, {Key: consumer.HeaderEvents, Value: []byte("-1")}}},
			mark("0", "other/"+box.dlq()+"/0"), mark("0,", home), mark("0-100", home), mark("1", home))
		// An event without bytes that looks like a marker of dead letter 0.
		box.add(func(_ *kgo.Record, out *consumer.Batch) { out.Reject("empty", "", "no bytes") },
			&kgo.Record{Offset: 8, Value: []byte{}, Headers: mark("0", home).Headers})

		wantList(t, "outcomes", box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("bad")}).all, []string{"0 rejected 0", "2 failed 0", "7 delivered 1"})
		open, doubtful := box.open()
		wantList(t, "open dead letters", open, []string{"0 []", "2 []", "7 []"})
		if doubtful != 3 {
			t.Errorf("got %d doubtful markers, want 3", doubtful)
		}
		deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := deadLetters.At(ctx, box.dlq(), 0, 1)
		if err != nil || foreign == nil || !foreign.Resolved || !strings.Contains(foreign.Fault, "no header bridge-error-code") {
			t.Errorf("got %+v, %v", foreign, err)
		}
		for _, offset := range []int64{3, 8, 1 << 40} {
			if l, err := deadLetters.At(ctx, box.dlq(), 0, offset); l != nil || err != nil {
				t.Errorf("offset %d: got %+v, %v, want no dead letter", offset, l, err)
			}
		}
	})
}

// Logs that begin late and end with a control record are read to their end.
func TestDeadLettersOfAnOldLog(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, rows := bads(10)
		box := newDeadLetterBox(t, b, 1, recs...)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cl := client(t, b, kgo.TransactionalID(kafkatest.Name(t)))
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		deadLetter := makeDeadLetter(&kgo.Record{Topic: box.cfg.Topics[0], Offset: 2000, Value: []byte("bad!")}, refusing("bad"))
		deadLetter.Topic = box.dlq()
		if err := cl.ProduceSync(ctx, deadLetter).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		adm := kadm.NewClient(client(t, b))
		eventually(t, "the transaction's marker", func() bool { // a broker writes it after its answer
			ends, err := adm.ListCommittedOffsets(ctx, box.dlq())
			end, _ := ends.Lookup(box.dlq(), 0)
			return err == nil && end.Offset == 12
		})
		var cut kadm.Offsets
		cut.AddOffset(box.dlq(), 0, 4, -1)
		if deleted, err := adm.DeleteRecords(ctx, cut); err != nil || deleted.Error() != nil {
			t.Fatalf("deleting records: %v, %v", err, deleted.Error())
		}
		tab := newTable(t)
		box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab})
		wantList(t, "rows", tab.snapshot(), append(rows[4:], "0:2000:bad!"))
		wantList(t, "open dead letters", first(box.open()), nil)
	})
}

// Filters and the limit choose dead letters; the others stay.
func TestRedriveChooses(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, rows := bads(10)
		box := newDeadLetterBox(t, b, 1, recs...)
		tab := newTable(t)
		odd := func(l *deadletter.Record) bool { return l.Original.Offset%2 == 1 }
		box.mustRedrive(deadletter.RedriveOptions{Match: odd, Limit: 3, Mapper: refusing("nothing"), Sink: tab})
		wantList(t, "rows", tab.snapshot(), []string{rows[1], rows[3], rows[5]})
		box.mustRedrive(deadletter.RedriveOptions{Match: odd, Mapper: refusing("nothing"), Sink: tab})
		wantList(t, "rows", tab.snapshot()[3:], []string{rows[7], rows[9]})
		wantList(t, "open dead letters", first(box.open()), []string{"0 []", "2 []", "4 []", "6 []", "8 []"})
	})
}

// Rows that were delivered and could not be marked are reported, and written again.
func TestMarkerIsRefused(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{})
	recs, rows := bads(5)
	box := newDeadLetterBox(t, b, 1, recs...)
	var once sync.Once
	fake := b.Fake()
	fake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		var resp *kmsg.ProduceResponse
		once.Do(func() {
			produce := req.(*kmsg.ProduceRequest)
			resp = produce.ResponseKind().(*kmsg.ProduceResponse)
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = produce.Topics[0].Topic, produce.Topics[0].TopicID
			part := kmsg.NewProduceResponseTopicPartition()
			part.ErrorCode = kerr.TopicAuthorizationFailed.Code
			topic.Partitions = append(topic.Partitions, part)
			resp.Topics = append(resp.Topics, topic)
		})
		return resp, nil, resp != nil
	})
	tab := newTable(t)
	f, err := box.redrive(t.Context(), deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab})
	if err == nil || f.count(deadletter.Delivered) != 5 || len(f.errs) != 5 || !strings.Contains(f.errs[0].Error(), "marker could not be written") {
		t.Errorf("got error %v, outcomes %v, errors %v", err, f.all, f.errs)
	}
	if open, _ := box.open(); len(open) != 5 {
		t.Errorf("got %d open dead letters, want all 5", len(open))
	}
	box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("nothing"), Sink: tab})
	wantList(t, "rows of both", tab.snapshot(), slices.Concat(rows, rows))
	wantList(t, "open dead letters", first(box.open()), nil)
}

// Dead letters of records with many events, none of which becomes a row, are
// redriven in batches of so many events all the same.
func TestRedriveOfManyRejectsIsBounded(t *testing.T) {
	const deadLetters, events = 40, 50
	var recs []*kgo.Record
	for i := range deadLetters {
		recs = append(recs, &kgo.Record{Offset: int64(i), Value: []byte("many" + strings.Repeat(" bad", events))})
	}
	box := newDeadLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 1, recs...)
	box.cfg.MaxRows = 100
	box.cl, _ = newClient(t, box.cfg)
	mapped, heard, worst := 0, 0, 0
	rejecting := refusing("bad")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	opened, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = opened.Redrive(ctx, deadletter.RedriveOptions{
		Match: func(*deadletter.Record) bool { return true },
		Mapper: func(rec *kgo.Record, b *consumer.Batch) {
			mapped++
			worst = max(worst, mapped-heard)
			rejecting(rec, b)
		},
		OnResult: func(f *deadletter.RedriveResult) {
			heard++
			if len(f.Rejects) != events {
				t.Errorf("got %d rejects of a dead letter, want %d", len(f.Rejects), events)
			}
		},
	})
	if err != nil || heard != deadLetters {
		t.Fatalf("got %d dead letters and %v, want %d", heard, err, deadLetters)
	}
	if most := 2*box.cfg.MaxRows/events + 1; worst > most {
		t.Errorf("got %d dead letters of %d events in one batch, want at most %d", worst, events, most)
	}
}

// A topic that takes only small records is given small markers.
func TestMarkersFitTheirTopic(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, _ := bads(1500)
		box := newDeadLetterBox(t, b, 1, recs...)
		limit := "1000"
		set := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &limit}}
		altered, err := kadm.NewClient(client(t, b)).AlterTopicConfigs(t.Context(), set, box.dlq())
		if err != nil || len(altered) != 1 || altered[0].Err != nil {
			t.Fatalf("got %+v, %v", altered, err)
		}
		odd := func(l *deadletter.Record) bool { return l.Original.Offset%2 == 1 }
		did := box.mustRedrive(deadletter.RedriveOptions{Match: odd, Mapper: refusing("nothing"), Sink: newTable(t)})
		if got := did.count(deadletter.Delivered); got != 750 || len(did.errs) > 0 {
			t.Errorf("got %d that were delivered and errors %v, want all 750 and none", got, did.errs)
		}
		if open, _ := box.open(); len(open) != 750 {
			t.Errorf("got %d open dead letters, want 750", len(open))
		}
	})
}

// The dead-letter topics are read in answers that are bounded once decompressed.
func TestDenseDeadLettersAreReadInPieces(t *testing.T) {
	box := newDeadLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 1)
	const deadLetters, size = 100, 900 << 10
	dense := client(t, box.b, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	for i := range deadLetters {
		deadLetter := makeDeadLetter(&kgo.Record{Topic: box.cfg.Topics[0], Offset: int64(i), Value: append([]byte("bad"), make([]byte, size)...)}, toRow)
		deadLetter.Topic = box.dlq()
		if err := dense.ProduceSync(t.Context(), deadLetter).FirstErr(); err != nil { // a batch for each
			t.Fatal(err)
		}
	}
	box.cfg.FetchMaxBytes = 512 << 10 // some hundred of them
	box.cl, _ = newClient(t, box.cfg)
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	opened, err := deadletter.Open(t.Context(), box.cl, box.cfg)
	if err != nil {
		t.Fatal(err)
	}
	before, worst, n := heap(), uint64(0), 0
	err = opened.Each(t.Context(), func(l *deadletter.Record) error {
		if n++; n%10 == 1 {
			worst = max(worst, heap())
		}
		if len(l.Original.Value) != size+3 || l.Original.Offset != int64(n-1) {
			t.Errorf("dead letter %d: got %d bytes of offset %d", n, len(l.Original.Value), l.Original.Offset)
		}
		return nil
	})
	if err != nil || n != deadLetters {
		t.Errorf("got %d dead letters and %v, want %d", n, err, deadLetters)
	}
	// Two answers of seven times the fetch size, a batch, and what Kafka holds.
	if most := uint64(30 << 20); worst > before+most {
		t.Errorf("got a heap of %d MiB above the %d before, want at most %d", (worst-before)>>20, before>>20, most>>20)
	}
}

// Nor may a dead-letter topic, which a running bridge reads for its page.
func TestADeadLetterThatInflates(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, _ := bads(1)
		box := newDeadLetterBox(t, b, 1, recs...)
		bomb := client(t, b, kgo.ProducerBatchMaxBytes(80<<20), kgo.BrokerMaxWriteBytes(100<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
		if err := bomb.ProduceSync(t.Context(), &kgo.Record{Topic: box.dlq(), Value: bytes.Repeat([]byte{'0'}, 65<<20)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		read := func() (newest, each error) {
			deadLetters, err := deadletter.Open(t.Context(), box.cl, box.cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, newest = deadLetters.Newest(t.Context(), 10)
			return newest, deadLetters.Each(t.Context(), func(*deadletter.Record) error { return nil })
		}
		newest, each := read()
		for what, err := range map[string]error{"newest": newest, "each": each} {
			if err == nil || !strings.Contains(err.Error(), box.dlq()+"/0 at offset 1: the batch up to offset 1 decompresses to more than") || !strings.Contains(err.Error(), "delivery.max_buffered") {
				t.Errorf("%s: got %v, want the batch refused, and what to do", what, err)
			}
		}
		// What the remedy states works.
		box.cfg.MaxBuffered = 80 << 20
		if newest, each := read(); newest != nil || each != nil {
			t.Errorf("with a larger delivery.max_buffered: %v, %v", newest, each)
		}
	})
}

// A dead-letter topic that others write to in transactions is read to its end.
func TestDeadLettersBesideTransactions(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, _ := bads(1)
		box := newDeadLetterBox(t, b, 1, recs...)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for _, text := range []string{"aborted", "open"} {
			tx := client(t, b, kgo.TransactionalID(kafkatest.Name(t)))
			if err := tx.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := tx.ProduceSync(ctx, &kgo.Record{Topic: box.dlq(), Value: []byte(text)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if text == "aborted" {
				if err := tx.EndTransaction(ctx, kgo.TryAbort); err != nil {
					t.Fatal(err)
				}
			}
		}
		deadLetters, err := deadletter.Open(t.Context(), box.cl, box.cfg)
		if err != nil {
			t.Fatal(err)
		}
		var offsets []int64
		if err := deadLetters.Each(t.Context(), func(l *deadletter.Record) error { offsets = append(offsets, l.Offset); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(offsets, []int64{0}) {
			t.Errorf("got the dead letters at %v, want the one at 0", offsets)
		}
	})
}
