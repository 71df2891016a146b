package databricks_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/internal/databricks"
)

// answering answers requests in the caller's goroutine, so that time in it is virtual.
type answering func(method, path, body string) (status int, answer string)

func (w answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	status, answer := w(r.Method, r.URL.RequestURI(), string(body))
	return &http.Response{StatusCode: status, Request: r, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer))}, nil
}

func (w answering) client() *databricks.Client {
	return &databricks.Client{URL: "https://workspace.example", HTTP: &http.Client{Transport: w},
		Token: func(context.Context) (string, error) { return "the-token", nil }, Secrets: func() []string { return []string{"the-secret"} }}
}

func TestExecute(t *testing.T) {
	const done = `{"statement_id":"s/1","status":{"state":"SUCCEEDED"},"manifest":{"total_chunk_count":1,"schema":{"columns":[{"name":"a"},{"name":"b"}]}},"result":{"data_array":[["1",null],["2","x"]]}}`
	const pending, running = `{"statement_id":"s/1","status":{"state":"PENDING"}}`, `{"statement_id":"s/1","status":{"state":"RUNNING"}}`
	for _, tc := range []struct {
		name    string
		answers []string // to the POST, then to each GET; the last one repeats
		rows    int
		fails   string
		waits   time.Duration
	}{
		{name: "at once", answers: []string{done}, rows: 2},
		{name: "a warehouse starts", answers: []string{pending, pending, pending, running, done}, rows: 2, waits: 750 * time.Millisecond},
		{name: "no rows", answers: []string{`{"statement_id":"s/1","status":{"state":"SUCCEEDED"}}`}},
		{name: "failed", answers: []string{pending, `{"status":{"state":"FAILED","error":{"error_code":"PERMISSION_DENIED","message":"no\nCREATE CATALOG, the-token the-secret"}}}`},
			fails: `the statement ended as FAILED PERMISSION_DENIED "no CREATE CATALOG, [redacted] [redacted]"`, waits: 50 * time.Millisecond},
		{name: "canceled by somebody", answers: []string{`{"statement_id":"s/1","status":{"state":"CANCELED"}}`}, fails: "the statement ended as CANCELED"},
		{name: "no id", answers: []string{`{"status":{"state":"PENDING"}}`}, fails: "POST /api/2.0/sql/statements: the answer names no statement_id"},
		{name: "no state", answers: []string{`{"statement_id":"s/1"}`}, fails: `the answer names "" as the state of the statement`},
		{name: "a state that is none", answers: []string{pending, `{"status":{"state":"DONE\u001b"}}`}, fails: `the answer names "DONE" as the state of the statement`, waits: 50 * time.Millisecond},
		{name: "several chunks", answers: []string{`{"statement_id":"s/1","status":{"state":"SUCCEEDED"},"manifest":{"total_chunk_count":2}}`}, fails: "GET /api/2.0/sql/statements/s%2F1: the result has 2 chunks, more than 1"},
		{name: "ragged rows", answers: []string{strings.Replace(done, `["2","x"]`, `["2"]`, 1)}, fails: "another number of values"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var calls []string
			answers := tc.answers
			client := answering(func(method, path, body string) (int, string) {
				calls = append(calls, method+" "+path)
				if method == http.MethodPost {
					var in map[string]string
					if err := json.Unmarshal([]byte(body), &in); err != nil || in["statement"] != "SELECT 1" || in["warehouse_id"] != "w1" || in["disposition"] != "INLINE" || in["format"] != "JSON_ARRAY" {
						t.Errorf("%s: got body %s", tc.name, body)
					}
				}
				answer := answers[0]
				if len(answers) > 1 {
					answers = answers[1:]
				}
				return 200, answer
			}).client()
			began := time.Now()
			rows, err := client.Execute(t.Context(), "w1", "SELECT 1")
			switch {
			case tc.fails == "" && err != nil, tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)):
				t.Errorf("%s: got error %v, want %q", tc.name, err, tc.fails)
			case len(rows.Rows) != tc.rows:
				t.Errorf("%s: got %d rows, want %d", tc.name, len(rows.Rows), tc.rows)
			case tc.rows == 2 && (rows.Rows[0][1] != nil || *rows.Rows[1][1] != "x" || !slices.Equal(rows.Columns, []string{"a", "b"})):
				t.Errorf("%s: got %+v", tc.name, rows)
			}
			if waited := time.Since(began); waited != tc.waits {
				t.Errorf("%s: waited %v, want %v", tc.name, waited, tc.waits)
			}
			if calls[0] != "POST /api/2.0/sql/statements" || len(calls) > 1 && calls[1] != "GET /api/2.0/sql/statements/s%2F1" {
				t.Errorf("%s: got calls %q", tc.name, calls)
			}
		})
	}
}

// A statement that nobody waits for any more is canceled, also when it cannot be asked about.
func TestExecuteCancels(t *testing.T) {
	for _, tc := range []struct {
		name  string
		get   int // status of the answers to GET
		limit time.Duration
	}{
		{"the deadline passes", 200, 3 * time.Second},
		{"no answer that helps", 403, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			canceled := 0
			client := answering(func(method, path, _ string) (int, string) {
				switch {
				case path == "/api/2.0/sql/statements/s1/cancel" && method == http.MethodPost:
					canceled++
					return 200, ""
				case method == http.MethodGet:
					return tc.get, `{"statement_id":"s1","status":{"state":"PENDING"}}`
				}
				return 200, `{"statement_id":"s1","status":{"state":"PENDING"}}`
			}).client()
			ctx, stop := context.WithTimeout(t.Context(), tc.limit)
			defer stop()
			began := time.Now()
			if _, err := client.Execute(ctx, "w1", "SELECT 1"); err == nil || time.Since(began) > 3*time.Second {
				t.Errorf("%s: got error %v after %v", tc.name, err, time.Since(began))
			}
			if canceled != 1 {
				t.Errorf("%s: got %d cancels, want 1", tc.name, canceled)
			}
		})
	}
}

func TestWarehouses(t *testing.T) {
	client := answering(func(_, path, _ string) (int, string) {
		switch path {
		case "/api/2.0/sql/warehouses":
			return 200, `{"warehouses":[{"id":"a","name":"A\u001b[1m","state":"RUNNING"},{"id":"b","state":"DELETED"}],"next_page_token":"2"}`
		case "/api/2.0/sql/warehouses?page_token=2":
			return 200, `{"warehouses":[{"id":"c","name":"C","state":"STOPPED"},{"id":"d","state":"DELETING"}]}`
		case "/api/2.0/sql/warehouses/a%2F..":
			return 404, `{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"no such warehouse"}`
		}
		return 200, `{"id":"c","name":"C","state":"STOPPED"}`
	}).client()
	all, err := client.Warehouses(t.Context())
	if want := []databricks.Warehouse{{ID: "a", Name: "A[1m", State: "RUNNING"}, {ID: "c", Name: "C", State: "STOPPED"}}; err != nil || !slices.Equal(all, want) {
		t.Errorf("got %v, %v, want %v", all, err, want)
	}
	one, err := client.Warehouse(t.Context(), "c")
	if err != nil || one.Running() || !all[0].Running() {
		t.Errorf("got %v, %v, want the stopped one", one, err)
	}
	var answer *databricks.Error
	if _, err := client.Warehouse(t.Context(), "a/.."); !errors.As(err, &answer) || answer.Status != 404 || answer.Code != "RESOURCE_DOES_NOT_EXIST" {
		t.Errorf("got %v, want 404", err)
	}
}
