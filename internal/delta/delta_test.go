package delta_test

import (
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/delta"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		" decimal( 12 , 2 ) ": "DECIMAL(12,2)", "numeric": "DECIMAL(10,0)", "varchar( 5 )": "VARCHAR(5)", "char(3)": "CHAR(3)", "Integer": "INT",
		"timestamp_ltz": "TIMESTAMP", "void": "VOID", "interval day to second": "INTERVAL DAY TO SECOND", "geography(4326)": "GEOGRAPHY(4326)",
		"map< date , array<long> >": "MAP<DATE,ARRAY<BIGINT>>",
		"struct<Id:bigint,`When at`:timestamp_ntz NOT NULL, c interval day not null comment 'x'>": "STRUCT<Id:BIGINT,`When at`:TIMESTAMP_NTZ NOT NULL,c:INTERVAL DAY NOT NULL>",
		"": "", "INT>": "", "INT x": "", "ARRAY<": "", "MAP<STRING>": "", "STRUCT<>": "", "STRUCT<`a:INT>": "", "DECIMAL(39,1)": "", "DECIMAL(a)": "", "DECIMAL(": "", "VARCHAR": "",
		strings.Repeat("ARRAY<", 200) + "INT" + strings.Repeat(">", 200): "",
	} {
		got, err := delta.Parse(text)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "type ") || len(err.Error()) > 400 {
				t.Errorf("%.80q: got %v, %v, want an error that names the type", text, got, err)
			}
			continue
		}
		if err != nil || got.String() != want {
			t.Errorf("%q: got %v, %v, want %s", text, got, err, want)
		}
	}
}

func TestFromJSON(t *testing.T) {
	for doc, want := range map[string]string{
		`"long"`: "BIGINT", `{"name":"c","type":"short"}`: "SMALLINT", `"decimal(5,1)"`: "DECIMAL(5,1)",
		`{"name":"tags","type":{"type":"array","elementType":"string","containsNull":true},"nullable":true,"metadata":{}}`:                                    "ARRAY<STRING>",
		`{"type":"map","keyType":"string","valueType":{"type":"struct","fields":[{"name":"a b","type":"byte","nullable":false},{"name":"c","type":"date"}]}}`: "MAP<STRING,STRUCT<`a b`:TINYINT NOT NULL,c:DATE>>",
		`[]`: "", `{}`: "", `""`: "", `{"type":"struct","fields":[]}`: "", `{"type":"struct","fields":[{"name":"a` + "`" + `","type":"int"}]}`: "",
		strings.Repeat(`{"type":"array","elementType":`, 200) + `"int"` + strings.Repeat("}", 200): "",
	} {
		got, err := delta.FromJSON([]byte(doc))
		switch {
		case want == "" && err == nil:
			t.Errorf("%.80s: got %v, want an error", doc, got)
		case want != "" && (err != nil || got.String() != want):
			t.Errorf("%s: got %v, %v, want %s", doc, got, err, want)
		}
	}
}

func TestSame(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"varchar(5)", "string", true}, {"int", "integer", true}, {"int", "bigint", false}, {"decimal(10,2)", "decimal(10,3)", false},
		{"array<int>", "array<string>", false}, {"map<string,int>", "map<int,int>", false}, {"void", "geography", false}, {"void", "VOID", true},
		{"struct<a:int not null>", "struct<A:int>", true}, {"struct<a:int,b:int>", "struct<b:int,a:int>", false}, {"struct<a:int>", "struct<a:int,b:int>", false},
	} {
		a, err1 := delta.Parse(tc.a)
		b, err2 := delta.Parse(tc.b)
		if err1 != nil || err2 != nil || a.Same(b) != tc.want {
			t.Errorf("%s, %s: want the same %v (%v, %v)", tc.a, tc.b, tc.want, err1, err2)
		}
	}
}
