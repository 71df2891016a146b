//go:build engines

package image_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/test/engine"
)

var docker *engine.Engine

func TestMain(m *testing.M) {
	os.Exit(engine.Main(m, func(e *engine.Engine) { docker = e }))
}

// version is what bridge version has to print.
const version = "v9.8.7"

// build builds the image tag from the product's Dockerfile in folder.
func build(ctx context.Context, folder, tag string, args ...string) error {
	// The engine reaches the Go module proxy by the host's network alone.
	return docker.Build(ctx, folder, tag, append([]string{"--network", "host", "--build-arg", "VERSION=" + version}, args...)...)
}

func TestImage(t *testing.T) {
	root, err := buildtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := docker.GoImage(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	engine.Check(t, "the Dockerfile builds", func() (string, error) {
		if err := build(t.Context(), root, "bridge"); err != nil {
			return "", err
		}
		out, err := docker.Docker(t.Context(), "run", "--rm", "--network", "host", "bridge", "version")
		return strings.TrimSpace(strings.Split(out, "\n")[0]), err
	})
}
