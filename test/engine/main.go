//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
)

// Main starts an engine, hands it to use, runs the tests of the package and prints the
// table of their checks. The engine is ended in each case, after Ctrl-C too. Main
// returns the exit code for TestMain.
func Main(m *testing.M, use func(*Engine)) int {
	syscall.Umask(0o022) // containers read what tests write
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	e, err := Start(context.Background()) //nolint:forbidigo // TestMain has none
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		<-interrupted
		fmt.Fprintln(os.Stderr, "interrupted; ending the Docker engine")
		_ = e.Stop()
		os.Exit(130) //nolint:forbidigo // the tests cannot be ended in another way
	}()
	// The temporary folders of the tests go with the engine's: after Ctrl-C they remove none.
	if err := os.Setenv("TMPDIR", e.dir); err != nil {
		panic(err) // neither the name nor the value can be wrong
	}
	use(e)
	code := m.Run()
	signal.Stop(interrupted)
	if err := e.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "ending the Docker engine:", err)
		code = 1
	}
	table.print(os.Stdout)
	return code
}

// table has the checks of this process.
var table results

type results struct {
	mu   sync.Mutex
	rows []row
}

type row struct{ check, result, figure string }

func (r *results) add(row row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row)
	fmt.Fprintf(os.Stderr, "%s: %s. %s\n", row.check, row.result, row.figure)
}

func (r *results) print(w io.Writer) {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\nCHECK\tRESULT\tFIGURE")
	for _, row := range r.rows {
		fmt.Fprintf(out, "%s\t%s\t%s\n", row.check, row.result, row.figure)
	}
	_ = out.Flush() // nobody reads a table that cannot be printed
}

// Check runs a check as a subtest and adds a row with its figure to the table. An error
// fails the subtest, and the others continue.
func Check(t *testing.T, name string, check func() (figure string, err error)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		figure, err := check()
		if err != nil {
			table.add(row{name, "FAILED", firstLine(err)})
			t.Fatal(err)
		}
		table.add(row{name, "ok", figure})
	})
}

// Break runs a check, as a subtest, on a subject that was broken on purpose. The check
// must fail with an error that contains want; otherwise it does not find the fault, and
// the subtest fails.
func Break(t *testing.T, name, want string, check func() (figure string, err error)) {
	t.Helper()
	name = "break: " + name
	t.Run(name, func(t *testing.T) {
		_, err := check()
		if err == nil {
			err = errors.New("the check found no fault")
		} else if strings.Contains(err.Error(), want) {
			table.add(row{name, "found", lineWith(want, err)})
			return
		}
		table.add(row{name, "FAILED", firstLine(err)})
		t.Fatalf("want an error with %q, got: %v", want, err)
	})
}

func firstLine(err error) string { return lineWith("", err) }

// lineWith returns the first line of an error that contains text.
func lineWith(text string, err error) string {
	for line := range strings.Lines(err.Error()) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	return err.Error()
}
