//go:build unix && !linux

package kafkatest

import "syscall"

// childAttr puts a broker into its own process group, out of reach of the
// terminal's Ctrl-C.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// exited cannot tell here without reaping the child; a broker that died while
// starting is noticed when its start times out.
func exited(int) bool { return false }

// stopped trusts that a signalled process stands still.
func stopped(int) bool { return true }
