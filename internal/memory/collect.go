package memory

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// leastHeap is how large the heap may become, in bytes, before the garbage collector runs.
// Go lets the heap double, and a bridge at the usual rates keeps a few MiB. It collected
// twenty times a second, which took a quarter of its processor time.
const leastHeap = 24 << 20

// percent returns the GOGC for a heap of which so many bytes are live, and for that many
// bytes of stacks and globals: Go's own 100, or more where that would collect below
// leastHeap.
func percent(live, roots uint64) int {
	const most = leastHeap * 100 / (4 << 20) // Go does not collect below 4 MiB times GOGC / 100
	if 2*live >= leastHeap {
		return 100
	}
	return max(100, int(min((leastHeap-live)*100/(live+roots+1), most)))
}

// watched is unreachable, so that its finalizer runs with the next garbage collection.
type watched struct{ _ *byte }

// watchCollections sets GOGC now and after each garbage collection, until Release. The
// caller holds mu.
func (k *Keeper) watchCollections() {
	k.percent = 100
	k.setPercent()
	runtime.SetFinalizer(&watched{}, k.collected)
}

func (k *Keeper) collected(*watched) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.percent != 0 {
		k.setPercent()
		runtime.SetFinalizer(&watched{}, k.collected)
	}
}

// setPercent sets GOGC where the difference matters: the process stops for a moment.
func (k *Keeper) setPercent() {
	if next := percent(heap()); next == 100 && k.percent != 100 || next < k.percent-20 || next > k.percent+20 {
		k.percent = next
		debug.SetGCPercent(next)
	}
}

// heap returns the bytes that the last garbage collection found in use, and those of stacks
// and globals, which count in the next one's goal.
func heap() (live, roots uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64() + samples[2].Value.Uint64()
}
