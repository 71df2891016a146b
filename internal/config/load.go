package config

import (
	"errors"
	"reflect"
	"strings"

	"github.com/spf13/viper"

	"github.com/datafly/bridge/internal/setting"
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
	// ones over earlier ones.
	Sets []string
	// Partial is for commands that use a part of the configuration: what is
	// there must be valid, but keys may be missing and the files named in it
	// are not opened.
	Partial bool
}

// Load reads all sources and returns the validated result, or an error that
// joins one *Problem for each mistake. No error holds the value of a secret. It
// reads files and the given options only, never the process's own environment.
func Load(o Options) (*Config, error) {
	l := newLoader()
	defaults := Defaults()
	for _, k := range schema.Keys {
		l.values.SetDefault(k.Path, k.In(&defaults).Interface())
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
	for _, k := range schema.Keys {
		k.In(&c).Set(reflect.ValueOf(l.values.Get(k.Path)))
	}
	check := &setting.Check{Schema: schema, Root: &c, Partial: o.Partial, Files: !o.Partial, Faulty: l.faulty,
		Report: func(key, value, rule, remedy string) {
			l.problems = append(l.problems, l.origins[key].problem(key, value, rule, remedy))
		}}
	check.Run()
	if len(l.problems) > 0 {
		return nil, errors.Join(l.problems...)
	}
	return &c, nil
}

// loader gathers values and problems. viper holds the values; the loader parses
// before it stores, because only then the line or variable of a bad value is known.
type loader struct {
	values   *viper.Viper
	origins  map[string]origin // key -> where its winning value came from
	faulty   map[string]bool   // keys and sections with a problem already reported
	problems []error           // each a *Problem
}

func newLoader() *loader {
	return &loader{values: viper.New(), origins: map[string]origin{}, faulty: map[string]bool{}}
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
	l.problems = append(l.problems, from.problem(key, value, rule, remedy))
}

// layer is what one source gave: by key, the spelling that was used.
type layer map[string]string

// take parses a value for the key that path spells and stores it, unless the same
// source has given the key before.
func (l *loader) take(from origin, source layer, path, text string, list []string) {
	k := lookup(path)
	if other, ok := source[k.Path]; ok {
		l.problem(from, path, "", "is the same key as "+other+", which is given too", "keep one of them")
		return
	}
	source[k.Path] = path
	value, rule, remedy := k.Parse(text, list)
	if rule == "" {
		l.values.Set(k.Path, value)
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
	if near := suggest(path); near != "" {
		remedy = "did you mean " + near + "?"
		l.faulty[near] = true
	} else if names := keysOf(section); names != "" {
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
