package zerobus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/delta"
	"github.com/datafly/bridge/internal/panics"
)

// Column is one column of a table.
type Column struct {
	Name     string // compared with case
	Type     string // Delta type in upper case, such as TIMESTAMP, DECIMAL(10,2) or STRUCT<a:INT NOT NULL>; names inside a STRUCT keep their case
	NotNull  bool
	Position int // from 0
}

// ColumnsUnreadable reports that the service principal may not read the table's columns from
// Unity Catalog. Rows can be written, but not checked beforehand.
type ColumnsUnreadable struct{ Err *Error }

// Error names the cause and the missing grants.
func (e *ColumnsUnreadable) Error() string { return e.Err.Error() }

// Unwrap returns the service's answer.
func (e *ColumnsUnreadable) Unwrap() error { return e.Err }

const (
	catalogTimeout = 10 * time.Second
	columnsTries   = 3
)

// Columns reads the table's columns from Unity Catalog, in their order. It tries three times
// on transient faults. It returns a *ColumnsUnreadable if the service principal may not see
// them, or the table does not exist, since Unity Catalog does not distinguish the two. It
// returns an error that wraps an *UnwritableTable for a kind that Zerobus does not write to.
//
//	GET {workspace_url}/api/2.1/unity-catalog/tables/{catalog.schema.table}
//
// https://docs.databricks.com/api/workspace/tables/get
func (c *Client) Columns(ctx context.Context) ([]Column, error) {
	for try := 0; ; try++ {
		cols, err := c.readColumns(ctx)
		if err == nil {
			c.findRescue(ctx, c.current.Load(), cols)
			c.watch.record(cols)
			return cols, nil
		}
		e := asError(err)
		if ctx.Err() == nil {
			hidden := e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Status == http.StatusNotFound
			switch {
			case e.Op == opColumns && hidden:
				e.kind = configuration
				return nil, &ColumnsUnreadable{Err: e}
			case e.kind != transient, try+1 == columnsTries:
				return nil, err
			}
		}
		if !sleep(ctx, delay(try, e.RetryAfter, c.jitter)) {
			return nil, fmt.Errorf("reading the columns of %s was given up: %w", c.set.table, context.Cause(ctx))
		}
	}
}

func (c *Client) readColumns(ctx context.Context) ([]Column, error) {
	text, err := c.Workspace().TableDocument(ctx, c.set.table.String())
	if is[*databricks.Error](err) {
		err = c.rem.byWorkspace(opColumns, err)
	}
	if err != nil {
		return nil, err
	}
	cols, err := decodeColumns(text)
	if twice, ok := errors.AsType[*ambiguousColumns](err); ok {
		return nil, &Error{Op: opColumns, Status: http.StatusOK, Err: err, kind: configuration,
			Meaning: "the columns of " + c.set.table.String() + " are ambiguous, and rows for the wrong one would all be refused",
			Remedy: fmt.Sprintf("rename or drop column %q or %q of %s, and check that Unity Catalog itself answers for the workspace",
				twice.a.Name, twice.b.Name, c.set.table.Quoted())}
	}
	if kind, ok := errors.AsType[*UnwritableTable](err); ok {
		return nil, kind.fault(c.set.table)
	}
	if err != nil {
		return nil, c.rem.misread(opColumns, http.StatusOK, err)
	}
	return cols, nil
}

// decodeColumns reads the columns from Unity Catalog's table document. A missing "nullable"
// means true. It returns an *UnwritableTable first, before it looks at the columns.
func decodeColumns(text []byte) ([]Column, error) {
	var doc struct {
		Type    string `json:"table_type"`
		Format  string `json:"data_source_format"`
		Columns []struct {
			Name     string `json:"name"`
			Position int    `json:"position"`
			Nullable *bool  `json:"nullable"`
			TypeName string `json:"type_name"`
			TypeText string `json:"type_text"`
			TypeJSON string `json:"type_json"`
		} `json:"columns"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, errors.New("the answer is no table document")
	}
	if err := writableKind(doc.Type, doc.Format); err != nil {
		return nil, err
	}
	if len(doc.Columns) == 0 {
		return nil, errors.New("the answer lists no columns")
	}
	cols := make([]Column, 0, len(doc.Columns))
	for _, c := range doc.Columns {
		typeText := cmp.Or(c.TypeText, c.TypeName)
		if c.Name == "" || typeText == "" {
			return nil, errors.New("the answer lists a column without name or type")
		}
		if c.Position < 0 {
			continue // no column of the table itself
		}
		cols = append(cols, Column{Name: c.Name, Type: columnType(typeText, c.TypeJSON), NotNull: c.Nullable != nil && !*c.Nullable, Position: c.Position})
	}
	slices.SortStableFunc(cols, func(a, b Column) int { return a.Position - b.Position })
	return distinct(cols)
}

// ambiguousColumns reports that two columns of an answer have one name for Databricks, which
// compares names without case.
type ambiguousColumns struct{ a, b Column }

func (e *ambiguousColumns) Error() string {
	return fmt.Sprintf("the answer lists column %q (%s) at position %d and column %q (%s) at position %d, which have the same name",
		e.a.Name, e.a.Type, e.a.Position, e.b.Name, e.b.Type, e.b.Position)
}

// distinct drops exact repetitions of a column. Names that differ in case only, or a name
// with two types, are an *ambiguousColumns.
func distinct(cols []Column) ([]Column, error) {
	seen := make(map[string]Column, len(cols))
	kept := cols[:0]
	for _, c := range cols {
		key := strings.ToLower(c.Name)
		before, again := seen[key]
		switch {
		case again && before != c:
			return nil, &ambiguousColumns{before, c}
		case again:
			continue
		}
		seen[key] = c
		kept = append(kept, c)
	}
	return kept, nil
}

// columnType returns the type of a column in one spelling. Only the JSON document holds NOT
// NULL of STRUCT fields.
func columnType(text, doc string) string {
	t, err := delta.Parse(text)
	if err != nil {
		return strings.ToUpper(strings.TrimSpace(text)) // refused for rows that carry the column
	}
	if strings.Contains(text, "<") {
		if full, err := delta.FromJSON([]byte(doc)); err == nil {
			t = full
		}
	}
	return t.String()
}

// SetRowColumns sets the columns that rows carry, with the types their values are encoded
// for. CheckColumns, Preflight and the check of refused batches compare the table with them.
// Call it before the first Write, and again when rows are encoded for changed columns. It
// returns the schema version for Write: rows of an older version come back with a
// *StaleError.
func (c *Client) SetRowColumns(cols []Column) (schemaVersion int64) {
	c.check.mu.Lock()
	c.check.carried = slices.Clone(cols)
	c.check.mu.Unlock()
	c.watch.adopt()
	c.rows.mu.Lock()
	defer c.rows.mu.Unlock()
	r := c.current.Load()
	if c.rows.encodedFor != nil && c.rows.encodedFor != r {
		return c.schemaVersion.Load() - 1 // the rows are for an earlier route, and Watch asks for others
	}
	// Counted before streams change their encoding, so that whoever meets the new encoding
	// also finds older rows stale.
	schemaVersion = c.schemaVersion.Add(1)
	if r.grpc != nil {
		r.grpc.activate()
	}
	if c.rows.awaited != nil {
		close(c.rows.awaited)
		c.rows.awaited = nil
	}
	c.breaker.probeNow() // the new rows may fit
	return schemaVersion
}

// CheckColumns reads the table's columns and compares them with those of the rows. It
// returns a *SchemaError if they do not match, and a *ColumnsUnreadable if they may not be
// read.
func (c *Client) CheckColumns(ctx context.Context) error {
	carried := c.check.columns()
	if len(carried) == 0 {
		return nil
	}
	have, err := c.Columns(ctx)
	if err != nil {
		return err
	}
	return compareColumns(c.set.table, carried, have)
}

// columnCheck limits how often columns are compared after refusals: many partitions may be
// refused at once, and splitting a batch brings a dozen refusals.
type columnCheck struct {
	mu      sync.Mutex // guards carried
	carried []Column   // by rows

	turn          chan struct{} // an element is in it while somebody uses the fields below
	limit         *rate.Limiter
	at            time.Time // when the last comparison began
	schemaVersion int64     // what it was then: a result for other columns does not count
	result        error
}

const resultLife = 5 * time.Second

func (k *columnCheck) columns() []Column {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.carried
}

// carries reports whether rows may carry the named column.
func (k *columnCheck) carries(name string) bool {
	carried := k.columns()
	return len(carried) == 0 || slices.ContainsFunc(carried, func(c Column) bool { return c.Name == name })
}

// compare returns what CheckColumns does. Callers share one result for 5 s. A batch of one
// row is about to be given up, so it needs a result younger than its refusal: an older one
// may miss a column that was dropped since, and good rows would become dead letters. Such
// batches share results, ten at once, then ten a second.
func (k *columnCheck) compare(ctx context.Context, c *Client, rows int) error {
	if len(k.columns()) == 0 {
		return nil
	}
	asked := time.Now()
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-k.turn }()
	version := c.schemaVersion.Load()
	known := !k.at.IsZero() && k.schemaVersion == version && asked.Sub(k.at) < resultLife
	if known && (rows > 1 || k.at.After(asked) || is[*ColumnsUnreadable](k.result)) {
		return k.result
	}
	if known {
		if err := k.limit.Wait(ctx); err != nil {
			return err
		}
	}
	at := time.Now()
	err := c.CheckColumns(ctx)
	if ctx.Err() == nil {
		k.at, k.schemaVersion, k.result = at, version, err
	}
	return err
}

// Watch reads the table's columns every Config.ColumnsRefresh. It calls onChange from the
// caller's goroutine whenever they differ from the last ones, at first those given to
// Encoding. Reads after refused rows count too. It also calls onChange,
// with the columns that rows are encoded for, when Decide has changed the transport; writing is
// blocked if rows are not encoded then. err is nil if the columns that rows carry
// (SetRowColumns) still match, else a *SchemaError; writing is blocked only once the service
// refuses rows for it.
//
// In onChange, compile rows for the new columns, then call Encoding and SetRowColumns. Watch
// returns nil when ctx ends. After a panic, in Watch or in a goroutine of a gRPC stream, it
// returns that as an error; the Client is of no further use then.
func (c *Client) Watch(ctx context.Context, onChange func(cols []Column, err error)) (err error) {
	defer panics.To(&err)
	reported, _, _ := c.watch.columns()
	failing := false // reading fails, and that was logged
	every := c.set.ColumnsRefresh
	// Up to a tenth later each time, so that many bridges do not ask Unity Catalog at once.
	timer := time.NewTimer(every + c.jitter(every/10))
	defer timer.Stop()
	if every == 0 {
		timer.Stop() // for good
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-c.crashed:
			return err
		case <-c.rerouted:
			_, cols, latest := c.watch.columns()
			onChange(slices.Clone(cols), nil)
			c.blockUnencoded()
			if reported = cols; latest != nil {
				c.watch.record(latest) // it may be another, which rows could not be encoded for
			}
		case <-c.watch.news:
			_, _, cols := c.watch.columns()
			if slices.Equal(cols, reported) {
				continue
			}
			reported = cols
			c.log.Info("the table's columns have changed", zap.Int("columns", len(cols)))
			onChange(slices.Clone(cols), compareColumns(c.set.table, c.check.columns(), cols))
		case <-timer.C:
			timer.Reset(every + c.jitter(every/10))
			_, err := c.Columns(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil && !failing {
				c.log.Info("the table's columns cannot be read for the moment; rows are sent as before", zap.Error(err))
			}
			failing = err != nil
		}
	}
}

// columnWatch compares the columns that rows are encoded for with those read since.
type columnWatch struct {
	news chan struct{} // holds an element when latest may have changed

	mu     sync.Mutex // guards the fields below
	chosen []Column   // given to Encoding
	inUse  []Column   // given to Encoding before the last SetRowColumns; nil: not known
	latest []Column   // the last that were read
}

func (w *columnWatch) choose(cols []Column) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chosen = slices.Clone(cols)
}

func (w *columnWatch) adopt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inUse = w.chosen
}

func (w *columnWatch) columns() (chosen, inUse, latest []Column) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.chosen, w.inUse, w.latest
}

// record records columns that were read.
func (w *columnWatch) record(cols []Column) {
	w.mu.Lock()
	w.latest = slices.Clone(cols)
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// rescueTag marks a table's rescue column, a nullable VARIANT: it takes the fields of JSON
// rows that are no column or do not fit one. Protobuf rows are refused for them as without it.
// https://docs.databricks.com/aws/en/ingestion/zerobus-rescue-column
const rescueTag = "zerobus-rescue"

// rescueColumnsMax bounds the columns whose tags are read.
const rescueColumnsMax = 20

// rescue is what is known of the rescue column.
type rescue struct {
	column string // "": there is none, or it is not known
	err    error  // why it is not known
}

// findRescue looks for the rescue column, on which the choice of the format depends. It reads
// tags only while the format is not chosen, and only of columns that qualify.
func (c *Client) findRescue(ctx context.Context, r *route, cols []Column) {
	if r.grpc == nil || c.set.RecordFormat == FormatJSON {
		return
	}
	n := &r.grpc.fields
	n.mu.Lock()
	chosen := n.format != ""
	n.mu.Unlock()
	if chosen {
		return
	}
	var found rescue
	found.column, found.err = c.RescueColumn(ctx, cols)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rescue = found
}

// RescueColumn returns the name of the rescue column among those that Columns returned, empty if
// there is none. It reads tags from Unity Catalog. The error is why it is not known.
func (c *Client) RescueColumn(ctx context.Context, cols []Column) (string, error) {
	asked := 0
	for _, col := range cols {
		if col.Type != "VARIANT" || col.NotNull {
			continue
		}
		if asked++; asked > rescueColumnsMax {
			return "", fmt.Errorf("the table has more than %d nullable VARIANT columns", rescueColumnsMax)
		}
		tagged, err := c.Workspace().HasColumnTag(ctx, c.set.table.String(), col.Name, rescueTag)
		if tagged {
			return col.Name, nil
		}
		if err != nil { // the next column's would fail likewise
			return "", fmt.Errorf("read the tags of column %q: %w", databricks.Clean(col.Name, 255), err)
		}
	}
	return "", nil
}
