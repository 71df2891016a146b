package manage

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/zerobus"
)

// Actions of audit entries.
const (
	ActionInstalled = "integration.installed"
	ActionUpdated   = "integration.updated"
	ActionEnabled   = "integration.enabled"
	ActionDisabled  = "integration.disabled"
	ActionRemoved   = "integration.removed"
	ActionImported  = "integration.imported"
	ActionResealed  = "integration.resealed"
	ActionReplayed  = "integration.replayed"
	ActionRedriven  = "integration.redriven"
	ActionPrepared  = "workspace.prepared"
)

const resourceType = "integration"

// change runs decide under the fence of the store and writes what it returns, or with
// dryRun only runs it.
func (m *Manager) change(ctx context.Context, w Who, dryRun bool, decide func(store.State) ([]store.Write, error)) (store.State, error) {
	if m.o.Store == nil {
		return store.State{}, storeless()
	}
	if !dryRun {
		state, err := m.o.Store.Update(ctx, w.RequestID, decide)
		if err == nil && m.o.Runtime != nil {
			m.o.Runtime.Changed()
		}
		return state, refused(ctx, err)
	}
	state, err := m.o.Store.Read(ctx)
	if err == nil && state.Problem != nil {
		err = unavailable(state.Problem)
	}
	if err == nil {
		_, err = decide(state)
	}
	return state, refused(ctx, err)
}

// complete checks who asks, and makes a request id where there is none.
func (w *Who) complete() error {
	var f faults
	if w.RequestID == "" {
		w.RequestID = "req_" + strings.ToLower(rand.Text())
	}
	w.By = plaintext.ShortLine(w.By, maxReason)
	f.checkText("request_id", w.RequestID, maxReason, false)
	f.checkText("reason", w.Reason, 4*maxReason, false)
	return f.refusal()
}

func (w Who) entry(action string, changed map[string]store.Changed) store.Entry {
	return store.Entry{Action: action, By: w.By, ResourceType: resourceType, Changes: changed, Reason: w.Reason, RequestID: w.RequestID}
}

// newID returns the id of an integration.
func newID() string { return "int_" + strings.ToLower(rand.Text()[:12]) }

// patch returns a request as a patch of a record that has nothing yet.
func (r *Request) patch() *Patch {
	on := r.Enabled == nil || *r.Enabled
	p := &Patch{Name: &r.Name, Config: r.Config, Source: r.Source, Variant: &r.Variant, Mapping: r.Mapping, Rejects: r.Rejects, Delivery: r.Delivery, Enabled: &on}
	if r.Blueprint != "" {
		p.Blueprint = &r.Blueprint
	}
	return p
}

// draft validates a request.
func (m *Manager) draft(ctx context.Context, d *config.Deployment, r *Request) (draft, error) {
	var f faults
	f.checkName(r.Name)
	before := store.Record{ID: newID(), Slug: r.Slug, Vendor: catalog.Key, DeliveryMode: serverSide, Enabled: true}
	if r.DeliveryMode != "" {
		before.DeliveryMode = r.DeliveryMode
	}
	if before.Slug == "" {
		before.Slug = nameOf(r.Name)
		if before.Slug == "" && len(f) == 0 {
			f.add("slug", "cannot be derived from the name, which has none of a-z and 0-9", "give a slug of 1 to 40 of a-z, 0-9 and hyphens")
		}
	}
	if len(r.ConsentCategories) > 0 {
		if _, given := r.Mapping["require_consent"]; given && !same(r.Mapping["require_consent"], r.ConsentCategories) {
			f.add("consent_categories", "contradict mapping.require_consent", "give one of the two")
		}
		set(&before.Mapping, "require_consent", slices.Clone(r.ConsentCategories))
	}
	vendors, _ := m.Catalog()
	dr, more := apply(d, vendors, &before, r.patch())
	for n := range more {
		switch {
		case more[n].Field == "name" && len(f) > 0: // reported
			continue
		case more[n].Field == "name" && r.Slug != "":
			more[n].Field = "slug"
		case more[n].Field == "source.topics" && more[n].Message == "is required":
			more[n].Remedy = m.topicsRemedy(ctx, d)
		}
		f = append(f, more[n])
	}
	return dr, f.refusal()
}

// topicsTimeout bounds the look-up of topics for a remedy.
const topicsTimeout = 5 * time.Second

// topicsRemedy names topics of the cluster.
func (m *Manager) topicsRemedy(ctx context.Context, d *config.Deployment) string {
	const remedy, most = "name the topics to read", 20
	cl, err := pipeline.NewKafkaClient(d.Base, m.o.Version, nopLog)
	if err != nil {
		return remedy
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, topicsTimeout)
	defer cancel()
	found, err := cl.Metadata(ctx)
	if err != nil {
		return remedy + "; those of the cluster cannot be listed: " + err.Error()
	}
	var names []string
	for name, t := range found {
		if own := d.Base.Store.Topic; !t.IsInternal && name != own && name != own+"-audit" && !strings.Contains(name, "-dlq") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return remedy + "; the cluster has none yet"
	}
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return remedy + "; the cluster has " + strings.Join(names, ", ")
}

// Install installs an integration.
func (m *Manager) Install(ctx context.Context, r Request, w Who, dryRun bool) (Result, error) {
	if err := w.complete(); err != nil {
		return Result{}, err
	}
	d := m.o.Files()
	dr, err := m.draft(ctx, d, &r)
	if err != nil {
		return Result{}, err
	}
	slug := dr.record.Slug
	var fresh store.Record
	var changed map[string]store.Changed
	state, err := m.change(ctx, w, dryRun, func(state store.State) ([]store.Write, error) {
		if find(state, slug) != nil || fileOf(d, slug) != nil {
			return nil, &Error{Code: NameTaken, Message: "there is an integration " + slug + " already", Remedy: "choose another name, or give another slug"}
		}
		if err := m.beside(d, state, dr.integration); err != nil {
			return nil, err
		}
		fresh = copyOf(&dr.record)
		now := m.o.Now().UTC()
		fresh.Revision, fresh.Meta = 1, store.Meta{CreatedAt: now, UpdatedAt: now, By: w.By, RequestID: w.RequestID, Reason: w.Reason}
		if err := m.seal(&fresh, state.StoreID, dr.given); err != nil {
			return nil, err
		}
		changed = changes(nil, &fresh)
		return []store.Write{{Record: &fresh, Entry: w.entry(ActionInstalled, changed)}}, nil
	})
	if now := find(state, slug); isCode(err, NameTaken) && now != nil {
		if e := m.answered(ctx, w, now, ActionInstalled); e != nil && len(changes(e.Record, &dr.record)) == 0 {
			fresh, changed, err = *now, e.Changes, nil
		}
	}
	if err != nil {
		return Result{}, err
	}
	result := m.result(ctx, d, state, &fresh, dryRun, changed)
	if result.Action = config.ActionStart; !fresh.Enabled {
		result.Action = actionNone
	}
	m.describe(&result, dr.integration.Config, &fresh)
	result.Checks, err = m.checkInstalled(ctx, d, &fresh, dr.given)
	if err != nil {
		result.Warnings = append(result.Warnings, "the connection was not tested: "+err.Error())
	}
	return result, nil
}

// actionNone is that of a change after which nothing runs otherwise.
const actionNone = "none"

func isCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// answered returns the audit entry of an earlier request with the same id about what is
// installed now; nil without one. That request may have asked for something else.
func (m *Manager) answered(ctx context.Context, w Who, now *store.Record, actions ...string) *store.Entry {
	return m.noted(ctx, w, func(e *store.Entry) bool {
		return e.ResourceID == now.ID && e.Record != nil && slices.Contains(actions, e.Action)
	})
}

// noted returns the newest audit entry of a request that matches; nil without one.
func (m *Manager) noted(ctx context.Context, w Who, match func(*store.Entry) bool) *store.Entry {
	found, err := m.o.Store.Audit(ctx, 1, func(e *store.Entry) bool { return e.RequestID == w.RequestID && match(e) })
	if err != nil || len(found) == 0 {
		return nil
	}
	return &found[0]
}

// beside returns why an integration cannot run beside the others; nil if it can.
func (m *Manager) beside(d *config.Deployment, state store.State, i config.Integration) error {
	others, _ := m.installed(d, state)
	running, _ := d.Beside(others)
	running = slices.DeleteFunc(running, func(o config.Integration) bool { return o.Name == i.Name })
	_, conflicts := d.Beside(append(running, i))
	var f faults
	f.problems(conflicts[i.Name])
	if conflicts[i.Name] == nil {
		return nil
	}
	return f.refusal()
}

// seal seals the secrets of a request into a record.
func (m *Manager) seal(r *store.Record, storeID string, given map[string]string) error {
	for field, secret := range given {
		sealed, err := m.o.Store.Seal(r, storeID, field, secret)
		if err != nil {
			reason, remedy, _ := strings.Cut(err.Error(), "; ")
			var f faults
			f.add("config."+field, "cannot be stored: "+reason, remedy)
			return f.refusal()
		}
		r.Secrets = withSecret(r.Secrets, field, sealed)
	}
	return nil
}

func withSecret(secrets map[string]store.Sealed, field string, sealed store.Sealed) map[string]store.Sealed {
	if secrets == nil {
		secrets = map[string]store.Sealed{}
	}
	secrets[field] = sealed
	return secrets
}

// result returns what all changes answer.
func (m *Manager) result(ctx context.Context, d *config.Deployment, state store.State, r *store.Record, dryRun bool, changed map[string]store.Changed) Result {
	if now := find(state, r.Slug); now != nil && now.ID == r.ID && !dryRun {
		r = now
	}
	_, problems := m.Wanted(state)
	v := m.view(ctx, d, r, state.StoreID, problems[r.Slug])
	result := Result{Integration: v, DryRun: dryRun, Changes: changed, Action: actionNone}
	if v.Shadowed {
		result.Warnings = append(result.Warnings, "a file describes an integration "+r.Slug+" too, which runs in place of this one; take it out of the file")
	}
	return result
}

// describe adds the SQL for the table, and the fields without effect.
func (m *Manager) describe(result *Result, c *config.Config, r *store.Record) {
	z := c.Zerobus
	table := zerobus.TableName{Catalog: z.Catalog, Schema: z.Schema, Table: z.Table}
	if compiled, err := pipeline.CompileOffline(c, r.Variant != "default"); err == nil { // it was compiled before
		result.DDL = strings.Join(zerobus.Creates(table, pipeline.RowColumns(compiled)), "\n")
	}
	result.Grants = zerobus.Grants(table, z.ClientID)
	given := flat(r)
	for _, i := range c.Ignored() {
		if field := fieldOf(i.Key); given[field] != nil {
			result.Warnings = append(result.Warnings, fmt.Sprintf("%s has no effect %s; %s", field, fieldNames.Replace(i.Why), fieldNames.Replace(i.Remedy)))
		}
	}
}

// target returns the record to change by its id or slug, or why it cannot be.
func target(d *config.Deployment, state store.State, id string, revision int64) (*store.Record, error) {
	r := find(state, id)
	switch {
	case fileOf(d, id) != nil:
		return nil, &Error{Code: ManagedByFile, Message: "integration " + id + " is described by " + cmp.Or(fileOf(d, id).Source, "the environment or the command line"), Remedy: "change it there"}
	case r == nil:
		return nil, notFound(id)
	case revision > 0 && r.Revision != revision:
		return nil, &Error{Code: RevisionMismatch, Message: fmt.Sprintf("integration %s is at revision %d, not at %d", r.Slug, r.Revision, revision), Remedy: "read it again, and repeat the change"}
	}
	return r, nil
}

// Update changes an integration of the store. With revision above 0 it is refused unless
// that is the present revision.
func (m *Manager) Update(ctx context.Context, id string, p Patch, revision int64, w Who, dryRun bool) (Result, error) {
	if err := w.complete(); err != nil {
		return Result{}, err
	}
	d := m.o.Files()
	vendors, _ := m.Catalog()
	var before, after store.Record
	var dr draft
	var changed map[string]store.Changed
	state, err := m.change(ctx, w, dryRun, func(state store.State) ([]store.Write, error) {
		r, err := target(d, state, id, revision)
		if err != nil {
			return nil, err
		}
		var f faults
		if dr, f = apply(d, vendors, r, &p); len(f) > 0 {
			return nil, f.refusal()
		}
		before, after = *r, copyOf(&dr.record)
		if err := m.seal(&after, state.StoreID, dr.given); err != nil {
			return nil, err
		}
		if changed = changes(r, &after); len(changed) == 0 {
			return nil, nil
		}
		if after.Enabled && fileOf(d, r.Slug) == nil {
			if err := m.beside(d, state, dr.integration); err != nil {
				return nil, err
			}
		}
		after.Revision++
		after.Meta.UpdatedAt, after.Meta.By, after.Meta.RequestID, after.Meta.Reason = m.o.Now().UTC(), w.By, w.RequestID, w.Reason
		return []store.Write{{Record: &after, Entry: w.entry(actionOf(changed, after.Enabled), changed)}}, nil
	})
	now := find(state, id)
	if now != nil && (isCode(err, RevisionMismatch) || err == nil && len(changed) == 0 && now.Meta.RequestID == w.RequestID) {
		e := m.answered(ctx, w, now, ActionUpdated, ActionEnabled, ActionDisabled)
		if e != nil && m.repeats(d, vendors, e, now, state.StoreID, &p) {
			return m.result(ctx, d, state, now, dryRun, e.Changes), nil
		}
	}
	if err != nil {
		return Result{}, err
	}
	result := m.result(ctx, d, state, &after, dryRun, changed)
	if !result.Integration.Shadowed {
		result.Action = m.action(d, &before, &dr)
	}
	if slices.ContainsFunc(destinationOfRows, func(field string) bool { _, ok := changed[field]; return ok }) {
		m.describe(&result, dr.integration.Config, &after)
	}
	return result, nil
}

// repeats reports whether a patch asks for no more than what e records.
func (m *Manager) repeats(d *config.Deployment, vendors []catalog.Vendor, e *store.Entry, now *store.Record, storeID string, p *Patch) bool {
	was := copyOf(e.Record)
	was.Secrets = now.Secrets
	dr, f := apply(d, vendors, &was, p)
	return len(f) == 0 && m.seal(&dr.record, storeID, dr.given) == nil && len(changes(&was, &dr.record)) == 0
}

// destinationOfRows are the fields after whose change the table, its columns or its grants
// may be others.
var destinationOfRows = []string{"config.workspace_url", "config.client_id", "config.catalog", "config.schema", "config.table", "variant", "blueprint"}

func actionOf(changed map[string]store.Changed, on bool) string {
	_, switched := changed["enabled"]
	switch {
	case !switched || len(changed) > 1:
		return ActionUpdated
	case on:
		return ActionEnabled
	}
	return ActionDisabled
}

// action returns what a change does to what runs, by the comparison of a reload.
func (m *Manager) action(d *config.Deployment, before *store.Record, dr *draft) string {
	was, next := *d, *d
	i, f := overlay(d, before, placeholders(before))
	if was.Integrations = []config.Integration{i}; len(f) > 0 {
		was.Integrations = nil // it did not run
	}
	next.Integrations = []config.Integration{dr.integration}
	if action := config.Compare(&was, &next).Integrations[0].Action; action != config.ActionNothing {
		return action
	}
	return actionNone
}

// Remove removes an integration of the store. Its group and dead letters stay.
func (m *Manager) Remove(ctx context.Context, id string, revision int64, w Who, dryRun bool) (Result, error) {
	if err := w.complete(); err != nil {
		return Result{}, err
	}
	d := m.o.Files()
	var gone store.Record
	var changed map[string]store.Changed
	var found bool
	state, err := m.change(ctx, w, dryRun, func(state store.State) ([]store.Write, error) {
		r, err := target(d, state, id, revision)
		if err != nil {
			return nil, err
		}
		gone, found, changed = *r, true, changes(r, nil)
		return []store.Write{{Remove: r.Slug, Entry: w.entry(ActionRemoved, changed)}}, nil
	})
	if isCode(err, NotFound) {
		if e := m.noted(ctx, w, func(e *store.Entry) bool { return (e.ResourceID == id || e.Slug == id) && e.Action == ActionRemoved }); e != nil {
			return Result{Integration: Integration{ID: e.ResourceID, Slug: e.Slug}, Changes: e.Changes, Action: config.ActionStop}, nil
		}
	}
	if err != nil || !found {
		return Result{}, err
	}
	result := m.result(ctx, d, state, &gone, dryRun, changed)
	if gone.Enabled && !result.Integration.Shadowed {
		result.Action = config.ActionStop
	}
	others, _ := m.Wanted(state)
	result.Notes = notes(d, slices.DeleteFunc(others, func(i config.Integration) bool { return i.Name == gone.Slug && !result.Integration.Shadowed }), &result.Integration)
	return result, nil
}

// Note adds an entry about an integration to the audit log: ActionReplayed or ActionRedriven.
func (m *Manager) Note(ctx context.Context, id, action string, changed map[string]store.Changed, w Who) error {
	if err := w.complete(); err != nil {
		return err
	}
	_, err := m.change(ctx, w, false, func(state store.State) ([]store.Write, error) {
		e := w.entry(action, changed)
		e.ResourceID, e.Slug = id, id
		if r := find(state, id); r != nil {
			e.ResourceID, e.Slug = r.ID, r.Slug
		}
		return []store.Write{{Entry: e}}, nil
	})
	return err
}
