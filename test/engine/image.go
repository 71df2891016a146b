//go:build linux

package engine

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Build builds the image tag from the Dockerfile in folder, with further arguments of
// docker build. It takes half an hour at most.
func (e *Engine) Build(ctx context.Context, folder, tag string, args ...string) error {
	_, err := e.run(ctx, buildLimit, append(append([]string{"build", "--tag", tag}, args...), folder)...)
	return err
}

// goDockerfile makes an image that compiles Go as golang from Docker Hub does. Its
// shell and tools are those of BusyBox.
const goDockerfile = `FROM scratch
COPY . /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/usr/local/go/bin:/bin GOPATH=/go GOTOOLCHAIN=local HOME=/root
WORKDIR /go
`

// goImage is the image that the bridge's Dockerfile compiles with.
var goImage = regexp.MustCompile(`(?m)^FROM .*(golang:[\d.]+)`)

// GoImage makes the image that the Dockerfile in folder compiles with, under its name,
// from the installed Go, BusyBox and certificates. So the build needs no registry.
func (e *Engine) GoImage(ctx context.Context, folder string) error {
	dockerfile, err := os.ReadFile(filepath.Join(folder, "Dockerfile"))
	if err != nil {
		return err
	}
	from := goImage.FindSubmatch(dockerfile)
	if from == nil {
		return fmt.Errorf("%s/Dockerfile is not built from an image golang:VERSION", folder)
	}
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	busybox, err := find("busybox", "/bin/busybox")
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp(e.dir, "golang-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.CopyFS(filepath.Join(root, "usr/local/go"), os.DirFS(strings.TrimSpace(string(goroot)))); err != nil {
		return fmt.Errorf("copying the Go installation: %w", err)
	}
	for to, from := range map[string]string{
		"bin/busybox":                       busybox,
		"etc/ssl/certs/ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt",
	} {
		if err := CopyFile(filepath.Join(root, to), from); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "Dockerfile"), []byte(goDockerfile), 0o600); err != nil {
		return err
	}
	return e.Build(ctx, root, string(from[1]), "--network", "none")
}

// CopyFile copies a file with its permissions and makes the folders above it.
func CopyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		target.Close()
		return fmt.Errorf("copying %s: %w", from, err)
	}
	return target.Close()
}
