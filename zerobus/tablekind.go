package zerobus

import (
	"fmt"
	"slices"
	"strings"
)

// UnwritableTable says that Zerobus does not write to a table of this kind,
// whatever is granted on it.
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

// unwritableTypes are the types of Unity Catalog that Zerobus does not write to. A
// type that is not known here is left to the service to judge.
// https://docs.databricks.com/api/workspace/tables/get
var unwritableTypes = []string{"VIEW", "MATERIALIZED_VIEW", "METRIC_VIEW", "EXTERNAL", "EXTERNAL_SHALLOW_CLONE", "FOREIGN"}

// writableKind returns an *UnwritableTable for a table that takes no rows by
// Zerobus. Managed Delta tables and streaming tables do.
// https://docs.databricks.com/aws/en/ingestion/zerobus-limits
func writableKind(tableType, format string) error {
	kind := &UnwritableTable{Type: strings.ToUpper(clean(tableType, 40)), Format: strings.ToUpper(clean(format, 40))}
	foreignFormat := kind.Format != "" && !strings.HasPrefix(kind.Format, formatDelta) && (kind.Type == typeManaged || kind.Type == typeStreaming)
	if slices.Contains(unwritableTypes, kind.Type) || foreignFormat {
		return kind
	}
	return nil
}

// fault is the configuration fault of naming such a table.
func (e *UnwritableTable) fault(table TableName, status int) *Error {
	what := e.Type
	if e.Type == typeManaged {
		what = e.Format
	}
	return &Error{Op: opColumns, Status: status, Err: e, kind: configuration,
		Meaning: fmt.Sprintf("%s is of the kind %s, and Zerobus does not write to it", table, what),
		Remedy:  "set zerobus.table to a managed Delta table or a streaming table; bridge ddl prints the statements that create one"}
}
