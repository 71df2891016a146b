package manage

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/internal/setup"
	"github.com/datafly/bridge/zerobus"
)

// Bounds of a preparation.
const (
	prepareTimeout = 5 * time.Minute // of all of it; a warehouse that is stopped takes minutes
	readTimeout    = 20 * time.Second
	auditTimeout   = 15 * time.Second
)

// PrepareRequest is the body of an install, and who creates and grants.
type PrepareRequest struct {
	Request
	// WarehouseID runs the statements. Empty: one that runs, else the only one.
	WarehouseID string `json:"warehouse_id,omitempty"`
	// Token is a Databricks token of a principal that may create and grant, for this request
	// alone. Empty: the service principal of config does.
	Token setting.Secret `json:"token,omitempty"`
}

// Prepared is a workspace that was prepared, or with DryRun what would be done. OK: no
// statement has failed or was refused.
type Prepared struct {
	setup.Prepared
	DryRun   bool     `json:"dry_run"`
	Warnings []string `json:"warnings,omitempty"`
}

func prepareWithin(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, prepareTimeout)
}

// apiTerms translate the remedies of the command line.
var apiTerms = strings.NewReplacer("add --warehouse-id with one of", "choose one of", "--warehouse-id", "warehouse_id", "zerobus.", "config.",
	"run setup with --profile or DATABRICKS_TOKEN of a principal that may", "give the token of a principal that may", "the statements above", "the statements",
	"run the same command again", "run it again")

// Prepare creates what an integration needs in its workspace: catalog, schema, table, columns
// and grants. It calls step with each statement before it runs and after. One preparation
// that is no dry run runs at a time. A statement that fails is part of the result.
func (m *Manager) Prepare(ctx context.Context, r PrepareRequest, w Who, dryRun bool, step func(setup.Item)) (Prepared, error) {
	if err := w.complete(); err != nil {
		return Prepared{}, err
	}
	d := m.o.Files()
	dr, err := m.draft(ctx, d, &r.Request)
	if err != nil {
		return Prepared{}, err
	}
	i, f := overlay(d, &dr.record, dr.given) // knows the hosts that secrets may be sent to
	f.checkText("warehouse_id", r.WarehouseID, maxReason, false)
	f.checkText("token", r.Token.Reveal(), maxText, false)
	if len(f) > 0 {
		return Prepared{}, f.refusal()
	}
	within, cancel := m.bounded(ctx)
	defer cancel()
	if dryRun {
		release, err := m.turn(within, checkTimeout)
		if err != nil {
			return Prepared{}, err
		}
		defer release()
	} else if !m.preparing.TryLock() {
		return Prepared{}, &Error{Code: Conflict, Message: "another workspace is being prepared", Remedy: "repeat this when it has ended, which takes 5 minutes at most"}
	} else {
		defer m.preparing.Unlock()
	}
	var sent []setup.Item // the last of each statement
	report, err := setup.Prepare(within, i.Config, setup.Options{Execute: !dryRun, WarehouseID: r.WarehouseID, Running: true, Token: setting.Secret(strings.TrimSpace(r.Token.Reveal())),
		Timeout: readTimeout, Version: m.o.Version, Log: nopLog, Connections: m.o.Connections, Each: func(i setup.Item) {
			i.Error = apiTerms.Replace(i.Error)
			if n := len(sent) - 1; n >= 0 && sent[n].Statement == i.Statement {
				sent[n] = i
			} else {
				sent = append(sent, i)
			}
			step(i)
		}})
	result := Prepared{DryRun: dryRun}
	if len(sent) > 0 && m.o.Store != nil {
		if err := m.notePrepared(ctx, report, sent, w); err != nil {
			result.Warnings = append(result.Warnings, "the audit log has no entry of this: "+err.Error())
		}
	}
	switch {
	case ctx.Err() != nil:
		return Prepared{}, ctx.Err()
	case report == nil:
		return Prepared{}, unprepared(err, r.Token != "")
	}
	result.Prepared = *report
	result.NoWarehouse, result.Error = apiTerms.Replace(report.NoWarehouse), apiTerms.Replace(report.Error)
	if within.Err() != nil && err != nil {
		result.Error = "not complete after 5 minutes, and the warehouse may still start; run it again, it continues here"
	}
	for _, i := range result.Plan {
		i.Error = apiTerms.Replace(i.Error)
		result.OK = result.OK && i.State != setup.Refused
	}
	return result, nil
}

// unprepared is the error of a preparation whose plan could not be made.
func unprepared(err error, lent bool) error {
	message := apiTerms.Replace(err.Error())
	var f faults
	answer, ok := errors.AsType[*databricks.Error](err)
	_, choice := errors.AsType[*setup.WarehouseError](err)
	switch {
	case choice:
		f.add("warehouse_id", "cannot be used: "+message, "choose another")
	case ok && answer.Status == http.StatusUnauthorized && lent:
		f.add("token", "was refused by the workspace: "+message, "create another")
	case zerobus.IsPermanent(err):
		return &Error{Code: ValidationFailed, Message: message, Err: err}
	default:
		return &Error{Code: Unavailable, Message: message, RetryAfter: retryAfter, Err: err}
	}
	return f.refusal()
}

// notePrepared adds the statements that were sent to the audit log. That of an end that was
// not awaited has the state started.
func (m *Manager) notePrepared(ctx context.Context, p *setup.Prepared, sent []setup.Item, w Who) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	statements := make([]any, len(sent))
	for n, i := range sent {
		statements[n] = i.State + ": " + i.Statement
	}
	_, err := m.change(ctx, w, false, func(store.State) ([]store.Write, error) {
		e := w.entry(ActionPrepared, map[string]store.Changed{"workspace_url": {New: p.Workspace}, "table": {New: p.Table}, "run_by": {New: p.RunBy}, "statements": {New: statements}})
		e.ResourceType, e.ResourceID = "workspace", p.Table
		return []store.Write{{Entry: e}}, nil
	})
	return err
}
