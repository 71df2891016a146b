// Package buildtest builds the bridge for tests and benchmarks, which are Go modules of
// their own. It builds in the root of the repository, so that the versions of the
// bridge's go.mod apply.
package buildtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Root returns the root of the repository that holds the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(text, []byte("module github.com/datafly/bridge\n")) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod of github.com/datafly/bridge above the working directory; run this inside the repository")
		}
		dir = parent
	}
}

// Build compiles cmd/bridge to the file out. Flags are those of go build, such
// as -race.
func Build(ctx context.Context, out string, flags ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	return BuildIn(ctx, root, out, flags...)
}

// BuildIn is Build for another copy of the repository, whose root is given.
func BuildIn(ctx context.Context, root, out string, flags ...string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", out}, flags...), "./cmd/bridge")...)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the bridge: %w\n%s", err, text)
	}
	return nil
}
