package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/spelling"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

// suggestion is an error with the command to run next; "" suggests none.
type suggestion struct {
	error
	command string
}

func (e *suggestion) Unwrap() error { return e.error }

// suggest adds the next command to an error; nil stays nil.
func suggest(err error, command string) error {
	if err == nil {
		return nil
	}
	return &suggestion{err, command}
}

// nextCommand returns the command that helps with the error; empty if none does.
func nextCommand(cmd *cobra.Command, err error) string {
	var given *suggestion
	var usage *usageError
	var quiet *quietError
	switch {
	case errors.As(err, &given):
		return given.command
	case errors.As(err, &usage):
		return nextUsage(cmd, usage.err)
	case errors.As(err, &quiet), errors.Is(err, pipeline.ErrIncomplete), errors.Is(err, context.Canceled):
		return ""
	}
	var failed *kafka.Error
	var service *zerobus.Error
	var unfit *pipeline.BlueprintMismatch
	var schema *zerobus.SchemaError
	switch {
	case cmd.Flag("config") == nil || cmd.Name() == "check":
		return ""
	case errors.As(err, &unfit), errors.As(err, &schema):
		return "bridge ddl --alter" + configArgument(cmd)
	case errors.As(err, &failed), errors.As(err, &service), errors.Is(err, context.DeadlineExceeded):
		return "bridge check" + configArgument(cmd)
	}
	return ""
}

// nextUsage is nextCommand for a wrong command line or configuration.
func nextUsage(cmd *cobra.Command, err error) string {
	var blueprint *mapping.Problem
	if problems := config.Problems(err); len(problems) == 1 && problems[0].Key == "--integration" {
		return "bridge integrations list" + configArgument(cmd, "")
	} else if len(problems) > 0 {
		return helpOnKeys(problems)
	} else if errors.As(err, &blueprint) {
		if _, builtin := mapping.Builtin(strings.TrimSuffix(blueprint.File, ".yaml")); blueprint.File != "" && blueprint.File != "mapping.blueprint_text" && !builtin {
			if validate, _, ferr := cmd.Root().Find([]string{"blueprint", "validate"}); ferr == nil && validate.Name() == "validate" {
				return "bridge blueprint validate " + shellWord(blueprint.File)
			}
		}
		return "bridge help blueprint"
	}
	return cmd.CommandPath() + " --help"
}

// helpOnKeys names the wrong key, or the section that several have in common.
func helpOnKeys(problems []*config.Problem) string {
	const all = "bridge help config"
	paths := map[string]bool{}
	for _, k := range config.Keys() {
		paths[k.Path] = true
	}
	common := problems[0].Key
	for _, p := range problems {
		if !paths[p.Key] {
			return all
		}
		for common != "" && p.Key != common && !strings.HasPrefix(p.Key, common+".") {
			common = common[:max(strings.LastIndexByte(common, '.'), 0)]
		}
	}
	return strings.TrimSpace(all + " " + common)
}

// configArgument returns the configuration flags of the command line for the next
// command, without secrets: --config, --set and those that are named, by default those
// that most commands have.
func configArgument(cmd *cobra.Command, names ...string) string {
	f := cmd.Flag("config")
	if f == nil {
		return ""
	}
	given := ""
	if _, err := plaintext.Stat(f.Value.String()); err == nil || f.Changed {
		given = " --config " + shellWord(f.Value.String())
	}
	if names == nil {
		names = []string{"brokers", "topics", "group", "integration"}
	}
	for _, name := range names {
		if f := cmd.Flag(name); f != nil && f.Changed {
			given += " --" + name + " " + shellWord(f.Value.String())
		}
	}
	sets, _ := cmd.Flags().GetStringArray("set")
	for _, set := range sets {
		path, _, _ := strings.Cut(set, "=")
		if overlay, ok := strings.CutPrefix(path, "integrations."); ok {
			_, path, _ = strings.Cut(overlay, ".")
		}
		if slices.ContainsFunc(config.Keys(), func(k *config.Key) bool { return k.Path == path && k.Type != "secret" }) {
			given += " --set " + shellWord(set)
		}
	}
	return given
}

var plainWord = regexp.MustCompile(`^[\w./:=@%+,-]+$`)

// shellWord quotes a word that a shell would split.
func shellWord(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(plaintext.ShortLine(word, 1000), "'", `'\''`) + "'"
}

// wrongFlag completes an error of the command line's flags.
func wrongFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return &usageError{err}
	}
	given, names := unknown.GetSpecifiedName(), []string(nil)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	near, slips := spelling.Closest(given, names)
	for _, name := range names { // the shortest that begins with it
		if strings.HasPrefix(name, given) && (slips > 0 || len(name) < len(near)) {
			near, slips = name, 0
		}
	}
	if slips > 2 {
		return &usageError{err}
	}
	return &usageError{fmt.Errorf("%w; did you mean --%s?", err, near)}
}
