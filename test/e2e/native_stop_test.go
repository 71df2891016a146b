package e2e_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// Rows on streams are acknowledged and committed when the bridge is stopped, and
// not written again: the close grace is longer than the acknowledgements take.
func TestNativeSIGTERMDrains(t *testing.T) {
	set := setting{partitions: 4, workspace: emulator.Config{Latency: emulator.Latency{P50: 300 * time.Millisecond}, StreamMaxAge: time.Second, CloseWindow: 3 * time.Second}}
	eachNative(t, set, func(t *testing.T, s *stage, _ string) {
		s.p.events(4000)
		m := s.beginReady("delivery.max_rows=100")
		s.rows(m, 400)
		took := m.terminate(s.drain + time.Second + slack)
		at := s.ws.table().Count()
		s.nothingPastTheAck()
		if got := sum(committed(t, s.adm, s.group, s.topic)); at >= 4000 || got != int64(at) {
			t.Errorf("got %d offsets committed and %d rows, want as many of each, and fewer than 4000", got, at)
		}
		if got := m.logged("batch abandoned"); got != 0 {
			t.Errorf("got %d batches abandoned, want none", got)
		}
		again := s.beginReady()
		if duplicates := s.complete(again); duplicates != 0 {
			t.Errorf("got %d duplicates, want none: what was in flight could finish", duplicates)
		}
		t.Logf("stopped in %v with %d rows", took.Round(time.Millisecond), at)
		again.terminate(s.drain + time.Second + slack)
		s.inOrder(t)
		ctx, cancel := within()
		defer cancel()
		must(t, s.ws.WaitStreams(ctx, 0)) // none is left open behind
	})
}

// nativeStates are what streams may be in when the bridge is stopped.
var nativeStates = []struct {
	name  string
	fault emulator.Fault
}{
	{"unavailable", emulator.Fault{Effect: emulator.EffectStatus, GRPCCode: "UNAVAILABLE"}},
	{"cut after the rows are kept", emulator.Fault{Effect: emulator.EffectLoseAck}},
	{"half-open", emulator.Fault{Effect: emulator.EffectFreeze}},
	{"never reads on", emulator.Fault{Effect: emulator.EffectHang}},
	{"never acknowledges", emulator.Fault{Effect: emulator.EffectStallAcks}},
	{"always about to close", emulator.Fault{Effect: emulator.EffectCloseSignal}},
}

func TestNativeSIGTERMInEveryStateLosesNothing(t *testing.T) {
	t.Parallel()
	for _, state := range nativeStates {
		t.Run(state.name, func(t *testing.T) {
			eachStage(t, setting{partitions: 2, workspace: emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}}}, func(t *testing.T, s *stage) {
				s.drain = time.Second
				s.write()
				s.native("grpc")
				m := s.beginReady("delivery.max_rows=100")
				f := state.fault
				f.Endpoint = emulator.EndpointStream
				s.ws.fault(f)
				s.p.events(2000)
				eventually(t, patience, "the state "+state.name, func() bool { return s.ws.Faults()[0].Hits > 0 })
				took := m.terminate(s.drain + time.Second + slack)
				s.nothingPastTheAck()
				s.ws.ClearFaults()
				at := s.ws.table().Count()
				again := s.beginReady()
				duplicates := s.complete(again)
				t.Logf("stopped in %v with %d rows; %d duplicates after the restart", took.Round(time.Millisecond), at, duplicates)
				again.terminate(s.drain + time.Second + slack)
				s.inOrderBut(t, duplicates)
			})
		})
	}
}

// A member that is killed with streams open loses nothing, and what comes twice
// is what it had in flight or not committed.
func TestNativeTakeoverByKillNine(t *testing.T) {
	const (
		events, partitions, maxRows = 60_000, 4, 250
		ack                         = 50 * time.Millisecond
	)
	set := setting{partitions: partitions, workspace: emulator.Config{Latency: emulator.Latency{P50: ack}, StreamMaxAge: 2 * time.Second}}
	eachStage(t, set, func(t *testing.T, s *stage) {
		s.plain = true // the pace is part of the promise
		s.native("grpc")
		s.p.events(events)
		first := s.beginReady("delivery.max_rows=250", "kafka.session_timeout=6s")
		s.rows(first, 2000)
		second := s.beginReady("delivery.max_rows=250", "kafka.session_timeout=6s")
		eventually(t, patience, "two members with two partitions each", func() bool {
			first.alive()
			s.keepAhead(events / 2)
			return len(first.integration().Partitions) == 2 && len(second.integration().Partitions) == 2
		})
		s.keepAhead(events / 2)
		first.signal(syscall.SIGKILL)
		if code := first.wait(patience); code != -1 {
			t.Fatalf("got exit code %d, want death by signal", code)
		}
		at := s.ws.table().Count()
		duplicates := s.complete(second)
		inFlight := partitions / 2 * maxRows
		interval := inFlight * int(time.Second/ack)
		t.Logf("killed with %d rows in the table; 0 lost, %d duplicates; at most %d in flight and %d in a commit interval", at, duplicates, inFlight, interval)
		if at >= s.p.total() || duplicates > inFlight+interval {
			t.Errorf("got %d duplicates, killed at %d rows; want at most %d, and events left to take over", duplicates, at, inFlight+interval)
		}
		second.terminate(s.drain + time.Second + slack)
		s.nothingPastTheAck()
	})
}

// Streams that end by their age are no failure: nothing is retried, nothing
// comes twice, nothing is said.
func TestNativeStreamsThatAgeAreNoFailure(t *testing.T) {
	set := setting{partitions: 4, workspace: emulator.Config{Latency: emulator.Latency{P50: 30 * time.Millisecond}, StreamMaxAge: time.Second, CloseWindow: 3 * time.Second}}
	eachStage(t, set, func(t *testing.T, s *stage) {
		s.native("grpc", "streams: 2")
		m := s.beginReady("delivery.max_rows=20")
		s.p.events(8000)
		eventually(t, patience, "8000 rows", func() bool {
			if got := m.integration().Sink.Name; got != "ready" {
				t.Fatalf("got sink state %q, want ready all the time", got)
			}
			return s.ws.table().Count() >= 8000
		})
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none", duplicates)
		}
		s.inOrder(t)
		if got := s.ws.Stats().StreamsOpened; got < 6 {
			t.Errorf("got %d streams, want at least 6: two, each replaced several times", got)
		}
		if got := m.snapshot().Totals; got.SinkRetries != 0 {
			t.Errorf("got %d retries, want none", got.SinkRetries)
		}
		if got := m.logged("stream"); got > 1 {
			t.Errorf("got %d lines about streams, want the first alone", got)
		}
		m.terminate(s.drain + time.Second + slack)
	})
}
