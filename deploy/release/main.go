// Command release builds the files of a version: archives with static binaries,
// their bills of materials, the Helm chart and SHA256SUMS. The same sources, Go and
// version give the same bytes in any folder.
//
//	make release VERSION=v1.2.3
//
// It is a module of its own, so that the bridge does not depend on CycloneDX.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt) //nolint:forbidigo // programs begin here
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1) //nolint:forbidigo // programs end here
	}
}

const sumsFile = "SHA256SUMS"

// release is one version being built.
type release struct {
	version string    // v1.2.3
	root    string    // folder of the bridge's module
	out     string    // folder of the results
	time    time.Time // of all files in archives and of bills of materials
	sums    []string  // lines of SHA256SUMS
}

var semver = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

func run(ctx context.Context, args []string, progress io.Writer) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.SetOutput(progress)
	version := flags.String("version", "", "version to build, as in v1.2.3")
	root := flags.String("root", "../..", "folder of the bridge's module")
	out := flags.String("out", "../../dist", "folder to write to; an earlier release in it is removed")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64", "os/architecture, comma separated")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !semver.MatchString(*version) {
		return fmt.Errorf("version %q is not a semantic version with a v; give one as in make release VERSION=v1.2.3", *version)
	}
	when, err := sourceTime(ctx, *root)
	if err != nil {
		return err
	}
	r := &release{version: *version, root: *root, out: *out, time: when}
	if r.out, err = filepath.Abs(r.out); err != nil {
		return fmt.Errorf("--out %s: %w", *out, err)
	}
	if err := empty(r.out); err != nil {
		return err
	}
	for _, platform := range strings.Split(*platforms, ",") {
		goos, goarch, ok := strings.Cut(platform, "/")
		if !ok {
			return fmt.Errorf("platform %q is not of the form os/architecture; write linux/amd64", platform)
		}
		fmt.Fprintf(progress, "bridge %s for %s\n", r.version, platform)
		if err := r.platform(ctx, goos, goarch); err != nil {
			return fmt.Errorf("building for %s: %w", platform, err)
		}
	}
	if err := r.chart(); err != nil {
		return fmt.Errorf("packing the chart: %w", err)
	}
	slices.SortFunc(r.sums, func(a, b string) int { return strings.Compare(a[2*sha256.Size:], b[2*sha256.Size:]) })
	if err := r.write(sumsFile, []byte(strings.Join(r.sums, ""))); err != nil {
		return err
	}
	fmt.Fprintf(progress, "%d files in %s; sha256sum -c SHA256SUMS checks them\n", len(r.sums), r.out)
	return nil
}

// sourceTime returns SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/)
// or, without it, the time of the commit that is checked out.
func sourceTime(ctx context.Context, root string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.CommandContext(ctx, "git", "-C", root, "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("asking git for the time of the commit: %w; outside a clone, set SOURCE_DATE_EPOCH to seconds since 1970", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q; set it to seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// empty creates dir or removes an earlier release from it.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("reading --out: %w; name another folder", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != sumsFile && !strings.HasPrefix(name, "bridge") {
			return fmt.Errorf("%s contains %s, which is not from a release; empty the folder or name another with --out", dir, name)
		}
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("emptying --out: %w", err)
		}
	}
	return nil
}
