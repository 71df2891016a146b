package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	strict "github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
)

// storeTimeout bounds a command that reads or changes the store. An install also tries
// the connections.
const storeTimeout = 3 * time.Minute

// noStore is the remedy of a command that needs a store.
const noStore = "this configuration has no store of integrations; set store.enabled: true, or edit the file that describes the integration"

// withStore calls do with the store of the configuration and its manager.
func withStore(cmd *cobra.Command, timeout time.Duration, do func(context.Context, *manage.Manager, *store.Store) error) error {
	d, err := loadDeployment(cmd, "", true)
	if err != nil {
		return err
	}
	if !d.Base.Store.Enabled {
		return &usageError{suggest(errors.New(noStore), "bridge help config store")}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	log := commandLogger(cmd, config.Log{Level: "error", Format: "auto"}, nil)
	cl, err := pipeline.NewKafkaClient(d.Base, version(), log)
	if err != nil {
		return &usageError{err}
	}
	defer cl.Close()
	if _, err := cl.ID(ctx); err != nil {
		return err // ends with ctx if a broker takes connections and never answers
	}
	s := store.New(store.Options{Topic: d.Base.Store.Topic, Connection: cl.Connection, Keys: d.Base.Store.ReadKeys, Log: log})
	defer s.Close()
	return explained(do(ctx, manage.New(manage.Options{Store: s, Files: func() *config.Deployment { return d }, Version: version()}), s))
}

// explained returns an error of the manager as the command line shows it: one line for
// each field, and what is wrong with the request as a usage error.
func explained(err error) error {
	refused, ok := errors.AsType[*manage.Error](err)
	if !ok {
		return err
	}
	line := func(message, remedy string) string {
		if remedy != "" {
			message += "; " + remedy
		}
		return message
	}
	lines := []string{line(refused.Message, refused.Remedy)}
	if len(refused.Fields) > 0 {
		lines = nil
	}
	for _, f := range refused.Fields {
		lines = append(lines, f.Field+" "+line(f.Message, f.Remedy))
	}
	err = errors.New(strings.Join(lines, "\n"))
	switch refused.Code {
	case manage.NotFound:
		return &usageError{suggest(err, "bridge integrations list")}
	case manage.ValidationFailed, manage.ManagedByFile:
		return &usageError{err}
	}
	return err
}

// changeFlags are those of commands that change the store.
type changeFlags struct {
	dryRun, newSecret  bool
	reason, secretFile string
	blueprint          string
	revision           uint32
	output             *outputForm
}

func (f *changeFlags) add(cmd *cobra.Command, revision bool) {
	config.AddFlags(cmd.Flags(), "brokers")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "validate, and show what would change; nothing is written")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the audit log")
	if revision {
		cmd.Flags().Uint32Var(&f.revision, "revision", 0, "refuse unless this is the present revision; 0: any")
		completeInstalled(cmd)
	}
	f.output = addOutput(cmd)
}

func (f *changeFlags) addContent(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.blueprint, "blueprint", "", "file with the blueprint document")
	cmd.Flags().StringVar(&f.secretFile, "secret-file", "", "file with the client secret (default BRIDGE_ZEROBUS_CLIENT_SECRET, else a prompt without echo)")
}

func (f *changeFlags) who() manage.Who {
	return manage.Who{By: operator(), RequestID: "req_" + strings.ToLower(rand.Text()[:12]), Reason: f.reason}
}

// secret returns the client secret: of the file, the environment or a prompt.
func (f *changeFlags) secret(cmd *cobra.Command) (string, error) {
	ask := terminal.Asker(cmd.InOrStdin(), cmd.ErrOrStderr())
	given := os.Getenv("BRIDGE_ZEROBUS_CLIENT_SECRET")
	switch {
	case f.secretFile != "":
		text, err := plaintext.ReadFile(f.secretFile, plaintext.MaxText)
		if err != nil {
			return "", &usageError{fmt.Errorf("--secret-file: %w; name a readable file that holds the secret and nothing else", err)}
		}
		return plaintext.Secret(string(text)), nil
	case given != "" || ask == nil:
		return given, nil // without one, the manager reports the field
	}
	return ask(cmd.Context(), "client secret", true)
}

// patch returns the change that KEY=VALUE pairs and flags describe.
func (f *changeFlags) patch(pairs []string) (p manage.Patch, err error) {
	if p, err = manage.Pairs(pairs); err != nil || f.blueprint == "" {
		return p, explained(err)
	}
	text, err := plaintext.ReadFile(f.blueprint, plaintext.MaxText)
	if err != nil {
		return p, &usageError{fmt.Errorf("--blueprint: %w; name a readable file", err)}
	}
	document := string(text)
	p.Blueprint = &document
	return p, nil
}

// write writes the result of a change.
func (f *changeFlags) write(cmd *cobra.Command, done string, r manage.Result) error {
	return f.output.write(cmd, r, func(b *strings.Builder, look terminal.Style) {
		i := r.Integration
		f.writeHead(b, fmt.Sprintf("%s (%s) %s; revision %d; action: %s", i.Slug, i.ID, done, i.Revision, r.Action))
		writeChanges(b, look, r.Changes)
		writeSteps(b, look, r.Checks)
		writeWarnings(b, look, r.Warnings)
		for _, note := range r.Notes {
			fmt.Fprintln(b, plaintext.VisibleLine(note))
		}
		if sql := strings.TrimSpace(r.DDL + "\n" + strings.Join(r.Grants, "\n")); sql != "" {
			fmt.Fprintf(b, "\n%s\n", plaintext.Visible(sql))
		}
	})
}

// writeChanges writes the old and new values of fields.
func writeChanges(b *strings.Builder, look terminal.Style, changes map[string]store.Changed) {
	text := func(value any) string {
		if value == nil {
			return "-"
		}
		data, _ := json.Marshal(value) // it was JSON
		return plaintext.ShortLine(string(data), 200)
	}
	rows := []string{"KEY\tBEFORE\tAFTER"}
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		rows = append(rows, strings.Join([]string{plaintext.ShortLine(key, 100), text(changes[key].Old), text(changes[key].New)}, "\t"))
	}
	if len(rows) > 1 {
		var table strings.Builder
		terminal.Tabulate(&table, rows...)
		b.WriteString(look.Table(table.String()))
	}
}

// completeInstalled completes the first argument to the integrations of the store, if it
// answers within two seconds.
func completeInstalled(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
		if len(args) == 0 {
			_ = withStore(cmd, 2*time.Second, func(ctx context.Context, _ *manage.Manager, s *store.Store) error { // else there is nothing to complete
				state, err := s.Read(ctx)
				for _, r := range state.Records {
					names = append(names, r.Slug+"\t"+plaintext.ShortLine(r.Name, 100))
				}
				return err
			})
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func newInstallCommand() *cobra.Command {
	var f changeFlags
	var body string
	cmd := &cobra.Command{
		Use:   "install [KEY=VALUE]...",
		Short: "Install an integration in the store",
		Long: `install writes an integration to the store of the deployment, where all running
bridges find it and start it. Keys are name, slug, variant and enabled; the fields of
the integration page and further ones of zerobus; source.topics, source.start and
source.group; mapping.KEY, rejects.KEY and delivery.KEY. The client secret comes from
--secret-file, BRIDGE_ZEROBUS_CLIENT_SECRET or a prompt, and is sealed before it is
written. The answer has the SQL that creates the table and its grants, and the steps of
a check.

The exit code is 2 when a field is missing or wrong, and 1 when the store refuses.`,
		Example: `  bridge integrations install name="Orders EU" workspace_url=https://abc-12345.cloud.databricks.com \
    client_id=ID catalog=datafly schema=events table=orders source.topics=orders --secret-file secret
  bridge integrations install --file install.json --dry-run     the body of the API's call
  bridge integrations install --file install.json name=Web slug=web table=web enabled=false --output json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, pairs []string) error {
			r, err := f.request(body, pairs)
			if err == nil && (r.Config["client_secret"] == nil || f.secretFile != "") {
				var secret string
				if secret, err = f.secret(cmd); secret != "" {
					r.Config["client_secret"] = secret
				}
			}
			if err != nil {
				return err
			}
			return withStore(cmd, storeTimeout, func(ctx context.Context, m *manage.Manager, _ *store.Store) error {
				result, err := m.Install(ctx, r, f.who(), f.dryRun)
				if err != nil {
					return err
				}
				return f.write(cmd, "installed", result)
			})
		},
	}
	f.add(cmd, false)
	f.addContent(cmd)
	cmd.Flags().StringVar(&body, "file", "", "JSON file of an install, as the API takes it; KEY=VALUE pairs and --secret-file win over it")
	return cmd
}

// request returns the install that a file, KEY=VALUE pairs and flags describe.
func (f *changeFlags) request(file string, pairs []string) (r manage.Request, err error) {
	if file != "" {
		text, err := plaintext.ReadFile(file, plaintext.MaxText)
		if err == nil {
			err = strict.Unmarshal(text, &r, strict.RejectUnknownMembers(true)) // as the API does
		}
		if err != nil {
			return r, &usageError{fmt.Errorf("--file %s: %w; name a file with the JSON of an install", plaintext.ShortLine(file, 300), err)}
		}
	}
	p, err := f.patch(slices.DeleteFunc(slices.Clone(pairs), func(pair string) bool {
		slug, ok := strings.CutPrefix(pair, "slug=")
		if ok {
			r.Slug = slug
		}
		return ok
	}))
	r.Merge(p)
	return r, err
}

func newSetCommand() *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:   "set SLUG [KEY=VALUE]...",
		Short: "Change an installed integration",
		Long: `set changes keys of an integration in the store; KEY= sets the default. Keys are those
of bridge integrations install, without slug. A change of the destination
(workspace_url, endpoint, token_url, client_id) needs the client secret again:
--secret-file, or --new-secret for the environment or a prompt. Running bridges take
the change over. The action in the answer states how.`,
		Example: `  bridge integrations set orders-eu table=orders_v2 --reason "new table"
  bridge integrations set orders-eu --blueprint blueprint.yaml --dry-run
  bridge integrations set orders-eu source.topics=orders,refunds delivery.max_rows=1000 --revision 3
  bridge integrations set orders-eu --secret-file secret`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.patch(args[1:])
			if err != nil {
				return err
			}
			if f.newSecret || f.secretFile != "" {
				secret, err := f.secret(cmd)
				if err != nil {
					return err
				}
				if p.Config == nil {
					p.Config = store.Values{}
				}
				p.Config["client_secret"] = secret
			}
			return f.update(cmd, args[0], p, "changed")
		},
	}
	f.add(cmd, true)
	f.addContent(cmd)
	cmd.Flags().BoolVar(&f.newSecret, "new-secret", false, "replace the client secret by that of BRIDGE_ZEROBUS_CLIENT_SECRET or a prompt")
	return cmd
}

// update changes an integration.
func (f *changeFlags) update(cmd *cobra.Command, slug string, p manage.Patch, done string) error {
	return withStore(cmd, storeTimeout, func(ctx context.Context, m *manage.Manager, _ *store.Store) error {
		result, err := m.Update(ctx, slug, p, int64(f.revision), f.who(), f.dryRun)
		if err != nil {
			return err
		}
		return f.write(cmd, done, result)
	})
}

// newSwitchCommand is enable or disable.
func newSwitchCommand(use, short, long string, enabled bool) *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use: use + " SLUG", Short: short, Long: long,
		Example: fmt.Sprintf("  bridge integrations %s orders-eu --reason \"replay\"\n  bridge integrations %s orders-eu --dry-run", use, use),
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.update(cmd, args[0], manage.Patch{Enabled: &enabled}, use+"d")
		},
	}
	f.add(cmd, true)
	return cmd
}

func newRemoveCommand() *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:   "remove SLUG",
		Short: "Remove an installed integration",
		Long: `remove takes an integration out of the store. Running bridges drain it and stop it. Its
consumer group and its dead letters stay; the answer has the commands to delete them.`,
		Example: `  bridge integrations remove orders-eu --dry-run
  bridge integrations remove orders-eu --revision 4 --reason "moved to another workspace"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, storeTimeout, func(ctx context.Context, m *manage.Manager, _ *store.Store) error {
				result, err := m.Remove(ctx, args[0], int64(f.revision), f.who(), f.dryRun)
				if err != nil {
					return err
				}
				return f.write(cmd, "removed", result)
			})
		},
	}
	f.add(cmd, true)
	return cmd
}

func newExportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the installed integrations, for a backup",
		Long: `export prints the content of the store as YAML. Secrets stay sealed: keep the files of
store.keys apart from it, since nothing else opens them. It also works while the store
cannot be written.`,
		Example: `  bridge integrations export --config config.yaml > integrations.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, storeTimeout, func(ctx context.Context, m *manage.Manager, _ *store.Store) error {
				text, err := m.Export(ctx)
				if err != nil {
					return err
				}
				return printText(cmd.OutOrStdout(), plaintext.Visible(string(text)))
			})
		},
	}
	config.AddFlags(cmd.Flags(), "brokers")
	return cmd
}

// maxBackup bounds a backup, in bytes.
const maxBackup = 96 << 20

func newImportCommand() *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Restore or add installed integrations from a file",
		Long: `import writes the integrations of an export, or of a file of integrations_dir, to the
store. A store that is new, emptied or deleted is restored: sealed secrets open with the
same store.keys, and running bridges continue as before. In a store that exists,
integrations are added and updated; those that the file does not have stay.`,
		Example: `  bridge integrations import integrations.yaml --dry-run
  bridge integrations import integrations.yaml --reason "the topic was deleted"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := plaintext.ReadFile(args[0], maxBackup)
			if err != nil {
				return &usageError{fmt.Errorf("reading the export: %w; name a file that bridge integrations export wrote", err)}
			}
			return withStore(cmd, storeTimeout, func(ctx context.Context, m *manage.Manager, _ *store.Store) error {
				r, err := m.Import(ctx, data, f.who(), f.dryRun)
				if err != nil {
					return err
				}
				return f.output.write(cmd, r, func(b *strings.Builder, look terminal.Style) {
					f.writeHead(b, "store "+r.StoreID+map[bool]string{true: " restored"}[r.Restored])
					for _, slug := range slices.Sorted(maps.Keys(r.Actions)) {
						fmt.Fprintf(b, "%s: %s\n", slug, r.Actions[slug])
						writeChanges(b, look, r.Changes[slug])
					}
					writeWarnings(b, look, r.Warnings)
				})
			})
		},
	}
	f.add(cmd, false)
	return cmd
}

func newResealCommand() *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:   "reseal",
		Short: "Seal all secrets with the first of store.keys",
		Long: `reseal opens the secrets of the store that another key sealed, and seals them with the
first of store.keys. To rotate a key, give every member the new file as the second, then
make it the first, run reseal, and take the old file out. The exit code is 1 if a secret
does not open.`,
		Example: `  bridge integrations reseal --dry-run
  bridge integrations reseal --reason "yearly rotation" --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, storeTimeout, func(ctx context.Context, m *manage.Manager, _ *store.Store) error {
				r, err := m.Reseal(ctx, f.who(), f.dryRun)
				if err != nil {
					return err
				}
				err = f.output.write(cmd, r, func(b *strings.Builder, look terminal.Style) {
					f.writeHead(b, fmt.Sprintf("resealed: %s; sealed with the first key already, or without a secret: %s", orDash(strings.Join(r.Resealed, ", ")), orDash(strings.Join(r.Unchanged, ", "))))
					for _, slug := range slices.Sorted(maps.Keys(r.Failed)) {
						fmt.Fprintln(b, look.Bad(slug+":"), plaintext.VisibleLine(r.Failed[slug]))
					}
				})
				if err == nil && len(r.Failed) > 0 {
					err = &quietError{errors.New("a secret does not open")}
				}
				return err
			})
		},
	}
	f.add(cmd, false)
	return cmd
}

// writeHead writes what was done, or would be.
func (f *changeFlags) writeHead(b *strings.Builder, done string) {
	if f.dryRun {
		b.WriteString("dry run, nothing is changed; would be: ")
	}
	b.WriteString(plaintext.VisibleLine(done) + "\n")
}

func writeWarnings(b *strings.Builder, look terminal.Style, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(b, look.Warn("warning:"), plaintext.VisibleLine(w))
	}
}

func newHistoryCommand() *cobra.Command {
	var revision uint32
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "history SLUG",
		Short: "Show who changed an integration, when and why",
		Long: `history lists the audit entries of an installed integration, newest first. With
--revision it shows what that revision changed.`,
		Example: `  bridge integrations history orders-eu
  bridge integrations history orders-eu --revision 3
  bridge integrations history orders-eu --output json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, storeTimeout, func(ctx context.Context, m *manage.Manager, _ *store.Store) error {
				entries, err := m.Revisions(ctx, args[0])
				if err != nil {
					return err
				}
				if revision > 0 {
					entries = slices.DeleteFunc(entries, func(e store.Entry) bool { return e.Revision != int64(revision) })
					if len(entries) == 0 {
						return &usageError{fmt.Errorf("the audit log has no revision %d of %s; leave out --revision for those it has", revision, plaintext.ShortLine(args[0], 100))}
					}
				}
				return output.write(cmd, map[string]any{"revisions": append([]store.Entry{}, entries...)}, func(b *strings.Builder, look terminal.Style) {
					rows := []string{"REVISION\tTIME\tBY\tACTION\tKEYS\tREASON"}
					for _, e := range entries {
						rows = append(rows, fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s", e.Revision, e.Time.UTC().Format(time.RFC3339), plaintext.ShortLine(e.By, 100), e.Action,
							plaintext.ShortLine(orDash(slices.Sorted(maps.Keys(e.Changes))...), 200), plaintext.ShortLine(orDash(e.Reason), 200)))
					}
					var table strings.Builder
					terminal.Tabulate(&table, rows...)
					b.WriteString(look.Table(table.String()))
					if revision > 0 {
						b.WriteString("\n")
						writeChanges(b, look, entries[0].Changes)
					}
				})
			})
		},
	}
	config.AddFlags(cmd.Flags(), "brokers")
	completeInstalled(cmd)
	cmd.Flags().Uint32Var(&revision, "revision", 0, "show what this revision changed")
	output = addOutput(cmd)
	return cmd
}
