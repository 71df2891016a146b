package mapping

// maxDepth is the deepest nesting an event may have. It bounds the scanner's
// recursion; events made by people and SDKs stay below 20.
const maxDepth = 1000

// kind is the JSON kind of a scanned value. Kinds above null are values.
type kind uint8

const (
	absent kind = iota
	null
	falseLit
	trueLit
	number
	str    // a string without escapes
	strEsc // a string with at least one escape
	object
	array
)

// span is where a value stands in the record; strings include their quotes.
type span struct {
	start, end uint32 // Kafka bounds a record by an int32 of bytes
	kind       kind
}

// fault is what is wrong with the text, and where.
type fault struct {
	code string // "" is no fault
	what string
	at   int
}

// scanner reads a record once, byte by byte, and checks all of RFC 8259 on the
// way, also in the parts nothing reads. Values on the paths of the trie are
// noted in vals; nothing is copied.
//
// A hard fault ends the scan. A soft one (text that is not Unicode, a path that
// occurs twice) is noted and scanning goes on, because in a batch it condemns
// one event and not its neighbours.
type scanner struct {
	b        []byte
	vals     []span // by node id
	depth    int
	hard     fault
	soft     fault
	shapeDup bool // payload, data, original_event or batch occurs twice
	events   int  // elements of the array that holds the record's events
}

// event scans the value at i against the trie and returns the index after it,
// or -1 with s.hard set.
func (s *scanner) event(i int, root *node) int {
	clear(s.vals)
	s.depth, s.hard, s.soft, s.shapeDup, s.events = 0, fault{}, fault{}, false, 0
	return s.value(space(s.b, i), root)
}

func (s *scanner) fail(code, what string, at int) int {
	s.hard = fault{code, what, at}
	return -1
}

func (s *scanner) note(code, what string, at int) {
	if s.soft.code == "" {
		s.soft = fault{code, what, at}
	}
}

func space(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// value scans the value at i and notes its span under n.
func (s *scanner) value(i int, n *node) int {
	v := &s.vals[n.id]
	if v.kind != absent {
		if n.shape {
			s.shapeDup = true
		} else {
			s.note(CodeDuplicateKey, n.path, i)
		}
		return s.skip(i)
	}
	if i >= len(s.b) {
		return s.fail(CodeNotJSON, "the text ends where a value should stand", i)
	}
	var k kind
	var end int
	switch s.b[i] {
	case '"':
		k = str
		if end = plainEnd(s.b, i+1); end < len(s.b) && s.b[end] == '"' {
			end++
			break
		}
		var esc bool
		if end, esc = s.text(end); esc {
			k = strEsc
		}
	case '{':
		k, end = object, s.object(i+1, n)
	case '[':
		k, end = array, s.array(i+1, n)
	case 't':
		k, end = trueLit, s.literal(i, "true")
	case 'f':
		k, end = falseLit, s.literal(i, "false")
	case 'n':
		k, end = null, s.literal(i, "null")
	default:
		k, end = number, s.number(i)
	}
	if end < 0 {
		return -1
	}
	s.vals[n.id] = span{uint32(i), uint32(end), k}
	return end
}

// skip scans the value at i and notes nothing.
func (s *scanner) skip(i int) int {
	if i >= len(s.b) {
		return s.fail(CodeNotJSON, "the text ends where a value should stand", i)
	}
	switch s.b[i] {
	case '"':
		end := plainEnd(s.b, i+1)
		if end < len(s.b) && s.b[end] == '"' {
			return end + 1
		}
		end, _ = s.text(end)
		return end
	case '{':
		return s.object(i+1, nil)
	case '[':
		return s.array(i+1, nil)
	case 't':
		return s.literal(i, "true")
	case 'f':
		return s.literal(i, "false")
	case 'n':
		return s.literal(i, "null")
	}
	return s.number(i)
}

// object scans from behind the opening brace to behind the closing one. A nil
// node means that nothing inside is read.
func (s *scanner) object(i int, n *node) int {
	if s.depth++; s.depth > maxDepth {
		return s.fail(CodeTooDeep, "nested deeper than 1000", i)
	}
	b := s.b
	if n != nil && len(n.edges) == 0 {
		n = nil
	}
	i = space(b, i)
	if i < len(b) && b[i] == '}' {
		s.depth--
		return i + 1
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return s.fail(CodeNotJSON, "a key in double quotes should stand here", i)
		}
		key := i + 1
		esc := false
		if i = plainEnd(b, key); i < len(b) && b[i] == '"' {
			i++
		} else if i, esc = s.text(i); i < 0 {
			return -1
		}
		var child *node
		if n != nil {
			child = n.child(b, key, i-1, esc)
		}
		if i < len(b) && b[i] != ':' {
			i = space(b, i)
		}
		if i >= len(b) || b[i] != ':' {
			return s.fail(CodeNotJSON, "a colon should stand here", i)
		}
		if i++; i < len(b) && b[i] <= ' ' {
			i = space(b, i)
		}
		if child != nil {
			i = s.value(i, child)
		} else {
			i = s.skip(i)
		}
		if i < 0 {
			return -1
		}
		if i < len(b) && b[i] <= ' ' {
			i = space(b, i)
		}
		if i < len(b) && b[i] == ',' {
			if i++; i < len(b) && b[i] <= ' ' {
				i = space(b, i)
			}
			continue
		}
		if i < len(b) && b[i] == '}' {
			s.depth--
			return i + 1
		}
		return s.fail(CodeNotJSON, "a comma or a closing brace should stand here", i)
	}
}

// array scans from behind the opening bracket to behind the closing one.
func (s *scanner) array(i int, n *node) int {
	if s.depth++; s.depth > maxDepth {
		return s.fail(CodeTooDeep, "nested deeper than 1000", i)
	}
	b := s.b
	i = space(b, i)
	if i < len(b) && b[i] == ']' {
		s.depth--
		return i + 1
	}
	for at := 0; ; at++ {
		if child := n.item(at); child != nil {
			i = s.value(i, child)
		} else {
			i = s.skip(i)
		}
		if i < 0 {
			return -1
		}
		i = space(b, i)
		if i < len(b) && b[i] == ',' {
			i = space(b, i+1)
			continue
		}
		if i < len(b) && b[i] == ']' {
			s.depth--
			if n != nil && n.batch {
				s.events = at + 1
			}
			return i + 1
		}
		return s.fail(CodeNotJSON, "a comma or a closing bracket should stand here", i)
	}
}
