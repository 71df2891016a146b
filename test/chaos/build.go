package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// buildBridge compiles cmd/bridge of the module at root to a file.
func buildBridge(ctx context.Context, root, out string, race bool) (string, error) {
	out, err := filepath.Abs(out)
	if err != nil {
		return "", err
	}
	args := []string{"build", "-trimpath", "-o", out}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/datafly/bridge/cmd/bridge")...)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the bridge: %w; run this inside the repository\n%s", err, text)
	}
	return out, nil
}
