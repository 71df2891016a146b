package e2e_test

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A member without a free file descriptor is not ready, and answers that on a
// new connection. It names the limit and the remedy, logs them once, and is ready
// again when there are enough.
func TestTooFewDescriptors(t *testing.T) {
	eachStage(t, setting{partitions: 8}, func(t *testing.T, s *stage) {
		m := s.beginReady()
		s.p.events(80)
		s.complete(m)
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid))
		must(t, err)
		least := 0 // as few as leave none free
		for _, entry := range open {
			fd, err := strconv.Atoi(entry.Name())
			must(t, err)
			least = max(least, fd+1)
		}
		limit := func(n uint64) {
			t.Helper()
			var was unix.Rlimit
			must(t, unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &was))
			must(t, unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max}, nil))
		}
		var before unix.Rlimit
		must(t, unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &before))
		limit(uint64(min(least, len(open))))
		reason := m.blocked("too_few_descriptors", patience)
		wants(t, reason.Text, fmt.Sprintf("of %d file descriptors", min(least, len(open))), "this member needs about 72")
		wants(t, reason.Remedy, "ulimit -n", "LimitNOFILE")
		for range 10 {
			if status, _ := m.get("/livez", ""); status != 200 {
				t.Errorf("/livez: got %d, want 200", status)
			}
		}
		s.p.events(80)
		s.rows(m, s.p.total()) // by the connections it has
		limit(before.Cur)
		m.ready()
		s.complete(m)
		if got := m.logged("Accept error"); got != 0 {
			t.Errorf("got %d lines of the HTTP server about connections it cannot take, want none", got)
		}
		if got := m.logged("no file descriptor is left"); got != 1 {
			t.Errorf("got %d lines about descriptors, want 1", got)
		}
		m.signal(syscall.SIGTERM)
		if code := m.wait(s.stopLimit()); code != 0 {
			t.Errorf("got %v after SIGTERM, want exit code 0", m.cmd.ProcessState)
		}
	})
}
