package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/procfs"
)

// tick is the unit of processor time in /proc: USER_HZ in proc(5).
const tick = 10 * time.Millisecond

// cpuTimes is the usage of the processors at one moment, since the machine or the
// process started.
type cpuTimes struct {
	at          time.Time
	subject     time.Duration // the measured process and those it started
	ours        time.Duration // this process and those it started
	busy, steal time.Duration // all processors together
}

// readCPU reads the times now; pid is the measured process, 0 for none.
func readCPU(pid int) (t cpuTimes, err error) {
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	t.at = time.Now()
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return t, fmt.Errorf("%w; bench reads processor times from /proc, so run it on Linux", err)
	}
	machine, err := fs.Stat()
	if err != nil {
		return t, err
	}
	c := machine.CPUTotal
	t.busy, t.steal = seconds(c.User+c.Nice+c.System+c.IRQ+c.SoftIRQ), seconds(c.Steal)
	all, err := processes(fs)
	if err != nil {
		return t, err
	}
	for _, s := range all.tree(os.Getpid()) {
		t.ours += seconds(s.CPUTime())
	}
	if pid == 0 {
		return t, nil
	}
	if t.subject, err = processTime(pid); err != nil {
		return t, err
	}
	for _, s := range all.tree(pid) {
		if s.PID != pid {
			if own, err := processTime(s.PID); err == nil { // else it has ended meanwhile, and its parent has its time
				t.subject += own
			}
		}
		t.subject += time.Duration(s.CUTime+s.CSTime) * tick // of those that ended before
	}
	return t, nil
}

// table is every process of the machine, by its parent.
type table map[int][]procfs.ProcStat

func processes(fs procfs.FS) (table, error) {
	all, err := fs.AllProcs()
	if err != nil {
		return nil, err
	}
	by := table{}
	for _, p := range all {
		if s, err := p.Stat(); err == nil { // others have ended meanwhile
			by[s.PPID] = append(by[s.PPID], s)
		}
	}
	return by, nil
}

// tree returns a process and all below it; nothing if it has ended.
func (t table) tree(pid int) (out []procfs.ProcStat) {
	for _, all := range t {
		for _, s := range all {
			if s.PID == pid {
				out = append(out, s)
			}
		}
	}
	for i := 0; i < len(out); i++ {
		out = append(out, t[out[i].PID]...)
	}
	return out
}

// noise is what else kept the processors busy, as shares of one core.
type noise struct {
	OtherCPU float64 `json:"other_cpu"`
	Steal    float64 `json:"steal"`
}

// noisy is the share of one core from which a run does not count.
const noisy = 0.10

func (n noise) String() string {
	return fmt.Sprintf("other CPU %.0f %%, steal %.0f %%", 100*n.OtherCPU, 100*n.Steal)
}

func noiseBetween(a, b cpuTimes) noise {
	wall := float64(b.at.Sub(a.at))
	return noise{OtherCPU: max(float64((b.busy-a.busy)-(b.ours-a.ours))/wall, 0), Steal: float64(b.steal-a.steal) / wall}
}

// memoryOfTree adds the memory of a process and of those it started. Peaks need not
// coincide, so theirs is an upper bound.
func memoryOfTree(pid int) (rss, peak int64, err error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, 0, err
	}
	all, err := processes(fs)
	if err != nil {
		return 0, 0, err
	}
	for _, s := range all.tree(pid) {
		r, p, merr := memoryOf(s.PID)
		if merr != nil && s.PID == pid {
			return 0, 0, merr
		}
		rss, peak = rss+r, peak+p
	}
	return rss, peak, nil
}

// memoryOf reads a process's resident memory and its peak, in bytes.
func memoryOf(pid int) (rss, peak int64, err error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, 0, err
	}
	s, err := p.NewStatus()
	if err == nil && s.VmHWM == 0 {
		err = errors.New("no VmHWM; the process may have ended")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("/proc/%d/status: %w", pid, err)
	}
	return int64(s.VmRSS), int64(s.VmHWM), nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// machine describes where the figures come from.
type machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Go       string `json:"go"`
	Broker   string `json:"broker"`
	Protocol string `json:"protocol"` // of rows
	Revision string `json:"revision"`
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores of %s, %s; broker %s; rows over %s; revision %s", m.Cores, m.CPU, m.Go, m.Broker, m.Protocol, m.Revision)
}

func thisMachine() machine {
	m := machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version()}
	if fs, err := procfs.NewDefaultFS(); err == nil { // only to name it
		if info, err := fs.CPUInfo(); err == nil && len(info) > 0 {
			m.CPU = info[0].ModelName
		}
	}
	return m
}
