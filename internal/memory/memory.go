// Package memory computes how much memory the bridge may use and sets the soft
// limit of the Go runtime. The documented bound, the soft limit and the warnings
// all come from [Plan.Bound].
package memory

import (
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
)

const mebi = 1 << 20

// Constants of the bound; docs/performance.md describes how each was measured.
const (
	// Ratio is how much larger than on the wire fetched events may be. Answers that
	// decompress to more are fetched in smaller pieces.
	Ratio = 2
	// perPartition is the goroutine, mapper, connection and share of batches of one
	// partition.
	perPartition = mebi / 5
	// base is the memory of an idle process with one integration, and perIntegration
	// that of each further one: its Kafka clients, goroutines and metrics.
	base           = 80 * mebi
	perIntegration = 2 * mebi
	// fetchFloor is the least that a client requests from a broker at a time, where
	// many integrations share the process. An event that is larger arrives all the
	// same: brokers return one batch at least.
	fetchFloor = 64 << 10
	// outside is what the resident set may hold above the soft limit: program code,
	// which the Go runtime does not count, and allocations during a GC cycle.
	outside = 64 * mebi
	// unlimited is where numbers begin that mean no limit, as the kernel and the Go
	// runtime write them.
	unlimited = 1 << 60
)

// Plan holds what the memory of one process depends on, sizes in bytes.
type Plan struct {
	MaxBuffered   int64 // delivery.max_buffered
	MaxBytes      int64 // delivery.max_bytes; of several integrations the largest
	FetchMaxBytes int64 // kafka.fetch_max_bytes
	Brokers       int   // of the cluster; 0 counts as 1
	Partitions    int   // assigned to this process, of all integrations
	Integrations  int   // that share the process, running or not; 0 counts as 1
}

// Total returns the plan of a process that runs the integrations of plans. They
// share one buffer and one cluster.
func Total(plans iter.Seq[Plan]) (sum Plan) {
	for p := range plans {
		sum.MaxBuffered, sum.MaxBytes = max(sum.MaxBuffered, p.MaxBuffered), max(sum.MaxBytes, p.MaxBytes)
		sum.FetchMaxBytes, sum.Brokers = max(sum.FetchMaxBytes, p.FetchMaxBytes), max(sum.Brokers, p.Brokers)
		sum.Partitions += p.Partitions
		sum.Integrations += max(p.Integrations, 1)
	}
	return sum
}

// Bound returns the resident memory to plan with, in bytes. Rows in flight are at
// most one full write per partition, and at most what all buffered events make.
func (p Plan) Bound() int64 {
	integrations := int64(max(p.Integrations, 1))
	rows := min(int64(p.Partitions)*p.MaxBytes, p.Buffered()*45/100)
	return 2*(p.Buffered()+rows) + 2*integrations*p.Fetched() + int64(p.Partitions)*perPartition + base + (integrations-1)*perIntegration
}

// Buffered returns the most bytes of events that are polled and not yet durable.
// Several integrations may hold half of MaxBuffered more: see consumer.Budget.
func (p Plan) Buffered() int64 {
	if p.Integrations > 1 {
		return p.MaxBuffered + p.MaxBuffered/2
	}
	return p.MaxBuffered
}

// FetchMax returns how many bytes the client of one integration requests from a
// broker at a time: its share of FetchMaxBytes, and 64 KiB at least.
func (p Plan) FetchMax() int64 {
	return max(p.FetchMaxBytes/int64(max(p.Integrations, 1)), min(fetchFloor, p.FetchMaxBytes))
}

// Fetched returns the bytes of events, decompressed, that the Kafka client of one
// integration may hold besides the buffered ones.
func (p Plan) Fetched() int64 { return int64(max(p.Brokers, 1)) * p.FetchMax() * Ratio }

// SoftLimit returns the limit for the Go runtime that keeps the process within the
// bound and within the limit of its control group; cgroup is 0 without one.
func (p Plan) SoftLimit(cgroup int64) int64 {
	limit := p.Bound() - outside
	if cgroup > 0 {
		limit = min(limit, cgroup-min(max(cgroup/8, outside), cgroup/2))
	}
	return limit
}

// Fits returns an error with the keys to lower if the bound exceeds the limit of
// the control group; cgroup is 0 without one.
func (p Plan) Fits(cgroup int64) error {
	bound := p.Bound()
	if cgroup <= 0 || bound <= cgroup {
		return nil
	}
	shared := ""
	if p.Integrations > 1 {
		shared = fmt.Sprintf(" of %d integrations", p.Integrations)
	}
	return fmt.Errorf("up to %d MiB are needed for %d partitions%s and %d brokers, and the memory limit of the control group is %d MiB; "+
		"raise the limit, or lower delivery.max_buffered (%d MiB) or kafka.fetch_max_bytes (%.3g MiB)",
		MiB(bound), p.Partitions, shared, max(p.Brokers, 1), MiB(cgroup), MiB(p.MaxBuffered), float64(p.FetchMaxBytes)/mebi)
}

// MiB rounds bytes up to MiB.
func MiB(n int64) int64 { return (n + mebi - 1) / mebi }

// CgroupLimit returns the memory limit of the process's control group, in bytes;
// 0 is none.
func CgroupLimit() int64 { return CgroupLimitIn(os.DirFS("/")) }

// CgroupLimitIn is CgroupLimit with the given root directory.
func CgroupLimitIn(root fs.FS) int64 {
	limit := int64(unlimited)
	for line := range strings.Lines(read(root, "proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			limit = min(limit, lowest(root, "sys/fs/cgroup", parts[2], "memory.max"))
		case strings.Contains(","+parts[1]+",", ",memory,"):
			limit = min(limit, lowest(root, "sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes"))
		}
	}
	if limit >= unlimited {
		return 0
	}
	return limit
}

// lowest returns the lowest limit of a group and its parents. In a container the
// path may be the host's, so the walk ends at the mount, the container's own group.
func lowest(root fs.FS, mount, group, file string) int64 {
	limit := int64(unlimited)
	for dir := path.Join("/", group); ; dir = path.Dir(dir) {
		if n, err := strconv.ParseInt(read(root, path.Join(mount, dir, file)), 10, 64); err == nil && n > 0 {
			limit = min(limit, n)
		}
		if dir == "/" {
			return limit
		}
	}
}

func read(root fs.FS, name string) string {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return "" // as if there were no limit
	}
	return strings.TrimSpace(string(data))
}

// Keeper sets the soft limit of the Go runtime from a plan, and how often garbage is
// collected, from Enforce to Release. It changes nothing that the operator has set by
// GOMEMLIMIT or GOGC. It is safe for concurrent use.
type Keeper struct {
	cgroup       int64
	limited      bool // GOMEMLIMIT is set
	tunedPercent bool // GOGC is set

	mu      sync.Mutex // guards the fields below
	plan    Plan
	before  int64 // limit before Enforce; 0: not enforced
	percent int   // GOGC as set last; 0: not enforced
}

// NewKeeper returns a Keeper that enforces nothing yet.
func NewKeeper() *Keeper {
	return &Keeper{cgroup: CgroupLimit(), limited: os.Getenv("GOMEMLIMIT") != "", tunedPercent: os.Getenv("GOGC") != ""}
}

// Enforce sets the soft limit now and whenever the plan changes. It is for
// processes that do only what the plan covers.
func (k *Keeper) Enforce() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.limited && k.before == 0 {
		k.before = debug.SetMemoryLimit(k.plan.SoftLimit(k.cgroup))
	}
	if !k.tunedPercent && k.percent == 0 {
		k.watchCollections()
	}
}

// Release restores the limit from before Enforce, and Go's own GOGC.
func (k *Keeper) Release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.percent != 0 {
		debug.SetGCPercent(100)
		k.percent = 0
	}
	if k.before != 0 {
		debug.SetMemoryLimit(k.before)
		k.before = 0
	}
}

// SetPlan sets the plan and reports whether it differs from the one before.
func (k *Keeper) SetPlan(p Plan) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p == k.plan {
		return false
	}
	k.plan = p
	if k.before != 0 {
		debug.SetMemoryLimit(p.SoftLimit(k.cgroup))
	}
	return true
}

// State holds the limits in force, in bytes. Its JSON is part of /status.
type State struct {
	Bound     int64 `json:"bound_bytes"`                // resident memory to plan with, for the partitions assigned now
	SoftLimit int64 `json:"soft_limit_bytes,omitempty"` // of the Go runtime; 0 is none
	Cgroup    int64 `json:"cgroup_bytes,omitempty"`     // limit of the control group; 0 is none
	// Warning is why the limit of the control group is too low, and what to lower;
	// empty if it is not.
	Warning string `json:"warning,omitempty"`
}

// State returns the limits in force.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := State{Bound: k.plan.Bound(), SoftLimit: debug.SetMemoryLimit(-1), Cgroup: k.cgroup}
	if err := k.plan.Fits(k.cgroup); err != nil {
		s.Warning = err.Error()
	}
	if s.SoftLimit >= unlimited {
		s.SoftLimit = 0
	}
	return s
}
