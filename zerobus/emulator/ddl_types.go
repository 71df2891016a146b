package emulator

import (
	"strconv"
	"strings"
)

// dataType reads a type; depth is how deep it is nested.
func (p *ddlParser) dataType(depth int) (*dataType, error) {
	if depth > maxTypeDepth {
		return nil, p.errorf("type nested deeper than %d", maxTypeDepth)
	}
	if p.tok.kind != tokWord {
		return nil, p.errorf("got %s, want a type", p.tok)
	}
	name := strings.ToUpper(p.tok.text)
	if err := p.next(); err != nil {
		return nil, err
	}
	if k, ok := scalarTypes[name]; ok {
		return &dataType{kind: k}, nil
	}
	switch name {
	case "VARCHAR", "CHAR", "CHARACTER":
		args, err := p.numbers(name, 1)
		if err != nil {
			return nil, err
		}
		k := kindChar
		if name == "VARCHAR" {
			k = kindVarchar
		}
		if args[0] < 1 {
			return nil, p.errorf("%s(%d): want a length of at least 1", name, args[0])
		}
		return &dataType{kind: k, length: args[0]}, nil
	case "DECIMAL", "DEC", "NUMERIC":
		t := &dataType{kind: kindDecimal, precision: 10}
		if p.tok.is("(") {
			args, err := p.numbers(name, 2)
			if err != nil {
				return nil, err
			}
			t.precision = args[0]
			if len(args) == 2 {
				t.scale = args[1]
			}
		}
		if t.precision < 1 || t.precision > 38 || t.scale > t.precision {
			return nil, p.errorf("DECIMAL(%d,%d): want a precision of 1 to 38 and a scale no larger", t.precision, t.scale)
		}
		return t, nil
	case "ARRAY", "MAP", "STRUCT":
		return p.nested(name, depth+1)
	}
	return nil, p.errorf("type %s is not one the service can write; use STRING, a number type, BOOLEAN, BINARY, DATE, TIMESTAMP, TIMESTAMP_NTZ, DECIMAL(p,s), VARIANT, ARRAY<T>, MAP<K,V> or STRUCT<name: T>", name)
}

func (p *ddlParser) nested(name string, depth int) (t *dataType, err error) {
	if err := p.expect("<"); err != nil {
		return nil, err
	}
	switch name {
	case "ARRAY":
		t = &dataType{kind: kindArray}
		t.elem, err = p.dataType(depth)
	case "MAP":
		t = &dataType{kind: kindMap}
		if t.key, err = p.dataType(depth); err != nil {
			return nil, err
		}
		if err = p.expect(","); err != nil {
			return nil, err
		}
		t.elem, err = p.dataType(depth)
	case "STRUCT":
		t = &dataType{kind: kindStruct, index: map[string]int{}}
		for more := true; more; {
			f, err := p.column(depth, true)
			if err != nil {
				return nil, err
			}
			if _, twice := t.index[f.name]; twice {
				return nil, p.errorf("struct field %s occurs twice; rename one", f.name)
			}
			t.index[f.name] = len(t.fields)
			t.fields = append(t.fields, f)
			if more, err = p.accept(","); err != nil {
				return nil, err
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return t, p.expect(">")
}

// numbers reads a bracketed list of one to limit small numbers.
func (p *ddlParser) numbers(name string, limit int) ([]int, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var out []int
	for {
		n, err := strconv.Atoi(p.tok.text)
		if p.tok.kind != tokWord || err != nil || n < 0 || n > 1<<20 || len(out) == limit {
			return nil, p.errorf("%s: got %s, want at most %d whole number(s)", name, p.tok, limit)
		}
		out = append(out, n)
		if err := p.next(); err != nil {
			return nil, err
		}
		if ok, err := p.accept(","); err != nil {
			return nil, err
		} else if !ok {
			return out, p.expect(")")
		}
	}
}

func validColumnName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9' || i == 0) {
			return false
		}
	}
	return s != ""
}
