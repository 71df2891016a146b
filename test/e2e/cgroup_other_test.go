//go:build !linux

package e2e_test

import (
	"os/exec"
	"testing"
)

// cgroup is a control group, which only Linux has.
type cgroup struct{}

func newCgroup(t testing.TB, _ int64) *cgroup {
	t.Helper()
	t.Skip("control groups are Linux's")
	return nil
}

func (*cgroup) command(binary string, args []string) *exec.Cmd { return exec.Command(binary, args...) }

func (*cgroup) peakMiB() int { return 0 }
func (*cgroup) kills() int   { return 0 }
