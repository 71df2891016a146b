package emulator_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

const everyType = `CREATE TABLE t.s.types (
  s STRING, vc VARCHAR(3), i8 TINYINT, i16 SMALLINT, i32 INT, i64 BIGINT, f FLOAT, d DOUBLE, b BOOLEAN, bin BINARY,
  dt DATE, ts TIMESTAMP, ntz TIMESTAMP_NTZ, dec DECIMAL(5,2), v VARIANT, arr ARRAY<STRING>, m MAP<INT,STRING>,
  st STRUCT<ip: STRING, port: INT NOT NULL>, deep ARRAY<STRUCT<m: MAP<STRING,ARRAY<BIGINT>>>>
)`

func TestEachTypeTakesItsValuesOnly(t *testing.T) {
	w := start(t, emulator.Config{DDL: everyType})
	for column, values := range map[string]struct{ good, bad []string }{
		"s":   {good: []string{`""`, `"x"`, `"\u00e9\ud83d\ude00"`, `null`}, bad: []string{`1`, `true`, `{}`, `[]`}},
		"vc":  {good: []string{`"abc"`, `"äöü"`, `"\u00e4bc"`}, bad: []string{`"abcd"`, `1`}},
		"i8":  {good: []string{`127`, `-128`, `"5"`}, bad: []string{`128`, `-129`, `1.0`, `1e2`, `"x"`, `true`}},
		"i16": {good: []string{`32767`}, bad: []string{`32768`}},
		"i32": {good: []string{`2147483647`, `"-2147483648"`}, bad: []string{`2147483648`, `"2147483648"`}},
		"i64": {good: []string{`9223372036854775807`, `"9223372036854775807"`, `-9223372036854775808`}, bad: []string{`9223372036854775808`, `" 1"`, `"1 "`, `""`}},
		"f":   {good: []string{`1.5`, `3e38`, `"NaN"`}, bad: []string{`3e39`, `"1.5"`}},
		"d":   {good: []string{`1e308`, `-0`, `"Infinity"`, `"-Infinity"`, `1e-400`}, bad: []string{`1e400`, `"inf"`}},
		"b":   {good: []string{`true`, `false`}, bad: []string{`"true"`, `1`}},
		"bin": {good: []string{`""`, `"AAEC"`, `"AA=="`, `"\u0041A=="`}, bad: []string{`"AA"`, `"A-_="`, `7`}},
		"dt":  {good: []string{`0`, `-719162`, `20000`}, bad: []string{`"2026-01-01"`, `2147483648`}},
		"ts":  {good: []string{`1760000000000000`, `-1`}, bad: []string{`"2026-01-01T00:00:00Z"`, `"1760000000000000"`, `1.5`, `1e15`, `99999999999999999999`}},
		"ntz": {good: []string{`1760000000000000`}, bad: []string{`"2026-01-01T00:00:00"`}},
		"dec": {
			good: []string{`"1"`, `"-123.45"`, `"0.5"`, `".5"`, `"000123.4"`},
			bad:  []string{`1.5`, `"1234"`, `"1.234"`, `"1e2"`, `""`, `"-"`, `"."`, `"1."`, `"+1"`, `"x"`},
		},
		"v":    {good: []string{`"{\"a\":[1,2]}"`, `" 1 "`, `"null"`}, bad: []string{`{"a":1}`, `"{"`, `"1 2"`, `""`, `"\"\\ud800\""`}},
		"arr":  {good: []string{`[]`, `["a","b"]`}, bad: []string{`["a",null]`, `[1]`, `{}`, `"a"`}},
		"m":    {good: []string{`{}`, `{"1":"a","-2":"b"}`}, bad: []string{`{"x":"a"}`, `{"1":null}`, `{"1":"a","1":"b"}`, `[]`}},
		"st":   {good: []string{`{"ip":"::1","port":1}`, `{"port":1}`, `{"ip":null,"\u0070ort":1}`}, bad: []string{`{"ip":"::1"}`, `{"port":null}`, `{"port":1,"x":1}`, `{"port":1,"port":2}`, `"x"`}},
		"deep": {good: []string{`[{"m":{"k":[1,2]}},{}]`}, bad: []string{`[{"m":{"k":["x"]}}]`, `[{"m":{"k":[[1]]}}]`}},
	} {
		for _, v := range values.good {
			if r := w.ingest(fmt.Sprintf(`{"table":"t.s.types","records":[{%q:%s}]}`, column, v)); r.status != 200 {
				t.Errorf("column %s, value %s: got %d %s, want 200", column, v, r.status, r.body)
			}
		}
		for _, v := range values.bad {
			r := w.ingest(fmt.Sprintf(`{"table":"t.s.types","records":[{},{%q:%s}]}`, column, v))
			r.wantError(t, 400, "INVALID_PARAMETER_VALUE", fmt.Sprintf("row 1: column %q: ", column))
			if !strings.Contains(r.body, `"reason":"TYPE_INCOMPATIBLE"`) || !strings.Contains(r.body, `"row":"1"`) {
				t.Errorf("column %s, value %s: got %s, want details with reason and row", column, v, r.body)
			}
		}
	}
}

func TestBodiesThatAreRefused(t *testing.T) {
	w := start(t, emulator.Config{DDL: "CREATE TABLE a.b.c (id STRING NOT NULL, n INT)"})
	const head = `{"table":"a.b.c","records":`
	for _, c := range []struct{ name, body, message string }{
		{"empty", ``, "unexpected end of JSON at byte 0"},
		{"not an object", `[]`, "invalid JSON"},
		{"no table", `{"records":[{}]}`, "table is missing"},
		{"no records", `{"table":"a.b.c"}`, "records is missing"},
		{"unknown field", `{"table":"a.b.c","rows":[]}`, "other than table and records"},
		{"table twice", `{"table":"a.b.c","table":"a.b.c","records":[]}`, "table occurs twice"},
		{"records twice", head + `[],"records":[]}`, "records occurs twice"},
		{"records twice before the table", `{"records":[],"records":[],"table":"a.b.c"}`, "records occurs twice"},
		{"records no array", head + `{}}`, "invalid JSON"},
		{"text behind", head + `[]} x`, "text after the JSON body"},
		{"cut short", head + `[{"id":"a"`, "unexpected end of JSON"},
		{"cut between rows", head + `[{"id":"a"},`, "unexpected end of JSON"},
		{"no comma", head + `[{"id":"a"}{"id":"b"}]}`, "invalid JSON"},
		{"trailing comma", head + `[{"id":"a"},]}`, "invalid JSON"},
		{"trailing comma in a row", head + `[{"id":"a",}]}`, "row 0: invalid JSON"},
		{"row no object", head + `[{"id":"a"},7]}`, "row 1: a row must be a JSON object"},
		{"unknown column", head + `[{"id":"a"},{"id":"b","zip":"1"}]}`, `row 1: column "zip": is not a column`},
		{"column in other case", head + `[{"ID":"a"}]}`, `column "ID": is not a column`},
		{"column twice", head + `[{"id":"a","n":1,"n":1}]}`, `column "n": occurs twice`},
		{"column twice by escape", head + `[{"id":"a","\u0069d":"b"}]}`, `column "id": occurs twice`},
		{"NOT NULL missing", head + `[{"n":1}]}`, `column "id": is NOT NULL and missing`},
		{"NOT NULL missing in an empty row", head + `[{}]}`, `column "id": is NOT NULL and missing`},
		{"NOT NULL null", head + `[{"id":null}]}`, `column "id": is NOT NULL and null`},
		{"bad UTF-8", head + "[{\"id\":\"\xff\"}]}", "invalid UTF-8"},
		{"overlong UTF-8", head + "[{\"id\":\"\xc0\xaf\"}]}", "invalid UTF-8"},
		{"surrogate in UTF-8", head + "[{\"id\":\"\xed\xa0\x80\"}]}", "invalid UTF-8"},
		{"lone high surrogate", head + `[{"id":"\ud800"}]}`, "invalid escape"},
		{"lone low surrogate", head + `[{"id":"\udc00"}]}`, "invalid escape"},
		{"two low surrogates", head + `[{"id":"\udc00\udc00"}]}`, "invalid escape"},
		{"half a pair", head + `[{"id":"\ud83d\u0041"}]}`, "invalid escape"},
		{"bad escape", head + `[{"id":"\x41"}]}`, "invalid escape"},
		{"control character", head + "[{\"id\":\"a\tb\"}]}", "control character"},
		{"NaN", head + `[{"id":"a","n":NaN}]}`, "invalid JSON"},
		{"leading zero", head + `[{"id":"a","n":01}]}`, "invalid JSON"},
		{"bare minus", head + `[{"id":"a","n":-}]}`, "invalid JSON"},
		{"byte order mark", "\ufeff" + head + `[]}`, "invalid JSON"},
		{"too deep", head + `[{"id":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}]}`, "nested too deep"},
	} {
		r := w.ingest(c.body)
		r.wantError(t, 400, "INVALID_PARAMETER_VALUE", c.message)
		if t.Failed() {
			t.Fatalf("case %s", c.name)
		}
	}
	if got := w.Table("a.b.c").Count(); got != 0 {
		t.Errorf("rows kept: got %d, want none: a refused request keeps nothing", got)
	}
	if got := w.Stats().Rejects["INVALID_PARAMETER_VALUE"]; got != 37 {
		t.Errorf("rejects counted: got %d, want 37", got)
	}
	for _, good := range []string{
		`{"records":[{"id":"a"},{"n":1,"id":"b"}],"table":"a.b.c"}`,
		` { "table" : "A.B.C" , "records" : [ { "n" : null , "id" : "c" } ] } `,
		`{"\u0074able":"a.b.c"}`,
	} {
		r := w.ingest(good)
		if ok := r.status == 200; ok != !strings.Contains(good, `\u`) {
			t.Errorf("%s: got %d %s", good, r.status, r.body)
		}
	}
}

func TestNoRefusalRepeatsAValue(t *testing.T) {
	w := start(t, emulator.Config{DDL: everyType})
	for _, row := range []string{`{"i64":"hunter2"}`, `{"vc":"hunter2"}`, `{"ts":"hunter2"}`, `{"dec":"hunter2"}`, `{"v":"hunter2"}`, `{"s":"hunter2` + "\xff" + `"}`, `"hunter2"`} {
		r := w.ingest(`{"table":"t.s.types","records":[` + row + `]}`)
		if r.status != 400 || strings.Contains(r.body, "hunter2") {
			t.Errorf("%s: got %d %s, want 400 without the value", row, r.status, r.body)
		}
	}
}

func TestTextTimestampsWhenAllowed(t *testing.T) {
	w := start(t, emulator.Config{AcceptTextTimestamps: true})
	for value, want := range map[string]int{`"2026-01-02T03:04:05.6Z"`: 200, `"2026-01-02T03:04:05+02:00"`: 200, `1760000000000000`: 200, `"yesterday"`: 400} {
		if r := w.ingest(envelope(`{"event_timestamp":` + value + `}`)); r.status != want {
			t.Errorf("%s: got %d %s, want %d", value, r.status, r.body, want)
		}
	}
}

func TestIngestHeadersAndSizes(t *testing.T) {
	w := start(t, emulator.Config{MaxRequestBytes: 1000})
	row := `{"message_id":"a"}`
	post := func(body string, header ...string) response {
		return w.do("POST", emulator.IngestPath, "", body, append([]string{"Authorization", w.bearer()}, header...)...)
	}
	var packed, bomb, noise bytes.Buffer
	random := make([]byte, 4000) // does not shrink
	if _, err := rand.NewChaCha8([32]byte{}).Read(random); err != nil {
		t.Fatal(err)
	}
	for _, z := range []struct {
		to   *bytes.Buffer
		text string
	}{{&packed, envelope(row)}, {&bomb, strings.Repeat(" ", 1<<20)}, {&noise, string(random)}} {
		zw := gzip.NewWriter(z.to)
		if _, err := zw.Write([]byte(z.text)); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
	}
	const ct, ce, js = "Content-Type", "Content-Encoding", "application/json; charset=utf-8"
	if r := post(envelope(row), ct, js, "X-Request-Id", "request 1"); r.status != 200 || r.header.Get("X-Request-Id") != "request1" {
		t.Errorf("plain: got %d %s with id %q", r.status, r.body, r.header.Get("X-Request-Id"))
	}
	if got := w.Table(stream).Newest(1)[0].RequestID; got != "request1" {
		t.Errorf("request id of the row: got %q, want request1", got)
	}
	if r := post(packed.String(), ct, js, ce, "gzip"); r.status != 200 {
		t.Errorf("gzip: got %d %s, want 200", r.status, r.body)
	}
	post(packed.String()[:20], ct, js, ce, "gzip").wantError(t, 400, "INVALID_PARAMETER_VALUE", "cannot be read")
	post("{}", ct, js, ce, "gzip").wantError(t, 400, "INVALID_PARAMETER_VALUE", "cannot be read")
	post("{}", ct, js, ce, "br").wantError(t, 415, "INVALID_PARAMETER_VALUE", "gzip")
	post(envelope(row), ct, "text/plain").wantError(t, 400, "INVALID_PARAMETER_VALUE", "application/json")
	post(envelope(row)).wantError(t, 400, "INVALID_PARAMETER_VALUE", "application/json")
	post(strings.Repeat(" ", 1001), ct, js).wantError(t, 413, "REQUEST_TOO_LARGE", "1000 bytes")
	post(bomb.String(), ct, js, ce, "gzip").wantError(t, 413, "REQUEST_TOO_LARGE", "1000 bytes")
	post(noise.String(), ct, js, ce, "gzip").wantError(t, 413, "REQUEST_TOO_LARGE", "1000 bytes")
	post(strings.Repeat(" ", 5<<20), ct, js).wantError(t, 413, "REQUEST_TOO_LARGE", "1000 bytes")
	if r := post(envelope(row)+strings.Repeat(" ", 1000-len(envelope(row))), ct, js); r.status != 200 {
		t.Errorf("exactly the limit: got %d %s, want 200", r.status, r.body)
	}
	if r := w.do("GET", emulator.IngestPath, "", ""); r.status != 405 && r.status != 404 {
		t.Errorf("GET ingest: got %d, want a refusal", r.status)
	}
	w.do("POST", "/api/2.0/other", "", "").wantError(t, 404, "ENDPOINT_NOT_FOUND", "/api/2.0/other")
}

func TestColumnChangesTakeEffectAtOnce(t *testing.T) {
	w := start(t, emulator.Config{})
	tab := w.Table(stream)
	title := envelope(`{"message_id":"a","page_title":"Home"}`)
	w.ingest(title).wantError(t, 400, "INVALID_PARAMETER_VALUE", "page_title")
	if err := tab.AddColumn(emulator.Column{Name: "page_title", Type: "string", Comment: "of page events"}); err != nil {
		t.Fatal(err)
	}
	if r := w.ingest(title); r.status != 200 {
		t.Errorf("after AddColumn: got %d %s, want 200", r.status, r.body)
	}
	if err := tab.DropColumn("page_title"); err != nil {
		t.Fatal(err)
	}
	w.ingest(title).wantError(t, 400, "INVALID_PARAMETER_VALUE", "page_title")
	for _, c := range []emulator.Column{{Name: "a b", Type: "INT"}, {Name: "x", Type: "NOPE"}, {Name: "x", Type: "INT)"}, {Name: "x", Type: "'"}, {Name: "USER_ID", Type: "STRING"}} {
		if err := tab.AddColumn(c); err == nil {
			t.Errorf("AddColumn(%+v): got no error", c)
		}
	}
	if err := tab.DropColumn("nope"); err == nil {
		t.Error("DropColumn of an unknown column: got no error")
	}
	if err := w.DropTable(stream); err != nil {
		t.Fatal(err)
	}
	w.ingest(title).wantError(t, 404, "TABLE_DOES_NOT_EXIST", stream)
	if err := w.DropTable(stream); err == nil {
		t.Error("DropTable of an unknown table: got no error")
	}
	if names, err := w.CreateTable(tab.DDL()); err != nil || len(names) != 1 {
		t.Errorf("CreateTable of the table's own DDL: got %v, %v", names, err)
	}
	if got := w.Table(stream).Count(); got != 0 {
		t.Errorf("rows of the new table: got %d, want 0", got)
	}
}

// TestAlteringUnderLoad adds and drops a column while rows that need it
// arrive: a request is judged by the columns there are when it is kept.
func TestAlteringUnderLoad(t *testing.T) {
	w := start(t, emulator.Config{})
	tab := w.Table(stream)
	w.bearer()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if r := w.ingest(envelope(`{"message_id":"a","extra":"x"}`)); r.status != 200 && r.status != 400 {
					t.Errorf("got %d %s, want 200 or 400", r.status, r.body)
				}
			}
		})
	}
	for range 200 {
		if err := tab.AddColumn(emulator.Column{Name: "extra", Type: "STRING"}); err != nil {
			t.Error(err)
		}
		if err := tab.DropColumn("extra"); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if got, want := tab.Count(), int(w.Stats().Responses["ingest"]["200"]); got != want {
		t.Errorf("rows: got %d, want one per acknowledged request, %d", got, want)
	}
}

func TestRingKeepsTheNewestAndCountsAll(t *testing.T) {
	w := start(t, emulator.Config{MaxRows: 5})
	for i := range 4 {
		var rows []string
		for j := range 3 {
			rows = append(rows, fmt.Sprintf(`{"message_id":"m%d"}`, (3*i+j)%10))
		}
		w.ingest(envelope(rows...))
	}
	tab := w.Table(stream)
	if got := [...]int{tab.Count(), tab.Distinct("message_id"), len(tab.Duplicates("message_id"))}; got != [...]int{12, 10, 2} {
		t.Errorf("count, distinct, duplicates: got %v, want 12 10 2", got)
	}
	var got []string
	for _, r := range tab.Rows(nil) {
		got = append(got, fmt.Sprint(r.Seq, string(r.JSON)))
	}
	if want := `8{"message_id":"m7"} 9{"message_id":"m8"} 10{"message_id":"m9"} 11{"message_id":"m0"} 12{"message_id":"m1"}`; strings.Join(got, " ") != want {
		t.Errorf("rows kept: got %v, want %s", got, want)
	}
	if got := tab.Newest(1); len(got) != 1 || got[0].Seq != 12 {
		t.Errorf("newest: got %+v, want row 12", got)
	}
	some := tab.Rows(func(r emulator.Row) bool { v, _ := r.Value("message_id"); return v == "m9" })
	if len(some) != 1 || some[0].Seq != 10 {
		t.Errorf("rows by message_id: got %+v, want row 10", some)
	}
}

func TestIDsAreComparedAsText(t *testing.T) {
	w := start(t, emulator.Config{})
	w.ingest(envelope(`{"message_id":"a"}`, `{"message_id":"\u0061"}`, `{"message_id":null}`, `{}`, `{"message_id":""}`, `{"message_id":"a"}`))
	tab := w.Table(stream)
	if got := tab.Distinct("message_id"); got != 2 {
		t.Errorf("distinct: got %d, want a and the empty text", got)
	}
	if got := fmt.Sprint(tab.Duplicates("message_id")); got != "[{a 3}]" {
		t.Errorf("duplicates: got %s, want a three times", got)
	}
}

func TestIngestStoresRowsAndReturnsTheirNumber(t *testing.T) {
	w := start(t, emulator.Config{})
	r := w.ingest(envelope(`{"message_id":"a","event_name":"page_viewed","event_timestamp":1760000000000000}`, `{"message_id":"b","user_id":null}`))
	if r.status != 200 || r.body != `{"records_ingested":2}` {
		t.Fatalf("got %d %s, want 200 with 2 records", r.status, r.body)
	}
	r = w.ingest(envelope(`{"message_id":"a"}`))
	if r.status != 200 {
		t.Fatalf("got %d %s, want 200", r.status, r.body)
	}
	tab := w.Table(stream)
	if got := [...]int{tab.Count(), tab.Distinct("message_id"), tab.Distinct("event_name")}; got != [...]int{3, 2, 1} {
		t.Errorf("count, distinct ids, distinct names: got %v, want 3 2 1", got)
	}
	if got := tab.Duplicates("message_id"); len(got) != 1 || got[0] != (emulator.Duplicate{Value: "a", Count: 2}) {
		t.Errorf("duplicates: got %v, want a twice", got)
	}
	newest := tab.Newest(2)
	if len(newest) != 2 || newest[0].Seq != 3 || string(newest[1].JSON) != `{"message_id":"b","user_id":null}` {
		t.Errorf("newest: got %+v", newest)
	}
	if got := w.ingest(envelope()); got.status != 200 || got.body != `{"records_ingested":0}` {
		t.Errorf("no records: got %d %s, want 200 with 0", got.status, got.body)
	}
}
