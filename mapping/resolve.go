package mapping

import (
	"fmt"
	"strings"
)

// resolveColumns settles, for every target of every section, whether the
// column is sent, how it is spelt and what type it has.
func (c *compiler) resolveColumns() {
	c.cols = map[string]resolved{}
	table := map[string]Column{}
	for _, col := range c.o.Table {
		table[strings.ToLower(col.Name)] = col
	}
	var order []string
	byTarget := map[string][]rule{}
	for _, rules := range c.b.layers() {
		for _, r := range rules {
			key := strings.ToLower(r.target)
			if r.drop {
				continue
			}
			if byTarget[key] == nil {
				order = append(order, key)
			}
			byTarget[key] = append(byTarget[key], r)
		}
	}
	for _, key := range order {
		rules := byTarget[key]
		have, inTable := table[key]
		col := Column{Name: rules[0].target, NotNull: inTable && have.NotNull, Number: have.Number}
		for _, r := range rules {
			col.Optional = col.Optional || r.optional
		}
		switch {
		case inTable:
			col.Name = have.Name
		case col.Optional && (c.o.Table != nil || !c.o.AllOptional):
			c.m.omitted = append(c.m.omitted, col.Name)
			continue
		}
		typ := c.columnType(rules, have, inTable)
		if typ == nil {
			continue
		}
		col.Type = typ.text
		if c.o.Table != nil && !inTable {
			c.problem(rules[0].at, "column %s is not in the table; add it with ALTER TABLE %s ADD COLUMN %s %s, or mark the mapping optional: true, or remove it with source: null",
				col.Name, c.tableName(), col.Name, col.Type)
			continue
		}
		c.cols[key] = resolved{col, typ}
		c.m.columns = append(c.m.columns, col)
	}
}

func (c *compiler) tableName() string {
	if c.o.TableName == "" {
		return "<table>"
	}
	return c.o.TableName
}

// columnType is the type a mapping names, else the table's, else what the
// transforms make, else STRING. It is the same in every section.
func (c *compiler) columnType(rules []rule, have Column, inTable bool) *deltaType {
	var named *rule
	for i := range rules {
		r := &rules[i]
		if r.typ == nil {
			continue
		}
		if named != nil && !named.typ.Same(&r.typ.Type) {
			c.problem(r.at, "column %s is %s here and %s in line %d; a column has one type", r.target, r.typ.text, named.typ.text, named.at.Line)
			return nil
		}
		named = r
	}
	if inTable {
		t, err := parseType(have.Type)
		if err != nil {
			c.problem(rules[0].at, "column %s of the table: %v", have.Name, err)
			return nil
		}
		if named != nil && !named.typ.Same(&t.Type) {
			c.problem(named.at, "column %s is %s here and %s in the table; write type: %s, or leave type out to follow the table", named.target, named.typ.text, t.text, t.text)
			return nil
		}
		return t
	}
	if named != nil {
		return named.typ
	}
	text := implied(rules[0].chain)
	for _, r := range rules[1:] {
		if other := implied(r.chain); other != text {
			c.problem(r.at, "column %s comes out as %s here and as %s in line %d; name its type", r.target, other, text, rules[0].at.Line)
			return nil
		}
	}
	t, err := parseType(text)
	if err != nil {
		c.problem(rules[0].at, "%v", err)
		return nil
	}
	return t
}

// checkRequired refuses a table with a NOT NULL column nothing feeds.
func (c *compiler) checkRequired() {
	if c.o.Input == "mapped" {
		return
	}
	for _, col := range c.o.Table {
		if _, ok := c.cols[strings.ToLower(col.Name)]; col.NotNull && !ok {
			c.problem(Position{c.b.file, 1, 1}, "column %s of the table is NOT NULL and no mapping fills it; map it, give it a default_value, or run ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL",
				col.Name, c.tableName(), col.Name)
		}
	}
}

// checkNumbers refuses what a protobuf row cannot carry.
func (c *compiler) checkNumbers() {
	if c.o.Format != "protobuf" {
		return
	}
	for _, col := range c.m.columns {
		if err := unfit(col, c.cols[strings.ToLower(col.Name)].typ); err != nil {
			c.problem(c.at(col.Name), "column %s: %v", col.Name, err)
		}
	}
	owner := map[int32]string{}
	for _, col := range c.o.Table {
		if other := owner[col.Number]; other != "" && col.Number > 0 {
			c.problem(c.at(col.Name), "columns %s and %s of the table are both number %d in protobuf; write rows as JSON", other, col.Name, col.Number)
		}
		owner[col.Number] = col.Name
	}
}

// unfit returns why a column cannot be in a protobuf row, or nil.
func unfit(col Column, typ *deltaType) error {
	if n := col.Number; n < 1 || n > maxNumber || n >= reservedFrom && n <= reservedTo {
		return fmt.Errorf("its number in protobuf would be %d, but the numbers are 1 to %d without %d to %d; write rows as JSON", n, maxNumber, reservedFrom, reservedTo)
	}
	return typ.protobuf()
}

// at returns where the blueprint first fills a column.
func (c *compiler) at(name string) Position {
	for _, rules := range c.b.layers() {
		for _, r := range rules {
			if strings.EqualFold(r.target, name) && !r.drop {
				return r.at
			}
		}
	}
	return Position{c.b.file, 1, 1}
}
