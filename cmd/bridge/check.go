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
		Short: "Try the configuration, Kafka, the token, the grants and the table",
		Long: `check tries, one after the other, everything bridge run depends on, and prints one
line per step: ok, a warning, or the error, each of the two with its remedy. A
permission that Kafka denies is named with the command that grants it. check joins
no group, commits and creates nothing and, without --write-probe, writes nothing.
The exit code is 0 when no step fails, else 1; a warning is no failure.`,
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
			if err := output.print(cmd, answer, c.text); err != nil {
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
	stepWarning = "warning" // bridge run starts, and something is not as it should be
	stepFailed  = "failed"
	stepSkipped = "skipped" // what it needs has failed
)

// checkStep is one line of the answer.
type checkStep struct {
	Step   string `json:"step"`
	Status string `json:"status"`
	Detail string `json:"detail,omitempty"`
	Error  string `json:"error,omitempty"` // ends with the remedy
	// Warning ends with the remedy, too; lines where there are several.
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

// warning is what a step returns that passed and has something to say.
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
			s.Detail = "" // it tells of a success
		}
		switch {
		case err == nil:
		case warned:
			s.Status, s.Warning = stepWarning, string(caution)
		case ctx.Err() != nil: // what the step says of it sounds like a fault
			s.Status, s.Error, s.err = stepFailed, "interrupted", ctx.Err()
		default:
			s.Status, s.Error, s.err = stepFailed, err.Error(), err
		}
	}
	c.steps = append(c.steps, s)
	return s.Status == stepOK || s.Status == stepWarning
}

// lastFailed is what a step that is skipped waits for: steps stand behind those
// they need.
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
		cfg.Log.Level = "error" // the steps say what is to be said
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

// settingsWithoutEffect returns the settings that have no effect. Whether spans are
// made, the environment has its say in.
func settingsWithoutEffect(cfg *config.Config) []config.Ignored {
	inForce := *cfg
	if traces, err := app.TraceSettings(cfg); err == nil {
		inForce.Tracing.Enabled = traces.On
	}
	return inForce.Ignored()
}

// ignoredSettings is a warning with a line for each setting that has no effect;
// nil where all have one.
func ignoredSettings(cfg *config.Config) error {
	var said []string
	for _, i := range settingsWithoutEffect(cfg) {
		said = append(said, i.String())
	}
	if len(said) == 0 {
		return nil
	}
	return warning(strings.Join(said, "\n"))
}

// next is the command that helps with the first step that failed.
func (c *checker) next(cmd *cobra.Command) string {
	for _, s := range c.steps {
		if s.Status != stepFailed {
			continue
		}
		switch s.Step {
		case "configuration":
			return nextCommand(cmd, s.err)
		case "kafka":
			return "bridge help config kafka"
		case "topic":
			return "bridge help config kafka.topics"
		case "group":
			return "bridge help config kafka.group"
		case "dead-letter topic":
			return "bridge help config rejects"
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

// nextForService tells a key that is wrong from a grant or a table that is
// missing: only the latter are mended with SQL.
func nextForService(cmd *cobra.Command, s checkStep) string {
	var said *zerobus.Error
	key := "zerobus.client"
	switch {
	case !errors.As(s.err, &said):
	case said.Status == 0 && said.RPC == "" && said.Op == "insert":
		key = "zerobus.endpoint"
	case said.Status == 0 && said.RPC == "", s.Step == "token" && said.Status == http.StatusNotFound:
		key = "zerobus.workspace_url"
	case said.Code == "invalid_target":
		key = "zerobus.workspace_id"
	case said.Status/100 == 2 && said.Op == "ingest": // an answer that confirms nothing
		key = "zerobus.confirm"
	case said.Status/100 == 2:
		key = "zerobus.endpoint"
	case said.Code == "ENDPOINT_NOT_FOUND":
		key = "zerobus.transport"
	case s.Step == "ingest", said.Code == "invalid_authorization_details":
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
		var said []string
		for _, t := range topics {
			if !t.Exists {
				return "", fmt.Errorf("topic %s does not exist; create it or correct kafka.topics (bridge run would wait for it)", t.Name)
			}
			said = append(said, fmt.Sprintf("%s has %d partitions", t.Name, t.Partitions))
		}
		events, err := b.Cluster.Readable(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, %d events", strings.Join(said, ", "), events), b.Cluster.CanRead(ctx)
	})
	c.step(ctx, "memory", reached, b.checkMemory)
	c.step(ctx, "group", reached, func(ctx context.Context) (string, error) {
		return b.cfg.Kafka.Group + " may be joined and committed for", b.Cluster.CanJoin(ctx)
	})
	c.step(ctx, "dead-letter topic", reached, func(ctx context.Context) (string, error) {
		letters, err := b.Cluster.DeadLetterTopics(ctx)
		if err != nil {
			return "", err
		}
		if len(letters) == 0 {
			return "not used: rejects.policy is " + b.cfg.Rejects.Policy, nil
		}
		var said []string
		for _, t := range letters {
			if t.Exists {
				said = append(said, t.Name+" exists and may be written to")
			} else {
				said = append(said, t.Name+" will be created by bridge run, which may")
			}
		}
		return strings.Join(said, ", "), b.Cluster.CanReject(ctx, letters)
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

// probeRow maps and writes one row as bridge run would.
func probeRow(ctx context.Context, b *checkedParts) (string, error) {
	now := time.Now().UTC()
	id := fmt.Sprintf("bridge-check-%d", now.UnixNano())
	event := fmt.Sprintf(`{"type":"track","event":"bridge_check","message_id":%q,"timestamp":%q}`, id, now.Format(time.RFC3339Nano))
	rows, version := b.Schema.MapRows(b.cfg.Kafka.Topics[0], []byte(event), now)
	if len(rows) != 1 {
		return "", errors.New("the blueprint makes no row of a plain track event, so nothing was written; that is fine if it filters or drops such events")
	}
	if _, err := b.Client.Write(ctx, version, rows); err != nil {
		if s := b.Client.State(); s.Name != zerobus.Ready {
			return "", fmt.Errorf("writing one row: %s; %s", s.Reason, s.Remedy)
		}
		return "", fmt.Errorf("writing one row: %w", err)
	}
	return "one row written, message_id " + id + confirmedHow(b), nil
}

// confirmedHow says in which form the workspace confirmed the row, and which
// setting that form needs. The other transports have one form.
func confirmedHow(b *checkedParts) string {
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

// unreadColumns says that the blueprint is not compared with the table, and which
// grants would let it.
func unreadColumns(unreadable *zerobus.ColumnsUnreadable) string {
	return "the table's columns cannot be read, so the blueprint is not compared with them: " + unreadable.Error()
}
