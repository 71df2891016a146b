//go:build unix && !linux

package main

import "syscall"

// childAttr puts a server into its own process group, which the terminal's Ctrl-C does
// not reach.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
