package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/internal/spelling"
)

// overlaysKey is the key of the file that maps the names of integrations to overlays.
// An overlay holds the keys in which an integration differs from the base.
const overlaysKey = "integrations"

// Bounds of what is read.
const (
	maxOverlayFiles = 1000
	maxIntegrations = 256
	maxProblems     = 100 // after these, no further integration is read
)

var slug = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// readIntegrations reads the overlays of the file and of integrations_dir.
func (l *loader) readIntegrations(o Options) {
	if l.inline != nil {
		l.readOverlays(l.file, l.inline)
	}
	dir, _ := l.values["integrations_dir"].(string)
	if dir == "" {
		return
	}
	fail := func(rule, remedy string) {
		l.problem(l.origins["integrations_dir"], "integrations_dir", dir, rule, remedy)
		l.incomplete = true
	}
	names, err := plaintext.List(dir, isOverlayFile, maxOverlayFiles)
	if err != nil {
		fail("cannot be read: "+setting.Cause(err), "name a folder that this user can read")
		return
	}
	for _, name := range names {
		if len(l.problems) > maxProblems {
			return
		}
		file := filepath.Join(dir, name)
		data, err := plaintext.ReadFile(file, maxFileBytes)
		if err != nil {
			l.problem(origin{source: file}, "", "", "cannot be read: "+setting.Cause(err), "make it readable, or take it out of integrations_dir")
			l.incomplete = true
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return // a mount that hangs would hang for each of its files
			}
			continue
		}
		if !l.parseFile(file, data, func(root *yaml.Node) { l.readOverlays(file, root) }) {
			l.incomplete = true
		}
	}
	if len(l.overlays) == 0 && !l.incomplete && !l.hasDefault() && !l.hasStore() && !o.Partial {
		fail("holds no integration, and the configuration file describes none", "add a file to it, or set zerobus.table")
	}
}

func isOverlayFile(name string) bool {
	return !strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml"))
}

// readOverlays reads a mapping of names to overlays.
func (l *loader) readOverlays(file string, n *yaml.Node) {
	n = target(n)
	fail := func(at *yaml.Node, key, rule, remedy string) {
		l.problem(origin{file, at.Line}, key, "", rule, remedy)
		l.incomplete = true
	}
	switch {
	case isNull(n):
		return
	case n.Kind != yaml.MappingNode:
		fail(n, overlaysKey, "must hold names of integrations, each with its keys indented below it", "see config.example.yaml")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := target(n.Content[i])
		if len(l.problems) >= maxProblems {
			fail(key, "", fmt.Sprintf("is not read from here on, after %d problems", maxProblems), "fix the others first")
			return
		}
		if rule, remedy := l.nameRule(key); rule != "" {
			fail(key, overlaysKey+"."+key.Value, rule, remedy)
			continue
		}
		if len(l.overlays) == maxIntegrations {
			fail(key, overlaysKey, fmt.Sprintf("must not be more than %d", maxIntegrations), "divide them among several deployments")
			return
		}
		one := l.overlay(key.Value, origin{file, key.Line})
		w := walk{l: one, file: file, given: layer{}, seen: map[string]int{}}
		w.section(n.Content[i+1], "")
		one.dropReplaced(w.given)
		l.overlays = append(l.overlays, one)
	}
}

// nameRule returns what is wrong with the name of an integration.
func (l *loader) nameRule(key *yaml.Node) (rule, remedy string) {
	name := key.Value
	section, _, _ := strings.Cut(name, ".")
	switch first := l.named(name); {
	case key.Kind != yaml.ScalarNode:
		return "holds a key that is not a plain name", "write the name of an integration"
	case name == overlaysKey:
		return "must not hold " + overlaysKey + " again", "take this line out and indent less what is below it"
	case schema.Sections[section] || lookup(name) != nil:
		return "is a key of the base, not the name of an integration",
			"indent it below a name, as in orders: {kafka: {topics: [orders]}}, or move it to the top of the configuration file"
	case name == DefaultIntegration:
		return "is reserved for the integration that the top of the configuration file describes", "choose another name"
	case !slug.MatchString(name):
		return "must be 1 to 40 of a-z, 0-9 and hyphens, and begin and end with one of a-z or 0-9", "choose another name; it becomes a part of the group's name"
	case first != nil && first.at.source != "":
		return fmt.Sprintf("is given twice, first in %s", first.at), "keep one of them, or rename one"
	}
	return "", ""
}

// overlay returns the loader of an integration, with the values of the base.
func (l *loader) overlay(name string, at origin) *loader {
	one := &loader{base: l, name: name, at: at, values: map[string]any{}, origins: map[string]origin{}, faulty: map[string]bool{}}
	for path, value := range l.values {
		one.values[path], one.origins[path] = value, l.origins[path]
	}
	for path := range l.faulty {
		one.faulty[path] = true
	}
	one.drop("kafka.group") // of the base's own integration
	table, _ := one.values["zerobus.table"].(string)
	if parts := strings.Split(table, "."); len(parts) == 3 && !slices.Contains(parts, "") {
		for i, path := range []string{"zerobus.catalog", "zerobus.schema"} {
			if given, _ := one.values[path].(string); given == "" {
				one.values[path], one.origins[path] = parts[i], one.origins["zerobus.table"]
			} else if given != parts[i] {
				return one // reported as a contradiction
			}
		}
		one.values["zerobus.table"] = parts[2]
	}
	return one
}

func (l *loader) drop(path string) {
	delete(l.values, path)
	delete(l.origins, path)
	delete(l.faulty, path)
}

// dropReplaced drops values that the given ones replace although they have other keys:
// those of dropAlternatives, and the parts of a full table name.
func (l *loader) dropReplaced(given layer) {
	sets := l.dropAlternatives(given, alternatives()...)
	if table, _ := l.values["zerobus.table"].(string); sets("zerobus.table") && strings.Count(table, ".") == 2 {
		for _, path := range []string{"zerobus.catalog", "zerobus.schema"} {
			if given[path] == "" {
				l.drop(path)
			}
		}
	}
}

// blueprints are the keys that give the blueprint.
var blueprints = []string{"mapping.blueprint", "mapping.blueprint_text", "mapping.variant"}

// alternatives returns groups of keys: a source that gives one of a group replaces the
// others. A secret, its file and the key that takes its place are one.
func alternatives() [][]string {
	groups := [][]string{blueprints}
	for _, k := range schema.Keys {
		if k.Type == "secret" {
			groups = append(groups, k.Alternatives())
		}
	}
	return groups
}

// dropAlternatives drops the values that the given ones replace. It returns whether a key
// was given a value.
func (l *loader) dropAlternatives(given layer, groups ...[]string) (sets func(path string) bool) {
	sets = func(path string) bool {
		v := l.values[path]
		return given[path] != "" && v != nil && reflect.ValueOf(v).Len() > 0
	}
	for _, group := range groups {
		for _, path := range group {
			if given[path] == "" && slices.ContainsFunc(group, sets) {
				l.drop(path)
			}
		}
	}
	return sets
}

// cutOverlay splits a key of --set that is of an integration.
func cutOverlay(path string) (name, key string, ok bool) {
	rest, ok := strings.CutPrefix(path, overlaysKey+".")
	name, key, _ = strings.Cut(rest, ".")
	return name, key, ok
}

// setOverlays takes the pairs of --set that are of integrations.
func (l *loader) setOverlays(sets []string) {
	from := origin{source: setFlag}
	for _, set := range sets {
		path, value, _ := strings.Cut(set, "=")
		path = strings.TrimSpace(path)
		name, key, _ := cutOverlay(path)
		one := l.named(name)
		switch {
		case key == "":
			l.problem(from, setting.Shortened(path), "", "is no key", "name the integration and the key, as in --set integrations.orders.kafka.start=latest")
		case name == DefaultIntegration:
			l.problem(from, setting.Shortened(path), "", "is not a key of an overlay", "name the key of the base, as in --set kafka.start=latest")
		case one == nil && l.incomplete: // reported
		case one == nil:
			l.problem(from, setting.Shortened(path), "", "is of no integration of the configuration", l.namesRemedy(name))
		case schema.Sections[key]:
			one.problem(from, path, "", "is a section, not a key", "name the key too, as in --set integrations.orders.kafka.start=latest")
		case one.lookup(key) == nil:
			one.unknown(from, key)
		default:
			given := layer{}
			one.take(from, given, key, value, nil)
			one.dropReplaced(given)
		}
	}
}

// refuseIgnoredSets reports the pairs of --set that are of the base and that the
// integration has other values for. Who names one integration means that one: its
// command would use another table than the one on the command line.
func (l *loader) refuseIgnoredSets() {
	if l.base == nil {
		return
	}
	for _, k := range schema.Keys {
		if from := l.base.origins[k.Path]; from.source == setFlag && !k.Process && l.origins[k.Path] != from {
			l.problem(from, k.Path, "", "has no effect, since the integration wins over the base", "write --set integrations."+l.name+"."+k.Path+"=...")
		}
	}
}

// takeFlags takes the values of flags, which are among those of the base.
func (l *loader) takeFlags(flags map[string]string) {
	for name := range flags {
		if k := lookup(flagPath(name)); l.base != nil && k != nil && !k.Process && l.base.origins[k.Path].source == "--"+name {
			l.values[k.Path], l.origins[k.Path] = l.base.values[k.Path], l.base.origins[k.Path]
		}
	}
}

// named returns the loader of that integration, or nil. That of default is the base.
func (l *loader) named(name string) *loader {
	for _, one := range l.overlays {
		if one.name == name {
			return one
		}
	}
	if name == DefaultIntegration && l.hasDefault() {
		return l
	}
	return nil
}

// hasDefault reports whether the base describes an integration. Without any other, it
// is the one that is wanted.
func (l *loader) hasDefault() bool {
	table, _ := l.values["zerobus.table"].(string)
	dir, _ := l.values["integrations_dir"].(string)
	return table != "" || l.faulty["zerobus.table"] || l.faulty["zerobus"] || l.faulty[""] || len(l.overlays) == 0 && !l.incomplete && dir == "" && !l.hasStore()
}

// hasStore reports whether integrations may be installed too.
func (l *loader) hasStore() bool {
	return l.values["store.enabled"] == true || l.values["admin.enabled"] == true
}

// choose returns the loader of the integration that a command is for. Where there is
// no such, it reports why and returns nil.
func (l *loader) choose(name string, partial bool) *loader {
	switch one := l.named(cmp.Or(name, DefaultIntegration)); {
	case one != nil:
		return one
	case l.incomplete: // reported
	case name != "":
		l.problem(origin{}, "--integration", name, "is no integration of the configuration", l.namesRemedy(name))
	case len(l.overlays) == 1:
		return l.overlays[0]
	case len(l.overlays) == 0 && partial:
		return l
	case len(l.overlays) == 0:
		l.problem(origin{}, "zerobus.table", "", "is not set, and the configuration describes no integration", "set it, or use the console or bridge integrations for those that are installed")
	default:
		l.problem(origin{}, "--integration", "", "must name one of the integrations", l.namesRemedy(""))
	}
	return nil
}

// namesRemedy names the integration that is meant, or those that exist.
func (l *loader) namesRemedy(meant string) string {
	var names []string
	for _, one := range l.all() {
		names = append(names, one.name)
	}
	if near := spelling.Nearest(meant, names); near != "" {
		return "did you mean " + near + "?"
	}
	if len(names) == 0 {
		return "no file describes one"
	}
	return "there is " + listed(names)
}

// listed joins names, and counts those beyond a few.
func listed(names []string) string {
	const most = 20
	if more := len(names) - most; more > 0 {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("%d more", more))
	}
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " and " + names[last]
	}
	return strings.Join(names, "")
}

// all returns the loaders of all integrations, in the order of their names.
func (l *loader) all() []*loader {
	all := slices.Clone(l.overlays)
	if l.hasDefault() {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *loader) int { return cmp.Compare(a.name, b.name) })
	return all
}
