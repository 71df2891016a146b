package mapping

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
	"go.yaml.in/yaml/v3"
)

// maxBlueprint bounds the size of a blueprint in bytes.
const maxBlueprint = 1 << 20

// Parse reads a blueprint in YAML (or JSON, which is YAML). file is only used
// to name places. The reader is strict: an unknown key, transform or type, a
// key that stands twice and a value of the wrong kind are problems. All
// problems are returned at once, joined, each a *Problem.
func Parse(file string, data []byte) (*Blueprint, error) {
	p := &parser{file: file}
	if len(data) > maxBlueprint {
		return nil, &Problem{Position{file, 1, 1}, fmt.Sprintf("is %d bytes long; a blueprint may have %d", len(data), maxBlueprint)}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &Problem{Position{file, 1, 1}, "is empty; write at least version: 2 and extends: default"}
		}
		return nil, p.yamlProblem(err)
	}
	if err := dec.Decode(&second); err == nil {
		return nil, &Problem{Position{file, second.Line, second.Column}, "holds a second document; keep one per file"}
	} else if !errors.Is(err, io.EOF) {
		return nil, p.yamlProblem(err)
	}
	b := p.document(doc.Content[0])
	if len(p.problems) > 0 {
		return nil, errors.Join(p.problems...)
	}
	return b, nil
}

// parser walks the YAML nodes, which know their lines, and gathers problems.
type parser struct {
	file     string
	problems []error
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func (p *parser) yamlProblem(err error) error {
	line := 1
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if n, convErr := strconv.Atoi(m[1]); convErr == nil {
			line = n
		}
		text = text[len(m[0]):]
	}
	return &Problem{Position{p.file, line, 1}, "not valid YAML: " + text + "; mend the YAML at or just above that line; a value with special characters needs quotes"}
}

func (p *parser) at(n *yaml.Node) Position { return Position{p.file, n.Line, n.Column} }

func (p *parser) problem(n *yaml.Node, format string, args ...any) {
	p.problems = append(p.problems, &Problem{p.at(n), fmt.Sprintf(format, args...)})
}

// real follows an alias. The reader never goes deeper than a blueprint is, so
// aliases cannot make it run for ever.
func (p *parser) real(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// members hands every member of a mapping node to f, and refuses keys that
// stand twice. what names the node for people.
func (p *parser) members(n *yaml.Node, what string, f func(key, value *yaml.Node)) {
	n = p.real(n)
	if n.Kind != yaml.MappingNode {
		if !isNull(n) {
			p.problem(n, "%s should be a mapping of keys to values", what)
		}
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := p.real(n.Content[i]), p.real(n.Content[i+1])
		switch {
		case key.Kind != yaml.ScalarNode:
			p.problem(key, "a key of %s should be text", what)
		case key.Tag == "!!merge":
			p.problem(key, "merge keys (<<) are not read; use extends: default, or an alias for the whole value")
		case seen[key.Value]:
			p.problem(key, "%q stands twice in %s; remove one", key.Value, what)
		default:
			seen[key.Value] = true
			f(key, value)
		}
	}
}

func (p *parser) unknown(key *yaml.Node, what string, known ...string) {
	if s := nearest(key.Value, known); s != "" {
		p.problem(key, "unknown key %q in %s; did you mean %s?", key.Value, what, s)
		return
	}
	slices.Sort(known)
	p.problem(key, "unknown key %q in %s; the keys are %s", key.Value, what, strings.Join(known, ", "))
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (p *parser) document(root *yaml.Node) *Blueprint {
	b := &Blueprint{file: p.file}
	var extends, setsAction bool
	version := false
	if isNull(p.real(root)) {
		p.problem(root, "is empty; write at least version: 2 and extends: default")
		return b
	}
	p.members(root, "the blueprint", func(key, value *yaml.Node) {
		switch key.Value {
		case "version":
			version = true
			if value.Value != "2" {
				p.problem(value, "version %q is not read; the blueprint form is version: 2", value.Value)
			}
		case "extends":
			extends = true
			if value.Value != "default" {
				p.problem(value, "extends %q is not known; only extends: default is", value.Value)
			}
		case "delivery_mode":
			if value.Value != "server_side" {
				p.problem(value, "delivery_mode %q does not pass through Kafka; only server_side does", value.Value)
			}
		case "parameters":
			p.members(value, "parameters", func(_, _ *yaml.Node) {}) // the connection; the bridge has its own configuration for it
		case "filter":
			b.filters = p.filter(value)
		case "global":
			p.members(value, "global", func(key, value *yaml.Node) {
				if !p.list(key, value, "global", &b.global) {
					p.unknown(key, "global", "mappings")
				}
			})
		case "defaults":
			p.members(value, "defaults", func(key, value *yaml.Node) {
				switch {
				case key.Value == "action":
					b.drop, setsAction = p.action(value), true
				case !p.list(key, value, "defaults", &b.defaults):
					p.unknown(key, "defaults", "action", "mappings")
				}
			})
		case "events":
			p.members(value, "events", func(key, value *yaml.Node) { b.sections = append(b.sections, p.section(key, value)) })
		default:
			p.unknown(key, "the blueprint", names(documentKeys)...)
		}
	})
	if !version {
		p.problem(root, "version is missing; write version: 2")
	}
	if extends {
		b.extend(Default(), setsAction)
	}
	mapsColumns := len(b.global)+len(b.defaults) > 0
	for _, s := range b.sections {
		mapsColumns = mapsColumns || len(s.rules) > 0
	}
	if !mapsColumns && len(p.problems) == 0 {
		p.problem(root, "maps no column; add global.mappings, or extends: default")
	}
	return b
}

// action reads defaults.action. Signal's own word for forwarding is not
// published, so its likely spellings are all taken.
func (p *parser) action(n *yaml.Node) (drop bool) {
	if drop, known := actions[n.Value]; known {
		return drop
	}
	p.problem(n, "action %q is not known; it is forward or drop", n.Value)
	return false
}

// list reads the lists that stand in global, defaults and every section. The
// shape of enrichments and transforms is not published: they may only be empty.
func (p *parser) list(key, value *yaml.Node, what string, rules *[]rule) bool {
	switch key.Value {
	case "mappings":
		*rules = p.rules(value, what+".mappings")
	case "enrichments", "transforms":
		if len(value.Content) > 0 {
			p.problem(key, "%s.%s is not read; write a constant as a mapping with default_value, a conversion as transform of a mapping", what, key.Value)
		}
	default:
		return false
	}
	return true
}

func (p *parser) section(key, value *yaml.Node) section {
	s := section{names: []string{key.Value}, enabled: true}
	what := "events." + key.Value
	p.members(value, what, func(key, value *yaml.Node) {
		switch {
		case key.Value == "enabled":
			s.enabled = p.boolean(key, value)
		case key.Value == "filter":
			s.filters = p.filter(value)
		case key.Value == "vendor_event_name":
			p.problem(key, "vendor_event_name is not read; write {target: event_name, default_value: %s} in the mappings", value.Value)
		case !p.list(key, value, what, &s.rules):
			p.unknown(key, what, names(sectionKeys)...)
		}
	})
	return s
}

func (p *parser) boolean(key, value *yaml.Node) bool {
	if value.Kind != yaml.ScalarNode || value.Tag != "!!bool" {
		p.problem(value, "%s should be true or false", key.Value)
		return false
	}
	return strings.EqualFold(value.Value, "true")
}

func (p *parser) filter(n *yaml.Node) []*expression {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		p.problem(n, "filter should be an expression in text, such as \"type == 'track'\"")
		return nil
	}
	f, err := parseExpression(n.Value, expr.AsBool())
	if err != nil {
		p.problem(n, "filter: %v", err)
		return nil
	}
	return []*expression{f}
}
