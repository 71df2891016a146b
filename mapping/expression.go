package mapping

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

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
	"toJSON":   "a column makes compact JSON of objects and arrays anyway; see transform: json",
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
	if !m.until.IsZero() && time.Now().After(m.until) {
		return nil, errTooLong
	}
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

// pathReader gathers the paths an expression reads.
type pathReader struct {
	paths [][]step
	fault error // the first thing an expression may not do
}

// Visit is called for the inner nodes before the outer ones: a path grows by
// one step with every member node around it.
func (r *pathReader) Visit(n *ast.Node) {
	switch node := (*n).(type) {
	case *ast.IdentifierNode:
		if strings.HasPrefix(node.Value, "$") {
			r.refuse("reads %s, which is no field of an event; an expression sees the event alone", node.Value)
		}
		r.paths = append(r.paths, []step{{key: node.Value}})
	case *ast.MemberNode:
		if steps, ok := memberPath(node); ok {
			last := len(r.paths) - 1
			if last >= 0 && len(r.paths[last]) == len(steps)-1 && isPrefix(r.paths[last], steps) {
				r.paths[last] = steps
			}
		}
	case *ast.CallNode:
		r.refuse("calls %s, which is not a function of the expression language; see docs/blueprint.md", node.Callee.String())
	case *ast.BuiltinNode:
		if why := withheld[node.Name]; why != "" {
			r.refuse("calls %s, which a blueprint may not: %s", node.Name, why)
		}
	}
}

func (r *pathReader) refuse(format string, args ...any) {
	if r.fault == nil {
		r.fault = fmt.Errorf(format, args...)
	}
}

// memberPath reads a.b?.c["d"][0] as a path.
func memberPath(n ast.Node) ([]step, bool) {
	switch node := n.(type) {
	case *ast.IdentifierNode:
		return []step{{key: node.Value}}, true
	case *ast.ChainNode:
		return memberPath(node.Node)
	case *ast.MemberNode:
		head, ok := memberPath(node.Node)
		if !ok || node.Method {
			return nil, false
		}
		if key, ok := node.Property.(*ast.StringNode); ok {
			return append(head, step{key: key.Value}), true
		}
	}
	return nil, false
}

func isPrefix(short, long []step) bool {
	if len(short) > len(long) {
		return false
	}
	for i, s := range short {
		if s != long[i] {
			return false
		}
	}
	return true
}

// addPath adds a path unless a part of it is there already; what it is a part
// of gives way.
func addPath(paths [][]step, p []step) [][]step {
	kept := paths[:0:0]
	for _, q := range paths {
		if isPrefix(q, p) {
			return paths
		}
		if !isPrefix(p, q) {
			kept = append(kept, q)
		}
	}
	return append(kept, p)
}

// maxResultDepth bounds how deep the arrays and objects of a result nest.
const maxResultDepth = 100

// expressionSource names an expression where people read what fed a column.
const expressionSource = "expression"

var (
	errNotUnicode = errors.New("gives text that is not UTF-8, such as a part of a character")
	errResult     = errors.New("gives what no column can hold; give text, a number, true, false, a time, an array or an object")
	errTooLong    = errors.New("was not evaluated: the expressions before it took too long; try fewer events, or a simpler blueprint")
	errNotFinite  = errors.New("gives a number that is not finite")
)

// evaluate makes the value of a column that is fed by an expression; kind
// absent where it gives nil.
func (m *Mapper) evaluate(from *source) (val, refusal) {
	out, err := from.expr.run(m)
	if err != nil {
		return val{}, refusal{CodeExpressionFailed, err.Error()}
	}
	v := val{kind: number}
	switch r := out.(type) {
	case nil:
		return val{}, refusal{}
	case string:
		if len(r) > maxText {
			return val{}, refusal{CodeExpressionFailed, errTooLarge.Error()}
		}
		if !utf8.ValidString(r) {
			return val{}, refusal{CodeExpressionFailed, "the expression " + errNotUnicode.Error()}
		}
		v.kind = plainText
		v.b = m.e.add(func(b []byte) []byte { return append(b, r...) })
		return v, refusal{}
	case time.Time:
		if t := (instant{r.Unix(), int64(r.Nanosecond())}); t.inRange() {
			return val{kind: pointInTime, t: t}, refusal{}
		}
		return val{}, refusal{CodeExpressionFailed, "the expression gives a time outside the years 1 to 9999"}
	}
	v.b = m.e.add(func(b []byte) []byte {
		b, err = appendResult(b, out, 0)
		return b
	})
	if err != nil {
		return val{}, refusal{CodeExpressionFailed, "the expression " + err.Error()}
	}
	v.kind = jsonKind(v.b)
	return v, refusal{}
}

// appendResult appends a value of the expression language as JSON. Objects come
// out in the order of their keys, so that an event always makes the same row.
func appendResult(dst []byte, value any, depth int) ([]byte, error) {
	if depth > maxResultDepth || len(dst) > maxText {
		return dst, errors.New("gives a value that is too large or too deep for a column")
	}
	switch v := value.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int, float64:
		if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			return dst, errNotFinite
		}
		return appendGo(dst, v), nil
	case time.Duration:
		return appendGo(dst, v.Seconds()), nil
	case time.Time:
		t := instant{v.Unix(), int64(v.Nanosecond())}
		if !t.inRange() {
			return dst, errResult
		}
		dst = append(dst, '"')
		return append(t.appendRFC3339(dst, "Z"), '"'), nil
	case string:
		if !utf8.ValidString(v) {
			return dst, errNotUnicode
		}
		return appendQuoted(dst, []byte(v)), nil
	case []any:
		return appendList(dst, v, depth)
	case []string:
		return appendList(dst, v, depth)
	case []int:
		return appendList(dst, v, depth)
	case map[string]any:
		return appendMembers(dst, v, depth)
	case map[any]any: // what fromPairs makes
		return appendNamed(dst, v, depth)
	case map[any][]any: // what groupBy makes
		return appendNamed(dst, v, depth)
	}
	return dst, errResult
}

func appendList[T any](dst []byte, list []T, depth int) (_ []byte, err error) {
	dst = append(dst, '[')
	for i, item := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendResult(dst, item, depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// appendNamed appends an object whose names are text.
func appendNamed[T any](dst []byte, members map[any]T, depth int) ([]byte, error) {
	named := make(map[string]any, len(members))
	for k, v := range members {
		name, ok := k.(string)
		if !ok {
			return dst, errors.New("gives an object whose names are not text; make text of them with string()")
		}
		named[name] = v
	}
	return appendMembers(dst, named, depth)
}

func appendMembers(dst []byte, members map[string]any, depth int) (_ []byte, err error) {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendResult(dst, name, depth+1); err != nil {
			return dst, err
		}
		dst = append(dst, ':')
		if dst, err = appendResult(dst, members[name], depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// appendGo appends an int or a finite float64 as JSON writes it, in the fewest
// digits that read back the same.
func appendGo(dst []byte, n any) []byte {
	if i, ok := n.(int); ok {
		return strconv.AppendInt(dst, int64(i), 10)
	}
	f, _ := n.(float64)
	form := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(dst, f, form, -1, 64)
}
