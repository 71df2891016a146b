package mapping_test

import (
	"strings"
	"testing"

	"github.com/datafly/bridge/mapping"
)

// A type of the table comes out in one spelling, whatever it is written like,
// and a blueprint may write it in another.
func TestTypeText(t *testing.T) {
	for _, tc := range []struct{ table, blueprint, want string }{
		{" decimal( 12 , 2 ) ", "DECIMAL(12,2)", "DECIMAL(12,2)"},
		{"numeric", "DEC(10)", "DECIMAL(10,0)"},
		{"varchar( 5 )", "STRING", "VARCHAR(5)"},
		{"Integer", "INT", "INT"},
		{"map< date , array<long> >", "MAP<DATE,ARRAY<BIGINT>>", "MAP<DATE,ARRAY<BIGINT>>"},
		{"struct<Id:bigint,`When`:timestamp_ntz>", "STRUCT<id BIGINT, when TIMESTAMP_NTZ>", "STRUCT<Id:BIGINT,When:TIMESTAMP_NTZ>"},
		{`STRUCT<a: INT NOT NULL COMMENT 'it\'s, or: not>', b: STRING COMMENT "x">`, "STRUCT<a:INT,b:STRING>", "STRUCT<a:INT NOT NULL,b:STRING>"},
		{"struct<not:int,comment:array<struct<null:string>>>", "", "STRUCT<not:INT,comment:ARRAY<STRUCT<null:STRING>>>"},
	} {
		item := "{source: v, target: v}"
		if tc.blueprint != "" {
			item = "{source: v, target: v, type: '" + tc.blueprint + "'}"
		}
		m := mustCompile(t, "version: 2\nglobal: {mappings: ["+item+"]}\n", mapping.Options{Table: []mapping.Column{{Name: "v", Type: tc.table}}})
		if got := m.Columns()[0].Type; got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.table, got, tc.want)
		}
	}
}

func TestTypesThatDiffer(t *testing.T) {
	for _, tc := range [][2]string{{"INT", "BIGINT"}, {"DECIMAL(10,2)", "DECIMAL(10,3)"}, {"ARRAY<INT>", "ARRAY<STRING>"}, {"MAP<STRING,INT>", "MAP<INT,INT>"},
		{"STRUCT<a:INT>", "STRUCT<b:INT>"}, {"STRUCT<a:INT>", "STRUCT<a:DATE>"}, {"STRUCT<a:INT,b:INT>", "STRUCT<b:INT,a:INT>"}} {
		b, err := mapping.Parse("t.yaml", []byte("version: 2\nglobal: {mappings: [{source: v, target: v, type: '"+tc[0]+"'}]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = b.Compile(mapping.Options{Table: []mapping.Column{{Name: "v", Type: tc[1]}}}); err == nil || !strings.Contains(err.Error(), "write type: "+tc[1]) {
			t.Errorf("%s for %s: got %v, want the table's type named", tc[0], tc[1], err)
		}
	}
}

// FuzzTypes holds the reader of types to not panicking, and to reading again
// what it writes.
func FuzzTypes(f *testing.F) {
	for _, s := range []string{"STRING", "decimal(10, 2)", "DEC", "numeric(3)", "varchar(5)", "char( 2 )", "array<struct<a:int,b:map<string,double>>>", "STRUCT<`a`: STRING NOT NULL COMMENT 'it\\'s', b INT>", "map<date , array<binary>>",
		"STRUCT<>", "ARRAY<", "MAP<STRING>", "INT>", "STRUCT<a:INT,A:INT>", "(", "DECIMAL(", "STRUCT<a:INT COMMENT 'x>", strings.Repeat("ARRAY<", 20) + "INT" + strings.Repeat(">", 20), "STRUCT<not:INT NOT NULL NOT NULL>", "STRUCT<comment:INT>", ""} {
		f.Add(s)
	}
	b, err := mapping.Parse("t.yaml", []byte("version: 2\nglobal: {mappings: [{source: v, target: v}]}\n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read := func(typ string) (string, error) {
			m, err := b.Compile(mapping.Options{Table: []mapping.Column{{Name: "v", Type: typ, Number: 1}}})
			if err != nil {
				return "", err
			}
			return m.Columns()[0].Type, nil
		}
		typ, err := read(text)
		if err != nil {
			if !strings.Contains(err.Error(), "type ") || len(err.Error()) > 600 {
				t.Fatalf("%q: got %q, want the type named", text, err)
			}
			return
		}
		again, err := read(typ)
		if err != nil || again != typ {
			t.Fatalf("%q: read as %q, which is read as %q, %v", text, typ, again, err)
		}
		m, err := b.Compile(mapping.Options{Format: "protobuf", Table: []mapping.Column{{Name: "v", Type: typ, Number: 1}}})
		if err != nil {
			if !strings.Contains(err.Error(), "protobuf cannot hold") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if strings.Contains(typ, "_") || strings.Contains(typ, "Struct") || strings.Contains(typ, "Entry") {
			return // names the test's descriptor may give twice
		}
		descriptor(t, m.Columns())
	})
}
