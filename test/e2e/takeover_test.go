package e2e_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus/emulator"
)

// Two members share a topic that stays ahead of them; one of them goes.
const (
	takeoverEvents     = 100_000 // produced and not in the table while both are there
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
			s.keepAhead(takeoverEvents)
			return len(first.integration().Partitions) == 2 && len(second.integration().Partitions) == 2
		})
		s.keepAhead(takeoverEvents)
		body(t, s, first, second)
	})
}

func TestTakeoverBySIGTERM(t *testing.T) {
	takeoverStage(t, func(t *testing.T, s *stage, first, second *member) {
		at := s.ws.table().Count()
		took := first.terminate(s.drain + time.Second + slack)
		duplicates := s.complete(second)
		t.Logf("the first left with %d rows in the table, in %v; 0 lost, %d duplicates", at, took.Round(time.Millisecond), duplicates)
		if at >= s.p.total() || duplicates != 0 {
			t.Errorf("got %d duplicates, leaving at %d of %d rows; want none, and events left to take over", duplicates, at, s.p.total())
		}
	})
}

// What the promise about kill -9 speaks of.
const (
	killBacklog = 400_000                // events produced and not in the table when the member dies
	killRows    = 4000                   // delivery.max_rows
	killAck     = 500 * time.Millisecond // the sink's answer time: slow, so that buffers are full
	killSession = 10 * time.Second       // kafka.session_timeout, as docs/operations.md advises
	killTook    = 15 * time.Second       // the promise
	killRoom    = 20 * time.Second       // what a busy machine adds to it: less than the default session does
	killCommit  = 5 * time.Second        // a commit interval, and what a busy machine adds to it
)

// A member dies with its buffers full and 400,000 events on their way. The
// other one continues with its partitions within 15 seconds; what is in the table
// twice is at most what was in flight and a commit interval's worth.
func TestTakeoverByKillNine(t *testing.T) {
	set := setting{partitions: takeoverPartitions, workspace: emulator.Config{Latency: emulator.Latency{P50: killAck}, MaxRows: 1000}}
	eachHeavyStage(t, set, func(t *testing.T, s *stage) {
		s.plain = true // the pace is part of the promise
		sets := []string{"delivery.max_rows=" + fmt.Sprint(killRows), "kafka.session_timeout=" + killSession.String()}
		first, second := s.beginReady(sets...), s.beginReady(sets...)
		eventually(t, patience, "two members with two partitions each", func() bool {
			return len(first.integration().Partitions) == 2 && len(second.integration().Partitions) == 2
		})
		table, arrivals := s.ws.table(), newArrivalLog(t)
		table.OnRows(arrivals.note)
		// The sink is away until the backlog is there: no machine produces too
		// slowly then.
		resolve := s.ws.fault(emulator.Fault{Endpoint: emulator.EndpointIngest, Effect: emulator.EffectStatus, Status: http.StatusServiceUnavailable})
		for range (killBacklog + 100_000) / 50_000 {
			s.p.events(50_000)
		}
		resolve()
		s.rows(first, 4*killRows)
		var last ops.Status
		eventually(t, patience, "full buffers and a write in flight for each partition", func() bool {
			last = first.snapshot()
			writing := 0
			for _, p := range last.Integrations[0].Partitions {
				if p.State == consumer.StateWriting {
					writing++
				}
			}
			return writing == 2 && last.BufferedBytes > last.BufferedLimit/4*3
		}, func() string { return fmt.Sprintf("%d of %d bytes", last.BufferedBytes, last.BufferedLimit) })

		killed := time.Now()
		first.signal(syscall.SIGKILL)
		backlog := s.p.total() - table.Count()
		if code := first.wait(patience); code != -1 {
			t.Fatalf("got exit code %d, want death by signal", code)
		}
		// What it wrote in the last commit interval, and what it had under way.
		interval, inFlight, held := 0, 0, 0
		var orphans []int32
		for _, p := range last.Integrations[0].Partitions {
			orphans = append(orphans, p.Partition)
			interval += arrivals.rows(p.Partition, killed.Add(-killCommit), killed)
			inFlight += min(killRows, p.Pending)
			held += p.Pending
		}
		took := make(map[int32]time.Duration)
		eventually(t, patience, "rows of the dead member's partitions by the other", func() bool {
			owned := second.integration().Partitions
			for _, id := range orphans {
				// The dead member's last requests may be served after it.
				at, ok := arrivals.after(id, killed.Add(2*killAck))
				if ok && took[id] == 0 && slices.ContainsFunc(owned, func(p consumer.PartitionStatus) bool { return p.Partition == id && p.Rows > 0 }) {
					took[id] = at.Sub(killed)
				}
			}
			return len(took) == len(orphans)
		})
		longest := slices.Max(slices.Collect(maps.Values(took)))
		// The emulated service shares a slow machine with all this, and perhaps the race detector.
		eventually(t, patience, "the backlog in the table", func() bool {
			second.alive()
			return table.Count() >= s.p.total()
		}, func() string { return fmt.Sprintf("%d of %d rows", table.Count(), s.p.total()) })
		duplicates := s.complete(second)
		t.Logf("killed with %d events not in the table, %d of them in its memory and %d in its two writes; taken over within %v (session timeout %v); 0 lost, %d duplicates; it had written %d rows in its last %v",
			backlog, held, inFlight, longest.Round(time.Millisecond), killSession, duplicates, interval, killCommit)
		if backlog < killBacklog {
			t.Errorf("got %d events on their way at the kill, want %d or more", backlog, killBacklog)
		}
		if longest > killTook+killRoom {
			t.Errorf("got a takeover in %v, want %v on a quiet machine, and %v more at most", longest, killTook, killRoom)
		}
		if duplicates > inFlight+interval {
			t.Errorf("got %d duplicates, want at most %d in flight and %d of a commit interval", duplicates, inFlight, interval)
		}
	})
}

// arrivalLog records when rows of each partition were kept.
type arrivalLog struct {
	t testing.TB

	mu sync.Mutex // guards at
	at map[int32][]arrival
}

type arrival struct {
	when time.Time
	rows int
}

func newArrivalLog(t testing.TB) *arrivalLog { return &arrivalLog{t: t, at: map[int32][]arrival{}} }

// note is a hook for [emulator.Table.OnRows]. One request holds rows of one
// partition.
func (a *arrivalLog) note(rows []emulator.Row) {
	id, _ := rows[0].Value("message_id")
	partition, _ := parseID(a.t, id)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[partition] = append(a.at[partition], arrival{time.Now(), len(rows)})
}

// rows counts those that came between two moments.
func (a *arrivalLog) rows(partition int32, from, to time.Time) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.at[partition] {
		if one.when.After(from) && !one.when.After(to) {
			n += one.rows
		}
	}
	return n
}

// after returns when the first rows after a moment came.
func (a *arrivalLog) after(partition int32, moment time.Time) (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.at[partition] {
		if one.when.After(moment) {
			return one.when, true
		}
	}
	return time.Time{}, false
}
