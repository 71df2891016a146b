package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestDockerfileBuildsAStaticNonRootImage(t *testing.T) {
	docker := read(t, "Dockerfile")
	for pattern, why := range map[string]string{
		`(?m)^FROM scratch$`:                "the image holds nothing but the bridge",
		`(?m)^USER [1-9]\d*:[1-9]\d*$`:      "the bridge does not run as root, and Kubernetes can check only numbers",
		`CGO_ENABLED=0`:                     "without cgo the binary is static",
		`-X main\.release=\$VERSION`:        "the binary knows its version",
		`ca-certificates\.crt`:              "TLS needs authorities",
		`(?m)^ENTRYPOINT \["/bridge"\]$`:    "arguments are the bridge's, signals reach it",
		`(?m)^HEALTHCHECK `:                 "Docker knows whether it delivers",
		`(?m)^ENV BRIDGE_OPS_ADDRESS=:9400`: "metrics are reachable from outside the container",
	} {
		if !regexp.MustCompile(pattern).MatchString(docker) {
			t.Errorf("Dockerfile: got nothing that matches %s; %s", pattern, why)
		}
	}
	if !strings.Contains(read(t, "cmd/bridge/version.go"), "\nvar release ") {
		t.Error("cmd/bridge has no variable release for -X main.release to set")
	}
}

// The image is built with the Go the module asks for.
func TestDockerfileUsesTheModulesGo(t *testing.T) {
	want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))
	got := regexp.MustCompile(`golang:(\d+\.\d+)`).FindStringSubmatch(read(t, "Dockerfile"))
	if want == nil || got == nil || got[1] != want[1] {
		t.Errorf("Go of the image: got %v, want %v", got, want)
	}
}

// The build context has every folder the command is built from and no other.
func TestDockerContextHasTheSources(t *testing.T) {
	for line := range strings.Lines(read(t, ".dockerignore")) {
		kept, ok := strings.CutPrefix(strings.TrimSpace(line), "!")
		if !ok {
			continue
		}
		if found, err := filepath.Glob(filepath.Join(root, kept)); err != nil || len(found) == 0 {
			t.Errorf(".dockerignore keeps %s, which is not there (%v)", kept, err)
		}
	}
	ignore := read(t, ".dockerignore")
	if !strings.Contains(ignore, "\n*\n") {
		t.Error(".dockerignore does not leave out everything it does not name")
	}
	for _, document := range []string{"embed.go", "config.example.yaml", "docs/*.md"} {
		if !strings.Contains(ignore, "\n!"+document+"\n") {
			t.Errorf(".dockerignore leaves out %s, which the command embeds", document)
		}
	}
	for _, room := range []string{"cmd", "consumer", "internal", "mapping", "zerobus"} {
		if !strings.Contains(ignore, "\n!"+room+"/\n") {
			t.Errorf(".dockerignore leaves out %s", room)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
