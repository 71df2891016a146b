package kafkatest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// childAttr puts a broker into its own process group, which the terminal's Ctrl-C
// does not reach. The kernel kills it when the test process ends.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// stopped reports whether SIGSTOP has stopped every thread of a process. On a
// busy machine one may run for a while.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, thread := range threads {
		// "pid (name) state ...", see proc_pid_stat(5); the name may hold anything.
		stat, rerr := os.ReadFile(thread)
		if i := bytes.LastIndexByte(stat, ')'); rerr == nil && i >= 0 && !bytes.HasPrefix(stat[i:], []byte(") T")) {
			return false
		}
	}
	return err == nil
}
