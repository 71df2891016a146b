//go:build engines

package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/test/engine"
)

var docker *engine.Engine

func TestMain(m *testing.M) {
	os.Exit(engine.Main(m, func(e *engine.Engine) { docker = e }))
}

const (
	// version is what bridge version has to print.
	version = "v9.8.7"
	// name is that of the image under test.
	name = "bridge"
	// sizeLimit is how large the image may be, unpacked.
	sizeLimit = 40 << 20
)

// archive is a saved image to test instead of building one.
var archive = os.Getenv("IMAGE_ARCHIVE")

// build builds the image tag from the product's Dockerfile in folder.
func build(ctx context.Context, folder, tag string, args ...string) error {
	// The engine reaches the Go module proxy by the host's network alone.
	return docker.Build(ctx, folder, tag, append([]string{"--network", "host", "--build-arg", "VERSION=" + version, "--build-arg", "GOPROXY"}, args...)...)
}

// image returns the image under test, which is built once.
func image(t *testing.T) string {
	t.Helper()
	if err := built(); err != nil {
		t.Fatal(err)
	}
	return name
}

var built = sync.OnceValue(func() error {
	ctx := context.Background()
	root, err := buildtest.Root()
	if err != nil {
		return err
	}
	if archive != "" {
		return load(ctx, root)
	}
	if err := docker.GoImage(ctx, root); err != nil {
		return err
	}
	return build(ctx, root, name)
})

// load loads the archive, whose path may be relative to root, and names its image.
func load(ctx context.Context, root string) error {
	path := archive
	if !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	out, err := docker.Docker(ctx, "load", "--quiet", "--input", path)
	if err != nil {
		return err
	}
	// Loaded image: bridge:v1.2.3
	_, loaded, ok := strings.Cut(out, ": ")
	if !ok || strings.ContainsAny(loaded, " \n") {
		return fmt.Errorf("IMAGE_ARCHIVE=%s holds other than one image: docker load prints %q; save one", archive, out)
	}
	_, err = docker.Docker(ctx, "tag", loaded, name)
	return err
}

func TestImage(t *testing.T) {
	ctx, img := t.Context(), image(t)
	engine.Check(t, "version", func() (string, error) { return checkVersion(ctx, img) })
	engine.Check(t, "files: no shell, licences, certificates", func() (string, error) { return checkFiles(ctx, img) })
	engine.Check(t, "user: a number that is not 0", func() (string, error) { return checkUser(ctx, img) })
	engine.Check(t, "labels, entry point, health check", func() (string, error) { return checkConfig(ctx, img) })
	engine.Check(t, "size", func() (string, error) { return checkSize(ctx, img) })
	engine.Check(t, "demo: read-only root, no capabilities, no network", func() (string, error) { return checkDemo(ctx, img, "--read-only", "--tmpfs", "/tmp") })
	engine.Check(t, "demo: docker run without flags", func() (string, error) { return checkDemo(ctx, img) })

	for _, b := range []struct {
		name, lines, want string
		check             func(context.Context, string) (string, error)
	}{
		{"another version in the label", "LABEL org.opencontainers.image.version=v0.0.1", "v0.0.1", checkVersion},
		{"shell in the image", "COPY busybox /bin/sh", "bin/sh", checkFiles},
		{"user root", "USER 0:0", "0:0", checkUser},
		{"no health check", "HEALTHCHECK NONE", "health check", checkConfig},
		{"time of the licence", "COPY LICENSE /LICENSE", "LICENSE differs", func(ctx context.Context, broken string) (string, error) { return checkSame(ctx, img, broken) }},
		{"another file", "COPY busybox /busybox", "busybox differs", func(ctx context.Context, broken string) (string, error) { return checkSame(ctx, img, broken) }},
		{"no label", `LABEL org.opencontainers.image.licenses=""`, "licenses", checkConfig},
		{"file of 40 MiB", "COPY large /large", "MiB", checkSize},
		{"bridge that writes to its root", `COPY busybox /bin/sh
ENTRYPOINT ["/bin/sh", "-c", "echo 1 > /tmp/state && echo 1 > /etc/bridge/state && exec /bridge \"$@\"", "sh"]`, "Read-only file system", func(ctx context.Context, img string) (string, error) {
			return checkDemo(ctx, img, "--user", "0", "--read-only", "--tmpfs", "/tmp")
		}},
	} {
		engine.Break(t, b.name, b.want, func() (string, error) {
			broken, err := derive(ctx, t, img, b.lines)
			if err != nil {
				return "", err
			}
			return b.check(ctx, broken)
		})
	}

	if archive != "" {
		return // it shows nothing about the Dockerfile
	}
	engine.Check(t, "second build: the same files", func() (string, error) { return checkSecondBuild(ctx, t, img) })
	engine.Check(t, "bill of materials of the release: the same binary", func() (string, error) { return checkBill(ctx, t, img) })
	engine.Break(t, "another binary than the release's", "bill of materials names", func() (string, error) {
		broken, err := derive(ctx, t, img, "COPY busybox /bridge")
		if err != nil {
			return "", err
		}
		return checkBill(ctx, t, broken)
	})
	engine.Break(t, "build without a version", "dev", func() (string, error) {
		root, err := buildtest.Root()
		if err != nil {
			return "", err
		}
		if err := docker.Build(ctx, root, "broken", "--network", "host"); err != nil {
			return "", err
		}
		return checkVersion(ctx, "broken")
	})
}

// derive builds an image from img with further lines.
func derive(ctx context.Context, t *testing.T, img, lines string) (string, error) {
	folder := t.TempDir()
	root, err := buildtest.Root()
	if err != nil {
		return "", err
	}
	err = errors.Join(
		engine.CopyFile(filepath.Join(folder, "busybox"), "/bin/busybox"),
		engine.CopyFile(filepath.Join(folder, "LICENSE"), filepath.Join(root, "LICENSE")),
		os.WriteFile(filepath.Join(folder, "large"), make([]byte, sizeLimit), 0o644),
		os.WriteFile(filepath.Join(folder, "Dockerfile"), []byte("FROM "+img+"\n"+lines+"\n"), 0o644))
	if err != nil {
		return "", err
	}
	const tag = "broken"
	return tag, docker.Build(ctx, folder, tag, "--network", "none")
}

// config is what docker inspect shows of an image.
type config struct {
	User        string
	Labels      map[string]string
	Entrypoint  []string
	Healthcheck *struct{ Test []string }
}

func checkVersion(ctx context.Context, img string) (string, error) {
	var c config
	if err := inspect(ctx, img, "{{json .Config}}", &c); err != nil {
		return "", err
	}
	out, err := docker.Docker(ctx, "run", "--rm", "--network", "none", img, "version")
	if err != nil {
		return "", err
	}
	want := version
	if archive != "" {
		want = c.Labels[labels+"version"]
	}
	if label := c.Labels[labels+"version"]; label != version && archive == "" {
		return "", fmt.Errorf("the label version is %q, want %q", label, version)
	}
	line, _, _ := strings.Cut(out, "\n")
	if !strings.HasPrefix(line, "bridge "+want+" ") {
		return "", fmt.Errorf("bridge version prints %q, and the label is %q", line, want)
	}
	return line, nil
}

const labels = "org.opencontainers.image."

// ofDocker matches the files that Docker adds to a container.
var ofDocker = regexp.MustCompile(`^(\.dockerenv|dev/.*|proc|sys|etc/(hosts|hostname|mtab|resolv\.conf))$`)

// files returns the files and links of an image by their path.
func files(ctx context.Context, img string) (map[string]file, error) {
	id, err := docker.Docker(ctx, "create", img)
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = docker.Docker(ctx, "rm", id) }() // the engine ends with the tests
	cmd := docker.Command(ctx, "export", id)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	all := map[string]file{}
	for in := tar.NewReader(out); ; {
		header, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("docker export: %w", err)
		}
		if header.Typeflag == tar.TypeDir || ofDocker.MatchString(header.Name) {
			continue
		}
		sum, content := sha256.New(), &bytes.Buffer{}
		if _, err := io.Copy(io.MultiWriter(sum, content), in); err != nil {
			return nil, err
		}
		all[header.Name] = file{fmt.Sprintf("mode %o, owner %d:%d, time %d, SHA-256 %x", header.Mode, header.Uid, header.Gid, header.ModTime.Unix(), sum.Sum(nil)), header.Mode, content.Bytes()}
	}
	return all, cmd.Wait()
}

// file is one of an image.
type file struct {
	identity string
	mode     int64
	content  []byte
}

func checkFiles(ctx context.Context, img string) (string, error) {
	all, err := files(ctx, img)
	if err != nil {
		return "", err
	}
	want := []string{"LICENSE", "THIRD_PARTY_LICENSES", "bridge", "etc/ssl/certs/ca-certificates.crt"}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(all)), want) {
		if _, has := all[name]; !has || !slices.Contains(want, name) {
			return "", fmt.Errorf("the image has %d files, want %s; the first that differs is %s", len(all), strings.Join(want, ", "), name)
		}
	}
	for name, f := range all {
		if f.mode&0o111 != 0 && name != "bridge" {
			return "", fmt.Errorf("%s is executable, want only the bridge to be", name)
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(all["bridge"].content))
	if err != nil {
		return "", err
	}
	for _, m := range info.Deps {
		if !bytes.Contains(all["THIRD_PARTY_LICENSES"].content, []byte(m.Path+" "+m.Version+", ")) {
			return "", fmt.Errorf("THIRD_PARTY_LICENSES has no licence of %s %s, which is in the binary", m.Path, m.Version)
		}
	}
	return fmt.Sprintf("%d files, licences of %d modules", len(all), len(info.Deps)), nil
}

// checkUser looks at the process itself: who it is, and what it may do by default.
func checkUser(ctx context.Context, img string) (string, error) {
	var c config
	if err := inspect(ctx, img, "{{json .Config}}", &c); err != nil {
		return "", err
	}
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(c.User) {
		return "", fmt.Errorf("the user is %q, want two numbers that are not 0", c.User)
	}
	id, err := docker.Docker(ctx, "run", "--detach", "--network", "none", img, "demo")
	if err != nil {
		return "", err
	}
	defer func() { _, _ = docker.Docker(ctx, "rm", "--force", id) }() // the engine ends with the tests
	process := container{id: id}
	if err := process.find(); err != nil {
		return "", err
	}
	uid, capabilities := process.process("Uid"), process.process("CapEff")
	if user, _, _ := strings.Cut(c.User, ":"); len(uid) == 0 || uid[0] != user {
		return "", fmt.Errorf("the process has the users %v, want %s", uid, c.User)
	}
	return fmt.Sprintf("user %s, effective capabilities %s", c.User, strings.Join(capabilities, "")), nil
}

func checkConfig(ctx context.Context, img string) (string, error) {
	var c config
	if err := inspect(ctx, img, "{{json .Config}}", &c); err != nil {
		return "", err
	}
	for _, label := range []string{"title", "description", "source", "licenses", "version"} {
		if c.Labels[labels+label] == "" {
			return "", fmt.Errorf("the label %s%s is missing", labels, label)
		}
	}
	if !slices.Equal(c.Entrypoint, []string{"/bridge"}) {
		return "", fmt.Errorf("the entry point is %q, want /bridge", c.Entrypoint)
	}
	if c.Healthcheck == nil || len(c.Healthcheck.Test) < 2 || c.Healthcheck.Test[1] != "/bridge" {
		return "", fmt.Errorf("the image has no health check that runs the bridge: %+v", c.Healthcheck)
	}
	return fmt.Sprintf("%d labels, health check %s", len(c.Labels), strings.Join(c.Healthcheck.Test[1:], " ")), nil
}

func checkSize(ctx context.Context, img string) (string, error) {
	var size int64
	if err := inspect(ctx, img, "{{.Size}}", &size); err != nil {
		return "", err
	}
	if size > sizeLimit {
		return "", fmt.Errorf("the image has %.1f MiB, want at most %d", float64(size)/(1<<20), sizeLimit>>20)
	}
	return fmt.Sprintf("%.1f MiB", float64(size)/(1<<20)), nil
}

// checkDemo runs the demo, which is the whole path in one process.
func checkDemo(ctx context.Context, img string, args ...string) (string, error) {
	run := append([]string{"run", "--rm", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}, args...)
	out, err := docker.Docker(ctx, append(run, img, "demo", "--events", "20000", "--output", "json")...)
	if err != nil {
		return "", err
	}
	var report struct{ Produced, Lost int }
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return "", fmt.Errorf("reading the report of the demo: %w", err)
	}
	if report.Produced != 20000 || report.Lost != 0 {
		return "", fmt.Errorf("the demo produced %d events and lost %d, want 20000 and 0", report.Produced, report.Lost)
	}
	return fmt.Sprintf("%d events, %d lost", report.Produced, report.Lost), nil
}

// checkSecondBuild builds a copy of the sources, in another folder and at another time,
// after everything that the first build kept was removed.
func checkSecondBuild(ctx context.Context, t *testing.T, img string) (string, error) {
	root, err := buildtest.Root()
	if err != nil {
		return "", err
	}
	list := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	names, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("git ls-files: %w", err)
	}
	again := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		if err := engine.CopyFile(filepath.Join(again, name), filepath.Join(root, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	if _, err := docker.Docker(ctx, "builder", "prune", "--all", "--force"); err != nil {
		return "", err
	}
	if err := build(ctx, again, "again"); err != nil {
		return "", err
	}
	return checkSame(ctx, img, "again")
}

// checkSame compares the files of two images.
func checkSame(ctx context.Context, img, other string) (string, error) {
	first, err := files(ctx, img)
	if err != nil {
		return "", err
	}
	second, err := files(ctx, other)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(first)), slices.Collect(maps.Keys(second))) {
		if first[name].identity != second[name].identity {
			return "", fmt.Errorf("%s differs: first %s, then %s", name, first[name].identity, second[name].identity)
		}
	}
	return fmt.Sprintf("%d files with the same bytes, modes, owners and times", len(first)), nil
}

// checkBill builds the release of this platform and looks for the image's binary in its
// bill of materials.
func checkBill(ctx context.Context, t *testing.T, img string) (string, error) {
	root, err := buildtest.Root()
	if err != nil {
		return "", err
	}
	out := t.TempDir()
	release := exec.CommandContext(ctx, "go", "run", ".", "-root", root, "-out", out, "-version", version, "-platforms", "linux/"+runtime.GOARCH)
	release.Dir = filepath.Join(root, "deploy/release")
	if text, err := release.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the release: %w\n%s", err, text)
	}
	text, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("bridge_%s_linux_%s.cdx.json", version, runtime.GOARCH)))
	if err != nil {
		return "", err
	}
	var bill struct {
		Metadata struct {
			Component struct{ Hashes []struct{ Content string } }
		}
		Components []struct{}
	}
	if err := json.Unmarshal(text, &bill); err != nil {
		return "", err
	}
	all, err := files(ctx, img)
	if err != nil {
		return "", err
	}
	got := fmt.Sprintf("%x", sha256.Sum256(all["bridge"].content))
	if hashes := bill.Metadata.Component.Hashes; len(hashes) != 1 || hashes[0].Content != got {
		return "", fmt.Errorf("the binary of the image has the SHA-256 %s, and the bill of materials names %v", got, hashes)
	}
	return fmt.Sprintf("%d components, SHA-256 %s", len(bill.Components), got), nil
}
