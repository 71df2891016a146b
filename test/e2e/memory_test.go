package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// The bound of docs/operations.md for the defaults and one broker, in MiB:
// twice delivery.max_buffered, two fetch answers of kafka.fetch_max_bytes (the
// events are not compressed here), and 96.
const publishedBound = 2*64 + 2*4 + 96

// A sink that is away while the topic holds more than memory may.
func TestSinkDownUnderLoad(t *testing.T) {
	const (
		partitions = 12
		pad        = 4 << 10
		events     = 300 << 20 / pad
	)
	// Alone: the collector of a process that other tests keep from the cores runs
	// late, and the peak is then the machine's.
	eachHeavyStage(t, setting{partitions: partitions, workspace: emulator.Config{MaxRows: 1000}}, func(t *testing.T, s *stage) {
		outage := shortened(t, 2*time.Minute, 15*time.Second)
		s.plain = true // the race detector has a memory of its own
		fault := emulator.Fault{Effect: emulator.EffectStatus, Status: http.StatusServiceUnavailable}
		if !s.broker.Apache() {
			fault = emulator.Fault{Effect: emulator.EffectHang} // so both are seen
		}
		s.p.pad = pad
		s.p.events(events / 2)
		m := s.begin()
		eventually(t, patience, "rows", func() bool { return s.ws.table().Count() > 0 })
		s.faultFirst(-1, fault)
		s.p.events(events - events/2)
		lasts(t, outage, "the bridge lives", func() bool {
			status, _ := m.get("/livez", "")
			return m.running() && status == http.StatusOK
		})
		down := m.peakMiB(t)
		got := m.snapshot()
		if got.BufferedBytes > got.BufferedLimit+8<<20 {
			t.Errorf("got %d bytes buffered, want at most %d and one fetch answer", got.BufferedBytes, got.BufferedLimit)
		}
		s.ws.OnIngest(nil)
		began := time.Now()
		duplicates := s.complete(m)
		t.Logf("%s: peak RSS %d MiB while down, %d MiB in all, of %d; %d events of %d KiB afterwards in %v, %d duplicates",
			fault.Effect, down, m.peakMiB(t), publishedBound, events, pad>>10, time.Since(began).Round(time.Millisecond), duplicates)
		if peak := m.peakMiB(t); peak > publishedBound {
			t.Errorf("got a peak RSS of %d MiB, want at most the published %d", peak, publishedBound)
		}
		m.terminate(s.drain + time.Second + slack)
	})
}

// peakMiB is the largest resident set the child has had, which the kernel
// keeps.
func (m *member) peakMiB(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		t.Skipf("the peak RSS is read from /proc: %v", err)
	}
	for line := range strings.Lines(string(data)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib >> 10
		}
	}
	t.Fatal("no VmHWM in /proc/<pid>/status")
	return 0
}
