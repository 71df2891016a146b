package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const sumsFile = "SHA256SUMS"

// file is one entry of an archive.
type file struct {
	name    string
	content []byte
	mode    int64
}

// tarball packs files below folder: in order of name, of one time, owned by nobody.
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

// chart packs the Helm chart as helm package does, with the release as its own
// version and as that of the image it runs.
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

func (r *release) write(name string, content []byte) error {
	if err := os.WriteFile(filepath.Join(r.out, name), content, 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	r.done = append(r.done, name)
	return nil
}

// sums writes the checksums of all files in the form of sha256sum.
func (r *release) sums() error {
	var text bytes.Buffer
	for _, name := range slices.Sorted(slices.Values(r.done)) {
		content, err := os.ReadFile(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(content), name)
	}
	return r.write(sumsFile, text.Bytes())
}
