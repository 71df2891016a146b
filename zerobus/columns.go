package zerobus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"github.com/datafly/bridge/internal/delta"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Column is one column of a table.
type Column struct {
	Name     string // compared with case
	Type     string // Delta type in upper case, such as TIMESTAMP, DECIMAL(10,2) or STRUCT<a:INT NOT NULL>; names inside a STRUCT keep their case
	NotNull  bool
	Position int // from 0
}

// ColumnsUnreadable says that the service principal may not read the table's
// columns from Unity Catalog. Rows can be written all the same; they are only
// not checked beforehand.
type ColumnsUnreadable struct{ Err *Error }

// Error names the cause and the grants that would help.
func (e *ColumnsUnreadable) Error() string { return e.Err.Error() }

// Unwrap returns the service's answer.
func (e *ColumnsUnreadable) Unwrap() error { return e.Err }

const (
	columnsTimeout  = 10 * time.Second
	columnsTries    = 3
	columnsBytesMax = 2 << 20
)

// Columns reads the table's columns from Unity Catalog, in their order. What
// passes is tried three times. It returns a *ColumnsUnreadable where the
// service principal may not see them, which is also how Unity Catalog answers
// for a table that is not there, and an error that wraps an *UnwritableTable where
// Zerobus does not write to a table of this kind.
//
//	GET {workspace_url}/api/2.1/unity-catalog/tables/{catalog.schema.table}
//
// https://docs.databricks.com/api/workspace/tables/get
func (c *Client) Columns(ctx context.Context) ([]Column, error) {
	for try := 0; ; try++ {
		cols, err := c.readColumns(ctx)
		if err != nil && kindOf(err) == unauthorized {
			cols, err = c.readColumns(ctx)
		}
		e := asError(err)
		switch {
		case err == nil:
			c.drift.saw(cols)
			c.findRescue(ctx, cols)
			return cols, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("reading the columns of %s was given up: %w", c.set.table, context.Cause(ctx))
		case e.Op == opColumns && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Status == http.StatusNotFound):
			e.kind = configuration
			return nil, &ColumnsUnreadable{Err: e}
		case e.kind != transient, try+1 == columnsTries:
			return nil, err
		}
		if !sleep(ctx, delay(try, e.RetryAfter, c.jitter)) {
			return nil, fmt.Errorf("reading the columns of %s was given up: %w", c.set.table, context.Cause(ctx))
		}
	}
}

func (c *Client) readColumns(ctx context.Context) ([]Column, error) {
	token, err := c.plain.get(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, min(columnsTimeout, c.set.Timeout))
	defer cancel()
	url := c.set.base.String() + "/api/2.1/unity-catalog/tables/" + c.set.table.path()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.set.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.advice.network(opColumns, innermost(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, columnsBytesMax+1))
	if resp.StatusCode/100 != 2 {
		e := c.advice.answered(opColumns, resp, resp.StatusCode, decodeAnswer(text), append(c.plain.hidden(), token))
		if e.kind == unauthorized {
			c.plain.drop(token)
		} else if e.kind != transient {
			e.kind = configuration // nothing here is about a row
		}
		return nil, e
	}
	if err != nil {
		return nil, c.advice.network(opColumns, err)
	}
	if len(text) > columnsBytesMax {
		err = fmt.Errorf("the answer is over %d bytes", columnsBytesMax)
	}
	cols, bad := decodeColumns(text)
	if twice := (*ambiguousColumns)(nil); errors.As(bad, &twice) {
		return nil, &Error{Op: opColumns, Status: resp.StatusCode, Err: bad, kind: configuration,
			Meaning: "the columns of " + c.set.table.String() + " are ambiguous, and rows for the wrong one would all be refused",
			Remedy:  fmt.Sprintf("rename or drop column %q or %q of %s, and check that Unity Catalog itself answers for the workspace", twice.a.Name, twice.b.Name, c.set.table.Quoted())}
	}
	if kind := (*UnwritableTable)(nil); errors.As(bad, &kind) {
		return nil, kind.fault(c.set.table, resp.StatusCode)
	}
	if err = errors.Join(err, bad); err != nil {
		return nil, c.advice.misread(opColumns, resp.StatusCode, err)
	}
	return cols, nil
}

// decodeColumns reads the part of Unity Catalog's table document that is
// needed here. A missing "nullable" means true. It returns an *UnwritableTable for
// a table that takes no rows, before it looks at the columns.
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
		if c.Name == "" || or(c.TypeText, c.TypeName) == "" {
			return nil, errors.New("the answer lists a column without name or type")
		}
		if c.Position < 0 {
			continue // no column of the table itself
		}
		text := columnType(or(c.TypeText, c.TypeName), c.TypeJSON)
		cols = append(cols, Column{Name: c.Name, Type: text, NotNull: c.Nullable != nil && !*c.Nullable, Position: c.Position})
	}
	slices.SortStableFunc(cols, func(a, b Column) int { return a.Position - b.Position })
	return distinct(cols)
}

// ambiguousColumns says that two columns of an answer have one name for
// Databricks, which compares names without case.
type ambiguousColumns struct{ a, b Column }

func (e *ambiguousColumns) Error() string {
	return fmt.Sprintf("the answer lists column %q (%s) at position %d and column %q (%s) at position %d, which have the same name",
		e.a.Name, e.a.Type, e.a.Position, e.b.Name, e.b.Type, e.b.Position)
}

// distinct drops a column that is listed again word for word. Names that differ
// in case only, or a name with two types, are an *ambiguousColumns: rows made
// for the wrong one of the two would all be refused.
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

// columnType returns the type of a column in one spelling. The document tells
// which fields of a STRUCT are NOT NULL, and its text does not.
func columnType(text, doc string) string {
	t, err := delta.Parse(text)
	if err != nil {
		return strings.ToUpper(strings.TrimSpace(text)) // it is refused where a row should carry it
	}
	if strings.Contains(text, "<") {
		if full, err := delta.FromJSON([]byte(doc)); err == nil {
			t = full
		}
	}
	return t.String()
}

// SetRowColumns sets the columns that rows carry, with the types their values are
// encoded for. CheckColumns, Preflight and the judging of refused batches go
// by it; without it nothing is compared. Call it before the first Write, and
// again when rows are to be made for columns that have changed. It returns a
// number for Write: rows made for what an earlier call set are told apart
// by theirs, and come back with a *StaleError.
func (c *Client) SetRowColumns(cols []Column) (made int64) {
	c.columns.mu.Lock()
	c.columns.expected = slices.Clone(cols)
	c.columns.mu.Unlock()
	// Counted before streams change their form: who finds the new form then
	// also finds that older rows are stale.
	made = c.rowsMade.Add(1)
	if c.grpc != nil {
		c.grpc.adopt()
	}
	c.gate.hurry() // rows made anew may fit
	return made
}

// CheckColumns reads the table's columns and holds them against the expected
// ones. It returns a *SchemaError where they do not fit, and a
// *ColumnsUnreadable where they may not be read.
func (c *Client) CheckColumns(ctx context.Context) error {
	expected := c.columns.expect()
	if len(expected) == 0 {
		return nil
	}
	have, err := c.Columns(ctx)
	if err != nil {
		return err
	}
	return fit(c.set.table, expected, have)
}

// columnCheck compares columns after a refusal, sparingly: many partitions may
// be refused at once, and halving a batch brings a dozen refusals.
type columnCheck struct {
	mu       sync.Mutex // guards expected
	expected []Column

	turn    chan struct{} // holds one element; who takes it owns the fields below
	limit   *rate.Limiter
	at      time.Time // when the last comparison began
	made    int64     // what Client.rowsMade was then: a verdict on other columns is none on these
	verdict error
}

func newColumnCheck() *columnCheck {
	k := &columnCheck{turn: make(chan struct{}, 1), limit: rate.NewLimiter(10, 10)}
	k.turn <- struct{}{}
	return k
}

const verdictLife = 5 * time.Second

func (k *columnCheck) expect() []Column {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.expected
}

// expects reports whether rows may carry the named column.
func (k *columnCheck) expects(name string) bool {
	expected := k.expect()
	return len(expected) == 0 || slices.ContainsFunc(expected, func(c Column) bool { return c.Name == name })
}

// compare returns what CheckColumns does. Callers share one reading per 5 s.
// A batch of one row is about to be given up for good, so it gets a reading
// younger than its refusal, always: an older one says nothing of a column that
// was dropped since, and good rows would become dead letters. Where such rows
// are many they share readings or wait for them: ten at once, then ten a
// second.
func (k *columnCheck) compare(ctx context.Context, c *Client, rows int) error {
	if len(k.expect()) == 0 {
		return nil
	}
	asked := time.Now()
	select {
	case <-k.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { k.turn <- struct{}{} }()
	made := c.rowsMade.Load()
	known := !k.at.IsZero() && k.made == made && asked.Sub(k.at) < verdictLife
	var hidden *ColumnsUnreadable
	if known && (rows > 1 || k.at.After(asked) || errors.As(k.verdict, &hidden)) {
		return k.verdict
	}
	if known {
		if err := k.limit.Wait(ctx); err != nil {
			return err
		}
	}
	at := time.Now()
	err := c.CheckColumns(ctx)
	if ctx.Err() == nil {
		k.at, k.made, k.verdict = at, made, err
	}
	return err
}
