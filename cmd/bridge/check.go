package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/app"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/zerobus"
)

func newCheckCommand() *cobra.Command {
	var writeProbe bool
	timeout := 30 * time.Second
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, Kafka, the token, the grants and the table",
		Long: `check tries everything that bridge run depends on, and prints one line per step: ok,
or a warning or an error with its remedy. If Kafka denies a permission, check prints
the command that grants it. check joins no group, commits nothing and creates
nothing; without --write-probe it writes nothing. The exit code is 0 when no step
fails, else 1; a warning is no failure.`,
		Example: `  bridge check --config config.yaml
  bridge check --config config.yaml --write-probe     also write one row, event_name bridge_check
  bridge check --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return &usageError{fmt.Errorf("--timeout is %v; use more than 0, such as 30s", timeout)}
			}
			c := &checker{timeout: timeout, writeProbe: writeProbe}
			c.run(cmd.Context(), cmd)
			answer := map[string]any{"ok": c.ok(), "steps": c.steps}
			if err := output.write(cmd, answer, c.text); err != nil {
				return err
			}
			if !c.ok() {
				if cmd.Context().Err() != nil {
					return &quietError{cmd.Context().Err()}
				}
				return &quietError{suggest(errors.New("a check failed"), c.next(cmd))}
			}
			return nil
		},
	}
	config.AddFlags(cmd.Flags(), "brokers", "topics", "topic", "group")
	cmd.Flags().BoolVar(&writeProbe, "write-probe", false, "write one row to the table; it stays there")
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long one step may take")
	output = addOutput(cmd)
	return cmd
}

// Outcomes of a step.
const (
	stepOK      = "ok"
	stepWarning = "warning" // bridge run starts, and something should be fixed
	stepFailed  = "failed"
	stepSkipped = "skipped" // what it needs has failed
)

// checkStep is one line of the answer.
type checkStep struct {
	Step   string `json:"step"`
	Status string `json:"status"`
	Detail string `json:"detail,omitempty"`
	Error  string `json:"error,omitempty"` // ends with the remedy
	// Warning ends with the remedy; one line each if there are several.
	Warning string `json:"warning,omitempty"`

	err error
}

// checkedParts are what the steps try.
type checkedParts struct {
	*pipeline.Parts
	cfg *config.Config
}

type checker struct {
	timeout    time.Duration
	writeProbe bool
	steps      []checkStep
}

func (c *checker) ok() bool {
	for _, s := range c.steps {
		if s.Status == stepFailed {
			return false
		}
	}
	return true
}

// warning is the error of a step that passed with a warning.
type warning string

func (w warning) Error() string { return string(w) }

// step runs one check under its own deadline and returns whether it passed; a
// warning passes.
func (c *checker) step(ctx context.Context, name string, needs bool, try func(context.Context) (string, error)) bool {
	s := checkStep{Step: name, Status: stepSkipped}
	switch {
	case ctx.Err() != nil:
		s.Detail = "not tried, since the check was interrupted"
	case !needs:
		s.Detail = "not tried, since " + c.lastFailed() + " failed"
	default:
		within, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		detail, err := try(within)
		s.Status, s.Detail = stepOK, detail
		caution, warned := errors.AsType[warning](err)
		if err != nil && !warned {
			s.Detail = "" // it describes a success
		}
		switch {
		case err == nil:
		case warned:
			s.Status, s.Warning = stepWarning, string(caution)
		case ctx.Err() != nil: // the error of the step would sound like a fault
			s.Status, s.Error, s.err = stepFailed, "interrupted", ctx.Err()
		default:
			s.Status, s.Error, s.err = stepFailed, err.Error(), err
		}
	}
	c.steps = append(c.steps, s)
	return s.Status == stepOK || s.Status == stepWarning
}

// lastFailed is the reason for a skipped step: steps follow those they need.
func (c *checker) lastFailed() string {
	for _, s := range slices.Backward(c.steps) {
		if s.Status == stepFailed {
			return s.Step
		}
	}
	return "an earlier step"
}

func (c *checker) run(ctx context.Context, cmd *cobra.Command) {
	var b *checkedParts
	configured := c.step(ctx, "configuration", true, func(context.Context) (string, error) {
		cfg, err := loadConfig(cmd)
		if err != nil {
			return "", err
		}
		if _, err := app.TraceSettings(cfg); err != nil {
			return "", &usageError{err}
		}
		cfg.Log.Level = "error" // the steps report the rest
		parts, err := pipeline.NewParts(cfg, version(), commandLogger(cmd, cfg.Log, nil))
		if err != nil {
			return "", &usageError{err}
		}
		b = &checkedParts{parts, cfg}
		return fmt.Sprintf("%s -> %s", strings.Join(cfg.Kafka.Topics, ", "), b.Client.Table()), ignoredSettings(cfg)
	})
	if configured {
		defer b.Close()
	}
	clusterID := c.kafka(ctx, b, configured)
	c.table(ctx, b, configured, clusterID)
}

// settingsWithoutEffect returns the settings that have no effect. The environment
// can turn tracing on or off.
func settingsWithoutEffect(cfg *config.Config) []config.Ignored {
	inForce := *cfg
	if traces, err := app.TraceSettings(cfg); err == nil {
		inForce.Tracing.Enabled = traces.On
	}
	return inForce.Ignored()
}

// ignoredSettings is a warning with a line for each setting that has no effect;
// nil if there is none.
func ignoredSettings(cfg *config.Config) error {
	var lines []string
	for _, i := range settingsWithoutEffect(cfg) {
		lines = append(lines, i.String())
	}
	if len(lines) == 0 {
		return nil
	}
	return warning(strings.Join(lines, "\n"))
}

// stepKeys are the keys that concern a step.
var stepKeys = map[string]string{"kafka": "kafka", "topic": "kafka.topics", "group": "kafka.group", "dead-letter topic": "rejects"}

// next is the command that helps with the first step that failed.
func (c *checker) next(cmd *cobra.Command) string {
	for _, s := range c.steps {
		if s.Status != stepFailed {
			continue
		}
		if key := stepKeys[s.Step]; key != "" {
			return "bridge help config " + key
		}
		switch s.Step {
		case "configuration":
			return nextCommand(cmd, s.err)
		case "token", "ingest":
			return nextForService(cmd, s)
		case "columns":
			if _, unwritable := errors.AsType[*zerobus.UnwritableTable](s.err); unwritable {
				return "bridge ddl" + configArgument(cmd)
			}
			return "bridge ddl --alter" + configArgument(cmd)
		}
	}
	return "bridge help troubleshooting"
}

// nextForService distinguishes a wrong key from a missing grant or table, which are
// fixed with SQL.
func nextForService(cmd *cobra.Command, s checkStep) string {
	var answer *zerobus.Error
	key := "zerobus.client"
	switch {
	case !errors.As(s.err, &answer):
	case answer.Status == 0 && answer.RPC == "" && answer.Op == "insert":
		key = "zerobus.endpoint"
	case answer.Status == 0 && answer.RPC == "", s.Step == "token" && answer.Status == http.StatusNotFound:
		key = "zerobus.workspace_url"
	case answer.Code == "invalid_target":
		key = "zerobus.workspace_id"
	case answer.Status/100 == 2 && answer.Op == "ingest": // an answer that confirms nothing
		key = "zerobus.confirm"
	case answer.Status/100 == 2:
		key = "zerobus.endpoint"
	case answer.Code == "ENDPOINT_NOT_FOUND":
		key = "zerobus.transport"
	case s.Step == "ingest", answer.Code == "invalid_authorization_details":
		return "bridge ddl" + configArgument(cmd)
	}
	return "bridge help config " + key
}

func (c *checker) kafka(ctx context.Context, b *checkedParts, configured bool) (clusterID string) {
	reached := c.step(ctx, "kafka", configured, func(ctx context.Context) (_ string, err error) {
		clusterID, err = b.Cluster.ID(ctx)
		return "cluster " + clusterID, err
	})
	c.step(ctx, "topic", reached, func(ctx context.Context) (string, error) {
		topics, err := b.Cluster.Topics(ctx)
		if err != nil {
			return "", err
		}
		var found []string
		for _, t := range topics {
			if !t.Exists {
				return "", fmt.Errorf("topic %s does not exist; create it or correct kafka.topics (bridge run would wait for it)", t.Name)
			}
			found = append(found, fmt.Sprintf("%s has %d partitions", t.Name, t.Partitions))
		}
		events, err := b.Cluster.Readable(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, %d events", strings.Join(found, ", "), events), b.Cluster.CanRead(ctx)
	})
	c.step(ctx, "memory", reached, b.checkMemory)
	c.step(ctx, "group", reached, func(ctx context.Context) (string, error) {
		return b.cfg.Kafka.Group + " may be joined and committed for", b.Cluster.CanJoin(ctx)
	})
	c.step(ctx, "dead-letter topic", reached, func(ctx context.Context) (string, error) {
		topics, err := b.Cluster.DeadLetterTopics(ctx)
		if err != nil {
			return "", err
		}
		if len(topics) == 0 {
			return "not used: rejects.policy is " + b.cfg.Rejects.Policy, nil
		}
		var found []string
		for _, t := range topics {
			if t.Exists {
				found = append(found, t.Name+" exists and may be written to")
			} else {
				found = append(found, t.Name+" will be created by bridge run, which may")
			}
		}
		return strings.Join(found, ", "), b.Cluster.CanReject(ctx, topics)
	})
	return clusterID
}

// checkMemory compares what one member may need, given all partitions, with the
// limit of the control group that the check runs in.
func (b *checkedParts) checkMemory(ctx context.Context) (string, error) {
	brokers, partitions, err := b.Cluster.Size(ctx)
	if err != nil {
		return "", err
	}
	plan, cgroup := pipeline.MemoryPlan(b.cfg, brokers, partitions), memory.CgroupLimit()
	if err := plan.Fits(cgroup); err != nil {
		return "", warning(err.Error())
	}
	limit := "no memory limit here"
	if cgroup > 0 {
		limit = fmt.Sprintf("the limit here is %d MiB", memory.MiB(cgroup))
	}
	return fmt.Sprintf("up to %d MiB for a member with all %d partitions; %s", memory.MiB(plan.Bound()), partitions, limit), nil
}

func (c *checker) table(ctx context.Context, b *checkedParts, configured bool, clusterID string) {
	token := c.step(ctx, "token", configured, func(ctx context.Context) (string, error) {
		err := b.Client.Token(ctx)
		at := b.Client.State().TokenExpiresAt
		if at.IsZero() {
			return "", err
		}
		return "expires " + at.UTC().Format(time.RFC3339), err
	})
	ingest := c.step(ctx, "ingest", token, func(ctx context.Context) (string, error) {
		return b.Client.Table().String() + " takes batches", b.Client.Reachable(ctx)
	})
	columns := c.step(ctx, "columns", token, func(ctx context.Context) (string, error) {
		table, unseen, err := pipeline.ReadColumns(ctx, b.Client)
		if err != nil {
			return "", err
		}
		m, err := b.Schema.SetTable(clusterID, table)
		if err != nil {
			return "", err
		}
		if unseen != nil {
			return "the blueprint has " + columnsText(m), warning(unreadColumns(unseen))
		}
		return fmt.Sprintf("the blueprint's %s fit the table's %d", columnsText(m), len(table)), b.Client.CheckColumns(ctx)
	})
	if c.writeProbe {
		c.step(ctx, "write probe", ingest && columns, func(ctx context.Context) (string, error) {
			return probeRow(ctx, b)
		})
	}
}

// probeRow maps and writes one row as bridge run does.
func probeRow(ctx context.Context, b *checkedParts) (string, error) {
	now := time.Now().UTC()
	id := fmt.Sprintf("bridge-check-%d", now.UnixNano())
	event := fmt.Sprintf(`{"type":"track","event":"bridge_check","message_id":%q,"timestamp":%q}`, id, now.Format(time.RFC3339Nano))
	rows, version := b.Schema.MapRows(b.cfg.Kafka.Topics[0], []byte(event), now)
	if len(rows) != 1 {
		return "", errors.New("the blueprint maps a plain track event to no row, so nothing was written; ignore this if it filters or drops such events")
	}
	if _, err := b.Client.Write(ctx, version, rows); err != nil {
		if s := b.Client.State(); s.Name != zerobus.Ready {
			return "", fmt.Errorf("writing one row: %s; %s", s.Reason, s.Remedy)
		}
		return "", fmt.Errorf("writing one row: %w", err)
	}
	return "one row written, message_id " + id + confirmation(b), nil
}

// confirmation returns the form in which the workspace confirmed the row, and the
// setting for it. The other transports have one form.
func confirmation(b *checkedParts) string {
	switch form := b.Client.State().Confirmation; {
	case b.cfg.Zerobus.Transport != zerobus.TransportWorkspace || form == "":
		return ""
	case form == zerobus.ConfirmedWithoutCount:
		return "; the workspace confirms without a count of rows, which needs zerobus.confirm: lenient"
	case b.cfg.Zerobus.Confirm == zerobus.ConfirmLenient:
		return "; the workspace confirms with the count of rows, so zerobus.confirm: strict would do"
	}
	return "; the workspace confirms with the count of rows"
}

func (c *checker) text(b *strings.Builder, look terminal.Style) {
	paints := map[string]func(string) string{stepOK: look.Good, stepFailed: look.Bad, stepWarning: look.Warn, stepSkipped: look.Warn}
	for _, s := range c.steps {
		lines := slices.DeleteFunc([]string{s.Detail, s.Warning, s.Error}, func(line string) bool { return line == "" })
		text := strings.ReplaceAll(plaintext.Visible(strings.Join(lines, "\n")), "\n", "\n                             ")
		fmt.Fprintf(b, "%-19s %s %s\n", s.Step, paints[s.Status](fmt.Sprintf("%-8s", s.Status)), text)
	}
}

// unreadColumns is the warning that the blueprint is not compared with the table; it
// names the missing grants.
func unreadColumns(unreadable *zerobus.ColumnsUnreadable) string {
	return "the table's columns cannot be read, so the blueprint is not compared with them: " + unreadable.Error()
}
