package mapping_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/builtin"

	"github.com/datafly/bridge/mapping"
)

// expressionBlueprint feeds one VARIANT column, which shows any value as JSON.
func expressionBlueprint(expression string) string {
	return "version: 2\nglobal:\n  mappings:\n    - {target: v, type: VARIANT, expression: " + quoteYAML(expression) + "}\n    - " + known + "\n"
}

func quoteYAML(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// evaluate returns what the expression makes of the event: JSON, NULL, or the
// reason it was rejected for.
func evaluate(t *testing.T, expression, event string) string {
	t.Helper()
	out := mapOne(mustCompile(t, expressionBlueprint(expression), mapping.Options{}).NewMapper(), []byte(event))
	if len(out.rows) != 1 {
		return strings.Join(out.lines, "\n")
	}
	var row struct{ V *string }
	if err := json.Unmarshal(out.rows[0], &row); err != nil {
		t.Fatalf("%s: %v", out.rows[0], err)
	}
	if row.V == nil {
		return "NULL"
	}
	return *row.V
}

func TestExpressionProblems(t *testing.T) {
	for _, tc := range []struct{ name, mapping, want string }{
		{"syntax", "expression: 'type =='", "b.yaml:4:31: expression: unexpected token EOF"},
		{"kind", "expression: 1", "expression should be text"},
		{"with source", "expression: type, source: type", "column v has a source and an expression"},
		{"reads nothing", "expression: 1 + 1", "reads nothing of the event"},
		{"clock", "expression: 'type + string(now())'", "calls now, which a blueprint may not: an event that is read again"},
		{"order of a map", "expression: keys(properties)", "calls keys, which a blueprint may not: a map has no order"},
		{"growth", "expression: 'repeat(type, 1000000)'", "calls repeat, which a blueprint may not"},
		{"time zone", "expression: timezone(context.timezone)", "calls timezone, which a blueprint may not"},
		{"environment", "expression: '$env.type'", "reads $env, which is no field of an event"},
		{"meter", "expression: '$meter'", "reads $meter, which is no field of an event"},
		{"unknown function", "expression: exec(type)", "calls exec, which is not a function"},
		{"method", "expression: date(timestamp).String()", "which is not a function"},
		{"too long", "expression: type" + strings.Repeat(" ", 1) + strings.Repeat("+ type", 3000), "an expression may have 16384"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := mapping.Parse("b.yaml", []byte("version: 2\nglobal:\n  mappings:\n    - {target: v, "+tc.mapping+"}\n"))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

// What an event can make an expression cost is bounded, whatever is in it.
func TestExpressionBounds(t *testing.T) {
	many := "[" + strings.Repeat("1,", 4999) + "1]"
	long := `"` + strings.Repeat("x", 600<<10) + `"`
	for _, tc := range []struct{ name, expression, event string }{
		{"nested loops", "sum(a, sum(a, #))", `{"a":` + many + `}`},
		{"elements", "len(map(a, map(a, #)))", `{"a":` + many + `}`},
		{"doubled text", "reduce(a, #acc + #acc, t)", `{"t":"x","a":` + many + `}`},
		{"added text", "t + t", `{"t":` + long + `}`},
		{"joined text", "len(join(map(a, t)))", `{"t":` + long + `,"a":[1,2]}`},
		{"replaced text", `len(replace(t, "x", "yy"))`, `{"t":` + long + `}`},
		{"deep result", "reduce(a, [#acc], t)", `{"t":1,"a":` + many + `}`},
		{"deep operand", "len(string(reduce(a, [#acc], t)))", `{"t":1,"a":` + many + `}`},
		{"a list looked through again and again", "count(a, -1 in a)", `{"a":` + many + `}`},
		{"a list compared again and again", "count(a, a == a)", `{"a":` + many + `}`},
		{"a list added up again and again", "sum(a, sum(a))", `{"a":` + many + `}`},
		{"a text searched again and again", `count(a, t matches "x+y")`, `{"t":"` + strings.Repeat("x", 4000) + `","a":` + many + `}`},
		{"a text copied again and again", `len(map(a, upper(t)))`, `{"t":"` + strings.Repeat("x", 4000) + `","a":` + many + `}`},
		{"a text made again and again", `len(map(a, t + "x"))`, `{"t":"` + strings.Repeat("x", 20000) + `","a":` + many + `}`},
		{"text that a function makes longer", "len(reduce(1..n, toBase64(#acc), t))", `{"t":"x","n":50}`},
		{"a pattern of the event", "t matches p", `{"t":"` + strings.Repeat("x", 200<<10) + `","p":"` + strings.Repeat("(x+x+)+", 8) + `y"}`},
		{"a long pattern", "t matches p", `{"t":"x","p":"` + strings.Repeat("(x{1000})?", 200) + `"}`},
		{"objects distinguished", `len(uniq(map(a, [#])))`, `{"a":[` + strings.Join(numbers(5000), ",") + `]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := evaluate(t, tc.expression, tc.event)
			if !strings.HasPrefix(got, `reject expression_failed "v"`) || len(got) > 300 {
				t.Errorf("got %.300q, want a short rejection", got)
			}
		})
	}
	if got := evaluate(t, "count(a, # > 0)", `{"a":`+many+`}`); got != "5000" {
		t.Errorf("got %s, want one loop over 5000 elements to pass", got)
	}
}

func numbers(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = strconv.Itoa(i)
	}
	return all
}

// uniq is ours, since the library's takes minutes over a long list; it finds the
// same.
func TestUniq(t *testing.T) {
	began := time.Now()
	const many = 100_000 // over which the library takes half a minute
	for _, event := range []string{`{"a":[` + strings.Join(numbers(many), ",") + `]}`, `{"a":["` + strings.Join(numbers(many), `","`) + `"]}`} {
		if got := evaluate(t, "len(uniq(a))", event); got != strconv.Itoa(many) {
			t.Errorf("got %s, want %d different values", got, many)
		}
	}
	if took := time.Since(began); took > time.Minute { // with the race detector the library takes several
		t.Errorf("took %v, want less than the library takes", took)
	}
	const event = `{"a":[1,1.0,"1",true,null,[1],[1.0],{"k":1},{"k":2},{"k":1},0,-0.0,9007199254740992,9007199254740993,9007199254740992.0,1e300,1e300,"","1",null,false,[1,2],[2,1],{}]}`
	var env map[string]any
	if err := json.Unmarshal([]byte(event), &env); err != nil {
		t.Fatal(err)
	}
	for i, v := range env["a"].([]any) { // whole numbers are int in an event
		if n, ok := v.(float64); ok && n == math.Trunc(n) && n < 1e18 && !slices.Contains([]int{1, 14}, i) {
			env["a"].([]any)[i] = int(n)
		}
	}
	env["a"].([]any)[13] = 9007199254740993
	for _, expression := range []string{"uniq(a)", "uniq(1..5)", `uniq(split("a,b,a", ","))`, "uniq([])", "uniq(concat(a, a))"} {
		want, err := expr.Eval("[a, "+expression+"][1]", env)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := evaluate(t, "[a, "+expression+"][1]", event), string(text); got != want {
			t.Errorf("%s: got %s, want %s", expression, got, want)
		}
	}
	if got := evaluate(t, "uniq(a)", `{"a":1}`); !strings.HasPrefix(got, "reject expression_failed") {
		t.Errorf("got %s, want a number refused", got)
	}
}

// Text that is not UTF-8 would spoil the batch it travels in.
func TestExpressionGivesUnicode(t *testing.T) {
	for _, expression := range []string{"t[0:1]", "[t[0:1]]", `{"k": fromBase64(b)}`, `fromBase64(b)`} {
		if got := evaluate(t, expression, `{"t":"é","b":"/w=="}`); !strings.Contains(got, "reject expression_failed") || !strings.Contains(got, "not UTF-8") {
			t.Errorf("%s: got %q, want it refused for not being UTF-8", expression, got)
		}
	}
}

func TestExplainShowsExpression(t *testing.T) {
	m := mustCompile(t, "version: 2\nglobal: {mappings: [{target: a, expression: x + 1}, {target: b, expression: y}, {target: c, expression: x, type: BOOLEAN}]}\n", mapping.Options{}).NewMapper()
	cols := m.Explain(recordAt([]byte(`{"x":1}`)))[0].Columns
	if got := cols[0]; got.Source != "expression" || got.Value != `"2"` {
		t.Errorf("got %+v, want 2 from expression", got)
	}
	if got := cols[1]; got.Value != "" || got.Why != "the expression gives nil" {
		t.Errorf("got %+v, want NULL because the expression gives nil", got)
	}
	if got := cols[2]; !strings.Contains(got.Why, "refused: a number") {
		t.Errorf("got %+v, want a number refused", got)
	}
	failed := m.Explain(recordAt([]byte(`{"x":"t"}`)))[0].Columns[0]
	if !strings.Contains(failed.Why, "refused: invalid operation: string + int") {
		t.Errorf("got %+v, want the failed operation", failed)
	}
}

// The page's table of the language: each example is evaluated on the event above
// it, and each function of the library is either shown or said to be missing.
func TestDocsShowTheExpressionLanguage(t *testing.T) {
	text, err := os.ReadFile("../docs/blueprint.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Expressions\n")
	if !found {
		t.Fatal("docs/blueprint.md has no section Expressions")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	event := regexp.MustCompile("(?s)```json\n(.*?)```").FindStringSubmatch(section)
	if event == nil {
		t.Fatal("the section shows no event")
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1)
	if len(rows) < 50 {
		t.Fatalf("got %d examples, want one of each function", len(rows))
	}
	var shown strings.Builder
	for _, row := range rows {
		expression, want := strings.ReplaceAll(row[1], `\|`, "|"), row[2]
		fmt.Fprintln(&shown, expression)
		if got := evaluate(t, expression, event[1]); got != want {
			t.Errorf("%s: got %s, want %s", expression, got, want)
		}
	}
	for _, name := range builtin.Names {
		call := regexp.MustCompile(`\b` + name + `\(`)
		if call.MatchString(shown.String()) {
			continue
		}
		if _, err := mapping.Parse("x.yaml", []byte(expressionBlueprint(name+"(properties)"))); err == nil || !strings.Contains(err.Error(), "a blueprint may not") {
			t.Errorf("%s is not among the examples", name)
		} else if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("%s is not said to be missing", name)
		}
	}
}

// FuzzExpression holds any expression, on any event, to one outcome that is the
// same each time and a row that is strict JSON.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{"type", "a + b", "a ?? b", "sum(a, # * 2)", "map(a, {'k': #})", "a[0:1]", "let x = a; x + x", "date(b) - date(a)",
		"groupBy(a, #)", "a matches b", "fromJSON(b)", "reduce(a, #acc + #, 0)", "join(map(a, string(#)), '-')", "a?.b[0]", "sort(a)", "1..a", "split(b, '')", "a | map(#) | len()", "replace(b, '', a)", "$env", "a ** b", "a % b"} {
		f.Add(s, []byte(`{"type":"page","a":[1,2.5,"x"],"b":"2026-03-04"}`))
		f.Add(s, []byte(`{"a":"/w==","b":{"a":null}}`))
	}
	f.Fuzz(func(t *testing.T, expression string, event []byte) {
		if len(expression) > 300 || strings.ContainsAny(expression, "\n\r") {
			return
		}
		b, err := mapping.Parse("fuzz.yaml", []byte(expressionBlueprint(expression)))
		if err != nil {
			return
		}
		m, err := b.Compile(mapping.Options{})
		if err != nil {
			return
		}
		first, second := mapOne(m.NewMapper(), event), mapOne(m.NewMapper(), event)
		if !slices.Equal(first.lines, second.lines) {
			t.Fatalf("%q: got %q, and then %q", expression, first.lines, second.lines)
		}
		for _, row := range first.rows {
			if !accepts(row) {
				t.Errorf("%q: %q is not strict JSON", expression, row)
			}
		}
		for _, line := range first.lines {
			if strings.HasPrefix(line, "reject") {
				repeats(t, expression, line, event)
			}
		}
	})
}
