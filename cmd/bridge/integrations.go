package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
)

// chosen returns the deployment of the integrations that a command is for: that of
// --integration, or all. What flags set is of the only one.
func chosen(cmd *cobra.Command, o config.Options) (*config.Deployment, error) {
	if o.Integration == "" {
		d, err := config.LoadDeployment(o)
		if err != nil {
			return nil, &usageError{err}
		}
		if _, given := o.Flags["group"]; given && len(d.Integrations) != 1 && d.Base.Rejects.Integration == "" {
			return nil, &usageError{suggest(errors.New("--group is of one integration; add --integration"), "bridge integrations list"+configArgument(cmd, ""))}
		}
		if len(d.Integrations) != 1 {
			return d, nil
		}
	}
	cfg, err := ofOne(cmd, o)
	if err != nil {
		return nil, err
	}
	return config.Single(cfg), nil
}

// ofOne returns the configuration of the integration that a command is for: of one in the
// store too, if no file describes it.
func ofOne(cmd *cobra.Command, o config.Options) (*config.Config, error) {
	base := config.Options{File: o.File, FileRequired: o.FileRequired, Env: o.Env, Sets: o.Sets, Partial: true}
	d, err := config.LoadDeployment(base)
	if err != nil || o.Integration == "" || !d.Base.Store.Enabled || slices.ContainsFunc(d.Integrations, func(i config.Integration) bool { return i.Name == o.Integration }) {
		cfg, err := config.Load(o)
		if err != nil {
			return nil, &usageError{err}
		}
		return cfg, nil
	}
	for flag := range o.Flags {
		if flag != "brokers" && flag != "log-level" {
			return nil, &usageError{fmt.Errorf("--%s is not for an integration of the store; leave it out, or use bridge integrations set", flag)}
		}
	}
	i, err := find(cmd, d, o.Integration)
	if err != nil {
		return nil, err
	}
	return i.Config, nil
}

// find returns an integration of a deployment: of a file, or else of the store.
func find(cmd *cobra.Command, d *config.Deployment, name string) (*config.Integration, error) {
	all := d.Integrations
	named := func(i config.Integration) bool { return i.Name == name }
	if d.Base.Store.Enabled && !slices.ContainsFunc(all, named) {
		err := withStore(cmd, storeTimeout, func(ctx context.Context, m *manage.Manager, s *store.Store) error {
			state, err := s.Read(ctx)
			if err != nil {
				return err
			}
			var problems map[string]error
			all, problems = m.Wanted(state)
			return problems[name]
		})
		if err != nil {
			return nil, err
		}
	}
	if n := slices.IndexFunc(all, named); n >= 0 {
		return &all[n], nil
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return nil, &usageError{suggest(fmt.Errorf("there is no integration %s; there is %s", plaintext.ShortLine(name, 100), orDash(strings.Join(names, ", "))), "bridge integrations list"+configArgument(cmd))}
}

func newIntegrationsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "integrations",
		Short: "List and change the integrations of a deployment",
		Long: `integrations reads a configuration as bridge run does: the file, integrations_dir,
the environment and --set. A configuration without the keys integrations and
integrations_dir has one integration, default.

With store.enabled, a deployment also has the integrations that were installed: by the
API, the console or these commands, which write to the store in Kafka. list and show
show both. install, set, enable, disable and remove change those of the store only.
export, import and reseal are for backups and for rotating keys. validate and diff are
about files, and connect to nothing.`,
		Example: `  bridge integrations list --config config.yaml
  bridge integrations show orders --config config.yaml
  bridge integrations validate --config config.yaml
  bridge integrations diff --config config.yaml --against old.yaml
  bridge integrations set orders table=orders_v2 --dry-run`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newIntegrationsListCommand(), newIntegrationsShowCommand(), newIntegrationsValidateCommand(), newIntegrationsDiffCommand(),
		newInstallCommand(), newSetCommand(),
		newSwitchCommand("enable", "Start an installed integration", `enable has all running bridges start an integration of the store.`, true),
		newSwitchCommand("disable", "Stop an installed integration", `disable has all running bridges drain an integration of the store and stop it. It keeps
its group, its offsets and its dead letters. bridge replay needs that.`, false),
		newRemoveCommand(), newHistoryCommand(), newExportCommand(), newImportCommand(), newResealCommand())
	return cmd
}

// listedIntegration is one line of bridge integrations list.
type listedIntegration struct {
	Integration string   `json:"integration"`
	Enabled     bool     `json:"enabled"`
	Group       string   `json:"group"`
	Topics      []string `json:"topics"`
	Table       string   `json:"table"`
	DeadLetters []string `json:"dead_letter_topics"` // empty: rejects.policy is another
	Source      string   `json:"source,omitempty"`   // file:line, or the store
	Revision    int64    `json:"revision,omitempty"` // of an installed one
	State       string   `json:"state,omitempty"`    // of one that is shadowed or cannot run
	Reason      string   `json:"reason,omitempty"`   // of State
}

// listTimeout bounds the reading of the store for a list, which is of use without it.
const listTimeout = 10 * time.Second

// listInstalled returns the integrations of the store.
func listInstalled(cmd *cobra.Command) (all []listedIntegration, err error) {
	err = withStore(cmd, listTimeout, func(ctx context.Context, m *manage.Manager, _ *store.Store) error {
		found, err := m.List(ctx)
		for _, i := range found {
			if i.ManagedBy != "store" {
				continue
			}
			x := listedIntegration{Integration: i.Slug, Enabled: i.Enabled, Group: i.Group, Topics: []string{}, Table: i.Table, DeadLetters: i.DeadLetterTopics,
				Source: fmt.Sprintf("store, revision %d", i.Revision), Revision: i.Revision, State: i.Observed.State, Reason: i.Observed.Reason}
			switch topics := i.Source["topics"].(type) {
			case []string:
				x.Topics = topics
			case []any:
				for _, topic := range topics {
					x.Topics = append(x.Topics, fmt.Sprint(topic))
				}
			}
			all = append(all, x)
		}
		return err
	})
	return all, err
}

func newIntegrationsListCommand() *cobra.Command {
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the integrations: topics, group, table, dead-letter topics",
		Long: `list prints one line per integration, with the file and line that describe it, or the
revision in the store. Keys may be missing, and files that keys name are not opened.
It warns if the store cannot be read.`,
		Example: `  bridge integrations list --config config.yaml
  bridge integrations list --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := loadDeployment(cmd, "", true)
			if err != nil {
				return err
			}
			list := []listedIntegration{}
			for _, i := range d.Integrations {
				k, z := i.Config.Kafka, i.Config.Zerobus
				x := listedIntegration{Integration: i.Name, Enabled: i.Enabled, Group: k.Group, Topics: append([]string{}, k.Topics...),
					Table: strings.Join([]string{z.Catalog, z.Schema, z.Table}, "."), DeadLetters: []string{}, Source: i.Source}
				if i.Config.Rejects.Policy == consumer.PolicyDeadLetter {
					x.DeadLetters = append(x.DeadLetters, (&consumer.Config{Kafka: k, Rejects: i.Config.Rejects}).DeadLetterTopics()...)
				}
				if i.Line > 0 {
					x.Source += fmt.Sprintf(":%d", i.Line)
				}
				list = append(list, x)
			}
			answer, unread := map[string]any{}, ""
			if d.Base.Store.Enabled {
				installed, err := listInstalled(cmd)
				if err != nil {
					unread = err.Error()
				}
				list = append(list, installed...)
				slices.SortStableFunc(list, func(a, b listedIntegration) int { return strings.Compare(a.Integration, b.Integration) })
				answer["store"] = map[string]any{"read": err == nil, "error": unread}
			}
			answer["integrations"] = list
			return output.write(cmd, answer, func(b *strings.Builder, look terminal.Style) {
				rows := []string{"INTEGRATION\tENABLED\tTOPICS\tGROUP\tTABLE\tDEAD-LETTER TOPICS\tSOURCE"}
				for _, x := range list {
					source := plaintext.VisibleLine(orDash(x.Source))
					if x.State != "" {
						source += ": " + x.State + ", " + plaintext.ShortLine(x.Reason, 300)
					}
					rows = append(rows, strings.Join([]string{x.Integration, yesNo(x.Enabled), orDash(x.Topics...), orDash(x.Group), orDash(x.Table), orDash(x.DeadLetters...), source}, "\t"))
				}
				var table strings.Builder
				terminal.Tabulate(&table, rows...)
				b.WriteString(look.Table(table.String()))
				if unread != "" {
					fmt.Fprintln(b, look.Warn("warning:"), "the installed integrations are missing here:", plaintext.VisibleLine(unread))
				}
			})
		},
	}
	config.AddFlags(cmd.Flags(), "brokers")
	output = addOutput(cmd)
	return cmd
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// orDash joins what a cell of a table holds.
func orDash(words ...string) string {
	if text := strings.Join(words, ","); text != "" {
		return text
	}
	return "-"
}

// loadDeployment loads the configuration of the command line, or that of another file
// with the same environment and flags.
func loadDeployment(cmd *cobra.Command, file string, partial bool) (*config.Deployment, error) {
	o := config.FromFlags(cmd.Flags(), os.Environ())
	o.Partial = partial
	if file != "" {
		o.File, o.FileRequired = file, true
	}
	d, err := config.LoadDeployment(o)
	if err != nil {
		return nil, &usageError{err}
	}
	return d, nil
}

func newIntegrationsShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show INTEGRATION",
		Short: "Show the settings of an integration, and where each comes from",
		Long: `show prints the whole configuration of one integration as YAML. A comment behind a
value names the source that set it; a value without one is the default. Secrets are
redacted. An integration that no file describes is looked up in the store.`,
		Example: `  bridge integrations show orders --config config.yaml
  bridge integrations show default | grep ' # '     only what is not the default`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return integrationNames(cmd), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := loadDeployment(cmd, "", true)
			if err != nil {
				return err
			}
			i, err := find(cmd, d, args[0])
			if err != nil {
				return err
			}
			text, err := i.YAML()
			if err != nil {
				return err
			}
			return printText(cmd.OutOrStdout(), plaintext.Visible(string(text)))
		},
	}
	config.AddFlags(cmd.Flags(), "brokers")
	return cmd
}

// integrationNames completes to the integrations of the configuration.
func integrationNames(cmd *cobra.Command) (names []string) {
	d, err := loadDeployment(cmd, "", true)
	if err != nil {
		return nil
	}
	for _, i := range d.Integrations {
		names = append(names, fmt.Sprintf("%s\t%s -> %s", i.Name, orDash(i.Config.Kafka.Topics...), orDash(i.Config.Zerobus.Table)))
	}
	return names
}

func newIntegrationsValidateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "List every mistake in the configuration of the integrations",
		Long: `validate reads the configuration as bridge run does, and opens the files that it
names. It lists every mistake with its file and line, and warns of settings that
have no effect. The exit code is 0 when there is no mistake, else 2.`,
		Example: `  bridge integrations validate --config config.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := loadDeployment(cmd, "", false)
			if err != nil {
				return err
			}
			count := fmt.Sprintf("%d integrations", len(d.Integrations))
			if len(d.Integrations) == 1 {
				count = "1 integration"
			}
			text := count + ", valid\n"
			for _, ignored := range settingsWithoutEffect(d) {
				text += "warning: " + ignored.String() + "\n"
			}
			return printText(cmd.OutOrStdout(), plaintext.Visible(text))
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

func newIntegrationsDiffCommand() *cobra.Command {
	var against string
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "diff --against FILE",
		Short: "Show what a reload of the configuration would do to each integration",
		Long: `diff compares the configuration with another file, the one that a running bridge
uses. Of each integration it prints what a reload does, and the keys that differ:
start, stop, replace (drain, then start), live (a change without either) or nothing.
Keys of the process take effect after a restart. The environment and --set are the
same for both. The content of blueprints and of files with secrets is not compared.
Differences are no failure: the exit code is 0.`,
		Example: `  bridge integrations diff --config config.yaml --against old.yaml
  git show HEAD:config.yaml > old.yaml && bridge integrations diff --against old.yaml --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if against == "" {
				return &usageError{errors.New("--against is required; name the configuration that the running bridge has")}
			}
			was, err := loadDeployment(cmd, against, true)
			if err != nil {
				return err
			}
			next, err := loadDeployment(cmd, "", true)
			if err != nil {
				return err
			}
			diff := config.Compare(was, next)
			return output.write(cmd, diff, func(b *strings.Builder, look terminal.Style) {
				rows := []string{"INTEGRATION\tACTION\tKEYS"}
				for _, c := range diff.Integrations {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s", c.Integration, c.Action, orDash(c.Keys...)))
				}
				var table strings.Builder
				terminal.Tabulate(&table, rows...)
				b.WriteString(look.Table(table.String()))
				if len(diff.Process.Live) > 0 {
					fmt.Fprintf(b, "the process takes these over at once: %s\n", orDash(diff.Process.Live...))
				}
				if len(diff.Process.Restart) > 0 {
					fmt.Fprintf(b, "the process needs a restart for: %s\n", orDash(diff.Process.Restart...))
				}
			})
		},
	}
	config.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&against, "against", "", "the configuration file of the running bridge")
	output = addOutput(cmd)
	return cmd
}
