package emulator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Column is one column of a table.
type Column struct {
	Name    string `json:"name"`
	Type    string `json:"type"` // Delta SQL text in upper case, such as DECIMAL(10,2)
	NotNull bool   `json:"not_null,omitzero"`
	Comment string `json:"comment,omitzero"`
}

// Row is one row as it arrived.
type Row struct {
	Seq        int64           `json:"seq"`         // 1 for the table's first row
	ReceivedAt time.Time       `json:"received_at"` // when its request was stored
	Transport  string          `json:"transport"`   // workspace, grpc or rest
	RequestID  string          `json:"request_id,omitzero"`
	StreamID   string          `json:"stream_id,omitzero"` // grpc: the stream
	Offset     int64           `json:"offset"`             // grpc: offset_id of the message on that stream
	JSON       json.RawMessage `json:"row"`                // the record, byte for byte if it came as JSON; shared: do not change it
}

// The values of Row.Transport.
const (
	TransportWorkspace = "workspace"
	TransportGRPC      = "grpc"
	TransportREST      = "rest"
)

// Value returns the text of a column: a string's characters, the literal of a
// number or boolean, compact JSON for anything else. ok is false where the row
// has no such column or null.
func (r Row) Value(column string) (text string, ok bool) {
	b, ok := columnText(r.JSON, column)
	return string(b), ok
}

// batch is what the rows of one request share.
type batch struct {
	at        time.Time
	transport string
	requestID string
	streamID  string
	offset    int64
	proto     *protoMessage // reads the rows if they are protobuf; nil for JSON
}

// storedRow is a row in the ring.
type storedRow struct {
	raw   []byte // as it arrived
	batch *batch
}

// json is the row's JSON. Protobuf is converted here, on reading.
func (s storedRow) json() []byte {
	if s.batch.proto == nil {
		return s.raw
	}
	return s.batch.proto.appendJSON(nil, s.raw)
}

// Table is one emulated table. Its methods are safe for concurrent use.
type Table struct {
	name    string // catalog.schema.table, lower case
	cfg     *Config
	journal *journal

	mu      sync.RWMutex
	schema  *schema
	kind    string // table_type in Unity Catalog
	format  string // data_source_format in Unity Catalog
	view    *query // of a view; immutable
	dropped bool
	count   int64 // rows stored since the last reset
	bytes   int64
	ring    []storedRow
	oldest  int // position in ring of the oldest row once it is full
	ids     idIndex
	noIndex bool // message_id is a column like any other
	hook    func(rows []Row)
	changed chan struct{} // closed and replaced whenever rows are stored or removed
}

var (
	errDropped = errors.New("the table has been dropped")
	errAltered = errors.New("the table's columns have changed")
)

// Name is catalog.schema.table.
func (t *Table) Name() string { return t.name }

func (t *Table) currentSchema() *schema {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.schema
}

// keep stores rows that were checked against s. It fails with errAltered if s
// is no longer the schema. The table owns the rows' bytes from then on.
func (t *Table) keep(s *schema, rows []newRow, b *batch) error {
	stored := make([]storedRow, len(rows))
	ids := make([]idHash, len(rows)) // hashed before the lock is taken
	for i, row := range rows {
		stored[i], ids[i] = storedRow{row.raw, b}, hashID(row.id)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dropped {
		return errDropped
	}
	if t.schema != s {
		return errAltered
	}
	if err := t.journal.append(t.name, stored); err != nil {
		return err
	}
	for i, row := range stored {
		t.push(row, ids[i], rows[i].id)
	}
	if t.hook != nil {
		t.hook(asRows(stored, t.count))
	}
	t.notify()
	return nil
}

// OnRows sets a hook that gets the rows of each request when they are stored,
// before they are acknowledged, in the table's order. It runs while the table
// is locked: it must be quick and must not use the table. The rows are valid
// during the call only. A nil hook removes it.
func (t *Table) OnRows(hook func(rows []Row)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hook = hook
}

// push adds a row and its message_id.
func (t *Table) push(row storedRow, h idHash, id []byte) {
	if h != (idHash{}) && !t.noIndex {
		t.ids.add(h, id)
		if t.cfg.MaxIDs > 0 && t.ids.size > t.cfg.MaxIDs {
			t.noIndex, t.ids = true, idIndex{}
			t.cfg.Log.Warn("too many message ids to count; distinct ones and duplicates cover the rows kept", zap.String("table", t.name), zap.Int("max_ids", t.cfg.MaxIDs))
		}
	}
	t.count++
	t.bytes += int64(len(row.raw))
	if t.cfg.MaxRows == 0 || len(t.ring) < t.cfg.MaxRows {
		t.ring = append(t.ring, row)
		return
	}
	t.ring[t.oldest] = row
	t.oldest = (t.oldest + 1) % t.cfg.MaxRows
}

// restore adds one row of the rows file, which was checked when it was written.
func (t *Table) restore(row []byte, b *batch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var id []byte
	if t.schema.id >= 0 {
		id, _ = columnText(row, idColumn)
	}
	t.push(storedRow{row, b}, hashID(id), id)
}

func (t *Table) notify() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// clear removes all rows; with drop, every later use of the table fails.
func (t *Table) clear(drop bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped = t.dropped || drop
	if err := t.journal.cleared(t.name); err != nil {
		return err
	}
	t.forget()
	return nil
}

func (t *Table) forget() {
	t.count, t.bytes, t.ring, t.oldest, t.ids, t.noIndex = 0, 0, nil, 0, idIndex{}, t.cfg.NoIndex
	t.notify()
}

// Columns lists the columns in table order.
func (t *Table) Columns() []Column {
	s := t.currentSchema()
	out := make([]Column, len(s.columns))
	for i, c := range s.columns {
		out[i] = Column{Name: c.name, Type: c.typ.String(), NotNull: c.notNull, Comment: c.comment}
	}
	return out
}

// AddColumn appends a column, as ALTER TABLE ... ADD COLUMN does. Requests that
// arrive afterwards are checked against the new columns, as after DropColumn
// and SetColumnTags.
func (t *Table) AddColumn(c Column) error {
	if !columnName.MatchString(c.Name) {
		return fmt.Errorf("add column %q to %s: the service takes ASCII letters, digits and underscore only", c.Name, t.name)
	}
	typ, err := parseType(c.Type)
	if err != nil {
		return fmt.Errorf("add column %s to %s: %w", c.Name, t.name, err)
	}
	return t.alter("", func(columns []field, _ int) ([]field, error) {
		if slices.ContainsFunc(columns, func(have field) bool { return strings.EqualFold(have.name, c.Name) }) {
			return nil, fmt.Errorf("add column %s to %s: the table has it already; drop it first", c.Name, t.name)
		}
		if len(columns) >= maxColumns {
			return nil, fmt.Errorf("add column %s to %s: the table has %d columns, the most the service takes; drop one first", c.Name, t.name, maxColumns)
		}
		return append(columns, field{name: c.Name, typ: typ, notNull: c.NotNull, comment: c.Comment}), nil
	})
}

// DropColumn removes a column. Stored rows stay as they are.
func (t *Table) DropColumn(name string) error {
	return t.alter(name, func(columns []field, i int) ([]field, error) {
		if len(columns) == 1 {
			return nil, fmt.Errorf("drop column %s of %s: it is the only one; drop the table instead", name, t.name)
		}
		return slices.Delete(columns, i, i+1), nil
	})
}

// SetColumnTags replaces the tags of a column. A tag is a key without a value.
func (t *Table) SetColumnTags(column string, tags ...string) error {
	return t.alter(column, func(columns []field, i int) ([]field, error) {
		columns[i].tags = slices.Clone(tags)
		return columns, nil
	})
}

// alter makes a new schema of what change returns for a copy of the columns
// and the position of column, unless that is "".
func (t *Table) alter(column string, change func(columns []field, i int) ([]field, error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.schema.index[column]
	if column != "" && !ok {
		return fmt.Errorf("alter column %s of %s: no such column; list them with Columns", column, t.name)
	}
	columns, err := change(slices.Clone(t.schema.columns), i)
	if err == nil {
		t.schema = newSchema(columns)
	}
	return err
}

// DDL is the CREATE TABLE statement of the table's current columns.
func (t *Table) DDL() string {
	lines := []string{}
	for _, c := range t.currentSchema().columns {
		line := "  `" + c.name + "` " + c.typ.text()
		if c.notNull {
			line += " NOT NULL"
		}
		if c.comment != "" {
			line += " COMMENT '" + strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(c.comment) + "'"
		}
		lines = append(lines, line)
	}
	name := strings.ReplaceAll(strings.ReplaceAll(t.name, "`", "``"), ".", "`.`")
	return "CREATE TABLE `" + name + "` (\n" + strings.Join(lines, ",\n") + "\n)\nUSING DELTA;\n"
}

// The kinds of table that take rows, as Unity Catalog names them.
const (
	TableManaged   = "MANAGED"
	TableStreaming = "STREAMING_TABLE"
	FormatDelta    = "DELTA" // also the beginning of DELTA_UNIFORM_ICEBERG and the like
)

// SetKind sets the table_type and the data_source_format that Unity Catalog
// reports for the table, such as VIEW and "", or MANAGED and ICEBERG. A new
// table is MANAGED and DELTA. Rows are refused unless the table is a managed
// Delta table or a streaming table.
func (t *Table) SetKind(tableType, format string) error {
	if tableType == "" {
		return fmt.Errorf("set the kind of %s: table_type is empty; use MANAGED, STREAMING_TABLE, VIEW, EXTERNAL or another of Unity Catalog's", t.name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kind, t.format = strings.ToUpper(tableType), strings.ToUpper(format)
	return nil
}

// Kind returns the table_type and the data_source_format that SetKind sets.
func (t *Table) Kind() (tableType, format string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.kind, t.format
}

// takesRows refuses rows for a table of a kind that the service does not write to.
func (t *Table) takesRows() *apiError {
	kind, format := t.Kind()
	if (kind == TableManaged || kind == TableStreaming) && (format == "" || strings.HasPrefix(format, FormatDelta)) {
		return nil
	}
	return refusal(400, numbered("Unsupported table kind.", codeTableKind, 0))
}

// Wait blocks until the table has had at least n rows since the last reset,
// or ctx ends.
func (t *Table) Wait(ctx context.Context, n int) error {
	for {
		t.mu.RLock()
		count, changed := t.count, t.changed
		t.mu.RUnlock()
		if count >= int64(n) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d rows in %s, which has %d: %w", n, t.name, count, context.Cause(ctx))
		}
	}
}

// Count is how many rows have been stored since the table was created or
// reset, including those that have left the ring.
func (t *Table) Count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return int(t.count)
}

// Bytes is the size of these rows as they arrived.
func (t *Table) Bytes() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.bytes
}

// Distinct is the number of different non-NULL values of a column. For
// message_id it counts every stored row, unless the table has no index of them; for any
// other column it reads the rows in the ring.
func (t *Table) Distinct(column string) int {
	t.mu.RLock()
	if column == idColumn && !t.noIndex {
		defer t.mu.RUnlock()
		return t.ids.size
	}
	t.mu.RUnlock()
	return len(t.counts(column))
}

// Duplicate is a value that several rows of a table share.
type Duplicate struct {
	Value string `json:"value"`
	Count int    `json:"count"` // rows that have it, at least 2
}

// Duplicates lists the values of a column that more than one row has, the
// most frequent first, over the same rows as Distinct.
func (t *Table) Duplicates(column string) []Duplicate {
	out := []Duplicate{}
	for v, n := range t.counts(column) {
		if n > 1 {
			out = append(out, Duplicate{v, n})
		}
	}
	slices.SortFunc(out, func(a, b Duplicate) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Value, b.Value))
	})
	return out
}

// counts has how often each value occurs; for an indexed message_id only those
// that occur more than once.
func (t *Table) counts(column string) map[string]int {
	t.mu.RLock()
	if column == idColumn && !t.noIndex {
		defer t.mu.RUnlock()
		return maps.Clone(t.ids.repeats)
	}
	t.mu.RUnlock()
	counts := map[string]int{}
	for _, row := range t.snapshot(0) {
		if text, ok := row.Value(column); ok {
			counts[text]++
		}
	}
	return counts
}

// Newest returns up to n rows, the newest first.
func (t *Table) Newest(n int) []Row {
	if n <= 0 {
		return nil
	}
	rows := t.snapshot(n)
	slices.Reverse(rows)
	return rows
}

// Rows returns the rows in the ring for which keep is true, the oldest first;
// nil returns all. keep runs without a lock held.
func (t *Table) Rows(keep func(Row) bool) []Row {
	rows := t.snapshot(0)
	if keep == nil {
		return rows
	}
	return slices.DeleteFunc(rows, func(r Row) bool { return !keep(r) })
}

// Stream returns the rows in the ring that came by one gRPC stream, in the
// order of their offsets.
func (t *Table) Stream(id string) []Row {
	return t.Rows(func(r Row) bool { return r.StreamID == id && id != "" })
}

// snapshot lists the newest n rows of the ring (0: all), the oldest first.
func (t *Table) snapshot(n int) []Row {
	t.mu.RLock()
	held, last := len(t.ring), t.count
	if n == 0 || n > held {
		n = held
	}
	rows := make([]storedRow, n)
	for i := range rows {
		rows[i] = t.ring[(t.oldest+held-n+i)%held]
	}
	t.mu.RUnlock()
	return asRows(rows, last)
}

// asRows converts rows, the last of which is the table's row number last.
func asRows(rows []storedRow, last int64) []Row {
	out := make([]Row, len(rows))
	for i, s := range rows {
		b := s.batch
		out[i] = Row{
			Seq: last - int64(len(rows)-1-i), ReceivedAt: b.at, Transport: b.transport,
			RequestID: b.requestID, StreamID: b.streamID, Offset: b.offset, JSON: s.json(),
		}
	}
	return out
}

// idIndex counts the values of message_id, also of rows that have left the
// ring. Its table guards it; the zero value is empty.
//
// It keeps hashes of 128 bits: at a billion rows the chance of a collision is
// below 1e-20. The set is open-addressed, which costs a third of a map's time
// per row, in many small tables, so that growing one delays nobody.
type idIndex struct {
	shards  [256]idShard
	size    int
	repeats map[string]int // text -> times seen, only of those seen more than once
}

type idShard struct {
	slots []idHash // a power of two; zero is free
	used  int
}

type idHash struct{ a, b uint64 }

var seedA, seedB = maphash.MakeSeed(), maphash.MakeSeed()

// hashID is zero for nil, which is no id, and for nothing else.
func hashID(id []byte) idHash {
	if id == nil {
		return idHash{}
	}
	return idHash{maphash.Bytes(seedA, id) | 1, maphash.Bytes(seedB, id)}
}

// add counts an id, whose hash is h.
func (x *idIndex) add(h idHash, id []byte) {
	if x.shards[h.b>>56].add(h) {
		x.size++
		return
	}
	if x.repeats == nil {
		x.repeats = map[string]int{}
	}
	x.repeats[string(id)] = max(x.repeats[string(id)], 1) + 1
}

// add reports whether the hash is new.
func (s *idShard) add(h idHash) bool {
	if (s.used+1)*4 > len(s.slots)*3 {
		old := s.slots
		s.slots, s.used = make([]idHash, max(16, 2*len(old))), 0
		for _, h := range old {
			if h.a != 0 {
				s.add(h)
			}
		}
	}
	mask := uint64(len(s.slots) - 1)
	for i := h.a >> 1 & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case idHash{}:
			s.slots[i] = h
			s.used++
			return true
		case h:
			return false
		}
	}
}

// catalog holds the tables. Their names are compared without case, as in Unity
// Catalog.
type catalog struct {
	cfg     *Config
	journal *journal

	mu         sync.RWMutex
	tables     map[string]*Table
	securables map[string]*securable // by full name, the tables' too; "" is the metastore
}

// Table returns a table by its full name, or nil where there is none.
func (c *catalog) Table(name string) *Table {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.tables[strings.ToLower(name)]
}

// Tables lists the full names of all tables, sorted.
func (c *catalog) Tables() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Sorted(maps.Keys(c.tables))
}

// CreateTable runs the CREATE TABLE, SCHEMA and CATALOG statements of a script: all of
// them or, on error, none. The service principal may write to what they make. Then it
// runs the ALTER TABLE statements, up to the first that fails. It returns the names of
// the created tables.
func (e *Emulator) CreateTable(ddl string) ([]string, error) {
	defs, alters, err := parseDDL(ddl)
	if err != nil {
		return nil, err
	}
	if len(defs) == 0 && len(alters) == 0 {
		return nil, errors.New("ddl holds no CREATE TABLE statement; add one")
	}
	created, err := e.create(AdminPrincipal, true, defs...)
	for _, alter := range alters {
		if err != nil {
			break
		}
		if _, refused := alter(e, AdminPrincipal); refused != nil {
			err = errors.New(refused.sqlText())
		}
	}
	return created, err
}

// create makes tables, and seeded what contains them. See add.
func (c *catalog) create(owner string, seeded bool, defs ...tableDef) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := map[string]*Table{}
	created := []string{}
	var replaced []string
	for _, def := range defs {
		if def.columns == nil { // a catalog or a schema, which may exist
			continue
		}
		_, here := c.tables[def.name]
		if _, twice := added[def.name]; here || twice {
			if def.ifNotExists {
				continue
			}
			if !def.replace {
				return nil, fmt.Errorf("create table %s: it exists already; drop it first or write IF NOT EXISTS", def.name)
			}
			replaced = append(replaced, def.name)
		}
		kind, format := TableManaged, FormatDelta
		if def.view != nil {
			kind, format = "VIEW", ""
		}
		added[def.name] = &Table{
			name: def.name, cfg: c.cfg, noIndex: c.cfg.NoIndex, journal: c.journal,
			schema: newSchema(def.columns), kind: kind, format: format, view: def.view, changed: make(chan struct{}),
		}
		created = append(created, def.name)
	}
	for _, name := range replaced {
		if old := c.tables[name]; old != nil {
			if err := old.clear(true); err != nil {
				return nil, err
			}
		}
	}
	maps.Copy(c.tables, added)
	for _, def := range defs {
		if c.securables[def.name] == nil {
			c.add(def.name, owner, seeded)
		}
	}
	return created, nil
}

// DropTable removes a table and its rows; writes to it then fail with 404.
func (c *catalog) DropTable(name string) error {
	if c.Table(name) == nil {
		return fmt.Errorf("drop table %s: no such table; list them with Tables", name)
	}
	return c.Drop(name)
}
