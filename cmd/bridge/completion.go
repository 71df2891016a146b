package main

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus/emulator"
)

// Ages that positions in the log are often given as.
var ages = []string{"-15m\ta quarter of an hour ago", "-1h\tan hour ago", "-24h\ta day ago", "-7d\ta week ago"}

// flagValues are the values of flags that are no key of the configuration and
// say nothing of their values themselves; by "command flag", or by flag alone.
var flagValues = map[string][]string{
	"transport":       choicesOf("zerobus.transport"),
	"auth":            {string(emulator.AuthStrict), string(emulator.AuthPresence), string(emulator.AuthOff)},
	"oversize-status": {"OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"},
	"schema":          {string(emulator.SchemaByName), string(emulator.SchemaExact)},
	"latency":         {"20ms", "p50=150ms\\,p95=500ms"},
	"code":            pipeline.KnownLabels(&config.Config{}).RejectCodes,
	"replay to":       append([]string{"earliest\tthe beginning of the log", "latest\tits end"}, ages...),
	"run from":        append([]string{"earliest\tthe beginning of the log"}, ages...),
	"run until":       append([]string{"now\twhat is in the log when the run begins"}, ages...),
	"since":           ages,
	"until":           ages,
	"demo kafka":      {"localhost:9092"},
	"status address":  {"127.0.0.1:9400"},
}

// fileFlags take the name of a file with one of these endings; any file where
// there is none.
var fileFlags = map[string][]string{
	"config": {"yaml", "yml"}, "blueprint": {"yaml", "yml"}, "ddl": {"sql"}, "jsonl": {"jsonl", "ndjson"}, "ca-out": {},
}

func choicesOf(path string) []string {
	for _, k := range config.Keys() {
		if k.Path == path {
			return k.Choices
		}
	}
	return nil
}

// completeFlags gives every flag and every argument of the commands below
// parent its completion. Nothing connects to anything.
func completeFlags(parent *cobra.Command) {
	for _, cmd := range append([]*cobra.Command{parent}, parent.Commands()...) {
		register := func(f *pflag.Flag) {
			if complete := completionOf(cmd, f); complete != nil {
				// Fails only for a flag that is there already, such as a shared one.
				_ = cmd.RegisterFlagCompletionFunc(f.Name, complete)
			}
		}
		cmd.LocalFlags().VisitAll(register)
		if cmd != parent && cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !cmd.HasSubCommands() {
			cmd.ValidArgsFunction = completionOfArguments(cmd)
		}
		if cmd != parent {
			completeFlags(cmd)
		}
	}
}

// finishCompletion gives cobra's own command what the others have: examples, and
// an error for a shell there is no script for.
func finishCompletion(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Example = `  source <(bridge completion bash)
  bridge completion zsh > "${fpath[1]}/_bridge"
  bridge completion fish > ~/.config/fish/completions/bridge.fish`
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

func completionOfArguments(cmd *cobra.Command) cobra.CompletionFunc {
	switch {
	case cmd.Name() == "help":
		return completeHelp
	case strings.Contains(cmd.Use, "FILE"):
		return cobra.FixedCompletions([]string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt)
	case strings.Contains(cmd.Use, "DIR"):
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	}
	return cobra.NoFileCompletions
}

// completionOf returns what completes the flag's value; nil for flags without
// one.
func completionOf(cmd *cobra.Command, f *pflag.Flag) cobra.CompletionFunc {
	if f.NoOptDefVal != "" {
		return nil
	}
	if endings, ok := fileFlags[f.Name]; ok {
		if len(endings) == 0 {
			return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
		}
		return cobra.FixedCompletions(endings, cobra.ShellCompDirectiveFilterFileExt)
	}
	switch path := config.Named()[f.Name]; {
	case f.Name == "set":
		return completeSet
	case f.Name == "topic" && cmd.Name() != "demo":
		return completeTopics
	case len(choicesOf(path)) > 0:
		return closed(choicesOf(path))
	}
	for _, name := range []string{cmd.Name() + " " + f.Name, f.Name} {
		if values, ok := flagValues[name]; ok {
			return closed(values)
		}
	}
	if kind := f.Value.Type(); strings.Contains(kind, "|") {
		return closed(strings.Split(kind, "|"))
	}
	return cobra.NoFileCompletions
}

// closed completes to values; a tab sets a description apart.
func closed(values []string) cobra.CompletionFunc {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)
}

// completeSet completes keys, then the values of the key.
func completeSet(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	var out []string
	path, _, valued := strings.Cut(typed, "=")
	for _, k := range config.Keys() {
		switch {
		case k.Type == "secret": // other processes could read it
		case !valued && strings.HasPrefix(k.Path, path):
			out = append(out, k.Path+"=\t"+k.Type)
		case valued && k.Path == path:
			values := k.Choices
			if k.Type == "boolean" {
				values = []string{"true", "false"}
			}
			for _, v := range values {
				out = append(out, path+"="+v)
			}
			if values == nil && k.Default != "" {
				out = append(out, path+"="+k.Default+"\tthe default")
			}
		}
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	if !valued {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	if len(out) == 0 && valued { // a file, a name
		return nil, cobra.ShellCompDirectiveDefault
	}
	return out, directive
}

// completeTopics completes to the topics of the configuration.
func completeTopics(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	o := config.FromFlags(cmd.Flags(), os.Environ())
	delete(o.Flags, "topic")
	o.Partial = true
	cfg, err := config.Load(o)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return cfg.Kafka.Topics, cobra.ShellCompDirectiveNoFileComp
}

// completeHelp completes commands and topics, and keys behind config.
func completeHelp(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	out := []string{}
	switch {
	case len(args) == 1 && args[0] == "config":
		for _, k := range config.Keys() {
			out = append(out, k.Path)
		}
	case len(args) > 0:
		about, _, err := cmd.Root().Find(args)
		if err != nil {
			break
		}
		for _, sub := range about.Commands() {
			out = append(out, sub.Name()+"\t"+sub.Short)
		}
	default:
		out = append(out, "topics\twhat else can be read")
		for _, t := range topics {
			out = append(out, t.name+"\t"+t.short)
		}
		for _, c := range cmd.Root().Commands() {
			if named := func(s string) bool { return strings.HasPrefix(s, c.Name()+"\t") }; c.IsAvailableCommand() && !slices.ContainsFunc(out, named) {
				out = append(out, c.Name()+"\t"+c.Short)
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
