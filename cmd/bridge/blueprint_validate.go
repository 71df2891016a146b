package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

func newBlueprintValidateCommand() *cobra.Command {
	var table bool
	output := outputText
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Tell everything that is wrong with blueprints",
		Long: `validate reads blueprints as bridge run would and tells every problem with its
line and column, all at once. It connects to nothing, unless --table asks to
hold them against the columns of the live table; that needs the whole
configuration. The exit code is 1 if a file has a problem.`,
		Example: `  bridge blueprint validate blueprint.yaml
  bridge blueprint validate blueprints/*.yaml --output json
  bridge blueprint validate blueprint.yaml --table --config config.yaml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			v := &validator{}
			if table {
				if err := v.readTable(cmd); err != nil {
					return err
				}
			}
			report := validation{OK: true, Warnings: v.warnings}
			for _, file := range files {
				r := v.validate(file)
				report.OK = report.OK && r.OK
				report.Files = append(report.Files, r)
			}
			if err := report.write(cmd.OutOrStdout(), output, styleOf(cmd, cmd.OutOrStdout())); err != nil {
				return fmt.Errorf("writing the report: %w", err)
			}
			if !report.OK {
				return &quietError{errors.New("a blueprint has problems")}
			}
			return nil
		},
	}
	config.AddFlags(cmd.Flags(), "brokers", "topics", "topic", "group", "log-level")
	cmd.Flags().BoolVar(&table, "table", false, "hold the blueprints against the live table, too; needs the whole configuration")
	addOutput(cmd, &output)
	return cmd
}

// validation is the answer.
type validation struct {
	OK    bool            `json:"ok"`
	Files []validatedFile `json:"files"`
	// Warnings name settings that have no effect, with --table.
	Warnings []string `json:"warnings,omitempty"`
}

type validatedFile struct {
	File     string        `json:"file"`
	OK       bool          `json:"ok"`
	Columns  int           `json:"columns,omitempty"`  // of the rows
	LeftOut  []string      `json:"left_out,omitempty"` // optional columns that rows do not carry
	Problems []fileProblem `json:"problems,omitempty"`
	Note     string        `json:"note,omitempty"`

	text string // columnsText
}

// validator compiles blueprints, for the live table where that was read.
type validator struct {
	cfg     *config.Config
	client  *zerobus.Client // nil without --table
	columns []zerobus.Column
	note    string

	warnings []string // about the configuration
}

// readTable reads the columns of the live table.
func (v *validator) readTable(cmd *cobra.Command) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	client, err := zerobus.New(zerobusConfig(cfg), newLogger(logFor(cfg.Log, cmd.ErrOrStderr()), zapcore.AddSync(cmd.ErrOrStderr())), nil)
	if err != nil {
		return &usageError{err}
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), alterTimeout)
	defer cancel()
	v.cfg, v.client = cfg, client
	for _, i := range settingsWithoutEffect(cfg) {
		v.warnings = append(v.warnings, i.String())
	}
	v.columns, err = client.Columns(ctx)
	if hidden, ok := errors.AsType[*zerobus.ColumnsUnreadable](err); ok {
		v.note = unreadColumns(hidden)
		return nil
	}
	return err
}

func (v *validator) validate(file string) validatedFile {
	r := validatedFile{File: file, Note: v.note}
	m, err := v.compile(file)
	if r.Problems = problemsOf(err); err == nil {
		r.OK, r.Columns, r.LeftOut, r.text = true, len(m.Columns()), m.OmittedColumns(), columnsText(m)
	}
	return r
}

func (v *validator) compile(file string) (*mapping.Mapping, error) {
	data, err := plaintext.ReadFile(file, plaintext.MaxText)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w; name a readable blueprint", err)
	}
	plan, err := mapping.Parse(file, data)
	if err != nil {
		return nil, err
	}
	if v.client == nil {
		// Optional columns are compiled for their problems, and not counted: without a
		// table bridge run leaves them out.
		if _, err := plan.Compile(mapping.Options{AllOptional: true}); err != nil {
			return nil, err
		}
		return plan.Compile(mapping.Options{})
	}
	m, err := pipeline.Compile(v.client, pipeline.MappingOptions(v.cfg), plan, v.columns)
	if bad, ok := errors.AsType[*pipeline.BlueprintMismatch](err); ok {
		return nil, bad.Err // which has the lines
	}
	return m, err
}

// columnsText counts the columns that rows carry and names the optional ones that
// they do not: bridge check and bridge blueprint validate count the same.
func columnsText(m *mapping.Mapping) string {
	text := fmt.Sprintf("%d columns", len(m.Columns()))
	if left := m.OmittedColumns(); len(left) > 0 {
		text += fmt.Sprintf(" (without the optional %s)", strings.Join(left, ", "))
	}
	return text
}

func (v validation) write(w io.Writer, form outputForm, s style) error {
	if form == outputJSON {
		return json.NewEncoder(w).Encode(v)
	}
	var b strings.Builder
	for _, f := range v.Files {
		for _, p := range f.Problems {
			fmt.Fprintln(&b, s.bad(p.at(f.File)))
		}
		if f.OK {
			fmt.Fprintf(&b, "%s: %s, %s\n", plaintext.VisibleLine(f.File), s.good("ok"), f.text)
		}
	}
	if n := len(v.Files); n > 0 && v.Files[n-1].Note != "" {
		fmt.Fprintln(&b, s.warn("warning:"), plaintext.VisibleLine(v.Files[n-1].Note))
	}
	for _, w := range v.Warnings {
		fmt.Fprintln(&b, s.warn("warning:"), plaintext.VisibleLine(w))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
