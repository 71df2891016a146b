package emulator_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

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
