package main

import "syscall"

// haveFullDisk reports whether there is a device that is always full.
const haveFullDisk = true

// childAttr keeps the terminal's Ctrl-C from members, which are stopped in
// order instead, and has the kernel end them should this process be killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
