package emulator

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// columns serves GET /api/2.1/unity-catalog/tables/{name} in the shape of the
// public Unity Catalog API, as far as it concerns columns.
func (e *Emulator) columns(c *call) answer {
	if err := e.authorize(c); err != nil {
		return err.answer(c.endpoint)
	}
	t, err := e.find(c.path, PrivilegeSelect)
	if err != nil {
		return err.answer(c.endpoint)
	}
	parts := strings.SplitN(t.name, ".", 3)
	s := t.currentSchema()
	columns := make([]map[string]any, len(s.columns))
	for i, f := range s.columns {
		spark, err := json.Marshal(f.spark())
		if err != nil {
			return (&apiError{status: http.StatusInternalServerError, code: "INTERNAL_ERROR", message: err.Error()}).answer(c.endpoint)
		}
		columns[i] = map[string]any{
			"name": f.name, "position": i, "nullable": !f.notNull,
			"type_name": typeNames[f.typ.kind].catalog, "type_text": f.typ.text(), "type_json": string(spark),
		}
		if f.typ.kind == kindDecimal {
			columns[i]["type_precision"], columns[i]["type_scale"] = f.typ.precision, f.typ.scale
		}
		if f.comment != "" {
			columns[i]["comment"] = f.comment
		}
	}
	document := map[string]any{
		"name": parts[2], "catalog_name": parts[0], "schema_name": parts[1], "full_name": t.name,
		"table_id": tableID(t.name), "columns": columns,
	}
	kind, format := t.Kind()
	document["table_type"] = kind
	if format != "" {
		document["data_source_format"] = format
	}
	return jsonAnswer(http.StatusOK, document)
}

// tableID is a UUID that stays the same from run to run.
func tableID(name string) string {
	h := sha256.Sum256([]byte(name))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// catalog holds the tables. Names are compared without regard to case, as
// Unity Catalog does.
type catalog struct {
	noIndex bool // of new tables

	mu     sync.RWMutex
	tables map[string]*Table
}

func (c *catalog) table(name string) *Table {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.tables[strings.ToLower(name)]
}

func (c *catalog) names() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	names := make([]string, 0, len(c.tables))
	for n := range c.tables {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// create makes the tables of a script: all of them or, on error, none.
func (c *catalog) create(ddl string, maxRows int, j *journal) ([]string, error) {
	defs, err := parseDDL(ddl)
	if err != nil {
		return nil, err
	}
	if len(defs) == 0 {
		return nil, fmt.Errorf("ddl holds no CREATE TABLE statement; add one")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := map[string]*Table{}
	made := []string{}
	var replaced []string
	for _, def := range defs {
		_, here := c.tables[def.name]
		if _, twice := fresh[def.name]; here || twice {
			if def.ifNotExists {
				continue
			}
			if !def.replace {
				return nil, fmt.Errorf("create table %s: it exists already; drop it first or write IF NOT EXISTS", def.name)
			}
			replaced = append(replaced, def.name)
		}
		fresh[def.name] = newTable(def, maxRows, c.noIndex, j)
		made = append(made, def.name)
	}
	for _, name := range replaced {
		if old := c.tables[name]; old != nil {
			if err := old.drop(); err != nil {
				return nil, err
			}
		}
	}
	for name, t := range fresh {
		c.tables[name] = t
	}
	return made, nil
}

func (c *catalog) drop(name string) error {
	c.mu.Lock()
	t := c.tables[strings.ToLower(name)]
	delete(c.tables, strings.ToLower(name))
	c.mu.Unlock()
	if t == nil {
		return fmt.Errorf("drop table %s: no such table; list them with Tables", name)
	}
	return t.drop()
}

// Table returns a table by its full name, or nil where there is none.
func (e *Emulator) Table(name string) *Table { return e.catalog.table(name) }

// Tables lists the full names of all tables, sorted.
func (e *Emulator) Tables() []string { return e.catalog.names() }

// CreateTable runs CREATE TABLE statements: all of them or, on error, none.
// It returns the names of the tables made.
func (e *Emulator) CreateTable(ddl string) ([]string, error) {
	return e.catalog.create(ddl, e.cfg.MaxRows, e.journal)
}

// DropTable removes a table and its rows; ingest into it then fails with 404.
func (e *Emulator) DropTable(name string) error { return e.catalog.drop(name) }

// RescueTag is the Unity Catalog tag of the column that takes what does not fit
// of JSON rows. The column must be a nullable VARIANT.
// https://docs.databricks.com/aws/en/ingestion/zerobus-rescue-column
const RescueTag = "zerobus-rescue"

// TagsPath is followed by catalog.schema.table.column and /tags.
const TagsPath = "/api/2.1/unity-catalog/entity-tag-assignments/columns/"

// rescues reports whether a column takes what does not fit.
func (f *field) rescues() bool {
	return f.typ.kind == kindVariant && !f.notNull && slices.Contains(f.tags, RescueTag)
}

// tags serves the list of a column's tags in the shape of the public Unity
// Catalog API. Who may read the columns may read their tags.
func (e *Emulator) tags(c *call) answer {
	if err := e.authorize(c); err != nil {
		return err.answer(c.endpoint)
	}
	table, column := c.path, ""
	if i := strings.LastIndexByte(c.path, '.'); i >= 0 {
		table, column = c.path[:i], c.path[i+1:]
	}
	t, err := e.find(table, PrivilegeSelect)
	if err != nil {
		return err.answer(c.endpoint)
	}
	s := t.currentSchema()
	i, ok := s.index[column]
	if !ok {
		return (&apiError{status: http.StatusNotFound, code: "NOT_FOUND", message: "Column '" + printable(c.path) + "' does not exist."}).answer(c.endpoint)
	}
	list := []map[string]string{}
	for _, tag := range s.columns[i].tags {
		list = append(list, map[string]string{"entity_type": "columns", "entity_name": t.name + "." + column, "tag_key": tag, "tag_value": ""})
	}
	return jsonAnswer(http.StatusOK, map[string]any{"tag_assignments": list})
}

// The kinds of table that rows can be written to, as Unity Catalog names them.
const (
	TableManaged   = "MANAGED"
	TableStreaming = "STREAMING_TABLE"
	FormatDelta    = "DELTA" // also the beginning of DELTA_UNIFORM_ICEBERG and the like
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
	if slices.Contains([]string{TableManaged, TableStreaming}, kind) && (format == "" || strings.HasPrefix(format, FormatDelta)) {
		return nil
	}
	return &apiError{status: http.StatusBadRequest, code: "INVALID_PARAMETER_VALUE",
		message: numbered("Unsupported table kind.", codeTableKind, 0)}
}
