package e2e_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// Two members share 400,000 events; one of them goes.
const (
	takeoverEvents     = 400_000
	takeoverPartitions = 4
	takeoverRows       = 1000                  // delivery.max_rows
	takeoverAck        = 50 * time.Millisecond // the sink's answer time
)

func takeoverStage(t *testing.T, body func(t *testing.T, s *stage, first, second *member)) {
	set := setting{partitions: takeoverPartitions, workspace: emulator.Config{Latency: emulator.Latency{P50: takeoverAck}, MaxRows: 1000}}
	eachHeavyStage(t, set, func(t *testing.T, s *stage) {
		s.drain = 10 * time.Second
		s.plain = true // the pace is part of the promise
		s.write()
		s.p.events(takeoverEvents)
		first := s.beginReady("delivery.max_rows=1000")
		s.rows(first, 20_000)
		second := s.beginReady("delivery.max_rows=1000")
		eventually(t, patience, "two members with two partitions each", func() bool {
			first.alive()
			return len(first.snapshot().Partitions) == 2 && len(second.snapshot().Partitions) == 2
		})
		if got := s.ws.table().Count(); got > takeoverEvents/2 {
			t.Logf("%d of %d events were through before both members had partitions", got, takeoverEvents)
		}
		body(t, s, first, second)
	})
}

func TestTakeoverBySIGTERM(t *testing.T) {
	takeoverStage(t, func(t *testing.T, s *stage, first, second *member) {
		at := s.ws.table().Count()
		took := first.terminate(s.drain + time.Second + slack)
		duplicates := s.complete(second)
		t.Logf("the first left with %d rows in the table, in %v; 0 lost, %d duplicates", at, took.Round(time.Millisecond), duplicates)
		if at >= takeoverEvents || duplicates != 0 {
			t.Errorf("got %d duplicates, leaving at %d rows; want none, and events left to take over", duplicates, at)
		}
	})
}

func TestTakeoverByKillNine(t *testing.T) {
	takeoverStage(t, func(t *testing.T, s *stage, first, second *member) {
		first.signal(syscall.SIGKILL)
		if code := first.wait(patience); code != -1 {
			t.Fatalf("got exit code %d, want death by signal", code)
		}
		at, safe := s.ws.table().Count(), sum(committed(t, s.adm, s.group, s.topic))
		killed := time.Now()
		owned := func() int { return len(second.snapshot().Partitions) }
		eventually(t, patience, "all partitions with the second member", func() bool { return owned() == takeoverPartitions })
		moved := time.Since(killed)
		duplicates := s.complete(second)
		// Of its two partitions, one batch each in flight, and what they write
		// in a commit interval of one second.
		inFlight := takeoverPartitions / 2 * takeoverRows
		interval := inFlight * int(time.Second/takeoverAck)
		t.Logf("killed with %d rows in the table and %d offsets committed; partitions moved after %v (session timeout %v); 0 lost, %d duplicates; at most %d in flight and %d in a commit interval",
			at, safe, moved.Round(time.Millisecond), session, duplicates, inFlight, interval)
		if at >= takeoverEvents || duplicates > inFlight+interval {
			t.Errorf("got %d duplicates, killed at %d rows; want at most %d, and events left to take over", duplicates, at, inFlight+interval)
		}
	})
}
