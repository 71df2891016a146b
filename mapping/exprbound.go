package mapping

import (
	"errors"
	"iter"
	"maps"
	"slices"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
)

// The library bounds the elements an expression makes (a million per event),
// but neither how often its loops go round, nor how long its texts grow, nor what
// a function is given to work on. The program is therefore compiled with a meter
// in all three.
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

// isLiteral tells what the blueprint holds itself, which its length bounds. An
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
