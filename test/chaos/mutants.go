package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/buildtest"
)

// mutants are mistakes that the audit must find, each a patch of the bridge. The
// lines above the first "diff" describe it. After "focus:" are the faults that show
// it, or after "test:" the package and the tests that find it without faults.
//
//go:embed mutants/*.patch
var mutants embed.FS

// mutant is one of them.
type mutant struct {
	name  string
	about string
	focus []string
	test  []string // package and pattern, instead of focus
	patch []byte
}

// mutantTime is the maximum duration of a mutant's run.
const mutantTime = 75 * time.Second

func loadMutants() ([]mutant, error) {
	entries, err := mutants.ReadDir("mutants")
	if err != nil {
		return nil, err
	}
	var all []mutant
	for _, e := range entries {
		text, err := mutants.ReadFile("mutants/" + e.Name())
		if err != nil {
			return nil, err
		}
		head, _, ok := bytes.Cut(text, []byte("diff --git"))
		m := mutant{name: strings.TrimSuffix(e.Name(), ".patch"), patch: text}
		about, focus, found := strings.Cut(strings.TrimSpace(string(head)), "focus:")
		if found {
			m.focus = strings.Split(strings.TrimSpace(focus), ",")
		} else {
			about, focus, found = strings.Cut(about, "test:")
			m.test = strings.Fields(focus)
		}
		if !ok || !found || m.focus == nil && len(m.test) != 2 {
			return nil, fmt.Errorf("mutants/%s: want what it does, a line that begins with focus: or test:, and a patch", e.Name())
		}
		m.about = strings.Join(strings.Fields(about), " ")
		all = append(all, m)
	}
	return all, nil
}

// tryMutants builds the bridge with each mistake and audits it. Every one must be found.
func tryMutants(ctx context.Context, o *options, stdout, stderr io.Writer) error {
	all, err := loadMutants()
	if err != nil {
		return err
	}
	if len(o.mutant) > 0 {
		known := len(all)
		all = slices.DeleteFunc(all, func(m mutant) bool { return !slices.Contains(o.mutant, m.name) })
		if len(all) != len(o.mutant) {
			return fmt.Errorf("-mutant names %s; look into test/chaos/mutants for the %d there are", strings.Join(o.mutant, ","), known)
		}
	}
	dir, err := os.MkdirTemp("", "chaos-mutants-")
	if err != nil {
		return fmt.Errorf("making a folder for the mutants: %w; check the folder for temporary files", err)
	}
	defer os.RemoveAll(dir)
	tree := filepath.Join(dir, "tree")
	if err := copyTree(ctx, tree); err != nil {
		return err
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%-22s %-16s %6s  %s\n", "mutant", "found by", "after", "what it does")
	survived := 0
	for _, m := range all {
		fmt.Fprintf(stderr, "chaos: mutant %s\n", m.name)
		bin := filepath.Join(dir, m.name)
		began := time.Now()
		if m.test != nil {
			found, err := testMutant(ctx, tree, m)
			if err != nil {
				return fmt.Errorf("mutant %s: %w", m.name, err)
			}
			by := "test"
			if !found {
				by = "NOT FOUND"
				survived++
			}
			fmt.Fprintf(&table, "%-22s %-16s %5.0fs  %s\n", m.name, by, time.Since(began).Seconds(), m.about)
			continue
		}
		if err := buildMutant(ctx, tree, bin, m); err != nil {
			return fmt.Errorf("mutant %s: %w", m.name, err)
		}
		run := *o
		run.bridge, run.first, run.focus, run.duration = bin, true, m.focus, mutantTime
		rep, err := once(ctx, &run, plan(&run), stderr)
		if err != nil {
			return fmt.Errorf("mutant %s: %w", m.name, err)
		}
		if rep.Interrupted {
			return errors.New("interrupted")
		}
		by := "NOT FOUND"
		if len(rep.Violations) > 0 {
			by = rep.Violations[0].Rule
			fmt.Fprintf(stderr, "chaos: found by rule %s: %s\n", by, rep.Violations[0].Examples[0])
		} else {
			survived++
		}
		fmt.Fprintf(&table, "%-22s %-16s %5.0fs  %s\n", m.name, by, time.Since(began).Seconds(), m.about)
	}
	fmt.Fprintf(stdout, "\n%s", table.String())
	if survived > 0 {
		return fmt.Errorf("%d of %d mutants were not found; the audit does not see those mistakes", survived, len(all))
	}
	return nil
}

// copyTree copies the files of the repository, as they are now, to a folder of its own.
func copyTree(ctx context.Context, to string) error {
	root, err := buildtest.Root()
	if err != nil {
		return err
	}
	list := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("listing the files of the repository: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed, and not committed yet
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("copying the module: %w; free some space", err)
		}
	}
	return nil
}

// buildMutant builds a patched bridge and reverts the patch.
func buildMutant(ctx context.Context, tree, out string, m mutant) error {
	return withMutant(ctx, tree, m, func() error { return buildtest.BuildIn(ctx, tree, out, "-trimpath") })
}

// testMutant reports whether the mutant's tests fail, each within its own bound.
func testMutant(ctx context.Context, tree string, m mutant) (found bool, err error) {
	err = withMutant(ctx, tree, m, func() error {
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-failfast", "-run", "^("+m.test[1]+")$", m.test[0])
		cmd.Dir = tree
		text, err := cmd.CombinedOutput()
		found = bytes.Contains(text, []byte("--- FAIL"))
		if err != nil && !found {
			return fmt.Errorf("go test: %w\n%s", err, text)
		}
		return nil
	})
	return found, err
}

// withMutant calls do while the patch is applied.
func withMutant(ctx context.Context, tree string, m mutant, do func() error) (err error) {
	apply := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "git", append([]string{"apply"}, args...)...)
		cmd.Dir, cmd.Stdin = tree, bytes.NewReader(m.patch)
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("applying the patch: %w; make it again for the present code\n%s", err, text)
		}
		return nil
	}
	if err := apply(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, apply("-R")) }()
	return do()
}
