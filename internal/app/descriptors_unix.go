//go:build unix

package app

import (
	"os"
	"syscall"
)

// countDescriptors returns how many file descriptors the process has open and may
// have. It needs one itself.
func countDescriptors() (open, limit int, err error) {
	var allowed syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &allowed); err != nil {
		return 0, 0, err
	}
	limit = int(min(allowed.Cur, 1<<30)) // "unlimited" is a number as well
	folder, err := os.Open("/dev/fd")
	if err != nil {
		return 0, limit, err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	return len(names) - 1, limit, err
}
