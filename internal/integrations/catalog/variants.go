package catalog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
)

// The bounds of a folder: how many variants, and the bytes of each, which become part of
// a record of the store.
const maxFiles, maxBytes = 100, 128 << 10

// variantKey is what the name of a file must be, without its extension.
var variantKey = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?$`)

// builtins returns the built-in variants. They are read-only.
var builtins = sync.OnceValue(func() (all []Variant) {
	for _, key := range mapping.Builtins() {
		text, _ := mapping.Builtin(key)
		v := describe(key, key+".yaml", text)
		v.Blueprint = ""
		all = append(all, v)
	}
	return all
})

// variants returns the built-in variants and those of dir. The error is about dir itself.
func variants(dir string) ([]Variant, error) {
	all := slices.Clone(builtins())
	if dir == "" {
		return all, nil
	}
	names, err := plaintext.List(dir, isVariantFile, maxFiles)
	if err != nil {
		return all, fmt.Errorf("reading store.variants_dir: %w; name a folder that this user can read", err)
	}
	for _, name := range names {
		file, key := filepath.Join(dir, name), strings.TrimSuffix(name, filepath.Ext(name))
		v := Variant{Key: key, Name: key, DefaultConfig: map[string]any{}}
		data, err := plaintext.ReadFile(file, maxBytes)
		switch {
		case !variantKey.MatchString(key):
			v.Problem = fmt.Sprintf("%q is not the name of a variant; name the file with lower-case letters, digits, - and _, at most 40", key)
		case slices.ContainsFunc(all, func(o Variant) bool { return o.Key == key }):
			v.Problem = fmt.Sprintf("there is another variant %s; rename the file %s", key, name)
		case err != nil:
			v.Problem = fmt.Sprintf("cannot be read: %v; make it readable, or take it out of the folder", err)
		default:
			v = describe(key, file, data)
		}
		all = append(all, v)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break // a mount that hangs would hang for each of its files
		}
	}
	return all, nil
}

func isVariantFile(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// describe returns the variant of a blueprint, or one with a Problem.
func describe(key, file string, text []byte) Variant {
	v := Variant{Key: key, Name: key, Blueprint: string(text), DefaultConfig: map[string]any{}}
	blueprint, err := mapping.Parse(file, text)
	var columns []string
	if err == nil {
		columns, err = columnsOf(blueprint)
	}
	if err != nil {
		v.Problem, v.Blueprint = plaintext.Visible(err.Error()), ""
		return v
	}
	if blueprint.Name != "" {
		v.Name = blueprint.Name
	}
	v.Description = blueprint.Description
	base, _ := columnsOf(mapping.Default()) // it compiles without a table
	for _, name := range columns {
		if !slices.ContainsFunc(base, func(b string) bool { return strings.EqualFold(b, name) }) {
			v.Adds = append(v.Adds, name)
		}
	}
	return v
}

func columnsOf(b *mapping.Blueprint) ([]string, error) {
	m, err := b.Compile(mapping.Options{AllOptional: true})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range m.Columns() {
		names = append(names, c.Name)
	}
	return names, nil
}
