package mapping

import (
	"bytes"
	"slices"
)

// node is one place in an event that the blueprint reads or passes through on
// the way to one. Its id is the index of its value in scanner.vals.
type node struct {
	id    int32
	path  string // for people
	shape bool   // read only to tell what kind of record this is
	fold  bool   // keys below are compared without regard to ASCII case
	edges []edge // by length of key
	byLen [longKey + 2]uint16
	items []item
}

type edge struct {
	key  string
	node *node
}

type item struct {
	index int
	node  *node
}

// Keys of longKey bytes and more share one bucket.
const longKey = 31

// child returns the node for a key as it stands in the record, or nil.
func (n *node) child(key []byte, escaped bool) *node {
	if escaped || n.fold {
		return n.childSlow(key, escaped)
	}
	l := min(len(key), longKey)
	for i := n.byLen[l]; i < n.byLen[l+1]; i++ {
		if n.edges[i].key == string(key) {
			return n.edges[i].node
		}
	}
	return nil
}

// childSlow is child for keys with escapes and for tables, whose column names
// have no case. Keys longer than the stack buffer cannot be a column name and
// cost an allocation only when they hold escapes.
func (n *node) childSlow(key []byte, escaped bool) *node {
	var buf [128]byte
	plain := key
	if escaped {
		plain = unescape(buf[:0], key)
	}
	if n.fold {
		plain = appendLower(buf[:0], plain)
	}
	l := min(len(plain), longKey)
	for i := n.byLen[l]; i < n.byLen[l+1]; i++ {
		if n.edges[i].key == string(plain) {
			return n.edges[i].node
		}
	}
	return nil
}

func (n *node) item(index int) *node {
	if n == nil {
		return nil
	}
	for i := range n.items {
		if n.items[i].index == index {
			return n.items[i].node
		}
	}
	return nil
}

// trie builds nodes and numbers them.
type trie struct {
	root  *node
	paths []string // by id of node
}

func newTrie(fold bool) *trie {
	t := &trie{}
	t.root = t.node("")
	t.root.fold = fold
	return t
}

func (t *trie) node(path string) *node {
	n := &node{id: int32(len(t.paths)), path: path}
	t.paths = append(t.paths, path)
	return n
}

// add returns the node at the path, making what is missing of it.
func (t *trie) add(steps []step) *node {
	n := t.root
	for i, s := range steps {
		next := n.find(s)
		if next == nil {
			next = t.node(pathText(steps[:i+1]))
			if s.isIndex {
				n.items = append(n.items, item{s.index, next})
			} else {
				n.edges = append(n.edges, edge{s.key, next})
			}
		}
		n = next
	}
	return n
}

func (n *node) find(s step) *node {
	if s.isIndex {
		return n.item(s.index)
	}
	for _, e := range n.edges {
		if e.key == s.key {
			return e.node
		}
	}
	return nil
}

// seal sorts the edges and fills the buckets; no add may follow.
func (n *node) seal() {
	slices.SortStableFunc(n.edges, func(a, b edge) int { return len(a.key) - len(b.key) })
	for l := range n.byLen {
		n.byLen[l] = uint16(len(n.edges))
	}
	for i := len(n.edges) - 1; i >= 0; i-- {
		n.byLen[min(len(n.edges[i].key), longKey)] = uint16(i)
	}
	for l := longKey; l >= 0; l-- {
		n.byLen[l] = min(n.byLen[l], n.byLen[l+1])
	}
	for _, e := range n.edges {
		e.node.seal()
	}
	for _, it := range n.items {
		it.node.seal()
	}
}

// isBOM reports whether b begins with the UTF-8 byte order mark.
func isBOM(b []byte) bool { return bytes.HasPrefix(b, []byte("\xef\xbb\xbf")) }
