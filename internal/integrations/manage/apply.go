package manage

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/store"
)

// draft is a record as a request makes it, valid in itself.
type draft struct {
	record      store.Record
	given       map[string]string // secrets of the request, in clear
	integration config.Integration
}

// copyOf returns a record whose maps can be changed.
func copyOf(r *store.Record) store.Record {
	c := *r
	for _, s := range sections {
		*s.of(&c) = maps.Clone(*s.of(r))
	}
	c.Secrets = maps.Clone(r.Secrets)
	return c
}

// apply changes a record by a patch, and validates the outcome. Secrets are not sealed yet:
// the record keeps those that the patch does not replace. That of a new record has no
// revision.
func apply(d *config.Deployment, vendors []catalog.Vendor, before *store.Record, p *Patch) (draft, faults) {
	var f faults
	dr := draft{record: copyOf(before), given: map[string]string{}}
	r := &dr.record
	if p.Name != nil {
		r.Name = *p.Name
		f.checkName(*p.Name)
	}
	if p.Enabled != nil {
		r.Enabled = *p.Enabled
	}
	f.chooseBlueprint(r, vendors, p)
	if table, _ := p.Config["table"].(string); strings.Count(table, ".") == 2 { // it names these, too
		delete(r.Target, "catalog")
		delete(r.Target, "schema")
	}
	for n, values := range []store.Values{p.Config, p.Source, p.Mapping, p.Rejects, p.Delivery} {
		dr.merge(&f, sections[n], values)
	}
	if len(f) > 0 {
		return dr, f
	}
	if _, given := r.Source["topics"]; !given && before.Revision == 0 && len(d.Base.Kafka.Topics) > 0 {
		set(&r.Source, "topics", slices.Clone(d.Base.Kafka.Topics))
	}
	secrets := placeholders(r)
	for field := range dr.given {
		secrets[field] = "given"
	}
	i, f := overlay(d, r, secrets)
	if len(f) > 0 {
		return dr, f
	}
	dr.integration = i
	normalize(r, i.Config)
	for _, field := range destination {
		for secret := range r.Secrets {
			if _, again := dr.given[secret]; !again && !same(before.Target[field], r.Target[field]) {
				f.add("config."+secret, "must be given again, since config."+field+" changes: the stored one is for the old place", "give the secret of the new place")
				return dr, f
			}
		}
	}
	f.checkBlueprint(r, i.Config)
	return dr, f
}

func (f *faults) checkName(name string) {
	if n := utf8.RuneCountInString(name); n > maxName {
		f.add("name", fmt.Sprintf("has %d characters, which is more than %d", n, maxName), "shorten it")
	} else if strings.TrimSpace(name) == "" {
		f.add("name", "is required", "give the integration a name, such as Databricks (Zerobus Ingest)")
	} else {
		f.checkText("name", name, maxText, false)
	}
}

// chooseBlueprint sets the variant and the blueprint. A variant of a file is copied.
func (f *faults) chooseBlueprint(r *store.Record, vendors []catalog.Vendor, p *Patch) {
	if p.Blueprint != nil && !f.checkText("blueprint", *p.Blueprint, maxBlueprint, true) {
		return
	}
	if p.Variant != nil {
		r.Variant = *p.Variant
	}
	if p.Variant == nil && p.Blueprint == nil {
		return
	}
	if r.Variant == "" {
		r.Variant = "default"
	}
	var names []string
	var found *catalog.Variant
	for n := range vendors[0].Variants {
		v := &vendors[0].Variants[n]
		if v.Key == r.Variant {
			found = v
		} else if v.Problem == "" {
			names = append(names, v.Key)
		}
	}
	switch {
	case p.Blueprint != nil && *p.Blueprint != "" && p.Variant == nil:
		r.Blueprint = *p.Blueprint // the variant may be gone
	case found == nil:
		f.add("variant", fmt.Sprintf("%.60q is not known", r.Variant), "use one of "+strings.Join(names, ", "))
	case found.Problem != "":
		f.add("variant", fmt.Sprintf("%.60q cannot be used: %s", r.Variant, found.Problem), "use one of "+strings.Join(names, ", "))
	case p.Blueprint != nil && *p.Blueprint != "":
		r.Blueprint = *p.Blueprint
	default:
		r.Blueprint = found.Blueprint
	}
}

// merge takes the values of one section of a request.
func (dr *draft) merge(f *faults, s section, values store.Values) {
	count, seen := 0, map[string]string{}
	leaves(values, "", func(path string, value any) {
		field, full := s.field+"."+path, s.name+"."+path
		if count++; count > maxFields {
			if count == maxFields+1 {
				f.add(s.field, fmt.Sprintf("has more than %d fields", maxFields), "leave out those at their default")
			}
			return
		}
		if !f.checkText(s.field, path, maxText, false) {
			return
		}
		k := key(full)
		if k != nil {
			path = strings.TrimPrefix(k.Path, s.name+".")
		}
		other, twice := seen[path]
		seen[path] = field
		switch {
		case twice:
			f.add(field, "is the same field as "+other+", which is given too", "keep one of them")
		case full == "mapping.blueprint_text" || full == "mapping.variant":
			f.add(field, "is a field of its own", "give it as "+fieldNames.Replace(full))
		case namesFile(full) && k != nil:
			f.add(field, "names a file on the disk of the server, which the API may not", "set it in the configuration file, or leave it out")
		case k != nil && k.Type == "secret":
			dr.secret(f, path, value)
		case value == nil:
			delete(*s.of(&dr.record), path)
		case f.checkValue(field, value):
			set(s.of(&dr.record), path, value)
		}
	})
}

// secret takes a secret of a request.
func (dr *draft) secret(f *faults, path string, value any) {
	field := "config." + path
	text, isText := value.(string)
	switch {
	case value == nil:
		f.add(field, "cannot be taken away", "leave it out to keep the stored one")
	case !isText:
		f.add(field, "must be text", "write it in quotes")
	case strings.Trim(text, "*") == "" && text != "":
		f.add(field, "is a mask, not a secret", "leave it out to keep the stored one, or give the secret itself")
	case strings.TrimSpace(text) == "":
		f.add(field, "is empty", "give the OAuth secret of the service principal, or leave it out to keep the stored one")
	case f.checkText(field, text, maxText, false):
		dr.given[path] = text
		delete(dr.record.Target, path) // in clear, of a record that was written by hand
	}
}

func set(values *store.Values, path string, value any) {
	if *values == nil {
		*values = store.Values{}
	}
	(*values)[path] = value
}

// normalize brings the values of a record to the form that the configuration has them in,
// so that equal ones are the same, and a full table name to its three parts.
func normalize(r *store.Record, c *config.Config) {
	for _, name := range []string{"catalog", "schema"} {
		if _, given := r.Target[name]; !given {
			set(&r.Target, name, "")
		}
	}
	for _, s := range sections {
		for path := range *s.of(r) {
			if k := key(s.name + "." + path); k != nil {
				(*s.of(r))[path] = valueOf(k, c)
			}
		}
	}
	r.ConsentCategories = slices.Clone(c.Mapping.RequireConsent)
}
