package zerobus

import (
	"errors"
	"fmt"
	"strings"
)

// DDL returns the statements that create catalog, schema and table and let
// principal (the application id of a service principal) write to it, each
// ended by a semicolon and a newline. Columns stand in the given order.
func DDL(table TableName, cols []Column, principal string) string {
	lines := make([]string, len(cols))
	for i, c := range cols {
		lines[i] = "  " + definition(c)
	}
	return fmt.Sprintf("CREATE CATALOG IF NOT EXISTS %s;\nCREATE SCHEMA IF NOT EXISTS %s.%s;\nCREATE TABLE IF NOT EXISTS %s (\n%s\n) USING DELTA;\n\n%s\n",
		Quote(table.Catalog), Quote(table.Catalog), Quote(table.Schema), table.Quoted(), strings.Join(lines, ",\n"),
		strings.Join(Grants(table, principal), "\n"))
}

// Grants returns the statements that let principal write to the table. They
// name the table itself: a privilege inherited from the schema may not
// satisfy Zerobus.
func Grants(table TableName, principal string) []string {
	to := " TO " + Quote(principal) + ";"
	return []string{
		"GRANT USE CATALOG ON CATALOG " + Quote(table.Catalog) + to,
		"GRANT USE SCHEMA ON SCHEMA " + Quote(table.Catalog) + "." + Quote(table.Schema) + to,
		"GRANT SELECT, MODIFY ON TABLE " + table.Quoted() + to,
	}
}

// AlterAdd returns the statement that adds cols to the table. Delta adds
// columns as nullable only, so NotNull is left out.
func AlterAdd(table TableName, cols []Column) string {
	defs := make([]string, len(cols))
	for i, c := range cols {
		defs[i] = definition(Column{Name: c.Name, Type: c.Type})
	}
	return fmt.Sprintf("ALTER TABLE %s ADD COLUMNS (%s);", table.Quoted(), strings.Join(defs, ", "))
}

// AlterDiff returns the SQL that makes the live table fit the columns rows
// carry, each statement ended by a semicolon and a newline; empty where it fits.
// What no statement mends (a type that cannot be changed, a name in another
// case) stands there as a comment that says what to change in the blueprint.
func AlterDiff(table TableName, expected, have []Column) string {
	var misfit *SchemaError
	if !errors.As(fit(table, expected, have), &misfit) {
		return ""
	}
	var out strings.Builder
	var add []Column
	for _, c := range misfit.Missing {
		if other := misfit.folded[c.Name]; other != "" {
			fmt.Fprintf(&out, "-- %s is %s in the table, and names must match exactly: change the blueprint's target\n", comment(c.Name), comment(other))
			continue
		}
		add = append(add, c)
	}
	if len(add) > 0 {
		out.WriteString(AlterAdd(table, add) + "\n")
	}
	for _, c := range misfit.Changed {
		fmt.Fprintf(&out, "-- %s is %s in the table, rows carry %s: set type: %s on the blueprint's mapping\n",
			comment(c.Name), comment(c.Type), comment(misfit.wanted[c.Name]), comment(c.Type))
	}
	for _, c := range misfit.Required {
		out.WriteString(dropNotNull(table, c.Name) + "\n")
	}
	return out.String()
}

// dropNotNull returns the statement that lets a column be left out.
func dropNotNull(table TableName, column string) string {
	return fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL;", table.Quoted(), Quote(column))
}

// comment keeps a name from outside on the comment's line.
func comment(text string) string { return clean(text, 255) }

// DedupeView returns the statement that creates a view beside the table with
// one row per message_id: delivery is at least once, so a row may be there
// twice. Rows without a message_id all stay.
func DedupeView(table TableName) string {
	view := TableName{table.Catalog, table.Schema, table.Table + "_deduplicated"}
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s AS\nSELECT * FROM %s\nQUALIFY message_id IS NULL\n"+
		"  OR ROW_NUMBER() OVER (PARTITION BY message_id ORDER BY event_timestamp) = 1;\n", view.Quoted(), table.Quoted())
}

func definition(c Column) string {
	text := Quote(c.Name) + " " + c.Type
	if c.NotNull {
		text += " NOT NULL"
	}
	return text
}
