//go:build linux

package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestClientsHaveNoSettingsOfTheUser(t *testing.T) {
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "COMPOSE_PROFILES", "BUILDX_BUILDER"} {
		t.Setenv(name, "the user's")
	}
	env := (&Engine{dir: "/engine"}).Environ()
	if i := slices.IndexFunc(env, func(v string) bool { return strings.HasSuffix(v, "=the user's") }); i >= 0 {
		t.Errorf("the environment has %s", env[i])
	}
	if !slices.Contains(env, "DOCKER_HOST=unix:///engine/docker.sock") {
		t.Errorf("the environment has another DOCKER_HOST: %v", env)
	}
}

func TestOnlyAbandonedFoldersAreRemoved(t *testing.T) {
	temporary, foreign := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary)
	for _, name := range []string{"bridge-dockerd-1", "bridge-dockerd-2", "other"} {
		if err := os.Mkdir(filepath.Join(temporary, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(foreign, filepath.Join(temporary, "bridge-dockerd-3")); err != nil {
		t.Fatal(err)
	}
	held, err := lock(filepath.Join(temporary, "bridge-dockerd-2"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	removeAbandoned()

	left, err := filepath.Glob(filepath.Join(temporary, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range left {
		left[i] = filepath.Base(path)
	}
	if want := []string{"bridge-dockerd-2", "bridge-dockerd-3", "other"}; !slices.Equal(left, want) {
		t.Errorf("%v are left, want %v", left, want)
	}
}
