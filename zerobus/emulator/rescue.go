package emulator

import (
	"fmt"
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

// SetColumnTags replaces the tags of a column, which have a key alone. Requests
// that arrive from then on are held against the columns so tagged.
func (t *Table) SetColumnTags(column string, tags ...string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.schema.index[column]
	if !ok {
		return fmt.Errorf("tag column %s of %s: no such column; list them with Columns", column, t.name)
	}
	columns := slices.Clone(t.schema.columns)
	columns[i].tags = slices.Clone(tags)
	t.schema = newSchema(columns)
	return nil
}

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

// rescue notes a member of the row being read, whose value begins at from, as
// one for the rescue column, and passes over the value. It reports false where
// the table has no such column, or the value is no JSON.
func (r *rowReader) rescue(name string, from int) bool {
	if r.schema.rescue < 0 {
		return false
	}
	r.rescued = append(r.rescued, name)
	r.pos, r.problem = from, ""
	return r.skip(0)
}

// rewrite puts the members that were noted into the rescue column of the row
// just read, as the text of a JSON object.
func (r *rowReader) rewrite(at span) []byte {
	var kept, moved []byte
	s := scanner{b: r.b[at.start:at.end]}
	column := r.schema.columns[r.schema.rescue].name
	s.members('{', func(raw []byte, escaped bool) bool {
		name := string(raw)
		if escaped {
			name = string(r.unescape(raw))
		}
		from := s.pos
		if !s.skip(0) {
			return false
		}
		to := &kept
		if slices.Contains(r.rescued, name) {
			to = &moved
		} else if name == column {
			return true // the service fills it
		}
		if len(*to) > 0 {
			*to = append(*to, ',')
		}
		*to = append(append(appendQuoted(*to, []byte(name)), ':'), s.b[from:s.pos]...)
		return true
	})
	if len(kept) > 0 {
		kept = append(kept, ',')
	}
	out := append(append([]byte{'{'}, kept...), appendQuoted(nil, []byte(column))...)
	out = append(out, ':')
	return append(appendQuoted(out, append(append([]byte{'{'}, moved...), '}')), '}')
}
