package emulator_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus/emulator"
)

const rescueDDL = "CREATE TABLE a.b.c (message_id STRING, device STRING NOT NULL, temp INT, st STRUCT<x: INT>, rescue VARIANT, must VARIANT NOT NULL)"

// rescuing is an endpoint whose table has a rescue column.
func rescuing(t *testing.T) *endpoint {
	t.Helper()
	z := startZerobus(t, emulator.Config{DDL: rescueDDL})
	for _, column := range []string{"rescue", "must", "device"} { // the other two can be none
		if r := z.admin("PUT", "tables/a.b.c/columns/"+column+"/tags", `{"tags":["team","zerobus-rescue"]}`); r.status/100 != 2 {
			t.Fatalf("tag %s: got %d %s", column, r.status, r.body)
		}
	}
	return z
}

// By every way JSON rows come, what does not fit is in the rescue column.
func TestTheRescueColumnTakesWhatDoesNotFit(t *testing.T) {
	for row, want := range map[string]string{
		`{"device":"s","must":"1"}`:                             `{"device":"s","must":"1"}`,
		`{"device":"s","must":"1","temp":"72F","extra":"some"}`: `{"device":"s","must":"1","rescue":"{\"temp\":\"72F\",\"extra\":\"some\"}"}`,
		`{"extra":{"a":[1,null]},"device":"s","must":"1"}`:      `{"device":"s","must":"1","rescue":"{\"extra\":{\"a\":[1,null]}}"}`,
		`{"device":"s","st":{"x":1,"y":2},"must":"1"}`:          `{"device":"s","must":"1","rescue":"{\"st\":{\"x\":1,\"y\":2}}"}`,
		`{"device":"s","rescue":{"a":1},"must":"1"}`:            `{"device":"s","must":"1","rescue":"{\"rescue\":{\"a\":1}}"}`,
		`{"device":"s","rescue":"[1]","must":"1"}`:              `{"device":"s","rescue":"[1]","must":"1"}`,
		`{"device":"s","rescue":"[1]","must":"1","\u0065":2}`:   `{"device":"s","must":"1","rescue":"{\"e\":2}"}`,
		`{"message_id":7,"device":"s","must":"1"}`:              `{"device":"s","must":"1","rescue":"{\"message_id\":7}"}`,
	} {
		z := rescuing(t)
		if r := z.ingest(`{"table":"a.b.c","records":[` + row + `]}`); r.status != 200 {
			t.Errorf("workspace, %s: got %d %s, want it taken", row, r.status, r.body)
		}
		if r := z.insert("a.b.c", "["+row+"]"); r.status != 200 {
			t.Errorf("REST, %s: got %d %s, want it taken", row, r.status, r.body)
		}
		s := z.open(jsonCreate("a.b.c"))
		s.send(jsonBatch(0, row))
		s.ack(0)
		for _, kept := range z.Table("a.b.c").Rows(nil) {
			if got := string(kept.JSON); got != want {
				t.Errorf("%s, %s: got %s, want %s", kept.Transport, row, got, want)
			}
		}
		if got := z.Table("a.b.c").Count(); got != 3 || z.Table("a.b.c").Distinct("message_id") != 0 {
			t.Errorf("%s: got %d rows, want 3 without a message_id", row, got)
		}
	}
}

func TestWhatTheRescueColumnDoesNotTake(t *testing.T) {
	z := rescuing(t)
	for row, want := range map[string]string{
		`{"must":"1"}`:                                   "NOT NULL and missing",
		`{"device":1,"must":"1"}`:                        "string wants a string",
		`{"device":"s","must":{}}`:                       "variant wants",
		`{"device":"s","must":"1","extra":1,"extra":2}`:  "twice",
		`{"device":"s","must":"1","temp":"x","temp":1}`:  "twice",
		`{"device":"s","must":"1","extra":}`:             "invalid JSON",
		`{"device":"s","must":"1","extra" 1}`:            "invalid JSON",
		`{"device":"s","must":"1","extra":1`:             "JSON",
		`{"device":"s","must":"1","temp":"x" "extra":1}`: "invalid JSON",
	} {
		z.ingest(`{"table":"a.b.c","records":[`+row+`]}`).wantError(t, 400, "INVALID_PARAMETER_VALUE", want)
	}
	// Protobuf rows are checked by the descriptor, as without the column.
	d := descriptorOf(t, `name: "R" field { name: "extra" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }`)
	wantStatus(t, "protobuf", z.dialStream("a.b.c").refused(protoCreate(t, "a.b.c", d)), codes.InvalidArgument, "field 'extra' is not in the table")
	// Without the tag there is none.
	if err := z.Table("a.b.c").SetColumnTags("rescue"); err != nil {
		t.Fatal(err)
	}
	z.ingest(`{"table":"a.b.c","records":[{"device":"s","must":"1","extra":1}]}`).wantError(t, 400, "INVALID_PARAMETER_VALUE", "is not a column")
}

func TestColumnTags(t *testing.T) {
	z := rescuing(t)
	get := func(name string) response {
		return z.do("GET", emulator.TagsPath+name+"/tags", "", "", "Authorization", z.bearer())
	}
	r := get("A.b.c.rescue")
	list, _ := r.json(t)["tag_assignments"].([]any)
	if r.status != 200 || len(list) != 2 || !strings.Contains(r.body, `{"entity_name":"a.b.c.rescue","entity_type":"columns","tag_key":"zerobus-rescue","tag_value":""}`) {
		t.Errorf("tags: got %d %s, want two", r.status, r.body)
	}
	if r := get("a.b.c.temp"); r.status != 200 || r.body != `{"tag_assignments":[]}` {
		t.Errorf("no tags: got %d %s, want an empty list", r.status, r.body)
	}
	get("a.b.c.nope").wantError(t, 404, "NOT_FOUND", "a.b.c.nope")
	get("nope").wantError(t, 404, "TABLE_DOES_NOT_EXIST", "nope")
	z.do("GET", emulator.TagsPath+"a.b.c.temp/tags", "", "").wantError(t, 401, "UNAUTHENTICATED", "token")
	if err := z.Revoke("SELECT", "a.b.c"); err != nil {
		t.Fatal(err)
	}
	get("a.b.c.rescue").wantError(t, 403, "PERMISSION_DENIED", "SELECT")
	if r := z.admin("PUT", "tables/a.b.c/columns/nope/tags", `{"tags":[]}`); r.status != 400 || !strings.Contains(r.body, "no such column") {
		t.Errorf("tag no column: got %d %s, want 400", r.status, r.body)
	}
}

// FuzzRescuedRow: a row that the rescue column has made fit is one that fits
// without it.
func FuzzRescuedRow(f *testing.F) {
	ddl := strings.Replace(rescueDDL, ", must VARIANT NOT NULL", "", 1)
	e, post := bare(f, emulator.Config{DDL: ddl + ";" + strings.Replace(ddl, "a.b.c", "a.b.d", 1), MaxRows: 1})
	if err := e.Table("a.b.c").SetColumnTags("rescue", emulator.RescueTag); err != nil {
		f.Fatal(err)
	}
	for _, row := range []string{
		`{"device":"s","temp":"72F","\u00e9\n":[1,{"a":null}]}`, `{"device":"s","rescue":{},"st":{"x":"y"}}`, `{"device":"s","a":1,"a":2}`, `{"device":"s"}`, `{`,
	} {
		f.Add([]byte(row))
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		ingest := func(table string, row []byte) response {
			return post(emulator.IngestPath, "application/json", []byte(`{"table":"`+table+`","records":[`+string(row)+`]}`))
		}
		before := e.Table("a.b.c").Count()
		if r := ingest("a.b.c", row); r.status != 200 || e.Table("a.b.c").Count() == before {
			return
		}
		kept := e.Table("a.b.c").Newest(1)[0].JSON
		if r := ingest("a.b.d", kept); r.status != 200 {
			t.Fatalf("%q was kept as %q, which is refused without a rescue column: %d %s", row, kept, r.status, r.body)
		}
	})
}
