package emulator

import (
	"net/http"
	"slices"
	"strings"
)

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
