package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
)

func newBlueprintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "blueprint",
		Short: "Write, validate and test blueprints",
		Long: `blueprint helps to write the file that says which field of an event feeds which
column. What such a file may hold is described in docs/blueprint.md.`,
		Example: `  bridge blueprint init                       a blueprint and its tests to start from
  bridge blueprint validate blueprint.yaml    all that is wrong with it, with lines
  bridge blueprint test                       run the tests beside the blueprints here
  bridge schema blueprint                     the JSON Schema, for editors`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBlueprintInitCommand(), newBlueprintValidateCommand(), newBlueprintTestCommand())
	for _, sub := range cmd.Commands() {
		misuse(sub)
	}
	return cmd
}

// fileProblem is one thing wrong with a file, for people and for programs.
type fileProblem struct {
	Line   int    `json:"line,omitempty"` // from 1
	Column int    `json:"column,omitempty"`
	What   string `json:"what"` // with what to do about it
}

func (p fileProblem) at(file string) string {
	file, what := plaintext.VisibleLine(file), plaintext.VisibleLine(p.What)
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", file, what)
	}
	return fmt.Sprintf("%s:%d:%d: %s", file, p.Line, p.Column, what)
}

// problemsOf lists what errors.Join has joined, in its order.
func problemsOf(err error) []fileProblem {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []fileProblem
		for _, e := range joined.Unwrap() {
			all = append(all, problemsOf(e)...)
		}
		return all
	}
	if p, ok := errors.AsType[*mapping.Problem](err); ok {
		return []fileProblem{{p.Line, p.Col, p.What}}
	}
	return []fileProblem{{What: err.Error()}}
}
