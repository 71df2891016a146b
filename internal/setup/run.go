package setup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/databricks"
)

// warehouseStart is what a statement may take on top of Options.Timeout, since a warehouse
// that is stopped starts with it.
const warehouseStart = 10 * time.Minute

// runPlan runs what is open, in order: objects, columns, grants. Columns that were not visible
// before the grants are compared after them.
func (s *session) runPlan(ctx context.Context) error {
	for n := 0; n < len(s.Plan); n++ {
		i := s.Plan[n]
		open := i.open()
		err := s.runItem(ctx, i)
		if open && !i.open() && s.Each != nil {
			s.Each(*i)
		}
		if err != nil {
			return err
		}
		if n == len(s.Plan)-1 && s.hidden {
			within, cancel := context.WithTimeout(ctx, s.Timeout)
			err := s.planColumns(within) // may add an item
			cancel()
			if err != nil {
				return err
			}
			s.hidden = false
		}
	}
	return nil
}

func (s *session) runItem(ctx context.Context, i *Item) error {
	if !i.open() {
		return nil
	}
	sql := strings.TrimSuffix(i.Statement, ";")
	var err error
	switch {
	case s.Warehouse != nil:
		s.started(i, s.starting())
		_, err = s.sql(ctx, s.by, sql)
	case i.grants != nil:
		s.started(i, "")
		within, cancel := context.WithTimeout(ctx, s.Timeout)
		err = s.by.Grant(within, i.kind, i.name, s.Principal, i.grants...)
		cancel()
	case i.State == Unseen: // it may exist
		i.State, i.Error = Refused, "no warehouse, so it was not run"
		return nil
	default:
		return s.paste()
	}
	switch {
	case err == nil:
		i.State, s.Changed = Done, true
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	err = fmt.Errorf("%s: %w; %s", firstLine(i.Statement), err, s.remedy(i, err))
	wasUnseen := i.State == Unseen
	i.State, i.Error = Failed, err.Error()
	if wasUnseen && denied(err) {
		i.State = Refused
		return nil
	}
	return err
}

// started reports that a statement is about to run, and what it waits for.
func (s *session) started(i *Item, first string) {
	s.progress(first + firstLine(i.Statement))
	if s.Each != nil {
		s.Each(Item{Statement: i.Statement, State: Started, Note: strings.TrimSuffix(first, ": ")})
	}
}

// starting is said before a statement that starts the warehouse.
func (s *session) starting() string {
	if s.Warehouse.Running() {
		return ""
	}
	return "warehouse " + s.Warehouse.Name + " starts, which takes minutes: "
}

// sql runs one statement on the warehouse, which is running afterwards.
func (s *session) sql(ctx context.Context, by *databricks.Client, sql string) (databricks.Rows, error) {
	within, cancel := context.WithTimeout(ctx, s.Timeout+warehouseStart)
	defer cancel()
	rows, err := by.Execute(within, s.Warehouse.ID, sql)
	if err == nil {
		s.Warehouse.State = "RUNNING"
	}
	return rows, err
}

// paste is the error of a plan that needs a warehouse where there is none. The statements to
// paste are what to do next.
func (s *session) paste() error {
	var open []string
	for _, i := range s.Plan {
		if i.open() {
			open = append(open, i.Statement)
		}
	}
	s.Next = "Run this in the SQL editor as a principal that may, then run the same command again:\n" + strings.Join(open, "\n")
	return fmt.Errorf("the plan needs a SQL warehouse, and %s; run the statements above in the SQL editor, or set --warehouse-id", s.NoWarehouse)
}

// missing matches the workspace's message about a missing privilege.
var missing = regexp.MustCompile(`(?i)does not have (?:permission |privilege )?([A-Z][A-Z_ ]*[A-Z]) on (metastore|catalog|schema|table)\b(?: ['"` + "`" + `]?([^'"` + "`" + `\s]+))?`)

// remedy is what helps against the error of an item.
func (s *session) remedy(i *Item, err error) string {
	answer, http4xx := errors.AsType[*databricks.Error](err)
	other := ""
	if !s.lent {
		other = "; or run setup with --profile or DATABRICKS_TOKEN of a principal that may"
	}
	switch {
	case http4xx && denied(err) && s.Warehouse != nil:
		return fmt.Sprintf("%s lacks CAN USE on warehouse %s; grant it at SQL Warehouses, %s, Permissions%s", s.RunBy, s.Warehouse.ID, s.Warehouse.Name, other)
	case denied(err) && i.grants != nil:
		return fmt.Sprintf("%s lacks MANAGE on %s; an administrator runs: %s%s", s.RunBy, i.on, strings.TrimSuffix(i.Statement, ";"), other)
	case denied(err):
		privilege, on := i.privilege, i.on
		if m := missing.FindStringSubmatch(err.Error()); m != nil {
			privilege = strings.ReplaceAll(strings.ToUpper(m[1]), "_", " ")
			if on = strings.ToUpper(m[2]); m[3] != "" && on != "METASTORE" {
				on += " " + quoted(strings.Split(strings.TrimRight(m[3], "."), ".")...)
			}
		}
		who := "<principal of the token>"
		if !s.lent {
			who = s.Principal
		}
		return fmt.Sprintf("%s lacks %s on %s; an administrator runs: GRANT %s ON %s TO %s%s", s.RunBy, privilege, on, privilege, on, quoted(who), other)
	case errors.Is(err, context.DeadlineExceeded):
		return "the warehouse did not complete it in time; look at it under SQL Warehouses, then run the same command again"
	case http4xx && answer.Status != 0 && answer.Transient():
		return wait
	case http4xx && (answer.Status == http.StatusNotFound || answer.Status == http.StatusBadRequest) && i.grants == nil:
		return "name a warehouse that exists with --warehouse-id"
	}
	return "fix that, then run the same command again; it continues here"
}
