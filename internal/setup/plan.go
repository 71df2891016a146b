package setup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
)

// States of an item of the plan.
const (
	Exists  = "exists"
	WillRun = "will run"
	Unseen  = "not visible" // to who creates and grants: it runs, and a refusal is no error as long as the check passes
	Started = "started"     // for Options.Each; also of a statement whose end was not awaited
	Done    = "done"
	Refused = "refused" // was Unseen
	Failed  = "failed"
)

// Item is one statement of the plan.
type Item struct {
	Statement string `json:"statement"`
	State     string `json:"state"`
	Note      string `json:"note,omitempty"` // what it waits for
	Error     string `json:"error,omitempty"`

	kind   databricks.Kind
	name   string   // in full
	grants []string // privileges, if it is a GRANT
	// What its principal needs: a privilege on a securable, as SQL names the two.
	privilege, on string
}

// open reports whether the item is to run.
func (i *Item) open() bool { return i.State == WillRun || i.State == Unseen }

// plan compares what is to be with what Unity Catalog shows to who creates and grants.
func (s *session) plan(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	s.progress("reading what Unity Catalog shows of " + s.Table)
	t := s.table
	under := [...]string{"METASTORE", "CATALOG " + t.QuotedOf(databricks.Catalog), "SCHEMA " + t.QuotedOf(databricks.Schema), "TABLE " + t.Quoted()}
	state := Exists
	for n, statement := range zerobus.Creates(t, s.columns) {
		kind := zerobus.Needed[n].On
		i := &Item{Statement: statement, kind: kind, name: t.Of(kind), privilege: "CREATE " + strings.ToUpper(string(kind)), on: under[n]}
		if state != WillRun { // else it cannot exist
			var err error
			if state, err = s.existing(within, kind, i.name); err != nil {
				return err
			}
		}
		i.State = state
		s.Plan = append(s.Plan, i)
	}
	if s.Plan[2].State == Exists {
		// The service principal may not see it yet, and grants on a view would be of no use.
		if held, err := s.by.Securable(within, databricks.Table, s.Table); err == nil {
			if err := t.Writable(held.Type, held.Format); err != nil {
				return err
			}
		}
		if err := s.planColumns(within); err != nil {
			return err
		}
	}
	for n, need := range zerobus.Needed {
		i := &Item{Statement: t.Grant(need.On, s.Principal, need.Privileges...), kind: need.On, name: t.Of(need.On), grants: need.Privileges,
			privilege: "MANAGE", on: under[n+1], State: WillRun}
		if s.Plan[n].State != WillRun {
			var err error
			if i.State, err = s.granted(within, i); err != nil {
				return err
			}
		}
		s.Plan = append(s.Plan, i)
	}
	if s.DedupeView {
		view := zerobus.DedupeName(t)
		i := &Item{Statement: strings.TrimSpace(zerobus.DedupeView(t)), kind: databricks.Table, name: view.String(), State: WillRun,
			privilege: "CREATE TABLE", on: under[2]}
		if !s.carries("message_id") || !s.carries("event_timestamp") {
			return &UsageError{errors.New("--dedupe-view needs the columns message_id and event_timestamp, and the blueprint does not fill both; leave it out")}
		}
		if s.Plan[1].State != WillRun { // else it cannot exist
			var err error
			if i.State, err = s.existing(within, i.kind, i.name); err != nil {
				return err
			}
		}
		if held, err := s.by.Securable(within, i.kind, i.name); err == nil && !strings.HasSuffix(held.Type, "VIEW") {
			return fmt.Errorf("%s, the name of the view of --dedupe-view, is taken by a table (%s); rename that table, or leave --dedupe-view out", i.name, held.Type)
		}
		s.Plan = append(s.Plan, i)
	}
	return s.chooseWarehouse(ctx)
}

func quoted(parts ...string) string {
	escaped := make([]string, len(parts))
	for n, part := range parts {
		escaped[n] = "`" + strings.ReplaceAll(part, "`", "``") + "`"
	}
	return strings.Join(escaped, ".")
}

// existing returns the state of what is to be created.
func (s *session) existing(ctx context.Context, kind databricks.Kind, name string) (string, error) {
	exists, err := s.by.Exists(ctx, kind, name)
	switch {
	case denied(err):
		return Unseen, nil
	case err != nil:
		return "", s.unreadable("looking for "+string(kind)+" "+name, err)
	case exists:
		return Exists, nil
	}
	return WillRun, nil
}

// granted returns the state of a GRANT. Privileges on the table have to be granted on the
// table itself.
func (s *session) granted(ctx context.Context, i *Item) (string, error) {
	held, err := s.by.Effective(ctx, i.kind, i.name, s.Principal)
	if answer, ok := errors.AsType[*databricks.Error](err); denied(err) || ok && answer.Status == http.StatusNotFound {
		return Unseen, nil
	} else if err != nil {
		return "", s.unreadable("reading the grants on "+string(i.kind)+" "+i.name, err)
	}
	for _, privilege := range i.grants {
		if !slices.ContainsFunc(held, func(p databricks.Privilege) bool {
			return (p.Name == privilege || p.Name == databricks.AllPrivileges) && (p.InheritedFrom == "" || i.kind != databricks.Table)
		}) {
			return WillRun, nil
		}
	}
	return Exists, nil
}

// wait is the remedy of a workspace that is busy or down.
const wait = "the workspace is busy or not available, so run the same command again later; it continues here"

// unreadable adds what helps to an error of the workspace.
func (s *session) unreadable(what string, err error) error {
	remedy := "check zerobus.workspace_url, and that it is the address of a workspace with Unity Catalog"
	switch answer, ok := errors.AsType[*databricks.Error](err); {
	case ok && answer.Status == http.StatusUnauthorized && s.Token != "":
		remedy = "the token is wrong or expired; create another"
	case ok && answer.Status == http.StatusUnauthorized && s.lent:
		remedy = "the token of " + strings.TrimPrefix(s.RunBy, "the principal of ") + " is wrong or expired; create another"
	case ok && answer.Status != 0 && answer.Transient():
		remedy = wait
	}
	return fmt.Errorf("%s: %w; %s", what, err, remedy)
}

// planColumns adds the statement for columns that the table lacks. The service principal reads
// them, as the bridge will.
func (s *session) planColumns(ctx context.Context) error {
	have, unreadable, err := pipeline.ReadColumns(ctx, s.parts.Client)
	if err != nil {
		return err
	}
	s.hidden = unreadable != nil // the grants that it lacks are part of the plan
	for line := range strings.Lines(zerobus.AlterDiff(s.table, s.columns, have)) {
		// Of other differences, the check names the remedies.
		if line = strings.TrimSpace(line); !s.hidden && strings.HasPrefix(line, "ALTER TABLE "+s.table.Quoted()+" ADD COLUMNS ") {
			s.Plan = append(s.Plan, &Item{Statement: line, State: WillRun, kind: databricks.Table, name: s.Table, privilege: "MODIFY", on: "TABLE " + s.table.Quoted()})
		}
	}
	return nil
}

// WarehouseError is behind an error of Options.WarehouseID: it names none that can be used, or
// has to.
type WarehouseError struct{ Err error }

// Error is that of Err.
func (e *WarehouseError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *WarehouseError) Unwrap() error { return e.Err }

// chooseWarehouse finds the warehouse for statements and the test query. Nothing starts it yet.
func (s *session) chooseWarehouse(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if s.WarehouseID != "" {
		w, err := s.by.Warehouse(within, s.WarehouseID)
		if err != nil {
			return &WarehouseError{fmt.Errorf("looking for --warehouse-id %s: %w; name a warehouse that %s may use, or leave it out", s.WarehouseID, err, s.RunBy)}
		}
		s.Warehouse = &w
		return nil
	}
	all, err := s.by.Warehouses(within)
	var names []string
	for _, w := range all {
		names = append(names, fmt.Sprintf("%s (%s, %s)", w.ID, w.Name, strings.TrimSuffix(strings.ToLower(w.State)+", "+w.Size, ", ")))
	}
	s.Warehouses = all
	list := strings.Join(names, ", ")
	running := slices.IndexFunc(all, databricks.Warehouse.Running)
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		s.NoWarehouse = "the warehouses cannot be listed: " + err.Error()
	case len(all) == 0:
		s.NoWarehouse = s.RunBy + " may use no SQL warehouse"
	case len(all) == 1:
		s.Warehouse = &all[0]
	case s.Running && running >= 0:
		s.Warehouse = &all[running]
	case !s.Execute:
		s.NoWarehouse = "there are several warehouses; add --warehouse-id with one of " + list
	case s.Ask == nil:
		return &UsageError{&WarehouseError{errors.New("there are several warehouses; add --warehouse-id with one of " + list)}}
	default:
		id, err := s.Ask(ctx, "Warehouse, one of "+list, false)
		if err != nil {
			return err
		}
		n := slices.IndexFunc(all, func(w databricks.Warehouse) bool { return w.ID == strings.TrimSpace(id) })
		if n < 0 {
			return &UsageError{fmt.Errorf("there is no warehouse %q; use one of %s", strings.TrimSpace(id), list)}
		}
		s.Warehouse = &all[n]
	}
	return nil
}
