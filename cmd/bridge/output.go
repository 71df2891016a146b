package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/terminal"
)

// choice is a flag that takes one of a few words.
type choice struct {
	value string
	words []string
}

func (c *choice) String() string { return c.value }

// Type is what --help shows behind the flag.
func (c *choice) Type() string { return strings.Join(c.words, "|") }

// Set implements pflag.Value.
func (c *choice) Set(v string) error {
	if !slices.Contains(c.words, v) {
		last := len(c.words) - 1
		return errors.New("use " + strings.Join(c.words[:last], ", ") + " or " + c.words[last])
	}
	c.value = v
	return nil
}

// colourModes are the values of --color.
var colourModes = []string{"auto", "always", "never"}

// styleOf returns the style of an output of the command.
func styleOf(cmd *cobra.Command, w io.Writer) terminal.Style {
	mode := colourModes[0]
	if f := cmd.Flag("color"); f != nil {
		mode = f.Value.String()
	}
	return terminal.NewStyle(mode, w)
}

// outputForm is the --output flag: text for people, json for programs.
type outputForm struct{ choice }

func addOutput(cmd *cobra.Command) *outputForm {
	o := &outputForm{choice{"text", []string{"text", "json"}}}
	cmd.Flags().Var(o, "output", "form of the answer: text or json")
	return o
}

func (o *outputForm) json() bool { return o.value == "json" }

// write writes the answer of a command to its standard output: as one JSON value,
// or as text with its table heads and verdicts coloured.
func (o *outputForm) write(cmd *cobra.Command, answer any, text func(b *strings.Builder, look terminal.Style)) error {
	out := cmd.OutOrStdout()
	var b strings.Builder
	if o.json() {
		if err := json.NewEncoder(&b).Encode(answer); err != nil {
			return fmt.Errorf("writing the answer: %w", err)
		}
	} else {
		text(&b, styleOf(cmd, out))
	}
	return printText(out, b.String())
}

// writeTable is write for a report of tables.
func (o *outputForm) writeTable(cmd *cobra.Command, answer any, text func(b *strings.Builder)) error {
	return o.write(cmd, answer, func(b *strings.Builder, look terminal.Style) {
		var table strings.Builder
		text(&table)
		b.WriteString(look.Table(table.String()))
	})
}

func printText(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}
