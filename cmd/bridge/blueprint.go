package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/blueprinttest"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/operations"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

func newBlueprintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "blueprint",
		Short: "Write, validate and test blueprints",
		Long: `blueprint helps to write the file that maps fields of an event to columns of the
table. docs/blueprint.md describes the file.`,
		Example: `  bridge blueprint init                       write a first blueprint and its tests
  bridge blueprint validate blueprint.yaml    list all mistakes, with their lines
  bridge blueprint test                       run the tests beside the blueprints here
  bridge schema blueprint                     the JSON Schema, for editors`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBlueprintInitCommand(), newBlueprintValidateCommand(), newBlueprintTestCommand())
	return cmd
}

//go:embed starter/blueprint.yaml
var starterBlueprint []byte

//go:embed starter/blueprint.test.yaml
var starterTests []byte

func newBlueprintInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a first blueprint and its tests",
		Long: `init writes a small blueprint with comments to FILE, by default blueprint.yaml, and
its tests beside it. It never overwrites a file.`,
		Example: `  bridge blueprint init
  bridge blueprint init blueprints/shop.yaml && bridge blueprint test blueprints/shop.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "blueprint.yaml"
			if len(args) > 0 {
				file = args[0]
			}
			if filepath.Ext(file) != ".yaml" || strings.HasSuffix(file, blueprinttest.Suffix) {
				return &usageError{fmt.Errorf("%s cannot have its tests beside it; name a file that ends in .yaml, such as shop.yaml", file)}
			}
			tests := strings.TrimSuffix(file, ".yaml") + blueprinttest.Suffix
			if _, err := os.Lstat(tests); err == nil {
				return errExists(tests)
			}
			own := bytes.ReplaceAll(starterBlueprint, []byte("blueprint.yaml"), []byte(filepath.Base(file)))
			own = bytes.ReplaceAll(own, []byte("blueprint.test.yaml"), []byte(filepath.Base(tests)))
			if err := writeNew(file, own); err != nil {
				return err
			}
			if err := writeNew(tests, starterTests); err != nil {
				return errors.Join(err, os.Remove(file)) // both or none
			}
			return printText(cmd.OutOrStdout(), fmt.Sprintf("%s and %s written; next: bridge blueprint test %s\n", file, tests, file))
		},
	}
}

func errExists(file string) error {
	return &usageError{fmt.Errorf("%s exists already and was not changed; name another file", file)}
}

func writeNew(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return errExists(file)
	}
	if err != nil {
		return fmt.Errorf("writing the blueprint: %w; name a file in a folder that can be written to", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", file, err), os.Remove(file))
	}
	return nil
}

func newBlueprintValidateCommand() *cobra.Command {
	var table bool
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "List every mistake in blueprints",
		Long: `validate reads blueprints as bridge run does and lists every mistake with its line
and column. It connects to nothing unless --table is given: then it also compares
the blueprints with the columns of the live table, which needs the whole
configuration. The exit code is 1 if a file has a mistake.`,
		Example: `  bridge blueprint validate blueprint.yaml
  bridge blueprint validate blueprints/*.yaml --output json
  bridge blueprint validate blueprint.yaml --table --config config.yaml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			compile := operations.CompileAlone
			report := operations.Validation{OK: true}
			note := ""
			if table {
				live, err := readLiveTable(cmd)
				if err != nil {
					return err
				}
				compile, report.Warnings, note = live.compile, live.warnings, live.note
			}
			for _, file := range files {
				r := operations.ValidateFile(file, compile)
				r.Note = note
				report.OK = report.OK && r.OK
				report.Files = append(report.Files, r)
			}
			if err := output.write(cmd, report, report.WriteText); err != nil {
				return err
			}
			if !report.OK {
				return &quietError{errors.New("a blueprint has mistakes")}
			}
			return nil
		},
	}
	config.AddFlags(cmd.Flags(), "brokers", "topics", "topic", "group", "log-level", "integration")
	cmd.Flags().BoolVar(&table, "table", false, "also compare the blueprints with the live table; needs the whole configuration")
	output = addOutput(cmd)
	return cmd
}

// liveTable is the table of the configuration and its columns.
type liveTable struct {
	cfg      *config.Config
	client   *zerobus.Client
	columns  []zerobus.Column
	note     string   // why the columns are not known
	warnings []string // about the configuration
}

func readLiveTable(cmd *cobra.Command) (*liveTable, error) {
	cfg, err := loadConfig(cmd, false)
	if err != nil {
		return nil, err
	}
	t := &liveTable{cfg: cfg}
	decide := func(ctx context.Context, client *zerobus.Client) {
		if err := pipeline.DecideFirst(ctx, client); err != nil {
			t.warnings = append(t.warnings, err.Error())
		}
	}
	if t.client, t.columns, _, err = readTable(cmd, cfg, decide, false); err != nil {
		hidden, ok := errors.AsType[*zerobus.ColumnsUnreadable](err)
		if !ok {
			return nil, err
		}
		t.note = pipeline.UnreadColumns(hidden)
	}
	for _, i := range append(settingsWithoutEffect(config.Single(cfg)), cfg.IgnoredWith(t.client.State().Transport)...) {
		t.warnings = append(t.warnings, i.String())
	}
	return t, nil
}

// readTable reads the columns of the live table and, with tags, the name of its rescue
// column. It calls first, if not nil, before it reads. The client it returns is closed: it
// knows the table and takes no rows.
func readTable(cmd *cobra.Command, cfg *config.Config, first func(context.Context, *zerobus.Client), tags bool) (_ *zerobus.Client, _ []zerobus.Column, rescue string, _ error) {
	client, err := pipeline.NewClient(cfg, version(), commandLogger(cmd, cfg.Log, nil), nil)
	if err != nil {
		return nil, nil, "", &usageError{err}
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), lookupTimeout)
	defer cancel()
	if first != nil {
		first(ctx, client)
	}
	columns, err := client.Columns(ctx)
	if err == nil && tags {
		if rescue, err = client.RescueColumn(ctx, columns); err != nil {
			err = fmt.Errorf("whether %s has a rescue column is not known: %w; leave out --rescue", client.Table(), err)
		}
	}
	return client, columns, rescue, err
}

func (t *liveTable) compile(plan *mapping.Blueprint) (*mapping.Mapping, error) {
	m, err := pipeline.Compile(t.client, pipeline.MappingOptions(t.cfg), plan, t.columns)
	if bad, ok := errors.AsType[*pipeline.BlueprintMismatch](err); ok {
		return nil, bad.Err // which has the lines
	}
	return m, err
}

func newBlueprintTestCommand() *cobra.Command {
	var update bool
	var run string
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "test [DIR|FILE]...",
		Short: "Run the tests beside blueprints",
		Long: `test maps the events of test files and compares the outcomes with the wanted ones.
The tests of shop.yaml are in shop.test.yaml beside it. A folder is searched with
all below it; without an argument, the current one. test connects to nothing. The
exit code is 1 if a test fails or if a file or blueprint has a mistake.
docs/blueprint.md describes the form of a test.`,
		Example: `  bridge blueprint test
  bridge blueprint test shop.yaml --run 'refund|order'
  bridge blueprint test blueprints/ --output json
  bridge blueprint test shop.yaml --update    write the actual outcomes into the tests`,
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
			files, err := blueprinttest.Find(args)
			if err != nil {
				return &usageError{err}
			}
			report := testReport{OK: true}
			for _, file := range files {
				report.add(blueprinttest.Run(file, match, update))
			}
			if report.Passed+report.Failed == 0 && match != nil && report.OK {
				return &usageError{fmt.Errorf("--run %s matches no test", run)}
			}
			if err := output.write(cmd, report, report.text); err != nil {
				return err
			}
			if !report.OK {
				return &quietError{errors.New("tests failed")}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&update, "update", false, "replace the wanted outcomes in the test files by the actual ones; review the difference before you keep it")
	cmd.Flags().StringVar(&run, "run", "", "run only the tests whose name matches this regular expression")
	output = addOutput(cmd)
	return cmd
}

// testReport is the answer of bridge blueprint test.
type testReport struct {
	OK      bool                   `json:"ok"`
	Passed  int                    `json:"passed"`
	Failed  int                    `json:"failed"`
	Updated int                    `json:"updated"`
	Files   []blueprinttest.Report `json:"files"`
}

func (r *testReport) add(f blueprinttest.Report) {
	r.Files = append(r.Files, f)
	r.OK = r.OK && f.OK()
	r.Updated += f.Updated
	for _, t := range f.Tests {
		if t.OK {
			r.Passed++
		} else {
			r.Failed++
		}
	}
}

func (r *testReport) text(b *strings.Builder, look terminal.Style) {
	for _, f := range r.Files {
		operations.WriteProblems(b, look, f.File, f.Problems)
		operations.WriteProblems(b, look, f.Blueprint, f.Faults)
		if f.OK() {
			fmt.Fprintf(b, "%s    %s: %d tests\n", look.Good("ok"), plaintext.VisibleLine(f.File), len(f.Tests))
		}
		for _, t := range f.Tests {
			if t.OK {
				continue
			}
			fmt.Fprintf(b, "%s  %s:%d:%d: %s\n", look.Bad("FAIL"), plaintext.VisibleLine(f.File), t.Line, t.Column, plaintext.VisibleLine(t.Name))
			for _, line := range t.Diff {
				line = plaintext.VisibleLine(line)
				switch line[0] {
				case '-':
					line = look.Bad(line)
				case '+':
					line = look.Good(line)
				}
				fmt.Fprintf(b, "        %s\n", line)
			}
		}
	}
	fmt.Fprintf(b, "%d passed, %d failed", r.Passed, r.Failed)
	if r.Updated > 0 {
		fmt.Fprintf(b, ", %d of them updated", r.Updated)
	}
	fmt.Fprintln(b)
}
