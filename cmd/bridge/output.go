package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// outputForm is the --output flag: text for people, json for programs.
type outputForm string

const (
	outputText outputForm = "text"
	outputJSON outputForm = "json"
)

func (o *outputForm) String() string { return string(*o) }

// Type is what --help shows behind the flag.
func (o *outputForm) Type() string { return "text|json" }

// Set implements pflag.Value.
func (o *outputForm) Set(v string) error {
	if v != string(outputText) && v != string(outputJSON) {
		return errors.New("use text or json")
	}
	*o = outputForm(v)
	return nil
}

func addOutput(cmd *cobra.Command, o *outputForm) {
	cmd.Flags().Var(o, "output", "form of the answer: text or json")
}
