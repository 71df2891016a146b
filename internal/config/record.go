package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// ownKeys are those that an installed integration does not inherit: it names its target
// itself, or a secret of the base would be sent to a place that somebody else chose.
var ownKeys = []string{
	"zerobus.workspace_url", "zerobus.client_id", "zerobus.client_secret", "zerobus.client_secret_file",
	"zerobus.token_exchange.token_file", "zerobus.token_exchange.policy", "zerobus.catalog", "zerobus.schema", "zerobus.table",
	"zerobus.endpoint", "zerobus.workspace_id", "zerobus.token_url",
}

// Overlay returns the integration that a record describes: name is its slug, source
// describes the record for people, and values are keys by section, as JSON has them.
// The rules are those of overlays in files. Two differ: the target and its secret are
// not inherited from the base, and text must be text, not a number. The error joins one
// *Problem for each mistake. No file is opened.
func (d *Deployment) Overlay(name, source string, values map[string]any) (Integration, error) {
	base := newLoader()
	defaults := Defaults()
	for _, k := range schema.Keys {
		from, given := d.origins[k.Path]
		if !slices.Contains(ownKeys, k.Path) && (given || d.origins == nil && !k.Same(d.Base, &defaults)) {
			base.values[k.Path], base.origins[k.Path] = k.In(d.Base).Interface(), from
		}
	}
	at := origin{source: source}
	if !slug.MatchString(name) || slices.Contains(reserved(), name) {
		p := at.problem("name", name, "cannot be the name of an integration", "use 1 to 40 of a-z, 0-9 and hyphens, and none of the configuration's sections")
		p.Integration = name
		return Integration{}, joined([]*Problem{p})
	}
	one := base.overlay(name, at)
	one.record = true
	w := walk{l: one, file: source, given: layer{}, seen: map[string]int{}}
	w.section(nodeOf(values), "")
	one.dropReplaced(w.given)
	all := base.complete(Options{}, one)
	if len(base.problems) > 0 {
		return Integration{}, joined(base.problems)
	}
	return all[0], nil
}

// nodeOf returns a value of JSON as a node of YAML.
func nodeOf(value any) *yaml.Node {
	scalar := func(tag, text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text} }
	switch v := value.(type) {
	case nil:
		return scalar("!!null", "")
	case string:
		return scalar("!!str", v)
	case bool:
		return scalar("!!bool", strconv.FormatBool(v))
	case float64:
		return scalar("!!float", strconv.FormatFloat(v, 'f', -1, 64))
	case []string:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range v {
			n.Content = append(n.Content, nodeOf(item))
		}
		return n
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range v {
			n.Content = append(n.Content, nodeOf(item))
		}
		return n
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			n.Content = append(n.Content, scalar("!!str", key), nodeOf(v[key]))
		}
		return n
	}
	return scalar("!!int", fmt.Sprint(value))
}
