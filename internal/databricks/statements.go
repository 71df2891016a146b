package databricks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Warehouse is a SQL warehouse.
type Warehouse struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	State string `json:"state"`                  // RUNNING, STARTING, STOPPED, STOPPING, DELETING or DELETED
	Size  string `json:"cluster_size,omitempty"` // such as 2X-Small
}

// Running reports whether a statement starts at once. A warehouse that is stopped starts with
// the next statement, which takes minutes and costs.
func (w Warehouse) Running() bool { return w.State == "RUNNING" }

func (w Warehouse) usable() bool { return w.ID != "" && w.State != "DELETING" && w.State != "DELETED" }

// clean keeps texts of the answer on one line.
func (w Warehouse) clean() Warehouse {
	return Warehouse{Clean(w.ID, 100), Clean(w.Name, 100), Clean(w.State, 40), Clean(w.Size, 40)}
}

// Warehouses lists the warehouses that the principal may see and that are not deleted.
//
//	GET /api/2.0/sql/warehouses
//
// https://docs.databricks.com/api/workspace/warehouses/list
func (c *Client) Warehouses(ctx context.Context) ([]Warehouse, error) {
	const at = "/api/2.0/sql/warehouses"
	var all []Warehouse
	query := url.Values{}
	for range pagesMax {
		var page struct {
			Warehouses []Warehouse `json:"warehouses"`
			Next       string      `json:"next_page_token"`
		}
		if _, err := c.get(ctx, at, query, &page); err != nil {
			return nil, err
		}
		for _, w := range page.Warehouses {
			if w = w.clean(); w.usable() {
				all = append(all, w)
			}
		}
		if page.Next == "" {
			return all, nil
		}
		query.Set("page_token", page.Next)
	}
	return nil, &Error{Call: "GET " + at, Err: fmt.Errorf("the answer has over %d pages", pagesMax)}
}

// Warehouse returns one warehouse.
//
//	GET /api/2.0/sql/warehouses/{id}
//
// https://docs.databricks.com/api/workspace/warehouses/get
func (c *Client) Warehouse(ctx context.Context, id string) (Warehouse, error) {
	var w Warehouse
	_, err := c.get(ctx, "/api/2.0/sql/warehouses/"+path(id), nil, &w)
	return w.clean(), err
}

// Rows are the result of a query, in the order of its columns. A value is text, or nil for NULL.
type Rows struct {
	Columns []string    `json:"columns"`
	Rows    [][]*string `json:"rows"`
}

// StatementError is a statement that the warehouse did not complete.
type StatementError struct {
	State   string // FAILED, CANCELED or CLOSED
	Code    string // of the workspace, such as PERMISSION_DENIED; may be empty
	Message string // of the workspace: one line, at most 500 bytes, no secrets
}

// Error names state, code and message, without a remedy.
func (e *StatementError) Error() string {
	text := "the statement ended as " + e.State
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Message != "" {
		text += fmt.Sprintf(" %q", e.Message)
	}
	return text
}

const (
	statementsPath  = "/api/2.0/sql/statements"
	pollFirst       = 50 * time.Millisecond
	pollMost        = 5 * time.Second
	cancelTimeout   = 2 * time.Second
	resultChunksMax = 1 // a longer result is an error: callers bound their queries
)

type statementAnswer struct {
	ID     string `json:"statement_id"`
	Status struct {
		State string `json:"state"`
		Error struct {
			Code    string `json:"error_code"`
			Message string `json:"message"`
		} `json:"error"`
	} `json:"status"`
	Manifest struct {
		Chunks int `json:"total_chunk_count"`
		Schema struct {
			Columns []struct {
				Name string `json:"name"`
			} `json:"columns"`
		} `json:"schema"`
	} `json:"manifest"`
	Result struct {
		Rows [][]*string `json:"data_array"`
	} `json:"result"`
}

// Execute runs one SQL statement on a warehouse and waits for its end, until ctx ends; then it
// asks the workspace to cancel the statement. It is not sent twice. Errors are
// *StatementError, *Error, or those of Token.
//
//	POST /api/2.0/sql/statements, GET /api/2.0/sql/statements/{id}, POST /api/2.0/sql/statements/{id}/cancel
//
// https://docs.databricks.com/api/workspace/statementexecution
func (c *Client) Execute(ctx context.Context, warehouseID, sql string) (Rows, error) {
	in := map[string]string{"statement": sql, "warehouse_id": warehouseID, "wait_timeout": "0s", // the id comes at once, to cancel by
		"disposition": "INLINE", "format": "JSON_ARRAY"}
	var answer statementAnswer
	if _, err := c.call(ctx, http.MethodPost, statementsPath, in, &answer); err != nil {
		return Rows{}, err
	}
	at := statementsPath + "/" + path(answer.ID)
	for wait := pollFirst; answer.Status.State == "PENDING" || answer.Status.State == "RUNNING"; wait = min(2*wait, pollMost) {
		if answer.ID == "" {
			return Rows{}, &Error{Call: "POST " + statementsPath, Err: errors.New("the answer names no statement_id")}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			c.cancel(ctx, at)
			return Rows{}, context.Cause(ctx)
		}
		answer = statementAnswer{ID: answer.ID}
		if _, err := c.get(ctx, at, nil, &answer); err != nil {
			c.cancel(ctx, at)
			return Rows{}, err
		}
	}
	switch answer.Status.State {
	case "SUCCEEDED", "FAILED", "CANCELED", "CLOSED":
	default:
		return Rows{}, &Error{Call: "POST " + statementsPath, Err: fmt.Errorf("the answer names %q as the state of the statement", Clean(answer.Status.State, 40))}
	}
	if answer.Status.State != "SUCCEEDED" {
		e := answer.Status.Error
		secrets := c.secrets(ctx)
		return Rows{}, &StatementError{State: answer.Status.State, Code: ErrorCode(e.Code, secrets), Message: Clean(e.Message, 500, secrets...)}
	}
	if answer.Manifest.Chunks > resultChunksMax {
		return Rows{}, &Error{Call: "GET " + at, Err: fmt.Errorf("the result has %d chunks, more than %d", answer.Manifest.Chunks, resultChunksMax)}
	}
	var rows Rows
	for _, column := range answer.Manifest.Schema.Columns {
		rows.Columns = append(rows.Columns, column.Name)
	}
	if slices.ContainsFunc(answer.Result.Rows, func(row []*string) bool { return len(row) != len(rows.Columns) }) {
		return Rows{}, &Error{Call: "GET " + at, Err: errors.New("a row of the result has another number of values than the result has columns")}
	}
	rows.Rows = answer.Result.Rows
	return rows, nil
}

// cancel ends a statement that nobody waits for any more. Its outcome changes nothing here.
func (c *Client) cancel(ctx context.Context, at string) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	_, _ = c.call(ctx, http.MethodPost, at+"/cancel", struct{}{}, nil)
}

// secrets returns the texts that no error may repeat.
func (c *Client) secrets(ctx context.Context) []string {
	var all []string
	if token, err := c.Token(ctx); err == nil {
		all = append(all, token)
	}
	if c.Secrets != nil {
		all = append(all, c.Secrets()...)
	}
	return all
}
