package setup

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/datafly/bridge/internal/plaintext"
)

// stateWidth is that of the column of states.
const stateWidth = 16

// WritePlan writes who does what, for people.
func (r *Report) WritePlan(b *strings.Builder) {
	fmt.Fprintf(b, "%s on %s\n", r.Table, r.Workspace)
	line := func(name, text string) {
		fmt.Fprintf(b, "%-*s%s\n", stateWidth, name, strings.ReplaceAll(plaintext.Visible(text), "\n", "\n"+strings.Repeat(" ", stateWidth)))
	}
	line("granted to", "the service principal "+r.Principal)
	line("run by", r.RunBy)
	switch w := r.Warehouse; {
	case w == nil:
		line("warehouse", "none: "+r.NoWarehouse)
	case w.Running():
		line("warehouse", fmt.Sprintf("%s (%s)", w.Name, w.ID))
	default:
		line("warehouse", fmt.Sprintf("%s (%s), %s: it starts with the first statement or query, and costs", w.Name, w.ID, strings.ToLower(w.State)))
	}
	line("config file", r.Config.Path+", "+r.Config.State)
	if r.Config.SecretFile != "" {
		line("secret file", r.Config.SecretFile)
	}
	b.WriteString("\n")
	for _, i := range r.Plan {
		line(i.State, i.Statement)
	}
}

// cellMax is how many bytes of a value are shown.
const cellMax = 32

// WriteRows writes the result of the test query, for people. Columns that are NULL in all rows
// are named only.
func (r *Report) WriteRows(b *strings.Builder) {
	if len(r.Rows.Rows) == 0 {
		return
	}
	var shown []int
	var empty []string
	for n, column := range r.Rows.Columns {
		if slices.ContainsFunc(r.Rows.Rows, func(row []*string) bool { return row[n] != nil }) {
			shown = append(shown, n)
		} else {
			empty = append(empty, plaintext.ShortLine(column, cellMax))
		}
	}
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	write := func(cell func(n int) string) {
		var cells []string
		for _, n := range shown {
			cells = append(cells, plaintext.ShortLine(cell(n), cellMax))
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	write(func(n int) string { return strings.ToUpper(r.Rows.Columns[n]) })
	for _, row := range r.Rows.Rows {
		write(func(n int) string {
			if row[n] == nil {
				return "NULL"
			}
			return *row[n]
		})
	}
	_ = tw.Flush() // into memory
	if len(empty) > 0 {
		fmt.Fprintf(b, "NULL in all rows: %s\n", strings.Join(empty, ", "))
	}
}
