// Command clustertest installs the Helm chart on a Kubernetes API server. Helm installs,
// upgrades, rolls back and uninstalls every value set, in a namespace that enforces the
// Pod Security Standard "restricted". Then it makes mistakes in copies of the chart; a
// mistake that no check finds is a failure.
//
//	make cluster-test
//
// The servers are built from their Go modules and run on this machine's loopback. There
// is no scheduler and no kubelet: this program reports pods as ready, so no container runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) //nolint:forbidigo // programs begin here
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "clustertest:", err)
		os.Exit(1) //nolint:forbidigo // programs end here
	}
}

// limit bounds a whole run; the first one also builds the servers.
const limit = 90 * time.Minute

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("clustertest", flag.ContinueOnError)
	root := flags.String("root", "../..", "folder of the bridge's module")
	only := flags.String("only", "", "run only the checks whose name contains this text")
	hold := flags.Bool("hold", false, "instead of the checks, wait for Ctrl-C, to use helm and kubectl by hand")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s; look at what the last line waits for", limit))
	defer cancel()
	top, err := filepath.Abs(*root)
	if err != nil {
		return fmt.Errorf("finding --root %s: %w", *root, err)
	}
	r := report{out: out}
	var bin binaries
	if err := r.step("build or find the servers and the clients", func() (figure string, err error) {
		bin, figure, err = build(ctx, top, out)
		return figure, err
	}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "clustertest-")
	if err != nil {
		return fmt.Errorf("making a folder for the servers: %w; free space or set TMPDIR", err)
	}
	defer os.RemoveAll(dir)
	c := &cluster{bin: bin, dir: dir, root: top}
	defer c.stop()
	if err := r.step("start etcd, kube-apiserver and kube-controller-manager", func() (string, error) { return c.start(ctx) }); err != nil {
		return err
	}
	if err := r.step("create the namespace, the installer's role and the CRDs", func() (string, error) { return c.prepare(ctx) }); err != nil {
		return err
	}
	if *hold {
		fmt.Fprintf(out, "export KUBECONFIG=%s PATH=%s:$PATH\n", c.file("admin"), filepath.Dir(bin.helm))
		<-ctx.Done()
		return nil
	}
	sets, err := valueSets(top)
	if err != nil {
		return err
	}
	before := len(r.rows)
	check := func(name string, do func() (string, error)) {
		if ctx.Err() == nil && strings.Contains(name, *only) {
			_ = r.step(name, do) // the table has it
		}
	}
	cleaned := func(name string, do func() (string, error)) {
		check(name, func() (string, error) {
			figure, err := do()
			if err != nil {
				err = errors.Join(err, c.clean(ctx))
			}
			return figure, err
		})
	}
	for _, set := range sets {
		cleaned(set.name, func() (string, error) { return c.lifecycle(ctx, chartDir, set) })
	}
	cleaned("deploy/kubernetes and deploy/keda-scaledobject.yaml", func() (string, error) { return c.plainManifests(ctx) })
	cleaned("a replay as docs/deployment.md has it", func() (string, error) { return c.replay(ctx) })
	for _, m := range mistakes {
		check("mistake: "+m.name, func() (string, error) { return c.find(ctx, m) })
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if len(r.rows) == before {
		return fmt.Errorf("no check has %q in its name; the names are in the table of a run without -only", *only)
	}
	return r.table()
}

// report collects what ran.
type report struct {
	out  io.Writer
	rows []row
}

type row struct {
	name, figure string
	took         time.Duration
	err          error
}

// step runs one row of the table.
func (r *report) step(name string, do func() (string, error)) error {
	began := time.Now()
	figure, err := do()
	r.rows = append(r.rows, row{name, figure, time.Since(began), err})
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
		fmt.Fprintf(r.out, "FAILED  %v\n", err)
		return err
	}
	fmt.Fprintf(r.out, "%5.1fs  %s: %s\n", time.Since(began).Seconds(), name, figure)
	return nil
}

// table prints every row, and returns an error if one failed.
func (r *report) table() error {
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\ncheck\tresult\tseconds\tfigure")
	var failed []error
	for _, row := range r.rows {
		result := "ok"
		if row.err != nil {
			result = "FAILED"
			failed = append(failed, fmt.Errorf("%s: %w", row.name, row.err))
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\n", row.name, result, row.took.Seconds(), row.figure)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d checks failed:\n%w", len(failed), len(r.rows), errors.Join(failed...))
	}
	fmt.Fprintf(r.out, "all %d checks hold\n", len(r.rows))
	return nil
}
