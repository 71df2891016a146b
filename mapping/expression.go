package mapping

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/file"
	exprparser "github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// maxExpression bounds the length of an expression in bytes, and so how deep
// its parser goes.
const maxExpression = 16 << 10

// expression is a compiled expression and the paths of the event it reads. It
// may be shared.
type expression struct {
	text    string
	program *vm.Program
	paths   [][]step // none is the beginning of another
}

// withheld are functions of the language that a blueprint may not call: the
// same event would come out differently, or grow without bound.
var withheld = map[string]string{
	"now":      "an event that is read again must come out the same",
	"timezone": "it depends on the machine's time zone database; times are in UTC",
	"keys":     "a map has no order, so an event that is read again could come out differently",
	"values":   "a map has no order, so an event that is read again could come out differently",
	"toPairs":  "a map has no order, so an event that is read again could come out differently",
	"repeat":   "it makes text of any length",
	"toJSON":   "a column makes compact JSON of objects and arrays by itself; see transform: json",
}

// parseExpression compiles an expression in the language of expr-lang.org. A
// name is a field of the event, a.b a field inside; what an event lacks is nil.
func parseExpression(text string, more ...expr.Option) (*expression, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("is %d bytes long; an expression may have %d", len(text), maxExpression)
	}
	tree, err := exprparser.Parse(text)
	if err != nil {
		return nil, exprError(err)
	}
	x := &expression{text: text}
	reader := &pathReader{}
	ast.Walk(&tree.Node, reader)
	if reader.fault != nil {
		return nil, reader.fault
	}
	name, prefix := false, false
	for _, p := range reader.paths {
		x.paths = addPath(x.paths, p)
		name = name || len(p) == 1 && p[0].key == "event"
		prefix = prefix || len(p) > 1 && p[0].key == "event"
	}
	if name && prefix {
		return nil, errors.New("event is the event's name here and the beginning of a path there; write the paths without event")
	}
	if len(x.paths) == 0 {
		return nil, errors.New("reads nothing of the event; name a field such as type or properties.plan")
	}
	for _, p := range x.paths {
		if _, err := spellings(p); err != nil {
			return nil, err
		}
	}
	options := append(bounded(), more...)
	for name := range withheld {
		options = append(options, expr.DisableBuiltin(name))
	}
	for _, p := range reader.paths {
		if _, ok := builtin.Index[p[0].key]; ok { // type is a field here, not the function type()
			options = append(options, expr.DisableBuiltin(p[0].key))
		}
	}
	if x.program, err = expr.Compile(text, options...); err != nil {
		return nil, exprError(err)
	}
	return x, nil
}

// exprError puts the library's many-lined error in one line.
func exprError(err error) error {
	var ferr *file.Error
	if errors.As(err, &ferr) {
		if strings.HasSuffix(ferr.Message, `Operator("=")`) {
			return fmt.Errorf("%s at character %d of the expression; to compare, write ==", ferr.Message, ferr.Column+1)
		}
		return fmt.Errorf("%s at character %d of the expression; see docs/blueprint.md for the language", ferr.Message, ferr.Column+1)
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", " "))
}

// boundExpression is an expression whose paths have found their places in the
// trie.
type boundExpression struct {
	*expression
	slots [][]int32 // for each path its spellings, the preferred one first
}

// run evaluates the expression on the event just scanned.
func (x *boundExpression) run(m *Mapper) (any, error) {
	env := map[string]any{}
	size := 0
	for i, path := range x.paths {
		// The objects on the way are always there, so that context.page.url is
		// nil, and no error, where an event has no page.
		at, last := env, len(path)-1
		for _, st := range path[:last] {
			inner, ok := at[st.key].(map[string]any)
			if !ok {
				inner = map[string]any{}
				at[st.key] = inner
			}
			at = inner
		}
		if v := m.find(x.slots[i]); v.kind > null {
			at[path[last].key] = decode(m.s.b[v.start:v.end])
			size += int(v.end - v.start)
		}
	}
	env[meterName] = newMeter(size)
	out, err := m.machine.Run(x.program, env)
	if err != nil {
		return nil, runError(err)
	}
	return out, nil
}

// operands matches those messages of the library that hold operators and types
// only. Others may quote a value of the event, which has no place in a reason.
var operands = regexp.MustCompile(`^invalid operation: [^"'()]*$`)

func runError(err error) error {
	var ferr *file.Error
	switch {
	case errors.Is(err, errTooLarge):
		return errTooLarge
	case errors.As(err, &ferr) && operands.MatchString(ferr.Message):
		return fmt.Errorf("%s at character %d of the expression", ferr.Message, ferr.Column+1)
	}
	return errors.New("the expression cannot be evaluated on this event")
}
