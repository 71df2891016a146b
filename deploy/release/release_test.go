package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

const version = "v1.2.3"

// One platform is built twice, from copies of the tree in two places and without
// its history: the same bytes come out.
func TestRelease(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1795000000")
	platform := runtime.GOOS + "/" + runtime.GOARCH
	first, second := filepath.Join(t.TempDir(), "dist"), t.TempDir()
	make := func(root, out string) {
		var progress bytes.Buffer
		if err := run(t.Context(), []string{"-version", version, "-root", root, "-out", out, "-platforms", platform}, &progress); err != nil {
			t.Fatalf("%v\n%s", err, progress.String())
		}
	}
	here := copied(t, "../..")
	make(here, first)
	name := fmt.Sprintf("bridge_%s_%s_%s", version, runtime.GOOS, runtime.GOARCH)

	t.Run("checksums", func(t *testing.T) { checkSums(t, first, name) })
	files := unpack(t, filepath.Join(first, name+".tar.gz"))
	t.Run("archive", func(t *testing.T) { checkArchive(t, files, name) })
	t.Run("bill of materials", func(t *testing.T) {
		checkBill(t, filepath.Join(first, name+".cdx.json"), files[name+"/bridge"].content)
	})
	t.Run("chart", func(t *testing.T) {
		chart := string(unpack(t, filepath.Join(first, "bridge-1.2.3.tgz"))["bridge/Chart.yaml"].content)
		if !strings.Contains(chart, "\nversion: 1.2.3\n") || !strings.Contains(chart, "\nappVersion: v1.2.3\n") {
			t.Errorf("Chart.yaml does not speak of the release:\n%s", chart)
		}
	})
	t.Run("again elsewhere", func(t *testing.T) {
		for _, old := range []string{"bridge_v1.2.2_linux_amd64.tar.gz", sumsFile} {
			if err := os.WriteFile(filepath.Join(second, old), []byte("of an earlier release"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		make(copied(t, here), second)
		if got, want := sums(t, second), sums(t, first); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		checkSums(t, second, name)
	})
}

func sums(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkSums reckons every sum again; a file without one, or a sum without a file,
// is an error.
func checkSums(t *testing.T, dir, name string) {
	var got []string
	for line := range strings.Lines(sums(t, dir)) {
		sum, file, ok := strings.Cut(strings.TrimSpace(line), "  ")
		content, err := os.ReadFile(filepath.Join(dir, file))
		if !ok || err != nil || sum != fmt.Sprintf("%x", sha256.Sum256(content)) {
			t.Errorf("%q does not hold: %v", line, err)
		}
		got = append(got, file)
	}
	want := []string{"bridge-1.2.3.tgz", name + ".cdx.json", name + ".tar.gz"}
	if !slices.Equal(got, want) {
		t.Errorf("got sums of %v, want %v", got, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(want)+1 {
		t.Errorf("got %d files, %v, want %d", len(entries), err, len(want)+1)
	}
}

type entry struct {
	content []byte
	header  *tar.Header
}

func unpack(t *testing.T, path string) map[string]entry {
	t.Helper()
	packed, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	zipped, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]entry{}
	for r := tar.NewReader(zipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = entry{content, header}
	}
}

func checkArchive(t *testing.T, files map[string]entry, name string) {
	for _, want := range []string{"bridge", "LICENSE", "README.md", "CHANGELOG.md", "config.example.yaml", "THIRD_PARTY_LICENSES"} {
		if len(files[name+"/"+want].content) == 0 {
			t.Errorf("the archive has no %s", want)
		}
	}
	for path, f := range files {
		if f.header.Uid != 0 || f.header.Uname != "" || !f.header.ModTime.Equal(time.Unix(1795000000, 0)) {
			t.Errorf("%s: got owner %d %q, time %s; want nothing of the machine it was made on", path, f.header.Uid, f.header.Uname, f.header.ModTime)
		}
	}
	third := string(files[name+"/THIRD_PARTY_LICENSES"].content)
	if !strings.Contains(third, "github.com/twmb/franz-go v") || strings.Contains(third, "has no licence file") {
		t.Errorf("licences of others: got %d bytes, without franz-go's or with one missing", len(third))
	}
	binary := files[name+"/bridge"]
	if binary.header.Mode != 0o755 {
		t.Errorf("mode of the binary: got %o, want 755", binary.header.Mode)
	}
	path := filepath.Join(t.TempDir(), "bridge")
	if err := os.WriteFile(path, binary.content, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, "version").Output()
	if want := "bridge " + version + " "; err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("bridge version: got %q, %v, want %q", out, err, want)
	}
	if runtime.GOOS != "linux" {
		return
	}
	program, err := elf.NewFile(bytes.NewReader(binary.content))
	if err != nil {
		t.Fatal(err)
	}
	if libs, err := program.ImportedLibraries(); err != nil || len(libs) != 0 || program.Section(".interp") != nil {
		t.Errorf("the binary is not static: it wants %v, %v", libs, err)
	}
}

func checkBill(t *testing.T, path string, binary []byte) {
	text, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(text, cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	main := bom.Metadata.Component
	if main.Name != "bridge" || main.Version != version || (*main.Hashes)[0].Value != fmt.Sprintf("%x", sha256.Sum256(binary)) {
		t.Errorf("the bill is of %s %s %v, want bridge %s and the binary's sum", main.Name, main.Version, *main.Hashes, version)
	}
	var got []string
	for _, c := range *bom.Components {
		if c.PackageURL != "pkg:golang/"+c.Name+"@"+c.Version {
			t.Errorf("package URL of %s %s: got %s", c.Name, c.Version, c.PackageURL)
		}
		got = append(got, c.Name)
	}
	for _, want := range []string{"std", "github.com/twmb/franz-go", "google.golang.org/grpc", "go.uber.org/zap"} {
		if !slices.Contains(got, want) {
			t.Errorf("the bill of %d components lacks %s", len(got), want)
		}
	}
	for _, never := range []string{"go.uber.org/goleak", "helm.sh/helm/v4"} {
		if slices.Contains(got, never) {
			t.Errorf("the bill names %s, which is not in the binary", never)
		}
	}
	if deps := *bom.Dependencies; len(deps) != 1 || len(*deps[0].Dependencies) != len(got) {
		t.Errorf("dependencies: got %v, want one list of all %d components", deps, len(got))
	}
}

// copied is a copy of what the release is built from, in another place.
func copied(t *testing.T, root string) string {
	t.Helper()
	to := t.TempDir()
	for _, what := range append(slices.Concat(extras, linuxExtras), "go.mod", "go.sum", "embed.go", "docs", "cmd", "consumer", "internal", "mapping", "zerobus", "deploy/helm") {
		from := filepath.Join(root, what)
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			if err := os.CopyFS(filepath.Join(to, what), os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, what)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, what), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestReleaseRefuses(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		args     []string
		contains string
	}{
		{"no version", nil, "make release VERSION=v1.2.3"},
		{"a version without a v", []string{"-version", "1.2.3"}, "not a semantic version"},
		{"the version of a dirty tree", []string{"-version", "6e585a3-dirty"}, "not a semantic version"},
		{"a folder of other things", []string{"-version", version, "-out", foreign}, "thesis.txt"},
		{"a platform without an architecture", []string{"-version", version, "-out", filepath.Join(t.TempDir(), "dist"), "-platforms", "linux"}, "os/architecture"},
	} {
		err := run(t.Context(), tc.args, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.contains) {
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.contains)
		}
	}
	if _, err := os.Stat(filepath.Join(foreign, "thesis.txt")); err != nil {
		t.Errorf("a refused folder was touched: %v", err)
	}
}
