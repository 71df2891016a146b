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
// duplicate key and a value of the wrong kind are problems. All
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
	return &Problem{Position{p.file, line, 1}, "not valid YAML: " + text + "; fix the YAML at or just above that line; a value with special characters needs quotes"}
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

// members hands every member of a mapping node to f, and refuses duplicate
// keys. what names the node for people.
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
			p.problem(key, "%q is a duplicate in %s; remove one", key.Value, what)
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
	var extends string
	var version, setsAction bool
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
		case "name":
			b.Name = p.text(value, key.Value)
		case "description":
			b.Description = p.text(value, key.Value)
		case "extends":
			extends = value.Value
			if _, ok := Builtin(extends); !ok {
				p.problem(value, "extends %q is not known; a blueprint extends %s", extends, strings.Join(Builtins(), " or "))
				extends = "default"
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
	if extends != "" {
		b.extend(parseBuiltin(extends), setsAction)
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

func (p *parser) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode || isNull(n) || n.Value == "" {
		p.problem(n, "%s should be text", what)
	}
	return n.Value
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

func (p *parser) rules(n *yaml.Node, what string) []rule {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.problem(n, "%s should be a list of mappings", what)
		return nil
	}
	var out []rule
	for i, item := range n.Content {
		r := p.rule(p.real(item), fmt.Sprintf("%s[%d]", what, i))
		if r.target == "" {
			continue
		}
		if j := slices.IndexFunc(out, func(o rule) bool { return strings.EqualFold(o.target, r.target) }); j >= 0 {
			p.problems = append(p.problems, &Problem{r.at, fmt.Sprintf(
				"column %s is mapped twice in %s (first in line %d); give it one mapping with a list of sources", r.target, what, out[j].at.Line)})
			continue
		}
		out = append(out, r)
	}
	return out
}

var columnName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (p *parser) rule(n *yaml.Node, what string) rule {
	r := rule{at: p.at(n)}
	keys := map[string]*yaml.Node{}
	var format, separator string
	enabled := true
	p.members(n, what, func(key, value *yaml.Node) {
		keys[key.Value] = value
		switch key.Value {
		case "target":
			r.target = p.target(value)
		case "source":
			r.sources = p.sources(value)
			r.drop = isNull(value)
		case "expression":
			r.expr = p.expression(value)
		case "transform":
			r.chain = p.chain(value)
		case "format":
			format = value.Value
		case "separator":
			separator = value.Value
		case "default_value":
			r.fallback = p.literal(value, "default_value")
		case "value_map":
			p.valueMap(value, &r)
		case "type":
			t, err := parseType(value.Value)
			if err != nil {
				p.problem(value, "%v", err)
				return
			}
			r.typ = t
		case "optional":
			r.optional = p.boolean(key, value)
		case "enabled":
			enabled = p.boolean(key, value)
		default:
			p.unknown(key, what, names(ruleKeys)...)
		}
	})
	if _, ok := keys["target"]; !ok && p.real(n).Kind == yaml.MappingNode {
		p.problem(n, "target is missing; name the column the mapping fills")
	}
	if !enabled {
		r.drop = true
		return r
	}
	if r.drop && r.fallback != nil {
		p.problem(n, "source: null removes the column, so default_value has no place; leave source out for a constant")
	}
	_, hasSource := keys["source"]
	switch expression := keys["expression"]; {
	case hasSource && expression != nil:
		p.problem(expression, "column %s has a source and an expression; write the source inside the expression, as in properties.a ?? properties.b", r.target)
	case !hasSource && expression == nil && r.fallback == nil && r.target != "":
		p.problem(n, "column %s has none of source, expression and default_value; add one, or remove the column with source: null", r.target)
	}
	p.arguments(n, &r, keys, format, separator)
	return r
}

func (p *parser) target(n *yaml.Node) string {
	switch name := n.Value; {
	case n.Kind != yaml.ScalarNode || isNull(n):
		p.problem(n, "target should be the name of a column")
	case strings.ContainsAny(name, ".["):
		p.problem(n, "target %q is nested; name one column, or map the object into a STRUCT, VARIANT or STRING column", name)
	case !columnName.MatchString(name):
		p.problem(n, "target %q cannot be a column for Zerobus; use ASCII letters, digits and underscores", name)
	default:
		return name
	}
	return ""
}

// arguments gives date_format its format and split and join their separator.
func (p *parser) arguments(n *yaml.Node, r *rule, keys map[string]*yaml.Node, format, separator string) {
	usesFormat, usesSeparator := false, false
	for i := range r.chain {
		switch op := &r.chain[i]; op.name {
		case "date_format":
			usesFormat = true
			if op.arg = format; format == "" {
				op.arg = "epoch_micros"
			} else if !slices.Contains(dateFormats, format) {
				p.problem(keys["format"], "format %q is not one of %s%s", format, strings.Join(dateFormats, ", "), hint(format, dateFormats))
			}
		case "split", "join":
			usesSeparator = true
			if op.arg = separator; separator == "" {
				op.arg = ","
			}
		}
	}
	if k := keys["format"]; k != nil && !usesFormat {
		p.problem(k, "format belongs to transform: date_format, which is not here")
	}
	if k := keys["separator"]; k != nil && !usesSeparator {
		p.problem(k, "separator belongs to transform: split or join, which are not here")
	}
	if keys["value_map"] != nil && len(r.sources) == 0 && keys["expression"] == nil {
		p.problem(n, "value_map needs a source or an expression to look up")
	}
}

func (p *parser) expression(n *yaml.Node) *expression {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		p.problem(n, "expression should be text, such as \"properties.price * properties.quantity\"")
		return nil
	}
	x, err := parseExpression(n.Value)
	if err != nil {
		p.problem(n, "expression: %v", err)
		return nil
	}
	return x
}

func hint(word string, known []string) string {
	if s := nearest(word, known); s != "" {
		return "; did you mean " + s + "?"
	}
	return ""
}

// texts reads one text or a list of them.
func (p *parser) texts(n *yaml.Node, what string) []*yaml.Node {
	switch {
	case n.Kind == yaml.ScalarNode:
		return []*yaml.Node{n}
	case n.Kind == yaml.SequenceNode && len(n.Content) > 0:
		var out []*yaml.Node
		for _, c := range n.Content {
			if c = p.real(c); c.Kind != yaml.ScalarNode || isNull(c) {
				p.problem(c, "%s should be text or a list of texts", what)
				return nil
			}
			out = append(out, c)
		}
		return out
	}
	p.problem(n, "%s should be text or a list of texts", what)
	return nil
}

func (p *parser) chain(n *yaml.Node) []transform {
	if isNull(n) {
		return nil
	}
	var out []transform
	for _, t := range p.texts(n, "transform") {
		if !slices.Contains(transformNames, t.Value) {
			p.problem(t, "transform %q is not one of %s%s", t.Value, strings.Join(transformNames, ", "), hint(t.Value, transformNames))
			continue
		}
		out = append(out, transform{name: t.Value})
	}
	return out
}

func (p *parser) sources(n *yaml.Node) []sourcePath {
	if isNull(n) {
		return nil
	}
	var out []sourcePath
	for _, t := range p.texts(n, "source") {
		src, err := parseSource(t.Value)
		if err != nil {
			p.problem(t, "source: %v", err)
			continue
		}
		out = append(out, src)
	}
	return out
}

func parseSource(text string) (sourcePath, error) {
	src := sourcePath{text: text}
	if field, ok := strings.CutPrefix(text, "$kafka."); ok {
		if header, ok := strings.CutPrefix(field, "headers."); ok && header != "" {
			src.kafka, src.header = kafkaHeader, header
			return src, nil
		}
		if src.kafka = kafkaFields[field]; src.kafka != notKafka {
			return src, nil
		}
	}
	if strings.HasPrefix(text, "$") {
		known := []string{"$kafka.topic", "$kafka.partition", "$kafka.offset", "$kafka.timestamp", "$kafka.key", "$kafka.uuid", "$kafka.headers.<name>"}
		return src, fmt.Errorf("%q is not one of %s%s", text, strings.Join(known, ", "), hint(text, known))
	}
	steps, err := parsePath(text)
	if err != nil {
		return src, err
	}
	if _, err := spellings(steps); err != nil {
		return src, err
	}
	src.steps = steps
	return src, nil
}

func (p *parser) valueMap(n *yaml.Node, r *rule) {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		p.problem(n, "value_map should map values to values")
		return
	}
	r.lookup = map[string]literal{}
	p.members(n, "value_map", func(key, value *yaml.Node) {
		lit := p.literal(value, "value_map")
		switch {
		case lit == nil:
		case key.Value == "*":
			r.star = lit
		default:
			r.lookup[key.Value] = *lit
		}
	})
}

// literal reads a constant. Numbers must be written as JSON writes them,
// because that is how they are sent.
func (p *parser) literal(n *yaml.Node, what string) *literal {
	lit := &literal{at: p.at(n)}
	if n.Kind != yaml.ScalarNode {
		p.problem(n, "%s should be one text, number, boolean or null", what)
		return nil
	}
	switch n.Tag {
	case "!!null":
		lit.null = true
	case "!!bool":
		lit.v = val{kind: falseLit, b: []byte("false")}
		if strings.EqualFold(n.Value, "true") {
			lit.v = val{kind: trueLit, b: []byte("true")}
		}
	case "!!int", "!!float":
		if !isNumber([]byte(n.Value)) {
			p.problem(n, "%s %s is not a number JSON can carry; write it in plain decimal form, or in quotes as text", what, n.Value)
			return nil
		}
		lit.v = val{kind: number, b: []byte(n.Value)}
	default:
		lit.v = val{kind: plainText, b: []byte(n.Value)}
	}
	return lit
}
