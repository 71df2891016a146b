package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/viper"
)

// Options say where the configuration comes from.
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
	// ones over earlier ones.
	Sets []string
	// Partial is for commands that use a part of the configuration: what is
	// there is held to its rules, but keys may be missing and the files named
	// in it are not opened.
	Partial bool
}

// Load reads all sources and returns the validated result, or an error that
// joins one *Problem for each thing wrong. No error holds the value of a
// secret. It reads files and the given options only, never the process's own
// environment.
func Load(o Options) (*Config, error) {
	l := &loader{values: viper.New(), origins: map[string]origin{}, spoilt: map[string]bool{}}
	defaults := Defaults()
	for _, f := range keys {
		l.values.SetDefault(f.path, f.of(&defaults).Interface())
	}
	file := o.File
	if file == "" {
		file = DefaultFile
	}
	l.readFile(file, o.FileRequired)
	l.readEnv(o.Env)
	l.readFlags(o.Flags)
	l.readSets(o.Sets)

	var c Config
	for _, f := range keys {
		f.of(&c).Set(reflect.ValueOf(l.values.Get(f.path)))
	}
	l.validate(&c, o.Partial)
	if len(l.problems) > 0 {
		all := make([]error, len(l.problems))
		for i, p := range l.problems {
			all[i] = p
		}
		return nil, errors.Join(all...)
	}
	return &c, nil
}

// loader gathers values and problems. viper holds the values and decides
// which source wins; the loader parses before it stores, because only there is
// known which line or variable a bad value came from.
type loader struct {
	values   *viper.Viper
	origins  map[string]origin // key -> where its winning value came from
	spoilt   map[string]bool   // keys and sections with a problem already told
	problems []*Problem
}

// origin is where a value came from.
type origin struct {
	source string
	line   int
}

func (o origin) problem(key, value, rule, remedy string) *Problem {
	return &Problem{Key: key, Value: shown(value), Rule: rule, Remedy: remedy, Source: o.source, Line: o.line}
}

// layer is what one source gave, by key.
type layer struct {
	values map[string]any
	spelt  map[string]string // key -> the spelling that was used
	from   map[string]origin
}

func newLayer() layer {
	return layer{values: map[string]any{}, spelt: map[string]string{}, from: map[string]origin{}}
}

// take parses a value for the key that path spells and puts it into the layer.
func (l *loader) take(to layer, path string, r raw, from origin) {
	f := lookup(path)
	if other, ok := to.spelt[f.path]; ok {
		l.problems = append(l.problems, from.problem(path, "", "is the same key as "+other+", which is given too", "keep one of them"))
		return
	}
	to.spelt[f.path], to.from[f.path] = path, from
	value, rule, remedy := f.parse(r)
	if rule != "" {
		text := r.String()
		if f.secret() {
			text = ""
		}
		l.problems = append(l.problems, from.problem(path, text, rule, remedy))
		l.spoil(f.path)
		return
	}
	to.values[f.path] = value
}

// merge lays one source over the ones before.
func (l *loader) merge(from layer) {
	nested := map[string]any{}
	for path, value := range from.values {
		parts := strings.Split(path, ".")
		at := nested
		for _, part := range parts[:len(parts)-1] {
			deeper, ok := at[part].(map[string]any)
			if !ok {
				deeper = map[string]any{}
				at[part] = deeper
			}
			at = deeper
		}
		at[parts[len(parts)-1]] = value
		l.origins[path] = from.from[path]
	}
	if err := l.values.MergeConfigMap(nested); err != nil {
		panic(fmt.Sprintf("merging configuration: %v", err)) // viper has no path that returns one
	}
}

// spoil notes that a key or section has had its problem told, so that no
// second message follows from the first.
func (l *loader) spoil(path string) { l.spoilt[path] = true }

// sound reports whether the key's value may be judged.
func (l *loader) sound(path string) bool {
	if l.spoilt[""] {
		return false
	}
	for p := path; ; {
		if l.spoilt[p] {
			return false
		}
		i := strings.LastIndexByte(p, '.')
		if i < 0 {
			return true
		}
		p = p[:i]
	}
}

func (l *loader) unknown(path string, from origin) {
	p := from.problem(shown(path), "", unknownKey, "see config.example.yaml for all keys")
	section := path[:max(strings.LastIndexByte(path, '.'), 0)]
	if near := suggest(path); near != "" {
		p.Remedy = "did you mean " + near + "?"
		l.spoil(near)
	} else if names := keysOf(section); names != "" {
		p.Remedy = "the keys of " + section + " are " + names
	}
	l.problems = append(l.problems, p)
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
