package memory

import (
	"io"
	"io/fs"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
)

// none is where numbers begin that stand for no limit, as the kernel and the Go
// runtime write them.
const none = 1 << 60

// CgroupLimit returns the memory limit of the control group that the process
// runs in, in bytes; 0 is none.
func CgroupLimit() int64 { return cgroupLimit(os.DirFS("/")) }

func cgroupLimit(root fs.FS) int64 {
	limit := int64(none)
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
	if limit >= none {
		return 0
	}
	return limit
}

// lowest returns the least limit of a group and those it lies in. Within a
// container the path may be that of the host: the container's own group is at
// the mount then, which is where the walk ends.
func lowest(root fs.FS, mount, group, file string) int64 {
	limit := int64(none)
	for dir := path.Join("/", group); ; dir = path.Dir(dir) {
		if n, err := strconv.ParseInt(read(root, path.Join(mount, dir, file)), 10, 64); err == nil && n > 0 {
			limit = min(limit, n)
		}
		if dir == "/" {
			return limit
		}
	}
}

// read returns the beginning of a file, which is all that is wanted of it.
func read(root fs.FS, name string) string {
	f, err := root.Open(name)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Keeper keeps the soft limit of the Go runtime at what the plan says, from
// Enforce to Release. Where GOMEMLIMIT is set, the limit is the operator's and
// stays as it is. It is safe for concurrent use.
type Keeper struct {
	cgroup   int64
	operator bool // GOMEMLIMIT is set

	mu     sync.Mutex // guards the fields below
	plan   Plan
	before int64 // limit before Enforce; 0: not enforced
}

// NewKeeper returns a Keeper that enforces nothing yet.
func NewKeeper() *Keeper {
	return &Keeper{cgroup: CgroupLimit(), operator: os.Getenv("GOMEMLIMIT") != ""}
}

// Enforce sets the soft limit, now and whenever the plan changes. It is for
// processes that do nothing but what the plan covers.
func (k *Keeper) Enforce() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.operator && k.before == 0 {
		k.before = debug.SetMemoryLimit(k.plan.SoftLimit(k.cgroup))
	}
}

// Release sets the limit that was there before Enforce.
func (k *Keeper) Release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.before != 0 {
		debug.SetMemoryLimit(k.before)
		k.before = 0
	}
}

// SetPlan sets the plan and returns whether it differs from the one before.
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

// State is what the process is kept to, in bytes.
type State struct {
	Bound     int64 // of the plan
	SoftLimit int64 // of the Go runtime; 0 is none
	Cgroup    int64 // limit of the control group; 0 is none
	// Exceeded says why the limit of the control group is too low; nil: it is not.
	Exceeded error
}

// State returns what is in force.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := State{Bound: k.plan.Bound(), SoftLimit: debug.SetMemoryLimit(-1), Cgroup: k.cgroup, Exceeded: k.plan.Fits(k.cgroup)}
	if s.SoftLimit >= none {
		s.SoftLimit = 0
	}
	return s
}
