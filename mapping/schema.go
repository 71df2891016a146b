package mapping

import (
	"maps"
	"slices"
	"strings"

	"github.com/datafly/bridge/internal/delta"
)

// Schema returns the JSON Schema (draft 2020-12) of a blueprint as the values
// encoding/json writes, made of the tables the parser uses. What it refuses,
// Parse refuses too; whether paths, expressions, types and constants are right
// is for Parse and Compile to say.
func Schema() map[string]any {
	properties := map[string]any{}
	for _, k := range documentKeys {
		properties[k.name] = described(documentKeys, k.name, documentShape(k.name))
	}
	return map[string]any{
		"title":                "Blueprint",
		"description":          "Which field of an event feeds which column of the table.",
		"type":                 "object",
		"properties":           properties,
		"required":             []string{"version"},
		"additionalProperties": false,
		"$defs": map[string]any{
			"mapping": mappingShape(),
			"scalar":  map[string]any{"type": []string{"string", "number", "boolean", "null"}},
		},
	}
}

func described(keys []keyDoc, name string, shape map[string]any) map[string]any {
	shape["description"] = about(keys, name)
	return shape
}

func ref(def string) map[string]any { return map[string]any{"$ref": "#/$defs/" + def} }

func documentShape(key string) map[string]any {
	switch key {
	case "version":
		return map[string]any{"enum": []any{2, "2"}, "default": 2}
	case "extends":
		return map[string]any{"enum": Builtins()}
	case "name", "description":
		return map[string]any{"type": []string{"string", "number", "boolean"}, "minLength": 1}
	case "delivery_mode":
		return map[string]any{"const": "server_side"}
	case "parameters":
		return map[string]any{"type": []string{"object", "null"}}
	case "filter":
		return map[string]any{"type": "string"}
	case "defaults":
		words := slices.Sorted(maps.Keys(actions))
		return listed(map[string]any{"action": map[string]any{"enum": words, "default": "forward", "description": "What happens to events without a section."}})
	case "events":
		section := map[string]any{
			"enabled": described(sectionKeys, "enabled", map[string]any{"type": "boolean", "default": true}),
			"filter":  described(sectionKeys, "filter", map[string]any{"type": "string"}),
		}
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": listed(section)}
	}
	return listed(map[string]any{}) // global
}

// listed is a part of a blueprint that has mappings.
func listed(properties map[string]any) map[string]any {
	properties["mappings"] = map[string]any{"type": []string{"array", "null"}, "items": ref("mapping"), "description": "The columns: what feeds each."}
	for _, name := range unreadLists {
		properties[name] = map[string]any{"type": []string{"array", "object", "null"}, "maxItems": 0, "maxProperties": 0, "description": "Only empty: what Signal keeps here is not published."}
	}
	return map[string]any{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
}

func mappingShape() map[string]any {
	properties := map[string]any{}
	for _, k := range ruleKeys {
		properties[k.name] = described(ruleKeys, k.name, ruleShape(k.name))
	}
	return map[string]any{
		"type":                 "object",
		"properties":           properties,
		"required":             []string{"target"},
		"not":                  map[string]any{"required": []string{"source", "expression"}},
		"additionalProperties": false,
	}
}

func ruleShape(key string) map[string]any {
	switch key {
	case "source":
		path := map[string]any{"type": []string{"string", "number", "boolean"}, "examples": sourceExamples()}
		return map[string]any{"anyOf": []any{path, map[string]any{"type": "array", "items": path, "minItems": 1}, map[string]any{"type": "null"}}}
	case "target":
		return map[string]any{"type": "string", "pattern": columnName.String()}
	case "transform":
		one := map[string]any{"enum": transformNames}
		return map[string]any{"anyOf": []any{one, map[string]any{"type": "array", "items": one, "minItems": 1}, map[string]any{"type": "null"}}}
	case "format":
		return map[string]any{"enum": dateFormats, "default": dateFormats[0]}
	case "separator":
		return map[string]any{"type": []string{"string", "number"}, "default": ","}
	case "default_value":
		return ref("scalar")
	case "value_map":
		return map[string]any{"type": "object", "minProperties": 1, "additionalProperties": ref("scalar")}
	case "type":
		return map[string]any{"type": "string", "examples": typeExamples()}
	case "optional":
		return map[string]any{"type": "boolean", "default": false}
	case "enabled":
		return map[string]any{"type": "boolean", "default": true}
	}
	return map[string]any{"type": "string"} // expression
}

// sourceExamples are what editors offer where nothing is written yet.
func sourceExamples() []string {
	out := []string{"user_id", "properties.plan", "context.page.url", "$kafka.headers.<name>"}
	for name := range maps.Keys(kafkaFields) {
		out = append(out, "$kafka."+name)
	}
	slices.Sort(out)
	return out
}

func typeExamples() []string {
	out := append(delta.Names(true), "DECIMAL(12,2)", "VARCHAR(255)", "ARRAY<STRING>", "MAP<STRING,STRING>", "STRUCT<name:STRING>")
	slices.Sort(out)
	return out
}

// keyDoc is one key a blueprint may hold and what it means.
type keyDoc struct{ name, about string }

// The keys of a blueprint. The parser and the JSON Schema both use these.
var (
	documentKeys = []keyDoc{
		{"version", "Always 2."},
		{"name", "What people call the blueprint."},
		{"description", "What it adds, in one line."},
		{"extends", "Lays this document over a built-in blueprint, default or retail: a mapping with the target of an existing one replaces it."},
		{"delivery_mode", "server_side; the only one that passes through Kafka."},
		{"parameters", "Accepted because Signal writes it; the bridge takes its connection from its own configuration."},
		{"filter", "An expression every event must meet to become a row."},
		{"global", "Columns of every event."},
		{"defaults", "What happens to events without a section."},
		{"events", "Sections by the event's name, its name in snake_case, or its type."},
	}
	sectionKeys = []keyDoc{
		{"enabled", "false leaves the event out. Default: true."},
		{"filter", "An expression this event must meet, besides the one for all."},
		{"mappings", "Columns on top of the global ones for this event."},
	}
	ruleKeys = []keyDoc{
		{"source", "The path that feeds the column, or a list: the first that is present and not null counts. null removes the column."},
		{"expression", "An expression in the place of source, such as properties.price * properties.quantity."},
		{"target", "The column: ASCII letters, digits, underscores."},
		{"transform", "One transform, or a list applied from left to right."},
		{"format", "What date_format makes. Default: epoch_micros."},
		{"separator", "For split and join. Default: a comma."},
		{"default_value", "The value where no source is present or the expression gives nil; alone, a constant."},
		{"value_map", "Values to put in the place of others, after the transforms; \"*\" stands for all other values, null makes the column NULL."},
		{"type", "The column's type in Databricks SQL. Default: the table's, else what the last transform makes, else STRING."},
		{"optional", "true sends the column only to a table that is known to have it. Default: false."},
		{"enabled", "false removes the column, like source: null. Default: true."},
	}
	unreadLists = []string{"enrichments", "transforms"} // may only be empty
	actions     = map[string]bool{"drop": true, "forward": false, "pass": false, "passthrough": false, "allow": false, "send": false}
)

func names(keys []keyDoc) []string {
	var out []string
	for _, k := range keys {
		out = append(out, k.name)
	}
	return out
}

// about returns what a key means.
func about(keys []keyDoc, name string) string {
	for _, k := range keys {
		if k.name == name {
			return k.about
		}
	}
	panic("no key " + strings.TrimSpace(name)) // the tables above are closed; a test would have shown it
}
