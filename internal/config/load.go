package config

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/internal/spelling"
)

// Options specify where the configuration comes from.
type Options struct {
	// File to read; empty is DefaultFile. A missing file is a problem only
	// when FileRequired.
	File         string
	FileRequired bool
	// Env has the form of os.Environ. An empty variable counts as not set.
	Env []string
	// Flags by flag name without dashes, as AddFlags names them. They win
	// over file and environment.
	Flags map[string]string
	// Sets are key=value with dotted keys. They win over everything, later
	// ones over earlier ones. integrations.NAME.key is a key of one integration.
	Sets []string
	// Integration is the one that Load returns. Empty is default, or the only one.
	// Flags of its keys are of this integration.
	Integration string
	// Partial is for commands that use a part of the configuration: what is
	// there must be valid, but keys may be missing and the files named in it
	// are not opened.
	Partial bool
}

// Load reads all sources and returns the validated configuration of one
// integration, or an error that joins one *Problem for each mistake. Mistakes of other
// integrations are none. No error holds the value of a secret. It reads files and the
// given options only, never the process's own environment.
func Load(o Options) (*Config, error) {
	l := read(o)
	one := l.choose(o.Integration, o.Partial)
	if one == nil {
		return nil, l.problemsOf("")
	}
	one.takeFlags(o.Flags)
	one.refuseIgnoredSets()
	all := l.complete(o, one)
	if err := l.problemsOf(one.name); err != nil {
		return nil, err
	}
	return all[0].Config, nil
}

// problemsOf joins the problems of one integration and those that are of none.
func (l *loader) problemsOf(name string) error {
	return joined(slices.DeleteFunc(l.problems, func(p *Problem) bool { return p.Integration != "" && p.Integration != name }))
}

// read reads all sources. It opens none of the files that they name, but those of
// integrations_dir.
func read(o Options) *loader {
	l := newLoader()
	l.readFile(o.file(), o.FileRequired)
	l.readEnv(o.Env)
	l.readFlags(o.Flags)
	sets := l.readSets(o.Sets)
	l.readIntegrations(o)
	l.setOverlays(sets)
	return l
}

func (o Options) file() string {
	if o.File == "" {
		return DefaultFile
	}
	return o.File
}

// loader gathers values and problems. It parses before it stores, because only then
// the line or variable of a bad value is known. That of an integration begins with
// the values of the base.
type loader struct {
	values   map[string]any    // by key; those that a source gave
	origins  map[string]origin // key -> where its winning value came from
	faulty   map[string]bool   // keys and sections with a problem already reported
	problems []*Problem

	// Of the base only.
	inline     *yaml.Node // what the key integrations of the file holds
	file       string     // the file
	overlays   []*loader  // of the integrations, as they were found
	incomplete bool       // not all integrations are known, because of a problem

	// Of an integration only.
	base *loader
	name string
	at   origin // its name in the file
	// record: it is an installed one, which names no files.
	record bool
}

func newLoader() *loader {
	return &loader{values: map[string]any{}, origins: map[string]origin{}, faulty: map[string]bool{}, name: DefaultIntegration}
}

// config returns the configuration that the values make up, and reports its problems.
func (l *loader) config(o Options, report func(p Problem)) *Config {
	c := Defaults()
	for path, value := range l.values {
		if k := schema.Key(path); k != nil {
			k.In(&c).Set(reflect.ValueOf(value))
		}
	}
	c.Rejects.Integration = l.name
	if _, given := l.origins["kafka.group"]; !given && c.Deployment != "" {
		c.Kafka.Group = c.defaultGroup()
	}
	check := &setting.Check{Schema: schema, Root: &c, Partial: o.Partial || l.base == nil && !l.hasDefault(), Files: !o.Partial && !l.record, Faulty: maps.Clone(l.faulty),
		Report: func(key, value, rule, remedy string) {
			from := l.origins[key]
			if from == (origin{}) && key == "kafka.group" {
				from = l.origins["deployment"]
			}
			report(*from.problem(key, value, rule, remedy))
		}}
	check.Run()
	return &c
}

// origin is where a value came from.
type origin struct {
	source string
	line   int
}

func (o origin) problem(key, value, rule, remedy string) *Problem {
	return &Problem{Key: key, Value: setting.Shortened(value), Rule: rule, Remedy: remedy, Source: o.source, Line: o.line}
}

func (l *loader) problem(from origin, key, value, rule, remedy string) {
	p := from.problem(key, value, rule, remedy)
	if l.base == nil {
		l.problems = append(l.problems, p)
		return
	}
	p.Integration = l.name
	l.base.problems = append(l.base.problems, p)
}

// layer is what one source gave: by key, the spelling that was used.
type layer map[string]string

// take parses a value for the key that path spells and stores it, unless the same
// source has given the key before.
func (l *loader) take(from origin, source layer, path, text string, list []string) {
	k := l.lookup(path)
	if other, ok := source[k.Path]; ok {
		l.problem(from, path, "", "is the same key as "+other+", which is given too", "keep one of them")
		return
	}
	source[k.Path] = path
	if k.Process && l.base != nil {
		l.problem(from, k.Path, "", "belongs to the base, since all integrations share it", "set it at the top of the configuration file instead")
		return
	}
	value, rule, remedy := k.Parse(text, list)
	if rule == "" {
		l.values[k.Path] = value
		l.origins[k.Path] = from
		return
	}
	if list != nil {
		text = strings.Join(list, ",")
	}
	if k.Type == "secret" {
		text = ""
	}
	l.problem(from, path, text, rule, remedy)
	l.faulty[k.Path] = true
}

func (l *loader) unknown(from origin, path string) {
	remedy := "see config.example.yaml for all keys"
	section := path[:max(strings.LastIndexByte(path, '.'), 0)]
	near := suggest(path)
	if l.base != nil && spelling.Nearest(path, []string{enabled.Path}) != "" {
		near = enabled.Path
	}
	if near != "" {
		remedy = "did you mean " + near + "?"
		l.faulty[near] = true
	} else if names := l.keysOf(section); names != "" {
		remedy = "the keys of " + section + " are " + names
	}
	l.problem(from, setting.Shortened(path), "", setting.UnknownKey, remedy)
}

// Problem is one mistake in the configuration.
type Problem = setting.Problem

// Problems returns the problems joined in an error of Load, in the order they
// are printed; nil for any other error.
func Problems(err error) []*Problem {
	var one *Problem
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	if errors.As(err, &one) {
		return []*Problem{one}
	}
	return nil
}
