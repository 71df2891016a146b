package mapping

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

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
