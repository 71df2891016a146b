package mapping

import "strings"

// keyDoc is one key a blueprint may hold and what it means.
type keyDoc struct{ name, about string }

// The keys of a blueprint. The parser and the JSON Schema both go by these.
var (
	documentKeys = []keyDoc{
		{"version", "Always 2."},
		{"extends", "default lays this document over the built-in blueprint: a mapping with the target of an existing one replaces it."},
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
