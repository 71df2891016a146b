package emulator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"
)

// Column is one column of a table.
type Column struct {
	Name    string `json:"name"`
	Type    string `json:"type"` // Delta SQL text in upper case, such as DECIMAL(10,2)
	NotNull bool   `json:"not_null,omitempty"`
	Comment string `json:"comment,omitempty"`
}

// Row is one row as it arrived.
type Row struct {
	Seq        int64           `json:"seq"`         // 1 for the table's first row
	ReceivedAt time.Time       `json:"received_at"` // when its batch was kept
	Transport  string          `json:"transport"`   // workspace, grpc or rest
	RequestID  string          `json:"request_id,omitempty"`
	StreamID   string          `json:"stream_id,omitempty"` // grpc: the stream it came by
	Offset     int64           `json:"offset"`              // grpc: offset_id of its message on that stream
	JSON       json.RawMessage `json:"row"`                 // the record: byte for byte if it came as JSON; shared, not to be changed
}

// The values of Row.Transport.
const (
	TransportWorkspace = "workspace"
	TransportGRPC      = "grpc"
	TransportREST      = "rest"
)

// Value returns what a column of the row reads as: a string's characters, the
// literal of a number or boolean, compact JSON for anything else. ok is false
// where the row has no such column or null.
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
	proto     *protoMessage // how to read the rows when they are protobuf; nil for JSON
}

// storedRow is a row in the ring.
type storedRow struct {
	raw   []byte // as it arrived
	batch *batch
}

// json is the row's JSON. Protobuf is turned into it here, when somebody
// looks, and not on the way in.
func (s storedRow) json() []byte {
	if s.batch.proto == nil {
		return s.raw
	}
	return s.batch.proto.appendJSON(nil, s.raw)
}

// Table is one emulated table. Its methods are safe for concurrent use.
type Table struct {
	name    string // catalog.schema.table, lower case
	maxRows int    // rows kept for browsing, 0: all
	noIndex bool   // message_id is a column like any other
	journal *journal

	mu      sync.RWMutex
	schema  *schema
	kind    string // table_type in Unity Catalog
	format  string // data_source_format in Unity Catalog
	dropped bool
	count   int64 // rows ever kept since the last reset
	bytes   int64
	ring    []storedRow
	oldest  int // position in ring of the oldest row once it is full
	ids     idIndex
	hook    func(rows []Row)
	changed chan struct{} // closed and replaced whenever rows are kept or removed
}

var (
	errDropped = errors.New("the table has been dropped")
	errAltered = errors.New("the table's columns have changed")
)

func newTable(def tableDef, maxRows int, noIndex bool, j *journal) *Table {
	return &Table{
		name: def.name, maxRows: maxRows, noIndex: noIndex, journal: j,
		schema: newSchema(def.columns), kind: TableManaged, format: FormatDelta, changed: make(chan struct{}),
	}
}

// Name is catalog.schema.table.
func (t *Table) Name() string { return t.name }

func (t *Table) currentSchema() *schema {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.schema
}

// keep stores rows. They are copied. It fails with errAltered when s, which the
// rows were judged by, is no longer the schema.
func (t *Table) keep(s *schema, fresh []newRow, b *batch) error {
	size := 0
	for _, row := range fresh {
		size += len(row.raw)
	}
	// One block for all rows of the request: cheap to make, and freed when
	// the last of them leaves the ring.
	block := make([]byte, 0, size)
	rows := make([]storedRow, len(fresh))
	ids := make([]idHash, len(fresh)) // made here, so that the index is looked up for many rows at a time
	for i, row := range fresh {
		ids[i] = hashID(row.id)
		from := len(block)
		block = append(block, row.raw...)
		rows[i] = storedRow{block[from:len(block):len(block)], b}
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dropped {
		return errDropped
	}
	if t.schema != s {
		return errAltered
	}
	if err := t.journal.rows(t.name, rows); err != nil {
		return err
	}
	for i, row := range rows {
		t.push(row, ids[i], fresh[i].id)
	}
	if t.hook != nil {
		t.hook(asRows(rows, t.count))
	}
	t.wake()
	return nil
}

// OnRows sets a hook that is handed the rows of each request when they are
// kept, before they are acknowledged, in the order in which they stand in the
// table. It runs while the table is locked: it should be quick and must not
// use the table. The rows are valid during the call only. A nil hook removes
// it.
func (t *Table) OnRows(hook func(rows []Row)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hook = hook
}

// push adds a row and its message_id.
func (t *Table) push(row storedRow, h idHash, id []byte) {
	if h != (idHash{}) && !t.noIndex {
		t.ids.add(h, id)
	}
	t.count++
	t.bytes += int64(len(row.raw))
	if t.maxRows == 0 || len(t.ring) < t.maxRows {
		t.ring = append(t.ring, row)
		return
	}
	t.ring[t.oldest] = row
	t.oldest = (t.oldest + 1) % t.maxRows
}

// restore adds one row read from the journal. It is not validated
// against the columns: it fitted when it was written.
func (t *Table) restore(row []byte, b *batch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var id []byte
	if t.schema.id >= 0 {
		id, _ = columnText(row, idColumn)
	}
	t.push(storedRow{row, b}, hashID(id), id)
}

func (t *Table) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// clear forgets all rows.
func (t *Table) clear() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clearLocked()
}

func (t *Table) clearLocked() error {
	if err := t.journal.cleared(t.name); err != nil {
		return err
	}
	t.forget()
	return nil
}

func (t *Table) forget() {
	t.count, t.bytes, t.ring, t.oldest, t.ids = 0, 0, nil, 0, idIndex{}
	t.wake()
}

// drop makes every later use of the table fail.
func (t *Table) drop() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped = true
	return t.clearLocked()
}

// Columns lists the columns in table order.
func (t *Table) Columns() []Column {
	s := t.currentSchema()
	out := make([]Column, len(s.columns))
	for i, c := range s.columns {
		out[i] = Column{Name: c.name, Type: c.typ.upperText(), NotNull: c.notNull, Comment: c.comment}
	}
	return out
}

// AddColumn appends a column, as ALTER TABLE ... ADD COLUMN does. Requests
// that arrive from then on are validated against the new columns.
func (t *Table) AddColumn(c Column) error {
	if !validColumnName(c.Name) {
		return fmt.Errorf("add column %q to %s: the service takes ASCII letters, digits and underscore only", c.Name, t.name)
	}
	p := newDDLParser(c.Type)
	typ := p.dataType(0)
	if p.tok.kind != tokEOF {
		p.fail("got %s behind the type; write the type alone", p.tok)
	}
	if p.err != nil {
		return fmt.Errorf("add column %s to %s: type %q: %w", c.Name, t.name, c.Type, p.err)
	}
	return t.alter(func(columns []field) ([]field, error) {
		if slices.ContainsFunc(columns, func(have field) bool { return strings.EqualFold(have.name, c.Name) }) {
			return nil, fmt.Errorf("add column %s to %s: the table has it already; drop it first", c.Name, t.name)
		}
		if len(columns) >= maxColumns {
			return nil, fmt.Errorf("add column %s to %s: the table has %d columns, the most the service takes; drop one first", c.Name, t.name, maxColumns)
		}
		return append(columns, field{name: c.Name, typ: typ, notNull: c.NotNull, comment: c.Comment}), nil
	})
}

// DropColumn removes a column. Rows already kept stay as they are.
func (t *Table) DropColumn(name string) error {
	return t.alter(func(columns []field) ([]field, error) {
		i, ok := t.schema.index[name]
		if !ok {
			return nil, fmt.Errorf("drop column %s of %s: no such column; list them with Columns", name, t.name)
		}
		if len(columns) == 1 {
			return nil, fmt.Errorf("drop column %s of %s: it is the only one; drop the table instead", name, t.name)
		}
		return slices.Delete(columns, i, i+1), nil
	})
}

// SetColumnTags replaces the tags of a column, which have a key alone. Requests
// that arrive from then on are validated against the columns so tagged.
func (t *Table) SetColumnTags(column string, tags ...string) error {
	return t.alter(func(columns []field) ([]field, error) {
		i, ok := t.schema.index[column]
		if !ok {
			return nil, fmt.Errorf("tag column %s of %s: no such column; list them with Columns", column, t.name)
		}
		columns[i].tags = slices.Clone(tags)
		return columns, nil
	})
}

// alter makes a new schema of what change makes of a copy of the columns.
func (t *Table) alter(change func([]field) ([]field, error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	columns, err := change(slices.Clone(t.schema.columns))
	if err == nil {
		t.schema = newSchema(columns)
	}
	return err
}

// DDL is the CREATE TABLE statement that makes the table as it is now.
func (t *Table) DDL() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE `%s` (", strings.ReplaceAll(strings.ReplaceAll(t.name, "`", "``"), ".", "`.`"))
	for i, c := range t.currentSchema().columns {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n  `%s` %s", c.name, c.typ.text())
		if c.notNull {
			b.WriteString(" NOT NULL")
		}
		if c.comment != "" {
			fmt.Fprintf(&b, " COMMENT '%s'", strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(c.comment))
		}
	}
	b.WriteString("\n)\nUSING DELTA;\n")
	return b.String()
}

// Wait blocks until the table has had at least n rows since the last reset,
// or ctx ends. It spares tests a polling loop.
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

// Count is how many rows have been kept since the table was created or
// reset, whether or not they are still in the ring.
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
// message_id it counts every row ever kept, unless Config.NoIndex is set; for
// any other column it reads the rows still in the ring.
func (t *Table) Distinct(column string) int {
	if column == idColumn && !t.noIndex {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return t.ids.size
	}
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
	var counts map[string]int
	if column == idColumn && !t.noIndex {
		t.mu.RLock()
		defer t.mu.RUnlock()
		counts = t.ids.repeats
	} else {
		counts = t.counts(column)
	}
	out := []Duplicate{}
	for v, n := range counts {
		if n > 1 {
			out = append(out, Duplicate{v, n})
		}
	}
	slices.SortFunc(out, func(a, b Duplicate) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Value, b.Value))
	})
	return out
}

func (t *Table) counts(column string) map[string]int {
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
// nil keeps all. keep runs without a lock held.
func (t *Table) Rows(keep func(Row) bool) []Row {
	rows := t.snapshot(0)
	if keep == nil {
		return rows
	}
	return slices.DeleteFunc(rows, func(r Row) bool { return !keep(r) })
}

// Stream returns the rows in the ring that came by one gRPC stream, in the
// order they were kept, which is that of their offsets.
func (t *Table) Stream(id string) []Row {
	return t.Rows(func(r Row) bool { return r.StreamID == id && id != "" })
}

// snapshot lists the newest n rows (0: all that are kept), the oldest first.
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

// asRows shows rows, the last of which is the table's row number last.
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

// idIndex counts the values of message_id. It outlives the rows: rows that
// have left the ring stay counted. It is guarded by its table; the zero value
// is empty.
//
// A value is kept as a hash of 128 bits: the chance of taking two for one is
// below 1e-20 at a billion rows, at a quarter of the memory of the values. The
// set of hashes is open-addressed, so that a row costs one cache miss where a
// map costs three, in many small tables, so that growing one holds up nobody.
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

// add reports whether the hash was not there before.
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
