package emulator

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/datafly/bridge/internal/delta"
)

// columns serves GET /api/2.1/unity-catalog/tables/{name} in the shape of the
// public Unity Catalog API, as far as it concerns columns.
func (e *Emulator) columns(c *call) (any, *apiError) {
	if err := e.authorize(c); err != nil {
		return nil, err
	}
	t, err := e.find(c, c.table, PrivilegeSelect)
	if err != nil {
		return nil, err
	}
	columns := []map[string]any{}
	for i, f := range t.currentSchema().columns {
		column := map[string]any{
			"name": f.name, "position": i, "nullable": !f.notNull,
			"type_name": f.typ.catalogName(), "type_text": f.typ.text(), "type_json": string(marshal(f.spark())),
		}
		if f.typ.Kind == delta.Decimal {
			column["type_precision"], column["type_scale"] = f.typ.Precision, f.typ.Scale
		}
		if f.comment != "" {
			column["comment"] = f.comment
		}
		if f.partition > 0 {
			column["partition_index"] = f.partition - 1
		}
		columns = append(columns, column)
	}
	parts := strings.SplitN(t.name, ".", 3)
	kind, format := t.Kind()
	document := map[string]any{
		"name": parts[2], "catalog_name": parts[0], "schema_name": parts[1], "full_name": t.name,
		"table_id": tableID(t.name), "table_type": kind, "columns": columns,
		"owner": e.owner(t.name), "metastore_id": metastoreID,
	}
	if format != "" {
		document["data_source_format"] = format
	}
	return document, nil
}

// metastoreID and metastoreName are those of the emulated metastore.
const (
	metastoreID   = "6f2e8a0d-3c1b-4f57-9d0e-2a4b6c8d0e1f"
	metastoreName = "emulator"
)

// metastore serves GET /api/2.1/unity-catalog/metastore_summary.
func (e *Emulator) metastore(c *call) (any, *apiError) {
	if err := e.authorize(c); err != nil {
		return nil, err
	}
	summary := map[string]any{
		"metastore_id": metastoreID, "name": metastoreName, "owner": AdminPrincipal, "privilege_model_version": "1.0",
		"cloud": e.cfg.Cloud, "region": e.cfg.Region, "global_metastore_id": e.cfg.Cloud + ":" + e.cfg.Region + ":" + metastoreID,
	}
	if url := e.ZerobusURL(); url != "" && !e.cfg.NoEndpointURL {
		summary["zerobus_endpoint"] = url // not of the service: where a loopback address has no EndpointHost
	}
	return summary, nil
}

// assignment serves GET /api/2.1/unity-catalog/current-metastore-assignment.
func (e *Emulator) assignment(c *call) (any, *apiError) {
	if err := e.authorize(c); err != nil {
		return nil, err
	}
	return map[string]any{"metastore_id": metastoreID, "workspace_id": jsontext.Value(e.cfg.WorkspaceID)}, nil
}

// tableID is a UUID derived from the table's name.
func tableID(name string) string {
	h := sha256.Sum256([]byte(name))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// tags serves the tags of a column in the shape of the public Unity Catalog
// API, to those who may read the columns.
func (e *Emulator) tags(c *call) (any, *apiError) {
	if err := e.authorize(c); err != nil {
		return nil, err
	}
	table, column := c.table, ""
	if i := strings.LastIndexByte(c.table, '.'); i >= 0 {
		table, column = c.table[:i], c.table[i+1:]
	}
	t, err := e.find(c, table, PrivilegeSelect)
	if err != nil {
		return nil, err
	}
	s := t.currentSchema()
	i, ok := s.index[column]
	if !ok {
		return nil, refusal(http.StatusNotFound, "Column '"+printable(c.table)+"' does not exist.")
	}
	list := []map[string]string{}
	for _, tag := range s.columns[i].tags {
		list = append(list, map[string]string{"entity_type": "columns", "entity_name": t.name + "." + column, "tag_key": tag, "tag_value": ""})
	}
	return map[string]any{"tag_assignments": list}, nil
}
