package emulator_test

import (
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

const asAdmin = "Bearer " + emulator.DefaultAdminToken

func (w *workspace) patch(authorization, securable, body string) response {
	w.t.Helper()
	return w.do("PATCH", emulator.GrantsPath+securable, "application/json", body, "Authorization", authorization)
}

func TestEffectivePermissions(t *testing.T) {
	w := start(t, emulator.Config{})
	effective := func(of, query string) response { return w.get(emulator.EffectivePath + of + query) }
	effective("table/"+stream, "?principal=emulator&max_results=0").want(t, 200, `{"privilege_assignments":[{"principal":"emulator","privileges":[`+
		`{"privilege":"MODIFY"},{"privilege":"SELECT"},`+
		`{"privilege":"CREATE_TABLE","inherited_from_type":"SCHEMA","inherited_from_name":"datafly.events"},`+
		`{"privilege":"USE_SCHEMA","inherited_from_type":"SCHEMA","inherited_from_name":"datafly.events"},`+
		`{"privilege":"CREATE_SCHEMA","inherited_from_type":"CATALOG","inherited_from_name":"datafly"},`+
		`{"privilege":"USE_CATALOG","inherited_from_type":"CATALOG","inherited_from_name":"datafly"}]}]}`)
	effective("CATALOG/DataFly", "").want(t, 200, `[{"privilege":"CREATE_SCHEMA"},{"privilege":"USE_CATALOG"}]`)
	effective("metastore/6f2e8a0d-3c1b-4f57-9d0e-2a4b6c8d0e1f", "").want(t, 200, `[{"privilege":"CREATE_CATALOG"}]`)
	w.get(emulator.GrantsPath+"schema/datafly.events").want(t, 200, `{"privilege_assignments":[{"principal":"emulator","privileges":["CREATE_TABLE","USE_SCHEMA"]}]}`)
	effective("table/a.b.c", "").wantError(t, 404, "TABLE_DOES_NOT_EXIST", "Table 'a.b.c'")
	effective("schema/datafly", "").wantError(t, 404, "SCHEMA_DOES_NOT_EXIST", "Schema 'datafly'")
	effective("catalog/x", "").wantError(t, 404, "CATALOG_DOES_NOT_EXIST", "Catalog 'x'")
	effective("metastore/other", "").wantError(t, 404, "METASTORE_DOES_NOT_EXIST", "")
	effective("room/datafly", "").wantError(t, 400, "INVALID_PARAMETER_VALUE", "room")
	effective("catalog/datafly", "?principal=metastore-admin").wantError(t, 403, "PERMISSION_DENIED", "MANAGE on Catalog 'datafly'")
	w.do("GET", emulator.EffectivePath+"catalog/datafly", "", "").wantError(t, 401, "UNAUTHENTICATED", "")
	w.add(emulator.Fault{Endpoint: emulator.EndpointEffective, Table: "datafly", Effect: emulator.EffectStatus, Status: 403})
	effective("catalog/datafly", "").wantError(t, 403, "PERMISSION_DENIED", "")
	effective("table/"+stream, "").want(t, 200)
}

func TestChangePermissions(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	w := z.workspace
	const table = "table/" + stream
	const take = `{"changes":[{"principal":"emulator","remove":["SELECT","MODIFY"]}]}`
	w.patch(w.bearer(), table, take).wantError(t, 403, "PERMISSION_DENIED", "User does not have MANAGE on Table '"+stream+"'.")
	w.patch(asAdmin, table, take).want(t, 200, `{"privilege_assignments":[]}`)
	// What a schema passes on is good for the workspace's APIs, and not for the endpoint.
	w.patch(asAdmin, "schema/datafly.events", `{"changes":[{"principal":"emulator","add":["SELECT","MODIFY"]}]}`).want(t, 200, `"MODIFY"`)
	w.get(emulator.ColumnsPath+stream).want(t, 200, `"owner":"metastore-admin"`)
	z.askGrant(stream).wantError(t, 401, "invalid_authorization_details", "")
	w.ingest(envelope(`{}`)).wantError(t, 403, "PERMISSION_DENIED", "MODIFY")
	w.patch(asAdmin, table, `{"changes":[{"principal":"emulator","add":["ALL_PRIVILEGES"]}]}`).want(t, 200, `["ALL_PRIVILEGES"]`)
	z.askGrant(stream).want(t, 200)
	w.patch(w.bearer(), table, take).wantError(t, 403, "PERMISSION_DENIED", "MANAGE")
	w.patch(asAdmin, "catalog/datafly", `{"changes":[{"principal":"emulator","add":["MANAGE"]}]}`).want(t, 200)
	w.patch(w.bearer(), table, `{"changes":[{"principal":"metastore-admin","add":["modify"]}]}`).want(t, 200, `{"principal":"metastore-admin","privileges":["MODIFY"]}`)
	w.patch(asAdmin, table, `{"changes":[{"principal":"nobody","add":["SELECT"]}]}`).wantError(t, 404, "PRINCIPAL_DOES_NOT_EXIST", "nobody")
	w.patch(asAdmin, table, `{"changes":[{"principal":"emulator","add":["USE_CATALOG"]}]}`).wantError(t, 400, "INVALID_PARAMETER_VALUE", "USE_CATALOG is not applicable")
	w.patch(asAdmin, table, `{"changes":[{"principal":"emulator","add":["FLY"]}]}`).wantError(t, 400, "INVALID_PARAMETER_VALUE", "FLY")
	w.patch(asAdmin, table, `{"chagnes":[]}`).wantError(t, 400, "INVALID_PARAMETER_VALUE", "changes")
	w.patch(asAdmin, "table/a.b.c", take).wantError(t, 404, "TABLE_DOES_NOT_EXIST", "")

	if got := w.Revoked(); len(got) != 0 { // ALL PRIVILEGES has them
		t.Errorf("revoked: got %q", got)
	}
	w.patch(asAdmin, table, `{"changes":[{"principal":"emulator","remove":["ALL_PRIVILEGES"]}]}`).want(t, 200)
	if got := w.Revoked(); len(got) != 2 || got[0] != "MODIFY on "+stream {
		t.Errorf("revoked: got %q", got)
	}
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	z.askGrant(stream).want(t, 200)
}

func TestSecurablesAreDescribed(t *testing.T) {
	w := start(t, emulator.Config{DDL: "CREATE CATALOG IF NOT EXISTS empty COMMENT 'x'; CREATE SCHEMA empty.inside; CREATE TABLE a.b.c (d DATE, id STRING) USING DELTA PARTITIONED BY (d)"})
	w.get(emulator.CatalogsPath+"EMPTY").want(t, 200, `"catalog_type":"MANAGED_CATALOG"`, `"name":"empty"`, `"owner":"metastore-admin"`)
	w.get(emulator.SchemasPath+"empty.inside").want(t, 200, `"catalog_name":"empty"`, `"full_name":"empty.inside"`, `"name":"inside"`)
	w.get(emulator.ColumnsPath+"a.b.c").want(t, 200, `"partition_index":0`)
	w.get(emulator.CatalogsPath+"none").wantError(t, 404, "CATALOG_DOES_NOT_EXIST", "")
	w.get(emulator.SchemasPath+"empty").wantError(t, 404, "SCHEMA_DOES_NOT_EXIST", "")
	if err := w.Revoke("USE CATALOG", "empty"); err != nil {
		t.Fatal(err)
	}
	w.get(emulator.CatalogsPath+"empty").wantError(t, 403, "PERMISSION_DENIED", "User does not have USE CATALOG on Catalog 'empty'.")
	w.get(emulator.SchemasPath+"empty.inside").wantError(t, 403, "PERMISSION_DENIED", "USE CATALOG on Catalog 'empty'")
	w.do("GET", emulator.SchemasPath+"empty.inside", "", "", "Authorization", asAdmin).want(t, 200)
	if err := w.Revoke("SELECT", "no.such.table"); err == nil {
		t.Error("revoke on a table that does not exist: got no error")
	}
	if err := w.DropTable("a.b.c"); err != nil {
		t.Fatal(err)
	}
	w.get(emulator.EffectivePath+"table/a.b.c").wantError(t, 404, "TABLE_DOES_NOT_EXIST", "")
}

func TestDropSecurables(t *testing.T) {
	w := start(t, emulator.Config{DDL: "CREATE TABLE a.b.c (id STRING); CREATE TABLE a.bb.d (id STRING); CREATE CATALOG e"})
	w.admin("GET", "securables", "").want(t, 200, `{"securables":["a","a.b","a.b.c","a.bb","a.bb.d","e"]}`)
	w.admin("DELETE", "securables/A.b", "").want(t, 204)
	w.admin("DELETE", "securables/a.b", "").want(t, 404, "a.b")
	w.admin("GET", "securables", "").want(t, 200, `{"securables":["a","a.bb","a.bb.d","e"]}`)
	w.get(emulator.SchemasPath+"a.b").wantError(t, 404, "SCHEMA_DOES_NOT_EXIST", "")
	w.sql(asAdmin, "CREATE TABLE a.b.c (id STRING)", "[SCHEMA_NOT_FOUND]")
	w.admin("DELETE", "securables/a", "").want(t, 204)
	w.admin("DELETE", "securables/e", "").want(t, 204)
	w.admin("GET", "securables", "").want(t, 200, `{"securables":[]}`)
	if err := w.Drop(""); err == nil {
		t.Error("drop the metastore: got no error")
	}
	if got := w.Tables(); len(got) != 0 {
		t.Errorf("tables: got %v", got)
	}
}
