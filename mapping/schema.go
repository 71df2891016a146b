package mapping

import (
	"maps"
	"slices"

	"github.com/datafly/bridge/internal/delta"
)

// Schema returns the JSON Schema (draft 2020-12) of a blueprint as the values
// encoding/json writes, made of the tables the parser goes by. What it refuses,
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
		return map[string]any{"const": "default"}
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
