package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/mapping"
)

// schemaHome is where the schemas of docs/schema can be read by editors.
const schemaHome = "https://raw.githubusercontent.com/datafly/bridge/main/docs/schema/"

// schemaNames are the files there is a schema for.
var schemaNames = []string{"blueprint", "config"}

func newSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema blueprint|config",
		Short: "Print the JSON Schema of a blueprint or of the configuration file",
		Long: `schema prints a JSON Schema (draft 2020-12) by which editors complete keys, show
what they mean and mark mistakes. docs/schema holds the same two files. Editors
that use the YAML language server read it from a first line such as
  # yaml-language-server: $schema=blueprint.schema.json`,
		Example: `  bridge schema blueprint > blueprint.schema.json
  bridge schema config > config.schema.json`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: schemaNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := schemaText(args[0])
			if err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(text); err != nil {
				return fmt.Errorf("writing the schema: %w", err)
			}
			return nil
		},
	}
}

func schemaText(name string) ([]byte, error) {
	schema := mapping.Schema()
	if name == "config" {
		var err error
		if schema, err = configSchema(); err != nil {
			return nil, err
		}
	}
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["$id"] = schemaHome + name + ".schema.json"
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the schema: %w", err)
	}
	return append(text, '\n'), nil
}

// configSchema is made of the keys and of the comments in the example.
func configSchema() (map[string]any, error) {
	example, err := document("config.example.yaml")
	if err != nil {
		return nil, err
	}
	comments, err := keyComments(example)
	if err != nil {
		return nil, err
	}
	root := sectionSchema("The configuration of the bridge. Every key may also come from the environment or the command line.")
	root["title"] = "Configuration of the bridge"
	for _, k := range config.Keys() {
		at, path := root, strings.Split(k.Path, ".")
		for i, name := range path[:len(path)-1] {
			inner, _ := at["properties"].(map[string]any)
			if inner[name] == nil {
				inner[name] = sectionSchema(comments[strings.Join(path[:i+1], ".")])
			}
			at, _ = inner[name].(map[string]any)
		}
		properties, _ := at["properties"].(map[string]any)
		shape := keySchema(k)
		shape["description"] = strings.TrimSpace(comments[k.Path]) + "\n\nEnvironment: " + k.Env
		properties[path[len(path)-1]] = shape
		for other, to := range config.Aliases() {
			if to == k.Path {
				same := maps.Clone(shape)
				same["description"] = "Another name of " + k.Path + "."
				properties[other[strings.LastIndexByte(other, '.')+1:]] = same
			}
		}
	}
	return root, nil
}

func sectionSchema(about string) map[string]any {
	return map[string]any{"type": []string{"object", "null"}, "description": strings.TrimSpace(about), "properties": map[string]any{}, "additionalProperties": false}
}

// keySchema is the shape of one value. The file is read as text, so that a
// number in quotes is a number, and a key with nothing after it keeps its default.
func keySchema(k *config.Key) map[string]any {
	null := map[string]any{"type": "null"}
	text := func(pattern string) map[string]any { return map[string]any{"type": "string", "pattern": pattern} }
	anyOf := func(shapes ...any) map[string]any { return map[string]any{"anyOf": append(shapes, null)} }
	plain := map[string]any{"type": []string{"string", "number", "boolean"}}
	var out map[string]any
	var standard any = k.Default
	switch {
	case len(k.Choices) > 0:
		var spellings []string
		for _, c := range k.Choices {
			spellings = append(spellings, anyCase(c))
		}
		out = anyOf(map[string]any{"enum": k.Choices}, text(`^\s*(`+strings.Join(spellings, "|")+`)\s*$`))
	case k.Type == "list":
		out = anyOf(map[string]any{"type": "array", "items": plain}, plain)
		standard = []string{}
		if k.Default != "" {
			standard = strings.Split(k.Default, ",")
		}
	case k.Type == "boolean":
		out = anyOf(map[string]any{"type": "boolean"}, map[string]any{"enum": []int{0, 1}}, text(`^\s*([01tTfF]|`+anyCase("true")+`|`+anyCase("false")+`)\s*$`))
		standard = k.Default == "true"
	case k.Type == "integer":
		out = anyOf(map[string]any{"type": "integer"}, text(`^\s*[+-]?[0-9]+\s*$`))
		standard, _ = strconv.Atoi(k.Default)
	case k.Type == "number":
		out = anyOf(map[string]any{"type": "number"}, text(`^\s*[+-]?([0-9]|\.[0-9])`))
		standard, _ = strconv.ParseFloat(k.Default, 64)
	case k.Type == "duration":
		out = anyOf(text(`^\s*[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+)\s*$`), map[string]any{"const": 0})
		out["examples"] = []string{"500ms", "45s", "2m"}
	case k.Type == "size":
		out = anyOf(map[string]any{"type": "integer", "minimum": 0}, text(`^\s*[+]?[0-9]+\s*(`+strings.Join([]string{anyCase("kib"), anyCase("mib"), anyCase("gib"), anyCase("kb"), anyCase("mb"), anyCase("gb"), anyCase("b")}, "|")+`)?\s*$`))
		out["examples"] = []string{"256KiB", "4MiB"}
	default:
		return textSchema(k, plain)
	}
	if !k.Required {
		out["default"] = standard
	}
	return out
}

func textSchema(k *config.Key, plain map[string]any) map[string]any {
	out := map[string]any{"type": append(slices.Clone(plain["type"].([]string)), "null")}
	if !k.Required && k.Type != "secret" {
		out["default"] = k.Default
	}
	return out
}

// anyCase is a pattern for a word in any case, its hyphens and underscores being
// the same: patterns of JSON Schema have no flag for that.
func anyCase(word string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(word) {
		switch {
		case r == '-' || r == '_':
			b.WriteString("[-_]")
		case 'a' <= r && r <= 'z':
			fmt.Fprintf(&b, "[%c%c]", r-'a'+'A', r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
