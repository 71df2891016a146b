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

// appendArray appends a JSON array whose elements fit the element type. A null
// inside has no place in a Zerobus array, and leaving it out would move its
// neighbours, so it is refused.
func (e *encoder) appendArray(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	if v.kind != array {
		return dst, mismatch("is not an array")
	}
	dst = append(dst, '[')
	for i := space(v.b, 1); v.b[i] != ']'; {
		end := valueEnd(v.b, i)
		elem := val{kind: jsonKind(v.b[i:end]), b: v.b[i:end]}
		if elem.kind == null {
			return dst, mismatch("has a null inside, which an ARRAY column cannot hold")
		}
		var r refusal
		if dst, r = e.append(dst, t.elem, elem); r.code != "" {
			return dst, r
		}
		if i = space(v.b, end); v.b[i] == ',' {
			dst = append(dst, ',')
			i = space(v.b, i+1)
		}
	}
	return append(dst, ']'), refusal{}
}

// appendMap appends a JSON object whose values fit the value type. A member
// that is null is left out, like a column that is null.
func (e *encoder) appendMap(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	if v.kind != object {
		return dst, mismatch("is not an object")
	}
	dst = append(dst, '{')
	comma := false
	for i := space(v.b, 1); v.b[i] != '}'; {
		keyEnd := valueEnd(v.b, i)
		key := v.b[i:keyEnd]
		i = space(v.b, space(v.b, keyEnd)+1)
		end := valueEnd(v.b, i)
		elem := val{kind: jsonKind(v.b[i:end]), b: v.b[i:end]}
		if elem.kind != null {
			if comma {
				dst = append(dst, ',')
			}
			comma = true
			dst = append(dst, key...)
			dst = append(dst, ':')
			var r refusal
			if dst, r = e.append(dst, t.elem, elem); r.code != "" {
				return dst, r
			}
		}
		if i = space(v.b, end); v.b[i] == ',' {
			i = space(v.b, i+1)
		}
	}
	return append(dst, '}'), refusal{}
}
