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

// File returns the keys that differ from their defaults as a configuration file.
// Secrets are left out: left are the keys of those that c holds itself.
func (c *Config) File() (text []byte, left []string, err error) {
	text, err = c.YAML()
	var doc yaml.Node
	if err == nil {
		err = yaml.Unmarshal(text, &doc)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("writing the configuration: %w", err)
	}
	defaults := Defaults()
	for _, root := range doc.Content {
		left = c.prune(root, "", &defaults)
	}
	text, err = yaml.Marshal(&doc)
	return text, left, err
}

// prune takes out of a section what File leaves out.
func (c *Config) prune(section *yaml.Node, prefix string, defaults *Config) (left []string) {
	kept := []*yaml.Node{}
	for at := 0; at+1 < len(section.Content); at += 2 {
		key, value := section.Content[at], section.Content[at+1]
		path := prefix + key.Value
		if schema.Sections[path] {
			if left = append(left, c.prune(value, path+".", defaults)...); len(value.Content) > 0 {
				kept = append(kept, key, value)
			}
			continue
		}
		switch k := schema.Key(path); {
		case k.Same(c, defaults), path == "kafka.group" && c.Kafka.Group == c.defaultGroup():
		case k.Type == "secret":
			left = append(left, path)
		default:
			if value.Kind == yaml.SequenceNode {
				value.Style = yaml.FlowStyle
			}
			kept = append(kept, key, value)
		}
	}
	section.Content = kept
	return left
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
