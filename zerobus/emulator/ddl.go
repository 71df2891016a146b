package emulator

import (
	"fmt"
	"strings"
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

// maxColumns and maxTypeDepth are the published limits of the service: 2,000
// columns per table, and nesting no deeper than 100.
const (
	maxColumns   = 2000
	maxTypeDepth = 100
)

// tableDef is one CREATE TABLE statement.
type tableDef struct {
	name        string // catalog.schema.table, lower case as Unity Catalog keeps names
	ifNotExists bool
	replace     bool
	columns     []field
}

// parseDDL reads a SQL script and returns its tables. CREATE CATALOG, SCHEMA,
// DATABASE and VIEW, GRANT and USE are passed over, so that the script an
// operator runs in the SQL editor can be handed over whole.
func parseDDL(src string) ([]tableDef, error) {
	p := &ddlParser{lex: lexer{src: src, line: 1}}
	if err := p.next(); err != nil {
		return nil, err
	}
	var defs []tableDef
	for p.tok.kind != tokEOF {
		if p.tok.is(";") {
			if err := p.next(); err != nil {
				return nil, err
			}
			continue
		}
		def, err := p.statement()
		if err != nil {
			return nil, err
		}
		if def != nil {
			defs = append(defs, *def)
		}
	}
	return defs, nil
}

type ddlParser struct {
	lex lexer
	tok token
}

func (p *ddlParser) next() (err error) { p.tok, err = p.lex.next(); return err }

func (p *ddlParser) errorf(format string, args ...any) error {
	return fmt.Errorf("ddl line %d: %s", p.tok.line, fmt.Sprintf(format, args...))
}

// accept consumes the given words if the next tokens are these; it consumes
// all or, where the first differs, none.
func (p *ddlParser) accept(words ...string) (bool, error) {
	for i, w := range words {
		if !p.tok.is(w) {
			if i == 0 {
				return false, nil
			}
			return false, p.errorf("got %s, want %s", p.tok, w)
		}
		if err := p.next(); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (p *ddlParser) expect(word string) error {
	ok, err := p.accept(word)
	if err == nil && !ok {
		err = p.errorf("got %s, want %s", p.tok, word)
	}
	return err
}

func (p *ddlParser) statement() (*tableDef, error) {
	for _, w := range []string{"GRANT", "USE"} {
		if p.tok.is(w) {
			return nil, p.skipStatement()
		}
	}
	if !p.tok.is("CREATE") {
		return nil, p.errorf("got %s, want CREATE TABLE; CREATE CATALOG, SCHEMA, VIEW, GRANT and USE are passed over, anything else must be left out", p.tok)
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	replace, err := p.accept("OR", "REPLACE")
	if err != nil {
		return nil, err
	}
	for _, w := range []string{"CATALOG", "SCHEMA", "DATABASE", "VIEW"} {
		if p.tok.is(w) {
			return nil, p.skipStatement()
		}
	}
	if err := p.expect("TABLE"); err != nil {
		return nil, err
	}
	return p.table(replace)
}

func (p *ddlParser) skipStatement() error {
	for p.tok.kind != tokEOF && !p.tok.is(";") {
		if err := p.next(); err != nil {
			return err
		}
	}
	return nil
}

func (p *ddlParser) table(replace bool) (*tableDef, error) {
	def := &tableDef{replace: replace}
	var err error
	if def.ifNotExists, err = p.accept("IF", "NOT", "EXISTS"); err != nil {
		return nil, err
	}
	if def.name, err = p.tableName(); err != nil {
		return nil, err
	}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for {
		if p.tok.kind == tokWord && (p.tok.is("CONSTRAINT") || p.tok.is("PRIMARY") || p.tok.is("FOREIGN")) {
			// Informational in Delta: nothing enforces them on write.
			if err := p.skipConstraint(); err != nil {
				return nil, err
			}
		} else {
			line := p.tok.line
			col, err := p.column(0, false)
			if err != nil {
				return nil, err
			}
			key := strings.ToLower(col.name)
			if seen[key] {
				return nil, fmt.Errorf("ddl line %d: column %s occurs twice in %s; rename one", line, col.name, def.name)
			}
			seen[key] = true
			def.columns = append(def.columns, col)
		}
		if ok, err := p.accept(","); err != nil {
			return nil, err
		} else if !ok {
			break
		}
	}
	if err := p.expect(")"); err != nil {
		return nil, err
	}
	if len(def.columns) > maxColumns {
		return nil, p.errorf("table %s has %d columns, the service takes at most %d", def.name, len(def.columns), maxColumns)
	}
	if len(def.columns) == 0 {
		return nil, p.errorf("table %s has no columns", def.name)
	}
	if ok, err := p.accept("USING"); err != nil {
		return nil, err
	} else if ok && !p.tok.is("DELTA") {
		return nil, p.errorf("table %s is USING %s; the service writes Delta tables only: write USING DELTA", def.name, p.tok)
	}
	return def, p.skipStatement()
}

// skipConstraint passes over a table constraint up to the comma or bracket
// that ends it.
func (p *ddlParser) skipConstraint() error {
	for depth := 0; p.tok.kind != tokEOF; {
		switch {
		case p.tok.is("("):
			depth++
		case depth == 0 && (p.tok.is(",") || p.tok.is(")")):
			return nil
		case p.tok.is(")"):
			depth--
		}
		if err := p.next(); err != nil {
			return err
		}
	}
	return p.errorf("got %s inside a constraint, want a closing bracket", p.tok)
}

func (p *ddlParser) tableName() (string, error) {
	var parts []string
	for {
		if p.tok.kind != tokWord && p.tok.kind != tokQuoted {
			return "", p.errorf("got %s, want a table name", p.tok)
		}
		if p.tok.text == "" || strings.ContainsAny(p.tok.text, "./ \t\n\r\x00") {
			return "", p.errorf("name %q: Unity Catalog names hold no dot, slash, space or control character", p.tok.text)
		}
		parts = append(parts, strings.ToLower(p.tok.text))
		if err := p.next(); err != nil {
			return "", err
		}
		if ok, err := p.accept("."); err != nil {
			return "", err
		} else if !ok {
			break
		}
	}
	name := strings.Join(parts, ".")
	if len(parts) != 3 {
		return "", p.errorf("table name %s has %d parts, want catalog.schema.table", name, len(parts))
	}
	return name, nil
}

// column reads `name TYPE [NOT NULL] [COMMENT '...']`; inside a STRUCT a colon
// may stand between name and type.
func (p *ddlParser) column(depth int, inStruct bool) (field, error) {
	if p.tok.kind != tokWord && p.tok.kind != tokQuoted {
		return field{}, p.errorf("got %s, want a column name", p.tok)
	}
	if !validColumnName(p.tok.text) {
		return field{}, p.errorf("column name %q: the service takes ASCII letters, digits and underscore only", p.tok.text)
	}
	f := field{name: p.tok.text}
	err := p.next()
	if err != nil {
		return f, err
	}
	if inStruct {
		if _, err := p.accept(":"); err != nil {
			return f, err
		}
	}
	if f.typ, err = p.dataType(depth); err != nil {
		return f, err
	}
	for {
		switch {
		case p.tok.is("NOT"):
			if _, err := p.accept("NOT", "NULL"); err != nil {
				return f, err
			}
			f.notNull = true
		case p.tok.is("COMMENT"):
			if err := p.next(); err != nil {
				return f, err
			}
			if p.tok.kind != tokString {
				return f, p.errorf("got %s, want a quoted comment", p.tok)
			}
			f.comment = p.tok.text
			if err := p.next(); err != nil {
				return f, err
			}
		case p.tok.is(","), p.tok.is(")"), p.tok.is(">"):
			return f, nil
		default:
			return f, p.errorf("column %s: got %s, want NOT NULL, COMMENT, a comma or the closing bracket; defaults and generated columns are not supported", f.name, p.tok)
		}
	}
}
