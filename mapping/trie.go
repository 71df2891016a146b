package mapping

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// node is one place in an event that the blueprint reads or passes through on
// the way to one. Its id is the index of its value in scanner.vals.
type node struct {
	id    int32
	path  string // for people
	shape bool   // read only to tell what kind of record this is
	batch bool   // an array here holds the events of the record, which are counted
	fold  bool   // keys below are compared without regard to ASCII case
	edges []edge // by length of key
	byLen [longKey + 2]uint16
	items []item
}

// edge leads to a child. head and tail are the first and the last eight bytes
// of the key as little-endian numbers; a key of up to eight bytes has its bytes
// in head, zeros above them, and no tail.
type edge struct {
	head, tail uint64
	key        string
	node       *node
}

type item struct {
	index int
	node  *node
}

// Keys of longKey bytes and more share one bucket.
const longKey = 31

// child returns the node for the key in b[from:to], or nil. Keys of up to 16
// bytes are compared as one or two numbers.
func (n *node) child(b []byte, from, to int, escaped bool) *node {
	l := to - from
	if l > 16 || escaped || n.fold || from+8 > len(b) {
		return n.childSlow(b[from:to], escaped)
	}
	i, end := n.byLen[l], n.byLen[l+1]
	if i == end {
		return nil
	}
	head := binary.LittleEndian.Uint64(b[from:])
	var tail uint64
	if l <= 8 {
		head &= 1<<(8*l) - 1 // all ones for 8: the shift gives 0
	} else {
		tail = binary.LittleEndian.Uint64(b[to-8:])
	}
	for ; i < end; i++ {
		if e := &n.edges[i]; e.head == head && e.tail == tail {
			return e.node
		}
	}
	return nil
}

// childSlow is child for keys with escapes and for rows, whose column names
// have no case. Both are rare, and a key to be read twice may cost an allocation.
func (n *node) childSlow(key []byte, escaped bool) *node {
	if escaped {
		key = unescape(nil, key)
	}
	if n.fold {
		return n.childFolded(key)
	}
	return n.childLong(key)
}

// childLong compares whole keys.
func (n *node) childLong(key []byte) *node {
	l := min(len(key), longKey)
	for i := n.byLen[l]; i < n.byLen[l+1]; i++ {
		if n.edges[i].key == string(key) {
			return n.edges[i].node
		}
	}
	return nil
}

// childFolded compares whole keys with lower-case ones, regardless of case.
func (n *node) childFolded(key []byte) *node {
	l := min(len(key), longKey)
	for i := n.byLen[l]; i < n.byLen[l+1]; i++ {
		if equalFold(key, n.edges[i].key) {
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
				n.edges = append(n.edges, edge{key: s.key, node: next})
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
	for i := range n.edges {
		e := &n.edges[i]
		e.head, e.tail = keyWords(e.key)
		e.node.seal()
	}
	for _, it := range n.items {
		it.node.seal()
	}
}

func keyWords(key string) (head, tail uint64) {
	var padded [8]byte
	copy(padded[:], key)
	if len(key) > 8 {
		tail = binary.LittleEndian.Uint64([]byte(key[len(key)-8:]))
	}
	return binary.LittleEndian.Uint64(padded[:]), tail
}

// isBOM reports whether b begins with the UTF-8 byte order mark.
func isBOM(b []byte) bool { return bytes.HasPrefix(b, []byte("\xef\xbb\xbf")) }
