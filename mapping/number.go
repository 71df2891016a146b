package mapping

import (
	"math"
	"strconv"
)

// decimal is a JSON number taken apart exactly: the value is the digits, with
// the point left of the last scale of them. Digits have no leading zeros.
type decimal struct {
	neg    bool
	digits []byte // in the caller's buffer
	scale  int    // may be negative: zeros to append
}

// maxExponent bounds exponents; beyond it no column type holds the number and
// counting on would only cost memory.
const maxExponent = 400

// parseDecimal takes a JSON number apart, with its digits in buf. ok is false
// where the exponent is beyond any type.
func parseDecimal(buf, text []byte) (d decimal, ok bool) {
	i := 0
	if text[0] == '-' {
		d.neg = true
		i++
	}
	digits := buf[:0]
	for ; i < len(text) && text[i] != 'e' && text[i] != 'E'; i++ {
		switch {
		case text[i] == '.':
			d.scale = len(text) - i - 1
		case text[i] != '0' || len(digits) > 0:
			digits = append(digits, text[i])
		}
	}
	if i < len(text) {
		if d.scale > 0 {
			d.scale -= len(text) - i
		}
		exp := 0
		sign := 1
		for i++; i < len(text); i++ {
			switch c := text[i]; c {
			case '-':
				sign = -1
			case '+':
			default:
				exp = min(exp*10+int(c-'0'), 1<<20)
			}
		}
		d.scale -= sign * exp
	}
	for len(digits) > 0 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
		d.scale--
	}
	if len(digits) == 0 {
		return decimal{digits: digits}, true
	}
	d.digits = digits
	return d, d.scale <= maxExponent && d.scale >= -maxExponent
}

// int64 returns the number where it is whole and fits.
func (d decimal) int64() (v int64, whole, fits bool) {
	if d.scale > 0 {
		return 0, false, true
	}
	if len(d.digits)-d.scale > 19 {
		return 0, true, false
	}
	var u uint64
	for _, c := range d.digits {
		u = u*10 + uint64(c-'0')
	}
	for i := d.scale; i < 0; i++ {
		u *= 10
	}
	switch {
	case d.neg && u <= 1<<63:
		return -int64(u), true, true // -(1<<63) wraps onto itself
	case !d.neg && u <= math.MaxInt64:
		return int64(u), true, true
	}
	return 0, true, false
}

// appendPlain appends the number without an exponent.
func (d decimal) appendPlain(dst []byte) []byte {
	if len(d.digits) == 0 {
		return append(dst, '0')
	}
	if d.neg {
		dst = append(dst, '-')
	}
	whole := len(d.digits) - d.scale // digits left of the point
	if whole <= 0 {
		dst = append(dst, '0', '.')
		for ; whole < 0; whole++ {
			dst = append(dst, '0')
		}
		return append(dst, d.digits...)
	}
	if d.scale <= 0 {
		dst = append(dst, d.digits...)
		for i := d.scale; i < 0; i++ {
			dst = append(dst, '0')
		}
		return dst
	}
	dst = append(dst, d.digits[:whole]...)
	dst = append(dst, '.')
	return append(dst, d.digits[whole:]...)
}

// parseFloat reads a JSON number; ok is false where it is not finite in a
// float of the size.
func parseFloat(text []byte, bits int) (f float64, ok bool) {
	f, err := strconv.ParseFloat(string(text), bits)
	return f, err == nil
}

// notFinite returns NaN or Infinity where text is, or begins with, one of the
// names that serializers give to what is no finite number, else "".
func notFinite(text []byte, whole bool) string {
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		text = text[1:]
	}
	for _, n := range [...]struct{ spelling, name string }{{"nan", "NaN"}, {"infinity", "Infinity"}, {"inf", "Infinity"}} {
		if len(text) < len(n.spelling) || whole && len(text) != len(n.spelling) || !equalFold(text[:len(n.spelling)], n.spelling) {
			continue
		}
		if rest := text[len(n.spelling):]; len(rest) == 0 || !isLetter(rest[0]) {
			return n.name
		}
	}
	return ""
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// isNumber reports whether text is exactly one JSON number.
func isNumber(text []byte) bool { return len(text) > 0 && numberEnd(text, 0) == len(text) }
