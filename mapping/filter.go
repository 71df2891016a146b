package mapping

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/file"
	exprparser "github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// filter is a compiled expression that says whether an event becomes a row,
// and the paths of the event it reads. It may be shared.
type filter struct {
	text    string
	program *vm.Program
	paths   [][]step // none is the beginning of another
}

// parseFilter compiles an expression in the language of expr-lang.org. A name
// is a field of the event, a.b a field inside; what an event lacks is nil.
func parseFilter(text string) (*filter, error) {
	tree, err := exprparser.Parse(text)
	if err != nil {
		return nil, exprError(err)
	}
	f := &filter{text: text}
	reader := &pathReader{}
	ast.Walk(&tree.Node, reader)
	if reader.call != "" {
		return nil, fmt.Errorf("calls %s, which is not a function of the expression language; see docs/blueprint.md", reader.call)
	}
	name, prefix := false, false
	for _, p := range reader.paths {
		f.paths = addPath(f.paths, p)
		name = name || len(p) == 1 && p[0].key == "event"
		prefix = prefix || len(p) > 1 && p[0].key == "event"
	}
	if name && prefix {
		return nil, errors.New("event is the event's name here and the beginning of a path there; write the paths without event")
	}
	if len(f.paths) == 0 {
		return nil, errors.New("reads nothing of the event; name a field such as type or properties.plan")
	}
	for _, p := range f.paths {
		if _, err := spellings(p); err != nil {
			return nil, err
		}
	}
	options := []expr.Option{expr.AllowUndefinedVariables(), expr.AsBool(),
		expr.DisableBuiltin("now")} // the time of day would make a redelivered event come out differently
	for _, p := range reader.paths {
		if _, ok := builtin.Index[p[0].key]; ok { // type is a field here, not the function type()
			options = append(options, expr.DisableBuiltin(p[0].key))
		}
	}
	if f.program, err = expr.Compile(text, options...); err != nil {
		return nil, exprError(err)
	}
	return f, nil
}

// exprError puts the library's many-lined error in one line.
func exprError(err error) error {
	var ferr *file.Error
	if errors.As(err, &ferr) {
		return fmt.Errorf("%s at character %d of the expression; see docs/blueprint.md for the language", ferr.Message, ferr.Column+1)
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", " "))
}

// pathReader gathers the paths an expression reads.
type pathReader struct {
	paths [][]step
	call  string // a function that does not exist
}

// Visit is called for the inner nodes before the outer ones: a path grows by
// one step with every member node around it.
func (r *pathReader) Visit(n *ast.Node) {
	switch node := (*n).(type) {
	case *ast.IdentifierNode:
		r.paths = append(r.paths, []step{{key: node.Value}})
	case *ast.MemberNode:
		if steps, ok := memberPath(node); ok {
			last := len(r.paths) - 1
			if last >= 0 && len(r.paths[last]) == len(steps)-1 && isPrefix(r.paths[last], steps) {
				r.paths[last] = steps
			}
		}
	case *ast.CallNode:
		r.call = node.Callee.String()
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

// boundFilter is a filter whose paths have found their places in the trie.
type boundFilter struct {
	*filter
	slots [][]int32 // for each path its spellings, the preferred one first
}

// keep evaluates the filter on the event just scanned.
func (f *boundFilter) keep(machine *vm.VM, s *scanner) (bool, error) {
	env := map[string]any{}
	for i, path := range f.paths {
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
		for _, slot := range f.slots[i] {
			if v := s.vals[slot]; v.kind > null {
				at[path[last].key] = decode(s.b[v.start:v.end])
				break
			}
		}
	}
	out, err := machine.Run(f.program, env)
	if err != nil {
		return false, runError(err)
	}
	keep, ok := out.(bool)
	if !ok {
		return false, errors.New("the expression gives neither true nor false")
	}
	return keep, nil
}

// operands matches those messages of the library that hold operators and types
// only. Others may quote a value of the event, which has no place in a reason.
var operands = regexp.MustCompile(`^invalid operation: [^"'()]*$`)

func runError(err error) error {
	var ferr *file.Error
	if errors.As(err, &ferr) && operands.MatchString(ferr.Message) {
		return fmt.Errorf("%s at character %d of the expression", ferr.Message, ferr.Column+1)
	}
	return errors.New("the expression cannot be evaluated on this event")
}

// decode makes Go values of scanned JSON for an expression: whole numbers that
// fit are int, others float64.
func decode(raw []byte) any {
	switch jsonKind(raw) {
	case str:
		return string(raw[1 : len(raw)-1])
	case strEsc:
		return string(unescape(nil, raw[1:len(raw)-1]))
	case trueLit:
		return true
	case falseLit:
		return false
	case number:
		if n, err := strconv.Atoi(string(raw)); err == nil {
			return n
		}
		f, _ := strconv.ParseFloat(string(raw), 64) // out of range is an infinity, which compares as it should
		return f
	case array:
		out := []any{}
		for i := space(raw, 1); raw[i] != ']'; {
			end := valueEnd(raw, i)
			out = append(out, decode(raw[i:end]))
			if i = space(raw, end); raw[i] == ',' {
				i = space(raw, i+1)
			}
		}
		return out
	case object:
		out := map[string]any{}
		for i := space(raw, 1); raw[i] != '}'; {
			keyEnd := valueEnd(raw, i)
			key := string(unescape(nil, raw[i+1:keyEnd-1]))
			i = space(raw, space(raw, keyEnd)+1)
			end := valueEnd(raw, i)
			out[key] = decode(raw[i:end])
			if i = space(raw, end); raw[i] == ',' {
				i = space(raw, i+1)
			}
		}
		return out
	}
	return nil
}
