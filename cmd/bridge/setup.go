package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/setup"
	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/zerobus"
)

func newSetupCommand() *cobra.Command {
	o := setup.Options{Timeout: 30 * time.Second}
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Create the table, its grants and a configuration file, and prove a row",
		Long: `setup needs the six fields of Signal's integration page: workspace URL, client id,
client secret, catalog, schema and table. They come from flags, the configuration file
or the environment. On a terminal, setup asks for those that are missing. The secret is
no flag: use BRIDGE_ZEROBUS_CLIENT_SECRET, --client-secret-file or the prompt.

Without --execute, setup prints the plan and changes nothing. With --execute it
  1. writes the configuration file, and the secret to a file beside it (mode 0600)
  2. creates catalog, schema and table, adds missing columns, and grants the service
     principal what it needs
  3. runs the steps of bridge check; those of Kafka if topics are given
  4. writes one row, message_id bridge-setup-probe, unless the table has it
  5. waits until the row is visible, and shows the ten newest rows
Run it again at any time: it does what is left, and overwrites no file.

Statements run on a SQL warehouse: that of --warehouse-id, or the only one. A stopped
warehouse starts, which costs. Without a warehouse, setup grants through Unity Catalog,
and prints the statements to paste if the table has to be created.

The service principal runs them, unless DATABRICKS_TOKEN or a profile of the Databricks
CLI names a principal of the same workspace that may do more. That token is used for
this run only and is not stored.

The exit code is 0 when the plan was printed or everything passed, 1 when something
failed, and 2 when a field is missing or wrong.`,
		Example: `  bridge setup                                       asks for the six fields, prints the plan
  bridge setup --execute                             runs it
  bridge setup --workspace-url https://abc-12345.cloud.databricks.com --client-id ID \
    --client-secret-file secret --table datafly.events.stream --execute
  bridge setup --config config.yaml --warehouse-id 1234567890abcdef --execute
  bridge setup --profile admin --execute             another principal creates and grants
  bridge setup --brokers kafka:9092 --topics datafly-events --dedupe-view --execute`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Timeout <= 0 {
				return &usageError{fmt.Errorf("--timeout is %v; use more than 0, such as 30s", o.Timeout)}
			}
			errs := cmd.ErrOrStderr()
			o.Load, o.Version = config.FromFlags(cmd.Flags(), os.Environ()), version()
			o.File = cmp.Or(o.File, o.Load.File, config.DefaultFile)
			o.Home, _ = os.UserHomeDir() // named in an error if it is needed
			o.Ask = terminal.Asker(cmd.InOrStdin(), errs)
			o.Log = commandLogger(cmd, config.Log{Level: "error", Format: "auto"}, nil)
			o.Progress = func(line string) { fmt.Fprintln(errs, line) }
			report, err := setup.Run(cmd.Context(), o)
			if report == nil && err != nil && output.json() {
				report = setup.Unplanned(err)
			}
			if report != nil {
				if werr := output.write(cmd, report, func(b *strings.Builder, look terminal.Style) { writeSetup(b, look, report) }); werr != nil {
					return werr
				}
			}
			return setupError(cmd, report, err)
		},
	}
	config.AddFlags(cmd.Flags(), "workspace-url", "client-id", "client-secret-file", "catalog", "schema", "table", "brokers", "topics", "topic", "integration")
	cmd.Flags().BoolVar(&o.Execute, "execute", false, "run the plan; without it nothing is changed")
	cmd.Flags().StringVar(&o.WarehouseID, "warehouse-id", "", "SQL warehouse that runs the statements and the test query (default the only one)")
	cmd.Flags().StringVar(&o.Profile, "profile", "", "profile in ~/.databrickscfg of the principal that creates and grants (default DATABRICKS_TOKEN, DATABRICKS_CONFIG_PROFILE, else the service principal)")
	cmd.Flags().BoolVar(&o.DedupeView, "dedupe-view", false, "also create the view that shows each message_id once")
	cmd.Flags().StringVar(&o.File, "write", "", "configuration file to write (default that of --config)")
	cmd.Flags().DurationVar(&o.Timeout, "timeout", o.Timeout, "how long one step may take, besides the start of a warehouse")
	output = addOutput(cmd)
	return cmd
}

func writeSetup(b *strings.Builder, look terminal.Style, r *setup.Report) {
	r.WritePlan(b)
	if len(r.Steps) > 0 {
		b.WriteString("\n")
		writeSteps(b, look, r.Steps)
	}
	var rows strings.Builder
	if r.WriteRows(&rows); rows.Len() > 0 {
		b.WriteString("\n" + look.Table(rows.String()))
	}
	switch {
	case r.OK && r.Executed && !r.Changed:
		b.WriteString("\nNothing had to be changed.\n")
	case r.Next != "":
		b.WriteString("\n")
	}
	if r.Next != "" {
		b.WriteString(r.Next + "\n")
	}
}

// setupError adds the exit code and the next command to the error of a set-up.
func setupError(cmd *cobra.Command, r *setup.Report, err error) error {
	if usage, ok := errors.AsType[*setup.UsageError](err); ok {
		return &usageError{usage.Err}
	}
	if r != nil {
		failed := func(s pipeline.CheckStep) bool { return s.Status == pipeline.StepFailed }
		if i := slices.IndexFunc(r.Steps, failed); i >= 0 && cmd.Context().Err() == nil {
			return suggest(err, nextForStep(cmd, r.Steps[i], ""))
		}
	}
	if _, ok := errors.AsType[*zerobus.UnwritableTable](err); ok {
		return suggest(err, "bridge help config zerobus.table")
	}
	if _, ok := errors.AsType[*zerobus.Error](err); ok {
		return suggest(err, nextForStep(cmd, pipeline.CheckStep{Step: "token", Err: err}, ""))
	}
	return err
}
