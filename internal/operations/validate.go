package operations

import (
	"fmt"
	"strings"

	"github.com/datafly/bridge/internal/blueprinttest"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/mapping"
)

// Validation is what is wrong with blueprints.
type Validation struct {
	OK    bool            `json:"ok"`
	Files []ValidatedFile `json:"files"`
	// Warnings name settings that have no effect, with --table.
	Warnings []string `json:"warnings,omitempty"`
}

// ValidatedFile is what is wrong with one of them.
type ValidatedFile struct {
	File     string                  `json:"file"`
	OK       bool                    `json:"ok"`
	Columns  int                     `json:"columns,omitempty"`  // of the rows
	LeftOut  []string                `json:"left_out,omitempty"` // optional columns that rows do not carry
	Problems []blueprinttest.Problem `json:"problems,omitempty"`
	Note     string                  `json:"note,omitempty"`

	columns string // pipeline.ColumnsText
}

// ValidateFile reads a blueprint as bridge run does, and compiles it.
func ValidateFile(file string, compile func(*mapping.Blueprint) (*mapping.Mapping, error)) ValidatedFile {
	r := ValidatedFile{File: file}
	data, err := plaintext.ReadFile(file, plaintext.MaxText)
	if err != nil {
		err = fmt.Errorf("cannot be read: %w; name a readable blueprint", err)
	}
	var plan *mapping.Blueprint
	var m *mapping.Mapping
	if err == nil {
		plan, err = mapping.Parse(file, data)
	}
	if err == nil {
		m, err = compile(plan)
	}
	if r.Problems = blueprinttest.Problems(err); err == nil {
		r.OK, r.Columns, r.LeftOut, r.columns = true, len(m.Columns()), m.OmittedColumns(), pipeline.ColumnsText(m)
	}
	return r
}

// CompileAlone compiles a blueprint without a table.
func CompileAlone(plan *mapping.Blueprint) (*mapping.Mapping, error) {
	return compileAlone(plan, mapping.Options{})
}

// compileAlone compiles optional columns for their mistakes, and then leaves them
// out, as bridge run does without a table.
func compileAlone(plan *mapping.Blueprint, o mapping.Options) (*mapping.Mapping, error) {
	o.AllOptional = true
	if _, err := plan.Compile(o); err != nil {
		return nil, err
	}
	o.AllOptional = false
	return plan.Compile(o)
}

// WriteText writes the validation for people.
func (v Validation) WriteText(b *strings.Builder, look terminal.Style) {
	warnings := v.Warnings
	for _, f := range v.Files {
		WriteProblems(b, look, f.File, f.Problems)
		if f.OK {
			fmt.Fprintf(b, "%s: %s, %s\n", plaintext.VisibleLine(f.File), look.Good("ok"), f.columns)
		}
	}
	if note := v.Files[0].Note; note != "" {
		warnings = append([]string{note}, warnings...)
	}
	for _, w := range warnings {
		fmt.Fprintln(b, look.Warn("warning:"), plaintext.VisibleLine(w))
	}
}

// WriteProblems writes the mistakes of a file for people.
func WriteProblems(b *strings.Builder, look terminal.Style, file string, problems []blueprinttest.Problem) {
	for _, p := range problems {
		at := plaintext.VisibleLine(file)
		if p.Line > 0 {
			at += fmt.Sprintf(":%d:%d", p.Line, p.Column)
		}
		fmt.Fprintln(b, look.Bad(at+": "+plaintext.VisibleLine(p.What)))
	}
}
