package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/delta"
)

// command is a SQL statement that has been understood, to be run as a principal. A nil
// result is that of a statement without rows.
type command func(e *Emulator, by string) (*resultSet, *apiError)

// resultSet is the result of a query: text for each value, or nil for NULL.
type resultSet struct {
	columns []field
	rows    [][]*string
}

// maxResultBytes is the service's limit of an inline result.
const maxResultBytes = 25 << 20

// sqlStates are the SQLSTATEs of error conditions.
var sqlStates = map[string]string{
	"PARSE_SYNTAX_ERROR": "42601", "INSUFFICIENT_PERMISSIONS": "42501", "UNRESOLVED_COLUMN.WITH_SUGGESTION": "42703", "FIELD_ALREADY_EXISTS": "42710",
	"TABLE_OR_VIEW_NOT_FOUND": "42P01", "TABLE_OR_VIEW_ALREADY_EXISTS": "42P07", "SCHEMA_NOT_FOUND": "42704", "SCHEMA_ALREADY_EXISTS": "42P06",
	"NO_SUCH_CATALOG_EXCEPTION": "42704", "CATALOG_ALREADY_EXISTS": "42710", "UNSUPPORTED_FEATURE": "0A000", "EXPECT_TABLE_NOT_VIEW": "42809",
	"EXPECT_VIEW_NOT_TABLE": "42809",
}

// sqlError is the failure of a statement.
func sqlError(condition, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, code: condition, message: fmt.Sprintf(format, args...)}
}

// sqlText is the text of a statement's failure, as the service writes it.
func (e *apiError) sqlText() string {
	condition, message := e.code, e.message
	if e.status == http.StatusForbidden {
		condition, message = "INSUFFICIENT_PERMISSIONS", "Insufficient privileges: "+message
	}
	text := "[" + condition + "] " + message
	if state := sqlStates[condition]; state != "" {
		text += " SQLSTATE: " + state
	}
	return text
}

// parseSQL reads one statement. Names that leave catalog or schema out get these.
func parseSQL(text, catalog, schema string, parameters map[string]string) (command, *apiError) {
	p := newParser(text)
	p.catalog, p.schema, p.parameters = catalog, schema, parameters
	run := p.command()
	p.accept(";")
	if p.err == nil && p.tok.kind != tokEOF {
		p.fail("got %s, want the end; send one statement a request", p.tok)
	}
	if p.err != nil {
		return nil, sqlError("PARSE_SYNTAX_ERROR", "Syntax error or a statement that the emulator does not know: %s.", strings.TrimPrefix(p.err.Error(), "ddl "))
	}
	return run, nil
}

func (p *ddlParser) command() command {
	switch {
	case p.accept("CREATE"):
		replace := p.accept("OR", "REPLACE")
		def := &tableDef{replace: replace}
		if p.accept("VIEW") {
			p.view(def)
		} else {
			def = p.object(replace)
		}
		return func(e *Emulator, by string) (*resultSet, *apiError) { return nil, e.runCreate(by, def) }
	case p.accept("ALTER", "TABLE"):
		return p.alter(p.objectName(kindTable))
	case p.accept("GRANT"):
		return p.grant("TO")
	case p.accept("REVOKE"):
		return p.grant("FROM")
	case p.accept("SELECT"):
		q := p.query()
		return func(e *Emulator, by string) (*resultSet, *apiError) { return e.runQuery(by, q) }
	}
	p.fail("got %s, want CREATE CATALOG, SCHEMA, TABLE or VIEW, ALTER TABLE, GRANT, REVOKE or SELECT", p.tok)
	return nil
}

// view reads the rest of CREATE VIEW.
func (p *ddlParser) view(def *tableDef) {
	def.ifNotExists = p.accept("IF", "NOT", "EXISTS")
	def.name = p.objectName(kindTable)
	if p.accept("COMMENT") {
		p.text("comment")
	}
	p.expect("AS")
	p.expect("SELECT")
	if def.view = p.query(); def.view.count {
		p.fail("a view of count(*) is not supported; write SELECT *")
	}
}

// runCreate makes what a CREATE statement names.
func (e *Emulator) runCreate(by string, def *tableDef) *apiError {
	kind, above := kindOf(def.name), parent(def.name)
	exists := e.owner(def.name) != ""
	condition := []string{kindCatalog: "CATALOG_ALREADY_EXISTS", kindSchema: "SCHEMA_ALREADY_EXISTS", kindTable: "TABLE_OR_VIEW_ALREADY_EXISTS"}[kind]
	taken := sqlError(condition, "Cannot create %s because it already exists.", titled(def.name))
	switch use := []string{PrivilegeUseCatalog, PrivilegeUseSchema, PrivilegeSelect}[kind-1]; {
	case exists && def.ifNotExists && e.allowed(by, use, def.name) == nil:
		return nil
	case e.owner(above) == "":
		return notFoundSQL(above)
	}
	if kind > kindCatalog {
		if err := e.allowed(by, []string{PrivilegeUseCatalog, PrivilegeUseSchema}[kind-2], above); err != nil {
			return err
		}
	}
	if err := e.allowed(by, creates[kind-1][0], above); err != nil {
		return err
	}
	if def.view != nil {
		source, err := e.readable(by, def.view.table)
		if err != nil {
			return err
		}
		if source.view != nil {
			return sqlError("UNSUPPORTED_FEATURE", "The emulator has no views on views, such as %s.", titled(source.name))
		}
		def.columns = source.currentSchema().columns
	}
	switch {
	case exists && def.replace && kind == kindTable:
		if !e.manages(by, def.name) {
			return refusal(http.StatusForbidden, "User does not have MANAGE on "+titled(def.name)+".")
		}
		switch t := e.Table(def.name); {
		case t == nil || (t.view != nil) == (def.view != nil):
		case t.view == nil:
			return sqlError("EXPECT_VIEW_NOT_TABLE", "%s is a table; CREATE OR REPLACE VIEW replaces a view.", titled(def.name))
		default:
			return sqlError("EXPECT_TABLE_NOT_VIEW", "%s is a view; CREATE OR REPLACE TABLE replaces a table.", titled(def.name))
		}
	case exists && def.ifNotExists:
		return nil
	case exists:
		return taken
	}
	if _, err := e.create(by, false, *def); err != nil {
		return taken // meanwhile
	}
	return nil
}

func notFoundSQL(name string) *apiError {
	condition := []string{kindCatalog: "NO_SUCH_CATALOG_EXCEPTION", kindSchema: "SCHEMA_NOT_FOUND", kindTable: "TABLE_OR_VIEW_NOT_FOUND"}[kindOf(name)]
	return sqlError(condition, "%s cannot be found. Verify the spelling and correctness of its name.", titled(name))
}

// readable returns a table or view that a principal may read.
func (e *Emulator) readable(by, name string) (*Table, *apiError) {
	t := e.Table(name)
	if t == nil {
		return nil, notFoundSQL(name)
	}
	return t, e.allowed(by, PrivilegeSelect, name)
}

// alter reads what follows ALTER TABLE and the name.
func (p *ddlParser) alter(name string) command {
	privilege := PrivilegeModify
	var change func(t *Table) error
	switch {
	case p.accept("ADD"):
		if !p.accept("COLUMNS") {
			p.expect("COLUMN")
		}
		bracket, def := p.accept("("), &tableDef{name: name}
		if p.columns(def); bracket {
			p.expect(")")
		}
		change = func(t *Table) error { return t.addColumns(def.columns) }
	case p.accept("ALTER", "COLUMN"):
		column := p.word("column")
		if p.accept("DROP", "NOT", "NULL") {
			change = func(t *Table) error {
				return t.changeColumn(column, func(f *field) { f.notNull = false })
			}
			break
		}
		p.expect("SET")
		p.expect("TAGS")
		tags := p.tags()
		privilege = PrivilegeApplyTag
		change = func(t *Table) error {
			return t.changeColumn(column, func(f *field) { f.tags = slices.Compact(slices.Sorted(slices.Values(slices.Concat(f.tags, tags)))) })
		}
	default:
		p.fail("got %s, want ADD COLUMN, ADD COLUMNS or ALTER COLUMN", p.tok)
	}
	return func(e *Emulator, by string) (*resultSet, *apiError) {
		t := e.Table(name)
		if t == nil {
			return nil, notFoundSQL(name)
		}
		if err := e.allowed(by, privilege, name); err != nil {
			return nil, err
		}
		if t.view != nil {
			return nil, sqlError("EXPECT_TABLE_NOT_VIEW", "%s is a view; ALTER TABLE is for tables.", titled(name))
		}
		err := change(t)
		if refused, ok := errors.AsType[*columnError](err); ok {
			return nil, sqlError(refused.condition, "%s.", refused.text)
		} else if err != nil {
			return nil, sqlError("UNRESOLVED_COLUMN.WITH_SUGGESTION", "%s.", err)
		}
		return nil, nil
	}
}

// columnError is a change of columns that SQL refuses for another reason than a missing
// column.
type columnError struct{ condition, text string }

func (e *columnError) Error() string { return e.text }

// addColumns appends columns: all of them or none.
func (t *Table) addColumns(added []field) error {
	return t.alter("", func(columns []field, _ int) ([]field, error) {
		for _, f := range added {
			switch {
			case f.notNull:
				return nil, &columnError{"UNSUPPORTED_FEATURE", "NOT NULL in ALTER TABLE ADD COLUMNS is not supported for Delta tables, column " + f.name}
			case slices.ContainsFunc(columns, func(have field) bool { return strings.EqualFold(have.name, f.name) }):
				return nil, &columnError{"FIELD_ALREADY_EXISTS", "Cannot add column, because " + f.name + " already exists in " + t.name}
			case len(columns) >= maxColumns:
				return nil, &columnError{"UNSUPPORTED_FEATURE", fmt.Sprintf("%s has %d columns, the most the service takes", t.name, maxColumns)}
			}
			columns = append(columns, f)
		}
		return columns, nil
	})
}

// changeColumn changes one column, whose name is compared without case.
func (t *Table) changeColumn(name string, change func(*field)) error {
	for _, f := range t.currentSchema().columns {
		if strings.EqualFold(f.name, name) {
			name = f.name
		}
	}
	return t.alter(name, func(columns []field, i int) ([]field, error) {
		change(&columns[i])
		return columns, nil
	})
}

// word reads a name of one part.
func (p *ddlParser) word(what string) string {
	text := p.tok.text
	if p.tok.kind != tokWord && p.tok.kind != tokQuoted {
		p.fail("got %s, want the name of a %s", p.tok, what)
	}
	p.next()
	return text
}

// tags reads ('key' [= 'value'], …) and returns the keys.
func (p *ddlParser) tags() (keys []string) {
	p.expect("(")
	for more := true; more; more = p.accept(",") {
		keys = append(keys, p.text("key"))
		if p.accept("=") {
			p.text("value")
		}
	}
	p.expect(")")
	return keys
}

// grant reads the rest of GRANT or REVOKE.
func (p *ddlParser) grant(preposition string) command {
	var privileges []string
	for more := true; more; more = p.accept(",") {
		name := p.word("privilege")
		for p.tok.kind == tokWord && !p.tok.is("ON") {
			name += " " + p.word("privilege")
		}
		privileges = append(privileges, name)
	}
	p.expect("ON")
	kind, name := kindTable, ""
	switch {
	case p.accept("METASTORE"):
		kind = kindMetastore
	case p.accept("CATALOG"):
		kind = kindCatalog
	case p.accept("SCHEMA"), p.accept("DATABASE"):
		kind = kindSchema
	case p.accept("TABLE"), p.accept("VIEW"):
	}
	if kind != kindMetastore {
		name = p.objectName(kind)
	}
	p.expect(preposition)
	g := grantChange{Principal: p.word("principal"), Add: privileges}
	if preposition == "FROM" {
		g.Add, g.Remove = nil, privileges
	}
	return func(e *Emulator, by string) (*resultSet, *apiError) {
		if e.owner(name) == "" {
			return nil, notFoundSQL(name)
		}
		return nil, e.change(by, name, g)
	}
}

// query is SELECT * or count(*) of one table.
type query struct {
	count  bool
	table  string
	where  string // the column that has to be equals; "" for all rows
	equals string
	unique string // of the rows with the same value in this column, only the first by order
	first  string
	order  string
	desc   bool
	limit  int // -1 for all
}

// query reads what follows SELECT.
func (p *ddlParser) query() *query {
	q := &query{limit: -1}
	if !p.accept("*") {
		p.expect("count")
		p.expect("(")
		p.expect("*")
		p.expect(")")
		q.count = true
	}
	p.expect("FROM")
	q.table = p.objectName(kindTable)
	if p.accept("WHERE") {
		q.where = p.word("column")
		p.expect("=")
		q.equals = p.value()
	}
	if p.accept("QUALIFY") {
		p.qualify(q)
	}
	if p.accept("ORDER", "BY") {
		q.order, q.desc = p.word("column"), p.accept("DESC")
		if !q.desc {
			p.accept("ASC")
		}
	}
	if p.accept("LIMIT") {
		n, err := strconv.ParseUint(p.tok.text, 10, 31)
		if err != nil {
			p.fail("got %s, want a number of rows", p.tok)
		}
		q.limit = int(n)
		p.next()
	}
	return q
}

// value reads a quoted text, a number or a parameter such as :id.
func (p *ddlParser) value() string {
	if p.accept(":") {
		name := p.word("parameter")
		v, ok := p.parameters[name]
		if !ok && p.err == nil {
			p.fail("the parameter %q is not given", name)
		}
		return v
	}
	if p.tok.kind == tokWord {
		return p.word("value")
	}
	return p.text("text")
}

// qualify reads the condition of the view that bridge ddl --dedupe-view prints:
// id IS NULL OR ROW_NUMBER() OVER (PARTITION BY id ORDER BY time) = 1.
func (p *ddlParser) qualify(q *query) {
	q.unique = p.word("column")
	for _, word := range []string{"IS", "NULL", "OR", "ROW_NUMBER", "(", ")", "OVER", "(", "PARTITION", "BY"} {
		p.expect(word)
	}
	if again := p.word("column"); p.err == nil && !strings.EqualFold(again, q.unique) {
		p.fail("QUALIFY names the columns %q and %q; the emulator knows one", q.unique, again)
	}
	p.expect("ORDER")
	p.expect("BY")
	q.first = p.word("column")
	for _, word := range []string{")", "=", "1"} {
		p.expect(word)
	}
}

// runQuery reads the rows of a table, or of a view on one.
func (e *Emulator) runQuery(by string, q *query) (*resultSet, *apiError) {
	t, err := e.readable(by, q.table)
	if err != nil {
		return nil, err
	}
	rows, s, err := e.rowsOf(t)
	if err != nil {
		return nil, err
	}
	if rows, err = q.pick(rows, s); err != nil {
		return nil, err
	}
	if q.count {
		n := strconv.Itoa(len(rows))
		if q.limit == 0 {
			return &resultSet{columns: countColumn}, nil
		}
		return &resultSet{columns: countColumn, rows: [][]*string{{&n}}}, nil
	}
	out, bytes := &resultSet{columns: s.columns, rows: make([][]*string, len(rows))}, 0
	for i, row := range rows {
		out.rows[i] = s.texts(row.JSON)
		for _, v := range out.rows[i] {
			if v != nil {
				bytes += len(*v)
			}
		}
		if bytes > maxResultBytes {
			return nil, sqlError("INLINE_LIMIT", "Inline byte limit exceeded. Statements executed with disposition=INLINE can have a result size of at most %d bytes.", maxResultBytes)
		}
	}
	return out, nil
}

var countColumn = []field{{name: "count(1)", typ: must(parseType("BIGINT"))}}

func must(t *dataType, err error) *dataType {
	if err != nil {
		panic(err)
	}
	return t
}

// rowsOf returns the rows of a table that queries see, or those of a view.
func (e *Emulator) rowsOf(t *Table) ([]Row, *schema, *apiError) {
	if t.view == nil {
		until := time.Now().Add(-e.cfg.VisibleAfter)
		return t.Rows(func(r Row) bool { return !r.ReceivedAt.After(until) }), t.currentSchema(), nil
	}
	source := e.Table(t.view.table)
	if source == nil {
		return nil, nil, notFoundSQL(t.view.table)
	}
	rows, s, err := e.rowsOf(source)
	if err == nil {
		rows, err = t.view.pick(rows, s)
	}
	return rows, s, err
}

// pick returns the rows that a query selects, in its order.
func (q *query) pick(rows []Row, s *schema) ([]Row, *apiError) {
	columns := map[string]*field{}
	for _, name := range []string{q.where, q.unique, q.first, q.order} {
		i := slices.IndexFunc(s.columns, func(f field) bool { return strings.EqualFold(f.name, name) })
		if i < 0 && name != "" {
			return nil, sqlError("UNRESOLVED_COLUMN.WITH_SUGGESTION", "A column with name `%s` cannot be resolved.", name)
		}
		if i >= 0 {
			columns[name] = &s.columns[i]
		}
	}
	sortBy := func(name string, desc bool) {
		keys := make(map[int64]sortKey, len(rows))
		for _, r := range rows {
			keys[r.Seq] = columns[name].key(r)
		}
		slices.SortStableFunc(rows, func(a, b Row) int {
			if desc {
				a, b = b, a
			}
			return keys[a.Seq].compare(keys[b.Seq])
		})
	}
	if f := columns[q.where]; f != nil {
		rows = slices.DeleteFunc(rows, func(r Row) bool {
			text, ok := r.Value(f.name)
			return !ok || f.typ.sqlText(text) != q.equals
		})
	}
	if f := columns[q.unique]; f != nil {
		sortBy(q.first, false)
		seen := map[string]bool{}
		rows = slices.DeleteFunc(rows, func(r Row) bool {
			text, ok := r.Value(f.name)
			again := ok && seen[text]
			seen[text] = seen[text] || ok
			return again
		})
	}
	if q.order != "" {
		sortBy(q.order, q.desc)
	}
	if q.limit >= 0 && !q.count {
		rows = rows[:min(q.limit, len(rows))]
	}
	return rows, nil
}

// sortKey is a value as ORDER BY compares it: NULL is the smallest.
type sortKey struct {
	null   bool
	number float64
	whole  int64
	text   string
}

func (f *field) key(r Row) (k sortKey) {
	text, ok := r.Value(f.name)
	if k.null = !ok; k.null {
		return k
	}
	switch f.typ.Kind {
	case delta.Timestamp, delta.TimestampNTZ:
		k.whole, _ = micros(text)
	case delta.TinyInt, delta.SmallInt, delta.Int, delta.BigInt, delta.Date:
		k.whole, _ = strconv.ParseInt(text, 10, 64)
	case delta.Float, delta.Double, delta.Decimal:
		k.number, _ = strconv.ParseFloat(text, 64)
	default:
		k.text = text
	}
	return k
}

func (k sortKey) compare(o sortKey) int {
	if k.null || o.null {
		return cmp.Compare(rank[k.null], rank[o.null])
	}
	return cmp.Or(cmp.Compare(k.whole, o.whole), cmp.Compare(k.number, o.number), cmp.Compare(k.text, o.text))
}

var rank = map[bool]int{true: 0, false: 1} // of NULL, and of the rest

// micros reads a TIMESTAMP as it is stored: microseconds, or RFC 3339.
func micros(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		return n, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	return at.UnixMicro(), err
}

// texts returns the text of each column of a row, as the service writes it in results.
func (s *schema) texts(row []byte) []*string {
	out := make([]*string, len(s.columns))
	r := newReader(row)
	defer r.release()
	_ = r.members(func(name []byte) error { // the row is valid JSON
		v, err := r.dec.ReadValue()
		if err != nil {
			return err
		}
		if i, known := s.index[string(name)]; known {
			if text, ok := valueText(v); ok {
				shown := s.columns[i].typ.sqlText(string(text))
				out[i] = &shown
			}
		}
		return nil
	})
	return out
}

// sqlText is a stored value as the service writes it in results.
func (t *dataType) sqlText(text string) string {
	const second = "2006-01-02T15:04:05.000"
	switch t.Kind {
	case delta.Date:
		if days, err := strconv.ParseInt(text, 10, 32); err == nil {
			return time.Unix(days*86400, 0).UTC().Format(time.DateOnly)
		}
	case delta.Timestamp, delta.TimestampNTZ:
		n, err := micros(text)
		if err != nil {
			return text
		}
		layout := second
		if n%1000 != 0 {
			layout += "000"
		}
		if t.Kind == delta.Timestamp {
			layout += "Z"
		}
		return time.UnixMicro(n).UTC().Format(layout)
	}
	return text
}
