package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

// Outcomes of a step of a check.
const (
	StepOK      = "ok"
	StepWarning = "warning" // bridge run starts, and something should be fixed
	StepFailed  = "failed"
	StepSkipped = "skipped" // what it needs has failed
)

// CheckStep is what one step of a check found.
type CheckStep struct {
	Step   string `json:"step"`
	Status string `json:"status"`
	Detail string `json:"detail,omitempty"`
	Error  string `json:"error,omitempty"` // ends with the remedy
	// Warning ends with the remedy; one line each if there are several.
	Warning string `json:"warning,omitempty"`

	Err error `json:"-"` // of Error
}

// Check tries, step by step, what integrations depend on. It joins no group, commits
// nothing and creates nothing. It is for one goroutine.
type Check struct {
	Timeout time.Duration // of one step
	Steps   []CheckStep   // in the order in which they were tried
	// Each is called with each step once it was tried. Nil: nothing is.
	Each func(CheckStep)
}

// OK reports whether no step has failed.
func (c *Check) OK() bool {
	return !slices.ContainsFunc(c.Steps, func(s CheckStep) bool { return s.Status == StepFailed })
}

// Warning is the error of a step that passed with a warning.
type Warning string

func (w Warning) Error() string { return string(w) }

// Try runs one step under its own deadline and returns whether it passed; a warning
// passes. Without what the step needs it is skipped.
func (c *Check) Try(ctx context.Context, name string, needs bool, try func(context.Context) (string, error)) bool {
	s := CheckStep{Step: name, Status: StepSkipped}
	switch {
	case ctx.Err() != nil:
		s.Detail = "not tried, since the check was interrupted"
	case !needs:
		s.Detail = "not tried, since " + c.lastFailed() + " failed"
	default:
		within, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		detail, err := try(within)
		s.Status, s.Detail = StepOK, detail
		caution, warned := errors.AsType[Warning](err)
		if err != nil && !warned {
			s.Detail = "" // it describes a success
		}
		switch {
		case err == nil:
		case warned:
			s.Status, s.Warning = StepWarning, string(caution)
		case ctx.Err() != nil: // the error of the step would sound like a fault
			s.Status, s.Error, s.Err = StepFailed, "interrupted", ctx.Err()
		default:
			s.Status, s.Error, s.Err = StepFailed, err.Error(), err
		}
	}
	c.Steps = append(c.Steps, s)
	if c.Each != nil {
		c.Each(s)
	}
	return s.Status == StepOK || s.Status == StepWarning
}

// lastFailed is the reason for a skipped step: steps follow those they need.
func (c *Check) lastFailed() string {
	for _, s := range slices.Backward(c.Steps) {
		if s.Status == StepFailed {
			return s.Step
		}
	}
	return "an earlier step"
}

// Kafka reaches the cluster.
func (c *Check) Kafka(ctx context.Context, p *Parts, configured bool) (clusterID string, reached bool) {
	reached = c.Try(ctx, "kafka", configured, func(ctx context.Context) (_ string, err error) {
		clusterID, err = p.Cluster.ID(ctx)
		return "cluster " + clusterID, err
	})
	return clusterID, reached
}

// Topics checks the source topics.
func (c *Check) Topics(ctx context.Context, p *Parts, reached bool) {
	c.Try(ctx, "topic", reached, func(ctx context.Context) (string, error) {
		topics, err := p.Cluster.Topics(ctx)
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
		events, err := p.Cluster.Readable(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, %d events", strings.Join(found, ", "), events), p.Cluster.CanRead(ctx)
	})
}

// Memory compares what one member may need, given all partitions of the integrations,
// with the limit of the control group that the check runs in.
func (c *Check) Memory(ctx context.Context, reached bool, all ...*Parts) {
	c.Try(ctx, "memory", reached, func(ctx context.Context) (string, error) {
		var plans []memory.Plan
		for _, p := range all {
			brokers, partitions, err := p.Cluster.Size(ctx)
			if err != nil {
				return "", err
			}
			plans = append(plans, MemoryPlan(p.settings, brokers, partitions))
		}
		plan, cgroup := memory.Total(slices.Values(plans)), memory.CgroupLimit()
		if err := plan.Fits(cgroup); err != nil {
			return "", Warning(err.Error())
		}
		limit := "no memory limit here"
		if cgroup > 0 {
			limit = fmt.Sprintf("the limit here is %d MiB", memory.MiB(cgroup))
		}
		return fmt.Sprintf("up to %d MiB for a member with all %d partitions; %s", memory.MiB(plan.Bound()), plan.Partitions, limit), nil
	})
}

// Group checks the consumer group and the dead-letter topics.
func (c *Check) Group(ctx context.Context, p *Parts, reached bool) {
	c.Try(ctx, "group", reached, func(ctx context.Context) (string, error) {
		text := p.settings.Kafka.Group + " may be joined and committed for"
		if at, err := p.Cluster.Commits(ctx, p.settings.Kafka.Group, p.settings.Kafka.Topics); err == nil && len(at) > 0 {
			text += "; it has offsets, and continues from them"
		}
		return text, p.Cluster.CanJoin(ctx)
	})
	c.Try(ctx, "dead-letter topic", reached, func(ctx context.Context) (string, error) {
		topics, err := p.Cluster.DeadLetterTopics(ctx)
		if err != nil {
			return "", err
		}
		if len(topics) == 0 {
			return "not used: rejects.policy is " + p.settings.Rejects.Policy, nil
		}
		var found []string
		for _, t := range topics {
			if t.Exists {
				found = append(found, t.Name+" exists and may be written to")
			} else {
				found = append(found, t.Name+" will be created by bridge run, which may")
			}
		}
		return strings.Join(found, ", "), p.Cluster.CanReject(ctx, topics)
	})
}

// Table runs the steps about the workspace, in this order: token, transport, ingest, table, one
// for each privilege ("grant USE CATALOG", "grant USE SCHEMA", "grant SELECT", "grant MODIFY"),
// columns. With write it adds "write probe", one row, which stays in the table. A missing
// privilege fails its own step and the one that the service refuses for it: token, transport or
// ingest.
func (c *Check) Table(ctx context.Context, p *Parts, configured bool, clusterID string, write bool) {
	g, unauthorized := &grants{p: p, seen: map[databricks.Kind]*securable{}}, false
	token := c.Try(ctx, "token", configured, func(ctx context.Context) (string, error) {
		err := p.Client.Token(ctx)
		unauthorized = Unauthorized(err)
		at := p.Client.State().TokenExpiresAt
		if err != nil || at.IsZero() {
			return "", g.explain(ctx, err)
		}
		return "expires " + at.UTC().Format(time.RFC3339), nil
	})
	transport := c.Try(ctx, "transport", token, func(ctx context.Context) (string, error) {
		if err := p.Client.Decide(ctx); err != nil {
			return "", g.explain(ctx, err)
		}
		s := p.Client.State()
		var ignored []string
		for _, i := range p.settings.IgnoredWith(s.Transport) {
			ignored = append(ignored, i.String())
		}
		detail := s.Transport + " to " + s.Endpoint + ": " + s.TransportReason
		if len(ignored) > 0 {
			return detail, Warning(strings.Join(ignored, "\n"))
		}
		return detail, nil
	})
	ingest := c.Try(ctx, "ingest", transport, func(ctx context.Context) (string, error) {
		return p.Client.Table().String() + " takes batches", g.explain(ctx, p.Client.Reachable(ctx))
	})
	known := token || unauthorized // a token for Unity Catalog depends on no grant
	table := c.Try(ctx, "table", known, func(ctx context.Context) (string, error) { return p.describeTable(ctx, g) })
	for _, need := range zerobus.Needed {
		for _, privilege := range need.Privileges {
			c.Try(ctx, "grant "+privilege, known && g.exists(need.On), func(ctx context.Context) (string, error) {
				return g.check(ctx, need.On, privilege, ingest)
			})
		}
	}
	columns := c.Try(ctx, "columns", token && table, func(ctx context.Context) (string, error) {
		table, unseen, err := ReadColumns(ctx, p.Client)
		if err != nil {
			return "", err
		}
		m, err := p.Schema.SetTable(clusterID, table)
		if err != nil {
			return "", err
		}
		if unseen != nil {
			return "the blueprint has " + ColumnsText(m), Warning(UnreadColumns(g.explain(ctx, unseen)))
		}
		return fmt.Sprintf("the blueprint's %s fit the table's %d", ColumnsText(m), len(table)), p.Client.CheckColumns(ctx)
	})
	if write {
		c.Try(ctx, "write probe", ingest && columns, p.probeRow)
	}
}

// describeTable is the step about the table as a whole: that it exists, its kind, and what
// limits writing to it.
func (p *Parts) describeTable(ctx context.Context, g *grants) (string, error) {
	columns, unseen, err := ReadColumns(ctx, p.Client)
	if _, unwritable := errors.AsType[*zerobus.UnwritableTable](err); unwritable { // other errors are those of the step columns
		return "", err
	}
	s := g.look(ctx, databricks.Table)
	switch {
	case unseen != nil:
		if err := g.findAbsent(ctx); err != nil {
			return "", err
		}
		return "", Warning("what kind of table it is cannot be read: " + g.explain(ctx, unseen).Error())
	case s.err != nil:
		return "", Warning("what kind of table it is cannot be read: " + s.err.Error() + "; run bridge check again")
	}
	detail := strings.TrimSpace(s.Type + " " + s.Format)
	var warnings []string
	if s.DefaultStorage {
		warnings = append(warnings, "it is in default storage, which Zerobus does not take in every region and workspace yet; "+
			"ask Databricks about yours, or set zerobus.table to a managed Delta table outside default storage")
	}
	if len(s.Partitions) > 0 {
		warnings = append(warnings, "it is partitioned by "+strings.Join(s.Partitions, ", ")+", and Zerobus writes to at most 1,000 partitions in any 5 seconds; "+
			"use a table that is partitioned by a column of few values, such as a date, or one with CLUSTER BY")
	}
	switch rescue, err := p.Client.RescueColumn(ctx, columns); {
	case err != nil:
		detail += "; whether it has a rescue column cannot be read: " + err.Error()
	case rescue != "" && p.Client.State().Transport == zerobus.TransportGRPC && p.settings.Zerobus.RecordFormat == zerobus.FormatProtobuf:
		warnings = append(warnings, "its rescue column "+rescue+" takes nothing from protobuf rows, so fields that do not fit the table are refused; "+
			"set zerobus.record_format to auto")
	case rescue != "":
		detail += "; rows go as JSON, and the rescue column " + rescue + " takes fields that do not fit"
	}
	if len(warnings) > 0 {
		return detail, Warning(strings.Join(warnings, "\n"))
	}
	return detail, nil
}

// probeRow writes one row.
func (p *Parts) probeRow(ctx context.Context) (string, error) {
	id := fmt.Sprintf("bridge-check-%d", time.Now().UnixNano())
	if err := p.WriteProbe(ctx, p.settings.Kafka.Topics[0], "bridge_check", id, false); err != nil {
		return "", err
	}
	return "one row written, message_id " + id + p.confirmation(), nil
}

// WriteProbe maps a plain track event as a pipeline does, and writes its row. If the blueprint
// makes no row of it, which it may be made for, the error is a Warning and nothing is written;
// with find also if the row would not have the message_id to find it by.
func (p *Parts) WriteProbe(ctx context.Context, topic, name, messageID string, find bool) error {
	now := time.Now().UTC()
	rec := &kgo.Record{Topic: topic, Timestamp: now, Value: fmt.Appendf(nil, `{"type":"track","event":%q,"message_id":%q,"timestamp":%q}`, name, messageID, now.Format(time.RFC3339Nano))}
	events := p.Schema.Current().Explain(rec, [16]byte{})
	rows, version := p.Schema.MapRows(rec)
	if len(rows) != 1 || len(events) != 1 {
		return Warning("not written, since the blueprint maps a plain track event to no row" + outcomes(events) + "; ignore this if it filters or drops such events")
	}
	if find && !slices.ContainsFunc(events[0].Columns, func(c mapping.ExplainedColumn) bool {
		return c.Name == "message_id" && c.Value == strconv.Quote(messageID)
	}) {
		return Warning("not written, since the blueprint puts another value in message_id, by which a later set-up would not find the row")
	}
	if _, err := p.Client.Write(ctx, version, rows); err != nil {
		if s := p.Client.State(); s.Name != zerobus.Ready {
			return fmt.Errorf("writing one row: %s; %s", s.Reason, s.Remedy)
		}
		return fmt.Errorf("writing one row: %w", err)
	}
	return nil
}

// outcomes are why events became no row, in brackets.
func outcomes(events []mapping.Explained) string {
	var all []string
	for _, e := range events {
		all = append(all, strings.TrimSuffix(e.Outcome+" "+e.Code+": "+e.Reason, ": "))
	}
	return " (" + strings.Join(all, ", ") + ")"
}

// confirmation returns the form in which the workspace confirmed the row, and the
// setting for it. The other transports have one form.
func (p *Parts) confirmation() string {
	switch form := p.Client.State().Confirmation; {
	case p.Client.State().Transport != zerobus.TransportWorkspace || form == "":
		return ""
	case form == zerobus.ConfirmedWithoutCount:
		return "; the workspace confirms without a count of rows, which needs zerobus.confirm: lenient"
	case p.settings.Zerobus.Confirm == zerobus.ConfirmLenient:
		return "; the workspace confirms with the count of rows, so zerobus.confirm: strict would do"
	}
	return "; the workspace confirms with the count of rows"
}

// ColumnsText counts the columns of the rows and names the optional ones that are
// left out.
func ColumnsText(m *mapping.Mapping) string {
	text := fmt.Sprintf("%d columns", len(m.Columns()))
	if left := m.OmittedColumns(); len(left) > 0 {
		text += fmt.Sprintf(" (without the optional %s)", strings.Join(left, ", "))
	}
	return text
}

// UnreadColumns is the warning that the blueprint is not compared with the table; it
// names the missing grants.
func UnreadColumns(unreadable error) string {
	return "the table's columns cannot be read, so the blueprint is not compared with them: " + unreadable.Error()
}
