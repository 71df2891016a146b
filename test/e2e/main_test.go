package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/internal/kafkatest"
)

// atOnce is how many parallel tests run at a time: they wait far more than they
// work, so the usual number, that of the cores, would only stretch the waits.
// Tests that work hard are not parallel; they come first.
const atOnce = "8"

var buildDir string // holds the binaries

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	var err error
	if buildDir, err = os.MkdirTemp("", "bridge-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: making a folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(buildDir)
	return kafkatest.Main(m)
}

// The program, built once: as the tests themselves are built, and without the
// race detector where memory is measured.
var (
	asTested = sync.OnceValues(func() (string, error) { return build("bridge", buildtest.Race) })
	plain    = sync.OnceValues(func() (string, error) {
		if !buildtest.Race {
			return asTested()
		}
		return build("bridge-plain", false)
	})
	// panicking has a bug in an integration that reads a topic whose name ends with panic.
	panicking = sync.OnceValues(func() (string, error) { return build("bridge-panicking", false, "-tags", "panichook") })
)

func build(name string, race bool, flags ...string) (string, error) {
	path := filepath.Join(buildDir, name)
	if race {
		flags = append(flags, "-race")
	}
	return path, buildtest.Build(context.Background(), path, flags...)
}

// eventually waits until condition holds, for limit at most and no longer than
// the test binary has. It reports what was waited for and, if the time runs out,
// what last returns.
func eventually(t testing.TB, limit time.Duration, what string, condition func() bool, last ...func() string) {
	t.Helper()
	limit = min(limit, await.Limit(t))
	if await.Within(limit, condition) {
		return
	}
	said := ""
	for _, f := range last {
		said += "\n" + f()
	}
	t.Fatalf("after %v: not seen: %s%s", limit, what, said)
}

// lasts waits for d and fails if condition ceases to hold meanwhile.
func lasts(t testing.TB, d time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if !condition() {
			t.Fatalf("ceased to hold within %v: %s", d, what)
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return
		}
	}
}

// patience is how long a test waits for something that should come at once.
const patience = await.Patience

// slack is added to the promised time of a stop, drain and a second, for what a
// busy machine does besides. More than that takes a request that is waited for,
// such as the ten seconds that the client gives a broker to answer.
const slack = 8 * time.Second
