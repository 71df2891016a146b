package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxCaseJSON bounds what one event or row of a test file may become as JSON,
// so that aliases cannot fill memory.
const maxCaseJSON = 4 << 20

// maxCaseDepth bounds how deep it nests: an alias may stand inside its anchor.
const maxCaseDepth = 1000

// yamlToJSON appends a YAML value as JSON. Numbers stay as they are written, so
// that no digit is lost; a date without quotes is text, as everywhere in JSON.
func yamlToJSON(dst []byte, n *yaml.Node, depth int) ([]byte, error) {
	if depth > maxCaseDepth {
		return dst, fmt.Errorf("line %d: nests deeper than %d; write such an event as text", n.Line, maxCaseDepth)
	}
	if len(dst) > maxCaseJSON {
		return dst, fmt.Errorf("line %d: is larger than %d MiB", n.Line, maxCaseJSON>>20)
	}
	var err error
	switch n.Kind {
	case yaml.AliasNode:
		return yamlToJSON(dst, n.Alias, depth+1)
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = yamlToJSON(dst, item, depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case yaml.MappingNode:
		dst = append(dst, '{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendJSONText(dst, n.Content[i].Value), ':')
			if dst, err = yamlToJSON(dst, n.Content[i+1], depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
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
	return appendJSONText(dst, n.Value), nil
}

func appendJSONText(dst []byte, s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a text and a buffer cannot fail
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// jsonToYAML makes a YAML value of JSON, members in the order they stand in.
func jsonToYAML(text []byte) (*yaml.Node, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	n, err := yamlValue(dec)
	if err != nil {
		return nil, fmt.Errorf("reading a row: %w", err)
	}
	return n, nil
}

func yamlValue(dec *json.Decoder) (*yaml.Node, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	scalar := func(tag, value string) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}, nil
	}
	switch v := token.(type) {
	case nil:
		return scalar("!!null", "null")
	case bool:
		return scalar("!!bool", fmt.Sprint(v))
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return scalar("!!float", v.String())
		}
		return scalar("!!int", v.String())
	case string:
		return scalar("!!str", v)
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	if token == json.Delim('{') {
		n = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	}
	for dec.More() {
		item, err := yamlValue(dec)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, item)
	}
	_, err = dec.Token() // the closing one
	return n, err
}

// sameJSON reports whether two texts of JSON hold the same values; numbers are
// the same when they are written the same.
func sameJSON(a, b []byte) bool {
	x, errA := canonicalJSON(a)
	y, errB := canonicalJSON(b)
	return errA == nil && errB == nil && bytes.Equal(x, y)
}

// canonicalJSON sorts members by name.
func canonicalJSON(text []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return json.Marshal(v)
}
