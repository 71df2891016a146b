package zerobus

import (
	"errors"
	"fmt"
	"strings"

	"github.com/datafly/bridge/internal/delta"
)

// SchemaError says how the table's columns do not fit the rows'.
type SchemaError struct {
	Table    TableName
	Missing  []Column // carried by rows, not in the table
	Changed  []Column // in the table with another type; Type is the table's
	Required []Column // NOT NULL in the table, carried by no row

	wanted map[string]string // the expected type of each changed column
	folded map[string]string // for a missing column: the table's spelling, if only case differs
}

// Error lists every misfit and ends with what to do about it.
func (e *SchemaError) Error() string { return e.Reason() + "; " + e.Remedy() }

// Reason lists every misfit.
func (e *SchemaError) Reason() string {
	var said []string
	for _, c := range e.Missing {
		text := fmt.Sprintf("it has no column %q (%s)", c.Name, c.Type)
		if other := e.folded[c.Name]; other != "" {
			text += fmt.Sprintf(", only %q, and names must match exactly", other)
		}
		said = append(said, text)
	}
	for _, c := range e.Changed {
		said = append(said, fmt.Sprintf("its column %q is %s, rows carry %s", c.Name, c.Type, e.wanted[c.Name]))
	}
	for _, c := range e.Required {
		said = append(said, fmt.Sprintf("its column %q (%s) is NOT NULL and no row carries it", c.Name, c.Type))
	}
	return fmt.Sprintf("table %s does not fit the blueprint: %s", e.Table, strings.Join(said, "; "))
}

// Remedy is the ALTER TABLE statement for what is missing, and what to change
// for the rest.
func (e *SchemaError) Remedy() string {
	var do []string
	var add []Column
	for _, c := range e.Missing {
		if other := e.folded[c.Name]; other != "" {
			do = append(do, fmt.Sprintf("change the blueprint's target %q to %q", c.Name, other))
		} else {
			add = append(add, c)
		}
	}
	if len(add) > 0 {
		do = append(do, "run: "+AlterAdd(e.Table, add)+" or remove the mapping from the blueprint")
	}
	for _, c := range e.Changed {
		do = append(do, fmt.Sprintf("set type: %s on the blueprint's mapping of %q", c.Type, c.Name))
	}
	for _, c := range e.Required {
		do = append(do, fmt.Sprintf("map %q in the blueprint, or run: %s", c.Name, dropNotNull(e.Table, c.Name)))
	}
	return strings.Join(do, "; ")
}

// fault returns e as the configuration fault that blocks writing.
func (e *SchemaError) fault() *Error {
	return &Error{Op: opIngest, Err: errors.New(e.Reason()), Meaning: "rows of this shape cannot be ingested", Remedy: e.Remedy(), kind: configuration}
}

// fit returns a *SchemaError unless every expected column is in the table with
// a type of the same wire form, and every NOT NULL column is expected.
func fit(table TableName, expected, have []Column) error {
	e := &SchemaError{Table: table, wanted: map[string]string{}, folded: map[string]string{}}
	byName := make(map[string]Column, len(have))
	byFold := make(map[string]string, len(have))
	for _, c := range have {
		byName[c.Name] = c
		byFold[strings.ToLower(c.Name)] = c.Name
	}
	carried := make(map[string]bool, len(expected))
	for _, want := range expected {
		carried[want.Name] = true
		got, ok := byName[want.Name]
		switch {
		case !ok:
			e.Missing = append(e.Missing, want)
			e.folded[want.Name] = byFold[strings.ToLower(want.Name)]
		case !sameWire(want.Type, got.Type):
			e.Changed = append(e.Changed, got)
			e.wanted[got.Name] = want.Type
		}
	}
	for _, c := range have {
		if c.NotNull && !carried[c.Name] {
			e.Required = append(e.Required, c)
		}
	}
	if len(e.Missing)+len(e.Changed)+len(e.Required) == 0 {
		return nil
	}
	return e
}

// sameWire reports whether a value encoded for one type suits a column of the
// other. Ranges and lengths are the service's to check, row by row.
func sameWire(want, got string) bool {
	w, g := wireForm(want), wireForm(got)
	return w == g || w == "integer" && g == "float"
}

// wireForm groups Delta types by the JSON values they take.
func wireForm(text string) string {
	t, err := delta.Parse(text)
	if err != nil {
		return strings.ToUpper(text)
	}
	switch t.Kind {
	case delta.String:
		return "string"
	case delta.TinyInt, delta.SmallInt, delta.Int, delta.BigInt:
		return "integer"
	case delta.Float, delta.Double:
		return "float"
	case delta.Decimal:
		return "decimal"
	case delta.Timestamp, delta.TimestampNTZ:
		return "timestamp"
	}
	return strings.ReplaceAll(t.String(), " NOT NULL", "") // of a field, which the table checks
}
