package emulator

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// catalog holds the tables. Names are compared without regard to case, as
// Unity Catalog does.
type catalog struct {
	noIndex bool // of new tables

	mu     sync.RWMutex
	tables map[string]*Table
}

func (c *catalog) table(name string) *Table {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.tables[strings.ToLower(name)]
}

func (c *catalog) names() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	names := make([]string, 0, len(c.tables))
	for n := range c.tables {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// create makes the tables of a script: all of them or, on error, none.
func (c *catalog) create(ddl string, maxRows int, j *journal) ([]string, error) {
	defs, err := parseDDL(ddl)
	if err != nil {
		return nil, err
	}
	if len(defs) == 0 {
		return nil, fmt.Errorf("ddl holds no CREATE TABLE statement; add one")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := map[string]*Table{}
	made := []string{}
	var replaced []string
	for _, def := range defs {
		_, here := c.tables[def.name]
		if _, twice := fresh[def.name]; here || twice {
			if def.ifNotExists {
				continue
			}
			if !def.replace {
				return nil, fmt.Errorf("create table %s: it exists already; drop it first or write IF NOT EXISTS", def.name)
			}
			replaced = append(replaced, def.name)
		}
		fresh[def.name] = newTable(def, maxRows, c.noIndex, j)
		made = append(made, def.name)
	}
	for _, name := range replaced {
		if old := c.tables[name]; old != nil {
			if err := old.drop(); err != nil {
				return nil, err
			}
		}
	}
	for name, t := range fresh {
		c.tables[name] = t
	}
	return made, nil
}

func (c *catalog) drop(name string) error {
	c.mu.Lock()
	t := c.tables[strings.ToLower(name)]
	delete(c.tables, strings.ToLower(name))
	c.mu.Unlock()
	if t == nil {
		return fmt.Errorf("drop table %s: no such table; list them with Tables", name)
	}
	return t.drop()
}

// Table returns a table by its full name, or nil where there is none.
func (e *Emulator) Table(name string) *Table { return e.catalog.table(name) }

// Tables lists the full names of all tables, sorted.
func (e *Emulator) Tables() []string { return e.catalog.names() }

// CreateTable runs CREATE TABLE statements: all of them or, on error, none.
// It returns the names of the tables made.
func (e *Emulator) CreateTable(ddl string) ([]string, error) {
	return e.catalog.create(ddl, e.cfg.MaxRows, e.journal)
}

// DropTable removes a table and its rows; ingest into it then fails with 404.
func (e *Emulator) DropTable(name string) error { return e.catalog.drop(name) }
