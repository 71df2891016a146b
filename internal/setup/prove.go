package setup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/pipeline"
)

// ProbeID is the message_id of the probe row. It is fixed, so that a set-up that runs again
// finds the row.
const ProbeID = "bridge-setup-probe"

// Bounds of waiting for the probe row.
const (
	visibleWithin = time.Minute
	visibleFirst  = 250 * time.Millisecond
	visibleMost   = 8 * time.Second
)

// prove writes the probe row unless the table has it, waits until it is visible, and runs the
// test query. Without a warehouse it cannot look into the table.
func (s *session) prove(ctx context.Context) {
	check := pipeline.Check{Timeout: s.Timeout + warehouseStart}
	writable := true
	for _, step := range s.Steps {
		if step.Status == pipeline.StepFailed && step.Step != "kafka" && step.Step != "topic" && step.Step != "group" && step.Step != "dead-letter topic" {
			writable = false
		}
	}
	there, sent := false, false
	passed := check.Try(ctx, "probe row", writable, func(ctx context.Context) (string, error) {
		if !s.carries("message_id") {
			return "", pipeline.Warning("not written, since the blueprint fills no column message_id by which a later set-up would find the row")
		}
		if s.Warehouse != nil {
			n, err := s.count(ctx)
			if there = n > 0; err != nil || there {
				return "the table has it already, message_id " + ProbeID, err
			}
		}
		within, cancel := context.WithTimeout(ctx, s.Timeout)
		defer cancel()
		s.progress("writing one row to " + s.Table)
		if err := s.parts.WriteProbe(within, "bridge-setup", "bridge_setup", ProbeID, true); err != nil {
			return "", err
		}
		sent, s.Changed = true, true
		return "acknowledged, message_id " + ProbeID, nil
	})
	switch {
	case s.Warehouse == nil && passed:
		check.Steps = append(check.Steps, pipeline.CheckStep{Step: "test query", Status: pipeline.StepSkipped,
			Detail: s.NoWarehouse + "; to see the row, run in the SQL editor: " + s.Query})
	case passed:
		visible := there || !sent || check.Try(ctx, "visible row", true, s.awaitRow)
		check.Try(ctx, "test query", visible, func(ctx context.Context) (detail string, err error) {
			s.Rows, err = s.query(ctx, s.Query)
			return fmt.Sprintf("%s: %d rows", s.Query, len(s.Rows.Rows)), err
		})
	}
	s.Steps = append(s.Steps, check.Steps...)
}

// awaitRow waits until a query shows the probe row.
func (s *session) awaitRow(ctx context.Context) (string, error) {
	began := time.Now()
	for wait := visibleFirst; ; wait = min(2*wait, visibleMost) {
		n, err := s.count(ctx)
		switch {
		case err != nil:
			return "", err
		case n > 0:
			return fmt.Sprintf("after %v", time.Since(began).Round(100*time.Millisecond)), nil
		case time.Since(began)+wait > visibleWithin:
			return "", fmt.Errorf("the row was acknowledged, and no query shows it after %v; run later: %s", visibleWithin, s.Query)
		}
		s.progress("waiting until the row is visible")
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", ctx.Err()
		}
	}
}

// count returns how many probe rows a query shows.
func (s *session) count(ctx context.Context) (int, error) {
	s.progress(s.starting() + "looking for the probe row")
	rows, err := s.query(ctx, "SELECT count(*) FROM "+s.table.Quoted()+" WHERE message_id = '"+ProbeID+"'")
	if err != nil {
		return 0, err
	}
	n := 0
	if len(rows.Rows) != 1 || len(rows.Rows[0]) != 1 || rows.Rows[0][0] == nil {
		return 0, errors.New("the answer to SELECT count(*) is not one number; look at the table in the SQL editor")
	} else if _, err := fmt.Sscan(*rows.Rows[0][0], &n); err != nil {
		return 0, errors.New("the answer to SELECT count(*) is no number; look at the table in the SQL editor")
	}
	return n, nil
}

// query runs a query as who creates and grants, or as the service principal where the other
// one may not read the table: the service principal may.
func (s *session) query(ctx context.Context, sql string) (databricks.Rows, error) {
	rows, err := s.sql(ctx, s.by, sql)
	if s.lent && denied(err) {
		if again, err := s.sql(ctx, s.own, sql); err == nil {
			return again, nil
		}
	}
	if err != nil && ctx.Err() == nil {
		i := &Item{privilege: "SELECT", on: "TABLE " + s.table.Quoted()}
		err = fmt.Errorf("%s: %w; %s", sql, err, s.remedy(i, err))
	}
	return rows, err
}
