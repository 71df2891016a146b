package zerobus_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
)

const tableDocument = `{"name":"stream","table_type":"MANAGED","columns":[
 {"name":"amount","position":2,"nullable":true,"type_name":"DECIMAL","type_text":"decimal(10,2)","type_precision":10,"type_scale":2},
 {"name":"message_id","position":0,"nullable":false,"type_name":"STRING","type_text":"string","type_json":"{}"},
 {"name":"at","position":1,"type_name":"TIMESTAMP"},
 {"name":"ctx","position":3,"type_name":"STRUCT","type_text":"struct<ipAddr:string, geo:map<string, array<int>>>"}]}`

func TestColumns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		b.space.columns = tableDocument
		var path string
		b.space.onColumns = func(_ http.ResponseWriter, r *http.Request) bool { path = r.URL.EscapedPath(); return false }
		got, err := b.Columns(t.Context())
		if err != nil {
			t.Fatalf("Columns: %v", err)
		}
		want := []zerobus.Column{
			{Name: "message_id", Type: "STRING", NotNull: true, Position: 0},
			{Name: "at", Type: "TIMESTAMP", Position: 1},
			{Name: "amount", Type: "DECIMAL(10,2)", Position: 2},
			{Name: "ctx", Type: "STRUCT<ipAddr:STRING,geo:MAP<STRING,ARRAY<INT>>>", Position: 3},
		}
		if !slices.Equal(got, want) {
			t.Errorf("Columns = %+v, want %+v", got, want)
		}
		if want := "/api/2.1/unity-catalog/tables/datafly.events.stream"; path != want {
			t.Errorf("asked %s, want %s", path, want)
		}
	})
}

func TestColumnsErrors(t *testing.T) {
	for _, tt := range []struct {
		name       string
		status     int
		body, want string
		unreadable bool
		permanent  bool
		requests   int
	}{
		{"not allowed", 403, `{"error_code":"PERMISSION_DENIED","message":"no SELECT"}`, "GRANT SELECT", true, false, 1},
		{"no such table", 404, `{"error_code":"TABLE_DOES_NOT_EXIST"}`, "there is no table datafly.events.stream, or service principal", true, false, 1},
		{"token refused twice", 401, ``, "may not read", true, false, 2},
		{"a view", 200, `{"table_type":"VIEW","columns":[]}`, "is of the kind VIEW, and Zerobus does not write to it; set zerobus.table to a managed Delta table", false, true, 1},
		{"a managed table in Iceberg format", 200, `{"table_type":"MANAGED","data_source_format":"ICEBERG","columns":[{"name":"a","type_text":"string"}]}`, "is of the kind ICEBERG", false, true, 1},
		{"no columns", 200, `{"columns":[]}`, "lists no columns", false, false, 3},
		{"nameless", 200, `{"columns":[{"type_text":"string"}]}`, "without name or type", false, false, 3},
		{"html", 200, `<html>`, "not of the workspace's form", false, false, 3},
		{"null", 200, `null`, "not of the workspace's form", false, false, 3},
		{"too long", 200, `{"x":"` + strings.Repeat("y", 4<<20) + `"}`, "over 4194304 bytes", false, false, 3},
		{"busy", 503, ``, "HTTP 503", false, false, 3},
		{"elsewhere", 307, ``, "redirects", false, true, 1},
		{"bad request", 400, ``, "HTTP 400", false, true, 1},
		{"names that differ in case", 200, `{"columns":[{"name":"event_name","type_text":"string"},{"name":"EVENT_NAME","position":1,"type_text":"bigint"}]}`,
			`column "event_name" (STRING) at position 0 and column "EVENT_NAME" (BIGINT) at position 1`, false, true, 1},
		{"a name with two types", 200, `{"columns":[{"name":"a","type_text":"string"},{"name":"a","type_text":"bigint"}]}`, `rename or drop column "a" or "a"`, false, true, 1},
		{"a name at two positions", 200, `{"columns":[{"name":"a","type_text":"string"},{"name":"a","position":1,"type_text":"string"}]}`, `column "a" (STRING) at position 1`, false, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				requests := 0
				b.space.onColumns = func(w http.ResponseWriter, _ *http.Request) bool {
					requests++
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(tt.status)
					w.Write([]byte(tt.body))
					return true
				}
				_, err := b.Columns(t.Context())
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("Columns: %v, want it to hold %q", err, tt.want)
				}
				var hidden *zerobus.ColumnsUnreadable
				if got := errors.As(err, &hidden); got != tt.unreadable {
					t.Errorf("unreadable is %v, want %v: %v", got, tt.unreadable, err)
				}
				if got := zerobus.IsPermanent(err); got != tt.permanent {
					t.Errorf("IsPermanent is %v, want %v: %v", got, tt.permanent, err)
				}
				if requests != tt.requests {
					t.Errorf("%d requests, want %d", requests, tt.requests)
				}
			})
		})
	}
}

// A column that is listed again word for word is one column.
func TestRepeatedColumnsAreOne(t *testing.T) {
	cols, err := zerobus.DecodeColumns([]byte(`{"columns":[{"name":"a","type_text":"string"},{"name":"b","position":1,"type_text":"int"},{"name":"a","type_text":"string"}]}`))
	want := []zerobus.Column{{Name: "a", Type: "STRING"}, {Name: "b", Type: "INT", Position: 1}}
	if err != nil || !slices.Equal(cols, want) {
		t.Errorf("got %v %v, want %v", cols, err, want)
	}
}

func TestCheckColumns(t *testing.T) {
	col := func(name, delta string) zerobus.Column { return zerobus.Column{Name: name, Type: delta} }
	table := `{"columns":[{"name":"s","type_text":"varchar(20)"},{"name":"i","position":1,"type_text":"int"},` +
		`{"name":"f","position":2,"type_text":"double"},{"name":"t","position":3,"type_text":"timestamp_ntz"},` +
		`{"name":"d","position":4,"type_text":"decimal(38,9)"},{"name":"Mixed","position":5,"type_text":"string"},` +
		`{"name":"a","position":6,"type_text":"array<string>"}]}`
	for _, tt := range []struct {
		name   string
		expect []zerobus.Column
		table  string
		want   []string // in the error; none: it fits
	}{
		{"fits", []zerobus.Column{col("s", "STRING"), col("i", "BIGINT"), col("f", "FLOAT"), col("t", "TIMESTAMP"), col("d", "DECIMAL(10,2)"), col("a", "array<STRING>")}, table, nil},
		{"integers suit floating columns", []zerobus.Column{col("f", "INT")}, table, nil},
		{"nothing expected", nil, table, nil},
		{"missing", []zerobus.Column{col("s", "STRING"), col("page_title", "STRING"), col("we`ird", "BIGINT")}, table,
			[]string{`no column "page_title" (STRING)`, "ALTER TABLE `datafly`.`events`.`stream` ADD COLUMNS (`page_title` STRING, `we``ird` BIGINT);"}},
		{"spelt otherwise", []zerobus.Column{col("mixed", "STRING")}, table, []string{`only "Mixed", and names must match exactly`, `target "mixed" to "Mixed"`}},
		{"other type", []zerobus.Column{col("t", "STRING")}, table, []string{`column "t" is TIMESTAMP_NTZ, rows carry STRING`, "set type: TIMESTAMP_NTZ"}},
		{"element type", []zerobus.Column{col("a", "ARRAY<INT>")}, table, []string{`column "a" is ARRAY<STRING>, rows carry ARRAY<INT>`}},
		{"floats do not suit integers", []zerobus.Column{col("i", "DOUBLE")}, table, []string{`column "i" is INT, rows carry DOUBLE`}},
		{"required", []zerobus.Column{col("s", "STRING")}, `{"columns":[{"name":"s","type_text":"string","nullable":false},{"name":"k","type_text":"bigint","nullable":false}]}`,
			[]string{`"k" (BIGINT) is NOT NULL`, "ALTER COLUMN `k` DROP NOT NULL;"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				b.space.columns = tt.table
				b.SetRowColumns(tt.expect)
				err := b.CheckColumns(t.Context())
				var mismatch *zerobus.SchemaError
				if got := errors.As(err, &mismatch); got != (tt.want != nil) || !got && err != nil {
					t.Fatalf("CheckColumns: %v, want a mismatch: %v", err, tt.want != nil)
				}
				if mismatch == nil {
					return
				}
				if !zerobus.IsPermanent(err) {
					t.Errorf("IsPermanent is false, want true: %v", err)
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error is %q, want it to hold %q", err, want)
					}
				}
			})
		})
	}
}

func TestPreflight(t *testing.T) {
	refuseIngest := func(status int, code string) func(*workspace) {
		return func(s *workspace) { s.onIngest = answers(slices.Repeat([]int{status}, 9)...) }
	}
	for _, tt := range []struct {
		name      string
		change    func(*workspace)
		want      string
		permanent bool
	}{
		{"all well", func(*workspace) {}, "", false},
		{"an empty batch is refused", refuseIngest(400, "X"), "", false},
		{"columns hidden", func(s *workspace) {
			s.onColumns = func(w http.ResponseWriter, _ *http.Request) bool { return fail(w, 403, "PERMISSION_DENIED", "no") }
		}, "", false},
		{"wrong secret", func(s *workspace) { s.secret = secretTwo }, "HTTP 401 invalid_client", true},
		{"no grant", refuseIngest(403, "X"), "HTTP 403", true},
		{"no table", refuseIngest(404, "X"), "HTTP 404", true},
		{"not supported", refuseIngest(501, "X"), "HTTP 501", true},
		{"token refused", refuseIngest(401, "X"), "HTTP 401", true},
		{"busy", refuseIngest(503, "X"), "HTTP 503", false},
		{"columns do not fit", func(s *workspace) { s.columns = `{"columns":[{"name":"n","type_text":"bigint"}]}` }, "ADD COLUMNS (`message_id` STRING)", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				b.SetRowColumns(rowColumns)
				tt.change(b.space)
				err := b.Preflight(t.Context())
				if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("Preflight: %v, want it to hold %q", err, tt.want)
				}
				if got := zerobus.IsPermanent(err); got != tt.permanent {
					t.Errorf("IsPermanent is %v, want %v: %v", got, tt.permanent, err)
				}
				if err := b.Preflight(t.Context()); err == nil && tt.name == "columns hidden" {
					if got := strings.Count(text(t, b.logs), "not checked"); got != 1 {
						t.Errorf("%d lines about hidden columns after two preflights, want 1", got)
					}
				}
				if got := b.space.stored(); len(got) != 0 {
					t.Errorf("preflight wrote %d rows, want none", len(got))
				}
			})
		})
	}
}

func TestStatements(t *testing.T) {
	table := zerobus.TableName{Catalog: "data`fly", Schema: "events", Table: "stream"}
	got := zerobus.DDL(table, []zerobus.Column{{Name: "message_id", Type: "STRING", NotNull: true}, {Name: "at", Type: "TIMESTAMP"}}, "p-1")
	want := "CREATE CATALOG IF NOT EXISTS `data``fly`;\n" +
		"CREATE SCHEMA IF NOT EXISTS `data``fly`.`events`;\n" +
		"CREATE TABLE IF NOT EXISTS `data``fly`.`events`.`stream` (\n  `message_id` STRING NOT NULL,\n  `at` TIMESTAMP\n) USING DELTA;\n\n" +
		"GRANT USE CATALOG ON CATALOG `data``fly` TO `p-1`;\n" +
		"GRANT USE SCHEMA ON SCHEMA `data``fly`.`events` TO `p-1`;\n" +
		"GRANT SELECT, MODIFY ON TABLE `data``fly`.`events`.`stream` TO `p-1`;\n"
	if got != want {
		t.Errorf("DDL is\n%s\nwant\n%s", got, want)
	}
	want = "CREATE OR REPLACE VIEW `data``fly`.`events`.`stream_deduplicated` AS\nSELECT * FROM `data``fly`.`events`.`stream`\n" +
		"QUALIFY message_id IS NULL\n  OR ROW_NUMBER() OVER (PARTITION BY message_id ORDER BY event_timestamp) = 1;\n"
	if got := zerobus.DedupeView(table); got != want {
		t.Errorf("DedupeView is\n%s\nwant\n%s", got, want)
	}
}

func FuzzDecodeColumns(f *testing.F) {
	f.Add([]byte(tableDocument))
	f.Add([]byte(`{"columns":[{"name":"a","type_text":"struct<a:struct<>,:>,"}]}`))
	f.Add([]byte(`{"columns":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		cols, err := zerobus.DecodeColumns(body)
		if (err == nil) == (len(cols) == 0) {
			t.Errorf("DecodeColumns(%q): %d columns and error %v, want exactly one of the two", body, len(cols), err)
		}
		seen := map[string]bool{}
		for _, c := range cols {
			if c.Name == "" {
				t.Errorf("DecodeColumns(%q): a column without a name", body)
			}
			if key := strings.ToLower(c.Name); seen[key] {
				t.Errorf("DecodeColumns(%q): two columns are %q", body, key)
			} else {
				seen[key] = true
			}
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add([]byte(`{"error_code":"X","message":"column 'a'","details":[{"metadata":{"column":"b"}}]}`))
	f.Add([]byte(`{"error_code":403,"message":7}`))
	f.Add([]byte(`{"error_code":null,"details":{}}`))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		code, message, column := zerobus.DecodeAnswer(body)
		for _, s := range []string{code, message, column} {
			if len(s) > 500 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("DecodeAnswer(%q) lets %q through, want one short line", body, s)
			}
		}
	})
}

// FuzzConfirm reads a confirmation from any bytes. What passes for one is one
// JSON object that names no error, and its count of rows is the one asked for.
func FuzzConfirm(f *testing.F) {
	for _, body := range []string{`{"records_ingested":3}`, `{"records_ingested":3e0}`, `null`, `{}`, "", " \n", `{"records_ingested":null}`, `{"records_ingested":3}{}`,
		`{"error_code":"PERMISSION_DENIED"}`, `{"records_ingested":3,"records_ingested":4}`, `{"records_ingested":3,"Records_Ingested":0}`,
		`{"status":"OK","records_ingested":"3"}`, `{"error":{"code":403,"status":"PERMISSION_DENIED"}}`, "{\"\xff\":1}"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		counted, uncounted := zerobus.Confirm(body, 3, true), zerobus.Confirm(body, 3, false)
		if counted == nil && uncounted != nil {
			t.Errorf("Confirm(%q) holds with a count and not without", body)
		}
		if uncounted != nil {
			return
		}
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(body, &doc); err != nil || doc == nil {
			t.Fatalf("Confirm(%q) holds for what is no object: %v", body, err)
		}
		count, there := doc["records_ingested"]
		if there && string(count) != "3" && string(count) != `"3"` && !strings.Contains(string(count), `\u`) {
			t.Errorf("Confirm(%q) holds for 3 rows with the count %s", body, count)
		}
		if there && zerobus.Confirm(body, 4, false) == nil {
			t.Errorf("Confirm(%q) holds for 3 and for 4 rows", body)
		}
		if there != (counted == nil) {
			t.Errorf("Confirm(%q) with a count demanded: %v", body, counted)
		}
		for name := range doc {
			if strings.EqualFold(name, "error") || strings.EqualFold(name, "error_code") || strings.EqualFold(name, "errorCode") {
				t.Errorf("Confirm(%q) holds in spite of %s", body, name)
			}
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("7")
	f.Add("-1")
	f.Add("99999999999999999999")
	f.Add("Wed, 21 Oct 2099 07:28:00 GMT")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, header string) {
		if got := zerobus.ParseRetryAfter(header, now); got < 0 || got > 10*time.Minute {
			t.Errorf("Retry-After %q is %v, want 0 to 10 minutes", header, got)
		}
	})
}

// Columns that are ambiguous in mid-run are a fault of configuration: no row is
// given up for them, however long it lasts.
func TestAmbiguousColumnsGiveUpNoRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		b.SetRowColumns(rowColumns)
		write(t, b, rows(1))
		whole := b.space.columns
		var wrong atomic.Bool
		wrong.Store(true)
		b.space.set(func() {
			b.space.columns = `{"columns":[{"name":"message_id","type_text":"string"},{"name":"n","position":1,"type_text":"bigint"},{"name":"N","position":2,"type_text":"string"}]}`
			b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, rows []json.RawMessage) bool {
				return wrong.Load() && fail(w, 400, "INVALID_PARAMETER_VALUE", "unrecognized field name 'n'")
			}
		})
		start := time.Now()
		done := inBackground(t.Context(), b, rows(1))
		after(10 * time.Minute)
		select {
		case err := <-done:
			t.Fatalf("after at most %v: %v, want it to wait", time.Since(start), err)
		default:
		}
		b.space.set(func() { b.space.columns = whole })
		wrong.Store(false)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
