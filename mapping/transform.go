package mapping

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"unicode"

	"github.com/datafly/bridge/internal/delta"
)

// transform is one step between a source and its column.
type transform struct {
	name string
	arg  string // date_format: the format; split and join: the separator
}

// transformNames lists the transforms a blueprint may name.
var transformNames = []string{"snake_case", "lower", "upper", "trim", "date_format", "json", "hash_sha256",
	"to_string", "to_int", "to_float", "to_bool", "split", "join"}

// dateFormats lists what date_format may make.
var dateFormats = []string{"epoch_micros", "epoch_millis", "rfc3339", "date"}

// implied returns the column type a chain of transforms makes where neither
// the blueprint nor the table names one.
func implied(chain []transform) string {
	if len(chain) == 0 {
		return "STRING"
	}
	switch last := chain[len(chain)-1]; last.name {
	case "date_format":
		return map[string]string{"epoch_micros": "TIMESTAMP", "epoch_millis": "BIGINT", "rfc3339": "STRING", "date": "DATE"}[last.arg]
	case "to_int":
		return "BIGINT"
	case "to_float":
		return "DOUBLE"
	case "to_bool":
		return "BOOLEAN"
	case "split":
		return "ARRAY<STRING>"
	}
	return "STRING"
}

// transform applies one step. t is the type of the column the chain ends in.
func (e *encoder) transform(op *transform, t *deltaType, v val) (val, refusal) {
	switch op.name {
	case "snake_case", "lower", "upper", "trim":
		if v.kind == object || v.kind == array {
			return v, refusal{} // they become compact JSON, which these would only spoil
		}
		return e.textTransform(op.name, e.text(v)), refusal{}
	case "to_string", "json":
		if op.name == "json" && t.Kind == delta.Variant {
			return v, refusal{} // which makes JSON text of it anyway
		}
		if op.name == "json" && v.isText() {
			text := e.text(v)
			return val{kind: plainText, b: e.add(func(b []byte) []byte { return appendQuoted(b, text) })}, refusal{}
		}
		return val{kind: plainText, b: e.text(v)}, refusal{}
	case "hash_sha256":
		sum := sha256.Sum256(e.text(v))
		return val{kind: plainText, b: e.add(func(b []byte) []byte { return hex.AppendEncode(b, sum[:]) })}, refusal{}
	case "date_format":
		return e.dateFormat(op.arg, t, v)
	case "to_int", "to_float":
		return e.toNumber(op.name, v)
	case "to_bool":
		return e.toBool(v)
	case "split":
		return e.split(op.arg, v)
	}
	return e.join(op.arg, v)
}

func (e *encoder) textTransform(name string, text []byte) val {
	out := val{kind: plainText}
	switch name {
	case "snake_case":
		out.b = e.add(func(b []byte) []byte { return appendSnake(b, text) })
	case "lower":
		out.b = e.add(func(b []byte) []byte { return appendMapped(b, text, unicode.ToLower) })
	case "upper":
		out.b = e.add(func(b []byte) []byte { return appendMapped(b, text, unicode.ToUpper) })
	case "trim":
		out.b = bytes.TrimSpace(text)
	}
	return out
}

func (e *encoder) dateFormat(format string, t *deltaType, v val) (val, refusal) {
	at, r := e.instant(v)
	if r.code != "" {
		return v, r
	}
	if isTime(t) {
		return val{kind: pointInTime, t: at}, refusal{} // the column's own form
	}
	out := val{kind: number}
	out.b = e.add(func(b []byte) []byte {
		switch format {
		case "epoch_micros":
			return strconv.AppendInt(b, at.micros(), 10)
		case "epoch_millis":
			return strconv.AppendInt(b, at.millis(), 10)
		case "rfc3339":
			out.kind = plainText
			return at.appendRFC3339(b, "Z")
		}
		out.kind = plainText
		return at.appendDate(b)
	})
	return out, refusal{}
}

func (e *encoder) toNumber(name string, v val) (val, refusal) {
	switch v.kind {
	case trueLit:
		return val{kind: number, b: []byte("1")}, refusal{}
	case falseLit:
		return val{kind: number, b: []byte("0")}, refusal{}
	}
	if v.isText() {
		v = val{kind: plainText, b: bytes.TrimSpace(e.text(v))}
	}
	text, r := e.number(v)
	if r.code != "" {
		return v, r
	}
	if name == "to_float" {
		return val{kind: number, b: text}, refusal{}
	}
	var buf [48]byte
	d, ok := parseDecimal(buf[:0], text)
	if !ok {
		return v, refusal{CodeOutOfRange, "is too large for any column"}
	}
	if d.scale > 0 {
		return v, mismatch("is not a whole number")
	}
	return val{kind: number, b: e.add(d.appendPlain)}, refusal{}
}

func (e *encoder) toBool(v val) (val, refusal) {
	switch {
	case v.kind == trueLit || v.kind == falseLit:
		return v, refusal{}
	case v.kind == number || v.isText():
		text := bytes.TrimSpace(e.text(v))
		for _, yes := range []string{"true", "1", "yes", "on", "granted"} {
			if equalFold(text, yes) {
				return val{kind: trueLit, b: []byte("true")}, refusal{}
			}
		}
		for _, no := range []string{"false", "0", "no", "off", "denied"} {
			if equalFold(text, no) {
				return val{kind: falseLit, b: []byte("false")}, refusal{}
			}
		}
	}
	return v, mismatch("is none of true, false, 1, 0, yes, no, on, off, granted, denied")
}

// split cuts text at the separator into a JSON array of strings; an empty
// string is an array of none.
func (e *encoder) split(sep string, v val) (val, refusal) {
	if v.kind == array {
		return v, refusal{}
	}
	if v.kind == object {
		return v, mismatch("is not text and cannot be split")
	}
	text := e.text(v)
	out := e.add(func(b []byte) []byte {
		b = append(b, '[')
		for more := len(text) > 0; more; {
			at := bytes.Index(text, []byte(sep))
			part := text
			if more = at >= 0; more {
				part, text = text[:at], text[at+len(sep):]
			}
			b = appendQuoted(b, part)
			if more {
				b = append(b, ',')
			}
		}
		return append(b, ']')
	})
	return val{kind: array, b: out}, refusal{}
}

// join puts the scalars of an array behind one another, the separator between
// them; nulls are passed over.
func (e *encoder) join(sep string, v val) (val, refusal) {
	if v.kind != array {
		return v, mismatch("is not an array and cannot be joined")
	}
	// Elements with escapes need room in the scratch while the result grows
	// there, so the result is gathered behind them.
	var parts [][]byte
	for it, _ := elements(v); it.next(); {
		if it.value.kind == object || it.value.kind == array {
			return v, mismatch("has an object or array inside and cannot be joined")
		}
		if it.value.kind != null {
			parts = append(parts, e.text(it.value))
		}
	}
	return val{kind: plainText, b: bytes.Join(parts, []byte(sep))}, refusal{}
}
