package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc, fixed for programs at 1/100 s:
// USER_HZ in proc(5).
const tick = 10 * time.Millisecond

// usage of the processors at one moment, since the machine or the process
// started.
type cpuTimes struct {
	at              time.Time
	subject         time.Duration // the measured process
	ours            time.Duration // this process and its children
	busy, steal, up time.Duration // all processors together
}

// readCPU reads the times now; pid is the measured process, 0 for none.
func readCPU(pid int) (t cpuTimes, err error) {
	t.at = time.Now()
	if t.busy, t.steal, t.up, err = machineTimes(); err != nil {
		return t, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return t, err
	}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		parent, cpu, err := processTimes(id)
		if err != nil {
			continue // it has ended meanwhile
		}
		if id == os.Getpid() || parent == os.Getpid() {
			t.ours += cpu
		}
	}
	if pid != 0 {
		t.subject, err = processTime(pid)
	}
	return t, err
}

// processTimes reads a process's parent and its user and system time: fields 4,
// 14 and 15 of /proc/PID/stat, counted from behind the name, which may hold
// anything.
func processTimes(pid int) (parent int, cpu time.Duration, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 13 {
		return 0, 0, fmt.Errorf("/proc/%d/stat has %d fields behind the name, want 13 or more", pid, len(f))
	}
	parent, perr := strconv.Atoi(f[1])
	user, uerr := strconv.Atoi(f[11])
	system, serr := strconv.Atoi(f[12])
	if perr != nil || uerr != nil || serr != nil {
		return 0, 0, fmt.Errorf("/proc/%d/stat holds no numbers where the times belong", pid)
	}
	return parent, time.Duration(user+system) * tick, nil
}

// machineTimes reads the first line of /proc/stat: user, nice, system, idle,
// iowait, irq, softirq, steal.
func machineTimes() (busy, steal, all time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, 0, fmt.Errorf("%w; bench reads processor times from /proc, so run it on Linux", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, 0, 0, fmt.Errorf("/proc/stat begins with %q, want the sum over all processors", line)
	}
	for i, s := range f[1:9] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		d := time.Duration(n) * tick
		all += d
		switch i {
		case 3, 4: // idle, waiting for a disk
		case 7:
			steal += d
		default:
			busy += d
		}
	}
	return busy, steal, all, nil
}

// noise is what else kept the processors busy, as shares of one core.
type noise struct {
	OtherCPU float64 `json:"other_cpu"`
	Steal    float64 `json:"steal"`
}

// noisy is the share of one core from which a round is not believed.
const noisy = 0.10

func (n noise) String() string {
	return fmt.Sprintf("other CPU %.0f %%, steal %.0f %%", 100*n.OtherCPU, 100*n.Steal)
}

func noiseBetween(a, b cpuTimes) noise {
	wall := b.at.Sub(a.at)
	return noise{
		OtherCPU: max(float64((b.busy-a.busy)-(b.ours-a.ours))/float64(wall), 0),
		Steal:    float64(b.steal-a.steal) / float64(wall),
	}
}

// memoryOf reads a process's resident memory and its peak, in bytes.
func memoryOf(pid int) (rss, peak int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "VmRSS" && key != "VmHWM" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/%d/status: %w", pid, err)
		}
		if key == "VmRSS" {
			rss = kib << 10
		} else {
			peak = kib << 10
		}
	}
	if peak == 0 {
		return 0, 0, fmt.Errorf("/proc/%d/status names no VmHWM; the process may have ended", pid)
	}
	return rss, peak, nil
}

// machine says where the figures come from.
type machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Go       string `json:"go"`
	Broker   string `json:"broker"`
	Wire     string `json:"wire"`
	Revision string `json:"revision"`
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores of %s, %s; broker %s; rows over %s; revision %s", m.Cores, m.CPU, m.Go, m.Broker, m.Wire, m.Revision)
}

func thisMachine() machine {
	m := machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version()}
	text, _ := os.ReadFile("/proc/cpuinfo") // only to name it
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}
