package manage

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/store"
)

// view returns the integration of a record. problem is why it does not run.
func (m *Manager) view(ctx context.Context, d *config.Deployment, r *store.Record, storeID string, problem error) Integration {
	v := Integration{
		ID: r.ID, Slug: r.Slug, Name: r.Name, Vendor: r.Vendor, Variant: r.Variant, Enabled: r.Enabled, Revision: r.Revision, ManagedBy: "store",
		Shadowed: fileOf(d, r.Slug) != nil, Config: map[string]any{}, Source: noNil(r.Source), Blueprint: r.Blueprint, Mapping: r.Mapping, Rejects: r.Rejects,
		Delivery: r.Delivery, DeliveryMode: r.DeliveryMode, ConsentCategories: append([]string{}, r.ConsentCategories...), DeadLetterTopics: []string{}, Meta: r.Meta,
	}
	maps.Copy(v.Config, public(sections[0], r))
	for field, sealed := range r.Secrets {
		v.Config[field] = shown(sealed)
	}
	m.mu.Lock()
	b, known := m.built[r.Slug]
	m.mu.Unlock()
	if !known || !b.of.is(&builtOf{d.Base, storeID, r}) {
		b.integration, _ = overlay(d, r, placeholders(r))
	}
	v.place(b.integration.Config)
	v.Observed = m.observed(ctx, r.Slug)
	switch {
	case v.Shadowed:
		v.Observed = Observed{State: "shadowed", Reason: "a file describes an integration with the slug " + r.Slug, Remedy: "take it out of the file, or remove this one"}
	case problem != nil && v.Observed.State == "":
		v.Observed.State, v.Observed.Reason = "blocked", problem.Error()
	}
	return v
}

func noNil(v store.Values) store.Values {
	if v == nil {
		return store.Values{}
	}
	return v
}

// shown is what answers hold of a secret.
func shown(s store.Sealed) map[string]any {
	return map[string]any{"set": true, "fingerprint": s.Fingerprint}
}

// place sets what follows from the whole configuration; c may be nil.
func (v *Integration) place(c *config.Config) {
	if c == nil {
		return
	}
	v.Group, v.Table = c.Kafka.Group, c.Zerobus.Catalog+"."+c.Zerobus.Schema+"."+c.Zerobus.Table
	if c.Rejects.Policy == consumer.PolicyDeadLetter {
		v.DeadLetterTopics = append([]string{}, deadLetters(c)...)
	}
}

func deadLetters(c *config.Config) []string {
	return (&consumer.Config{Kafka: c.Kafka, Rejects: c.Rejects}).DeadLetterTopics()
}

func (m *Manager) observed(ctx context.Context, slug string) Observed {
	if m.o.Runtime == nil {
		return Observed{}
	}
	return m.o.Runtime.Observed(ctx, slug)
}

// viewFile returns an integration of a file: the keys that are not at their default.
func (m *Manager) viewFile(ctx context.Context, i *config.Integration) Integration {
	c, defaults := i.Config, config.Defaults()
	v := Integration{
		ID: i.Name, Slug: i.Name, Name: i.Name, Vendor: catalog.Key, Variant: c.Mapping.Variant, Enabled: i.Enabled, ManagedBy: "file",
		Config: map[string]any{}, Source: store.Values{}, Mapping: store.Values{}, Rejects: store.Values{}, Delivery: store.Values{}, Blueprint: c.Mapping.BlueprintText,
		DeliveryMode: serverSide, ConsentCategories: append([]string{}, c.Mapping.RequireConsent...), DeadLetterTopics: []string{}, Observed: m.observed(ctx, i.Name),
	}
	if v.File = i.Source; i.Line > 0 {
		v.File = fmt.Sprintf("%s:%d", i.Source, i.Line)
	}
	into := map[string]map[string]any{"zerobus": v.Config, "kafka": v.Source, "mapping": v.Mapping, "rejects": v.Rejects, "delivery": v.Delivery}
	for _, k := range config.Keys() {
		section, path, _ := strings.Cut(k.Path, ".")
		to := into[section]
		switch {
		case to == nil || k.Process || k.Same(c, &defaults) || k.Path == "mapping.blueprint_text" || k.Path == "mapping.variant":
		case k.Type == "secret":
			to[path] = map[string]any{"set": true}
		default:
			to[path] = valueOf(k, c)
		}
	}
	v.place(c)
	return v
}

// valueOf returns a value of a configuration as JSON has it: sizes and durations as text.
func valueOf(k *config.Key, c *config.Config) any {
	switch k.Type {
	case "size", "duration":
		return k.Text(c)
	case "list":
		return slices.Clone(k.In(c).Interface().([]string))
	}
	return k.In(c).Interface()
}

// flat returns the fields of a record by their dotted names in requests. Secrets are
// fingerprints.
func flat(r *store.Record) map[string]any {
	all := map[string]any{}
	if r == nil {
		return all
	}
	all["name"], all["variant"], all["enabled"], all["delivery_mode"] = r.Name, r.Variant, r.Enabled, r.DeliveryMode
	if r.Blueprint != "" {
		all["blueprint"] = r.Blueprint
	}
	for _, s := range sections {
		for path, value := range public(s, r) {
			all[s.field+"."+path] = value
		}
	}
	for field, sealed := range r.Secrets {
		all["config."+field] = shown(sealed)
	}
	return all
}

// changes compares two records; either may be nil.
func changes(before, after *store.Record) map[string]store.Changed {
	old, now := flat(before), flat(after)
	all := map[string]store.Changed{}
	for field := range merged(old, now) {
		if !same(old[field], now[field]) {
			all[field] = store.Changed{Old: old[field], New: now[field]}
		}
	}
	return all
}

func merged(a, b map[string]any) map[string]any {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

// notes describes what is left of a removed integration, and how to delete what none of
// the others uses.
func notes(d *config.Deployment, others []config.Integration, v *Integration) (all []string) {
	brokers := cmp.Or(strings.Join(d.Base.Kafka.Brokers, ","), "localhost:9092")
	used := func(by func(*config.Config) bool) bool {
		return slices.ContainsFunc(others, func(i config.Integration) bool { return by(i.Config) })
	}
	if !used(func(c *config.Config) bool { return c.Kafka.Group == v.Group }) {
		all = append(all, "consumer group "+v.Group+" keeps its committed offsets for a later installation with the same slug; delete it with: kafka-consumer-groups.sh --bootstrap-server "+
			brokers+" --delete --group "+v.Group)
	}
	for _, topic := range v.DeadLetterTopics {
		if !used(func(c *config.Config) bool { return slices.Contains(deadLetters(c), topic) }) {
			all = append(all, "topic "+topic+" keeps the dead letters, if there are any; delete it with: kafka-topics.sh --bootstrap-server "+brokers+" --delete --topic "+topic)
		}
	}
	if !used(func(c *config.Config) bool {
		return c.Zerobus.Catalog+"."+c.Zerobus.Schema+"."+c.Zerobus.Table == v.Table
	}) {
		all = append(all, "table "+v.Table+" and the grants on it stay; drop or revoke them in Databricks")
	}
	return all
}
