package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

const lossLine = "kafka removed events before they were delivered"

// losses are the ranges that were logged as lost, in order.
func losses(logs *observer.ObservedLogs) []string {
	var all []string
	for _, e := range logs.FilterMessage(lossLine).All() {
		m := e.ContextMap()
		all = append(all, fmt.Sprintf("%v-%v", m["first_offset"], m["last_offset"]))
	}
	return all
}

// atOffsets makes records of the given offsets; a negative one stands for a
// control record.
func atOffsets(offsets ...int64) []*kgo.Record {
	recs := make([]*kgo.Record, len(offsets))
	for i, offset := range offsets {
		recs[i] = &kgo.Record{Topic: "lab", Offset: max(offset, -offset), Value: fmt.Appendf(nil, "e%d", offset)}
		if offset < 0 {
			recs[i].Attrs = kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Control: true})
		}
	}
	return recs
}

// Every offset that polling passes is a record, lost or skipped; what is lost is
// logged with its range.
func TestOffsetsAreAccountedFor(t *testing.T) {
	type poll struct {
		start   int64 // of the log
		offsets []int64
	}
	for _, tt := range []struct {
		name   string
		polls  []poll
		want   consumer.Ledger // of offsets
		lost   string
		marked int64
	}{
		{"no gap", []poll{{0, []int64{0, 1, 2}}, {0, []int64{3, 4}}}, consumer.Ledger{Offsets: 5, Records: 5}, "[]", 5},
		{"nothing before the first record was the group's", []poll{{20, []int64{20, 21}}}, consumer.Ledger{Offsets: 2, Records: 2}, "[]", 22},
		{"a gap between polls", []poll{{0, []int64{0}}, {0, []int64{5}}}, consumer.Ledger{Offsets: 6, Records: 2, SkippedOffsets: 4}, "[]", 6},
		{"a gap inside a poll", []poll{{0, []int64{0, 1, 7, 9}}}, consumer.Ledger{Offsets: 10, Records: 4, SkippedOffsets: 6}, "[]", 10},
		{"a control record at the end", []poll{{0, []int64{0, 1, -2}}}, consumer.Ledger{Offsets: 3, Records: 2, SkippedOffsets: 1}, "[]", 3},
		{"control records between events", []poll{{0, []int64{0, -1, 2, -5}}}, consumer.Ledger{Offsets: 6, Records: 2, SkippedOffsets: 4}, "[]", 6},
		{"a poll of control records alone", []poll{{0, []int64{0}}, {0, []int64{-1, -2}}, {0, []int64{-7}}}, consumer.Ledger{Offsets: 8, Records: 1, SkippedOffsets: 7}, "[]", 8},
		{"the log start passed the position", []poll{{0, []int64{0, 1}}, {30, []int64{30, 31}}}, consumer.Ledger{Offsets: 32, Records: 4, Lost: 28}, "[2-29]", 32},
		{"it did so twice", []poll{{0, []int64{0}}, {3, []int64{3}}, {9, []int64{9}}}, consumer.Ledger{Offsets: 10, Records: 3, Lost: 7}, "[1-2 4-8]", 10},
		{"a gap behind the log start", []poll{{0, []int64{0}}, {10, []int64{12, 14}}}, consumer.Ledger{Offsets: 15, Records: 3, Lost: 9, SkippedOffsets: 3}, "[1-9]", 15},
		{"the log start is at the position", []poll{{0, []int64{0, 1}}, {2, []int64{3}}}, consumer.Ledger{Offsets: 4, Records: 3, SkippedOffsets: 1}, "[]", 4},
		{"a broker that does not report the log start", []poll{{-1, []int64{0}}, {-1, []int64{9}}}, consumer.Ledger{Offsets: 10, Records: 2, SkippedOffsets: 8}, "[]", 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.InfoLevel)
				tab, counts := newTable(t), newCounts()
				l, err := consumer.NewLab(labConfig(), tab, toRow, counts, zap.New(core))
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				for _, p := range tt.polls {
					l.PushFrom(p.start, atOffsets(p.offsets...)...)
				}
				synctest.Wait()
				got, want := l.Status(), tt.want
				want.Read, want.Delivered = want.Records, want.Records
				if got.Ledger.Ledger != want || got.Ledger.Unaccounted != 0 {
					t.Errorf("got  %+v\nwant %+v", got.Ledger, want)
				}
				if tab.count() != int(want.Records) || got.Marked != tt.marked {
					t.Errorf("got %d rows, marked %d; want %d and %d", tab.count(), got.Marked, want.Records, tt.marked)
				}
				if lost := fmt.Sprint(losses(logs)); lost != tt.lost {
					t.Errorf("logged the losses %v, want %v", lost, tt.lost)
				}
				counts.with(func() {
					if counts.lost != want.Lost || counts.skipped != want.SkippedOffsets || counts.announced != 1 {
						t.Errorf("observed %d lost and %d skipped of %d partitions, want %d, %d and 1", counts.lost, counts.skipped, counts.announced, want.Lost, want.SkippedOffsets)
					}
				})
			})
		})
	}
}

// A log that was cut is reported with what is known of it, and read from there.
func TestALogThatWasCut(t *testing.T) {
	for _, tt := range []struct {
		name string
		loss kgo.ErrDataLoss
		lost string
		want consumer.Ledger
	}{
		{"below the position", kgo.ErrDataLoss{ConsumedTo: 10, ResetTo: 4}, "[4-9]", consumer.Ledger{Offsets: 18, Records: 12, Lost: 6}},
		{"beyond the position", kgo.ErrDataLoss{ConsumedTo: 10, ResetTo: 10}, "[9-9]", consumer.Ledger{Offsets: 13, Records: 12, Lost: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.InfoLevel)
				tab := newTable(t)
				l, err := consumer.NewLab(labConfig(), tab, toRow, newCounts(), zap.New(core))
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				l.Push(events(0, 10)...)
				synctest.Wait()
				l.DataLoss(tt.loss)
				l.Push(events(int(tt.loss.ResetTo), 2)...)
				synctest.Wait()
				got, want := l.Status(), tt.want
				want.Read, want.Delivered = want.Records, want.Records
				if got.Ledger.Ledger != want || got.Ledger.Unaccounted != 0 || got.Marked != tt.loss.ResetTo+2 {
					t.Errorf("got  %+v, marked %d\nwant %+v", got.Ledger, got.Marked, want)
				}
				if lost := fmt.Sprint(losses(logs)); lost != tt.lost {
					t.Errorf("logged the losses %v, want %v", lost, tt.lost)
				}
			})
		})
	}
}

// The equation of the offsets can fail, and does not hide in that of the events.
func TestOffsetsThatAreUnaccountedForShow(t *testing.T) {
	for _, l := range []consumer.Ledger{
		{Offsets: 5, Records: 4},
		{Offsets: 5, Records: 6},
		{Lost: 1},
		{SkippedOffsets: 1},
		{Offsets: 5, Records: 6, Read: 1},
	} {
		if l.Unaccounted() <= 0 {
			t.Errorf("%+v: got %d unaccounted", l, l.Unaccounted())
		}
	}
}

// transaction is one that is open.
type transaction struct {
	t  *testing.T
	cl *kgo.Client
}

// begin writes events to partition 0 in a transaction, each in a batch of its own.
func begin(t *testing.T, b kafkatest.Broker, topic string, texts ...string) *transaction {
	t.Helper()
	tx := &transaction{t, client(t, b, kgo.TransactionalID(kafkatest.Name(t)))}
	if err := tx.cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		produceRecordsWith(t, tx.cl, topic, text)
	}
	return tx
}

func (tx *transaction) end(how kgo.TransactionEndTry) {
	tx.t.Helper()
	ctx, cancel := context.WithTimeout(tx.t.Context(), patience)
	defer cancel()
	if err := tx.cl.EndTransaction(ctx, how); err != nil {
		tx.t.Fatal(err)
	}
}

// caughtUp waits until partition 0 of a member has no lag up to end.
func (m *member) caughtUp(end int64) {
	m.t.Helper()
	eventually(m.t, fmt.Sprintf("lag 0 at offset %d", end), func() bool {
		p, ok := m.partition(0)
		return ok && p.Lag == 0 && p.End == end && p.Committed == end
	})
}

// Aborted events are no rows, and the markers are no lag.
func TestAbortedTransactions(t *testing.T) {
	t.Parallel()
	for isolation, want := range map[string]struct {
		rows    []string
		skipped int64
	}{
		"":                 {append(texts("a", 5), texts("c", 5)...), 8},
		"read_committed":   {append(texts("a", 5), texts("c", 5)...), 8},
		"read_uncommitted": {append(append(texts("a", 5), texts("b", 5)...), texts("c", 5)...), 3},
	} {
		t.Run("isolation="+isolation, func(t *testing.T) {
			t.Parallel()
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				topic := kafkatest.Topic(t, b, 1)
				begin(t, b, topic, texts("a", 5)...).end(kgo.TryCommit)
				begin(t, b, topic, texts("b", 5)...).end(kgo.TryAbort)
				begin(t, b, topic, texts("c", 5)...).end(kgo.TryCommit)
				cfg, tab := config(t, b, topic), newTable(t)
				cfg.Isolation = isolation
				m := start(t, cfg, tab)
				m.caughtUp(18)
				if got := tab.values(); !slices.Equal(got, want.rows) {
					t.Errorf("got rows %v, want %v", got, want.rows)
				}
				l := m.Status().Ledger
				if l.SkippedOffsets != want.skipped || l.Lost != 0 || l.Read != int64(len(want.rows)) {
					t.Errorf("got %+v, want %d offsets skipped, none lost, markers no events", l, want.skipped)
				}
				if got := m.counts.get(func() int { return m.counts.read }); got != len(want.rows) {
					t.Errorf("observed %d events, want %d", got, len(want.rows))
				}

				// An aborted tail is no lag either, nor after a restart.
				begin(t, b, topic, "d").end(kgo.TryAbort)
				m.caughtUp(20)
				m.stop()
				if got := committed(t, b, cfg.Group, topic)[0]; got != 20 {
					t.Errorf("committed %d, want the log's end at 20", got)
				}
				m = start(t, cfg, tab)
				m.caughtUp(20)
				if got := tab.count(); isolation != "read_uncommitted" && got != len(want.rows) {
					t.Errorf("got %d rows after the restart, want %d", got, len(want.rows))
				}
			})
		})
	}
}

// An open transaction holds back what was produced after it began. That is no
// lag, as nobody may read it yet, and a bounded run ends before it.
func TestOpenTransaction(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, "before")
		tx := begin(t, b, topic, "inside")
		produce(t, b, topic, 1, "after")
		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		m.caughtUp(1)

		bounded, rows := cfg, newTable(t)
		bounded.Group = kafkatest.Name(t)
		startUntil(t, bounded, rows, latest).finish()
		if got := rows.values(); !slices.Equal(got, []string{"before"}) {
			t.Errorf("got rows %v of a bounded run, want the one before the transaction", got)
		}
		// What happened before a time is complete only with the transaction.
		timed, past := cfg, newTable(t)
		timed.Group = kafkatest.Name(t)
		waiting := startUntil(t, timed, past, at(time.Now().Add(time.Hour)))
		eventually(t, "a run up to a time delivers what can be read", func() bool { return past.count() == 1 })
		cluster, _, _ := newCluster(t, cfg)
		if n, err := cluster.Readable(t.Context()); n != 1 || err != nil {
			t.Errorf("got %d readable events, %v; want 1", n, err)
		}
		if got := tab.values(); !slices.Equal(got, []string{"before"}) {
			t.Errorf("got rows %v while the transaction is open, want the one before it", got)
		}

		tx.end(kgo.TryCommit)
		m.caughtUp(4)
		if got := tab.values(); !slices.Equal(got, []string{"after", "before", "inside"}) {
			t.Errorf("got rows %v after the commit, want all three", got)
		}
		waiting.finish()
		if got := past.values(); !slices.Equal(got, []string{"after", "before", "inside"}) {
			t.Errorf("got rows %v of a run up to a time, want all three", got)
		}
		startUntil(t, bounded, rows, latest).finish()
		if got := rows.values(); !slices.Equal(got, []string{"after", "before", "inside"}) {
			t.Errorf("got rows %v of a bounded run after the commit, want all three", got)
		}
	})
}

// A log that ends in aborted events has an end that a bounded run reaches.
func TestBoundedRunReachesAnEndBehindAbortedEvents(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		begin(t, b, topic, "one").end(kgo.TryCommit)
		begin(t, b, topic, texts("aborted", 3)...).end(kgo.TryAbort)
		cfg, tab := config(t, b, topic), newTable(t)
		for _, end := range []int64{4, 6} { // amid the aborted events, and behind them
			r := startUntil(t, cfg, tab, atOffset(end))
			r.finish()
			if got := tab.values(); !slices.Equal(got, []string{"one"}) {
				t.Errorf("end %d: got rows %v, want one", end, got)
			}
			if got := committed(t, b, cfg.Group, topic)[0]; got != end {
				t.Errorf("committed %d, want the end at %d", got, end)
			}
			if l := r.Status().Ledger; l.Lost != 0 || l.Offsets != l.Records+l.SkippedOffsets {
				t.Errorf("end %d: got %+v, want no loss", end, l)
			}
		}
	})
}

// What retention took while nobody read is lost, and is reported as that.
func TestRetentionGap(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				kafkatest.NeedProtocol(t, b, protocol)
				topic := kafkatest.Topic(t, b, 1)
				produce(t, b, topic, 1, texts("e", 50)...)
				cfg, tab := config(t, b, topic), newTable(t)
				cfg.Protocol = protocol
				if err := newReplayer(t, b, cfg).commit([]kafka.Move{{Topic: topic, Target: 5}}); err != nil {
					t.Fatal(err)
				}
				trim(t, b, topic, 0, 30)
				m := start(t, cfg, tab)
				m.caughtUp(50)
				if got := tab.values(); !slices.Equal(got, texts("e", 50)[30:]) {
					t.Errorf("got %d rows, want the 20 that are left", len(got))
				}
				lost(t, m, 25, "[5-29]")

				// Nothing is reported again once it is committed past.
				m.stop()
				m = start(t, cfg, tab)
				m.caughtUp(50)
				lost(t, m, 0, "[]")
			})
		})
	}
}

// lost holds what a member reports as lost against what was: in the ledger of the
// group and of the partition, to the observer, and by one line for each range.
func lost(t *testing.T, m *member, n int64, ranges string) {
	t.Helper()
	s := m.Status()
	p, _ := m.partition(0)
	seen := m.counts.get(func() int { return int(m.counts.lost) })
	if s.Ledger.Lost != n || p.Ledger.Lost != n || int64(seen) != n || s.Ledger.Unaccounted != 0 {
		t.Errorf("got %d lost in the group's ledger, %d in the partition's, %d observed, out by %d; want %d", s.Ledger.Lost, p.Ledger.Lost, seen, s.Ledger.Unaccounted, n)
	}
	if got := fmt.Sprint(losses(m.logs)); got != ranges {
		t.Errorf("logged the losses %v, want %v", got, ranges)
	}
}

// Without an event behind it, a loss is found by the log start alone.
func TestEverythingWasRemoved(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, texts("e", 50)...)
		cfg, tab := config(t, b, topic), newTable(t)
		if err := newReplayer(t, b, cfg).commit([]kafka.Move{{Topic: topic, Target: 5}}); err != nil {
			t.Fatal(err)
		}
		trim(t, b, topic, 0, 50)
		m := start(t, cfg, tab)
		m.caughtUp(50)
		lost(t, m, 45, "[5-49]")
		produce(t, b, topic, 1, "later")
		m.caughtUp(51)
		if got := tab.values(); !slices.Equal(got, []string{"later"}) {
			t.Errorf("got rows %v, want the one that came later", got)
		}
		lost(t, m, 45, "[5-49]")
	})
}

// Records can be removed while they wait to be read: what has been polled is
// delivered, what has not is lost, and nothing is in neither.
func TestRecordsAreRemovedWhileReading(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		cl := client(t, b)
		for _, text := range texts("e", 50) { // a batch each, so that a fetch brings few
			produceRecordsWith(t, cl, topic, text)
		}
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.MaxBuffered, cfg.FetchMaxBytes, cfg.FetchMaxPartitionBytes = 1200, 1, 1
		open := make(chan struct{})
		tab.set(func(ctx context.Context, _ write) error {
			select {
			case <-open:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		m := start(t, cfg, tab)
		eventually(t, "the budget is spent", func() bool { s := m.Status(); return s.BufferedBytes >= s.BufferedLimit })
		trim(t, b, topic, 0, 30)
		close(open)
		m.caughtUp(50)
		n := m.Status().Ledger.Lost
		if n < 15 || n >= 30 || int(n)+tab.count() != 50 {
			t.Errorf("got %d lost and %d rows, want them to be 50 together", n, tab.count())
		}
		lost(t, m, n, fmt.Sprintf("[%d-29]", 30-n))
	})
}

// A committed offset beyond the log's end means that the log was cut, or is
// another one. It is reported, and what is there is read.
func TestCommittedBeyondTheEnd(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, texts("e", 10)...)
		cfg, tab := config(t, b, topic), newTable(t)
		if err := newReplayer(t, b, cfg).commit([]kafka.Move{{Topic: topic, Target: 100}}); err != nil {
			t.Fatal(err)
		}
		m := start(t, cfg, tab)
		eventually(t, "ten rows", func() bool { return tab.distinct() == 10 })
		lost(t, m, 90, "[10-99]")
		if m.logged(zapcore.WarnLevel, "unclean.leader.election.enable") != 1 {
			t.Error("the line does not say what to look at")
		}
		m.caughtUp(10)
	})
}

// A group that has committed nothing has lost nothing of what was removed before
// it began, also where the log's start could not be looked up at first.
func TestNothingIsLostBeforeTheGroupBegan(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	produce(t, b, topic, 1, texts("e", 60)...)
	trim(t, b, topic, 0, 50)
	cfg, tab := config(t, b, topic), newTable(t)
	var refused atomic.Int64
	fault := b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topic, Err: kerr.LeaderNotAvailable, Count: -1, When: func(r kmsg.Request) bool {
		for _, t := range r.(*kmsg.ListOffsetsRequest).Topics {
			for _, p := range t.Partitions {
				if p.Timestamp == -2 {
					refused.Add(1)
					return true
				}
			}
		}
		return false
	}})
	m := start(t, cfg, tab)
	eventually(t, "the log's start is asked for, twice", func() bool { return len(m.Status().Partitions) == 1 && refused.Load() > 1 })
	fault.Remove()
	eventually(t, "ten rows", func() bool { return tab.distinct() == 10 })
	lost(t, m, 0, "[]")
}

// Where the broker answers that the position is out of range, and no leader epoch
// shows where the log was cut, the log is read again from its start: records of
// any age are still there. What is reported lost ends with the position.
func TestALogThatIsOutOfRangeIsReadFromItsStart(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	produceMinutes(t, b, topic, 0, 10) // years ago: the client's own reset would skip them
	cfg, tab := config(t, b, topic), newTable(t)
	m := start(t, cfg, tab)
	m.caughtUp(10)
	fault := b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.OffsetOutOfRange, Count: 1})
	defer fault.Remove()
	eventually(t, "every record again", func() bool { return tab.count() == 20 })
	lost(t, m, 1, "[9-9]")
}
