//go:build unix && !linux

package kafkatest

import "syscall"

// childAttr puts a broker into its own process group, which the terminal's Ctrl-C
// does not reach.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// exited has no way here to find out without reaping the child. A broker that
// ends while starting is detected when its start times out.
func exited(int) bool { return false }

// stopped assumes that SIGSTOP works at once.
func stopped(int) bool { return true }
