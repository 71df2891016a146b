package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// extras are the files beside the binary in every archive.
var extras = []string{"LICENSE", "README.md", "CHANGELOG.md", "config.example.yaml"}

// linuxExtras are those of Linux.
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

// compile builds the command reproducibly: without paths, build id, repository state
// or a variant of the processor.
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

// licences returns the licences of the modules in the binary, which most of them
// require to be distributed with it.
func (r *release) licences(ctx context.Context, info *debug.BuildInfo) ([]byte, error) {
	args := []string{"list", "-m", "-json"}
	for _, m := range info.Deps {
		args = append(args, m.Path)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = r.root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m: %w", err)
	}
	var text bytes.Buffer
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var module struct{ Path, Version, Dir string }
		if err := dec.Decode(&module); err != nil {
			return nil, fmt.Errorf("reading the output of go list -m: %w", err)
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
			fmt.Fprintf(&text, "%s %s has no licence file; see its repository\n\n", module.Path, module.Version)
		}
	}
	return text.Bytes(), nil
}

// bill returns the bill of materials of one binary in CycloneDX JSON. It lists the
// modules that are linked into the binary, not all of go.mod.
func (r *release) bill(info *debug.BuildInfo, name string, binary []byte) ([]byte, error) {
	sum := sha256.Sum256(binary)
	main := cdx.Component{
		BOMRef: purl(info.Main.Path, r.version), Type: cdx.ComponentTypeApplication,
		Name: "bridge", Version: r.version, PackageURL: purl(info.Main.Path, r.version),
		Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Properties: &[]cdx.Property{{Name: "archive", Value: name + ".tar.gz"}},
	}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	components := []cdx.Component{library("std", goVersion, "")}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		components = append(components, library(m.Path, m.Version, m.Sum))
	}
	refs := make([]string, len(components))
	for i, c := range components {
		refs[i] = c.BOMRef
	}
	bom := cdx.NewBOM()
	bom.SerialNumber = serial(sum)
	bom.Metadata = &cdx.Metadata{Timestamp: r.time.Format(time.RFC3339), Component: &main}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: main.BOMRef, Dependencies: &refs}}
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return nil, fmt.Errorf("writing the bill of materials: %w", err)
	}
	return out.Bytes(), nil
}

func library(path, version, sum string) cdx.Component {
	c := cdx.Component{BOMRef: purl(path, version), Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: purl(path, version)}
	if sum != "" {
		c.Properties = &[]cdx.Property{{Name: "go.sum", Value: sum}}
	}
	return c
}

// purl returns the package URL of a module (https://github.com/package-url/purl-spec).
func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// serial returns a UUID (RFC 9562, version 8) of the binary's hash, so that the same
// binary has the same bill.
func serial(sum [sha256.Size]byte) string {
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// file is one entry of an archive.
type file struct {
	name    string
	content []byte
	mode    int64
}

// tarball packs files below folder, sorted by name, with one time and no owner.
func tarball(folder string, files []file, when time.Time) ([]byte, error) {
	var out bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	packed := tar.NewWriter(zipped)
	files = slices.SortedFunc(slices.Values(files), func(a, b file) int { return strings.Compare(a.name, b.name) })
	for _, f := range files {
		header := &tar.Header{Name: path.Join(folder, f.name), Mode: f.mode, Size: int64(len(f.content)), ModTime: when, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if err := packed.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f.name, err)
		}
		if _, err := packed.Write(f.content); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f.name, err)
		}
	}
	if err := packed.Close(); err != nil {
		return nil, err
	}
	if err := zipped.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

var chartVersions = regexp.MustCompile(`(?m)^(version|appVersion): .*$`)

// chart packs the Helm chart as helm package does, with the release as the version
// of the chart and of its image.
func (r *release) chart() error {
	dir := os.DirFS(filepath.Join(r.root, "deploy/helm/bridge"))
	var files []file
	err := fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(dir, name)
		if name == "Chart.yaml" {
			content = chartVersions.ReplaceAllFunc(content, func(line []byte) []byte {
				if bytes.HasPrefix(line, []byte("version")) {
					return []byte("version: " + strings.TrimPrefix(r.version, "v"))
				}
				return []byte("appVersion: " + r.version)
			})
		}
		files = append(files, file{name, content, 0o644})
		return err
	})
	if err != nil {
		return err
	}
	archive, err := tarball("bridge", files, r.time)
	if err != nil {
		return err
	}
	return r.write("bridge-"+strings.TrimPrefix(r.version, "v")+".tgz", archive)
}

// write writes one file of the release and records its checksum.
func (r *release) write(name string, content []byte) error {
	if err := os.WriteFile(filepath.Join(r.out, name), content, 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	r.sums = append(r.sums, fmt.Sprintf("%x  %s\n", sha256.Sum256(content), name))
	return nil
}
