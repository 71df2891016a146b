package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// YAML returns the configuration of the integration as a file, with secrets redacted.
// A comment behind a key names the source that set it: a file with its line, an
// environment variable or a flag. A key without one has its default.
func (i Integration) YAML() ([]byte, error) {
	text, err := i.Config.YAML()
	var doc yaml.Node
	if err == nil {
		err = yaml.Unmarshal(text, &doc)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the configuration of %s: %w", i.Name, err)
	}
	for _, root := range doc.Content {
		i.comment(root, "")
	}
	return yaml.Marshal(&doc)
}

func (i Integration) comment(section *yaml.Node, prefix string) {
	for at := 0; at+1 < len(section.Content); at += 2 {
		key, value := section.Content[at], section.Content[at+1]
		path := prefix + key.Value
		if schema.Sections[path] {
			i.comment(value, path+".")
		} else if from, set := i.origins[path]; set {
			if value.Kind == yaml.SequenceNode {
				value.Style = yaml.FlowStyle
			}
			value.LineComment = from.String()
		}
	}
}

// String returns the source, with the line if it is known.
func (o origin) String() string {
	if o.line > 0 {
		return fmt.Sprintf("%s:%d", o.source, o.line)
	}
	return o.source
}
