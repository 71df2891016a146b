package live_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/live"
)

// Without viewers a handful of events per second is added, for any number of
// events.
func TestAdmitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := live.NewEventLog(live.ModeMetadata)
		added := 0
		for range 10_000 { // 10 s
			added += f.Admit(5000)
			<-time.After(time.Millisecond)
		}
		if added < 40 || added > 70 {
			t.Errorf("got %d events added in 10 s, want about 5 a second", added)
		}
		if got := f.Admit(0); got != 0 {
			t.Errorf("got %d of no events", got)
		}
	})
}

// A bridge that has just started shows its first events: on a quiet topic there
// may be no others for long.
func TestFirstEventsAreAdmitted(t *testing.T) {
	if got := live.NewEventLog(live.ModeMetadata).Admit(3); got != 3 {
		t.Errorf("got %d of the first 3 events, want all", got)
	}
}

func TestEventLogIsBounded(t *testing.T) {
	f := live.NewEventLog(live.ModeFull)
	for range 100 {
		f.Add(live.Event{Outcome: live.Outcome{Status: live.Rejected}}, 100, nil)
	}
	for range 2000 {
		f.Add(live.Event{Outcome: live.Outcome{Status: live.Delivered}}, 1000, nil)
	}
	all, _ := f.Since(0, 10_000)
	rejected := 0
	for _, e := range all {
		if e.Status == live.Rejected {
			rejected++
		}
	}
	if len(all) != 500 || rejected != 100 {
		t.Errorf("got %d events, %d of them rejected, want 500 with all 100 rejected ones", len(all), rejected)
	}
	for range 2000 {
		f.Add(live.Event{Outcome: live.Outcome{Status: live.Rejected}}, 100, nil)
	}
	if all, _ = f.Since(0, 10_000); len(all) != 500 {
		t.Errorf("got %d events, want 500", len(all))
	}
	for range 100 {
		f.Add(live.Event{Outcome: live.Outcome{Status: live.Delivered}}, 1<<20, nil)
	}
	large := 0
	all, _ = f.Since(0, 10_000)
	for _, e := range all {
		if e.Status == live.Delivered {
			large++
		}
	}
	if large < 1 || large > 4 {
		t.Errorf("got %d events of 1 MiB, want what fits into 4 MiB", large)
	}
	f.SetOutcome(1, live.Outcome{Status: live.Delivered}) // long gone
	if _, _, ok := f.Get(1); ok {
		t.Error("the first event is still there")
	}
}

// However many integrations there are, their logs keep no more content than one, and a
// bounded number of events.
func TestLogsShareTheirBounds(t *testing.T) {
	const many, size = 50, 60 << 10
	page := live.New(live.Config{Mode: live.ModeFull}, func() ops.Status { return ops.Status{} }, zaptest.NewLogger(t))
	defer page.Stop()
	content := func() live.Content { return live.Content{Value: "kept"} }
	first := page.Events("i0")
	for range 600 {
		first.Add(live.Event{}, size, content)
	}
	held := func() (events, bytes int) {
		for i := range many {
			log := page.Events(fmt.Sprintf("i%d", i))
			all, _ := log.Since(0, 10_000)
			events += len(all)
			for _, e := range all {
				if _, open, _ := log.Get(e.ID); open != nil {
					bytes += size
				}
			}
		}
		return events, bytes
	}
	for i := range many {
		page.Events(fmt.Sprintf("i%d", i))
	}
	if events, bytes := held(); bytes < size || bytes > 4<<20/many || events > 100 {
		t.Errorf("got %d events and %d bytes, want what one of %d logs may keep", events, bytes, many)
	}
	for i := range many {
		for range 600 {
			page.Events(fmt.Sprintf("i%d", i)).Add(live.Event{}, size, content)
		}
	}
	if events, bytes := held(); bytes > 4<<20 || bytes < 2<<20 || events > 5000 {
		t.Errorf("got %d events and %d bytes in %d logs, want at most 5000 and 4 MiB", events, bytes, many)
	}
	// An event that is larger than the share is listed without its content.
	id := first.Add(live.Event{}, 200<<10, content)
	if _, open, ok := first.Get(id); !ok || open != nil {
		t.Errorf("a large event: got %v with content %v, want it without", ok, open != nil)
	}
	for i := range many - 1 {
		page.Forget(fmt.Sprintf("i%d", i+1))
	}
	for range 600 {
		first.Add(live.Event{}, 0, nil)
	}
	if all, _ := first.Since(0, 10_000); len(all) != 500 {
		t.Errorf("got %d events in the only log that is left, want 500", len(all))
	}
}

func TestSinceGivesTheNewest(t *testing.T) {
	f := live.NewEventLog(live.ModeMetadata)
	var last uint64
	for range 50 {
		last = f.Add(live.Event{Outcome: live.Outcome{Status: live.InFlight}}, 0, nil)
	}
	changed, rev := f.Since(0, 10)
	if len(changed) != 10 || changed[9].ID != last {
		t.Errorf("got %d changes up to event %d, want the newest 10 up to %d", len(changed), changed[len(changed)-1].ID, last)
	}
	f.SetOutcome(3, live.Outcome{Status: live.Delivered})
	changed, _ = f.Since(rev, 10)
	if len(changed) != 1 || changed[0].ID != 3 || changed[0].Status != live.Delivered {
		t.Errorf("got %+v, want event 3 delivered", changed)
	}
}

func TestFeedFromManySides(t *testing.T) {
	f := live.NewEventLog(live.ModeFull)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				f.Passed(1)
				f.Admit(1)
				id := f.Add(live.Event{Outcome: live.Outcome{Status: live.InFlight}}, 100, func() live.Content { return live.Content{} })
				f.Since(id, 10)
				f.SetOutcome(id, live.Outcome{Status: live.Rejected})
			}
		})
	}
	all.Wait()
	if seen, kept := f.Counts(); seen != 4000 || kept != 4000 {
		t.Errorf("got %d seen and %d kept, want 4000 each", seen, kept)
	}
}

// What a batch costs when nobody looks.
func BenchmarkAdmitIdle(b *testing.B) {
	f := live.NewEventLog(live.ModeMetadata)
	b.ReportAllocs()
	for b.Loop() {
		f.Passed(5000)
		f.Admit(5000)
	}
}
