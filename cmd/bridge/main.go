// Command bridge delivers Datafly Signal events from Kafka to a Databricks table
// through Zerobus Ingest. It holds the command line: flags and reports. Each
// subcommand has a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
)

// Exit codes.
const (
	exitFine   = 0
	exitFailed = 1 // it ran and something went wrong
	exitUsage  = 2 // the command line or the configuration is wrong; nothing was started
)

func main() { os.Exit(execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// execute runs one command line and returns the exit code. The first interrupt or
// SIGTERM cancels the command's context, and after a grace period execute returns
// without the command; a second one kills.
func execute(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from here on a signal has its default effect

	stops := newStopping(stderr)
	done := make(chan int, 1)
	go func() { done <- perform(stops.in(ctx), args, stdin, stdout, stderr) }() // ends with the command
	code := stops.wait(ctx, done)
	stops.stderr.Flush(lastFlush)
	return code
}

// perform runs one command line and writes its error.
func perform(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out, errs := terminal.NewScreen(stdout), terminal.NewScreen(stderr)
	defer out.End()
	defer errs.End()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(errs)
	root.InitDefaultCompletionCmd(args...) // it asks for the output, so not earlier
	finishCompletion(root)
	explainArguments(root)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitFine
	}
	look := styleOf(cmd, errs)
	var quiet *quietError
	// After an interrupt the error may only mean that there was no time left.
	problem, stopped := listed(err), ctx.Err() != nil
	if stopped {
		problem = "interrupted: " + problem
	}
	if !errors.As(err, &quiet) {
		fmt.Fprintf(errs, "%s %s\n", look.Bad("bridge:"), strings.TrimSpace(problem))
	}
	if next := nextCommand(cmd, err); next != "" && !stopped {
		fmt.Fprintf(errs, "try: %s\n", look.Strong(next))
	}
	var usage *usageError
	if errors.As(err, &usage) && !stopped {
		return exitUsage
	}
	return exitFailed
}

// listed returns the error's text, with several problems as a list.
func listed(err error) string {
	problems := strings.Split(strings.TrimSpace(plaintext.Visible(err.Error())), "\n")
	if len(problems) == 1 {
		return problems[0]
	}
	return fmt.Sprintf("%d problems\n  %s", len(problems), strings.Join(problems, "\n  "))
}

// usageError is a mistake in the command line or the configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// quietError ends a command with code 1 and without a message, since its output has the reason.
type quietError struct{ error }

func (e *quietError) Unwrap() error { return e.error }

// loadConfig reads the configuration of the command line, with more pairs as those of
// --set. A partial one requires no key.
func loadConfig(cmd *cobra.Command, partial bool, sets ...string) (*config.Config, error) {
	o := config.FromFlags(cmd.Flags(), os.Environ())
	o.Partial = partial
	o.Sets = append(o.Sets, sets...)
	return ofOne(cmd, o)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "bridge",
		Short: "Deliver Datafly Signal events from Kafka to Databricks through Zerobus",
		Long: `bridge reads Signal events from Kafka, maps each one to a row with a blueprint, and
writes the rows to a Databricks table through Zerobus Ingest. It commits an offset
only after the rows up to it are acknowledged: at-least-once delivery.

bridge help <topic> explains configuration, blueprints, metrics, troubleshooting and
more; bridge help topics lists them.`,
		Example: `  bridge demo                            see it work, without Kafka or a workspace
  bridge check --config config.yaml      try every connection and grant
  bridge run --config config.yaml        deliver events until terminated`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().Var(&choice{colourModes[0], colourModes}, "color", "colours: auto (on a terminal, unless NO_COLOR is set), always or never")
	root.SetVersionTemplate("bridge {{.Version}}\n")
	root.SetFlagErrorFunc(wrongFlag)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		sets, err := cmd.Flags().GetStringArray("set")
		if err != nil {
			return nil //nolint:nilerr // the command has no such flag
		}
		if err := config.RefuseSecrets(sets); err != nil {
			return &usageError{err}
		}
		return nil
	}
	root.AddCommand(
		newRunCommand(),
		newDemoCommand(),
		newSetupCommand(),
		newCheckCommand(),
		newMapCommand(),
		newBlueprintCommand(),
		newSchemaCommand(),
		newDDLCommand(),
		newReplayCommand(),
		newDLQCommand(),
		newIntegrationsCommand(),
		newEmulatorCommand(),
		newStatusCommand(),
		newVersionCommand(),
		newManCommand(),
	)
	root.SetHelpCommand(newHelpCommand())
	root.InitDefaultHelpCmd()
	explainArguments(root)
	completeFlags(root)
	// Without a subcommand cobra shows the help; with an unknown one it fails.
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return &usageError{unknownCommand(cmd, args[0])}
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return root
}

// explainArguments turns a refused argument of the commands below parent into a
// usage error with the arguments of the command, taken from its Use.
func explainArguments(parent *cobra.Command) {
	for _, cmd := range parent.Commands() {
		explainCommandArguments(cmd)
		explainArguments(cmd)
	}
}

func explainCommandArguments(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = cobra.NoArgs
	}
	_, takes, _ := strings.Cut(cmd.Use, " ")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if usage := (*usageError)(nil); err == nil || errors.As(err, &usage) {
			return err
		}
		switch {
		case cmd.HasSubCommands():
			return &usageError{unknownCommand(cmd, args[0])}
		case takes == "":
			takes = "no arguments"
		}
		got := "nothing"
		if len(args) > 0 {
			got = fmt.Sprintf("%.100q", args[0])
		}
		if len(args) > 1 {
			got += fmt.Sprintf(" and %d more", len(args)-1)
		}
		return &usageError{fmt.Errorf("%s takes %s; got %s", cmd.CommandPath(), takes, got)}
	}
}

// unknownCommand suggests the closest command, or lists all.
func unknownCommand(cmd *cobra.Command, name string) error {
	problem := fmt.Sprintf("unknown command %.100q for %s", name, cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2 // cobra sets it only on its own way to an unknown command
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return suggest(fmt.Errorf("%s; did you mean %s?", problem, near[0]), cmd.CommandPath()+" "+near[0]+" --help")
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return fmt.Errorf("%s; its commands are %s", problem, strings.Join(names, ", "))
}
