package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/plaintext"
)

func newBlueprintTestCommand() *cobra.Command {
	var update bool
	var run string
	output := outputText
	cmd := &cobra.Command{
		Use:   "test [DIR|FILE]...",
		Short: "Run the tests beside blueprints",
		Long: `test maps the events of test files and compares what becomes of them with what
the files want. The tests of shop.yaml stand in shop.test.yaml beside it; a
folder (the current one, when nothing is named) is looked through with all below
it. It connects to nothing. The exit code is 1 if a test fails or a file or
blueprint is wrong. docs/blueprint.md describes the form of a test.`,
		Example: `  bridge blueprint test
  bridge blueprint test shop.yaml --run 'refund|order'
  bridge blueprint test blueprints/ --output json
  bridge blueprint test shop.yaml --update    take what comes out as what is wanted`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var match *regexp.Regexp
			if run != "" {
				var err error
				if match, err = regexp.Compile(run); err != nil {
					return &usageError{fmt.Errorf("--run: %w; give a regular expression", err)}
				}
			}
			if len(args) == 0 {
				args = []string{"."}
			}
			files, err := findCases(args)
			if err != nil {
				return err
			}
			report := testReport{}
			for _, file := range files {
				report.add(runCases(file, match, update))
			}
			if report.Passed+report.Failed == 0 && match != nil && report.OK() {
				return &usageError{fmt.Errorf("--run %s matches no test", run)}
			}
			if err := report.write(cmd.OutOrStdout(), output, styleOf(cmd, cmd.OutOrStdout())); err != nil {
				return fmt.Errorf("writing the report: %w", err)
			}
			if !report.OK() {
				return &quietError{errors.New("tests failed")}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&update, "update", false, "write what comes out into the test files, in the place of what they want; look at the difference before you keep it")
	cmd.Flags().StringVar(&run, "run", "", "run only the tests whose name matches this regular expression")
	addOutput(cmd, &output)
	return cmd
}

// testReport is what came of all files.
type testReport struct {
	Passed  int
	Failed  int
	Updated int
	Files   []caseReport
}

// OK reports whether nothing failed.
func (r *testReport) OK() bool {
	for _, f := range r.Files {
		if !f.fine() {
			return false
		}
	}
	return true
}

func (r *testReport) add(f caseReport) {
	r.Files = append(r.Files, f)
	r.Updated += f.Updated
	for _, t := range f.Tests {
		if t.OK {
			r.Passed++
		} else {
			r.Failed++
		}
	}
}

func (r *testReport) write(w io.Writer, form outputForm, s style) error {
	if form == outputJSON {
		return json.NewEncoder(w).Encode(map[string]any{"ok": r.OK(), "passed": r.Passed, "failed": r.Failed, "updated": r.Updated, "files": r.Files})
	}
	var b strings.Builder
	for _, f := range r.Files {
		f.text(&b, s)
	}
	fmt.Fprintf(&b, "%d passed, %d failed", r.Passed, r.Failed)
	if r.Updated > 0 {
		fmt.Fprintf(&b, ", %d of them updated", r.Updated)
	}
	fmt.Fprintln(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (f caseReport) text(b *strings.Builder, s style) {
	for _, p := range f.Problems {
		fmt.Fprintln(b, s.bad(p.at(f.File)))
	}
	for _, p := range f.Faults {
		fmt.Fprintln(b, s.bad(p.at(f.Blueprint)))
	}
	if f.fine() {
		fmt.Fprintf(b, "%s    %s: %d tests\n", s.good("ok"), plaintext.VisibleLine(f.File), len(f.Tests))
		return
	}
	for _, t := range f.Tests {
		if t.OK {
			continue
		}
		fmt.Fprintf(b, "%s  %s:%d:%d: %s\n", s.bad("FAIL"), plaintext.VisibleLine(f.File), t.Line, t.Column, plaintext.VisibleLine(t.Name))
		for _, line := range t.Diff {
			line = plaintext.VisibleLine(line)
			switch line[0] {
			case '-':
				line = s.bad(line)
			case '+':
				line = s.good(line)
			}
			fmt.Fprintf(b, "        %s\n", line)
		}
	}
}
