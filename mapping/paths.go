package mapping

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// step is one level of a source path.
type step struct {
	key     string
	index   int
	isIndex bool
}

// verbatim reports whether the keys below belong to the customer and are taken
// as they are.
func (s step) verbatim() bool { return s.key == "properties" || s.key == "traits" }

// pathText writes a path the way parsePath reads it.
func pathText(steps []step) string {
	var sb strings.Builder
	for i, s := range steps {
		switch {
		case s.isIndex:
			fmt.Fprintf(&sb, "[%d]", s.index)
		case strings.ContainsAny(s.key, ".[]'"):
			fmt.Fprintf(&sb, "['%s']", s.key)
		default:
			if i > 0 {
				sb.WriteByte('.')
			}
			sb.WriteString(s.key)
		}
	}
	return sb.String()
}

// parsePath reads a dotted path: a.b, a[0].b, a.0.b and a['key.with.dots'].
func parsePath(text string) ([]step, error) {
	var steps []step
	rest := text
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "['"):
			end := strings.Index(rest, "']")
			if end < 0 {
				return nil, fmt.Errorf("path %q has [' without ']", text)
			}
			steps = append(steps, step{key: rest[2:end]})
			rest = rest[end+2:]
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return nil, fmt.Errorf("path %q has [ without ]", text)
			}
			n, err := strconv.ParseUint(rest[1:end], 10, 20)
			if err != nil {
				return nil, fmt.Errorf("path %q: %q is not an array index; count from 0, or quote a key as ['key']", text, rest[1:end])
			}
			steps = append(steps, step{index: int(n), isIndex: true})
			rest = rest[end+1:]
		default:
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil, fmt.Errorf("path %q has an empty step; remove the extra dot", text)
			}
			steps = append(steps, step{key: rest[:end]})
			rest = rest[end:]
		}
		if strings.HasPrefix(rest, ".") {
			if rest = rest[1:]; rest == "" {
				return nil, fmt.Errorf("path %q ends in a dot", text)
			}
		} else if rest != "" && rest[0] != '[' {
			return nil, fmt.Errorf("path %q: a dot should follow ]", text)
		}
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("path is empty; name the field that feeds the column")
	}
	if steps[0].isIndex {
		return nil, fmt.Errorf("path %q begins with an index, but an event is an object", text)
	}
	return steps, nil
}

// maxSpellings bounds how many ways of writing one path are looked for: each
// level of two words doubles them.
const maxSpellings = 64

// spellings returns every way the path may be written in an event, the
// preferred one first: snake_case before camelCase at every level, and a
// number as array index or as key. Below properties and traits the keys belong
// to the customer and are taken as they are.
func spellings(steps []step) ([][]step, error) {
	out := [][]step{nil}
	users := false
	for _, s := range steps {
		var alts []step
		switch {
		case s.isIndex:
			alts = []step{s}
		default:
			alts = []step{s}
			if !users {
				alts = alternatives(s.key)
			}
			if n, err := strconv.ParseUint(s.key, 10, 20); err == nil {
				alts = append(alts, step{index: int(n), isIndex: true})
			}
		}
		users = users || s.verbatim()
		var next [][]step
		for _, head := range out {
			for _, alt := range alts {
				next = append(next, append(head[:len(head):len(head)], alt))
			}
		}
		if len(next) > maxSpellings {
			return nil, fmt.Errorf("path %q can be written in more than %d ways; shorten it", pathText(steps), maxSpellings)
		}
		out = next
	}
	return out, nil
}

// alternatives returns the snake_case and the camelCase form of a key, then
// the key itself where it is neither.
func alternatives(key string) []step {
	var snake, camel strings.Builder
	up := false
	for i := 0; i < len(key); i++ {
		c := key[i]
		switch {
		case 'A' <= c && c <= 'Z':
			if i > 0 && key[i-1] != '_' && !('A' <= key[i-1] && key[i-1] <= 'Z') {
				snake.WriteByte('_')
			}
			snake.WriteByte(c + 'a' - 'A')
			camel.WriteByte(c)
			up = false
		case c == '_' && i > 0 && i < len(key)-1:
			snake.WriteByte(c)
			up = true
		default:
			snake.WriteByte(c)
			if up && 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			camel.WriteByte(c)
			up = false
		}
	}
	alts := []step{{key: snake.String()}}
	for _, k := range []string{camel.String(), key} {
		dup := false
		for _, a := range alts {
			dup = dup || a.key == k
		}
		if !dup {
			alts = append(alts, step{key: k})
		}
	}
	return alts
}

// node is one place in an event that the blueprint reads or passes through on
// the way to one. Its id is the index of its value in scanner.vals.
type node struct {
	id    int32
	path  string // for people
	shape bool   // read only to decide what kind of record this is
	batch bool   // an array here holds the events of the record, which are counted
	fold  bool   // keys below are compared without regard to ASCII case
	edges []edge
	byLen [][]edge // edges by length of key, longKey for that and more
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
	if uint(l) > 16 || escaped || n.fold || from < 0 || from > len(b)-8 {
		return n.childSlow(b[from:to], escaped)
	}
	if l >= len(n.byLen) || len(n.byLen[l]) == 0 {
		return nil
	}
	head, tail := binary.LittleEndian.Uint64(b[from:from+8]), uint64(0)
	if l <= 8 {
		head &= 1<<(8*l) - 1 // all ones for 8: the shift gives 0
	} else {
		tail = binary.LittleEndian.Uint64(b[to-8:])
	}
	edges := n.byLen[l]
	for i := range edges {
		if e := &edges[i]; e.head == head && e.tail == tail {
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
	for _, e := range n.ofLength(len(key)) {
		if e.key == string(key) {
			return e.node
		}
	}
	return nil
}

// childFolded compares whole keys with lower-case ones, regardless of case.
func (n *node) childFolded(key []byte) *node {
	for _, e := range n.ofLength(len(key)) {
		if equalFold(key, e.key) {
			return e.node
		}
	}
	return nil
}

// ofLength returns the edges whose keys may have l bytes.
func (n *node) ofLength(l int) []edge {
	if l = min(l, longKey); l < len(n.byLen) {
		return n.byLen[l]
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

// seal sorts the edges by length; no add may follow.
func (n *node) seal() {
	for _, e := range n.edges {
		e.head, e.tail = keyWords(e.key)
		e.node.seal()
		l := min(len(e.key), longKey)
		for len(n.byLen) <= l {
			n.byLen = append(n.byLen, nil)
		}
		n.byLen[l] = append(n.byLen[l], e)
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
func isBOM(b []byte) bool { return len(b) > 2 && b[0] == 0xef && b[1] == 0xbb && b[2] == 0xbf }

// resolveColumns decides, for every target of every section, whether the
// column is sent, how it is spelt and what type it has.
func (c *compiler) resolveColumns() {
	c.cols = map[string]resolved{}
	table := map[string]Column{}
	for _, col := range c.o.Table {
		table[strings.ToLower(col.Name)] = col
	}
	var order []string
	byTarget := map[string][]rule{}
	for _, rules := range c.b.layers() {
		for _, r := range rules {
			key := strings.ToLower(r.target)
			if r.drop {
				continue
			}
			if byTarget[key] == nil {
				order = append(order, key)
			}
			byTarget[key] = append(byTarget[key], r)
		}
	}
	for _, key := range order {
		rules := byTarget[key]
		have, inTable := table[key]
		col := Column{Name: rules[0].target, NotNull: inTable && have.NotNull, Number: have.Number}
		for _, r := range rules {
			col.Optional = col.Optional || r.optional
		}
		switch {
		case inTable:
			col.Name = have.Name
		case col.Optional && (c.o.Table != nil || !c.o.AllOptional):
			c.m.omitted = append(c.m.omitted, col.Name)
			continue
		}
		typ := c.columnType(rules, have, inTable)
		if typ == nil {
			continue
		}
		col.Type = typ.text
		if c.o.Table != nil && !inTable {
			c.problem(rules[0].at, "column %s is not in the table; add it with ALTER TABLE %s ADD COLUMN %s %s, or mark the mapping optional: true, or remove it with source: null",
				col.Name, c.tableName(), col.Name, col.Type)
			continue
		}
		c.cols[key] = resolved{col, typ}
		c.m.columns = append(c.m.columns, col)
	}
}

func (c *compiler) tableName() string {
	if c.o.TableName == "" {
		return "<table>"
	}
	return c.o.TableName
}

// columnType is the type a mapping names, else the table's, else what the
// transforms make, else STRING. It is the same in every section.
func (c *compiler) columnType(rules []rule, have Column, inTable bool) *deltaType {
	var named *rule
	for i := range rules {
		r := &rules[i]
		if r.typ == nil {
			continue
		}
		if named != nil && !named.typ.Same(&r.typ.Type) {
			c.problem(r.at, "column %s is %s here and %s in line %d; a column has one type", r.target, r.typ.text, named.typ.text, named.at.Line)
			return nil
		}
		named = r
	}
	if inTable {
		t, err := parseType(have.Type)
		if err != nil {
			c.problem(rules[0].at, "column %s of the table: %v", have.Name, err)
			return nil
		}
		if named != nil && !named.typ.Same(&t.Type) {
			c.problem(named.at, "column %s is %s here and %s in the table; write type: %s, or leave type out to follow the table", named.target, named.typ.text, t.text, t.text)
			return nil
		}
		return t
	}
	if named != nil {
		return named.typ
	}
	text := implied(rules[0].chain)
	for _, r := range rules[1:] {
		if other := implied(r.chain); other != text {
			c.problem(r.at, "column %s comes out as %s here and as %s in line %d; name its type", r.target, other, text, rules[0].at.Line)
			return nil
		}
	}
	t, err := parseType(text)
	if err != nil {
		c.problem(rules[0].at, "%v", err)
		return nil
	}
	return t
}

// checkRequired refuses a table with a NOT NULL column nothing feeds.
func (c *compiler) checkRequired() {
	if c.o.Input == "mapped" {
		return
	}
	for _, col := range c.o.Table {
		if _, ok := c.cols[strings.ToLower(col.Name)]; col.NotNull && !ok {
			c.problem(Position{c.b.file, 1, 1}, "column %s of the table is NOT NULL and no mapping fills it; map it, give it a default_value, or run ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL",
				col.Name, c.tableName(), col.Name)
		}
	}
}

// checkNumbers refuses what a protobuf row cannot carry.
func (c *compiler) checkNumbers() {
	if c.o.Format != "protobuf" {
		return
	}
	for _, col := range c.m.columns {
		if err := unfit(col, c.cols[strings.ToLower(col.Name)].typ); err != nil {
			c.problem(c.at(col.Name), "column %s: %v", col.Name, err)
		}
	}
	owner := map[int32]string{}
	for _, col := range c.o.Table {
		if other := owner[col.Number]; other != "" && col.Number > 0 {
			c.problem(c.at(col.Name), "columns %s and %s of the table are both number %d in protobuf; write rows as JSON", other, col.Name, col.Number)
		}
		owner[col.Number] = col.Name
	}
}

// unfit returns why a column cannot be in a protobuf row, or nil.
func unfit(col Column, typ *deltaType) error {
	if n := col.Number; n < 1 || n > maxNumber || n >= reservedFrom && n <= reservedTo {
		return fmt.Errorf("its number in protobuf would be %d, but the numbers are 1 to %d without %d to %d; write rows as JSON", n, maxNumber, reservedFrom, reservedTo)
	}
	return typ.protobuf()
}

// at returns where the blueprint first fills a column.
func (c *compiler) at(name string) Position {
	for _, rules := range c.b.layers() {
		for _, r := range rules {
			if strings.EqualFold(r.target, name) && !r.drop {
				return r.at
			}
		}
	}
	return Position{c.b.file, 1, 1}
}
