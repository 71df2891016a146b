package mapping

import (
	"fmt"
	"strings"

	"github.com/expr-lang/expr/ast"
)

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
