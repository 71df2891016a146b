// Command brokers runs the tests of delivery on several releases of Apache Kafka and
// prints what each release passed. It ends with 1 if a test failed or a package ran
// none.
//
//	go -C test run ./brokers -versions 3.9.2,4.4.0
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/buildtest"
)

// packages hold the tests of delivery that run on Apache Kafka, by their module's folder.
var packages = [][2]string{
	{".", "./consumer"}, {".", "./internal/kafka"}, {".", "./internal/deadletter"}, {".", "./internal/integrations/store"}, {"test", "./e2e"},
}

func main() {
	versions := flag.String("versions", "3.3.2,3.9.2,4.4.0", "releases of Apache Kafka, as Maven Central names them")
	run := flag.String("run", "", "only tests that match, as go test -run")
	flag.Parse()
	ok, err := compare(os.Stdout, strings.Split(*versions, ","), *run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "brokers:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// outcome is what one release did with one package, or with all.
type outcome struct {
	passed, failed, skipped int
	why                     map[string]int // tests by the reason to skip them
	took                    time.Duration
	broken                  bool // go test failed, for a test or for another reason
}

func (o *outcome) add(more outcome) {
	o.passed, o.failed, o.skipped, o.took = o.passed+more.passed, o.failed+more.failed, o.skipped+more.skipped, o.took+more.took
	o.broken = o.broken || more.broken
	for reason, n := range more.why {
		o.why[reason] += n
	}
}

func (o outcome) String() string {
	return fmt.Sprintf("%3d passed, %d failed, %d skipped, %v", o.passed, o.failed, o.skipped, o.took.Round(time.Second))
}

func compare(out io.Writer, versions []string, run string) (ok bool, err error) {
	root, err := buildtest.Root()
	if err != nil {
		return false, err
	}
	ok = true
	var table strings.Builder
	for _, version := range versions {
		total := outcome{why: make(map[string]int)}
		for _, p := range packages {
			one, err := test(out, filepath.Join(root, p[0]), p[1], version, run)
			if err != nil {
				return false, err
			}
			fmt.Fprintf(out, "Apache Kafka %s %-30s %s\n", version, p[1], one)
			total.add(one)
			ok = ok && !one.broken && (one.passed+one.skipped > 0 || run != "")
		}
		fmt.Fprintf(&table, "Apache Kafka %-6s %s\n", version, total)
		for _, reason := range slices.Sorted(maps.Keys(total.why)) {
			fmt.Fprintf(&table, "    %d skipped: %s\n", total.why[reason], reason)
		}
	}
	fmt.Fprint(out, "\n", table.String())
	return ok, nil
}

// test runs the tests of one package that run on Apache Kafka. It prints the output of
// those that fail.
func test(out io.Writer, dir, pkg, version, run string) (outcome, error) {
	count, err := os.CreateTemp("", "brokers-")
	if err != nil {
		return outcome{}, fmt.Errorf("making a file for the names of tests: %w", err)
	}
	defer os.Remove(count.Name())
	defer count.Close()
	cmd := exec.Command("go", "test", "-json", "-count=1", "-timeout=45m", "-run="+run, pkg) //nolint:noctx // go test has a limit
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), "KAFKATEST_VERSION="+version, "KAFKATEST_ONLY_APACHE=1", "KAFKATEST_COUNT_FILE="+count.Name(), "REQUIRE_APACHE_KAFKA=1")
	began := time.Now()
	events, failed := cmd.Output()
	o := outcome{took: time.Since(began), why: make(map[string]int), broken: failed != nil}

	names, err := os.ReadFile(count.Name())
	if err != nil {
		return outcome{}, fmt.Errorf("reading the names of the tests that ran: %w", err)
	}
	started := make(map[string]bool)
	for line := range strings.Lines(string(names)) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		started[name] = true
	}
	return o, o.read(out, events, started, version)
}

// read counts the tests on Apache Kafka: those that started a broker, and those that
// need what this release lacks.
func (o *outcome) read(out io.Writer, events []byte, started map[string]bool, version string) error {
	output := make(map[string]string)
	lines := bufio.NewScanner(bytes.NewReader(events))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("reading the output of go test: %w: %s", err, lines.Text())
		}
		text := output[e.Test]
		_, lacks, old := strings.Cut(text, "Apache Kafka "+version+" lacks ")
		lacks, _, _ = strings.Cut(lacks, "\n")
		switch {
		case e.Action == "output" || e.Action == "build-output":
			output[e.Test] += e.Output
		case e.Action == "fail":
			fmt.Fprintln(out, text)
			if started[e.Test] {
				o.failed++
			}
		case e.Action == "pass" && started[e.Test]:
			o.passed++
		case e.Action == "skip" && old:
			o.skipped++
			o.why["it lacks "+lacks]++
		case e.Action == "skip" && started[e.Test]:
			o.skipped++
			_, reason, _ := strings.Cut(text, ".go:") // file.go:12: reason
			_, reason, _ = strings.Cut(reason, ": ")
			reason, _, _ = strings.Cut(reason, "\n")
			o.why[reason]++
		}
	}
	return lines.Err()
}
