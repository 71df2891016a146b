package blueprinttest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

const (
	// maxJSON bounds one event or row of a test file as JSON, in bytes, so that
	// aliases cannot fill memory.
	maxJSON = 4 << 20
	// maxDepth bounds its nesting: an alias may refer to the anchor it is in.
	maxDepth = 1000
)

// yamlToJSON appends a YAML value as JSON. Numbers keep their digits; a date
// without quotes is text, as everywhere in JSON.
func yamlToJSON(dst []byte, n *yaml.Node, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, fmt.Errorf("line %d: nests deeper than %d; write such an event as text", n.Line, maxDepth)
	}
	if len(dst) > maxJSON {
		return dst, fmt.Errorf("line %d: is larger than %d MiB", n.Line, maxJSON>>20)
	}
	var err error
	switch n.Kind {
	case yaml.AliasNode:
		return yamlToJSON(dst, n.Alias, depth+1)
	case yaml.SequenceNode, yaml.MappingNode:
		brackets := "[]"
		if n.Kind == yaml.MappingNode {
			brackets = "{}"
		}
		dst = append(dst, brackets[0])
		for i, item := range n.Content {
			value := n.Kind == yaml.MappingNode && i%2 == 1
			switch {
			case value:
				dst = append(dst, ':')
			case i > 0:
				dst = append(dst, ',')
			}
			if n.Kind == yaml.MappingNode && !value {
				dst, err = jsontext.AppendQuote(dst, item.Value)
			} else {
				dst, err = yamlToJSON(dst, item, depth+1)
			}
			if err != nil {
				return dst, err
			}
		}
		return append(dst, brackets[1]), nil
	}
	switch n.Tag {
	case "!!null":
		return append(dst, "null"...), nil
	case "!!bool":
		return append(dst, strings.ToLower(n.Value)...), nil
	case "!!int", "!!float":
		if !json.Valid([]byte(n.Value)) {
			return dst, fmt.Errorf("line %d: %s is not a number JSON can carry; write it in plain decimal form, or in quotes as text", n.Line, n.Value)
		}
		return append(dst, n.Value...), nil
	}
	return jsontext.AppendQuote(dst, n.Value)
}

// controls are characters that JSON allows and YAML does not.
var controls = regexp.MustCompile(`[\x{7f}-\x{9f}\x{feff}\x{fffe}\x{ffff}]`)

// jsonToYAML returns a JSON value as YAML, with the order of members kept.
func jsonToYAML(text []byte) (*yaml.Node, error) {
	// JSON is YAML except for escaped surrogates, which formatting resolves, and
	// control characters.
	value := jsontext.Value(text).Clone()
	if err := value.Format(jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, fmt.Errorf("reading a row: %w", err)
	}
	value = controls.ReplaceAllFunc(value, func(c []byte) []byte { return fmt.Appendf(nil, `\u%04x`, []rune(string(c))[0]) })
	var doc yaml.Node
	if err := yaml.Unmarshal(value, &doc); err != nil {
		return nil, fmt.Errorf("reading a row: %w", err)
	}
	plainStyle(doc.Content[0])
	return doc.Content[0], nil
}

// plainStyle drops the quotes and braces that YAML can do without.
func plainStyle(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.SequenceNode {
		n.Style = yaml.FlowStyle
	}
	for _, item := range n.Content {
		plainStyle(item)
	}
}

// sameJSON reports whether two JSON texts hold the same values. Numbers are
// equal when their digits are.
func sameJSON(a, b []byte) bool {
	x, y := jsontext.Value(a).Clone(), jsontext.Value(b).Clone()
	form := []jsontext.Options{jsontext.ReorderRawObjects(true), jsontext.AllowInvalidUTF8(true)}
	return x.Format(form...) == nil && y.Format(form...) == nil && string(x) == string(y)
}
