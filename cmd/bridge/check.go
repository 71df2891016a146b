package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/app"
	"github.com/datafly/bridge/internal/config"
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
nothing; without --write-probe it writes nothing. Of several integrations it checks
those that are enabled, or the one of --integration: first what they have in common,
then each. The exit code is 0 when no step fails, else 1; a warning is no failure.`,
		Example: `  bridge check --config config.yaml
  bridge check --config config.yaml --integration orders
  bridge check --config config.yaml --write-probe     also write one row, event_name bridge_check
  bridge check --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return &usageError{fmt.Errorf("--timeout is %v; use more than 0, such as 30s", timeout)}
			}
			c := &checker{Check: pipeline.Check{Timeout: timeout}, writeProbe: writeProbe}
			c.run(cmd.Context(), cmd)
			answer := map[string]any{"ok": c.ok(), "steps": c.Steps}
			if len(c.each) > 1 {
				answer["integrations"] = c.each
			}
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
	config.AddFlags(cmd.Flags(), "brokers", "topics", "topic", "group", "integration")
	cmd.Flags().BoolVar(&writeProbe, "write-probe", false, "write one row to the table; it stays there")
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long one step may take")
	output = addOutput(cmd)
	return cmd
}

// checker runs the steps. Those of each integration are apart where there are several.
type checker struct {
	pipeline.Check
	writeProbe bool
	each       []*checkedIntegration
	deployment *config.Deployment
}

// checkedIntegration is one of several integrations in the answer.
type checkedIntegration struct {
	Integration string               `json:"integration"`
	OK          bool                 `json:"ok"`
	Steps       []pipeline.CheckStep `json:"steps"`

	parts *pipeline.Parts
}

func (c *checker) ok() bool {
	return c.OK() && !slices.ContainsFunc(c.each, func(i *checkedIntegration) bool { return len(c.each) > 1 && !i.OK })
}

func (c *checker) run(ctx context.Context, cmd *cobra.Command) {
	defer func() {
		for _, i := range c.each {
			i.parts.Close()
		}
	}()
	configured := c.Try(ctx, "configuration", true, func(context.Context) (string, error) { return c.configure(cmd) })
	if configured && len(c.each) == 0 {
		c.store(ctx, cmd, true)
		return
	}
	var first *pipeline.Parts
	var all []*pipeline.Parts
	for _, i := range c.each {
		all = append(all, i.parts)
		first = all[0]
	}
	clusterID, reached := c.Kafka(ctx, first, configured)
	if len(all) <= 1 {
		c.Topics(ctx, first, reached)
		c.Memory(ctx, reached, all...)
		c.Group(ctx, first, reached)
		c.Table(ctx, first, configured, clusterID, c.writeProbe)
		c.store(ctx, cmd, reached)
		return
	}
	c.Memory(ctx, reached, all...)
	c.store(ctx, cmd, reached)
	var wait sync.WaitGroup // beside each other: what does not answer takes the whole time of a step
	defer wait.Wait()
	for _, i := range c.each {
		wait.Go(func() {
			one := pipeline.Check{Timeout: c.Timeout}
			one.Topics(ctx, i.parts, reached)
			one.Group(ctx, i.parts, reached)
			one.Table(ctx, i.parts, configured, clusterID, c.writeProbe)
			i.OK, i.Steps = one.OK(), one.Steps
		})
	}
}

// store is the step about installed integrations, where there is a store.
func (c *checker) store(ctx context.Context, cmd *cobra.Command, reached bool) {
	if c.deployment != nil {
		app.CheckStore(ctx, &c.Check, c.deployment, reached, version(), commandLogger(cmd, config.Log{Level: "error"}, nil))
	}
}

// configure loads the configuration and makes the parts of the integrations. Settings
// that have no effect are warnings.
func (c *checker) configure(cmd *cobra.Command) (string, error) {
	deployment, err := chosen(cmd, config.FromFlags(cmd.Flags(), os.Environ()))
	if err != nil {
		return "", err
	}
	c.deployment = deployment
	var found, warnings []string
	for _, ignored := range settingsWithoutEffect(deployment) {
		warnings = append(warnings, ignored.String())
	}
	for _, i := range deployment.Integrations {
		if !i.Enabled {
			continue
		}
		cfg := i.Config
		if _, err := app.TraceSettings(cfg); err != nil {
			return "", &usageError{err}
		}
		cfg.Log.Level = "error" // the steps report the rest
		parts, err := pipeline.NewParts(cfg, version(), commandLogger(cmd, cfg.Log, nil), nil)
		if err != nil {
			if len(deployment.Integrations) > 1 {
				err = fmt.Errorf("integration %s: %w", i.Name, err)
			}
			return "", &usageError{err}
		}
		c.each = append(c.each, &checkedIntegration{Integration: i.Name, parts: parts})
		found = append(found, fmt.Sprintf("%s -> %s", strings.Join(cfg.Kafka.Topics, ", "), parts.Client.Table()))
	}
	detail := strings.Join(found, "")
	switch {
	case len(found) == 0 && deployment.Base.Store.Enabled:
		detail = "no integration of a file is enabled; those of the store are not checked here"
	case len(found) == 0:
		return "", &usageError{errors.New("no integration is enabled; take out enabled: false of one")}
	case len(found) > 1:
		detail = fmt.Sprintf("%d integrations", len(found))
	}
	if len(warnings) > 0 {
		return detail, pipeline.Warning(strings.Join(warnings, "\n"))
	}
	return detail, nil
}

// settingsWithoutEffect returns the settings that have no effect. The environment
// can turn tracing on or off.
func settingsWithoutEffect(d *config.Deployment) []config.Ignored {
	inForce := *d
	if traces, err := app.TraceSettings(d.Base); err == nil {
		base := *d.Base
		base.Tracing.Enabled = traces.On
		inForce.Base, inForce.Integrations = &base, slices.Clone(d.Integrations)
		for n, i := range d.Integrations {
			inForce.Integrations[n].Config = i.Config.WithProcess(&base)
		}
	}
	return inForce.Ignored()
}

// stepKeys are the keys that concern a step.
var stepKeys = map[string]string{"kafka": "kafka", "topic": "kafka.topics", "store": "store", "group": "kafka.group", "dead-letter topic": "rejects"}

// next is the command that helps with the first step that failed.
func (c *checker) next(cmd *cobra.Command) string {
	for _, s := range c.Steps {
		if s.Status == pipeline.StepFailed {
			return nextForStep(cmd, s, "")
		}
	}
	for _, i := range c.each {
		for _, s := range i.Steps {
			if s.Status == pipeline.StepFailed {
				return nextForStep(cmd, s, " --integration "+i.Integration)
			}
		}
	}
	return ""
}

// nextForStep ends with an argument that names the integration where it has to.
func nextForStep(cmd *cobra.Command, s pipeline.CheckStep, integration string) string {
	if key := stepKeys[s.Step]; key != "" {
		return "bridge help config " + key
	}
	switch name, _, _ := strings.Cut(s.Step, " "); name {
	case "configuration":
		return nextCommand(cmd, s.Err)
	case "token", "transport", "ingest":
		return nextForService(cmd, s, integration)
	case "columns":
		return "bridge ddl --alter" + configArgument(cmd) + integration
	case "table", "grant":
		return "bridge ddl" + configArgument(cmd) + integration
	}
	return "bridge help troubleshooting"
}

var keyName = regexp.MustCompile(`\bzerobus\.[a-z_.]*[a-z]`)

// nextForService distinguishes a wrong key from a missing grant or table, which are
// fixed with SQL.
func nextForService(cmd *cobra.Command, s pipeline.CheckStep, integration string) string {
	var answer *zerobus.Error
	key := "zerobus.client"
	switch {
	case !errors.As(s.Err, &answer):
	case answer.Status == 0 && answer.RPC == "" && zerobus.IsPermanent(s.Err): // a file, or what the workspace does not name
		key = cmp.Or(keyName.FindString(answer.Remedy), key)
	case answer.Status == 0 && answer.RPC == "" && answer.Op == "insert":
		key = "zerobus.endpoint"
	case answer.Status == 0 && answer.RPC == "", s.Step == "token" && answer.Status == http.StatusNotFound:
		key = "zerobus.workspace_url"
	case answer.Code == "invalid_grant":
		key = "zerobus.token_exchange"
	case answer.Code == "invalid_target":
		key = "zerobus.workspace_id"
	case answer.Status/100 == 2 && answer.Op == "ingest": // an answer that confirms nothing
		key = "zerobus.confirm"
	case answer.Status/100 == 2, answer.Op == "discover":
		key = "zerobus.endpoint"
	case answer.Code == "ENDPOINT_NOT_FOUND":
		key = "zerobus.transport"
	case s.Step != "token", pipeline.Unauthorized(s.Err):
		return "bridge ddl" + configArgument(cmd) + integration
	}
	return "bridge help config " + key
}

func (c *checker) text(b *strings.Builder, look terminal.Style) {
	writeSteps(b, look, c.Steps)
	for _, i := range c.each {
		if len(c.each) > 1 {
			fmt.Fprintf(b, "\n%s\n", look.Strong(i.Integration))
			writeSteps(b, look, i.Steps)
		}
	}
}

func writeSteps(b *strings.Builder, look terminal.Style, steps []pipeline.CheckStep) {
	paints := map[string]func(string) string{pipeline.StepOK: look.Good, pipeline.StepFailed: look.Bad, pipeline.StepWarning: look.Warn, pipeline.StepSkipped: look.Warn}
	for _, s := range steps {
		lines := slices.DeleteFunc([]string{s.Detail, s.Warning, s.Error}, func(line string) bool { return line == "" })
		text := strings.ReplaceAll(plaintext.Visible(strings.Join(lines, "\n")), "\n", "\n                             ")
		fmt.Fprintf(b, "%-19s %s %s\n", s.Step, paints[s.Status](fmt.Sprintf("%-8s", s.Status)), text)
	}
}
