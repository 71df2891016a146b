package e2e_test

import "syscall"

// childAttr has the kernel kill a child when the test process dies, however it
// ends.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
