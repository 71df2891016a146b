package emulator_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// answered is the answer of the statement API.
type answered struct {
	ID     string `json:"statement_id"`
	Status struct {
		State string
		Error struct{ Message string }
	}
	Manifest struct {
		Schema struct {
			Columns []struct {
				Name     string
				TypeText string `json:"type_text"`
			}
		}
	}
	Result struct {
		Rows [][]*string `json:"data_array"`
	}
}

// rows are the values of the result, "-" for NULL.
func (a answered) rows() string {
	lines := make([]string, len(a.Result.Rows))
	for i, row := range a.Result.Rows {
		for k, v := range row {
			if k > 0 {
				lines[i] += ","
			}
			if v == nil {
				lines[i] += "-"
				continue
			}
			lines[i] += *v
		}
	}
	return strings.Join(lines, " ")
}

func (r response) answered(t testing.TB) (a answered) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &a); r.status != 200 || err != nil {
		t.Fatalf("got %d %s, want an answer about a statement", r.status, r.body)
	}
	return a
}

func body(fields ...string) string {
	doc := map[string]any{"warehouse_id": emulator.DefaultWarehouse}
	for i := 0; i+1 < len(fields); i += 2 {
		doc[fields[i]] = fields[i+1]
	}
	text, _ := json.Marshal(doc)
	return string(text)
}

func (w *workspace) post(authorization, body string) response {
	w.t.Helper()
	return w.do("POST", emulator.StatementsPath, "application/json", body, "Authorization", authorization)
}

// sql runs a statement, which must succeed if want is "" and else fail with a text.
func (w *workspace) sql(authorization, text, want string) answered {
	w.t.Helper()
	a := w.post(authorization, body("statement", text)).answered(w.t)
	if state := map[bool]string{true: "SUCCEEDED", false: "FAILED"}[want == ""]; a.Status.State != state || !strings.Contains(a.Status.Error.Message, want) {
		w.t.Errorf("%s: got %s %q, want %s %q", text, a.Status.State, a.Status.Error.Message, state, want)
	}
	return a
}

// printed are the statements of the integration's page, as printed but for the principal.
var printed = []string{
	"CREATE CATALOG IF NOT EXISTS datafly;", "CREATE SCHEMA IF NOT EXISTS datafly.events;",
	strings.TrimSpace(emulator.DefaultDDL),
	"GRANT USE CATALOG ON CATALOG datafly TO `emulator`;",
	"GRANT USE SCHEMA ON SCHEMA datafly.events TO `emulator`;",
	"GRANT SELECT, MODIFY ON TABLE datafly.events.stream TO `emulator`;",
}

func TestPageStatements(t *testing.T) {
	z := startZerobus(t, emulator.Config{DDL: "CREATE CATALOG another"})
	w := z.workspace
	for range 2 { // each is safe to repeat
		for _, s := range printed {
			w.sql(asAdmin, s, "")
		}
	}
	w.get(emulator.EffectivePath+"table/datafly.events.stream?principal=emulator").want(t, 200, `{"privilege":"MODIFY"},{"privilege":"SELECT"}`, `"USE_CATALOG"`, `"USE_SCHEMA"`)
	z.insert("datafly.events.stream", `[{"message_id":"a","event_timestamp":1760000000123456},{"message_id":"b"},{"message_id":"c","event_timestamp":1760000001000000}]`).want(t, 200)
	a := w.sql(w.bearer(), "SELECT * FROM datafly.events.stream\nORDER BY event_timestamp DESC\nLIMIT 10;", "")
	ids := ""
	for _, row := range a.Result.Rows {
		ids += *row[2]
	}
	if ids != "cab" || *a.Result.Rows[0][5] != "2025-10-09T08:53:21.000Z" || *a.Result.Rows[1][5] != "2025-10-09T08:53:20.123456Z" || a.Result.Rows[2][5] != nil || a.Result.Rows[0][0] != nil {
		t.Errorf("test query: got %s", a.rows())
	}
	if c := a.Manifest.Schema.Columns; len(c) != 13 || c[5].Name != "event_timestamp" || c[5].TypeText != "TIMESTAMP" {
		t.Errorf("columns: got %+v", c)
	}
}

func TestServicePrincipalCreatesAndOwns(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	w := z.workspace
	sp := w.bearer()
	const table = "mine.s.t"
	w.sql(sp, "CREATE CATALOG mine", "")
	w.sql(sp, "CREATE CATALOG mine", "[CATALOG_ALREADY_EXISTS]")
	w.sql(sp, "CREATE SCHEMA mine.s COMMENT 'x'", "")
	w.sql(sp, "CREATE SCHEMA mine.s", "SQLSTATE: 42P06")
	w.sql(sp, "CREATE TABLE mine.s.t (id STRING, n BIGINT NOT NULL) USING DELTA TBLPROPERTIES ('a' = 'b') COMMENT 'y'", "")
	w.sql(sp, "CREATE TABLE mine.s.t (id STRING)", "[TABLE_OR_VIEW_ALREADY_EXISTS]")
	w.sql(sp, "CREATE TABLE IF NOT EXISTS mine.s.t (other STRING)", "")
	w.sql(sp, "CREATE TABLE mine.none.t (id STRING)", "[SCHEMA_NOT_FOUND] Schema 'mine.none'")
	w.sql(sp, "CREATE SCHEMA none.s", "[NO_SUCH_CATALOG_EXCEPTION]")
	w.get(emulator.ColumnsPath+table).want(t, 200, `"owner":"emulator"`)
	// An owner reads and alters; the endpoint asks for grants.
	w.sql(sp, "SELECT * FROM mine.s.t", "")
	z.askGrant(table).wantError(t, 401, "invalid_authorization_details", "")
	w.sql(sp, "GRANT USE CATALOG ON CATALOG mine TO `emulator`", "")
	w.sql(sp, "GRANT USE SCHEMA ON SCHEMA mine.s TO `emulator`", "")
	z.askGrant(table).wantError(t, 401, "invalid_authorization_details", "")
	w.sql(sp, "GRANT SELECT, MODIFY ON TABLE mine.s.t TO `emulator`", "")
	z.insert(table, `[{"id":"a","n":1}]`).want(t, 200)
	w.sql(sp, "REVOKE MODIFY ON mine.s.t FROM emulator", "")
	z.insert(table, `[]`).wantError(t, 403, "PERMISSION_DENIED", "MODIFY")
	w.sql(sp, "GRANT SELECT ON TABLE mine.s.t TO nobody", "[PRINCIPAL_DOES_NOT_EXIST]")
	w.sql(sp, "GRANT SELECT ON TABLE datafly.events.stream TO emulator", "MANAGE on Table 'datafly.events.stream'")
	w.sql(sp, "GRANT SELECT ON TABLE mine.s.none TO emulator", "[TABLE_OR_VIEW_NOT_FOUND]")
	w.sql(sp, "GRANT USE CATALOG ON TABLE mine.s.t TO emulator", "not applicable")
	w.sql(sp, "GRANT CREATE CATALOG ON METASTORE TO emulator", "MANAGE on Metastore")
}

func TestPrincipalThatMayNotCreate(t *testing.T) {
	w := start(t, emulator.Config{NoCreate: true})
	sp := w.bearer()
	w.sql(sp, "CREATE CATALOG x", "[INSUFFICIENT_PERMISSIONS] Insufficient privileges: User does not have CREATE CATALOG on Metastore 'emulator'. SQLSTATE: 42501")
	w.sql(sp, "CREATE CATALOG IF NOT EXISTS datafly", "")
	w.sql(sp, "CREATE SCHEMA datafly.x", "CREATE SCHEMA on Catalog 'datafly'")
	w.sql(sp, "CREATE TABLE datafly.events.x (id STRING)", "CREATE TABLE on Schema 'datafly.events'")
	w.sql(sp, "CREATE OR REPLACE TABLE datafly.events.stream (id STRING)", "CREATE TABLE")
	w.sql(asAdmin, "CREATE CATALOG x", "")
	w.sql(sp, "CREATE SCHEMA x.y", "USE CATALOG on Catalog 'x'")
	w.sql(sp, "CREATE CATALOG IF NOT EXISTS x", "CREATE CATALOG")
	if err := w.Grant("CREATE_CATALOG", ""); err != nil {
		t.Fatal(err)
	}
	w.sql(sp, "CREATE CATALOG z", "")
}

func TestAlterTable(t *testing.T) {
	w := start(t, emulator.Config{DDL: "CREATE TABLE a.b.c (id STRING, n INT NOT NULL)"})
	sp := w.bearer()
	w.sql(sp, "ALTER TABLE a.b.c ADD COLUMNS (x DOUBLE COMMENT 'y', z VARIANT)", "")
	w.sql(sp, "ALTER TABLE `a`.`b`.`c` ADD COLUMN w DATE;", "")
	w.sql(sp, "ALTER TABLE a.b.c ADD COLUMN X STRING", "[FIELD_ALREADY_EXISTS]")
	w.sql(sp, "ALTER TABLE a.b.c ADD COLUMN q STRING NOT NULL", "[UNSUPPORTED_FEATURE]")
	w.sql(sp, "ALTER TABLE a.b.c ALTER COLUMN N DROP NOT NULL", "")
	w.sql(sp, "ALTER TABLE a.b.c ALTER COLUMN none DROP NOT NULL", "[UNRESOLVED_COLUMN")
	w.sql(sp, "ALTER TABLE a.b.c ALTER COLUMN z SET TAGS ('zerobus-rescue' = '')", "APPLY TAG on Table 'a.b.c'")
	w.sql(asAdmin, "ALTER TABLE a.b.c ALTER COLUMN z SET TAGS ('zerobus-rescue' = '', 'k')", "")
	w.sql(sp, "ALTER TABLE a.b.none ADD COLUMN x INT", "[TABLE_OR_VIEW_NOT_FOUND]")
	if got := fmt.Sprint(w.Table("a.b.c").Columns()); got != "[{id STRING false } {n INT false } {x DOUBLE false y} {z VARIANT false } {w DATE false }]" {
		t.Errorf("columns: got %s", got)
	}
	w.get(emulator.TagsPath+"a.b.c.z/tags").want(t, 200, emulator.RescueTag)
	if err := w.Revoke("MODIFY", "a.b.c"); err != nil {
		t.Fatal(err)
	}
	w.sql(sp, "ALTER TABLE a.b.c ADD COLUMN v INT", "MODIFY on Table 'a.b.c'")
}

func TestQueries(t *testing.T) {
	w := start(t, emulator.Config{DDL: "CREATE TABLE a.b.c (id STRING, n BIGINT, f DOUBLE, d DATE, ntz TIMESTAMP_NTZ, ts TIMESTAMP, b BOOLEAN, m MAP<STRING,INT>)", AcceptTextTimestamps: true})
	sp := w.bearer()
	w.do("POST", emulator.IngestPath, "application/json", `{"table":"a.b.c","records":[
		{"id":"x","n":"10","f":2.5,"d":20454,"ntz":1760000000000000,"ts":"2025-10-09T10:53:20.5+02:00","b":true,"m":{"k":1}},
		{"id":"y","n":9,"f":"NaN","ts":1760000000400000},
		{"id":"x","n":-1,"ts":1760000000600001},{"n":null}]}`, "Authorization", sp).want(t, 200)
	for _, q := range []struct{ text, want string }{
		{"SELECT * FROM a.b.c LIMIT 1", `x,10,2.5,2026-01-01,2025-10-09T08:53:20.000,2025-10-09T08:53:20.500Z,true,{"k":1}`},
		{"select COUNT(*) from a.b.c", "4"},
		{"SELECT count(*) FROM a.b.c WHERE id = 'x'", "2"},
		{"SELECT count(*) FROM a.b.c WHERE ID = 'it''s'", "0"},
		{"SELECT * FROM a.b.c WHERE n = -1", ""},
		{"SELECT * FROM a.b.c LIMIT 0", ""},
	} {
		if strings.Contains(q.text, "-1") { // a negative number is two tokens
			w.sql(sp, q.text, "[PARSE_SYNTAX_ERROR]")
			continue
		}
		if got := w.sql(sp, q.text, "").rows(); got != q.want {
			t.Errorf("%s: got %s, want %s", q.text, got, q.want)
		}
	}
	for order, want := range map[string]string{"n": "- -1 9 10", "n DESC": "10 9 -1 -", "ts": "- 9 10 -1", "id DESC": "9 10 -1 -", "f ASC": "-1 - 9 10"} {
		var got []string
		for _, row := range w.sql(sp, "SELECT * FROM a.b.c ORDER BY "+order, "").Result.Rows {
			v := "-"
			if row[1] != nil {
				v = *row[1]
			}
			got = append(got, v)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("ORDER BY %s: got %v, want %s", order, got, want)
		}
	}
	r := w.post(sp, `{"warehouse_id":"`+emulator.DefaultWarehouse+`","catalog":"a","schema":"b","statement":"SELECT count(*) FROM c WHERE id = :id","parameters":[{"name":"id","value":"y"}]}`)
	if got := r.answered(t).rows(); got != "1" {
		t.Errorf("with parameters: got %s, want 1", got)
	}
	w.sql(sp, "SELECT * FROM a.b.c ORDER BY nope", "`nope` cannot be resolved")
	w.sql(sp, "SELECT * FROM a.b.nope", "[TABLE_OR_VIEW_NOT_FOUND]")
	w.sql(sp, "SELECT count(*) FROM a.b.c WHERE id = :id", `the parameter "id" is not given`)
	if err := w.Revoke("SELECT", "a.b.c"); err != nil {
		t.Fatal(err)
	}
	w.sql(sp, "SELECT * FROM a.b.c", "SELECT on Table 'a.b.c'")
	w.sql(asAdmin, "SELECT * FROM a.b.c", "")
}

func TestDedupeView(t *testing.T) {
	w := start(t, emulator.Config{})
	sp := w.bearer()
	w.ingest(envelope(`{"message_id":"a","event_timestamp":2,"user_id":"second"}`, `{"message_id":"a","event_timestamp":1,"user_id":"first"}`, `{"message_id":"b"}`, `{}`, `{}`)).want(t, 200)
	const view = "CREATE OR REPLACE VIEW `datafly`.`events`.`stream_deduplicated` AS\nSELECT * FROM `datafly`.`events`.`stream`\n" +
		"QUALIFY message_id IS NULL\n  OR ROW_NUMBER() OVER (PARTITION BY message_id ORDER BY event_timestamp) = 1;\n"
	w.sql(sp, view, "")
	w.sql(sp, view, "")
	if got := w.sql(sp, "SELECT count(*) FROM datafly.events.stream_deduplicated", "").rows(); got != "4" {
		t.Errorf("rows of the view: got %s, want 4", got)
	}
	if a := w.sql(sp, "SELECT * FROM datafly.events.stream_deduplicated WHERE message_id = 'a'", ""); len(a.Result.Rows) != 1 || *a.Result.Rows[0][3] != "first" {
		t.Errorf("row of a: got %s", a.rows())
	}
	w.get(emulator.ColumnsPath+"datafly.events.stream_deduplicated").want(t, 200, `"table_type":"VIEW"`, `"owner":"emulator"`)
	w.sql(sp, "CREATE VIEW datafly.events.v AS SELECT * FROM datafly.events.stream_deduplicated", "[UNSUPPORTED_FEATURE]")
	w.sql(sp, "CREATE VIEW datafly.events.v AS SELECT * FROM datafly.events.none", "[TABLE_OR_VIEW_NOT_FOUND]")
	w.sql(sp, "ALTER TABLE datafly.events.stream_deduplicated ADD COLUMN x INT", "[EXPECT_TABLE_NOT_VIEW]")
	w.sql(sp, "GRANT SELECT ON VIEW datafly.events.stream_deduplicated TO `metastore-admin`", "")
	w.sql(sp, "CREATE OR REPLACE VIEW datafly.events.stream AS SELECT * FROM datafly.events.stream_deduplicated", "[UNSUPPORTED_FEATURE]")
	w.sql(sp, "CREATE TABLE datafly.events.other (id STRING)", "")
	w.sql(sp, "CREATE OR REPLACE VIEW datafly.events.other AS SELECT * FROM datafly.events.stream", "[EXPECT_VIEW_NOT_TABLE]")
	w.sql(sp, "CREATE OR REPLACE TABLE datafly.events.stream_deduplicated (id STRING)", "[EXPECT_TABLE_NOT_VIEW]")
	w.get(emulator.ColumnsPath+"datafly.events.other").want(t, 200, `"table_type":"MANAGED"`)
	w.ingest(strings.Replace(envelope(`{}`), stream, stream+"_deduplicated", 1)).wantError(t, 403, "PERMISSION_DENIED", "MODIFY")
	if err := w.DropTable(stream); err != nil {
		t.Fatal(err)
	}
	w.sql(sp, "SELECT * FROM datafly.events.stream_deduplicated", "[TABLE_OR_VIEW_NOT_FOUND]")
}

func TestStatementsThatAreNotUnderstood(t *testing.T) {
	w := start(t, emulator.Config{})
	for _, s := range []string{
		"", " ", ";", "DROP TABLE datafly.events.stream", "SELECT 1", "SELECT * FROM datafly.events.stream; SELECT * FROM datafly.events.stream",
		"CREATE TABLE x (id STRING)", "CREATE TABLE a.b.c (id STRING) LOCATION 's3://x'", "CREATE TABLE a.b.c (id STRING) USING PARQUET", "SELECT * FROM a.b.c LIMIT x",
		"CREATE TABLE a.b.c (id STRING) PARTITIONED BY (day)", "CREATE CATALOG a.b", "GRANT ON TABLE a.b.c TO x", "CREATE VIEW a.b.c AS SELECT count(*) FROM a.b.d",
		"ALTER TABLE a.b.c DROP COLUMN d", "SELECT * FROM a.b.c WHERE id LIKE 'x'", "SELECT 'unclosed FROM a.b.c", "INSERT INTO a.b.c VALUES (1)",
	} {
		if s != "" {
			w.sql(w.bearer(), s, "[PARSE_SYNTAX_ERROR]")
		}
	}
	w.post(w.bearer(), body("statement", "")).wantError(t, 400, "INVALID_PARAMETER_VALUE", "required")
	// Catalog and schema of a request are names too.
	for _, s := range []string{"SELECT * FROM c", "CREATE TABLE c (id STRING)", "CREATE SCHEMA c", "GRANT SELECT ON TABLE c TO emulator", "ALTER TABLE c ADD COLUMN d INT"} {
		for _, odd := range []string{"a.b", "a.b.c.d.e", "a b", "/"} {
			if got := w.post(w.bearer(), body("statement", s, "catalog", odd, "schema", "s")).answered(t).Status.Error.Message; !strings.Contains(got, "hold no dot") {
				t.Errorf("%s in catalog %s: got %q", s, odd, got)
			}
		}
	}
}

func TestStatementRequests(t *testing.T) {
	w := start(t, emulator.Config{})
	sp := w.bearer()
	const q = "SELECT count(*) FROM datafly.events.stream"
	for name, tc := range map[string]struct{ body, want string }{
		"wait of a second":  {body("statement", q, "wait_timeout", "1s"), "wait_timeout"},
		"wait of a minute":  {body("statement", q, "wait_timeout", "60s"), "wait_timeout"},
		"no unit":           {body("statement", q, "wait_timeout", "10"), "wait_timeout"},
		"on_wait_timeout":   {body("statement", q, "on_wait_timeout", "STOP"), "on_wait_timeout"},
		"disposition":       {body("statement", q, "disposition", "EXTERNAL_LINKS"), "disposition"},
		"format":            {body("statement", q, "format", "CSV"), "format"},
		"an unknown field":  {body("statement", q, "warehouse", "x"), "not a request"},
		"not JSON":          {"{", "not a request"},
		"without warehouse": {`{"statement":"` + q + `"}`, "warehouse_id"},
	} {
		t.Run(name, func(t *testing.T) { w.post(sp, tc.body).wantError(t, 400, "INVALID_PARAMETER_VALUE", tc.want) })
	}
	w.post(sp, `{"statement":"x","warehouse_id":"none"}`).wantError(t, 404, "RESOURCE_DOES_NOT_EXIST", "none")
	w.post("", body("statement", q)).wantError(t, 401, "UNAUTHENTICATED", "")

	a := w.post(sp, body("statement", q, "wait_timeout", "0s")).answered(t)
	if a.Status.State != "PENDING" || a.ID == "" {
		t.Fatalf("asynchronous: got %+v", a)
	}
	at := emulator.StatementsPath + "/" + a.ID
	if a := w.get(at).answered(t); a.Status.State != "SUCCEEDED" || a.rows() != "0" {
		t.Errorf("polled: got %+v", a)
	}
	w.do("POST", at+"/cancel", "", "", "Authorization", sp).want(t, 200, "{}")
	if a := w.get(at).answered(t); a.Status.State != "SUCCEEDED" {
		t.Errorf("canceled too late: got %+v", a)
	}
	w.do("GET", at, "", "", "Authorization", asAdmin).wantError(t, 404, "NOT_FOUND", a.ID)
	w.do("POST", at+"x/cancel", "", "", "Authorization", sp).wantError(t, 404, "NOT_FOUND", "")
	for range 100 {
		w.post(sp, body("statement", q)).want(t, 200)
	}
	w.get(at).wantError(t, 404, "NOT_FOUND", "")
	w.add(emulator.Fault{Endpoint: emulator.EndpointStatement, Effect: emulator.EffectLoseAck, Count: 1})
	if _, err := w.try("POST", emulator.StatementsPath, "application/json", body("statement", "CREATE CATALOG lost"), "Authorization", sp); err == nil {
		t.Error("a lost answer: got one")
	}
	w.get(emulator.CatalogsPath+"lost").want(t, 200)
	if s := w.Stats(); s.Requests[emulator.EndpointStatement] < 100 || s.Requests[emulator.EndpointStatementCancel] != 2 {
		t.Errorf("stats: got %v", s.Requests)
	}
}

func TestVisibleAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, post := bare(t, emulator.Config{VisibleAfter: 5 * time.Second})
		count := func() string {
			return post(emulator.StatementsPath, "application/json", []byte(body("statement", "SELECT count(*) FROM "+stream))).answered(t).rows()
		}
		post(emulator.IngestPath, "application/json", []byte(envelope(`{}`))).want(t, 200)
		if got := count(); got != "0" {
			t.Errorf("at once: got %s rows, want none", got)
		}
		<-time.After(5 * time.Second) // virtual
		if got := count(); got != "1" {
			t.Errorf("after 5 s: got %s rows, want 1", got)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWarehousesStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, post := bare(t, emulator.Config{Warehouses: []emulator.Warehouse{{ID: emulator.DefaultWarehouse, State: "STOPPED", StartUp: emulator.Duration(55 * time.Second)}}})
		send := func(fields ...string) answered {
			return post(emulator.StatementsPath, "application/json", []byte(body(fields...))).answered(t)
		}
		auth := "Bearer " + post(emulator.TokenPath, form, []byte(tokenForm)).json(t)["access_token"].(string)
		state := func(id string) string {
			a := call(e, auth, "GET", emulator.StatementsPath+"/"+id).answered(t)
			return a.Status.State + " " + e.Warehouses()[0].State
		}
		want := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s: got %s, want %s", what, got, want)
			}
		}
		begin := time.Now()
		first := send("statement", "CREATE CATALOG slow", "wait_timeout", "5s")
		want("after the wait", first.Status.State+" "+state(first.ID), "PENDING PENDING STARTING")
		if waited := time.Since(begin); waited != 5*time.Second {
			t.Errorf("waited %s, want 5s", waited)
		}
		second := send("statement", "CREATE CATALOG never", "wait_timeout", "5s", "on_wait_timeout", "CANCEL")
		want("on_wait_timeout CANCEL", second.Status.State, "CANCELED")
		third := send("statement", "CREATE CATALOG neither", "wait_timeout", "0s")
		call(e, auth, "POST", emulator.StatementsPath+"/"+third.ID+"/cancel").want(t, 200)
		want("canceled", state(third.ID), "CANCELED STARTING")
		fourth := send("statement", "CREATE CATALOG waited", "wait_timeout", "50s") // from 10 s on
		want("waited for", fourth.Status.State, "SUCCEEDED")
		synctest.Wait()
		want("the first", state(first.ID), "SUCCEEDED RUNNING")
		call(e, auth, "GET", emulator.CatalogsPath+"never").want(t, 404)
		call(e, auth, "GET", emulator.CatalogsPath+"neither").want(t, 404)
		if err := e.SetWarehouses(emulator.Warehouse{ID: emulator.DefaultWarehouse, State: "STOPPED", StartUp: emulator.Duration(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		last := send("statement", "CREATE CATALOG late", "wait_timeout", "0s")
		if err := e.Close(t.Context()); err != nil { // ends what waits
			t.Error(err)
		}
		want("after Close", last.Status.State, "PENDING")
		if e.Warehouses()[0].State != emulator.WarehouseStarting {
			t.Errorf("after Close: got %s", e.Warehouses()[0].State)
		}
	})
}

func TestWarehouses(t *testing.T) {
	w := start(t, emulator.Config{Warehouses: []emulator.Warehouse{{ID: "w1", Name: "one"}, {ID: "w2", State: "STOPPED", NoUse: true}}})
	sp := w.bearer()
	w.get(emulator.WarehousesPath).want(t, 200, `"id":"w1","name":"one","state":"RUNNING"`)
	if r := w.get(emulator.WarehousesPath); strings.Contains(r.body, "w2") {
		t.Errorf("without CAN USE: got %s", r.body)
	}
	w.do("GET", emulator.WarehousesPath, "", "", "Authorization", asAdmin).want(t, 200, `"w1"`, `"id":"w2","name":"w2","state":"STOPPED"`)
	w.get(emulator.WarehousesPath+"/w1").want(t, 200, `"name":"one"`)
	w.get(emulator.WarehousesPath+"/w2").wantError(t, 403, "PERMISSION_DENIED", "CAN USE")
	w.get(emulator.WarehousesPath+"/w3").wantError(t, 404, "RESOURCE_DOES_NOT_EXIST", "w3")
	w.post(sp, `{"statement":"CREATE CATALOG x","warehouse_id":"w2"}`).wantError(t, 403, "PERMISSION_DENIED", "CAN USE")
	w.admin("PUT", "warehouses", `{"warehouses":[]}`).want(t, 204)
	w.get(emulator.WarehousesPath).want(t, 200, `{"warehouses":[]}`)
	w.admin("PUT", "warehouses", `{"warehouses":[{"id":"a"},{"id":"a"}]}`).want(t, 400, "twice")
	w.admin("PUT", "warehouses", `{"warehouses":[{"id":"a","state":"ASLEEP"}]}`).want(t, 400, "ASLEEP")
	w.admin("PUT", "warehouses", `{"warehouses":[{"id":"a","state":"STOPPED","start_up":"3s","no_use":true}]}`).want(t, 204)
	w.admin("GET", "warehouses", "").want(t, 200, `{"warehouses":[{"id":"a","name":"a","state":"STOPPED","start_up":"3s","no_use":true}]}`)
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	w.get(emulator.WarehousesPath+"/w1").want(t, 200)
	if _, err := emulator.New(emulator.Config{Warehouses: []emulator.Warehouse{{}}}); err == nil {
		t.Error("a warehouse without an id: got no error")
	}
}

func TestParseWarehouse(t *testing.T) {
	got, err := emulator.ParseWarehouse("w1,state=stopped,start=3s,name=my one,no-use")
	if want := (emulator.Warehouse{ID: "w1", Name: "my one", State: "STOPPED", StartUp: emulator.Duration(3 * time.Second), NoUse: true}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "w,state=asleep", "w,start=x", "w,start=-1s", "w,color=red", "a/b"} {
		if _, err := emulator.ParseWarehouse(bad); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}
