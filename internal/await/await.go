// Package await waits for conditions in tests, with limits that suit a busy
// machine. A wait ends as soon as its condition holds, so the limit only delays
// tests that fail.
package await

import (
	"testing"
	"time"
)

// Patience is the longest wait for what usually takes moments. With the race
// detector on an overloaded machine, seconds become minutes.
const Patience = 5 * time.Minute

// report is the time left for a failed test to report before the deadline of the
// test binary, which ends it with a dump.
const report = 30 * time.Second

// Limit is Patience, or less if the deadline of the test binary is near.
func Limit(t testing.TB) time.Duration {
	t.Helper()
	if binary, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if at, ends := binary.Deadline(); ends {
			return max(min(Patience, time.Until(at)-report), 0)
		}
	}
	return Patience
}

// That waits until holds returns true. After [Limit], it fails the test with what
// and with what each of last returns.
func That(t testing.TB, what string, holds func() bool, last ...func() string) {
	t.Helper()
	limit := Limit(t)
	if Within(limit, holds) {
		return
	}
	details := ""
	for _, f := range last {
		details += "\n" + f()
	}
	t.Fatalf("waited %v for this: %s%s", limit.Round(time.Second), what, details)
}

// Within waits for holds to return true, for d at most, and returns whether it
// did. Use it if d is a bound that the program itself promises. It calls holds less
// and less often, down to twenty times a second, to spare a busy machine.
func Within(d time.Duration, holds func() bool) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	pause := time.Millisecond
	next := time.NewTimer(pause)
	defer next.Stop()
	for !holds() {
		select {
		case <-next.C:
			pause = min(pause*3/2, 50*time.Millisecond)
			next.Reset(pause)
		case <-deadline.C:
			return holds()
		}
	}
	return true
}
