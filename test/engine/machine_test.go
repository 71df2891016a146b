//go:build engines

package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// machineWithDocker is a machine whose Docker is configured and has a containerd.
const machineWithDocker = `mkdir -p /etc/docker /run/containerd
mount -t tmpfs tmpfs /etc/docker
echo '{"data-root": "/nowhere"}' > /etc/docker/daemon.json
mount -t tmpfs tmpfs /run/containerd
: > /run/containerd/containerd.sock
exec "$@"`

// TestMachineWithDocker runs itself in a mount namespace, to leave this machine as it is.
func TestMachineWithDocker(t *testing.T) {
	const inside = "ENGINE_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-ec", machineWithDocker, "sh", exe, "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	e, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	driver, err := e.Docker(t.Context(), "info", "--format", "{{.CgroupDriver}}")
	if err != nil || driver != "cgroupfs" {
		t.Errorf("the driver of control groups is %q, want cgroupfs: %v", driver, err)
	}
	if err := e.Stop(); err != nil {
		t.Error(err)
	}
	if files, err := filepath.Glob("/etc/docker/*"); err != nil || len(files) != 1 {
		t.Errorf("the folder of Docker's configuration has %v: %v", files, err)
	}
}
