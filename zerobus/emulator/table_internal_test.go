package emulator

import (
	"errors"
	"testing"
)

// TestKeepChecksTheCurrentColumns covers changes between reading a request and
// storing it, which no request can time from outside.
func TestKeepChecksTheCurrentColumns(t *testing.T) {
	c := catalog{cfg: &Config{}, journal: &journal{}, tables: map[string]*Table{}}
	if _, err := c.CreateTable(DefaultDDL); err != nil {
		t.Fatal(err)
	}
	tab := c.Table("datafly.events.stream")
	read := func() *rowReader {
		r := newReader([]byte(`[{"user_id":"u"}]`))
		r.begin(tab.currentSchema())
		if f := r.records(); f != nil {
			t.Fatal(f)
		}
		return r
	}
	r := read()
	if err := tab.DropColumn("user_id"); err != nil {
		t.Fatal(err)
	}
	if err := tab.keep(r.schema, r.rows, &batch{}); !errors.Is(err, errAltered) {
		t.Errorf("keep after DropColumn: got %v, want %v", err, errAltered)
	}
	if err := tab.AddColumn(Column{Name: "user_id", Type: "STRING"}); err != nil {
		t.Fatal(err)
	}
	r = read()
	if err := c.DropTable(tab.Name()); err != nil {
		t.Fatal(err)
	}
	if err := tab.keep(r.schema, r.rows, &batch{}); !errors.Is(err, errDropped) {
		t.Errorf("keep after drop: got %v, want %v", err, errDropped)
	}
	if got := tab.Count(); got != 0 {
		t.Errorf("rows: got %d, want none", got)
	}
}
