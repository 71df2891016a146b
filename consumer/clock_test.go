package consumer_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
)

func labConfig() consumer.Config {
	return consumer.Config{
		Delivery: consumer.Delivery{MaxRows: 100, MaxBytes: 1 << 20, MaxBuffered: 1 << 20, Drain: 7 * time.Second},
		Rejects:  consumer.Rejects{Policy: consumer.PolicySkip},
	}
}

// lab runs body in a bubble whose clock moves only while all wait.
func lab(t *testing.T, cfg consumer.Config, body func(t *testing.T, l *consumer.Lab, tab *table)) {
	synctest.Test(t, func(t *testing.T) {
		tab := newTable(t)
		l, err := consumer.NewLab(cfg, tab, toRow, newCounts(), nopLog)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			l.Close()
			balanced(t, l.Group().Status())
		}()
		body(t, l, tab)
	})
}

func events(first, n int) []*kgo.Record {
	recs := make([]*kgo.Record, n)
	for i := range recs {
		recs[i] = &kgo.Record{Topic: "lab", Offset: int64(first + i), Value: fmt.Appendf(nil, "e%d", first+i)}
	}
	return recs
}

func TestDrainTakesExactlyDrain(t *testing.T) {
	lab(t, labConfig(), func(t *testing.T, l *consumer.Lab, tab *table) {
		tab.set(hang(nil))
		l.Push(events(0, 10)...)
		synctest.Wait()
		began := time.Now()
		l.Revoke()
		if got := time.Since(began); got != 7*time.Second {
			t.Errorf("the drain took %v, want exactly 7s", got)
		}
		if got := l.Status().Marked; got > 0 {
			t.Errorf("marked %d of a Write that was cut off", got)
		}
		if got := l.Buffered(); got != 0 {
			t.Errorf("%d bytes are still in the budget", got)
		}
	})
}

func TestDrainWaitsNoLongerThanTheWrite(t *testing.T) {
	lab(t, labConfig(), func(t *testing.T, l *consumer.Lab, tab *table) {
		tab.set(slow(3 * time.Second))
		l.Push(events(0, 250)...)
		synctest.Wait()
		began := time.Now()
		l.Revoke()
		if got := time.Since(began); got != 3*time.Second {
			t.Errorf("the drain took %v, want exactly the Write's 3s", got)
		}
		if got := l.Status().Marked; got != 100 || tab.count() != 100 {
			t.Errorf("marked %d with %d rows durable, want the 100 in flight and no more", got, tab.count())
		}
	})
}

func TestLossCutsTheWriteAtOnce(t *testing.T) {
	lab(t, labConfig(), func(t *testing.T, l *consumer.Lab, tab *table) {
		tab.set(hang(nil))
		l.Push(events(0, 10)...)
		synctest.Wait()
		began := time.Now()
		l.Lose()
		if got := time.Since(began); got != 0 {
			t.Errorf("the loss took %v, want no time", got)
		}
	})
}

func TestProbesComeEveryThirtySeconds(t *testing.T) {
	lab(t, labConfig(), func(t *testing.T, l *consumer.Lab, tab *table) {
		fixed := false
		var probes []time.Duration
		var blocked time.Time
		var rows []string
		tab.set(func(_ context.Context, w write) error {
			if l.Status().State == consumer.StateBlocked {
				if blocked.IsZero() {
					blocked = l.Status().Since
				}
				probes = append(probes, time.Since(blocked))
				rows = append(rows, w.rows...)
				if len(w.rows) != 1 {
					t.Errorf("a probe has %d rows, want 1", len(w.rows))
				}
				fixed = len(probes) == 4
			}
			if fixed {
				return nil
			}
			return &refusal{"schema_mismatch"}
		})
		l.Push(events(0, 100)...)
		_ = wait(t.Context(), 10*time.Minute)
		synctest.Wait()
		if got, want := fmt.Sprint(probes), "[30s 1m0s 1m30s 2m0s]"; got != want {
			t.Errorf("probes came at %s, want at %s", got, want)
		}
		if got, want := fmt.Sprint(rows), "[0:0:e0 0:1:e1 0:2:e2 0:3:e3]"; got != want {
			t.Errorf("probes tried %s, want one row after the other: %s", got, want)
		}
		if got := tab.distinct(); got != 100 || tab.count() != 100 {
			t.Errorf("%d rows delivered, %d different, want 100 once each", tab.count(), got)
		}
		if got := l.Status(); got.Marked != 100 || got.State != consumer.StateWaiting {
			t.Errorf("status once fixed: got %+v", got)
		}
	})
}

func TestLingerIsExact(t *testing.T) {
	cfg := labConfig()
	cfg.Linger = 2 * time.Second
	lab(t, cfg, func(t *testing.T, l *consumer.Lab, tab *table) {
		began := time.Now()
		var at []string
		tab.set(func(_ context.Context, w write) error {
			at = append(at, fmt.Sprintf("%d rows after %v", len(w.rows), time.Since(began)))
			return nil
		})
		for i := range 3 { // within one linger
			l.Push(events(i, 1)...)
			_ = wait(t.Context(), 500*time.Millisecond)
		}
		_ = wait(t.Context(), time.Second)
		synctest.Wait()
		l.Push(events(3, 100)...) // a full batch waits for nothing
		synctest.Wait()
		l.Push(events(103, 5)...)
		synctest.Wait()
		l.Revoke() // nor does a stop: what has not begun is dropped
		if got, want := fmt.Sprint(at), "[3 rows after 2s 100 rows after 2.5s]"; got != want {
			t.Errorf("got Writes of %s, want %s", got, want)
		}
		if got := time.Since(began); got != 2500*time.Millisecond {
			t.Errorf("the stop came after %v, want at once after 2.5s", got)
		}
	})
}

// What gathers during a Write is the next batch.
func TestBusyPartitionsFillTheirBatches(t *testing.T) {
	lab(t, labConfig(), func(t *testing.T, l *consumer.Lab, tab *table) {
		var sizes []int
		tab.set(func(ctx context.Context, w write) error {
			sizes = append(sizes, len(w.rows))
			return wait(ctx, time.Second)
		})
		for i := range 60 {
			l.Push(events(i, 1)...)
			_ = wait(t.Context(), 100*time.Millisecond)
		}
		_ = wait(t.Context(), 5*time.Second)
		synctest.Wait()
		if got := tab.distinct(); got != 60 {
			t.Fatalf("%d rows delivered, want 60", got)
		}
		if len(sizes) > 8 || sizes[0] != 1 || sizes[1] < 9 {
			t.Errorf("got Writes of %v rows, want the first of one and the others of a second's worth", sizes)
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	cfg := labConfig()
	cfg.MaxBuffered = 100_000 // of about 260 bytes each; the only partition's share is all of it
	lab(t, cfg, func(t *testing.T, l *consumer.Lab, tab *table) {
		release := make(chan struct{})
		tab.set(hold(release, every))
		l.Push(events(0, 300)...)
		synctest.Wait()
		if l.Paused() || l.Status().Paused {
			t.Error("paused below its share")
		}
		l.Push(events(300, 200)...)
		if !l.Paused() || !l.Status().Paused {
			t.Error("not paused above its share")
		}
		close(release)
		synctest.Wait()
		if l.Paused() || l.Status().Paused || l.Buffered() != 0 {
			t.Errorf("once delivered: paused %v, %d bytes buffered", l.Paused(), l.Buffered())
		}

		tab.set(hang(nil))
		l.Push(events(500, 500)...)
		if !l.Paused() {
			t.Error("not paused above its share")
		}
		l.Lose()
		if l.Paused() {
			t.Error("the client still pauses a partition that is gone")
		}
	})
}
