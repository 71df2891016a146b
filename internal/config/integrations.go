package config

import (
	"cmp"
	"errors"
)

// DefaultIntegration is the name of the integration that the base of the
// configuration describes. It exists exactly when the base names zerobus.table.
const DefaultIntegration = "default"

// Deployment is one configuration of a process: what its integrations share, and
// each of them. It is complete and consistent; treat it as read-only, it is shared.
type Deployment struct {
	// Base holds the settings of the process: its ops, log and tracing sections, and
	// delivery.max_buffered. Its other sections may be incomplete.
	Base *Config
	// Integrations, in the order of their names. None has a name twice.
	Integrations []Integration

	origins map[string]origin // of the base
}

// Integration is one integration of a deployment.
type Integration struct {
	Name    string // a slug
	Enabled bool
	// Config has every section. Those of the process are the ones of the base.
	Config *Config
	Source string // the file that describes it; empty where only the environment or flags do
	Line   int    // in Source; 0: unknown

	origins map[string]origin
}

// Single returns the deployment of one integration, for a run that is not of a whole
// deployment.
func Single(c *Config) *Deployment {
	name := cmp.Or(c.Rejects.Integration, DefaultIntegration)
	return &Deployment{Base: c, Integrations: []Integration{{Name: name, Enabled: true, Config: c}}}
}

// LoadDeployment reads all sources and returns the validated integrations, or an
// error that joins one *Problem for each mistake. No error holds the value of a
// secret. Options.Integration is ignored.
func LoadDeployment(o Options) (*Deployment, error) {
	l := read(o)
	d := &Deployment{origins: l.origins}
	all := l.all()
	if len(all) > 0 {
		d.Integrations = l.complete(o, all...)
		l.checkTogether(d.Integrations)
	} else { // those of the store
		d.Base = l.config(o, func(p Problem) { l.problems = append(l.problems, &p) })
	}
	if len(l.problems) > 0 {
		return nil, joined(l.problems)
	}
	for _, i := range d.Integrations {
		if i.Name == DefaultIntegration {
			d.Base = i.Config
			return d, nil
		}
	}
	if len(all) > 0 {
		o.Partial = true
		d.Base = l.config(o, func(Problem) {}) // those of the process were reported with the integrations
	}
	d.Base.Rejects.Integration = "" // it is none
	return d, nil
}

// Ignored returns the keys that are set and have no effect: those of the base that are
// ignored in every integration, and those of an integration that are ignored in it.
func (d *Deployment) Ignored() []Ignored {
	var all []Ignored
	if from, given := d.origins["kafka.group"]; given && d.Base.Rejects.Integration == "" && from != (origin{}) {
		all = append(all, Ignored{Key: "kafka.group", Why: "without zerobus.table in the base, since integrations do not inherit it",
			Remedy: "take it out, or set it in the integration that it is for"})
	}
	count := map[Ignored]int{}
	for _, i := range d.Integrations {
		for _, ignored := range i.Config.Ignored() {
			if count[ignored]++; count[ignored] == len(d.Integrations) {
				all = append(all, ignored)
			}
		}
	}
	for _, i := range d.Integrations {
		for _, ignored := range i.Config.Ignored() {
			if count[ignored] < len(d.Integrations) && i.origins[ignored.Key] != d.origins[ignored.Key] {
				ignored.Integration = i.Name
				all = append(all, ignored)
			}
		}
	}
	return all
}

func joined(problems []*Problem) error {
	var all []error
	for _, p := range problems {
		all = append(all, p)
	}
	return errors.Join(all...)
}

// complete returns the validated integrations. What several have in common is
// reported once.
func (l *loader) complete(o Options, some ...*loader) []Integration {
	type found struct {
		problem Problem
		names   []string
		at      origin // of the first integration
		own     bool   // the value is not of the base
	}
	var order []*found
	same := map[Problem]*found{}
	var all []Integration
	for _, one := range some {
		c := one.config(o, func(p Problem) {
			if one.base != nil && p.Key == "zerobus.table" && p.Rule == "is required" {
				p.Remedy = "set it in the integration to the table that receives the events"
			}
			if k := schema.Key(p.Key); one.record && k != nil && p.Rule == "is required" {
				p.Remedy = "give " + k.About()
			}
			f := same[p]
			if f == nil {
				f = &found{problem: p, at: one.at}
				same[p], order = f, append(order, f)
			}
			f.names = append(f.names, one.name)
			f.own = f.own || one.base != nil && (p.Key == "kafka.group" || one.origins[p.Key] != one.base.origins[p.Key])
		})
		at := one.at
		if table := one.origins["zerobus.table"]; one.base == nil && table.line > 0 {
			at = table
		}
		on, given := one.values[enabled.Path].(bool)
		all = append(all, Integration{Name: one.name, Enabled: on || !given, Config: c, Source: at.source, Line: at.line, origins: one.origins})
	}
	for _, f := range order {
		p := &f.problem
		everywhere := len(f.names) == len(some) && !f.own
		if !everywhere || len(some) == 1 && some[0].base != nil && p.Source == "" {
			p.Integration = listed(f.names)
			if p.Source == "" {
				p.Source, p.Line = f.at.source, f.at.line
			}
		}
		l.problems = append(l.problems, p)
	}
	return all
}
