package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/datafly/bridge/internal/kafkatest"
)

var buildDir string // holds the binary

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var err error
	if buildDir, err = os.MkdirTemp("", "bridge-docs-"); err != nil {
		fmt.Fprintln(os.Stderr, "docs: making a folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(buildDir)
	return kafkatest.Main(m)
}

// binary is the bridge, built once and as the tests are.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "bridge")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "github.com/datafly/bridge/cmd/bridge")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the bridge: %w\n%s", err, out)
	}
	return path, nil
})
