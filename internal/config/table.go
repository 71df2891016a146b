package config

import (
	"maps"
	"reflect"
	"slices"
	"time"
)

// Key describes one key of the configuration, for help and completion.
type Key struct {
	Path     string   // dotted, such as kafka.tls.ca_file
	Env      string   // the environment variable that sets it
	Type     string   // text, secret, list, duration, size, boolean, integer or number
	Default  string   // as a person would write it; empty where there is none
	Choices  []string // nil unless the set is closed
	Required bool     // nothing can be delivered without it
}

// Keys returns every key in the order of the example file.
func Keys() []Key {
	defaults := Defaults()
	all := make([]Key, 0, len(keys))
	for _, f := range keys {
		_, needed := required[f.path]
		all = append(all, Key{Path: f.path, Env: f.env(), Type: f.kind(), Default: f.text(&defaults),
			Choices: slices.Clone(choices[f.path]), Required: needed})
	}
	return all
}

// Borrowed returns the variables of other programs that are read as well, by
// name, with the key that each one sets.
func Borrowed() map[string]string { return maps.Clone(borrowed) }

// Aliases returns other spellings of keys, by their path, with the key that each
// one stands for.
func Aliases() map[string]string { return maps.Clone(aliases) }

// Named returns the flags of single keys, by flag name, with the key that each
// one sets.
func Named() map[string]string {
	flags := map[string]string{}
	for _, n := range named {
		flags[n.flag] = n.path
	}
	return flags
}

func (f *field) kind() string {
	switch f.typ {
	case reflect.TypeFor[Secret]():
		return "secret"
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	}
	switch f.typ.Kind() {
	case reflect.Slice:
		return "list"
	case reflect.Bool:
		return "boolean"
	case reflect.Int:
		return "integer"
	case reflect.Float64:
		return "number"
	}
	return "text"
}
