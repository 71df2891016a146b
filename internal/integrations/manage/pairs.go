package manage

import (
	"maps"
	"strconv"
	"strings"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/plaintext"
)

// Pairs reads KEY=VALUE pairs of a command line. Keys are name, variant and enabled, and
// those of the sections config, source, mapping, rejects and delivery; one without a
// section is of config. An empty value is the default. Secrets are refused: other users
// can read a command line.
func Pairs(pairs []string) (p Patch, err error) {
	var f faults
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		switch {
		case !ok || name == "":
			f.add(plaintext.ShortLine(pair, 100), "is no KEY=VALUE", "write it as in source.topics=orders")
		case name == "name":
			p.Name = &value
		case name == "variant":
			p.Variant = &value
		case name == "enabled":
			on, err := strconv.ParseBool(value)
			if p.Enabled = &on; err != nil {
				f.add(name, "is neither true nor false", "use one of them")
			}
		case name == "slug":
			f.add(name, "is never changed, since it names the group and the dead-letter topics", "install another integration")
		default:
			p.assign(&f, name, value)
		}
	}
	return p, f.refusal()
}

func (p *Patch) assign(f *faults, name, value string) {
	into := map[string]*store.Values{"config": &p.Config, "source": &p.Source, "mapping": &p.Mapping, "rejects": &p.Rejects, "delivery": &p.Delivery}
	of, path, _ := strings.Cut(name, ".")
	if into[of] == nil {
		of, path = "config", name
	}
	for _, s := range sections {
		if s.field != of {
			continue
		}
		k := key(s.name + "." + path)
		if k != nil && k.Type == "secret" {
			f.add(name, "is a secret, and other users can read a command line", "use --secret-file, the environment or the prompt")
			return
		}
		set(into[of], path, typed(k, value))
	}
}

// typed returns a value in the type of its key; as text, where it cannot be read as that.
func typed(k *config.Key, text string) any {
	switch {
	case text == "":
		return nil
	case k == nil:
	case k.Type == "list":
		var list []any
		for _, item := range strings.Split(text, ",") {
			list = append(list, strings.TrimSpace(item))
		}
		return list
	case k.Type == "boolean":
		if on, err := strconv.ParseBool(text); err == nil {
			return on
		}
	case k.Type == "integer" || k.Type == "number":
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return n
		}
	}
	return text
}

// Merge lays a patch over a request.
func (r *Request) Merge(p Patch) {
	for _, text := range []struct{ to, from *string }{{&r.Name, p.Name}, {&r.Variant, p.Variant}, {&r.Blueprint, p.Blueprint}} {
		if text.from != nil {
			*text.to = *text.from
		}
	}
	if p.Enabled != nil {
		r.Enabled = p.Enabled
	}
	for _, section := range []struct {
		to   *store.Values
		from store.Values
	}{{&r.Config, p.Config}, {&r.Source, p.Source}, {&r.Mapping, p.Mapping}, {&r.Rejects, p.Rejects}, {&r.Delivery, p.Delivery}} {
		if *section.to == nil {
			*section.to = store.Values{}
		}
		maps.Copy(*section.to, section.from)
	}
}
