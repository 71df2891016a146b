package manage

import (
	"context"
	"slices"

	"github.com/datafly/bridge/internal/integrations/store"
)

// Bounds of what is read of the audit log.
const (
	maxAudit   = 1000   // entries of one answer
	wholeAudit = 10_000 // of which one is looked for
)

// changing are the actions after which an integration has another revision, or none.
var changing = []string{ActionInstalled, ActionUpdated, ActionEnabled, ActionDisabled, ActionRemoved, ActionImported, ActionResealed}

// Revisions returns the audit entries of an integration that changed it, newest first. It
// may have been removed.
func (m *Manager) Revisions(ctx context.Context, id string) ([]store.Entry, error) {
	return m.entries(ctx, id, func(e *store.Entry) bool { return slices.Contains(changing, e.Action) })
}

// History returns all audit entries of an integration, newest first.
func (m *Manager) History(ctx context.Context, id string) ([]store.Entry, error) {
	return m.entries(ctx, id, func(*store.Entry) bool { return true })
}

// entries returns audit entries of an integration: of its id, or of the newest one that had
// the slug.
func (m *Manager) entries(ctx context.Context, id string, match func(*store.Entry) bool) ([]store.Entry, error) {
	if fileOf(m.o.Files(), id) != nil {
		return []store.Entry{}, nil // its history is that of the file
	}
	if m.o.Store == nil {
		return nil, notFound(id)
	}
	state, err := m.state(ctx)
	if err != nil {
		return nil, err
	}
	if r := find(state, id); r != nil {
		id = r.ID
	}
	all, err := m.o.Store.Audit(ctx, maxAudit, func(e *store.Entry) bool { return (e.ResourceID == id || e.Slug == id) && match(e) })
	if err != nil {
		return nil, refused(ctx, err)
	}
	if len(all) == 0 && find(state, id) == nil {
		return nil, notFound(id)
	}
	return all, nil
}

// Audit returns entries of the audit log, newest first, before the entry of that id; empty:
// the newest. At most 1,000 are returned, of the newest 10,000.
func (m *Manager) Audit(ctx context.Context, before string, limit int) ([]store.Entry, error) {
	if m.o.Store == nil {
		return []store.Entry{}, nil
	}
	limit = min(max(limit, 1), maxAudit)
	wanted := map[string]bool{}
	if before != "" {
		ids, err := m.o.Store.Audit(ctx, wholeAudit, func(e *store.Entry) bool {
			*e = store.Entry{ID: e.ID} // all of them would take much memory
			return true
		})
		if err != nil {
			return nil, refused(ctx, err)
		}
		at := slices.IndexFunc(ids, func(e store.Entry) bool { return e.ID == before })
		if at < 0 {
			return nil, &Error{Code: NotFound, Message: "the audit log has no entry " + before + " among the newest 10,000", Remedy: "begin at the newest one"}
		}
		for _, e := range ids[at+1 : min(at+1+limit, len(ids))] {
			wanted[e.ID] = true
		}
		if len(wanted) == 0 {
			return []store.Entry{}, nil
		}
	}
	all, err := m.o.Store.Audit(ctx, limit, func(e *store.Entry) bool { return before == "" || wanted[e.ID] })
	if all == nil {
		all = []store.Entry{}
	}
	return all, refused(ctx, err)
}
