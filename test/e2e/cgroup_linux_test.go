package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// cgroup is a control group with a memory limit, made for one test.
type cgroup struct {
	t   testing.TB
	dir string
	// Names of its files: the limit, the most that was used, and how often a
	// process was killed for want of memory.
	limit, peak, killed string
}

// newCgroup makes a control group of version 1 or 2, whichever the machine has.
// Where it lets us make none the test is skipped: nothing else limits a process
// as a container's limit does.
func newCgroup(t testing.TB, limit int64) *cgroup {
	t.Helper()
	name := fmt.Sprintf("bridge-test-%d", os.Getpid())
	groups := []*cgroup{
		{dir: filepath.Join("/sys/fs/cgroup", name), limit: "memory.max", peak: "memory.peak", killed: "memory.events"},
		{dir: filepath.Join("/sys/fs/cgroup/memory", name), limit: "memory.limit_in_bytes", peak: "memory.max_usage_in_bytes", killed: "memory.oom_control"},
	}
	var failed []error
	for _, g := range groups {
		g.t = t
		err := os.Mkdir(g.dir, 0o755)
		if err == nil {
			t.Cleanup(func() { _ = os.Remove(g.dir) }) // the group is empty by then: its process was waited for
			_, err = os.Stat(filepath.Join(g.dir, g.limit))
		}
		if err == nil {
			err = g.write(g.limit, limit)
		}
		if err == nil {
			return g
		}
		failed = append(failed, err)
	}
	t.Skipf("a control group with a memory limit is needed, which this machine does not let us make: %v", errors.Join(failed...))
	return nil
}

func (g *cgroup) write(file string, value int64) error {
	return os.WriteFile(filepath.Join(g.dir, file), strconv.AppendInt(nil, value, 10), 0o600)
}

// command returns one whose process is in the group from its beginning.
func (g *cgroup) command(binary string, args []string) *exec.Cmd {
	if g == nil {
		return exec.Command(binary, args...)
	}
	return exec.Command("/bin/sh", append([]string{"-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs"), binary}, args...)...)
}

// peakMiB is the most memory the group has had, in MiB; 0 where the kernel does
// not say.
func (g *cgroup) peakMiB() int {
	data, err := os.ReadFile(filepath.Join(g.dir, g.peak))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return n >> 20
}

// kills is how many processes of the group were killed for want of memory.
func (g *cgroup) kills() int {
	g.t.Helper()
	data, err := os.ReadFile(filepath.Join(g.dir, g.killed))
	must(g.t, err)
	for line := range strings.Lines(string(data)) {
		var n int
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n
		}
	}
	return 0
}
