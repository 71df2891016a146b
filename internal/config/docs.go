package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Page returns the reference of all keys as Markdown. example is the text of
// config.example.yaml, whose comments explain the keys.
func Page(example string) (string, error) {
	comments, err := Comments(example)
	if err != nil {
		return "", err
	}
	preface, _, _ := strings.Cut(example, "\n\n")
	var b strings.Builder
	b.WriteString("# Configuration\n\n" + uncommented(preface) + "\n")
	section := ""
	for _, k := range Keys() {
		parts := strings.Split(k.Path, ".")
		for i := 1; i < len(parts); i++ {
			if at := strings.Join(parts[:i], "."); !strings.HasPrefix(section+".", at+".") {
				fmt.Fprintf(&b, "\n#%s %s\n\n%s\n", strings.Repeat("#", i), at, comments[at])
			}
		}
		section = strings.Join(parts[:len(parts)-1], ".")
		about := k.Type
		if len(k.Choices) > 0 {
			about = "one of " + strings.Join(k.Choices, ", ")
		}
		if k.Required {
			about += ", required"
		} else if k.Default != "" {
			about += ", default " + k.Default
		}
		fmt.Fprintf(&b, "\n#%s %s\n\n`%s`, %s\n\n%s\n", strings.Repeat("#", len(parts)), k.Path, k.Env, about, comments[k.Path])
	}
	fmt.Fprintf(&b, "\n## %s\n\n%s\n", overlaysKey, comments[overlaysKey])
	return b.String(), nil
}

// Comments returns the comment above each key and section, by path. A key
// without one shares that of the key before it.
func Comments(example string) (map[string]string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(example), &doc); err != nil {
		return nil, fmt.Errorf("reading config.example.yaml: %w; this build lacks it, take a release", err)
	}
	comments := map[string]string{}
	var walk func(n *yaml.Node, prefix string)
	walk = func(n *yaml.Node, prefix string) {
		last := ""
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.HeadComment != "" {
				paragraphs := strings.Split(key.HeadComment, "\n\n")
				last = uncommented(paragraphs[len(paragraphs)-1])
			}
			path := prefix + key.Value
			comments[path] = last
			if value.Kind == yaml.MappingNode {
				walk(value, path+".")
			}
		}
	}
	walk(doc.Content[0], "")
	return comments, nil
}

// uncommented removes the #; indented lines become code.
func uncommented(comment string) string {
	var b strings.Builder
	code := false
	for line := range strings.Lines(comment + "\n") {
		line = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "#"), " ")
		if strings.HasPrefix(line, "  ") != code {
			b.WriteString("\n```\n")
			code = !code
		}
		b.WriteString(strings.TrimPrefix(line, "  ") + "\n")
	}
	if code {
		b.WriteString("```\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// JSONSchema returns the JSON Schema of the configuration file. example is the
// text of config.example.yaml, whose comments describe the keys.
func JSONSchema(example string) (map[string]any, error) {
	comments, err := Comments(example)
	if err != nil {
		return nil, err
	}
	// What an integration may set refers to the same keys of the base.
	overlay := sectionSchema("The keys in which an integration differs from the base.")
	overlays := map[string]any{"type": []string{"object", "null"}, "description": strings.TrimSpace(comments[overlaysKey]), "maxProperties": maxIntegrations,
		"propertyNames": map[string]any{"pattern": slug.String(), "not": map[string]any{"enum": reserved()}}, "additionalProperties": map[string]any{"$ref": "#/$defs/overlay"}}
	root := sectionSchema("The configuration of the bridge. Every key may also come from the environment or the command line.")
	root["title"] = "Configuration of the bridge"
	for _, k := range Keys() {
		shape := keySchema(k)
		shape["description"] = strings.TrimSpace(comments[k.Path]) + "\n\nEnvironment: " + k.Env
		add := func(path string, shape map[string]any) {
			addSchema(root, path, comments, shape)
			if !k.Process {
				ref := "#/properties/" + strings.ReplaceAll(path, ".", "/properties/")
				addSchema(overlay, path, comments, map[string]any{"$ref": ref})
			}
		}
		add(k.Path, shape)
		for other, to := range Aliases() {
			if to == k.Path {
				same := maps.Clone(shape)
				same["description"] = "Another name of " + k.Path + "."
				add(other, same)
			}
		}
	}
	shape := keySchema(enabled)
	shape["description"] = "Whether the integration runs."
	addSchema(overlay, enabled.Path, comments, shape)
	addSchema(root, overlaysKey, comments, map[string]any{"$ref": "#/$defs/integrations"})
	root["$defs"] = map[string]any{"overlay": overlay, "integrations": overlays}
	return root, nil
}

// reserved returns the names that no integration may have.
func reserved() []string {
	names := []string{DefaultIntegration, overlaysKey}
	for _, k := range Keys() {
		if name, _, _ := strings.Cut(k.Path, "."); slug.MatchString(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// addSchema adds the schema of a key to that of a section, and the sections between.
func addSchema(at map[string]any, path string, comments map[string]string, shape map[string]any) {
	names := strings.Split(path, ".")
	last := len(names) - 1
	for i, name := range names[:last] {
		inner, _ := at["properties"].(map[string]any)
		if inner[name] == nil {
			inner[name] = sectionSchema(comments[strings.Join(names[:i+1], ".")])
		}
		at, _ = inner[name].(map[string]any)
	}
	properties, _ := at["properties"].(map[string]any)
	properties[names[last]] = shape
}

func sectionSchema(about string) map[string]any {
	return map[string]any{"type": []string{"object", "null"}, "description": strings.TrimSpace(about), "properties": map[string]any{}, "additionalProperties": false}
}

// keySchema is the shape of one value. The file is read as text, so a number in
// quotes is a number, and a key with nothing after it keeps its default.
func keySchema(k *Key) map[string]any {
	pattern := func(p string) map[string]any { return map[string]any{"type": "string", "pattern": `^\s*` + p + `\s*$`} }
	typed := func(t string) map[string]any { return map[string]any{"type": t} }
	plain := []string{"string", "number", "boolean"}
	out, standard := map[string]any{}, any(k.Default)
	var shapes []any
	switch {
	case len(k.Choices) > 0:
		var spellings []string
		for _, c := range k.Choices {
			spellings = append(spellings, anyCase(c))
		}
		shapes = []any{map[string]any{"enum": k.Choices}, pattern("(" + strings.Join(spellings, "|") + ")")}
	case k.Type == "list":
		shapes = []any{map[string]any{"type": "array", "items": map[string]any{"type": plain}}, map[string]any{"type": plain}}
		standard = strings.FieldsFunc(k.Default, func(r rune) bool { return r == ',' })
	case k.Type == "boolean":
		shapes = []any{typed("boolean"), map[string]any{"enum": []int{0, 1}}, pattern("([01tTfF]|" + anyCase("true") + "|" + anyCase("false") + ")")}
		standard = k.Default == "true"
	case k.Type == "integer":
		shapes = []any{typed("integer"), pattern("[+-]?[0-9]+")}
		standard, _ = strconv.Atoi(k.Default)
	case k.Type == "number":
		shapes = []any{typed("number"), map[string]any{"type": "string", "pattern": `^\s*[+-]?([0-9]|\.[0-9])`}}
		standard, _ = strconv.ParseFloat(k.Default, 64)
	case k.Type == "duration":
		shapes = []any{pattern(`[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+)`), map[string]any{"const": 0}}
		out["examples"] = []string{"500ms", "45s", "2m"}
	case k.Type == "size":
		shapes = []any{map[string]any{"type": "integer", "minimum": 0}, pattern(`[+]?[0-9]+\s*(([kKmMgG][iI]?)?[bB])?`)}
		out["examples"] = []string{"256KiB", "4MiB"}
	default: // text and secrets
		out["type"] = append(plain, "null")
	}
	if shapes != nil {
		out["anyOf"] = append(shapes, typed("null"))
	}
	if !k.Required && k.Type != "secret" {
		out["default"] = standard
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
