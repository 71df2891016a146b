package emulator

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DefaultDDL creates the table of the integration's page: thirteen nullable
// columns, one per field of the default blueprint.
const DefaultDDL = `CREATE TABLE IF NOT EXISTS datafly.events.stream (
  event_name STRING,
  event_type STRING,
  message_id STRING,
  user_id STRING,
  anonymous_id STRING,
  event_timestamp TIMESTAMP,
  ip_address STRING,
  user_agent STRING,
  locale STRING,
  timezone STRING,
  page_url STRING,
  page_referrer STRING,
  source_id STRING
)
USING DELTA;
`

// maxColumns is the service's limit of columns per table.
const maxColumns = 2000

// tableDef is one CREATE statement.
type tableDef struct {
	name        string // the full name, lower case as Unity Catalog keeps names
	ifNotExists bool
	replace     bool
	columns     []field // of a table or a view
	view        *query  // of a view
}

// ddlToken matches the parts of SQL text: comments and blanks, quoted names and
// texts, words, other characters.
var ddlToken = regexp.MustCompile("(?s)--[^\n]*|/\\*.*?\\*/|/\\*|\\s+|`(?:[^`]|``)*`|" +
	`'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|[\pL\pN_]+|.`)

// parseDDL reads a SQL script and returns its catalogs, schemas and tables, and what
// alters tables. It skips CREATE VIEW, GRANT and USE, so that it takes the whole script
// an operator runs in the SQL editor.
func parseDDL(src string) (defs []tableDef, alters []command, err error) {
	p := newParser(src)
	p.script = true
	for p.tok.kind != tokEOF {
		switch {
		case p.accept(";"):
		case p.accept("ALTER", "TABLE"):
			alters = append(alters, p.alter(p.objectName(kindTable)))
		default:
			if def := p.statement(); def != nil {
				defs = append(defs, *def)
			}
		}
	}
	return defs, alters, p.err
}

// ddlParser reads SQL text token by token. After an error, which it keeps, the
// text is at its end, so that every loop ends.
type ddlParser struct {
	script          bool   // whether clauses that are not known are skipped
	catalog, schema string // of names that leave theirs out
	parameters      map[string]string

	rest []string
	line int   // where rest begins
	tok  token // the next one
	err  error // the first
}

func newParser(src string) *ddlParser {
	p := &ddlParser{line: 1, rest: ddlToken.FindAllString(src, -1)}
	p.next()
	return p
}

type tokenKind uint8

const (
	tokEOF    tokenKind = iota
	tokWord             // keyword, name or number
	tokQuoted           // `name`
	tokString           // 'text' or "text"
	tokPunct            // one character
)

type token struct {
	kind tokenKind
	text string
	line int
}

// is reports whether the token is one of these keywords or punctuation. A name
// in backticks is never a keyword.
func (t token) is(words ...string) bool {
	return (t.kind == tokWord || t.kind == tokPunct) &&
		slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(t.text, w) })
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

func (p *ddlParser) fail(format string, args ...any) { p.failAt(p.tok.line, format, args...) }

func (p *ddlParser) failAt(line int, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("ddl line %d: %w", line, fmt.Errorf(format, args...))
	}
	p.rest, p.tok = nil, token{line: line}
}

// next reads the next token and skips comments and blanks before it.
func (p *ddlParser) next() {
	for {
		p.tok = token{line: p.line}
		if len(p.rest) == 0 {
			return
		}
		text := p.rest[0]
		p.rest = p.rest[1:]
		p.line += strings.Count(text, "\n")
		switch first, _ := utf8.DecodeRuneInString(text); {
		case text == "/*":
			p.fail("comment is never closed; add */")
			return
		case strings.HasPrefix(text, "--"), strings.HasPrefix(text, "/*"), unicode.IsSpace(first):
			continue
		case strings.ContainsRune("`'\"", first):
			if len(text) == 1 {
				p.fail("%s is never closed; close the quote", text)
				return
			}
			p.tok.kind, p.tok.text = tokString, unquoteSQL(text)
			if first == '`' {
				p.tok.kind = tokQuoted
			}
		case first == '_', unicode.IsLetter(first), unicode.IsNumber(first):
			p.tok.kind, p.tok.text = tokWord, text
		default:
			p.tok.kind, p.tok.text = tokPunct, text
		}
		return
	}
}

// unquoteSQL resolves a quoted name or text. Doubling escapes the quote; in
// texts a backslash escapes the next byte as well.
func unquoteSQL(text string) string {
	var b strings.Builder
	quote := text[0]
	for i := 1; i < len(text)-1; i++ {
		if text[i] == quote || text[i] == '\\' && quote != '`' {
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// accept consumes the given words if the next tokens are these; if the first
// differs, it consumes none.
func (p *ddlParser) accept(words ...string) bool {
	if !p.tok.is(words[0]) {
		return false
	}
	for _, w := range words {
		p.expect(w)
	}
	return p.err == nil
}

func (p *ddlParser) expect(word string) {
	if !p.tok.is(word) {
		p.fail("got %s, want %s", p.tok, word)
		return
	}
	p.next()
}

// statement reads one statement of a script; it returns nil for one that it skips.
func (p *ddlParser) statement() *tableDef {
	if p.accept("CREATE") {
		if replace := p.accept("OR", "REPLACE"); !p.tok.is("VIEW") {
			return p.object(replace)
		}
	} else if !p.tok.is("GRANT", "USE") {
		p.fail("got %s, want CREATE TABLE, SCHEMA or CATALOG, or ALTER TABLE; CREATE VIEW, GRANT and USE are skipped, leave anything else out", p.tok)
	}
	p.skipStatement()
	return nil
}

func (p *ddlParser) skipStatement() {
	for !p.atEnd() {
		p.next()
	}
}

func (p *ddlParser) atEnd() bool { return p.tok.kind == tokEOF || p.tok.is(";") }

// object reads the rest of CREATE CATALOG, SCHEMA or TABLE.
func (p *ddlParser) object(replace bool) *tableDef {
	def, kind := &tableDef{replace: replace}, kindTable
	switch {
	case p.accept("CATALOG"):
		kind = kindCatalog
	case p.accept("SCHEMA"), p.accept("DATABASE"):
		kind = kindSchema
	default:
		p.expect("TABLE")
	}
	def.ifNotExists = p.accept("IF", "NOT", "EXISTS")
	def.name = p.objectName(kind)
	if kind == kindTable {
		p.expect("(")
		p.columns(def)
		p.expect(")")
		switch {
		case len(def.columns) > maxColumns:
			p.fail("table %s has %d columns, the service takes at most %d", def.name, len(def.columns), maxColumns)
		case len(def.columns) == 0:
			p.fail("table %s has no columns", def.name)
		}
	}
	p.clauses(def)
	return def
}

// clauses reads what follows the name of an object or the columns of a table.
func (p *ddlParser) clauses(def *tableDef) {
	for !p.atEnd() {
		switch {
		case p.accept("USING"):
			if !p.tok.is("DELTA") {
				p.fail("table %s is USING %s; the service writes Delta tables only: write USING DELTA", def.name, p.tok)
			}
			p.next()
		case p.accept("COMMENT"), p.accept("MANAGED", "LOCATION"):
			p.text("text")
		case p.accept("PARTITIONED", "BY"):
			p.partitions(def)
		case p.accept("CLUSTER", "BY"):
			if !p.accept("AUTO") {
				p.brackets()
			}
		case p.accept("TBLPROPERTIES"):
			p.brackets()
		case p.script:
			p.next()
		default:
			p.fail("got %s, want the end of the statement", p.tok)
		}
	}
}

// partitions reads the list of a PARTITIONED BY.
func (p *ddlParser) partitions(def *tableDef) {
	p.expect("(")
	for n, more := 1, true; more; n, more = n+1, p.accept(",") {
		i := slices.IndexFunc(def.columns, func(f field) bool { return strings.EqualFold(f.name, p.tok.text) })
		if i < 0 {
			p.fail("partition column %s is not a column of %s", p.tok, def.name)
			return
		}
		def.columns[i].partition = n
		p.skipConstraint()
	}
	p.expect(")")
}

// brackets skips a list in brackets.
func (p *ddlParser) brackets() {
	p.expect("(")
	for p.err == nil && !p.accept(")") {
		p.skipConstraint()
		p.accept(",")
	}
}

// text reads a quoted text.
func (p *ddlParser) text(what string) string {
	text := p.tok.text
	if p.tok.kind != tokString {
		p.fail("got %s, want a quoted %s", p.tok, what)
	}
	p.next()
	return text
}

// columns reads a table's columns. It skips constraints between them, which
// Delta does not enforce on write.
func (p *ddlParser) columns(def *tableDef) {
	seen := map[string]bool{}
	for more := true; more; more = p.accept(",") {
		if p.tok.kind == tokWord && p.tok.is("CONSTRAINT", "PRIMARY", "FOREIGN") {
			p.skipConstraint()
			continue
		}
		line := p.tok.line
		col := p.column()
		key := strings.ToLower(col.name)
		if seen[key] {
			p.failAt(line, "column %s occurs twice in %s; rename one", col.name, def.name)
		}
		seen[key] = true
		def.columns = append(def.columns, col)
	}
}

// skipConstraint skips a table constraint up to the comma or bracket that ends it.
func (p *ddlParser) skipConstraint() {
	for depth := 0; p.tok.kind != tokEOF; p.next() {
		switch {
		case p.tok.is("("):
			depth++
		case depth == 0 && p.tok.is(",", ")"):
			return
		case p.tok.is(")"):
			depth--
		}
	}
	p.fail("got %s inside a constraint, want a closing bracket", p.tok)
}

// oddInNames are what no name of a securable holds.
const oddInNames = "./ \t\n\r\x00"

// objectName reads the full name of a securable of a kind.
func (p *ddlParser) objectName(kind int) string {
	what := kindNames[kind]
	var parts []string
	for more := true; more; more = p.accept(".") {
		if p.tok.kind != tokWord && p.tok.kind != tokQuoted {
			p.fail("got %s, want a %s name", p.tok, what)
		} else if p.tok.text == "" || strings.ContainsAny(p.tok.text, oddInNames) {
			p.fail("name %q: Unity Catalog names hold no dot, slash, space or control character", p.tok.text)
		}
		parts = append(parts, strings.ToLower(p.tok.text))
		p.next()
	}
	given := len(parts)
	if left := kind - given; left > 0 {
		parts = append([]string{p.catalog, p.schema}[:left:left], parts...)
		for _, part := range parts[:left] { // they come with a request, not from the text
			if strings.ContainsAny(part, oddInNames) {
				p.fail("name %q: Unity Catalog names hold no dot, slash, space or control character", part)
			}
		}
	}
	name := strings.ToLower(strings.Join(parts, "."))
	if len(parts) != kind || slices.Contains(parts, "") {
		p.fail("%s name %s has %d parts, want %s", what, strings.TrimLeft(name, "."), given, strings.Join([]string{"catalog", "schema", "table"}[:kind], "."))
	}
	return name
}

// column reads `name TYPE [NOT NULL] [COMMENT '...']`.
func (p *ddlParser) column() field {
	f := field{name: p.tok.text}
	if p.tok.kind != tokWord && p.tok.kind != tokQuoted {
		p.fail("got %s, want a column name", p.tok)
	} else if !columnName.MatchString(f.name) {
		p.fail("column name %q: the service takes ASCII letters, digits and underscore only", f.name)
	}
	p.next()
	line := p.tok.line
	var err error
	if f.typ, err = parseType(p.typeText()); err != nil {
		p.failAt(line, "%w", err)
	}
	for p.err == nil && !p.atEnd() && !p.tok.is(",", ")") {
		switch {
		case p.accept("NOT", "NULL"):
			f.notNull = true
		case p.accept("COMMENT"):
			f.comment = p.text("comment")
		default:
			p.fail("column %s: got %s, want NOT NULL, COMMENT, a comma or the closing bracket; defaults and generated columns are not supported", f.name, p.tok)
		}
	}
	return f
}

// typeText reads a type: a word, and the text in brackets after it.
func (p *ddlParser) typeText() string {
	var b strings.Builder
	if p.tok.kind != tokWord {
		p.fail("got %s, want a type", p.tok)
	}
	for depth := 0; p.tok.kind != tokEOF && (b.Len() == 0 || depth > 0 || p.tok.is("(", "<")); p.next() {
		switch {
		case p.tok.is("(", "<"):
			depth++
		case p.tok.is(")", ">"):
			depth--
		}
		switch p.tok.kind {
		case tokQuoted:
			b.WriteString("`" + p.tok.text + "` ")
		case tokString:
			b.WriteString("'' ") // a comment, which nobody reads
		default:
			b.WriteString(p.tok.text + " ")
		}
	}
	return b.String()
}

var columnName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
