package mapping_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/mapping"
)

func TestBuiltins(t *testing.T) {
	if all := mapping.Builtins(); len(all) == 0 || all[0] != "default" {
		t.Fatalf("got %q, want default first", all)
	}
	variant, _ := reflect.TypeFor[mapping.Settings]().FieldByName("Variant")
	if got, want := variant.Tag.Get("choices"), strings.Join(mapping.Builtins(), ","); got != want {
		t.Errorf("mapping.variant has the choices %s, want %s", got, want)
	}
	for _, name := range mapping.Builtins() {
		text, ok := mapping.Builtin(name)
		b, err := mapping.Parse(name, text)
		if !ok || err != nil || b.Name == "" || b.Description == "" {
			t.Errorf("%s: got %v, %v, name %q and description %q", name, ok, err, b.Name, b.Description)
			continue
		}
		// The page's table is enough for each of them.
		table := mustCompile(t, "", mapping.Options{}).Columns()
		if _, err := b.Compile(mapping.Options{Table: table}); err != nil {
			t.Errorf("%s does not fit the default table: %v", name, err)
		}
		text[0] = 'x'
		if again, _ := mapping.Builtin(name); again[0] == 'x' {
			t.Errorf("%s: what Builtin returns is shared", name)
		}
	}
	for _, name := range []string{"", "Retail", "retail.yaml", "../mapping/retail", "travel"} {
		if text, ok := mapping.Builtin(name); ok || text != nil {
			t.Errorf("%q: got a blueprint, want none", name)
		}
	}
}

// What retail adds are optional columns of events by name: no other event has a further
// source, and every event has the columns of default.
func TestRetailExtendsDefault(t *testing.T) {
	o := mapping.Options{AllOptional: true}
	base, retail := mustCompile(t, "", o), mustCompile(t, "version: 2\nextends: retail\n", o)
	columns := retail.Columns()
	if want := base.Columns(); !slices.Equal(columns[:13], want[:13]) {
		t.Errorf("got %v first, want %v", columns[:13], want[:13])
	}
	for _, c := range columns[13:] {
		if !c.Optional {
			t.Errorf("column %s is not optional", c.Name)
		}
	}
	if extra := len(columns) - len(base.Columns()); extra < 20 {
		t.Errorf("got %d columns more than default, want those of products, carts, checkout, orders and lists", extra)
	}
	const other = `{"type":"track","event":"Form Sent","message_id":"m-1","properties":{"order_id":"A-1","value":"a lot","price":{},"items":[1]}}`
	got, want := mapOne(retail.NewMapper(), []byte(other)), mapOne(base.NewMapper(), []byte(other))
	if !slices.Equal(got.lines, want.lines) {
		t.Errorf("got %q, want %q as of default", got.lines, want.lines)
	}
}

// An order of 1,000 lines is one row: the items are one value, and the first of them
// feeds the columns of a product.
func TestRetailManyItems(t *testing.T) {
	const each = `{"item_id":"MUG-%d","item_name":"Mug \"%d\"","price":32.25,"quantity":2}`
	var items []string
	for i := range 1000 {
		items = append(items, fmt.Sprintf(each, i, i))
	}
	list := "[" + strings.Join(items, ",") + "]"
	w := twinsOf(t, "version: 2\nextends: retail\n", mapping.Options{AllOptional: true})
	for event, first := range map[string]string{"purchase": `"order_id":"A-1"`, "add_to_cart": `"product_id":"MUG-0"`} {
		_, got := w.check(t, fmt.Appendf(nil, `{"type":"track","event":%q,"message_id":"m-1","properties":{"transaction_id":"A-1","items":%s}}`, event, list))
		if len(got.rows) != 1 || !strings.Contains(string(got.rows[0]), first) || strings.Count(string(got.rows[0]), "MUG-") < 1000 {
			t.Errorf("%s: got %d rows, want one with %s and all items", event, len(got.rows), first)
		}
	}
}
