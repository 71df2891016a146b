//go:build unix && !linux

package kafkatest

import "syscall"

// childAttr puts a broker into its own process group, which the terminal's Ctrl-C
// does not reach.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// stopped assumes that SIGSTOP works at once.
func stopped(int) bool { return true }
