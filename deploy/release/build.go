package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// extras lie beside the binary in every archive, by their place in the module.
var extras = []string{"LICENSE", "README.md", "CHANGELOG.md", "config.example.yaml"}

// linuxExtras are for Linux alone.
var linuxExtras = []string{"deploy/systemd/bridge.service", "deploy/systemd/bridge.sysusers.conf"}

// platform builds one binary and writes its archive and its bill of materials.
func (r *release) platform(ctx context.Context, goos, goarch string) error {
	scratch, err := os.MkdirTemp("", "bridge-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	binary := filepath.Join(scratch, "bridge")
	if err := r.compile(ctx, goos, goarch, binary); err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("reading the modules of the binary: %w", err)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	licences, err := r.licences(ctx, info)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("bridge_%s_%s_%s", r.version, goos, goarch)
	files := []file{{"bridge", content, 0o755}, {"THIRD_PARTY_LICENSES", licences, 0o644}}
	wanted := slices.Clone(extras)
	if goos == "linux" {
		wanted = append(wanted, linuxExtras...)
	}
	for _, path := range wanted {
		text, err := os.ReadFile(filepath.Join(r.root, path))
		if err != nil {
			return err
		}
		files = append(files, file{filepath.Base(path), text, 0o644})
	}
	archive, err := tarball(name, files, r.time)
	if err != nil {
		return err
	}
	if err := r.write(name+".tar.gz", archive); err != nil {
		return err
	}
	bill, err := r.bill(info, name, content)
	if err != nil {
		return err
	}
	return r.write(name+".cdx.json", bill)
}

// compile builds the command without anything of this machine or this hour in it:
// no paths, no build id, no state of a repository, no variant of a processor.
func (r *release) compile(ctx context.Context, goos, goarch, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w -buildid= -X main.release="+r.version, "-o", binary, "./cmd/bridge")
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch,
		"CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// licences gathers the licences of the modules in the binary, as most of them ask
// of whoever passes binaries on.
func (r *release) licences(ctx context.Context, info *debug.BuildInfo) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-m", "-json"}, paths(info)...)...)
	cmd.Dir = r.root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m: %w", err)
	}
	var text bytes.Buffer
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var module struct{ Path, Version, Dir string }
		if err := dec.Decode(&module); err != nil {
			return nil, fmt.Errorf("reading what go list -m says: %w", err)
		}
		entries, err := os.ReadDir(module.Dir)
		if err != nil {
			return nil, fmt.Errorf("reading module %s: %w; run go mod download", module.Path, err)
		}
		found := false
		for _, e := range entries {
			upper := strings.ToUpper(e.Name())
			if e.IsDir() || !strings.HasPrefix(upper, "LICEN") && !strings.HasPrefix(upper, "NOTICE") && !strings.HasPrefix(upper, "COPYING") {
				continue
			}
			licence, err := os.ReadFile(filepath.Join(module.Dir, e.Name()))
			if err != nil {
				return nil, err
			}
			found = true
			fmt.Fprintf(&text, "%s %s, %s\n\n%s\n\n", module.Path, module.Version, e.Name(), bytes.TrimSpace(licence))
		}
		if !found {
			fmt.Fprintf(&text, "%s %s has no file with its licence; see its repository\n\n", module.Path, module.Version)
		}
	}
	return text.Bytes(), nil
}

func paths(info *debug.BuildInfo) []string {
	var all []string
	for _, m := range info.Deps {
		all = append(all, m.Path)
	}
	return all
}
