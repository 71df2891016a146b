package docs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/datafly/bridge/internal/buildtest"
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
	var flags []string
	if buildtest.Race {
		flags = append(flags, "-race")
	}
	return path, buildtest.Build(context.Background(), path, flags...)
})
