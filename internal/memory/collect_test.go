package memory_test

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/memory"
)

func gogc() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// collectUntil collects garbage until GOGC is as wanted: what sets it runs after a collection.
func collectUntil(t *testing.T, want string, is func(percent uint64) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(gogc()); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("GOGC is %d, want %s", gogc(), want)
		}
		runtime.GC()
	}
}

func TestSmallHeapsAreCollectedLessOften(t *testing.T) {
	t.Setenv("GOGC", "")
	k := memory.NewKeeper()
	k.SetPlan(defaults(4))
	k.Enforce()
	defer k.Release()
	collectUntil(t, "more than 100 while few MiB are in use", func(p uint64) bool { return p > 100 })

	// The most that the heap may reach before the next collection: about twice the 12 MiB
	// from where on Go's own GOGC holds, and 20 percent that are not set.
	sample := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	metrics.Read(sample)
	if goal := sample[0].Value.Uint64(); goal > 32*mib {
		t.Errorf("the heap may reach %d MiB, want 32 at most", goal/mib)
	}

	large := make([]byte, 40*mib)
	collectUntil(t, "100 while 40 MiB are in use", func(p uint64) bool { return p == 100 })
	runtime.KeepAlive(large)

	collectUntil(t, "more than 100 when they are free again", func(p uint64) bool { return p > 100 })
	k.Release()
	if got := gogc(); got != 100 {
		t.Errorf("GOGC is %d after Release, want 100", got)
	}
	for range 3 {
		runtime.GC()
	}
	if got := gogc(); got != 100 {
		t.Errorf("GOGC is %d some collections after Release, want 100", got)
	}
}

func TestOperatorsGOGCStays(t *testing.T) {
	t.Setenv("GOGC", "100")
	k := memory.NewKeeper()
	k.Enforce()
	defer k.Release()
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	for range 3 {
		runtime.GC()
	}
	if got := gogc(); got != 77 {
		t.Errorf("GOGC is %d, want the 77 that were set", got)
	}
}
