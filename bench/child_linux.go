package main

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childAttr keeps the terminal's Ctrl-C from children, which are stopped in
// order instead, and has the kernel end them should this process be killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// processTime reads a process's user and system time to the nanosecond, where
// /proc rounds to 10 ms: clock_getcpuclockid(3) makes the clock's number thus.
func processTime(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED of the kernel
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &t); err != nil {
		return 0, fmt.Errorf("reading the processor time of process %d: %w; it may have ended", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
