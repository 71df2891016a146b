package emulator

import (
	"fmt"
	"strings"
)

type tokenKind uint8

const (
	tokEOF    tokenKind = iota
	tokWord             // keyword, name or number
	tokQuoted           // `name`
	tokString           // 'text' or "text"
	tokPunct            // one byte
)

type token struct {
	kind tokenKind
	text string
	line int
}

// is reports whether the token is this keyword or punctuation. A name in
// backticks is never a keyword.
func (t token) is(word string) bool {
	return (t.kind == tokWord || t.kind == tokPunct) && strings.EqualFold(t.text, word)
}

func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "the end"
	case tokString:
		return "a quoted text"
	}
	return fmt.Sprintf("%q", t.text)
}

// lexer cuts SQL text into tokens and counts lines.
type lexer struct {
	src  string
	pos  int
	line int
}

func (l *lexer) next() (token, error) {
	if err := l.space(); err != nil {
		return token{}, err
	}
	t := token{line: l.line}
	if l.pos >= len(l.src) {
		return t, nil
	}
	switch c := l.src[l.pos]; {
	case c == '`' || c == '\'' || c == '"':
		return l.quoted(c)
	case isWordByte(c):
		start := l.pos
		for l.pos < len(l.src) && isWordByte(l.src[l.pos]) {
			l.pos++
		}
		t.kind, t.text = tokWord, l.src[start:l.pos]
	default:
		l.pos++
		t.kind, t.text = tokPunct, string(rune(c))
	}
	return t, nil
}

// quoted reads a quoted name or text. The quote is escaped by doubling it; in
// texts a backslash escapes the next byte as well.
func (l *lexer) quoted(quote byte) (token, error) {
	t := token{kind: tokString, line: l.line}
	if quote == '`' {
		t.kind = tokQuoted
	}
	var b strings.Builder
	for l.pos++; l.pos < len(l.src); l.pos++ {
		c := l.src[l.pos]
		switch {
		case c == quote && l.pos+1 < len(l.src) && l.src[l.pos+1] == quote:
			l.pos++
		case c == quote:
			l.pos++
			t.text = b.String()
			return t, nil
		case c == '\\' && quote != '`' && l.pos+1 < len(l.src):
			l.pos++
			c = l.src[l.pos]
		}
		if c == '\n' {
			l.line++
		}
		b.WriteByte(c)
	}
	return t, fmt.Errorf("ddl line %d: %c is never closed; close the quote", t.line, quote)
}

// space passes over blanks, -- comments and /* */ comments.
func (l *lexer) space() error {
	for l.pos < len(l.src) {
		rest := l.src[l.pos:]
		switch {
		case rest[0] == '\n':
			l.line++
			l.pos++
		case rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r':
			l.pos++
		case strings.HasPrefix(rest, "--"):
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				end = len(rest)
			}
			l.pos += end
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest, "*/")
			if end < 0 {
				return fmt.Errorf("ddl line %d: comment is never closed; add */", l.line)
			}
			l.line += strings.Count(rest[:end], "\n")
			l.pos += end + 2
		default:
			return nil
		}
	}
	return nil
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
