package emulator_test

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
	"github.com/go-json-experiment/json/jsontext"
)

// call sends a request without a network.
func call(e *emulator.Emulator, authorization, method, path string) response {
	req := httptest.NewRequest(method, path, nil)
	req.Header.Set("Authorization", authorization)
	rec := httptest.NewRecorder()
	e.Handler().ServeHTTP(rec, req)
	return response{rec.Code, rec.Header(), rec.Body.String()}
}

const tokenForm = "grant_type=client_credentials&scope=all-apis&client_id=emulator&client_secret=emulator-secret"

// bare makes an emulator and a way to post to it without a network.
func bare(f testing.TB, cfg emulator.Config) (e *emulator.Emulator, post func(path, contentType string, body []byte) response) {
	f.Helper()
	e, err := emulator.New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	authorization := ""
	post = func(path, contentType string, body []byte) response {
		req := httptest.NewRequest("POST", path, bytes.NewReader(body))
		req.Header.Set("Content-Type", contentType)
		req.Header.Set("Authorization", authorization)
		rec := httptest.NewRecorder()
		e.Handler().ServeHTTP(rec, req)
		return response{rec.Code, rec.Header(), rec.Body.String()}
	}
	r := post(emulator.TokenPath, form, []byte(tokenForm))
	authorization = "Bearer " + r.json(f)["access_token"].(string)
	return e, post
}

func FuzzIngestBody(f *testing.F) {
	e, post := bare(f, emulator.Config{DDL: everyType, MaxRows: 10})
	for _, row := range []string{
		`{"s":"\ud83d\ude00","i64":"9223372036854775807","ts":1760000000000000}`, `{"m":{"1":"a"},"st":{"port":1},"deep":[{"m":{"k":[1]}}]}`,
		`{"bin":"AA==","dec":"-1.5","v":"{}","b":true,"d":1e3,"f":"NaN"}`, `{"s":null}`, `{}`, `{"nope":1}`, `[`, "{\"s\":\"\xff\"}",
	} {
		f.Add([]byte(`{"table":"t.s.types","records":[` + row + `]}`))
	}
	f.Add([]byte(`{"records":[{},{}],"table":"t.s.types"}`))
	f.Add([]byte(`{"table":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		before := e.Table("t.s.types").Count()
		r := post(emulator.IngestPath, "application/json", body)
		kept := e.Table("t.s.types").Count() - before
		var answer map[string]any
		if err := json.Unmarshal([]byte(r.body), &answer); err != nil {
			t.Fatalf("answer %d %q: %v", r.status, r.body, err)
		}
		if r.status != 200 {
			if r.status != 400 && r.status != 404 || answer["error_code"] == "" || kept != 0 {
				t.Fatalf("got %d %s and %d rows kept, want 400 or 404 and none", r.status, r.body, kept)
			}
			return
		}
		// What is accepted, strict parsers accept, with as many rows.
		if v := jsontext.Value(body); !v.IsValid() {
			t.Fatalf("accepted what is not strict JSON: %q", body)
		}
		var in struct {
			Table   string
			Records []map[string]json.RawMessage
		}
		if err := json.Unmarshal(body, &in); err != nil {
			t.Fatalf("accepted %q: %v", body, err)
		}
		if kept != len(in.Records) || answer["records_ingested"] != float64(kept) {
			t.Fatalf("%q: got %d rows kept and %s, want %d", body, kept, r.body, len(in.Records))
		}
		if kept == 0 {
			return
		}
		var newest, last map[string]any
		if err := json.Unmarshal(e.Table("t.s.types").Newest(1)[0].JSON, &newest); err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(in.Records[len(in.Records)-1])
		if err := json.Unmarshal(text, &last); err != nil || !reflect.DeepEqual(newest, last) {
			t.Fatalf("row kept: got %v, want %v", newest, last)
		}
	})
}

// FuzzJSONText compares what the row reader takes for JSON, through the one
// column type that takes JSON text, with one call of the strict parser.
func FuzzJSONText(f *testing.F) {
	_, post := bare(f, emulator.Config{DDL: "CREATE TABLE a.b.c (v VARIANT)", MaxRows: 1})
	for _, text := range []string{
		`{"a":[1,2.5e-3,true,null,"x\u00e9\n"]}`, ` [ ] `, `"\ud800"`, `"\ud83d\ude00"`, `-0`, `01`, `1.`, `.5`, `1e`, `+1`, `{"a":1,"a":2}`, `[1,]`,
		`{"a"}`, `nul`, `"a` + "\x01" + `"`, `"` + strings.Repeat("x", 40) + "\u007f\u2028" + `"`, `{,}`, `"\u00`, `tru`, `[[[]]]`, "\ufeff1", `1 1`, ``,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, "[")+strings.Count(text, "{") > 900 {
			return // the two draw the line of nesting elsewhere
		}
		quoted, err := jsontext.AppendQuote(nil, text)
		if err != nil {
			return // not UTF-8: FuzzIngestBody covers it
		}
		want := jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true))
		r := post(emulator.IngestPath, "application/json", []byte(`{"table":"a.b.c","records":[{"v":`+string(quoted)+`}]}`))
		if got := r.status == 200; got != want {
			t.Fatalf("%q: got %d %s, want it taken: %v", text, r.status, r.body, want)
		}
	})
}

func FuzzDDL(f *testing.F) {
	f.Add(page)
	f.Add(everyType)
	f.Add(emulator.DefaultDDL)
	f.Add("CREATE TABLE a.b.c (`a` INT NOT NULL COMMENT \"x\\\"\", b STRUCT<c: VARCHAR(3)>)")
	f.Add("CREATE TABLE a.b.c (a INT, PRIMARY KEY (a)) -- x")
	f.Fuzz(func(t *testing.T, script string) {
		e, err := emulator.New(emulator.Config{DDL: script})
		if err != nil {
			if script != "" && !strings.Contains(err.Error(), "ddl") && !strings.Contains(err.Error(), "create table") {
				t.Fatalf("%q: error without a place: %v", script, err)
			}
			return
		}
		// What is understood can be written and understood again.
		for _, name := range e.Tables() {
			tab := e.Table(name)
			again, err := emulator.New(emulator.Config{DDL: tab.DDL()})
			if err != nil {
				t.Fatalf("%q: its own DDL %q: %v", script, tab.DDL(), err)
			}
			if got, want := again.Table(name).Columns(), tab.Columns(); !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: columns got %+v, want %+v", script, got, want)
			}
		}
	})
}

func FuzzFaultJSON(f *testing.F) {
	e, post := bare(f, emulator.Config{})
	f.Add([]byte(`{"endpoint":"ingest","effect":"status","status":429,"retry_after":3,"as_date":true}`))
	f.Add([]byte(`{"effect":"latency","latency":"p50=150ms,p95=500ms","probability":0.5,"seed":1}`))
	f.Add([]byte(`{"endpoint":"ingest","effect":"refuse","rows":{"column":"a","regexp":"^x","message_ids":["b"]}}`))
	f.Add([]byte(`{"effect":"status","status":500,"body":""}`))
	f.Add([]byte(`{"endpoint":"create","effect":"status","grpc_code":"OK","reason":"r","in_trailer":true,"error_info":{"reason":"R","metadata":{"a":"b"}}}`))
	f.Add([]byte(`{"endpoint":"stream","effect":"close_signal","window":"1.5s","end_after":"0s","offset":3}`))
	f.Add([]byte(`{"endpoint":"stream","effect":"ack","ack_by":-1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := post("/emulator/faults", "application/json", body)
		added := e.Faults()
		e.ClearFaults()
		if r.status != 200 {
			if r.status != 400 || len(added) != 0 {
				t.Fatalf("%q: got %d %s and %d faults", body, r.status, r.body, len(added))
			}
			return
		}
		// What is shown can be added again and means the same.
		again := post("/emulator/faults", "application/json", []byte(r.body))
		e.ClearFaults()
		if again.status != 200 || again.body != r.body {
			t.Fatalf("%q: got %s, and from that %d %s", body, r.body, again.status, again.body)
		}
	})
}

// FuzzSQL runs arbitrary statements: each answer is one of the API, and a statement that is
// not understood changes nothing.
func FuzzSQL(f *testing.F) {
	for _, s := range printed {
		f.Add(s, "", "")
	}
	for _, s := range []string{
		"SELECT * FROM t WHERE id = :p ORDER BY n DESC LIMIT 3", "SELECT count(*) FROM a.b.t", "ALTER TABLE t ADD COLUMNS (x INT, y MAP<STRING,INT>)",
		"ALTER TABLE t ALTER COLUMN v SET TAGS ('zerobus-rescue' = '')", "REVOKE ALL PRIVILEGES ON SCHEMA b FROM emulator", "CREATE SCHEMA x.y COMMENT 'z'",
		"CREATE OR REPLACE VIEW v AS SELECT * FROM t QUALIFY id IS NULL OR ROW_NUMBER() OVER (PARTITION BY id ORDER BY n) = 1", "CREATE OR REPLACE TABLE t (id STRING) CLUSTER BY AUTO",
	} {
		f.Add(s, "a", "b")
		f.Add(s, "a.b", "c.d")
	}
	f.Fuzz(func(t *testing.T, statement, catalog, schema string) {
		e, post := bare(t, emulator.Config{DDL: "CREATE TABLE a.b.t (id STRING, n BIGINT, v VARIANT)", MaxRows: 10})
		post(emulator.IngestPath, "application/json", []byte(`{"table":"a.b.t","records":[{"id":"x","n":1},{"id":"x","v":"{}"},{}]}`))
		request, err := json.Marshal(map[string]any{"statement": statement, "catalog": catalog, "schema": schema, "warehouse_id": emulator.DefaultWarehouse, "parameters": []map[string]string{{"name": "p", "value": "x"}}})
		if err != nil {
			t.Fatal(err)
		}
		r := post(emulator.StatementsPath, "application/json", request)
		if r.status == 400 {
			return
		}
		a := r.answered(t)
		switch {
		case a.Status.State == "FAILED" && !strings.HasPrefix(a.Status.Error.Message, "["):
			t.Fatalf("%q: error without a condition: %s", statement, r.body)
		case a.Status.State != "FAILED" && a.Status.State != "SUCCEEDED":
			t.Fatalf("%q: got %s", statement, r.body)
		case strings.HasPrefix(a.Status.Error.Message, "[PARSE_SYNTAX_ERROR]") && (len(e.Tables()) != 1 || len(e.Table("a.b.t").Columns()) != 3):
			t.Fatalf("%q: changed something: %v", statement, e.Tables())
		}
		for _, row := range a.Result.Rows {
			if len(row) != len(a.Manifest.Schema.Columns) {
				t.Fatalf("%q: got a row of %d values and %d columns", statement, len(row), len(a.Manifest.Schema.Columns))
			}
		}
	})
}

// FuzzStatementRequest sends arbitrary bodies: the answer is one of the API.
func FuzzStatementRequest(f *testing.F) {
	_, post := bare(f, emulator.Config{MaxRows: 10})
	f.Add([]byte(body("statement", "SELECT count(*) FROM "+stream, "wait_timeout", "0s")))
	f.Add([]byte(`{"statement":"x","warehouse_id":"emulator-warehouse","parameters":[{"name":"a","value":null,"type":"INT"}]}`))
	f.Add([]byte(`{"statement":1}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := post(emulator.StatementsPath, "application/json", in)
		var answer map[string]any
		if err := json.Unmarshal([]byte(r.body), &answer); err != nil {
			t.Fatalf("%q: answer %d %q: %v", in, r.status, r.body, err)
		}
		if (r.status == 200) == (answer["statement_id"] == nil) || r.status != 200 && answer["error_code"] == nil {
			t.Fatalf("%q: got %d %s", in, r.status, r.body)
		}
	})
}
