package emulator

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// DefaultWarehouse is the id of the warehouse that Config.Warehouses has by default.
const DefaultWarehouse = "emulator-warehouse"

// The states of a Warehouse.
const (
	WarehouseRunning  = "RUNNING"
	WarehouseStarting = "STARTING"
	WarehouseStopped  = "STOPPED"
)

// Warehouse is a SQL warehouse. Its JSON is that of the admin API.
type Warehouse struct {
	ID    string `json:"id"`
	Name  string `json:"name,omitzero"`  // "" means ID
	State string `json:"state,omitzero"` // STOPPED or RUNNING; "" means RUNNING
	// StartUp is how long it takes to start: a statement on a stopped one starts it.
	StartUp Duration `json:"start_up,omitzero"`
	// NoUse leaves the service principal without CAN USE: it does not see the warehouse.
	NoUse bool `json:"no_use,omitzero"`
}

// ParseWarehouse reads "id" or "id,state=stopped,start=3s,name=…,no-use", in any order
// after the id.
func ParseWarehouse(text string) (Warehouse, error) {
	id, rest, _ := strings.Cut(text, ",")
	w := Warehouse{ID: id}
	for part := range strings.SplitSeq(rest, ",") {
		var err error
		switch name, value, _ := strings.Cut(part, "="); name {
		case "":
		case "name":
			w.Name = value
		case "state":
			w.State = strings.ToUpper(value)
		case "start":
			err = w.StartUp.UnmarshalText([]byte(value))
		case "no-use":
			w.NoUse = true
		default:
			err = fmt.Errorf("no setting %q", name)
		}
		if err != nil {
			return w, fmt.Errorf("warehouse %q: %w; write id,state=stopped,start=3s,name=text,no-use", text, err)
		}
	}
	return w, w.validate()
}

func (w *Warehouse) validate() error {
	w.Name, w.State = cmp.Or(w.Name, w.ID), cmp.Or(w.State, WarehouseRunning)
	if w.ID == "" || strings.ContainsAny(w.ID, "/ ") || w.StartUp < 0 || time.Duration(w.StartUp) > time.Hour {
		return fmt.Errorf("warehouse %q: want an id without slash or blank, and 0 to 1h to start", w.ID)
	}
	return oneOf("state", w.State, WarehouseRunning, WarehouseStopped)
}

// SetWarehouses replaces the SQL warehouses; without arguments there are none.
func (e *Emulator) SetWarehouses(list ...Warehouse) error {
	list = slices.Clone(list)
	var p problems
	ids := map[string]bool{}
	for i := range list {
		p.add(list[i].validate())
		p.want(!ids[list[i].ID], "warehouse %q occurs twice", list[i].ID)
		ids[list[i].ID] = true
	}
	if err := errors.Join(p...); err != nil {
		return err
	}
	e.sql.mu.Lock()
	defer e.sql.mu.Unlock()
	e.sql.warehouses = nil
	for _, w := range list {
		e.sql.warehouses = append(e.sql.warehouses, &warehouse{Warehouse: w})
	}
	return nil
}

// Warehouses lists the SQL warehouses with their current state.
func (e *Emulator) Warehouses() []Warehouse {
	e.sql.mu.Lock()
	defer e.sql.mu.Unlock()
	out := []Warehouse{}
	for _, w := range e.sql.warehouses {
		out = append(out, w.now())
	}
	return out
}

// warehouse is a Warehouse that a statement may have started.
type warehouse struct {
	Warehouse
	ready time.Time // when it runs; zero if it is not starting
}

// now is the warehouse with its current state.
func (w *warehouse) now() Warehouse {
	out := w.Warehouse
	if !w.ready.IsZero() {
		out.State = WarehouseStarting
		if !time.Now().Before(w.ready) {
			out.State = WarehouseRunning
		}
	}
	return out
}

// start starts the warehouse if it is stopped, and returns how long until it runs.
func (w *warehouse) start() time.Duration {
	if w.State == WarehouseStopped && w.ready.IsZero() {
		w.ready = time.Now().Add(time.Duration(w.StartUp))
	}
	return time.Until(w.ready)
}

// The bounds of what is kept of statements.
const (
	maxStatements    = 100
	maxStatementText = 1 << 20  // bytes of a request
	maxResults       = 64 << 20 // bytes of all results; older ones are dropped, as the service closes statements
)

// sqlService holds warehouses and statements.
type sqlService struct {
	mu         sync.Mutex
	warehouses []*warehouse
	statements []*statement // the oldest first
}

// statement is one SQL statement. sqlService.mu guards it.
type statement struct {
	id, by string
	state  string
	result *resultSet
	size   int // bytes of result
	err    *apiError
	cancel chan struct{}
	done   chan struct{} // closed at a final state
}

// The states of a statement.
const (
	statePending   = "PENDING"
	stateSucceeded = "SUCCEEDED"
	stateFailed    = "FAILED"
	stateCanceled  = "CANCELED"
	stateClosed    = "CLOSED"
)

// statementRequest is the body of POST /api/2.0/sql/statements.
type statementRequest struct {
	Statement     string `json:"statement"`
	Warehouse     string `json:"warehouse_id"`
	Catalog       string `json:"catalog"`
	Schema        string `json:"schema"`
	WaitTimeout   string `json:"wait_timeout"`
	OnWaitTimeout string `json:"on_wait_timeout"`
	Disposition   string `json:"disposition"`
	Format        string `json:"format"`
	Parameters    []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
		Type  string `json:"type"`
	} `json:"parameters"`
}

// read checks a request and returns how long to wait for the statement's end.
func (in *statementRequest) read(body []byte) (wait time.Duration, _ *apiError) {
	if err := json.Unmarshal(body, in, json.RejectUnknownMembers(true)); err != nil {
		return 0, malformed("the body is not a request that the emulator knows: statement, warehouse_id, catalog, schema, wait_timeout, on_wait_timeout, disposition, format and parameters")
	}
	wait, err := time.ParseDuration(cmp.Or(in.WaitTimeout, "10s"))
	var p problems
	p.want(err == nil && (wait == 0 || wait >= 5*time.Second && wait <= 50*time.Second), "wait_timeout %q must be 0s, or 5s to 50s", printable(in.WaitTimeout))
	p.want(in.Statement != "" && in.Warehouse != "", "statement and warehouse_id are required")
	p.add(oneOf("on_wait_timeout", cmp.Or(in.OnWaitTimeout, "CONTINUE"), "CONTINUE", "CANCEL"), oneOf("disposition", cmp.Or(in.Disposition, "INLINE"), "INLINE"),
		oneOf("format", cmp.Or(in.Format, "JSON_ARRAY"), "JSON_ARRAY"))
	if err := errors.Join(p...); err != nil {
		return 0, malformed(err.Error())
	}
	return wait, nil
}

// execute serves POST /api/2.0/sql/statements.
func (e *Emulator) execute(c *call) (any, *apiError) {
	if err := e.authorize(c); err != nil {
		return nil, err
	}
	var in statementRequest
	wait, err := in.read(c.body)
	if err != nil {
		return nil, err
	}
	parameters := map[string]string{}
	for _, p := range in.Parameters {
		parameters[p.Name] = p.Value
	}
	run, refused := parseSQL(in.Statement, in.Catalog, in.Schema, parameters)
	if refused != nil {
		run = func(*Emulator, string) (*resultSet, *apiError) { return nil, refused }
	}
	s, until, err := e.admit(c.principal, in.Warehouse)
	if err != nil {
		return nil, err
	}
	if until <= 0 {
		e.finish(s, run)
	} else if !e.await(s, run, until) {
		return nil, refusal(http.StatusServiceUnavailable, "The emulator stops")
	}
	if wait == 0 {
		return s.describe(statePending, nil), nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-c.gone:
	case <-timer.C:
		if in.OnWaitTimeout == "CANCEL" {
			e.sql.end(s, stateCanceled, nil, nil)
		}
	}
	return e.sql.show(s), nil
}

// admit makes a statement, and returns how long until its warehouse runs.
func (e *Emulator) admit(by, id string) (*statement, time.Duration, *apiError) {
	x := &e.sql
	x.mu.Lock()
	defer x.mu.Unlock()
	w, err := x.warehouse(by, id)
	if err != nil {
		return nil, 0, err
	}
	if len(x.statements) == maxStatements {
		i := slices.IndexFunc(x.statements, func(s *statement) bool { return s.state != statePending })
		if i < 0 {
			return nil, 0, refusal(http.StatusTooManyRequests, "Too many statements wait for a warehouse")
		}
		x.statements = slices.Delete(x.statements, i, i+1)
	}
	s := &statement{id: tableID(rand.Text()), by: by, state: statePending, cancel: make(chan struct{}), done: make(chan struct{})}
	x.statements = append(x.statements, s)
	return s, w.start(), nil
}

// warehouse finds a warehouse that a principal may use. x.mu is held.
func (x *sqlService) warehouse(by, id string) (*warehouse, *apiError) {
	i := slices.IndexFunc(x.warehouses, func(w *warehouse) bool { return w.ID == id })
	switch {
	case i < 0:
		return nil, &apiError{status: http.StatusNotFound, code: "RESOURCE_DOES_NOT_EXIST", message: "SQL warehouse " + printable(id) + " does not exist."}
	case x.warehouses[i].NoUse && by != AdminPrincipal:
		return nil, refusal(http.StatusForbidden, "User does not have CAN USE permission on SQL warehouse "+id+".")
	}
	return x.warehouses[i], nil
}

// await runs a statement once its warehouse runs, unless it is canceled. It reports
// false after Close.
func (e *Emulator) await(s *statement, run command, until time.Duration) bool {
	if !e.active.add(1) {
		return false
	}
	go func() { // Close waits for active
		defer e.active.add(-1)
		timer := time.NewTimer(until)
		defer timer.Stop()
		select {
		case <-timer.C:
			e.finish(s, run)
		case <-s.cancel:
		case <-e.active.stop:
			e.sql.end(s, stateCanceled, nil, nil)
		}
	}()
	return true
}

// finish runs a statement.
func (e *Emulator) finish(s *statement, run command) {
	result, err := run(e, s.by)
	if err != nil {
		e.sql.end(s, stateFailed, nil, err)
		return
	}
	e.sql.end(s, stateSucceeded, result, nil)
}

// end gives a statement its final state, unless it has one.
func (x *sqlService) end(s *statement, state string, result *resultSet, err *apiError) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s.state != statePending {
		return
	}
	s.state, s.result, s.err = state, result, err
	close(s.cancel)
	close(s.done)
	if result == nil {
		return
	}
	for _, row := range result.rows {
		for _, v := range row {
			s.size += 16
			if v != nil {
				s.size += len(*v)
			}
		}
	}
	total := 0
	for _, kept := range slices.Backward(x.statements) {
		if total += kept.size; total > maxResults && kept.size > 0 && kept != s {
			kept.state, kept.result, kept.size = stateClosed, nil, 0
		}
	}
}

// show is the answer about a statement.
func (x *sqlService) show(s *statement) any {
	x.mu.Lock()
	defer x.mu.Unlock()
	return s.describe(s.state, s.result)
}

func (s *statement) describe(state string, result *resultSet) any {
	status := map[string]any{"state": state}
	answer := map[string]any{"statement_id": s.id, "status": status}
	if state == stateFailed {
		status["error"] = map[string]string{"error_code": "BAD_REQUEST", "message": s.err.sqlText()}
	}
	if state != stateSucceeded {
		return answer
	}
	manifest := map[string]any{"format": "JSON_ARRAY", "schema": map[string]any{"column_count": 0}, "total_chunk_count": 0, "total_row_count": 0, "truncated": false}
	answer["manifest"], answer["result"] = manifest, map[string]any{}
	if result == nil {
		return answer
	}
	columns := []map[string]any{}
	for i, f := range result.columns {
		columns = append(columns, map[string]any{"name": f.name, "position": i, "type_name": f.typ.catalogName(), "type_text": f.typ.String()})
	}
	manifest["schema"] = map[string]any{"column_count": len(columns), "columns": columns}
	if n := len(result.rows); n > 0 {
		chunk := map[string]any{"chunk_index": 0, "row_offset": 0, "row_count": n}
		manifest["total_chunk_count"], manifest["total_row_count"], manifest["chunks"] = 1, n, []any{chunk}
		answer["result"] = map[string]any{"chunk_index": 0, "row_offset": 0, "row_count": n, "data_array": result.rows}
	}
	return answer
}

// statement serves GET /api/2.0/sql/statements/{id}.
func (e *Emulator) statement(c *call) (any, *apiError) {
	s, err := e.statementOf(c)
	if err != nil {
		return nil, err
	}
	return e.sql.show(s), nil
}

// cancel serves POST /api/2.0/sql/statements/{id}/cancel.
func (e *Emulator) cancel(c *call) (any, *apiError) {
	s, err := e.statementOf(c)
	if err != nil {
		return nil, err
	}
	e.sql.end(s, stateCanceled, nil, nil)
	return struct{}{}, nil
}

func (e *Emulator) statementOf(c *call) (*statement, *apiError) {
	if err := e.authorize(c); err != nil {
		return nil, err
	}
	e.sql.mu.Lock()
	defer e.sql.mu.Unlock()
	for _, s := range e.sql.statements {
		if s.id == c.table && s.by == c.principal {
			return s, nil
		}
	}
	return nil, refusal(http.StatusNotFound, "The statement "+printable(c.table)+" was not found.")
}

// listWarehouses serves GET /api/2.0/sql/warehouses.
func (e *Emulator) listWarehouses(c *call) (any, *apiError) {
	if err := e.authorize(c); err != nil {
		return nil, err
	}
	list := []any{}
	for _, w := range e.Warehouses() {
		if !w.NoUse || c.principal == AdminPrincipal {
			list = append(list, w.document())
		}
	}
	return map[string]any{"warehouses": list}, nil
}

// oneWarehouse serves GET /api/2.0/sql/warehouses/{id}.
func (e *Emulator) oneWarehouse(c *call) (any, *apiError) {
	if err := e.authorize(c); err != nil {
		return nil, err
	}
	e.sql.mu.Lock()
	defer e.sql.mu.Unlock()
	w, err := e.sql.warehouse(c.principal, c.table)
	if err != nil {
		return nil, err
	}
	return w.now().document(), nil
}

func (w Warehouse) document() any {
	return map[string]any{"id": w.ID, "name": w.Name, "state": w.State, "warehouse_type": "PRO", "cluster_size": "2X-Small", "enable_serverless_compute": true}
}
