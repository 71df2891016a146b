package kafkatest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// findArchive returns the file with the classes a broker has loaded, which
// halves the two seconds a broker takes to start, see
// https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html. The first
// process on a machine makes it, by running a broker once; the file is good for
// one Java and one folder of jars.
//
// Where Java cannot make the archive, brokers do without, and an empty file says
// so to the next process. An error means that ctx ended.
func findArchive(ctx context.Context, rt runtime) (string, error) {
	sum := sha256.Sum256([]byte(rt.java + rt.version))
	archive := filepath.Join(rt.jars, fmt.Sprintf("classes-%x.jsa", sum[:4]))
	if info, err := os.Stat(archive); err == nil {
		return usable(archive, info), nil
	}
	unlock, err := lock(ctx, rt.jars+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if info, err := os.Stat(archive); err == nil {
		return usable(archive, info), nil
	}
	if err := makeArchive(ctx, rt, archive); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("preparing kafka's classes: %w", context.Cause(ctx))
		}
		_ = os.WriteFile(archive, nil, 0o644) // else the next process tries again
		return "", nil
	}
	return archive, nil
}

func usable(archive string, info os.FileInfo) string {
	if info.Size() == 0 {
		return ""
	}
	return archive
}

func makeArchive(ctx context.Context, rt runtime, archive string) error {
	dir, err := os.MkdirTemp("", "kafka-classes-")
	if err != nil {
		return err
	}
	partial := archive + ".partial"
	c := &Cluster{dir: dir}
	err = c.start(ctx, rt, Options{JVM: []string{"-XX:ArchiveClassesAtExit=" + partial}})
	if err == nil {
		err = c.Stop(0)
	}
	if err := errors.Join(err, c.Close()); err != nil {
		return err
	}
	return os.Rename(partial, archive)
}
