//go:build unix && !linux

package main

import "syscall"

const haveFullDisk = false

func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
