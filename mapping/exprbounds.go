package mapping

import (
	"errors"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm/runtime"
)

// The library bounds the elements an expression makes (a million per event). It
// bounds neither the turns of loops, nor the length of texts, nor the operands of
// functions. The program is therefore compiled with a meter in all three.
const (
	maxSteps      = 10_000_000
	bytesPerStep  = 4096    // of what an event gives; a turn pays for it, too
	maxText       = 1 << 20 // bytes of one text, or of one result as JSON
	maxPattern    = 1 << 10 // bytes of a pattern that the event gives: 8 of them can ask for a thousand states
	maxWeighed    = 1000    // levels of what a function is given: it may go down by recursion
	meterName     = "$meter"
	stepName      = "$step"
	addName       = "$add"
	weighName     = "$weigh" // a step a byte: what functions work through
	lookName      = "$look"  // a step for 64 bytes: what is only compared
	lookBytesStep = 64
	textBytesStep = 8 // of text that is made, and so kept
)

var errTooLarge = errors.New("the expression takes more steps, or makes longer text, than one event may cost; see docs/blueprint.md for the bounds")

// meter is what one evaluation may still cost.
type meter struct{ left, turn int }

// newMeter returns the meter for an expression that reads size bytes of JSON.
func newMeter(size int) *meter { return &meter{left: maxSteps, turn: 1 + size/bytesPerStep} }

func (m *meter) pay(steps int) error {
	if m.left -= steps; m.left < 0 {
		return errTooLarge
	}
	return nil
}

// text pays for a text of n bytes, before it is made.
func (m *meter) text(n int) error {
	if n > maxText {
		return errTooLarge
	}
	return m.pay(1 + n/textBytesStep)
}

// bounded returns the options of every expression.
func bounded() []expr.Option {
	return []expr.Option{
		expr.AllowUndefinedVariables(),
		expr.Patch(metered{}),
		expr.Function(stepName, func(args ...any) (any, error) {
			m := args[0].(*meter)
			return nil, m.pay(m.turn)
		}),
		expr.Function(addName, add),
		expr.Function(weighName, func(args ...any) (any, error) { return args[1], args[0].(*meter).weigh(args[1], 1, 0) }),
		expr.Function(lookName, func(args ...any) (any, error) { return args[1], args[0].(*meter).weigh(args[1], lookBytesStep, 0) }),
		expr.Function("date", date),
		expr.Function("$join", join),
		expr.Function("$replace", replace),
		expr.Function("$uniq", uniq),
		expr.Function("$matches", matches),
	}
}

// weigh pays for working through a value once: a step for each element, and for
// so many bytes of text.
func (m *meter) weigh(value any, perStep, depth int) error {
	if depth > maxWeighed {
		return errTooLarge
	}
	switch v := value.(type) {
	case string:
		return m.pay(1 + len(v)/perStep)
	case []any:
		return weighEach(m, slices.Values(v), perStep, depth)
	case []string:
		return weighEach(m, slices.Values(v), perStep, depth)
	case []int:
		return m.pay(1 + len(v))
	case map[string]any:
		return weighEach(m, maps.Values(v), perStep, depth)
	case map[any]any:
		return weighEach(m, maps.Values(v), perStep, depth)
	case map[any][]any:
		return weighEach(m, maps.Values(v), perStep, depth)
	}
	return m.pay(1)
}

func weighEach[T any](m *meter, all iter.Seq[T], perStep, depth int) error {
	for v := range all {
		if err := m.weigh(v, perStep, depth+1); err != nil {
			return err
		}
	}
	return m.pay(1)
}

// light are functions that cost the same whatever they are given.
var light = map[string]bool{
	"len": true, "type": true, "abs": true, "ceil": true, "floor": true, "round": true, "int": true, "float": true,
	"first": true, "last": true, "get": true, "take": true, "duration": true, "date": true, "hasPrefix": true, "hasSuffix": true,
	"trimPrefix": true, "trimSuffix": true, "bitand": true, "bitor": true, "bitxor": true, "bitnand": true, "bitnot": true,
	"bitshl": true, "bitshr": true, "bitushr": true,
}

// metered puts the meter into loops, before what works through its operands, and
// in the place of what makes text longer.
type metered struct{}

// Visit implements ast.Visitor.
func (metered) Visit(n *ast.Node) {
	call := func(name string, args ...ast.Node) ast.Node {
		c := &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: append([]ast.Node{&ast.IdentifierNode{Value: meterName}}, args...)}
		c.SetLocation((*n).Location())
		return c
	}
	// Visitors may come by again: what is metered already is left alone.
	weighed := func(name string, operand ast.Node) ast.Node {
		if isLiteral(operand) || isCall(operand, name) {
			return operand
		}
		return call(name, operand)
	}
	switch node := (*n).(type) {
	case *ast.PredicateNode:
		if seq, ok := node.Node.(*ast.SequenceNode); ok && isCall(seq.Nodes[0], stepName) {
			return
		}
		seq := &ast.SequenceNode{Nodes: []ast.Node{call(stepName), node.Node}}
		seq.SetLocation(node.Location())
		node.Node = seq
	case *ast.BinaryNode:
		switch node.Operator {
		case "+":
			if !isNumeral(node.Left) && !isNumeral(node.Right) {
				*n = call(addName, node.Left, node.Right)
			}
		case "==", "!=":
			if !isLiteral(node.Right) {
				node.Left = weighed(lookName, node.Left)
			}
		case "in":
			node.Right = weighed(lookName, node.Right)
		case "contains":
			node.Left = weighed(lookName, node.Left)
		case "matches":
			if _, ok := node.Right.(*ast.StringNode); ok {
				node.Left = weighed(weighName, node.Left)
			} else {
				*n = call("$matches", node.Left, node.Right)
			}
		}
	case *ast.BuiltinNode:
		switch {
		case node.Name == "join", node.Name == "replace", node.Name == "uniq":
			*n = call("$"+node.Name, node.Arguments...)
		case !light[node.Name] && !slices.ContainsFunc(node.Arguments, isPredicate): // those pay by the turn
			for i, arg := range node.Arguments {
				node.Arguments[i] = weighed(weighName, arg)
			}
		}
	}
}

func isCall(n ast.Node, name string) bool {
	c, ok := n.(*ast.CallNode)
	if !ok {
		return false
	}
	id, ok := c.Callee.(*ast.IdentifierNode)
	return ok && id.Value == name
}

func isPredicate(n ast.Node) bool {
	_, ok := n.(*ast.PredicateNode)
	return ok
}

// isLiteral reports whether the blueprint holds the value itself, which its length bounds. An
// array is left as it is, or it would be no set for the operator in.
func isLiteral(n ast.Node) bool {
	switch n.(type) {
	case *ast.StringNode, *ast.BoolNode, *ast.NilNode, *ast.ConstantNode, *ast.ArrayNode:
		return true
	}
	return isNumeral(n)
}

func isNumeral(n ast.Node) bool {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		return true
	}
	return false
}

// Here are the functions and operators that take the place of the library's own:
// they pay for what they make before they make it.

// add is the operator +.
func add(args ...any) (any, error) {
	a, isText := args[1].(string)
	b, both := args[2].(string)
	if isText && both {
		if err := args[0].(*meter).text(len(a) + len(b)); err != nil {
			return nil, err
		}
	}
	return runtime.Add(args[1], args[2]), nil
}

var errArguments = errors.New("invalid operation: the function does not take these arguments")

// join puts the texts of an array behind one another; the separator is "" where
// none is given.
func join(args ...any) (any, error) {
	m, separator := args[0].(*meter), ""
	if len(args) == 3 {
		var ok bool
		if separator, ok = args[2].(string); !ok {
			return nil, errArguments
		}
	} else if len(args) != 2 {
		return nil, errArguments
	}
	var parts []string
	switch list := args[1].(type) {
	case []string:
		parts = list
	case []any:
		for _, item := range list {
			text, ok := item.(string)
			if !ok {
				return nil, errArguments
			}
			parts = append(parts, text)
		}
	default:
		return nil, errArguments
	}
	size := (len(separator) + 1) * len(parts)
	for _, p := range parts {
		size += len(p)
	}
	if err := m.text(size); err != nil {
		return nil, err
	}
	return strings.Join(parts, separator), nil
}

// replace puts a text in the place of another, everywhere or so many times.
func replace(args ...any) (any, error) {
	if len(args) < 4 || len(args) > 5 {
		return nil, errArguments
	}
	text, ok1 := args[1].(string)
	from, ok2 := args[2].(string)
	to, ok3 := args[3].(string)
	if !ok1 || !ok2 || !ok3 {
		return nil, errArguments
	}
	times := -1
	if len(args) == 5 {
		times = runtime.ToInt(args[4])
	}
	found := strings.Count(text, from)
	if times >= 0 {
		found = min(found, times)
	}
	if err := args[0].(*meter).text(len(text) + found*len(to)); err != nil {
		return nil, err
	}
	return strings.Replace(text, from, to, times), nil
}

// date reads a time as a TIMESTAMP column does.
func date(args ...any) (any, error) {
	if len(args) != 1 {
		return nil, errArguments
	}
	var t instant
	var ok bool
	switch v := args[0].(type) {
	case time.Time:
		return v, nil
	case string:
		t, ok = parseInstant([]byte(v))
	case int, float64:
		t, ok = epochInstant(appendGo(nil, v))
	}
	if !ok {
		return nil, errors.New("invalid operation: date of what is no time")
	}
	return time.Unix(t.sec, t.nano).UTC(), nil
}

// uniq keeps the first of values that are equal. The library compares each with
// all before it, which a long list turns into minutes.
func uniq(args ...any) (any, error) {
	if len(args) != 2 {
		return nil, errArguments
	}
	m := args[0].(*meter)
	var list []any
	switch v := args[1].(type) {
	case []any:
		list = v
	case []string:
		for _, text := range v {
			list = append(list, text)
		}
	case []int:
		for _, n := range v {
			list = append(list, n)
		}
	default:
		return nil, errArguments
	}
	kept := []any{}
	plain := make(map[any]bool) // text and numbers among them
	var others []any
	for _, v := range list {
		switch key := exact(v).(type) {
		case nil:
			seen := false
			for _, other := range others {
				if err := m.weigh(other, lookBytesStep, 0); err != nil {
					return nil, err
				}
				if seen = runtime.Equal(v, other); seen {
					break
				}
			}
			if seen {
				continue
			}
			others = append(others, v)
		default:
			if err := m.weigh(v, lookBytesStep, 0); err != nil {
				return nil, err
			}
			if plain[key] {
				continue
			}
			plain[key] = true
		}
		kept = append(kept, v)
	}
	return kept, nil
}

// exact returns what a map may hold in the place of a value and finds whenever
// the language calls another value equal to it; nil if there is no such thing.
func exact(value any) any {
	const whole = 1 << 53 // beyond, an int may equal a float64 that is not it
	switch v := value.(type) {
	case string:
		return v
	case int:
		if -whole < v && v < whole {
			return float64(v)
		}
	case float64:
		if -whole < v && v < whole {
			return v
		}
	}
	return nil
}

// matches is the operator with a pattern that the event gives. One that is
// written in the blueprint is compiled with it.
func matches(args ...any) (any, error) {
	if args[1] == nil || args[2] == nil {
		return false, nil
	}
	text, ok1 := args[1].(string)
	pattern, ok2 := args[2].(string)
	if !ok1 || !ok2 {
		return nil, errArguments
	}
	if len(pattern) > maxPattern {
		return nil, errTooLarge
	}
	if err := args[0].(*meter).pay((64 + len(text)) * (1 + len(pattern))); err != nil {
		return nil, err
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, errors.New("invalid operation: the pattern is no regular expression")
	}
	return re.MatchString(text), nil
}
