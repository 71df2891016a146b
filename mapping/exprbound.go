package mapping

import (
	"errors"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm/runtime"
)

// The library bounds the elements an expression makes (a million per event),
// but neither how often its loops go round nor how long its texts grow. The
// program is therefore compiled with a meter in both.
const (
	maxSteps      = 10_000_000
	bytesPerStep  = 4096    // what a turn may look at is paid for, too
	maxText       = 1 << 20 // bytes of one text, or of one result as JSON
	meterName     = "$meter"
	stepName      = "$step"
	addName       = "$add"
	textBytesStep = 64
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
		expr.Function("date", date),
		expr.Function("$join", join),
		expr.Function("$replace", replace),
	}
}

// metered puts the meter into loops and in the place of what makes text longer.
type metered struct{}

// Visit implements ast.Visitor.
func (metered) Visit(n *ast.Node) {
	call := func(name string, args ...ast.Node) ast.Node {
		c := &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: append([]ast.Node{&ast.IdentifierNode{Value: meterName}}, args...)}
		c.SetLocation((*n).Location())
		return c
	}
	switch node := (*n).(type) {
	case *ast.PredicateNode:
		if seq, ok := node.Node.(*ast.SequenceNode); ok && isStep(seq.Nodes[0]) {
			return // visitors may come by again
		}
		seq := &ast.SequenceNode{Nodes: []ast.Node{call(stepName), node.Node}}
		seq.SetLocation(node.Location())
		node.Node = seq
	case *ast.BinaryNode:
		if node.Operator == "+" && !isNumeral(node.Left) && !isNumeral(node.Right) {
			*n = call(addName, node.Left, node.Right)
		}
	case *ast.BuiltinNode:
		if node.Name == "join" || node.Name == "replace" {
			*n = call("$"+node.Name, node.Arguments...)
		}
	}
}

func isStep(n ast.Node) bool {
	c, ok := n.(*ast.CallNode)
	if !ok {
		return false
	}
	id, ok := c.Callee.(*ast.IdentifierNode)
	return ok && id.Value == stepName
}

func isNumeral(n ast.Node) bool {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		return true
	}
	return false
}

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
	size := len(separator) * len(parts)
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
