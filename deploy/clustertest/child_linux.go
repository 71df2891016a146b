package main

import "syscall"

// childAttr puts a server into its own process group, which the terminal's Ctrl-C does
// not reach. The kernel kills it when this process ends.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
