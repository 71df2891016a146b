package mapping_test

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/mapping"
)

// mapValue puts one JSON value through a column of a type and returns what
// stands in the row, "" for NULL, or the reject's code. The row in protobuf must
// hold the same.
func mapValue(t *testing.T, typ, extra, value string) string {
	t.Helper()
	blueprint := "version: 2\nglobal: {mappings: [{source: v, target: v, type: '" + typ + "'" + extra + "}, " + known + "]}\n"
	if typ == "" {
		blueprint = "version: 2\nglobal: {mappings: [{source: v, target: v" + extra + "}, " + known + "]}\n"
	}
	_, out := twinsOf(t, blueprint, mapping.Options{Settings: mapping.Settings{Input: "canonical"}}).check(t, []byte(`{"v":`+value+`}`))
	if len(out.codes) != 1 {
		t.Fatalf("got %d outcomes, want 1", len(out.codes))
	}
	if out.codes[0] != "row" {
		return out.codes[0]
	}
	var row struct{ V json.RawMessage }
	if err := json.Unmarshal(out.rows[0], &row); err != nil {
		t.Fatalf("row %q: %v", out.rows[0], err)
	}
	return string(row.V)
}

func TestTypes(t *testing.T) {
	const mismatch, outOfRange, badTime = mapping.CodeTypeMismatch, mapping.CodeOutOfRange, mapping.CodeBadTimestamp
	for _, tc := range []struct{ typ, value, want string }{
		{"STRING", `"a\u00e9\/"`, `"a\u00e9\/"`},
		{"STRING", `""`, `""`},
		{"STRING", `null`, ``},
		{"STRING", `12345678901234567890`, `"12345678901234567890"`},
		{"STRING", `1.10`, `"1.10"`},
		{"STRING", `false`, `"false"`},
		{"STRING", "{ \"a\" : [ 1 , \"b \\\" c\" ] }", `"{\"a\":[1,\"b \\\" c\"]}"`},
		{"VARCHAR(3)", `"äöü"`, `"äöü"`},
		{"VARCHAR(3)", `"äöüß"`, outOfRange},
		{"CHAR(2)", `123`, outOfRange},

		{"BOOLEAN", `true`, `true`},
		{"BOOLEAN", `"False"`, `false`},
		{"BOOLEAN", `"yes"`, mismatch},
		{"BOOLEAN", `1`, mismatch},
		{"BOOLEAN", `{}`, mismatch},

		{"TINYINT", `127`, `127`},
		{"TINYINT", `-128`, `-128`},
		{"TINYINT", `128`, outOfRange},
		{"TINYINT", `-129`, outOfRange},
		{"SMALLINT", `32767`, `32767`},
		{"SMALLINT", `-32769`, outOfRange},
		{"INT", `2147483647`, `2147483647`},
		{"INT", `2147483648`, outOfRange},
		{"INT", `-2147483648`, `-2147483648`},
		{"INT", `"42"`, `42`},
		{"INT", `" 42"`, mismatch},
		{"INT", `"042"`, mismatch},
		{"INT", `""`, mismatch},
		{"INT", `"NaN"`, mismatch},
		{"INT", `42.0`, `42`},
		{"INT", `4.2e1`, `42`},
		{"INT", `420e-1`, `42`},
		{"INT", `42.5`, mismatch},
		{"INT", `0.0`, `0`},
		{"INT", `-0`, `0`},
		{"INT", `0e999999999999`, `0`},
		{"INT", `1e999999999999`, outOfRange},
		{"INT", `1e-999999999999`, outOfRange},
		{"INT", `true`, mismatch},
		{"INT", `[1]`, mismatch},
		{"BIGINT", `9007199254740992`, `9007199254740992`},
		{"BIGINT", `9007199254740993`, `"9007199254740993"`},
		{"BIGINT", `9223372036854775807`, `"9223372036854775807"`},
		{"BIGINT", `9223372036854775808`, outOfRange},
		{"BIGINT", `-9223372036854775808`, `"-9223372036854775808"`},
		{"BIGINT", `-9223372036854775809`, outOfRange},
		{"BIGINT", `1e18`, `"1000000000000000000"`},
		{"BIGINT", `1e19`, outOfRange},
		{"BIGINT", `92233720368547758070`, outOfRange},

		{"FLOAT", `3.4e38`, `3.4e38`},
		{"FLOAT", `3.5e38`, outOfRange},
		{"DOUBLE", `1e308`, `1e308`},
		{"DOUBLE", `1e309`, outOfRange},
		{"DOUBLE", `1e400`, outOfRange},
		{"DOUBLE", `-1e400`, outOfRange},
		{"DOUBLE", `1e-400`, `1e-400`},
		{"DOUBLE", `"1.5"`, `1.5`},
		{"DOUBLE", `"NaN"`, mismatch},
		{"DOUBLE", `"Infinity"`, mismatch},
		{"DOUBLE", `"0x10"`, mismatch},
		{"DOUBLE", `"1_0"`, mismatch},

		{"DECIMAL(5,2)", `123.45`, `"123.45"`},
		{"DECIMAL(5,2)", `-123.4`, `"-123.4"`},
		{"DECIMAL(5,2)", `1.5e2`, `"150"`},
		{"DECIMAL(5,2)", `1e-2`, `"0.01"`},
		{"DECIMAL(5,2)", `1.500`, `"1.5"`},
		{"DECIMAL(5,2)", `1.505`, outOfRange},
		{"DECIMAL(5,2)", `1000`, outOfRange},
		{"DECIMAL(5,2)", `1e400`, outOfRange},
		{"DECIMAL(5,2)", `"12,50"`, mismatch},
		{"DECIMAL(5,2)", `0`, `"0"`},
		{"DECIMAL(2,2)", `0.99`, `"0.99"`},
		{"DECIMAL(2,2)", `1`, outOfRange},
		{"DECIMAL(38,0)", `99999999999999999999999999999999999999`, `"99999999999999999999999999999999999999"`},

		{"DATE", `"2026-03-04"`, `20516`},
		{"DATE", `"2026-03-04T23:30:00-01:00"`, `20517`},
		{"DATE", `"1969-12-31T23:59:59Z"`, `-1`},
		{"DATE", `20516`, `20516`},
		{"DATE", `"20516"`, `20516`},
		{"DATE", `1772615727482`, outOfRange},
		{"DATE", `"1772615727482"`, outOfRange},
		{"DATE", `"2026-02-30"`, badTime},
		{"DATE", `true`, mismatch},

		{"TIMESTAMP", `"2026-03-04T09:15:27.482Z"`, `1772615727482000`},
		{"TIMESTAMP", `false`, mismatch},
		{"TIMESTAMP_NTZ", `"2026-03-04T10:15:27.482+01:00"`, `1772615727482000`},

		{"BINARY", `"aGk="`, `"aGk="`},
		{"BINARY", `""`, `""`},
		{"BINARY", `"aGk"`, mismatch},
		{"BINARY", `"a-k="`, mismatch},
		{"BINARY", `"===="`, mismatch},
		{"BINARY", `1`, mismatch},

		{"VARIANT", `{"a": "b"}`, `"{\"a\":\"b\"}"`},
		{"VARIANT", `"text"`, `"\"text\""`},
		{"VARIANT", `1.50`, `"1.50"`},
		{"VARIANT", `true`, `"true"`},
		{"VARIANT", `null`, ``},

		{"ARRAY<STRING>", `[ "a" , 1 , true , {"x" : 2} ]`, `["a","1","true","{\"x\":2}"]`},
		{"ARRAY<INT>", `[1,"2"]`, `[1,2]`},
		{"ARRAY<INT>", `[]`, `[]`},
		{"ARRAY<INT>", `[1,null]`, mismatch},
		{"ARRAY<STRING>", `["a",null]`, mismatch},
		{"ARRAY<INT>", `[1,2147483648]`, outOfRange},
		{"ARRAY<INT>", `1`, mismatch},
		{"ARRAY<TIMESTAMP>", `["2026-03-04T09:15:27Z"]`, `[1772615727000000]`},
		{"MAP<STRING,BIGINT>", `{ "a" : 1 , "b" : null , "c" : 3 }`, `{"a":1,"c":3}`},
		{"MAP<STRING,BIGINT>", `{"a":null}`, `{}`},
		{"MAP<STRING,BIGINT>", `{"a":"x"}`, mismatch},
		{"MAP<STRING,STRING>", `{"a]}\"":"}"}`, `{"a]}\"":"}"}`},
		{"MAP<STRING,STRING>", `[]`, mismatch},
	} {
		if got := mapValue(t, tc.typ, "", tc.value); got != tc.want {
			t.Errorf("%s of %s: got %s, want %s", tc.typ, tc.value, got, tc.want)
		}
	}
}

func TestTimestamps(t *testing.T) {
	const bad = mapping.CodeBadTimestamp
	for _, tc := range []struct{ value, want string }{
		{`"2026-03-04T09:15:27Z"`, `1772615727000000`},
		{`"2026-03-04T09:15:27.4Z"`, `1772615727400000`},
		{`"2026-03-04T09:15:27.482Z"`, `1772615727482000`},
		{`"2026-03-04T09:15:27.482913Z"`, `1772615727482913`},
		{`"2026-03-04T09:15:27.482913999Z"`, `1772615727482913`},
		{`"2026-03-04T09:15:27,5Z"`, `1772615727500000`},
		{`"2026-03-04T10:15:27.482+01:00"`, `1772615727482000`},
		{`"2026-03-04T03:45:27-05:30"`, `1772615727000000`},
		{`"2026-03-04T10:15:27+0100"`, `1772615727000000`},
		{`"2026-03-04T10:15:27+01"`, `1772615727000000`},
		{`"2026-03-04t09:15:27z"`, `1772615727000000`},
		{`"2026-03-04 09:15:27"`, `1772615727000000`},
		{`"2026-03-04T09:15:27"`, `1772615727000000`},
		{`"2026-03-04T09:15"`, `1772615700000000`},
		{`"2026-03-04T09:15Z"`, `1772615700000000`},
		{`"2026-03-04"`, `1772582400000000`},
		{`"2026-03-04T09:15:27\u005A"`, `1772615727000000`},
		{`"2024-02-29T00:00:00Z"`, `1709164800000000`},
		{`"2016-12-31T23:59:60Z"`, `1483228800000000`},
		{`"2017-01-01T00:59:60+01:00"`, `1483228800000000`},
		{`"1969-12-31T23:59:59.999999Z"`, `-1`},
		{`"0001-01-01T00:00:00Z"`, `-62135596800000000`},
		{`"9999-12-31T23:59:59.999999Z"`, `253402300799999999`},
		// By magnitude: seconds, milliseconds, microseconds, nanoseconds.
		{`0`, `0`},
		{`1772615727`, `1772615727000000`},
		{`99999999999`, `99999999999000000`},
		{`100000000000`, `100000000000000`},
		{`1772615727482`, `1772615727482000`},
		{`99999999999999`, `99999999999999000`},
		{`100000000000000`, `100000000000000`},
		{`1772615727482913`, `1772615727482913`},
		{`99999999999999999`, `99999999999999999`},
		{`100000000000000000`, `100000000000000`},
		{`1772615727482913999`, `1772615727482913`},
		{`1772615727.482`, `1772615727482000`},
		{`1772615727482.9`, `1772615727482900`},
		{`1.772615727482e12`, `1772615727482000`},
		{`0.0000015`, `1`},
		{`-1`, `-1000000`},
		{`-0.5`, `-500000`},
		{`-0.0000001`, `-1`},
		{`"1772615727482"`, `1772615727482000`},
		{`"1772615727"`, `1772615727000000`},
		{`"0"`, `0`},

		{`""`, bad}, {`" "`, bad}, {`"now"`, bad}, {`"NaN"`, bad},
		{`"2026-02-29T00:00:00Z"`, bad}, {`"2100-02-29T00:00:00Z"`, bad}, {`"2026-02-30T00:00:00Z"`, bad},
		{`"2026-04-31T00:00:00Z"`, bad}, {`"2026-00-01T00:00:00Z"`, bad}, {`"2026-13-01T00:00:00Z"`, bad}, {`"2026-01-00T00:00:00Z"`, bad},
		{`"2026-01-32T00:00:00Z"`, bad}, {`"2026-01-01T24:00:00Z"`, bad}, {`"2026-01-01T00:60:00Z"`, bad}, {`"2026-01-01T00:00:61Z"`, bad},
		{`"2026-01-01T12:00:60Z"`, bad}, {`"2026-03-04T09:15:27.Z"`, bad}, {`"2026-03-04T09:15:27.1234567890Z"`, bad},
		{`"2026-03-04T09:15:27+24:00"`, bad}, {`"2026-03-04T09:15:27+01:60"`, bad}, {`"2026-03-04T09:15:27+1:00"`, bad}, {`"2026-03-04T09:15:27+"`, bad},
		{`"2026-03-04T09:15:27 Z"`, bad}, {`"2026-03-04T09:15:27Zulu"`, bad}, {`"2026-03-04T9:15:27Z"`, bad}, {`"2026-3-4T09:15:27Z"`, bad},
		{`"2026-03-04_09:15:27Z"`, bad}, {`"20260304T091527Z"`, bad}, {`"03/04/2026"`, bad}, {`"0000-01-01T00:00:00Z"`, bad},
		{`"9999-12-31T23:59:59-01:00"`, bad}, {`"2026-03-04T09:15:2٣Z"`, bad}, {`"-2026-03-04T09:15:27Z"`, bad},
		{`1e400`, bad}, {`99999999999999999999`, bad}, {`-99999999999`, bad}, {`"1772615727 "`, bad}, {`"1e400"`, bad},
	} {
		if got := mapValue(t, "TIMESTAMP", "", tc.value); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.value, got, tc.want)
		}
	}
}

// strict is the grammar of RFC 3339, of which time.Parse takes more: an hour of
// one digit, and a zone of 24 hours.
var strict = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// FuzzTimestamps holds every text that is RFC 3339 against time.Parse.
func FuzzTimestamps(f *testing.F) {
	for _, s := range []string{"2026-03-04T09:15:27.482Z", "1969-12-31T23:59:59.5-23:59", "2024-02-29T12:00:00+14:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59,999999999Z", "2000-02-30T00:00:00Z"} {
		f.Add(s)
	}
	m := mustCompile(f, "version: 2\nglobal: {mappings: [{source: v, target: v, type: TIMESTAMP}, {source: v, target: day, type: DATE}, {source: v, target: text, transform: date_format, format: rfc3339}]}\n",
		mapping.Options{Settings: mapping.Settings{Input: "canonical"}}).NewMapper()
	f.Fuzz(func(t *testing.T, text string) {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		out := mapOne(m, append(append([]byte(`{"v":`), quoted...), '}'))
		want, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || !strict.MatchString(text) {
			return // we take more forms; the table has them
		}
		if i := strings.IndexAny(text, ".,"); i >= 0 && strings.IndexAny(text[i+1:], "Z+-") > 9 {
			return // time.Parse takes any number of digits
		}
		if y := want.UTC().Year(); y < 1 || y > 9999 || want.Year() < 1 {
			if out.codes[0] != mapping.CodeBadTimestamp {
				t.Fatalf("%q: got %q, want it out of range", text, out.lines)
			}
			return
		}
		if len(out.rows) != 1 {
			t.Fatalf("%q: got %q, want %v", text, out.lines, want)
		}
		var got struct {
			V, Day int64
			Text   string
		}
		if err := json.Unmarshal(out.rows[0], &got); err != nil {
			t.Fatal(err)
		}
		if got.V != want.UnixMicro() {
			t.Fatalf("%q: got %d, want %d", text, got.V, want.UnixMicro())
		}
		if w := want.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano); got.Text != w {
			t.Fatalf("%q: got %s, want %s", text, got.Text, w)
		}
		midnight := time.Date(want.UTC().Year(), want.UTC().Month(), want.UTC().Day(), 0, 0, 0, 0, time.UTC)
		if w := midnight.Unix() / 86400; got.Day != w {
			t.Fatalf("%q: got day %d, want %d", text, got.Day, w)
		}
	})
}

func TestSnakeCase(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"Products Searched", "products_searched"},
		{"Order Completed", "order_completed"},
		{"order_completed", "order_completed"},
		{"add_to_cart", "add_to_cart"},
		{"page", "page"},
		{"__x__", "__x__"}, // snake_case already: unchanged
		{"a__b", "a__b"},
		{"step_2", "step_2"},
		{"productViewed", "product_viewed"},
		{"ProductViewed", "product_viewed"},
		{"HTTPRequestSent", "http_request_sent"},
		{"parseURL", "parse_url"},
		{"GA4Event", "ga4_event"},
		{"Order2Completed", "order2_completed"},
		{"ORDER COMPLETED", "order_completed"},
		{"Order-Completed!", "order_completed"},
		{"  Order   Completed ", "order_completed"},
		{"Order_Completed", "order_completed"},
		{"invoice.paid", "invoice_paid"},
		{"customer.subscription.created", "customer_subscription_created"},
		{"User's Cart / Total", "user_s_cart_total"},
		{"Äpfel Gekauft", "äpfel_gekauft"},
		{"größe gewählt", "größe_gewählt"},
		{"注文 完了", "注文_完了"},
		{"ЗаказОформлен", "заказ_оформлен"},
		{"नमस्ते दुनिया", "नमस्ते_दुनिया"},
		{"🎉 Party Time", "party_time"},
		{"🎉", "🎉"}, // nothing would be left of it
		{"!!!", "!!!"},
		{"", ""},
		{`say "hi"\now`, "say_hi_now"},
		{"tab\there", "tab_here"},
	} {
		in, err := json.Marshal(tc.in)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(tc.want)
		if err != nil {
			t.Fatal(err)
		}
		if got := mapValue(t, "", ", transform: snake_case", string(in)); got != string(want) {
			t.Errorf("%q: got %s, want %s", tc.in, got, want)
		}
	}
}

func TestDerivedMessageID(t *testing.T) {
	id := func(cluster string, change func(*mapping.Record), value string) []string {
		rec := recordAt([]byte(value))
		change(rec)
		out := &outcomes{}
		mustCompile(t, "", mapping.Options{ClusterID: cluster}).NewMapper().Map(rec, out)
		var ids []string
		for _, r := range out.rows {
			var row map[string]any
			if err := json.Unmarshal(r, &row); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, row["message_id"].(string))
		}
		return ids
	}
	same := func(*mapping.Record) {}
	first := id("c", same, `{"type":"a"}`)[0]
	if again := id("c", same, `{"type":"a"}`)[0]; again != first {
		t.Errorf("redelivered: got %s, want %s", again, first)
	}
	named := func(name string) func(*mapping.Record) {
		return func(r *mapping.Record) { r.Topic, r.TopicID = name, [16]byte{15: 7} }
	}
	if a, b := id("c", named("a"), `{"type":"a"}`)[0], id("c", named("b"), `{"type":"a"}`)[0]; a != b {
		t.Errorf("with a topic id the name is not part: got %s and %s", a, b)
	}
	if len(first) != 36 || first[14] != '5' || !strings.Contains("89ab", first[19:20]) {
		t.Errorf("got %s, want a UUID of version 5", first)
	}
	if empty := id("c", same, `{"type":"a","message_id":""}`)[0]; empty != first {
		t.Errorf("empty id: got %s, want the derived %s", empty, first)
	}
	seen := map[string]bool{first: true}
	for name, ids := range map[string][]string{
		"cluster":   id("d", same, `{"type":"a"}`),
		"topic":     id("c", func(r *mapping.Record) { r.Topic = "other" }, `{"type":"a"}`),
		"partition": id("c", func(r *mapping.Record) { r.Partition++ }, `{"type":"a"}`),
		"offset":    id("c", func(r *mapping.Record) { r.Offset++ }, `{"type":"a"}`),
		"batch":     id("c", same, `[{"type":"a"},{"type":"a"},{"type":"a"}]`),
		// A topic that was deleted and created again begins at offset 0 again.
		"topic id":         id("c", func(r *mapping.Record) { r.TopicID[0] = 1 }, `{"type":"a"}`),
		"another topic id": id("c", func(r *mapping.Record) { r.TopicID[0] = 2 }, `{"type":"a"}`),
	} {
		for _, got := range ids {
			if seen[got] {
				t.Errorf("%s: %s is not unique", name, got)
			}
			seen[got] = true
		}
	}
}

// A reason may show numbers and nothing else of an event.
func TestReasonsHoldNoTextOfTheEvent(t *testing.T) {
	const secret = "s3cret-user-text"
	types := []string{"BOOLEAN", "INT", "DOUBLE", "DECIMAL(5,2)", "DATE", "TIMESTAMP", "BINARY", "ARRAY<INT>", "MAP<STRING,INT>", "VARCHAR(2)",
		"MAP<BIGINT,INT>", "STRUCT<n:INT>", "ARRAY<STRUCT<a:DATE>>", "MAP<STRING,STRUCT<n:INT>>"}
	for _, typ := range types {
		w := twinsOf(t, "version: 2\nfilter: int(v.n ?? 1) > 0\nglobal: {mappings: [{source: v, target: v, type: '"+typ+"'}]}\n", mapping.Options{})
		for _, value := range []string{strconv.Quote(secret), `{"` + secret + `":"` + secret + `"}`, `["` + secret + `"]`, `{"n":"` + secret + `"}`} {
			out, _ := w.check(t, []byte(`{"v":`+value+`}`))
			if out.codes[0] == "row" {
				t.Errorf("%s took %s", typ, value)
			}
			if strings.Contains(out.lines[0], secret) {
				t.Errorf("%s: the reason quotes the event: %s", typ, out.lines[0])
			}
		}
	}
}
