package emulator_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus/emulator"
)

func TestOnRowsGetsStoredRowsOnly(t *testing.T) {
	z := startZerobus(t, emulator.Config{AckEvery: 1})
	var got []string
	z.Table(stream).OnRows(func(rows []emulator.Row) {
		for _, r := range rows {
			got = append(got, fmt.Sprint(r.Seq, " ", r.Transport, " ", string(r.JSON)))
		}
	})
	p := z.open(protoCreate(t, stream, pageDescriptor()))
	p.send(protoBatch(0, encode(t, resolve(t, pageDescriptor()), `{"event_name":"x"}`)))
	p.ack(0)
	if r := z.insert(stream, `[{"event_name":"y"},{"event_name":"z"}]`); r.status != 200 {
		t.Errorf("insert: got %d %s", r.status, r.body)
	}
	if r := z.insert(stream, `[{"event_name":"y"},{"no_such_column":1}]`); r.status != 400 {
		t.Errorf("insert of a row that does not fit: got %d %s", r.status, r.body)
	}
	want := []string{`1 grpc {"event_name":"x"}`, `2 rest {"event_name":"y"}`, `3 rest {"event_name":"z"}`}
	if !slices.Equal(got, want) {
		t.Errorf("hook: got %q, want %q", got, want)
	}
	z.Table(stream).OnRows(nil)
	if r := z.insert(stream, `[{"event_name":"y"}]`); r.status != 200 || len(got) != 3 {
		t.Errorf("after the hook was removed: got %d %s and %d rows at the hook, want 3", r.status, r.body, len(got))
	}
}

func TestNoIndexCountsKeptRows(t *testing.T) {
	w := start(t, emulator.Config{MaxRows: 2, NoIndex: true})
	w.bearer()
	for _, id := range []string{"a", "b", "c", "c"} {
		if r := w.ingest(envelope(fmt.Sprintf(`{"message_id":%q}`, id))); r.status != 200 {
			t.Fatalf("ingest: got %d %s", r.status, r.body)
		}
	}
	table := w.Table(stream)
	if got := table.Distinct("message_id"); got != 1 {
		t.Errorf("distinct ids of the two rows kept: got %d, want 1", got)
	}
	if d := table.Duplicates("message_id"); len(d) != 1 || d[0].Value != "c" {
		t.Errorf("duplicates: got %+v, want c alone", d)
	}
	if got := table.Count(); got != 4 {
		t.Errorf("rows: got %d, want 4", got)
	}
}

// The index of message ids is bounded: beyond it the answers cover the rows kept, and a
// cleared table has an index again.
func TestMaxIDsBoundsTheIndex(t *testing.T) {
	w := start(t, emulator.Config{MaxRows: 2, MaxIDs: 3})
	w.bearer()
	table := w.Table(stream)
	write := func(ids ...string) {
		t.Helper()
		for _, id := range ids {
			if r := w.ingest(envelope(fmt.Sprintf(`{"message_id":%q}`, id))); r.status != 200 {
				t.Fatalf("ingest: got %d %s", r.status, r.body)
			}
		}
	}
	write("a", "b", "a", "c")
	if got, d := table.Distinct("message_id"), table.Duplicates("message_id"); got != 3 || len(d) != 1 {
		t.Errorf("up to the bound: got %d distinct ids and %+v, want 3 and one duplicate", got, d)
	}
	write("d", "e")
	if got, d := table.Distinct("message_id"), table.Duplicates("message_id"); got != 2 || len(d) != 0 {
		t.Errorf("beyond it: got %d distinct ids and %+v, want the 2 kept", got, d)
	}
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	if write("f", "g", "h"); table.Distinct("message_id") != 3 {
		t.Errorf("after a reset: got %d distinct ids, want 3", table.Distinct("message_id"))
	}
}

func TestAgedTokensEndEarly(t *testing.T) {
	w := start(t, emulator.Config{TokenLifetime: time.Hour})
	w.bearer()
	w.AgeTokens(59 * time.Minute)
	if r := w.ingest(envelope()); r.status != 200 {
		t.Errorf("a minute before the token's end: got %d %s, want 200", r.status, r.body)
	}
	w.AgeTokens(time.Minute)
	w.ingest(envelope()).wantError(t, 401, "UNAUTHENTICATED", "expired")
}

// Unity Catalog names the kind of a table, and no transport writes to a kind that
// the service does not write to.
func TestKindsOfTables(t *testing.T) {
	for _, tc := range []struct {
		kind, format string
		writable     bool
	}{
		{"MANAGED", "DELTA", true},
		{"STREAMING_TABLE", "DELTA", true},
		{"streaming_table", "", true},
		{"VIEW", "", false},
		{"MATERIALIZED_VIEW", "", false},
		{"EXTERNAL", "DELTA", false},
		{"FOREIGN", "", false},
		{"MANAGED", "ICEBERG", false},
	} {
		z := startZerobus(t, emulator.Config{DDL: "CREATE TABLE a.b.c (message_id STRING)"})
		if r := z.admin("PUT", "tables/a.b.c/kind", `{"table_type":"`+tc.kind+`","data_source_format":"`+tc.format+`"}`); r.status/100 != 2 {
			t.Fatalf("%s %s: got %d %s", tc.kind, tc.format, r.status, r.body)
		}
		want, refused := 200, ""
		if !tc.writable {
			want, refused = 400, "Unsupported table kind. Error Code: 4024"
		}
		if r := z.ingest(`{"table":"a.b.c","records":[{"message_id":"1"}]}`); r.status != want || !strings.Contains(r.body, refused) {
			t.Errorf("workspace, %s %s: got %d %s, want %d and %q", tc.kind, tc.format, r.status, r.body, want, refused)
		}
		if r := z.insert("a.b.c", `[{"message_id":"1"}]`); r.status != want || !strings.Contains(r.body, refused) {
			t.Errorf("REST, %s %s: got %d %s, want %d and %q", tc.kind, tc.format, r.status, r.body, want, refused)
		}
		if tc.writable {
			z.open(jsonCreate("a.b.c"))
		} else {
			wantStatus(t, "gRPC, "+tc.kind, z.dialStream("a.b.c").refused(jsonCreate("a.b.c")), codes.InvalidArgument, "4024")
		}
	}
	if z := startZerobus(t, emulator.Config{}); z.admin("PUT", "tables/datafly.events.stream/kind", `{"table_type":""}`).status != 400 {
		t.Error("an empty table_type was taken, want 400")
	}
}

// page is the script of the integration's page, grants included.
const page = `-- the integration's page
CREATE CATALOG IF NOT EXISTS datafly;
CREATE SCHEMA IF NOT EXISTS datafly.events COMMENT 'a; b';
/* the table
   itself */
create table if not exists datafly.events.stream (
  event_name STRING COMMENT 'it''s \'quoted\'', -- a comment, with a comma
  amount DECIMAL(10, 2) NOT NULL,
  ` + "`order`" + ` Struct<Id: BIGINT NOT NULL, tags ARRAY<MAP<STRING,INT>> COMMENT 'x'>,
  CONSTRAINT pk PRIMARY KEY (event_name, amount),
  at TIMESTAMP_NTZ
)
USING DELTA
CLUSTER BY (at) COMMENT 'all (of) them' TBLPROPERTIES ('delta.x' = 'true');
GRANT SELECT, MODIFY ON TABLE datafly.events.stream TO ` + "`00000000-0000-0000-0000-000000000000`" + `;
CREATE OR REPLACE VIEW datafly.events.once AS SELECT * FROM datafly.events.stream QUALIFY ROW_NUMBER() OVER (PARTITION BY a ORDER BY b) = 1;
CREATE TABLE Other.s.T (x INT);;`

func TestDDLOfThePage(t *testing.T) {
	e, err := emulator.New(emulator.Config{DDL: page})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(e.Tables()); got != "[datafly.events.stream other.s.t]" {
		t.Errorf("tables: got %s", got)
	}
	want := []emulator.Column{
		{Name: "event_name", Type: "STRING", Comment: "it's 'quoted'"},
		{Name: "amount", Type: "DECIMAL(10,2)", NotNull: true},
		{Name: "order", Type: "STRUCT<Id:BIGINT NOT NULL,tags:ARRAY<MAP<STRING,INT>>>"},
		{Name: "at", Type: "TIMESTAMP_NTZ"},
	}
	tab := e.Table("Datafly.EVENTS.stream")
	if got := tab.Columns(); !reflect.DeepEqual(got, want) {
		t.Errorf("columns: got %+v, want %+v", got, want)
	}
	again, err := emulator.New(emulator.Config{DDL: tab.DDL()})
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Table(stream).Columns(); !reflect.DeepEqual(got, want) {
		t.Errorf("columns of its own DDL: got %+v, want %+v", got, want)
	}
}

func TestDDLReplaces(t *testing.T) {
	e, err := emulator.New(emulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	old := e.Table(stream)
	if _, err := e.CreateTable("CREATE OR REPLACE TABLE datafly.events.stream (a INT) USING delta"); err != nil {
		t.Fatal(err)
	}
	if got := len(e.Table(stream).Columns()); got != 1 || e.Table(stream) == old {
		t.Errorf("columns of the replacement: got %d, want 1", got)
	}
}

func TestDDLErrorsNameTheLine(t *testing.T) {
	var many strings.Builder
	for i := range 2001 {
		fmt.Fprintf(&many, "c%d INT,", i)
	}
	for script, want := range map[string]string{
		"-- nothing":                                           "no CREATE TABLE",
		"\n\nDROP TABLE a.b.c":                                 `line 3: got "DROP"`,
		"CREATE INDEX i":                                       `want TABLE`,
		"CREATE TABLE t (a INT)":                               "want catalog.schema.table",
		"CREATE TABLE a.b.c.d (a INT)":                         "4 parts",
		"CREATE TABLE `a.b`.c.d (a INT)":                       "no dot",
		"CREATE TABLE a.b.c\n(a\nNOPE)":                        "line 3: type NOPE",
		"CREATE TABLE a.b.c (a INTERVAL)":                      "type INTERVAL",
		"CREATE TABLE a.b.c (a INT":                            "the end",
		"CREATE TABLE a.b.c ()":                                "want a column name",
		"CREATE TABLE a.b.c (a INT, A STRING)":                 "occurs twice",
		"CREATE TABLE a.b.c (`ä` INT)":                         "the service takes ASCII",
		"CREATE TABLE a.b.c (a INT DEFAULT 1)":                 "defaults and generated",
		"CREATE TABLE a.b.c (a INT NOT)":                       "want NULL",
		"CREATE TABLE a.b.c (a INT COMMENT x)":                 "quoted comment",
		"CREATE TABLE a.b.c (a DECIMAL(39))":                   "1 to 38",
		"CREATE TABLE a.b.c (a DECIMAL(3,4))":                  "1 to 38",
		"CREATE TABLE a.b.c (a DECIMAL(3,4,5))":                "DECIMAL(precision,scale)",
		"CREATE TABLE a.b.c (a VARCHAR)":                       "VARCHAR(length)",
		"CREATE TABLE a.b.c (a VARCHAR(0))":                    "VARCHAR(length)",
		"CREATE TABLE a.b.c (a ARRAY<INT)":                     "ARRAY is not closed",
		"CREATE TABLE a.b.c (a MAP<INT>)":                      "MAP is not closed",
		"CREATE TABLE a.b.c (a STRUCT<x: INT, x: INT>)":        "x occurs twice",
		"CREATE TABLE a.b.c (a INT) USING PARQUET":             "USING DELTA",
		"CREATE TABLE a.b.c (a INT, CONSTRAINT x CHECK (a > 0": "closing bracket",
		"CREATE TABLE a.b.c (a INT) COMMENT 'x\n":              "line 1: ' is never closed",
		"/* x":                          "never closed",
		"CREATE OR TABLE a.b.c (a INT)": "want REPLACE",
		"CREATE TABLE a.b.c (a INT); CREATE TABLE a.b.c (a INT)":                                    "exists already",
		"CREATE TABLE a.b.c (a " + strings.Repeat("ARRAY<", 200) + "INT" + strings.Repeat(">", 200): "deeper than 100",
		"CREATE TABLE a.b.c (" + strings.TrimSuffix(many.String(), ",") + ")":                       "2001 columns",
	} {
		if _, err := emulator.New(emulator.Config{DDL: script}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got %v, want an error with %q", script, err, want)
		}
	}
}

func TestInvalidConfigs(t *testing.T) {
	for want, cfg := range map[string]emulator.Config{
		"token lifetime 1ms": {TokenLifetime: 1e6},
		"max rows -1":        {MaxRows: -1},
		"latency":            {Latency: emulator.Latency{P50: -1}},
	} {
		if _, err := emulator.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v): got %v, want an error with %q", cfg, err, want)
		}
	}
}

func TestAScriptAltersItsTables(t *testing.T) {
	e, err := emulator.New(emulator.Config{DDL: "CREATE TABLE a.b.c (x STRING); ALTER TABLE a.b.c ADD COLUMN y INT;"})
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Table("a.b.c").Columns(); len(got) != 2 || got[1].Name != "y" {
		t.Errorf("got the columns %v, want x and y", got)
	}
	if _, err := e.CreateTable("ALTER TABLE a.b.c ADD COLUMN y INT"); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("a column that exists: got %v, want an error", err)
	}
}
