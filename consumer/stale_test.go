package consumer_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
)

// outdated is the error of a sink whose table has changed since the rows were
// made.
type outdated struct{}

func (outdated) Error() string { return "the table has changed" }
func (outdated) Stale() bool   { return true }

// Records whose rows come back as stale, or that a fixed mapping makes other
// rows of, are mapped again; none is lost and no old row is written.
func TestRecordsAreMappedAgain(t *testing.T) {
	const events = 100
	for _, tc := range []struct {
		name  string
		no    error         // what the sink answers to rows of the old mapping
		after time.Duration // until the rows are durable
	}{
		{"stale", outdated{}, 0},
		{"blocked", &refusal{"schema_mismatch"}, 30 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var version atomic.Int64
				version.Store(1)
				mapper := func(rec *kgo.Record, out *consumer.Batch) {
					out.Row(fmt.Appendf(out.Buf(), "0:%d:v%d", rec.Offset, version.Load()))
				}
				tab := newTable(t)
				tab.set(func(_ context.Context, w write) error {
					if textOf(w.rows[0]) == "v2" {
						return nil
					}
					if tc.after == 0 {
						version.Store(2)
					}
					return tc.no
				})
				l, err := consumer.NewLab(labConfig(), tab, mapper, newCounts(), nopLog)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				began := time.Now()
				var recs []*kgo.Record
				for i := range events {
					recs = append(recs, &kgo.Record{Topic: "lab", Offset: int64(i)})
				}
				l.Push(recs...)
				synctest.Wait()
				if tc.after > 0 {
					if got := l.Status().State; got != consumer.StateBlocked {
						t.Fatalf("got state %s, want %s", got, consumer.StateBlocked)
					}
					version.Store(2)
					<-time.After(tc.after)
					synctest.Wait()
				}
				s := l.Status()
				if s.Marked != events || s.Rows != events {
					t.Errorf("got %d rows, marked up to %d, want %d and %d", s.Rows, s.Marked, events, events)
				}
				if got := time.Since(began); got != tc.after {
					t.Errorf("took %v, want %v", got, tc.after)
				}
				if got := l.Buffered(); got != 0 {
					t.Errorf("got %d bytes buffered, want none", got)
				}
			})
		})
	}
}

// A partition that was blocked, and whose rows are made again since, shows that it
// writes and not what blocked it before.
func TestStaleRowsEndABlockedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events = 200
		var fixed atomic.Bool
		mapper := func(rec *kgo.Record, out *consumer.Batch) {
			out.Row(fmt.Appendf(out.Buf(), "0:%d:%v", rec.Offset, fixed.Load()))
		}
		tab, written := newTable(t), make(chan struct{})
		tab.set(func(ctx context.Context, w write) error {
			switch {
			case textOf(w.rows[0]) == "true":
				select {
				case <-written:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			case fixed.Load():
				return outdated{}
			case len(w.rows) == 1 && strings.HasPrefix(w.rows[0], "0:3:"): // so that something is resolved
				return nil
			}
			return &refusal{"schema_mismatch"}
		})
		l, err := consumer.NewLab(labConfig(), tab, mapper, newCounts(), nopLog)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var recs []*kgo.Record
		for i := range events {
			recs = append(recs, &kgo.Record{Topic: "lab", Offset: int64(i)})
		}
		l.Push(recs...)
		synctest.Wait()
		if got := l.Status().State; got != consumer.StateBlocked {
			t.Fatalf("got state %s, want %s", got, consumer.StateBlocked)
		}
		fixed.Store(true)
		<-time.After(time.Minute)
		synctest.Wait()
		if s := l.Status(); s.State != consumer.StateWriting || s.Reason != "" {
			t.Errorf("got state %s (%s) while the new rows are written, want %s", s.State, s.Reason, consumer.StateWriting)
		}
		close(written)
		synctest.Wait()
		if s := l.Status(); s.Marked != events {
			t.Errorf("got %d marked, want %d", s.Marked, events)
		}
	})
}
