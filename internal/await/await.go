// Package await is how tests wait: for the thing itself, and so long that no
// machine is too busy for it. A test that is right ends as soon as the thing
// holds, so the length of the wait costs nothing; it only bounds a test that is
// about to fail.
package await

import (
	"testing"
	"time"
)

// Patience is how long a test waits at most for what should take moments. The
// race detector on a machine with ten times as much work as it has cores makes
// minutes of seconds.
const Patience = 5 * time.Minute

// report is what stays of the test binary's own time for a test that failed to
// say so: at the deadline itself the binary ends with nothing but a dump.
const report = 30 * time.Second

// Limit is Patience, or less where the test binary's own deadline is near.
func Limit(t testing.TB) time.Duration {
	t.Helper()
	if binary, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if at, ends := binary.Deadline(); ends {
			return max(min(Patience, time.Until(at)-report), 0)
		}
	}
	return Patience
}

// That waits until holds returns true. When [Limit] is over, the test ends with
// what was waited for and with what each of last returns.
func That(t testing.TB, what string, holds func() bool, last ...func() string) {
	t.Helper()
	limit := Limit(t)
	if Within(limit, holds) {
		return
	}
	said := ""
	for _, f := range last {
		said += "\n" + f()
	}
	t.Fatalf("waited %v for this: %s%s", limit.Round(time.Second), what, said)
}

// Within waits for holds as [That] does, for d at most, and returns whether it
// came to hold. Use it where d is a bound that the program itself promises. It
// asks less and less often, up to twenty times a second: what takes long to come
// may take long to ask for, and a busy machine has other things to do.
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
