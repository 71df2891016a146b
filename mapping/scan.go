package mapping

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

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
// occurs twice) is noted and scanning continues, because in a batch it condemns
// one event and not its neighbours.
type scanner struct {
	b        []byte
	vals     []span // by node id
	depth    int
	hard     fault
	soft     fault
	shapeDup bool // payload, data, original_event or batch occurs twice
	events   int  // elements of the array that holds the record's events

	root  *node   // where keep began
	keeps bool    // the events inside the record are kept
	spare []span  // vals while one of them is scanned
	kept  []noted // their values, those of an event behind its own
	used  int     // notes of kept that again has used
}

// noted is a value of an event inside a record.
type noted struct {
	id int32 // of the node
	span
}

// maxNotes bounds the notes of one record, up to those of one event. A hundred
// events of twenty values fit; the others are scanned a second time.
const maxNotes = 2048

// event scans the value at i against the trie and returns the index after it,
// or -1 with s.hard set.
func (s *scanner) event(i int, root *node) int {
	clear(s.vals)
	s.depth, s.hard, s.soft, s.shapeDup, s.events = 0, fault{}, fault{}, false, 0
	return s.value(space(s.b, i), root)
}

// keep scans a whole record, and keeps the values of the events inside it for again:
// of those in a batch, or of the one in a wrapper.
func (s *scanner) keep(root *node) int {
	s.root, s.keeps, s.kept, s.used = root, true, s.kept[:0], 0
	end := s.event(0, root)
	s.keeps = false
	return end
}

// again is event for an event inside the record: kept ones are not scanned a second
// time.
func (s *scanner) again(i int, root *node) int {
	if s.used == len(s.kept) || int(s.kept[s.used].start) != i {
		return s.event(i, root)
	}
	clear(s.vals)
	s.soft, s.shapeDup = fault{}, false
	end := int(s.kept[s.used].end)
	for first := true; s.used < len(s.kept) && (first || s.kept[s.used].id != root.id); first = false {
		s.vals[s.kept[s.used].id] = s.kept[s.used].span
		s.used++
	}
	return end
}

// inside scans what may be an event inside the record. One with a fault is the last:
// it is skipped and scanned a second time, because its faults are not the record's.
func (s *scanner) inside(i int) int {
	vals, soft, dup, events := s.vals, s.soft, s.shapeDup, s.events
	if len(s.spare) != len(vals) {
		s.spare = make([]span, len(vals))
	}
	clear(s.spare)
	s.vals, s.soft, s.shapeDup, s.keeps = s.spare, fault{}, false, false
	end := s.value(i, s.root)
	whole := s.soft.code == "" && !s.shapeDup
	s.vals, s.soft, s.shapeDup, s.events = vals, soft, dup, events
	switch {
	case end < 0:
		return -1
	case !whole || len(s.kept) > maxNotes:
		return s.skip(i)
	}
	for id, v := range s.spare {
		if v.kind != absent {
			s.kept = append(s.kept, noted{int32(id), v})
		}
	}
	s.keeps = true
	return end
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

// at reports whether c stands at b[i]. One comparison keeps i within b.
func at(b []byte, i int, c byte) bool { return uint(i) < uint(len(b)) && b[i] == c }

// space returns the index of the first byte from i on that is no white space.
func space(b []byte, i int) int {
	for uint(i) < uint(len(b)) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
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
			s.note(CodeDuplicateKey, n.path, space(s.b, i))
		}
		return s.skip(i)
	}
	if uint(i) >= uint(len(s.b)) {
		return s.fail(CodeNotJSON, "the text ends where a value should stand", i)
	}
	var k kind
	var end int
	switch s.b[i] {
	case '"':
		k = str
		if end = plainEnd(s.b, i+1); at(s.b, end, '"') {
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
	case ' ', '\n', '\t', '\r':
		return s.value(space(s.b, i), n)
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
	if uint(i) >= uint(len(s.b)) {
		return s.fail(CodeNotJSON, "the text ends where a value should stand", i)
	}
	switch s.b[i] {
	case '"':
		end := plainEnd(s.b, i+1)
		if at(s.b, end, '"') {
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
	case ' ', '\n', '\t', '\r':
		return s.skip(space(s.b, i))
	}
	return s.number(i)
}

// object scans from behind the opening brace to behind the closing one. A nil
// node means that nothing inside is read.
func (s *scanner) object(i int, n *node) int {
	if n != nil && len(n.edges) == 0 {
		if s.keeps && n.shape {
			return s.inside(i - 1)
		}
		n = nil
	}
	if s.depth++; s.depth > maxDepth {
		return s.fail(CodeTooDeep, "nested deeper than 1000", i)
	}
	b := s.b
	if i = space(b, i); at(b, i, '}') {
		s.depth--
		return i + 1
	}
	for {
		if !at(b, i, '"') {
			if i = space(b, i); !at(b, i, '"') {
				return s.fail(CodeNotJSON, "a key in double quotes should stand here", i)
			}
		}
		key := i + 1
		esc := false
		if i = plainEnd(b, key); at(b, i, '"') {
			i++
		} else if i, esc = s.text(i); i < 0 {
			return -1
		}
		var child *node
		if n != nil {
			child = n.child(b, key, i-1, esc)
		}
		if !at(b, i, ':') {
			if i = space(b, i); !at(b, i, ':') {
				return s.fail(CodeNotJSON, "a colon should stand here", i)
			}
		}
		if child != nil {
			i = s.value(i+1, child)
		} else {
			i = s.skip(i + 1)
		}
		if i < 0 {
			return -1
		}
		if !at(b, i, ',') {
			if i = space(b, i); at(b, i, '}') {
				s.depth--
				return i + 1
			}
			if !at(b, i, ',') {
				return s.fail(CodeNotJSON, "a comma or a closing brace should stand here", i)
			}
		}
		i++
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
		if child := n.item(at); s.keeps && n != nil && n.batch && len(n.items) == 0 {
			i = s.inside(i)
		} else if child != nil {
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

const (
	lows  = 0x0101010101010101
	highs = 0x8080808080808080
)

// stops marks, in the high bit of each byte, the bytes of w that end the easy
// part of a string: a quote, a backslash, a control character or a byte outside
// ASCII. Flipping the second bit puts the quote next to the control characters, so
// that one subtraction finds both. Only the lowest mark is to be trusted: the
// subtractions may borrow from higher bytes and mark too many of them, never lower
// ones.
func stops(w uint64) uint64 {
	low, slash := w^2*lows, w^'\\'*lows
	return ((low - '!'*lows) | (slash - lows) | w) & highs
}

// plainEnd returns the index of the first byte from i on that is not an easy
// part of a string, or one within eight bytes of the end of b. The condition of the
// loop spares the slice its checks.
func plainEnd(b []byte, i int) int {
	for i >= 0 && i <= len(b)-8 {
		if stop := stops(binary.LittleEndian.Uint64(b[i : i+8])); stop != 0 {
			return i + bits.TrailingZeros64(stop)>>3
		}
		i += 8
	}
	return i
}

// text scans from anywhere inside a string to behind its closing quote and reports
// whether there was an escape on the way.
func (s *scanner) text(i int) (end int, esc bool) {
	b := s.b
	for {
		if i = plainEnd(b, i); i >= len(b) {
			return s.fail(CodeNotJSON, "the text ends inside a string", i), false
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, esc
		case c == '\\':
			esc = true
			if i = s.escape(i); i < 0 {
				return -1, false
			}
		case c < ' ':
			return s.fail(CodeNotJSON, "a control character stands unescaped in a string", i), false
		case c < utf8.RuneSelf:
			i++
		default:
			r, size := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && size == 1 {
				s.note(CodeInvalidUTF8, "a byte that is not UTF-8", i)
			}
			i += size
		}
	}
}

// escape scans the escape whose backslash stands at i. A surrogate must be one
// of a pair.
func (s *scanner) escape(i int) int {
	if i+1 >= len(s.b) {
		return s.fail(CodeNotJSON, "the text ends inside a string", i)
	}
	switch s.b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		r := hex4(s.b, i+2)
		if r < 0 {
			return s.fail(CodeNotJSON, "four hexadecimal digits should follow \\u", i)
		}
		if r < 0xD800 || r > 0xDFFF {
			return i + 6
		}
		if r < 0xDC00 && i+7 < len(s.b) && s.b[i+6] == '\\' && s.b[i+7] == 'u' {
			if low := hex4(s.b, i+8); low >= 0xDC00 && low <= 0xDFFF {
				return i + 12
			}
		}
		s.note(CodeInvalidUTF8, "a surrogate that is not one of a pair", i)
		return i + 6
	}
	return s.fail(CodeNotJSON, "an unknown escape", i)
}

// hex4 returns the value of the four hexadecimal digits at i, or -1.
func hex4(b []byte, i int) rune {
	if i+4 > len(b) {
		return -1
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return -1
		}
	}
	return r
}

func (s *scanner) literal(i int, want string) int {
	if i >= 0 && i <= len(s.b)-len(want) && string(s.b[i:i+len(want)]) == want {
		return i + len(want)
	}
	if name := notFinite(s.b[i:], false); name != "" { // nan begins like null
		return s.number(i)
	}
	return s.fail(CodeNotJSON, "a value should stand here", i)
}

func (s *scanner) number(i int) int {
	end := numberEnd(s.b, i)
	if end < 0 {
		if name := notFinite(s.b[i:], false); name != "" {
			return s.fail(CodeNotJSON, name+" stands here, which JSON has no number for; have the producer send null", i)
		}
		if c := s.b[i]; c == '-' || ('0' <= c && c <= '9') {
			return s.fail(CodeNotJSON, "a number that JSON does not allow", i)
		}
		return s.fail(CodeNotJSON, "a value should stand here", i)
	}
	return end
}

// numberEnd returns the index after the JSON number at i, or -1. What follows
// the number is the caller's to check; "01" ends after the zero.
func numberEnd(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	case i < len(b) && '1' <= b[i] && b[i] <= '9':
		i = digits(b, i)
	default:
		return -1
	}
	if i < len(b) && b[i] == '.' {
		end := digits(b, i+1)
		if end == i+1 {
			return -1
		}
		i = end
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		end := digits(b, i)
		if end == i {
			return -1
		}
		i = end
	}
	return i
}

func digits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}
