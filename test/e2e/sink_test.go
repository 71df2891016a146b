package e2e_test

import (
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// arrivals notes when batches with rows come to the workspace.
type arrivals struct {
	mu sync.Mutex // guards at
	at []time.Time
}

// faultFirst applies f to the first n batches, all if n is -1, and notes each.
func (s *stage) faultFirst(n int, f emulator.Fault) *arrivals {
	a := &arrivals{}
	s.ws.OnIngest(func(r emulator.IngestRequest) *emulator.Fault {
		if len(r.Rows) == 0 {
			return nil // a probe
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.at = append(a.at, time.Now())
		if n >= 0 && len(a.at) > n {
			return nil
		}
		return &f
	})
	return a
}

func (a *arrivals) times() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.at)
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		fault  emulator.Fault
		pauses []time.Duration // the least before each of the next requests
	}{
		{"429 in seconds", emulator.Fault{Effect: emulator.EffectStatus, Status: http.StatusTooManyRequests, RetryAfter: 3}, []time.Duration{3 * time.Second, 3 * time.Second}},
		{"429 as a date", emulator.Fault{Effect: emulator.EffectStatus, Status: http.StatusTooManyRequests, RetryAfter: 3, AsDate: true}, []time.Duration{2 * time.Second, 2 * time.Second}}, // dates have no fractions
		{"503 in seconds", emulator.Fault{Effect: emulator.EffectStatus, Status: http.StatusServiceUnavailable, RetryAfter: 2}, []time.Duration{2 * time.Second, 2 * time.Second}},
		{"429 without", emulator.Fault{Effect: emulator.EffectStatus, Status: http.StatusTooManyRequests}, []time.Duration{0, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachStage(t, setting{}, func(t *testing.T, s *stage) {
				m := s.beginReady()
				a := s.faultFirst(len(tc.pauses), tc.fault)
				s.p.events(500)
				if duplicates := s.complete(m); duplicates != 0 {
					t.Errorf("got %d duplicates, want none", duplicates)
				}
				at := a.times()
				for i, least := range tc.pauses {
					if got := at[i+1].Sub(at[i]); got < least {
						t.Errorf("request %d came %v after the one before, want at least %v", i+2, got, least)
					}
				}
			})
		})
	}
}

func TestSinkAnswers500ForAWhile(t *testing.T) {
	eachStage(t, setting{partitions: 2}, func(t *testing.T, s *stage) {
		outage := shortened(t, 10*time.Minute, 8*time.Second)
		m := s.beginReady()
		s.p.events(200)
		s.complete(m)
		resolve := s.ws.fault(emulator.Fault{Endpoint: emulator.EndpointIngest, Effect: emulator.EffectStatus, Status: http.StatusInternalServerError})
		began := time.Now()
		s.p.events(5000)
		lasts(t, outage, "the bridge waits, alive and ready to be left alone", func() bool {
			status, _ := m.get("/livez", "")
			return m.running() && status == http.StatusOK && s.ws.table().Count() == 200
		})
		if got := m.integration().Sink; got.Name != "retrying" {
			t.Errorf("got sink state %q, want retrying", got.Name)
		}
		s.nothingPastTheAck()
		resolve()
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none: a refused batch was never kept", duplicates)
		}
		if got := length(t, s.adm, s.topic+"-dlq"); got != 0 {
			t.Errorf("got %d dead letters, want none", got)
		}
		took := time.Since(began)
		if lines := m.logged("is being retried"); lines < 1 || lines > 2+int(took/(30*time.Second)) {
			t.Errorf("got %d lines about retries in %v, want one in 30s", lines, took)
		}
	})
}

// shortened returns how long an outage lasts in this run.
func shortened(t testing.TB, full, short time.Duration) time.Duration {
	if os.Getenv("BRIDGE_LONG_TESTS") == "1" {
		t.Logf("the outage lasts its full %v", full)
		return full
	}
	t.Logf("the outage lasts %v instead of %v; set BRIDGE_LONG_TESTS=1 for its full length", short, full)
	return short
}

func TestConnectionIsCut(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		fault      emulator.Fault
		duplicates bool
	}{
		{"before the rows are kept", emulator.Fault{Effect: emulator.EffectCut}, false},
		{"after the rows are kept", emulator.Fault{Effect: emulator.EffectLoseAck}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachStage(t, setting{}, func(t *testing.T, s *stage) {
				m := s.beginReady()
				s.faultFirst(2, tc.fault)
				s.p.events(1000)
				got := s.complete(m)
				if got > 0 != tc.duplicates {
					t.Errorf("got %d duplicates, want some: %v", got, tc.duplicates)
				}
				s.nothingPastTheAck()
				t.Logf("%d duplicates", got)
			})
		})
	}
}

func TestSlowSinkKeepsItsMember(t *testing.T) {
	slow := emulator.Latency{P50: 8 * time.Second}
	eachStage(t, setting{partitions: 4, workspace: emulator.Config{Latency: slow}}, func(t *testing.T, s *stage) {
		// Each write takes longer than the session, which is as long as a busy
		// machine needs.
		m := s.beginReady("delivery.max_rows=500", "kafka.session_timeout=6s")
		s.p.events(2000)
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none: slow is not down", duplicates)
		}
		if got := m.snapshot().Totals.Rebalances; got != 1 {
			t.Errorf("got %d rebalances, want the first alone: a slow sink must not cost the membership", got)
		}
	})
}

// states are what a bridge may be in when it is stopped.
var states = []struct {
	name string
	// enter puts the workspace into the state; reached reports that the bridge
	// has met it.
	enter   func(s *stage) (reached func(m *member) bool)
	resolve func(s *stage)
	healthy bool // a write in flight is answered in the drain time
}{
	{"idle", func(s *stage) func(*member) bool {
		return func(*member) bool { return s.ws.table().Count() == s.p.total() }
	}, func(*stage) {}, true},
	{"under load", func(s *stage) func(*member) bool {
		return func(*member) bool { return s.ws.table().Count() > 200 }
	}, func(*stage) {}, true},
	{"429 with Retry-After", onState(emulator.Fault{Effect: emulator.EffectStatus, Status: 429, RetryAfter: 60}), noFault, false},
	{"429", onState(emulator.Fault{Effect: emulator.EffectStatus, Status: 429}), noFault, false},
	{"500", onState(emulator.Fault{Effect: emulator.EffectStatus, Status: 500}), noFault, false},
	{"cut before", onState(emulator.Fault{Effect: emulator.EffectCut}), noFault, false},
	{"cut after", onState(emulator.Fault{Effect: emulator.EffectLoseAck}), noFault, false},
	{"never answers", onState(emulator.Fault{Effect: emulator.EffectHang}), noFault, false},
	{"never answers, keeps", onState(emulator.Fault{Effect: emulator.EffectHang, Keep: true}), noFault, false},
	{"slow", onState(emulator.Fault{Effect: emulator.EffectLatency, Latency: emulator.Latency{P50: time.Second}}), noFault, true},
	{"trickling answer", onState(emulator.Fault{Effect: emulator.EffectSlowBody, ByteEveryMS: 1000}), noFault, false},
	{"blocked, 401", func(s *stage) func(*member) bool {
		next := s.ws.rotate()
		s.ws.RevokeTokens()
		s.later = func() { s.ws.write(next) }
		return sinkState("blocked")
	}, func(s *stage) { s.later() }, false},
	{"blocked, columns", func(s *stage) func(*member) bool {
		must(s.t, s.ws.table().DropColumn("user_id"))
		return sinkState("blocked")
	}, func(s *stage) { must(s.t, s.ws.table().AddColumn(emulator.Column{Name: "user_id", Type: "STRING"})) }, false},
	{"blocked, 403", func(s *stage) func(*member) bool {
		must(s.t, s.ws.Revoke(emulator.PrivilegeModify, tableName))
		return sinkState("blocked")
	}, func(s *stage) { must(s.t, s.ws.Grant(emulator.PrivilegeModify, tableName)) }, false},
	{"blocked, 404", func(s *stage) func(*member) bool {
		s.ws.SetIngestAPI(false)
		return sinkState("blocked")
	}, func(s *stage) { s.ws.SetIngestAPI(true) }, false},
	{"token endpoint down", func(s *stage) func(*member) bool {
		s.ws.fault(emulator.Fault{Endpoint: emulator.EndpointToken, Effect: emulator.EffectHang})
		s.ws.RevokeTokens()
		return func(*member) bool { return len(s.ws.Faults()) > 0 && s.ws.Faults()[0].Hits > 0 }
	}, noFault, false},
}

func onState(f emulator.Fault) func(s *stage) func(*member) bool {
	return func(s *stage) func(*member) bool {
		a := s.faultFirst(-1, f)
		return func(*member) bool { return len(a.times()) > 0 }
	}
}

func sinkState(name string) func(*member) bool {
	return func(m *member) bool { return m.integration().Sink.Name == name }
}

func noFault(s *stage) {
	s.ws.OnIngest(nil)
	s.ws.ClearFaults()
}

func TestSIGTERMInEveryStateLosesNothing(t *testing.T) {
	t.Parallel()
	for _, state := range states {
		t.Run(state.name, func(t *testing.T) {
			eachStage(t, setting{partitions: 2, workspace: emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}}}, func(t *testing.T, s *stage) {
				m := s.beginReady("delivery.max_rows=100")
				reached := state.enter(s)
				s.p.events(2000)
				eventually(t, patience, "the state "+state.name, func() bool { return reached(m) })
				took := m.terminate(s.drain + time.Second + slack)
				s.nothingPastTheAck()
				at := s.ws.table().Count()

				state.resolve(s)
				again := s.beginReady("delivery.max_rows=100")
				duplicates := s.complete(again)
				t.Logf("stopped in %v with %d rows; %d duplicates after the restart", took.Round(time.Millisecond), at, duplicates)
				if state.healthy && duplicates != 0 {
					t.Errorf("got %d duplicates, want none: what was in flight could finish", duplicates)
				}
				again.terminate(s.drain + time.Second + slack)
			})
		})
	}
}
