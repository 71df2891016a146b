package mapping

import "strconv"

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
