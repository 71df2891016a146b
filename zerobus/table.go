package zerobus

import (
	"fmt"
	"net/url"
	"strings"
)

// TableName is the three-part name of a table in Unity Catalog.
type TableName struct{ Catalog, Schema, Table string }

// ParseTableName joins the three parts. table may hold the whole name
// catalog.schema.table; catalog and schema may then be empty and must not
// disagree. Unity Catalog allows no dot, slash, space or control character in
// a name, and 255 characters at most.
// https://docs.databricks.com/aws/en/sql/language-manual/sql-ref-names
func ParseTableName(catalog, schema, table string) (TableName, error) {
	name := TableName{catalog, schema, table}
	if parts := strings.Split(table, "."); len(parts) == 3 {
		name = TableName{parts[0], parts[1], parts[2]}
		if catalog != "" && catalog != name.Catalog || schema != "" && schema != name.Schema {
			return TableName{}, fmt.Errorf("table %q disagrees with catalog %q and schema %q; leave those two empty or make them agree",
				table, catalog, schema)
		}
	}
	for _, p := range []struct{ key, value string }{{"catalog", name.Catalog}, {"schema", name.Schema}, {"table", name.Table}} {
		if p.value == "" {
			return TableName{}, fmt.Errorf("%s is empty; set the table's full name catalog.schema.table", p.key)
		}
		if len(p.value) > 255 || strings.ContainsFunc(p.value, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '.' || r == '/' }) {
			return TableName{}, fmt.Errorf("%s %q is not a name Unity Catalog allows; use 1 to 255 characters without dots, slashes and spaces",
				p.key, p.value)
		}
	}
	return name, nil
}

// String returns catalog.schema.table, the form the wire carries.
func (t TableName) String() string { return t.Catalog + "." + t.Schema + "." + t.Table }

// Quoted returns the name for use in SQL, each part in backticks.
func (t TableName) Quoted() string {
	return Quote(t.Catalog) + "." + Quote(t.Schema) + "." + Quote(t.Table)
}

// path returns the name as one segment of a URL path.
func (t TableName) path() string {
	return url.PathEscape(t.Catalog) + "." + url.PathEscape(t.Schema) + "." + url.PathEscape(t.Table)
}

// Quote returns name as a Databricks SQL identifier in backticks; a backtick
// inside is doubled.
func Quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
