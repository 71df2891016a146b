// Package setup leads from the six fields of Signal's integration page to a table with a row:
// a plan of SQL statements, a configuration file, the statements, the checks of bridge check,
// and one probe row. Each step is safe to repeat, so an interrupted set-up continues where it
// was.
package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/zerobus"
)

// Options say what to set up, and for whom.
type Options struct {
	// Load is where the configuration comes from; its keys may be missing. Its Env also names
	// the principal that creates and grants: DATABRICKS_TOKEN, DATABRICKS_CONFIG_PROFILE.
	Load config.Options
	// Ask asks a person, without echo if secret. Nil: there is nobody to ask.
	Ask func(ctx context.Context, question string, secret bool) (string, error)
	// Progress is called before what may take long. Nil is allowed.
	Progress func(line string)
	// Execute runs the plan. Without it nothing is changed.
	Execute bool
	// WarehouseID runs the statements. Empty: the only one that there is.
	WarehouseID string
	// Running prefers a warehouse that runs where there are several and WarehouseID is empty.
	Running bool
	// Token is that of the principal that creates and grants, before Profile and the
	// environment. It goes to the workspace alone.
	Token setting.Secret
	// Each is called with a statement before it runs, in the state Started, and after. Nil is
	// allowed.
	Each func(Item)
	// Connections to workspaces are shared with others. Nil: the set-up has its own.
	Connections *zerobus.Connections
	// Profile in Home/.databrickscfg is the principal that creates and grants. Empty: that of
	// the environment, else the service principal.
	Profile string
	Home    string
	// DedupeView also creates the view that shows each message_id once.
	DedupeView bool
	// File is the configuration file to write.
	File string
	// Timeout bounds one step, besides the start of a warehouse.
	Timeout time.Duration
	Version string // of the bridge
	Log     *zap.Logger
}

// UsageError is a mistake in the options or the configuration; nothing was started.
type UsageError struct{ Err error }

// Error is that of Err.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *UsageError) Unwrap() error { return e.Err }

// Prepared is what a set-up found in the workspace, and did there.
type Prepared struct {
	OK        bool   `json:"ok"`
	Executed  bool   `json:"executed"`
	Changed   bool   `json:"changed"` // anything: a file, an object, a grant, a row
	Workspace string `json:"workspace_url"`
	Table     string `json:"table"`
	Principal string `json:"principal"` // the service principal that the bridge runs as
	RunBy     string `json:"run_by"`    // who creates and grants
	// Warehouse runs the statements; nil: none does, and NoWarehouse is why.
	Warehouse   *databricks.Warehouse  `json:"warehouse,omitempty"`
	NoWarehouse string                 `json:"no_warehouse,omitempty"`
	Warehouses  []databricks.Warehouse `json:"warehouses,omitempty"` // those to choose from, unless Options.WarehouseID names one
	Plan        []*Item                `json:"plan"`
	Error       string                 `json:"error,omitempty"` // why the set-up ended early, with the remedy
}

// Report is what a set-up found and did.
type Report struct {
	Prepared
	Config ConfigFile           `json:"config"`
	Steps  []pipeline.CheckStep `json:"steps"`
	Query  string               `json:"query"` // that shows the newest rows
	Rows   databricks.Rows      `json:"result"`
	Next   string               `json:"next"` // what to do next
}

// session is one set-up. It is for one goroutine.
type session struct {
	Options
	cfg     *config.Config
	parts   *pipeline.Parts
	table   zerobus.TableName
	columns []zerobus.Column   // that rows carry
	own     *databricks.Client // as the service principal
	by      *databricks.Client // as who creates and grants
	lent    bool               // by is another principal
	hidden  bool               // the table's columns were not visible for the plan
	*Report
}

// Unplanned is the report of a set-up whose plan could not be made.
func Unplanned(err error) *Report {
	r := &Report{Prepared: Prepared{Plan: []*Item{}}, Steps: []pipeline.CheckStep{}}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// Run makes the plan and, with Options.Execute, runs it. The report is nil where the plan
// could not be made. An error beside a report is why the set-up ended early.
func Run(ctx context.Context, o Options) (*Report, error) {
	s := &session{Options: o, Report: Unplanned(nil)}
	s.Executed = o.Execute
	if err := s.configure(ctx); err != nil {
		return nil, err
	}
	defer s.parts.Close()
	if err := s.makePlan(ctx); err != nil {
		return nil, err
	}
	if !o.Execute {
		s.OK, s.Next = true, "Nothing was changed. Add --execute to run the plan."
		return s.Report, nil
	}
	err := s.execute(ctx)
	if s.OK = err == nil; !s.OK {
		s.Error = err.Error()
	}
	if !s.OK && ctx.Err() != nil {
		s.Next = "Run the same command again; it continues where it was."
	}
	return s.Report, err
}

// Prepare makes the plan for a configuration that is valid and, with Options.Execute, runs
// it. It touches no file, and writes no row. The result is that of a Run: nil where the plan
// could not be made.
func Prepare(ctx context.Context, cfg *config.Config, o Options) (_ *Prepared, err error) {
	s := &session{Options: o, Report: Unplanned(nil), cfg: cfg}
	s.Executed = o.Execute
	if s.parts, err = pipeline.NewParts(cfg, o.Version, o.Log, o.Connections); err != nil {
		return nil, &UsageError{err}
	}
	defer s.parts.Close()
	if err := s.describe(); err != nil {
		return nil, &UsageError{err}
	}
	if err := s.makePlan(ctx); err != nil {
		return nil, err
	}
	if o.Execute {
		err = s.runPlan(ctx)
	}
	if s.OK = err == nil; !s.OK {
		s.Error = err.Error()
	}
	return &s.Prepared, err
}

// makePlan gets tokens, and compares what is to be with what exists.
func (s *session) makePlan(ctx context.Context) error {
	if err := s.authenticate(ctx); err != nil {
		return err
	}
	return s.plan(ctx)
}

// configure loads the configuration and compiles the blueprint. It does no I/O but files.
func (s *session) configure(ctx context.Context) (err error) {
	if s.cfg, err = s.fields(ctx); err != nil {
		return err
	}
	s.parts, err = pipeline.NewParts(s.cfg, s.Version, s.Log, s.Connections)
	if !hasCredential(&s.cfg.Zerobus) {
		if err == nil {
			s.parts.Close()
		}
		err = errors.Join(&setting.Problem{Key: secretKey, Rule: "is required", Remedy: "set it as " + setting.EnvName(secretKey) + ", or name a file that holds it with --client-secret-file"}, err)
	}
	if err != nil {
		return &UsageError{err}
	}
	if err = s.describe(); err == nil {
		err = s.planFile()
	}
	if err != nil {
		s.parts.Close()
		return &UsageError{err}
	}
	s.Query = "SELECT * FROM " + s.table.Quoted() + " LIMIT 10"
	if s.carries("event_timestamp") {
		s.Query = "SELECT * FROM " + s.table.Quoted() + " ORDER BY event_timestamp DESC LIMIT 10"
	}
	return nil
}

// describe names the table, its columns and the principal. It compiles the blueprint.
func (s *session) describe() error {
	m, err := pipeline.CompileOffline(s.cfg, false)
	if err != nil {
		return err
	}
	z := s.cfg.Zerobus
	s.table, s.columns = s.parts.Client.Table(), pipeline.RowColumns(m)
	s.Table, s.Workspace, s.Principal = s.table.String(), z.WorkspaceURL, z.ClientID
	return nil
}

func (s *session) carries(column string) bool {
	return slices.ContainsFunc(s.columns, func(c zerobus.Column) bool { return c.Name == column })
}

// authenticate makes sure that both principals get a token.
func (s *session) authenticate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	s.progress("asking " + s.Workspace + " for a token")
	s.own = s.parts.Client.Workspace()
	if _, err := s.own.Token(ctx); err != nil {
		return err
	}
	by, name, err := s.principal()
	if err != nil {
		return &UsageError{err}
	}
	s.by, s.lent, s.RunBy = by, name != "", cmp.Or(name, "the service principal "+s.Principal)
	_, err = s.by.Token(ctx)
	return err
}

func (s *session) progress(line string) {
	if s.Progress != nil {
		s.Progress(line)
	}
}

// execute runs the plan, checks the connections and proves a row.
func (s *session) execute(ctx context.Context) error {
	if err := s.writeFile(); err != nil {
		return err
	}
	if err := s.runPlan(ctx); err != nil {
		return err
	}
	if s.runCheck(ctx); ctx.Err() == nil {
		s.prove(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	failed := slices.ContainsFunc(s.Steps, func(step pipeline.CheckStep) bool { return step.Status == pipeline.StepFailed })
	var refused []error
	for _, i := range s.Plan {
		if i.State == Refused && failed {
			refused = append(refused, errors.New(i.Error))
		}
	}
	s.Next = "bridge run --config " + s.Config.Path
	if len(s.cfg.Kafka.Topics) == 0 {
		s.Next = fmt.Sprintf("Set kafka.brokers and kafka.topics in %s, then: %s", s.Config.Path, s.Next)
	}
	if failed {
		s.Next = "Fix what failed, then run the same command again; it continues where it was."
		return errors.Join(append(refused, errors.New("a step failed"))...)
	}
	return nil
}

// runCheck does what bridge check does. Without topics, Kafka is skipped.
func (s *session) runCheck(ctx context.Context) {
	s.progress("checking what bridge run depends on")
	clusterID := ""
	if len(s.cfg.Kafka.Topics) > 0 {
		check := pipeline.Check{Timeout: s.Timeout}
		id, reached := check.Kafka(ctx, s.parts, true)
		clusterID = id
		check.Topics(ctx, s.parts, reached)
		check.Memory(ctx, reached, s.parts)
		check.Group(ctx, s.parts, reached)
		s.Steps = append(s.Steps, check.Steps...)
	} else {
		s.Steps = append(s.Steps, pipeline.CheckStep{Step: "kafka", Status: pipeline.StepSkipped, Detail: "not tried, since kafka.topics is not set"})
	}
	check := pipeline.Check{Timeout: s.Timeout}
	check.Table(ctx, s.parts, true, clusterID, false)
	s.Steps = append(s.Steps, check.Steps...)
}

// firstLine is a statement in a message.
func firstLine(sql string) string {
	line, _, more := strings.Cut(sql, "\n")
	if more {
		line += "..."
	}
	return strings.TrimSuffix(line, ";")
}
