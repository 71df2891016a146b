package emulator

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The kinds of table that rows can be written to, as Unity Catalog names them.
const (
	TableManaged   = "MANAGED"
	TableStreaming = "STREAMING_TABLE"
	FormatDelta    = "DELTA"
)

// SetKind sets the table_type and the data_source_format that Unity Catalog
// names for the table, such as VIEW and "", or MANAGED and ICEBERG. A new table is
// MANAGED and DELTA. Rows are refused unless the table is a managed Delta table or
// a streaming table.
func (t *Table) SetKind(tableType, format string) error {
	if tableType == "" {
		return fmt.Errorf("set the kind of %s: table_type is empty; use MANAGED, STREAMING_TABLE, VIEW, EXTERNAL or another of Unity Catalog's", t.name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kind, t.format = strings.ToUpper(tableType), strings.ToUpper(format)
	return nil
}

// Kind returns the table_type and the data_source_format that SetKind sets.
func (t *Table) Kind() (tableType, format string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.kind, t.format
}

// takesRows refuses rows for a table of a kind that the service does not write to.
func (t *Table) takesRows() *apiError {
	kind, format := t.Kind()
	if slices.Contains([]string{TableManaged, TableStreaming}, kind) && (format == "" || format == FormatDelta) {
		return nil
	}
	return &apiError{status: http.StatusBadRequest, code: "INVALID_PARAMETER_VALUE",
		message: numbered("Unsupported table kind.", codeTableKind, 0)}
}
