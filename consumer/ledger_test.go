package consumer_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/consumer"
)

func holding(recs ...string) []*kgo.Record {
	out := make([]*kgo.Record, len(recs))
	for i, text := range recs {
		out[i] = &kgo.Record{Topic: "lab", Offset: int64(i), Value: []byte(text)}
	}
	return out
}

func TestLedger(t *testing.T) {
	for _, tt := range []struct {
		name string
		sink hook
		recs []*kgo.Record
		end  func(l *consumer.Lab) // what happens once all wait
		want consumer.Ledger
	}{
		{"rows", nil, holding("a", "b"), nil, consumer.Ledger{Read: 2, Delivered: 2}},
		{"a record of several events", nil, holding("a", "many b c bad drop", "d"), nil, consumer.Ledger{Read: 6, Delivered: 5, Skipped: 1}},
		{"rejected and filtered", nil, holding("bad", "drop", "a"), nil, consumer.Ledger{Read: 3, Delivered: 1, Skipped: 1, Filtered: 1}},
		{"refused by the sink", refuseIf("poison"), holding("a", "poison", "b", "many c poison"), nil, consumer.Ledger{Read: 5, Delivered: 3, Skipped: 2}},
		{"a write in flight", hang(nil), holding("a", "many b c", "drop"), nil, consumer.Ledger{Read: 4, InFlight: 4}},
		{"lost in mid-write", hang(nil), holding("a", "many b c", "drop"), (*consumer.Lab).Lose, consumer.Ledger{Read: 4, Released: 4}},
		{
			"lost in mid-search", // the half without the refused row is durable
			func(ctx context.Context, w write) error {
				if text := strings.Join(w.rows, " "); strings.Contains(text, "poison") && len(w.rows) > 1 {
					return &refusal{"refused"}
				} else if strings.Contains(text, "poison") {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			},
			holding("a", "b", "poison", "c"), (*consumer.Lab).Lose, consumer.Ledger{Read: 4, Delivered: 2, Released: 2},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, labConfig(), func(t *testing.T, l *consumer.Lab, tab *table) {
				tab.set(tt.sink)
				l.Push(tt.recs...)
				synctest.Wait()
				if tt.end != nil {
					tt.end(l)
				}
				tt.want.Offsets, tt.want.Records = int64(len(tt.recs)), int64(len(tt.recs))
				if got := l.Group().Status().Ledger.Ledger; got != tt.want {
					t.Errorf("ledger:\n got %+v\nwant %+v", got, tt.want)
				}
			})
		})
	}
}

// TestLedgerOutlivesItsPartition closes the ledger of a partition that comes and
// goes: what the new owner reads again is read twice and delivered once.
func TestLedgerOutlivesItsPartition(t *testing.T) {
	lab(t, labConfig(), func(t *testing.T, l *consumer.Lab, tab *table) {
		l.Push(events(0, 10)...)
		synctest.Wait()
		tab.set(hang(nil))
		l.Push(events(10, 10)...)
		synctest.Wait()
		l.Lose()
		tab.set(nil)
		l.Reassign()
		l.Push(events(10, 10)...)
		synctest.Wait()
		want := consumer.Ledger{Read: 30, Delivered: 20, Released: 10, Offsets: 30, Records: 30}
		if got := l.Group().Status().Ledger; got.Ledger != want {
			t.Errorf("ledger of the group:\n got %+v\nwant %+v", got, want)
		}
		if got := l.Status().Ledger; got.Ledger != want {
			t.Errorf("ledger of the partition:\n got %+v\nwant %+v", got, want)
		}
	})
}

func refuseIf(poison string) hook {
	return func(_ context.Context, w write) error {
		if strings.Contains(strings.Join(w.rows, " "), poison) {
			return &refusal{"refused"}
		}
		return nil
	}
}

// TestWatchdog holds the watchdog to what an operator needs: which partition,
// where it stands and why, once, and again only when it happens again.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var trouble string
		cfg := labConfig()
		cfg.StuckAfter = time.Minute
		cfg.SinkProblem = func() (string, string) { return trouble, "wake it" }
		core, logs := observer.New(zap.InfoLevel)
		tab := newTable(t)
		l, err := consumer.NewLab(cfg, tab, toRow, newCounts(), zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		stands := func() string {
			l.Watch()
			for _, r := range l.Group().Status().NotReady {
				if r.Code == "partition_stuck" {
					return r.Text + "; " + r.Remedy
				}
			}
			return ""
		}
		pass := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}

		if got := stands(); got != "" {
			t.Errorf("an idle partition is stuck: %s", got)
		}
		// A queue that takes ten minutes to get through, but moves.
		tab.set(slow(30 * time.Second))
		l.Push(events(0, 2000)...)
		for range 19 {
			pass(30 * time.Second)
			if got := stands(); got != "" {
				t.Fatalf("a partition that moves is stuck: %s", got)
			}
		}
		pass(time.Minute)

		tab.set(hang(nil))
		l.Push(events(2000, 10)...)
		pass(time.Minute)
		if got := stands(); got != "" {
			t.Errorf("stuck after exactly a minute: %s", got)
		}
		trouble = "it sleeps"
		pass(time.Second)
		for range 3 {
			if got, want := stands(), "no event delivered for over 1m0s: lab/0 at offset 2000 for 1m1s: it sleeps; wake it"; got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		}
		trouble = ""
		if got, want := stands(), "a write has been in flight for 1m1s and the sink reports no problem"; !strings.Contains(got, want) {
			t.Errorf("got %q, want it to say %q", got, want)
		}
		l.Lose()
		l.Reassign()
		if got := stands(); got != "" {
			t.Errorf("a partition that was given up is stuck: %s", got)
		}
		var said []string
		for _, e := range logs.FilterMessageSnippet("").All() {
			if strings.Contains(e.Message, "too long") || strings.Contains(e.Message, "deliver again") {
				said = append(said, fmt.Sprint(e.Message, e.ContextMap()))
			}
		}
		if len(said) != 2 || !strings.Contains(said[0], "lab/0 at offset 2000") || !strings.Contains(said[0], "it sleeps") {
			t.Errorf("logged %q, want one line that names partition, offset and reason, and one when it was over", said)
		}
	})
}
