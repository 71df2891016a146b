package emulator

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
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
