package zerobus

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/delta"
)

// TableName is the three-part name of a table in Unity Catalog.
type TableName struct{ Catalog, Schema, Table string }

// String returns catalog.schema.table.
func (t TableName) String() string { return t.Catalog + "." + t.Schema + "." + t.Table }

// Quoted returns the name for use in SQL, each part in backticks.
func (t TableName) Quoted() string { return t.QuotedOf(databricks.Table) }

// QuotedOf returns the full name of the table, or of its schema or catalog, for use in SQL.
func (t TableName) QuotedOf(kind databricks.Kind) string {
	parts := t.parts(kind)
	for n, part := range parts {
		parts[n] = quote(part)
	}
	return strings.Join(parts, ".")
}

// path returns the name as one segment of a URL path.
func (t TableName) path() string {
	return url.PathEscape(t.Catalog) + "." + url.PathEscape(t.Schema) + "." + url.PathEscape(t.Table)
}

// quote returns name as a Databricks SQL identifier in backticks; a backtick inside is
// doubled.
func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// UnwritableTable reports that Zerobus does not write to a table of this kind, whatever is
// granted on it.
type UnwritableTable struct {
	Type   string // table_type in Unity Catalog, such as VIEW
	Format string // data_source_format in Unity Catalog, such as ICEBERG; may be empty
}

// Error names the kind.
func (e *UnwritableTable) Error() string {
	if e.Type == typeManaged {
		return "its data source format is " + e.Format
	}
	return "its table type is " + e.Type
}

const (
	typeManaged   = "MANAGED"
	typeStreaming = "STREAMING_TABLE"
	formatDelta   = "DELTA" // DELTA_UNIFORM_ICEBERG is Delta that Iceberg clients may read
)

// unwritableTypes are the types of Unity Catalog that Zerobus does not write to. The service
// judges unknown types.
// https://docs.databricks.com/api/workspace/tables/get
var unwritableTypes = []string{"VIEW", "MATERIALIZED_VIEW", "METRIC_VIEW", "EXTERNAL", "EXTERNAL_SHALLOW_CLONE", "FOREIGN"}

// writableKind returns an *UnwritableTable unless the table may be a managed Delta table or a
// streaming table.
// https://docs.databricks.com/aws/en/ingestion/zerobus-limits
func writableKind(tableType, format string) error {
	kind := &UnwritableTable{Type: strings.ToUpper(databricks.Clean(tableType, 40)), Format: strings.ToUpper(databricks.Clean(format, 40))}
	otherFormat := kind.Format != "" && !strings.HasPrefix(kind.Format, formatDelta) && (kind.Type == typeManaged || kind.Type == typeStreaming)
	if slices.Contains(unwritableTypes, kind.Type) || otherFormat {
		return kind
	}
	return nil
}

// Writable returns an *Error, which wraps an *UnwritableTable, if Zerobus does not write to a
// table of this type and data source format. The service judges those that are not known.
func (t TableName) Writable(tableType, format string) error {
	if kind, ok := errors.AsType[*UnwritableTable](writableKind(tableType, format)); ok {
		return kind.fault(t)
	}
	return nil
}

// fault returns e as a configuration fault.
func (e *UnwritableTable) fault(table TableName) *Error {
	kind := e.Type
	if e.Type == typeManaged {
		kind = e.Format
	}
	return &Error{Op: opColumns, Status: http.StatusOK, Err: e, kind: configuration,
		Meaning: fmt.Sprintf("%s is of the kind %s, and Zerobus does not write to it", table, kind),
		Remedy:  "set zerobus.table to a managed Delta table or a streaming table; bridge ddl prints the statements that create one"}
}

// SchemaError lists how the table's columns differ from those of the rows.
type SchemaError struct {
	Table    TableName
	Missing  []Column // carried by rows, not in the table
	Changed  []Column // in the table with another type; Type is the table's
	Required []Column // NOT NULL in the table, carried by no row

	reasons, remedies, statements []string // of all differences
}

// Error lists every difference and ends with what to do about it.
func (e *SchemaError) Error() string { return e.Reason() + "; " + e.Remedy() }

// Reason lists every difference.
func (e *SchemaError) Reason() string {
	return fmt.Sprintf("table %s does not fit the blueprint: %s", e.Table, strings.Join(e.reasons, "; "))
}

// Remedy is the ALTER TABLE statement for missing columns, and what to change for the rest.
func (e *SchemaError) Remedy() string { return strings.Join(e.remedies, "; ") }

// describe sets the texts. wanted is the rows' type of each changed column, folded the table's
// spelling of each missing column if only case differs.
func (e *SchemaError) describe(wanted, folded map[string]string) {
	add := func(reason, remedy, statement string) {
		e.reasons, e.remedies, e.statements = append(e.reasons, reason), append(e.remedies, remedy), append(e.statements, statement)
	}
	comment := func(text string) string { return databricks.Clean(text, 255) } // keeps it on one line
	var missing []Column
	for _, c := range e.Missing {
		reason, other := fmt.Sprintf("it has no column %q (%s)", c.Name, c.Type), folded[c.Name]
		if other == "" {
			missing, e.reasons = append(missing, c), append(e.reasons, reason)
			continue
		}
		add(fmt.Sprintf("%s, only %q, and names must match exactly", reason, other),
			fmt.Sprintf("change the blueprint's target %q to %q", c.Name, other),
			fmt.Sprintf("-- %s is %s in the table, and names must match exactly: change the blueprint's target", comment(c.Name), comment(other)))
	}
	if len(missing) > 0 { // Delta adds columns as nullable only
		statement := fmt.Sprintf("ALTER TABLE %s ADD COLUMNS (%s);", e.Table.Quoted(), definitions(missing, ", ", false))
		e.remedies = append(e.remedies, "run: "+statement+" or remove the mapping from the blueprint")
		e.statements = append(e.statements, statement)
	}
	for _, c := range e.Changed {
		add(fmt.Sprintf("its column %q is %s, rows carry %s", c.Name, c.Type, wanted[c.Name]),
			fmt.Sprintf("set type: %s on the blueprint's mapping of %q", c.Type, c.Name),
			fmt.Sprintf("-- %s is %s in the table, rows carry %s: set type: %s on the blueprint's mapping",
				comment(c.Name), comment(c.Type), comment(wanted[c.Name]), comment(c.Type)))
	}
	for _, c := range e.Required {
		statement := fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL;", e.Table.Quoted(), quote(c.Name))
		add(fmt.Sprintf("its column %q (%s) is NOT NULL and no row carries it", c.Name, c.Type),
			fmt.Sprintf("map %q in the blueprint, or run: %s", c.Name, statement), statement)
	}
}

// fault returns e as the configuration fault that blocks writing.
func (e *SchemaError) fault() *Error {
	return &Error{Op: opIngest, Err: errors.New(e.Reason()), Meaning: "rows of this shape cannot be ingested", Remedy: e.Remedy(), kind: configuration}
}

// compareColumns returns a *SchemaError unless every column that rows carry is in the table
// with a type of the same value form, and rows carry every NOT NULL column.
func compareColumns(table TableName, carried, have []Column) error {
	e, wanted, folded := &SchemaError{Table: table}, map[string]string{}, map[string]string{}
	byName, byFold := make(map[string]Column, len(have)), make(map[string]string, len(have))
	for _, c := range have {
		byName[c.Name] = c
		byFold[strings.ToLower(c.Name)] = c.Name
	}
	isCarried := make(map[string]bool, len(carried))
	for _, want := range carried {
		isCarried[want.Name] = true
		got, ok := byName[want.Name]
		w, g := valueForm(want.Type), valueForm(got.Type)
		switch {
		case !ok:
			e.Missing = append(e.Missing, want)
			folded[want.Name] = byFold[strings.ToLower(want.Name)]
		case w != g && !(w == "integer" && g == "float"):
			e.Changed = append(e.Changed, got)
			wanted[got.Name] = want.Type
		}
	}
	for _, c := range have {
		if c.NotNull && !isCarried[c.Name] {
			e.Required = append(e.Required, c)
		}
	}
	if e.describe(wanted, folded); len(e.reasons) == 0 {
		return nil
	}
	return e
}

// valueForm groups Delta types by the JSON values they take. Ranges and lengths are the
// service's to check, row by row.
func valueForm(text string) string {
	t, err := delta.Parse(text)
	if err != nil {
		return strings.ToUpper(text)
	}
	switch t.Kind {
	case delta.String:
		return "string"
	case delta.TinyInt, delta.SmallInt, delta.Int, delta.BigInt:
		return "integer"
	case delta.Float, delta.Double:
		return "float"
	case delta.Decimal:
		return "decimal"
	case delta.Timestamp, delta.TimestampNTZ:
		return "timestamp"
	}
	return strings.ReplaceAll(t.String(), " NOT NULL", "") // of a field, which the table checks
}

// DDL returns the statements that create catalog, schema and table and let principal (the
// application id of a service principal) write to it, each ended by a semicolon and a
// newline. Columns keep the given order.
func DDL(table TableName, cols []Column, principal string) string {
	return strings.Join(Creates(table, cols), "\n") + "\n\n" + strings.Join(Grants(table, principal), "\n") + "\n"
}

// Creates returns the statements that create catalog, schema and table, in this order.
func Creates(table TableName, cols []Column) []string {
	return []string{
		"CREATE CATALOG IF NOT EXISTS " + table.QuotedOf(databricks.Catalog) + ";",
		"CREATE SCHEMA IF NOT EXISTS " + table.QuotedOf(databricks.Schema) + ";",
		"CREATE TABLE IF NOT EXISTS " + table.Quoted() + " (\n  " + definitions(cols, ",\n  ", true) + "\n) USING DELTA;",
	}
}

// Needed are the privileges that writing to a table needs, by the kind of securable. They have to
// be granted on the securable itself, since an inherited one may not satisfy Zerobus.
var Needed = []struct {
	On         databricks.Kind
	Privileges []string
}{{databricks.Catalog, []string{"USE CATALOG"}}, {databricks.Schema, []string{"USE SCHEMA"}}, {databricks.Table, []string{"SELECT", "MODIFY"}}}

// Grants returns the statements that let principal write to the table.
func Grants(table TableName, principal string) []string {
	var list []string
	for _, need := range Needed {
		list = append(list, table.Grant(need.On, principal, need.Privileges...))
	}
	return list
}

// Grant returns the statement that grants privileges on the table, or on its schema or catalog.
func (t TableName) Grant(on databricks.Kind, principal string, privileges ...string) string {
	return "GRANT " + strings.Join(privileges, ", ") + " ON " + strings.ToUpper(string(on)) + " " + t.QuotedOf(on) + " TO " + quote(principal) + ";"
}

// Of returns the full name of the table, or of its schema or catalog, as Unity Catalog's APIs
// take it.
func (t TableName) Of(kind databricks.Kind) string { return strings.Join(t.parts(kind), ".") }

func (t TableName) parts(kind databricks.Kind) []string {
	return []string{t.Catalog, t.Schema, t.Table}[:map[databricks.Kind]int{databricks.Catalog: 1, databricks.Schema: 2, databricks.Table: 3}[kind]]
}

// Rescue is the column that DDL is given for a rescue column, which the tag of [RescueTag] makes
// one.
// https://docs.databricks.com/aws/en/ingestion/zerobus-rescue-column
var Rescue = Column{Name: "rescue", Type: "VARIANT"}

// RescueTag returns the statement that makes [Rescue] the table's rescue column. It may be
// repeated.
// https://docs.databricks.com/aws/en/sql/language-manual/sql-ref-syntax-ddl-alter-table-manage-column
func RescueTag(table TableName) string {
	return fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET TAGS ('%s' = '');\n", table.Quoted(), quote(Rescue.Name), rescueTag)
}

func definitions(cols []Column, separator string, withNotNull bool) string {
	list := make([]string, len(cols))
	for i, c := range cols {
		if list[i] = quote(c.Name) + " " + c.Type; c.NotNull && withNotNull {
			list[i] += " NOT NULL"
		}
	}
	return strings.Join(list, separator)
}

// AlterDiff returns the SQL that gives the table the columns that rows carry, each statement
// ended by a semicolon and a newline; empty if it has them. What no statement can change (a
// type, a name in another case) is a comment that names what to change in the blueprint.
func AlterDiff(table TableName, carried, have []Column) string {
	mismatch, ok := errors.AsType[*SchemaError](compareColumns(table, carried, have))
	if !ok {
		return ""
	}
	return strings.Join(mismatch.statements, "\n") + "\n"
}

// DedupeView returns the statement that creates a view beside the table with one row per
// message_id: delivery is at least once, so the table may hold duplicates. Rows without a
// message_id all stay.
func DedupeView(table TableName) string {
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s AS\nSELECT * FROM %s\nQUALIFY message_id IS NULL\n"+
		"  OR ROW_NUMBER() OVER (PARTITION BY message_id ORDER BY event_timestamp) = 1;\n", DedupeName(table).Quoted(), table.Quoted())
}

// DedupeName returns the name of the view of DedupeView.
func DedupeName(table TableName) TableName {
	return TableName{table.Catalog, table.Schema, table.Table + "_deduplicated"}
}
