package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus/emulator"
)

// ages are positions in the log that are often given.
var ages = []string{"-15m\ta quarter of an hour ago", "-1h\tan hour ago", "-24h\ta day ago", "-7d\ta week ago"}

// flagValues are the values of flags that are no key of the configuration and do
// not list their values themselves; by "command flag", or by flag alone.
var flagValues = map[string][]string{
	"transport":       choicesOf("zerobus.transport"),
	"auth":            {string(emulator.AuthStrict), string(emulator.AuthPresence), string(emulator.AuthOff)},
	"oversize-status": {"OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"},
	"emulator schema": {string(emulator.SchemaByName), string(emulator.SchemaExact)},
	"latency":         {"20ms", "p50=150ms\\,p95=500ms"},
	"code":            pipeline.KnownLabels(&config.Config{}).RejectCodes,
	"replay to":       append([]string{"earliest\tthe beginning of the log", "latest\tits end"}, ages...),
	"run from":        append([]string{"earliest\tthe beginning of the log"}, ages...),
	"run until":       append([]string{"now\tthe end of the log when the run begins"}, ages...),
	"since":           ages,
	"until":           ages,
	"demo kafka":      {"localhost:9092"},
	"status address":  {"127.0.0.1:9400"},
}

// fileFlags take the name of a file with one of these endings; any file where
// there is none.
var fileFlags = map[string][]string{
	"config": {"yaml", "yml"}, "write": {"yaml", "yml"}, "client-secret-file": {}, "secret-file": {}, "file": {"json"}, "against": {"yaml", "yml"}, "blueprint": {"yaml", "yml"}, "ddl": {"sql"}, "jsonl": {"jsonl", "ndjson"}, "ca-out": {},
}

func choicesOf(path string) []string {
	for _, k := range config.Keys() {
		if k.Path == path {
			return k.Choices
		}
	}
	return nil
}

// completeFlags adds a completion to every flag and argument of the command and of
// those below it. Only names of installed integrations are read from Kafka.
func completeFlags(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if complete := flagCompletion(cmd, f); complete != nil {
			// Fails only for a flag that has one already, such as a shared one.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, complete)
		}
	})
	if cmd.HasParent() && cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !cmd.HasSubCommands() {
		switch {
		case cmd.Name() == "help":
			cmd.ValidArgsFunction = completeHelp
		case strings.Contains(cmd.Use, "FILE"):
			cmd.ValidArgsFunction = cobra.FixedCompletions([]string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt)
		case strings.Contains(cmd.Use, "DIR"):
			cmd.ValidArgsFunction = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
		default:
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	for _, sub := range cmd.Commands() {
		completeFlags(sub)
	}
}

// finishCompletion adds examples to cobra's own completion command, and an error
// for a shell that it does not know.
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

// flagCompletion returns what completes the flag's value; nil if it has none.
func flagCompletion(cmd *cobra.Command, f *pflag.Flag) cobra.CompletionFunc {
	values := choicesOf(config.Named()[f.Name])
	if kind := f.Value.Type(); values == nil && strings.Contains(kind, "|") {
		values = strings.Split(kind, "|")
	}
	for _, name := range []string{cmd.Name() + " " + f.Name, f.Name} {
		if values == nil {
			values = flagValues[name]
		}
	}
	endings, file := fileFlags[f.Name]
	switch {
	case f.NoOptDefVal != "":
		return nil
	case file && len(endings) == 0:
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
	case file:
		return cobra.FixedCompletions(endings, cobra.ShellCompDirectiveFilterFileExt)
	case f.Name == "set":
		return completeSet
	case f.Name == "integration":
		return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return integrationNames(cmd), cobra.ShellCompDirectiveNoFileComp
		}
	case f.Name == "topic" && cmd.Name() != "demo":
		return completeTopics
	case values != nil: // a tab precedes a description
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)
	}
	return cobra.NoFileCompletions
}

// completeSet completes keys, then the values of the key. It offers no secrets,
// since other processes can read a command line.
func completeSet(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	var out []string
	path, _, valued := strings.Cut(typed, "=")
	for _, k := range config.Keys() {
		switch {
		case k.Type == "secret":
		case !valued && strings.HasPrefix(k.Path, path):
			out = append(out, k.Path+"=\t"+k.Type)
		case valued && k.Path == path:
			values := k.Choices
			if k.Type == "boolean" {
				values = []string{"true", "false"}
			} else if values == nil && k.Default != "" {
				values = []string{k.Default + "\tthe default"}
			}
			for _, v := range values {
				out = append(out, path+"="+v)
			}
		}
	}
	switch {
	case !valued:
		return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	case len(out) == 0: // a file, a name
		return nil, cobra.ShellCompDirectiveDefault
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeTopics completes to the topics of the configuration.
func completeTopics(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	o := config.FromFlags(cmd.Flags(), os.Environ())
	delete(o.Flags, "topic")
	o.Partial = true
	if cfg, err := config.Load(o); err == nil {
		return cfg.Kafka.Topics, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeHelp completes commands and topics, and keys after config.
func completeHelp(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	out := []string{}
	about := cmd.Root()
	switch {
	case len(args) == 1 && args[0] == "config":
		for _, k := range config.Keys() {
			out = append(out, k.Path)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	case len(args) > 0:
		var err error
		if about, _, err = cmd.Root().Find(args); err != nil {
			return out, cobra.ShellCompDirectiveNoFileComp
		}
	default:
		out = append(out, "topics\tthe list of topics")
		for _, t := range topics {
			out = append(out, t.name+"\t"+t.short)
		}
	}
	for _, c := range about.Commands() {
		if c.IsAvailableCommand() && (len(args) > 0 || topicNamed(c.Name()) == nil) {
			out = append(out, c.Name()+"\t"+c.Short)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
