//go:build !linux

package main

import (
	"errors"
	"syscall"
	"time"
)

// childAttr has nothing to add where nothing is measured.
func childAttr() *syscall.SysProcAttr { return nil }

func processTime(int) (time.Duration, error) {
	return 0, errors.New("processor times are read on Linux only; run it there")
}
