package kafkatest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/datafly/bridge/internal/buildtest"
)

// DefaultVersion is the release of Apache Kafka that tests run on.
const DefaultVersion = "4.3.1"

// Version is the release of Apache Kafka, as Maven Central names it under
// org.apache.kafka:kafka_2.13: KAFKATEST_VERSION, or [DefaultVersion].
var Version = cmp.Or(os.Getenv("KAFKATEST_VERSION"), DefaultVersion)

// minJava is the oldest Java a broker of Kafka 4 runs on, see
// https://kafka.apache.org/documentation/#java. Kafka 3 runs on it, too.
const minJava = 17

// copyGoal copies what the pom depends on, pinned so that the same command runs
// everywhere.
const copyGoal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

// pom names the broker and the log backend that writes to standard error; Kafka
// itself depends on the slf4j API alone.
var pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>kafkatest</groupId>
  <artifactId>kafkatest</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>` + Version + `</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
`

// ErrUnavailable is wrapped by the errors of [Run] when this machine cannot run
// Apache Kafka at all: no Java, a Java that is too old, or no way to get the
// jars. Any other error means that a broker was started and misbehaved.
var ErrUnavailable = errors.New("apache kafka is not available on this machine")

// runtime is what starting a broker needs.
type runtime struct {
	java    string // path of the java executable
	version string // the output of java -version
	jars    string // folder with every jar of the class path
	archive string // of loaded classes, see prepare; empty: none
}

// found holds the result of the search for Java and the jars, which is done
// once per process.
var found struct {
	sync.Mutex
	done bool
	rt   runtime
	err  error
}

// findRuntime returns Java and the jars, and prepares the jars on first use. It
// waits for another process that does so, until ctx ends.
func findRuntime(ctx context.Context) (runtime, error) {
	found.Lock()
	defer found.Unlock()
	if !found.done {
		rt, err := searchRuntime(ctx)
		if err != nil && ctx.Err() != nil {
			return runtime{}, err // not a property of the machine
		}
		found.done, found.rt, found.err = true, rt, err
	}
	return found.rt, found.err
}

func searchRuntime(ctx context.Context) (rt runtime, err error) {
	if rt.java, rt.version, err = findJava(ctx); err != nil {
		return runtime{}, err
	}
	cache, err := cacheDir()
	if err != nil {
		return runtime{}, err
	}
	rt.jars = filepath.Join(cache, Version)
	return rt, rt.prepare(ctx, cache)
}

var javaVersion = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// findJava prefers JAVA_HOME, as Kafka's own scripts do.
func findJava(ctx context.Context) (java, version string, err error) {
	name := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		name = filepath.Join(home, "bin", "java")
	}
	java, err = exec.LookPath(name)
	if err != nil {
		return "", "", fmt.Errorf("%w: looking for %s: %w; install Java %d or newer", ErrUnavailable, name, err, minJava)
	}
	out, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("%w: running %s -version: %w: %s", ErrUnavailable, java, err, bytes.TrimSpace(out))
	}
	m := javaVersion.FindSubmatch(out)
	if m == nil {
		return "", "", fmt.Errorf("%w: %s -version printed no version: %s; set JAVA_HOME to a JDK",
			ErrUnavailable, java, bytes.TrimSpace(out))
	}
	if major, _ := strconv.Atoi(string(m[1])); major < minJava {
		return "", "", fmt.Errorf("%w: %s is Java %d and Kafka %s needs %d; install a newer Java or set JAVA_HOME",
			ErrUnavailable, java, major, Version, minJava)
	}
	return java, string(out), nil
}

// cacheDir is KAFKATEST_CACHE, or .cache/kafka in the root of the repository, or
// the user's cache folder outside the repository.
func cacheDir() (string, error) {
	if dir := os.Getenv("KAFKATEST_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	if root, err := buildtest.Root(); err == nil {
		return filepath.Join(root, ".cache", "kafka"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w; set KAFKATEST_CACHE", err)
	}
	return filepath.Join(dir, "kafkatest"), nil
}

// prepare fills the folder of jars and makes the archive of classes, unless both
// exist. Test binaries of several packages run at once: a file lock lets one of
// them do it, and a rename makes the folder appear complete or not at all.
//
// The archive has the classes a broker has loaded. It saves one of the two
// seconds a broker takes to start, see
// https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html. It is
// valid for one Java and one folder of jars. If Java cannot make it, an empty file
// prevents further attempts.
func (rt *runtime) prepare(ctx context.Context, cache string) error {
	sum := sha256.Sum256([]byte(rt.java + rt.version))
	archive := filepath.Join(rt.jars, fmt.Sprintf("classes-%x.jsa", sum[:4]))
	ready := func() bool {
		info, err := os.Stat(archive)
		if err == nil && info.Size() > 0 {
			rt.archive = archive
		}
		return err == nil && complete(rt.jars)
	}
	if ready() { // the cache may be read-only
		return nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("making the cache for kafka's jars: %w; set KAFKATEST_CACHE to a folder that can be written", err)
	}
	unlock, err := lock(ctx, rt.jars+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if ready() {
		return nil
	}
	if !complete(rt.jars) {
		if err := fetchJars(ctx, cache, rt.jars); err != nil {
			return err
		}
	}
	switch err := rt.makeArchive(ctx, archive); {
	case err == nil:
		rt.archive = archive
	case ctx.Err() != nil:
		return fmt.Errorf("preparing kafka's classes: %w", context.Cause(ctx))
	default:
		_ = os.WriteFile(archive, nil, 0o644) // without it the next process tries again
	}
	return nil
}

func fetchJars(ctx context.Context, cache, jars string) error {
	tmp, err := os.MkdirTemp(cache, Version+"-partial-")
	if err != nil {
		return fmt.Errorf("making a folder for kafka's jars: %w; set KAFKATEST_CACHE to a folder that can be written", err)
	}
	defer os.RemoveAll(tmp)
	if err := download(ctx, tmp); err != nil {
		return err
	}
	if err := os.RemoveAll(jars); err != nil { // left by another pom
		return fmt.Errorf("removing outdated jars: %w; remove %s", err, jars)
	}
	if err := os.Rename(tmp, jars); err != nil {
		return fmt.Errorf("moving kafka's jars into place: %w; remove %s", err, jars)
	}
	return nil
}

// complete reports whether the folder holds the jars of exactly this pom.
func complete(jars string) bool {
	have, err := os.ReadFile(filepath.Join(jars, "pom.xml"))
	return err == nil && string(have) == pom
}

func download(ctx context.Context, dir string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("%w: looking for mvn, which downloads the jars: %w; install Maven", ErrUnavailable, err)
	}
	file := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(file, []byte(pom), 0o644); err != nil {
		return fmt.Errorf("writing the pom: %w", err)
	}
	cmd := exec.CommandContext(ctx, mvn, "-B", "-q", "-f", file, copyGoal, "-DincludeScope=runtime", "-DoutputDirectory="+dir)
	cmd.WaitDelay = 5 * time.Second // Maven's own children may hold the pipe
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: mvn could not download kafka %s: %w; check the network and ~/.m2/settings.xml; its output:\n%s",
			ErrUnavailable, Version, err, bytes.TrimSpace(out))
	}
	return nil
}

// lock takes the exclusive lock on a file and returns what releases it. The
// kernel releases it too when the process dies.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of kafka's jars: %w; set KAFKATEST_CACHE to a folder that can be written", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w; remove it", name, err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			f.Close()
			return nil, fmt.Errorf("waiting for another process that downloads kafka's jars (%s): %w", name, err)
		}
	}
}

// pause waits for d, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (rt *runtime) makeArchive(ctx context.Context, archive string) error {
	dir, err := os.MkdirTemp("", "kafka-classes-")
	if err != nil {
		return err
	}
	partial := archive + ".partial"
	c := &Cluster{dir: dir}
	err = c.start(ctx, *rt, Options{JVM: []string{"-XX:ArchiveClassesAtExit=" + partial}})
	if err == nil {
		err = c.Stop(0)
	}
	if err := errors.Join(err, c.Close()); err != nil {
		return err
	}
	return os.Rename(partial, archive)
}
