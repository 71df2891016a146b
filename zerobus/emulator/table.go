package emulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	var reader rowReader
	b, ok := reader.column(r.JSON, column)
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

// accepted are rows that fit the columns of schema, before they are kept.
type accepted struct {
	schema *schema
	src    []byte
	rows   []span   // each row, within src
	ids    []idHash // per row, the hash of its message_id; zero for none
	idText []span   // where each message_id stands in src
	text   func(raw []byte) (text []byte, ok bool)

	rewritten map[int][]byte // rows, by their place, that are kept in another form
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
		schema: newSchema(def.columns), kind: TableManaged, format: FormatDelta, ids: newIDIndex(), changed: make(chan struct{}),
	}
}

// Name is catalog.schema.table.
func (t *Table) Name() string { return t.name }

func (t *Table) currentSchema() *schema {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.schema
}

// keep stores rows. They are copied. It fails with errAltered when the columns
// are no longer those the rows were judged by.
func (t *Table) keep(a *accepted, b *batch) error {
	size := 0
	for _, s := range a.rows {
		size += s.end - s.start
	}
	// One block for all rows of the request: cheap to make, and freed when
	// the last of them leaves the ring.
	block := make([]byte, 0, size)
	rows := make([]storedRow, len(a.rows))
	for i, s := range a.rows {
		if row, ok := a.rewritten[i]; ok {
			rows[i] = storedRow{row, b}
			continue
		}
		from := len(block)
		block = append(block, a.src[s.start:s.end]...)
		rows[i] = storedRow{block[from:len(block):len(block)], b}
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dropped {
		return errDropped
	}
	if t.schema != a.schema {
		return errAltered
	}
	if err := t.journal.rows(t.name, rows); err != nil {
		return err
	}
	for i, row := range rows {
		t.push(row)
		if t.noIndex {
			continue
		}
		t.ids.add(a.ids[i], func() string {
			text, _ := a.text(a.src[a.idText[i].start:a.idText[i].end])
			return string(text)
		})
	}
	if t.hook != nil {
		t.hook(t.asRows(rows, t.count))
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

func (t *Table) push(row storedRow) {
	t.count++
	t.bytes += int64(len(row.raw))
	if t.maxRows == 0 || len(t.ring) < t.maxRows {
		t.ring = append(t.ring, row)
		return
	}
	t.ring[t.oldest] = row
	t.oldest = (t.oldest + 1) % t.maxRows
}

// restore adds one row read from the journal. It is not held against the
// columns: it fitted when it was written.
func (t *Table) restore(row []byte, b *batch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.push(storedRow{row, b})
	if t.schema.id >= 0 && !t.noIndex {
		var r rowReader
		if text, ok := r.column(row, idColumn); ok {
			t.ids.add(hashID(text), func() string { return string(text) })
		}
	}
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
	t.count, t.bytes, t.ring, t.oldest, t.ids = 0, 0, nil, 0, newIDIndex()
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
// that arrive from then on are held against the new columns.
func (t *Table) AddColumn(c Column) error {
	p := &ddlParser{lex: lexer{src: c.Type, line: 1}}
	if err := p.next(); err != nil {
		return fmt.Errorf("add column %s to %s: %w", c.Name, t.name, err)
	}
	if !validColumnName(c.Name) {
		return fmt.Errorf("add column %q to %s: the service takes ASCII letters, digits and underscore only", c.Name, t.name)
	}
	typ, err := p.dataType(0)
	if err == nil && p.tok.kind != tokEOF {
		err = p.errorf("got %s behind the type; write the type alone", p.tok)
	}
	if err != nil {
		return fmt.Errorf("add column %s to %s: type %q: %w", c.Name, t.name, c.Type, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, have := range t.schema.columns {
		if strings.EqualFold(have.name, c.Name) {
			return fmt.Errorf("add column %s to %s: the table has it already; drop it first", c.Name, t.name)
		}
	}
	if len(t.schema.columns) >= maxColumns {
		return fmt.Errorf("add column %s to %s: the table has %d columns, the most the service takes; drop one first", c.Name, t.name, maxColumns)
	}
	columns := append([]field(nil), t.schema.columns...)
	t.schema = newSchema(append(columns, field{name: c.Name, typ: typ, notNull: c.NotNull, comment: c.Comment}))
	return nil
}

// DropColumn removes a column. Rows already kept stay as they are.
func (t *Table) DropColumn(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.schema.index[name]
	if !ok {
		return fmt.Errorf("drop column %s of %s: no such column; list them with Columns", name, t.name)
	}
	if len(t.schema.columns) == 1 {
		return fmt.Errorf("drop column %s of %s: it is the only one; drop the table instead", name, t.name)
	}
	columns := append([]field(nil), t.schema.columns[:i]...)
	t.schema = newSchema(append(columns, t.schema.columns[i+1:]...))
	return nil
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
