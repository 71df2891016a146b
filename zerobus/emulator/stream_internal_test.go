package emulator

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestAckLatencyFollowsTheDistribution plays writers that each wait for their ack
// before they send again, in virtual time: however many share a stream, the
// quantiles are those of the configuration.
func TestAckLatencyFollowsTheDistribution(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	l := Latency{P50: 150 * time.Millisecond, P95: 500 * time.Millisecond}
	for _, writers := range []int{1, 8, 64} {
		q := ackQueue{interval: time.Millisecond, latency: func() time.Duration { return l.draw(random.NormFloat64) }}
		start := time.Unix(0, 0)
		var took []time.Duration
		sent := map[int64]time.Time{} // offset -> when
		var offset int64
		send := func(at time.Time) {
			sent[offset] = at
			q.add(offset, 1, at)
			offset++
		}
		for range writers {
			send(start)
		}
		for done := int64(0); len(took) < 20_000; {
			at, ok := q.next()
			if !ok {
				t.Fatal("no ack is due though messages wait")
			}
			upTo, rows, ok := q.take(at)
			if !ok || rows != upTo-done+1 {
				t.Fatalf("take: got offset %d, %d rows, %v, want those from %d", upTo, rows, ok, done)
			}
			for ; done <= upTo; done++ {
				took = append(took, at.Sub(sent[done]))
				delete(sent, done)
				send(at.Add(time.Duration(random.IntN(int(20 * time.Millisecond)))))
			}
		}
		slices.Sort(took)
		p50, p95 := took[len(took)/2], took[len(took)*95/100]
		if p50 < 120*time.Millisecond || p50 > 190*time.Millisecond || p95 < 400*time.Millisecond || p95 > 600*time.Millisecond {
			t.Errorf("%d writers: got p50 %v, p95 %v, want about %v", writers, p50, p95, l)
		}
	}
}

func TestAcksAreGatheredOverTheInterval(t *testing.T) {
	now := time.Unix(100, 0)
	at := func(ms int) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
	q := ackQueue{interval: 20 * time.Millisecond, every: 3, latency: func() time.Duration { return 0 }}
	q.add(0, 5, at(0))
	if offset, rows, ok := q.take(at(0)); !ok || offset != 0 || rows != 5 {
		t.Errorf("an idle stream's first: got %d, %d, %v, want it at once", offset, rows, ok)
	}
	q.add(1, 1, at(1))
	if next, ok := q.next(); !ok || !next.Equal(at(20)) {
		t.Errorf("next: got %v, want the interval's end", next)
	}
	if _, _, ok := q.take(at(19)); ok {
		t.Error("within the interval: got an ack")
	}
	q.add(2, 1, at(4))
	q.add(3, 1, at(8))
	if offset, rows, ok := q.take(at(8)); !ok || offset != 3 || rows != 3 {
		t.Errorf("three wait: got %d, %d, %v, want an ack of 3 before the interval is over", offset, rows, ok)
	}
	q.add(4, 1, at(30))
	q.hold(at(30), time.Second)
	if _, _, ok := q.take(at(1029)); ok {
		t.Error("held: got an ack")
	}
	if offset, _, ok := q.take(at(1030)); !ok || offset != 4 {
		t.Errorf("held no more: got %d, %v, want 4", offset, ok)
	}
	if _, ok := q.next(); ok {
		t.Error("nothing waits: got a next ack")
	}
	q.latency = func() time.Duration { return time.Second }
	for i := range int64(10_000) {
		q.add(5+i, 1, at(2000).Add(time.Duration(i)*time.Microsecond))
	}
	if got := len(q.marks); got > 12 {
		t.Errorf("marks of 10,000 messages in 10 ms: got %d, want them to share", got)
	}
	if offset, rows, ok := q.drain(); !ok || offset != 10_004 || rows != 10_000 {
		t.Errorf("drain: got %d, %d, %v", offset, rows, ok)
	}
}

func TestEndedStreamsAreBounded(t *testing.T) {
	s := newStats()
	for range maxEndedStreams + 1 {
		l := &liveStream{table: &Table{}}
		s.streamOpened(l)
		s.sideEnded(l, statusOK)
		s.sideEnded(l, nil)
	}
	if len(s.ended) != maxEndedStreams || s.ended[0].number != 2 || len(s.open) != 0 {
		t.Errorf("got %d streams from number %d on and %d open, want the last %d", len(s.ended), s.ended[0].number, len(s.open), maxEndedStreams)
	}
}
