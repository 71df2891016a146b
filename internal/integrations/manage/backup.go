package manage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/store"
)

// backup is the form of an export.
type backup struct {
	Format       int              `json:"format"`
	Deployment   string           `json:"deployment"`
	StoreID      string           `json:"store_id"`
	Exported     time.Time        `json:"exported"`
	Integrations map[string]saved `json:"integrations"` // by slug
}

// saved is a record with the sections of an overlay, which can be copied into a file.
type saved struct {
	Enabled  *bool        `json:"enabled,omitempty"`
	Kafka    store.Values `json:"kafka,omitempty"`
	Zerobus  store.Values `json:"zerobus,omitempty"`
	Mapping  store.Values `json:"mapping,omitempty"`
	Rejects  store.Values `json:"rejects,omitempty"`
	Delivery store.Values `json:"delivery,omitempty"`
	// Installed holds what a file does not have. Without it, an import installs.
	Installed *installed `json:"installed,omitempty"`
}

type installed struct {
	ID           string                  `json:"id"`
	Name         string                  `json:"name"`
	Vendor       string                  `json:"vendor"`
	Variant      string                  `json:"variant"`
	Revision     int64                   `json:"revision"`
	DeliveryMode string                  `json:"delivery_mode"`
	Secrets      map[string]store.Sealed `json:"secrets,omitempty"` // sealed
	Meta         store.Meta              `json:"meta"`
}

// maxBackup bounds an import, in bytes.
const maxBackup = 96 << 20

// Export returns all installed integrations as YAML for Import. Each has the sections of an
// overlay, and below `installed` what only the store has. Secrets are sealed: only the keys
// of store.keys open them, and only in the store of the same id.
func (m *Manager) Export(ctx context.Context) ([]byte, error) {
	if m.o.Store == nil {
		return nil, storeless()
	}
	state, err := m.o.Store.Read(ctx)
	if err != nil && !state.Known {
		return nil, refused(ctx, err)
	}
	b := backup{Format: store.Format, Deployment: m.o.Files().Base.Deployment, StoreID: state.StoreID, Exported: m.o.Now().UTC(), Integrations: map[string]saved{}}
	for n := range state.Records {
		r := &state.Records[n]
		mapped := maps.Clone(r.Mapping)
		if r.Blueprint != "" {
			set(&mapped, "blueprint_text", r.Blueprint)
		} else {
			set(&mapped, "variant", r.Variant)
		}
		b.Integrations[r.Slug] = saved{Enabled: &r.Enabled, Kafka: r.Source, Zerobus: public(sections[0], r), Mapping: mapped, Rejects: r.Rejects, Delivery: r.Delivery,
			Installed: &installed{ID: r.ID, Name: r.Name, Vendor: r.Vendor, Variant: r.Variant, Revision: r.Revision, DeliveryMode: r.DeliveryMode, Secrets: r.Secrets, Meta: r.Meta}}
	}
	var plain any
	text, err := json.Marshal(b)
	if err == nil {
		err = json.Unmarshal(text, &plain)
	}
	if err == nil {
		text, err = yaml.Marshal(plain)
	}
	if err != nil {
		return nil, &Error{Code: OutcomeUnexpected, Message: "writing the export: " + err.Error(), Err: err}
	}
	return append([]byte("# Installed integrations. Secrets are sealed. Restore with: bridge integrations import FILE\n"), text...), nil
}

// Imported is the outcome of an import, or with DryRun what it would be.
type Imported struct {
	DryRun   bool   `json:"dry_run"`
	Restored bool   `json:"restored"` // the store was lost, and exists again
	StoreID  string `json:"store_id"`
	// Actions by slug: added, updated, unchanged.
	Actions  map[string]string                   `json:"actions"`
	Changes  map[string]map[string]store.Changed `json:"changes"` // by slug
	Warnings []string                            `json:"warnings,omitempty"`
}

// Import writes the integrations of an export, or of a file of overlays, to the store.
//
// A store that is lost or new is restored: it gets the id of the export, so sealed secrets
// open again, and the members take it for theirs. In a store that exists, integrations are
// added and updated; those that data does not have stay. An integration that is not valid
// under the present configuration is an error in a store that exists, and a warning when a
// store is restored: it is shown with its problem.
func (m *Manager) Import(ctx context.Context, data []byte, w Who, dryRun bool) (Imported, error) {
	if m.o.Store == nil {
		return Imported{}, storeless()
	}
	if err := w.complete(); err != nil {
		return Imported{}, err
	}
	b, err := parseBackup(data)
	if err != nil {
		return Imported{}, err
	}
	d := m.o.Files()
	result := Imported{DryRun: dryRun}
	records, given, err := m.records(d, b)
	if err != nil {
		return result, err
	}
	state, err := m.o.Store.Read(ctx)
	lost := state.Problem != nil && state.Problem.Code == store.Missing
	if err != nil && !lost {
		return result, refused(ctx, err)
	}
	if result.Restored = lost || state.StoreID == ""; result.Restored {
		return m.restore(ctx, d, b, records, given, w, result)
	}
	state, err = m.change(ctx, w, dryRun, func(state store.State) ([]store.Write, error) {
		result.Actions, result.Changes, result.Warnings = map[string]string{}, map[string]map[string]store.Changed{}, nil
		var writes []store.Write
		var f faults
		for n := range records {
			write, err := m.imported(d, state, &records[n], given[records[n].Slug], w, &result)
			var refusal *Error
			if errors.As(err, &refusal) {
				for _, one := range refusal.Fields {
					f.add("integrations."+records[n].Slug+"."+one.Field, one.Message, one.Remedy)
				}
				continue
			}
			if write != nil {
				writes = append(writes, *write)
			}
		}
		return writes, f.refusal()
	})
	result.StoreID = state.StoreID
	return result, err
}

// parseBackup reads an export or overlays.
func parseBackup(data []byte) (*backup, error) {
	invalid := func(format string, args ...any) error {
		var f faults
		f.add("data", fmt.Sprintf(format, args...), "give the output of bridge integrations export, or a file of integrations")
		return f.refusal()
	}
	if len(data) > maxBackup {
		return nil, invalid("has %d bytes, which is more than %d", len(data), maxBackup)
	}
	var plain map[string]any
	if err := yaml.Unmarshal(data, &plain); err != nil {
		return nil, invalid("is not valid YAML: %v", firstLine(err))
	}
	if _, whole := plain["integrations"].(map[string]any); !whole {
		plain = map[string]any{"integrations": plain}
	}
	text, err := json.Marshal(plain)
	if err != nil {
		return nil, invalid("has keys that are not text")
	}
	var b backup
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return nil, invalid("is neither an export nor a file of integrations: %v", firstLine(err))
	}
	switch {
	case b.Format > store.Format:
		return nil, invalid("has format %d, and this version reads up to %d", b.Format, store.Format)
	case len(b.Integrations) == 0:
		return nil, invalid("has no integrations")
	case len(b.Integrations) > store.MaxRecords:
		return nil, invalid("has %d integrations, which is more than %d", len(b.Integrations), store.MaxRecords)
	}
	return &b, nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// records returns those of a backup in the order of the slugs, and the secrets that it holds
// in clear by slug.
func (m *Manager) records(d *config.Deployment, b *backup) (all []store.Record, given map[string]map[string]string, err error) {
	given = map[string]map[string]string{}
	var f faults
	for _, slug := range slices.Sorted(maps.Keys(b.Integrations)) {
		s := b.Integrations[slug]
		r := store.Record{ID: newID(), Slug: slug, Name: slug, Vendor: catalog.Key, Variant: "default", DeliveryMode: serverSide, Enabled: s.Enabled == nil || *s.Enabled}
		if in := s.Installed; in != nil {
			r.ID, r.Name, r.Vendor, r.Variant, r.Revision, r.DeliveryMode, r.Secrets, r.Meta = in.ID, in.Name, in.Vendor, in.Variant, in.Revision, in.DeliveryMode, in.Secrets, in.Meta
		}
		f.checkName(r.Name)
		dr := draft{record: r, given: map[string]string{}}
		if text, ok := s.Mapping["blueprint_text"].(string); ok {
			dr.record.Blueprint = text
		} else if variant, ok := s.Mapping["variant"].(string); ok {
			dr.record.Variant = variant
		}
		s.Mapping = maps.Clone(s.Mapping)
		delete(s.Mapping, "blueprint_text")
		delete(s.Mapping, "variant")
		var own faults
		for n, values := range []store.Values{s.Zerobus, s.Kafka, s.Mapping, s.Rejects, s.Delivery} {
			dr.merge(&own, sections[n], values)
		}
		for _, one := range own {
			f.add("integrations."+slug+"."+one.Field, one.Message, one.Remedy)
		}
		if _, topics := dr.record.Source["topics"]; !topics && s.Installed == nil && len(d.Base.Kafka.Topics) > 0 {
			set(&dr.record.Source, "topics", slices.Clone(d.Base.Kafka.Topics))
		}
		given[slug] = dr.given
		all = append(all, dr.record)
	}
	return all, given, f.refusal()
}

// imported returns what to write for one record into a store that exists; nil: nothing.
func (m *Manager) imported(d *config.Deployment, state store.State, r *store.Record, given map[string]string, w Who, result *Imported) (*store.Write, error) {
	after := copyOf(r)
	old := state.Find(r.Slug)
	if old != nil {
		after.ID, after.Revision, after.Meta = old.ID, old.Revision, old.Meta
		for field, sealed := range old.Secrets {
			if _, has := after.Secrets[field]; !has && sameDestination(old, &after) {
				after.Secrets = withSecret(after.Secrets, field, sealed)
			}
		}
	}
	secrets := placeholders(&after)
	maps.Copy(secrets, given)
	i, f := overlay(d, &after, secrets)
	if len(f) > 0 {
		return nil, f.refusal()
	}
	normalize(&after, i.Config)
	if f.checkBlueprint(&after, i.Config); len(f) > 0 {
		return nil, f.refusal()
	}
	if after.Enabled && fileOf(d, r.Slug) == nil {
		if err := m.beside(d, state, i); err != nil {
			return nil, err
		}
	}
	if err := m.seal(&after, state.StoreID, given); err != nil {
		return nil, err
	}
	result.warnSecrets(m, &after, state.StoreID)
	action := "updated"
	changed := changes(old, &after)
	switch {
	case old == nil:
		action = "added"
	case len(changed) == 0:
		result.Actions[r.Slug] = "unchanged"
		return nil, nil
	}
	result.Actions[r.Slug], result.Changes[r.Slug] = action, changed
	stamp(&after, m.o.Now(), w)
	return &store.Write{Record: &after, Entry: w.entry(ActionImported, changed)}, nil
}

// stamp sets who changed a record, and when.
func stamp(r *store.Record, now time.Time, w Who) {
	now = now.UTC()
	if r.Meta.CreatedAt.IsZero() {
		r.Meta.CreatedAt = now
	}
	r.Meta.UpdatedAt, r.Meta.By, r.Meta.RequestID, r.Meta.Reason = now, w.By, w.RequestID, w.Reason
}

func sameDestination(a, b *store.Record) bool {
	return !slices.ContainsFunc(destination, func(field string) bool { return !same(a.Target[field], b.Target[field]) })
}

// warnSecrets adds a warning for each secret that does not open.
func (i *Imported) warnSecrets(m *Manager, r *store.Record, storeID string) {
	for _, field := range slices.Sorted(maps.Keys(r.Secrets)) {
		if _, err := m.o.Store.Open(r, storeID, field); err != nil {
			i.Warnings = append(i.Warnings, err.Error())
		}
	}
}

// restore writes a store that is lost or new.
func (m *Manager) restore(ctx context.Context, d *config.Deployment, b *backup, records []store.Record, given map[string]map[string]string, w Who, result Imported) (Imported, error) {
	result.Actions, result.Changes, result.StoreID = map[string]string{}, map[string]map[string]store.Changed{}, b.StoreID
	if result.StoreID == "" {
		result.StoreID = "store_" + strings.TrimPrefix(newID(), "int_")
	}
	for n := range records {
		r := &records[n]
		secrets := placeholders(r)
		maps.Copy(secrets, given[r.Slug])
		i, f := overlay(d, r, secrets)
		if err := f.err(r.Slug); err != nil {
			result.Warnings = append(result.Warnings, err.Error())
		} else {
			normalize(r, i.Config)
		}
		if err := m.seal(r, result.StoreID, given[r.Slug]); err != nil {
			return result, err
		}
		result.warnSecrets(m, r, result.StoreID)
		result.Actions[r.Slug], result.Changes[r.Slug] = "added", changes(nil, r)
		stamp(r, m.o.Now(), w)
	}
	if result.DryRun {
		return result, nil
	}
	if _, err := m.o.Store.Restore(ctx, w.RequestID, result.StoreID, records, w.entry(ActionImported, nil)); err != nil {
		return result, refused(ctx, err)
	}
	if m.o.Runtime != nil {
		m.o.Runtime.Changed()
	}
	return result, nil
}

// ResealReport is the outcome of sealing all secrets with the first key, or with DryRun what
// it would be.
type ResealReport struct {
	DryRun    bool              `json:"dry_run"`
	Resealed  []string          `json:"resealed"`  // slugs
	Unchanged []string          `json:"unchanged"` // slugs: sealed with the first key, or without a secret
	Failed    map[string]string `json:"failed"`    // slug -> why a secret does not open
}

// Reseal seals all secrets with the first key of store.keys. Secrets that do not open stay
// as they are.
func (m *Manager) Reseal(ctx context.Context, w Who, dryRun bool) (report ResealReport, err error) {
	if err := w.complete(); err != nil {
		return report, err
	}
	_, err = m.change(ctx, w, dryRun, func(state store.State) ([]store.Write, error) {
		report = ResealReport{DryRun: dryRun, Resealed: []string{}, Unchanged: []string{}, Failed: map[string]string{}}
		var writes []store.Write
		for n := range state.Records {
			r := copyOf(&state.Records[n])
			secrets, changed, err := m.o.Store.Reseal(&r, state.StoreID)
			switch {
			case err != nil:
				report.Failed[r.Slug] = err.Error()
				continue
			case !changed:
				report.Unchanged = append(report.Unchanged, r.Slug)
				continue
			}
			r.Secrets = secrets
			report.Resealed = append(report.Resealed, r.Slug)
			stamp(&r, m.o.Now(), w)
			writes = append(writes, store.Write{Record: &r, Entry: w.entry(ActionResealed, changes(&state.Records[n], &r))})
		}
		return writes, nil
	})
	return report, err
}
