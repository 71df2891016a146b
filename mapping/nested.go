package mapping

// jsonKind tells the kind of the scanned JSON value that begins with b.
func jsonKind(raw []byte) kind {
	switch raw[0] {
	case '"':
		for _, c := range raw {
			if c == '\\' {
				return strEsc
			}
		}
		return str
	case '{':
		return object
	case '[':
		return array
	case 't':
		return trueLit
	case 'f':
		return falseLit
	case 'n':
		return null
	}
	return number
}

// valueEnd returns the index after the value at i of scanned JSON.
func valueEnd(b []byte, i int) int {
	switch b[i] {
	case '"':
		for i++; b[i] != '"'; i++ {
			if b[i] == '\\' {
				i++
			}
		}
		return i + 1
	case '{', '[':
		depth := 0
		for ; ; i++ {
			switch b[i] {
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			case '"':
				i = valueEnd(b, i) - 1
			}
		}
	}
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && b[i] > ' ' {
		i++
	}
	return i
}

var (
	nullInArray = mismatch("has a null inside, which an ARRAY column cannot hold")
	nullInMap   = mismatch("has a null inside, which a MAP column cannot hold in protobuf")
)

// iterator goes through the values of a scanned array or object.
type iterator struct {
	b     []byte
	i     int    // of what comes next, or of the closing bracket
	key   []byte // with its quotes, in an object
	value val
	end   int // of the value
}

func elements(v val) (iterator, refusal) {
	if v.kind != array {
		return iterator{}, mismatch("is not an array")
	}
	return iterator{b: v.b, i: space(v.b, 1)}, refusal{}
}

func pairs(v val) (iterator, refusal) {
	if v.kind != object {
		return iterator{}, mismatch("is not an object")
	}
	return iterator{b: v.b, i: space(v.b, 1)}, refusal{}
}

// next goes to the next element of an array.
func (it *iterator) next() bool {
	if it.b[it.i] == ']' {
		return false
	}
	it.read()
	return true
}

// nextPair goes to the next member of an object.
func (it *iterator) nextPair() bool {
	if it.b[it.i] == '}' {
		return false
	}
	end := valueEnd(it.b, it.i)
	it.key = it.b[it.i:end]
	it.i = space(it.b, space(it.b, end)+1)
	it.read()
	return true
}

// read takes the value that comes next and what stands between it and the one
// after it.
func (it *iterator) read() {
	end := valueEnd(it.b, it.i)
	raw := it.b[it.i:end]
	it.value, it.end = val{kind: jsonKind(raw), b: raw}, end
	if it.i = space(it.b, end); it.b[it.i] == ',' {
		it.i = space(it.b, it.i+1)
	}
}
