package zerobus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
)

// body returns a hook that gives an answer in place of the service while more
// returns true.
func body(status int, text string, more func() bool) func(http.ResponseWriter, *http.Request, []json.RawMessage) bool {
	return func(w http.ResponseWriter, _ *http.Request, _ []json.RawMessage) bool {
		if !more() {
			return false
		}
		w.WriteHeader(status)
		if status != http.StatusNoContent {
			io.WriteString(w, text)
		}
		return true
	}
}

// times returns a func that is true n times.
func times(n int) func() bool {
	return func() bool { n--; return n >= 0 }
}

// noConfirmation are answers of 2xx that confirm nothing over any transport.
var noConfirmation = []struct {
	name   string
	status int
	body   string
}{
	{"empty", 200, ``},
	{"white space", 200, " \n\t "},
	{"white space over the bound", 200, strings.Repeat(" ", 2<<20)},
	{"an object cut off by the bound", 200, `{"records_ingested":2}` + strings.Repeat(" ", 1<<20)},
	{"a page", 200, `<html>sign in</html>`},
	{"cut off", 200, `{"records_ing`},
	{"an array", 200, `[]`},
	{"null", 200, `null`},
	{"a string", 200, `"ok"`},
	{"two objects", 200, `{"records_ingested":2}{}`},
	{"an object and more", 200, `{"records_ingested":2} ok`},
	{"not UTF-8", 200, "{\"records_ingested\":2,\"a\":\"\xff\"}"},
	{"count is null", 200, `{"records_ingested":null}`},
	{"fewer rows than sent", 200, `{"records_ingested":1}`},
	{"more rows than sent", 200, `{"records_ingested":3}`},
	{"count is no number", 200, `{"records_ingested":"many"}`},
	{"count has a fraction", 200, `{"records_ingested":2.5}`},
	{"count twice", 200, `{"records_ingested":2,"records_ingested":2}`},
	{"count in two spellings", 200, `{"records_ingested":2,"recordsIngested":0}`},
	{"an error of an unknown code", 200, `{"error_code":"MOON_PHASE","records_ingested":2}`},
	{"an error without a code", 200, `{"error":true,"records_ingested":2}`},
	{"an error that is null", 200, `{"error":null,"records_ingested":2}`},
	{"an error in another spelling", 200, `{"errorCode":"MOON_PHASE","records_ingested":2}`},
	{"a failing status", 200, `{"status":"FAILED","records_ingested":2}`},
	{"created", 201, `{"records_ingested":2}`},
	{"accepted", 202, `{"records_ingested":2}`},
	{"not from the service", 203, `{"records_ingested":2}`},
	{"no content", 204, ``},
	{"reset", 205, `{"records_ingested":2}`},
	{"partial", 206, `{"records_ingested":2}`},
	{"multi-status", 207, `{"records_ingested":2}`},
	{"reported before", 208, `{"records_ingested":2}`},
}

func TestOnlyAConfirmationConfirms(t *testing.T) {
	for _, tt := range noConfirmation {
		for _, transport := range []string{zerobus.TransportWorkspace, "workspace, lenient", zerobus.TransportREST} {
			t.Run(tt.name+"/"+transport, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, arrived := confirming(t, transport, body(tt.status, tt.body, times(3)))
					if err := b.Reachable(t.Context()); err == nil || zerobus.IsPermanent(err) {
						t.Errorf("Reachable: %v, want a passing fault", err)
					}
					done := inBackground(t.Context(), b, rows(2))
					synctest.Wait()
					if got := b.State(); got.Name != zerobus.Retrying || !strings.Contains(got.Reason, fmt.Sprint(tt.status)) ||
						!strings.Contains(got.Reason, "https://") || !strings.Contains(got.Remedy, "captive portal") {
						t.Errorf("state is %+v, want retrying with status, address and what may stand between", got)
					}
					if err := <-done; err != nil {
						t.Errorf("Write: %v", err)
					}
					if got := arrived(); got != 4 {
						t.Errorf("%d requests, want 4: the probe, two unconfirmed writes and one confirmed", got)
					}
					if got := b.obs.count(b.obs.retries, zerobus.RetryMismatch); got != 2 {
						t.Errorf("%d retries for a mismatch, want 2", got)
					}
				})
			})
		}
	}
}

// confirming returns a client whose rows are answered by hook, then well, and
// a func that counts requests with rows or empty batches.
func confirming(t *testing.T, transport string, hook func(http.ResponseWriter, *http.Request, []json.RawMessage) bool) (bench, func() int) {
	t.Helper()
	if transport == zerobus.TransportREST {
		var arrived atomic.Int64
		b, _ := resting(t, func(w http.ResponseWriter, r *http.Request) {
			arrived.Add(1)
			if !hook(w, r, nil) {
				io.WriteString(w, `{}`)
			}
		}, nil)
		return b, func() int { return int(arrived.Load()) }
	}
	b := virtual(t, func(c *zerobus.Config) {
		if strings.Contains(transport, "lenient") {
			c.Confirm = zerobus.ConfirmLenient
		}
	})
	b.space.onIngest = hook
	return b, func() int { return len(b.space.arrivals()) }
}

func TestFormsOfConfirmation(t *testing.T) {
	for _, tt := range []struct {
		transport, body, form string
		confirms              bool
	}{
		{zerobus.TransportWorkspace, `{"records_ingested":2}`, zerobus.ConfirmedByCount, true},
		{zerobus.TransportWorkspace, ` {"records_ingested":"2","new":[1],"status":"OK"} `, zerobus.ConfirmedByCount, true},
		{zerobus.TransportWorkspace, `{}`, zerobus.ConfirmedWithoutCount, false},
		{zerobus.TransportWorkspace, `{"recordsIngested":2}`, zerobus.ConfirmedWithoutCount, false},
		{"workspace, lenient", `{}`, zerobus.ConfirmedWithoutCount, true},
		{"workspace, lenient", `{"records_ingested":2}`, zerobus.ConfirmedByCount, true},
		{zerobus.TransportREST, `{}`, zerobus.ConfirmedWithoutCount, true},
		{zerobus.TransportREST, `{"records_ingested":2}`, zerobus.ConfirmedByCount, true},
	} {
		t.Run(tt.transport+" "+tt.body, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, arrived := confirming(t, tt.transport, body(200, tt.body, times(1)))
				done := inBackground(t.Context(), b, rows(2))
				synctest.Wait()
				state := b.State()
				if state.Confirmation != tt.form {
					t.Errorf("form is %q, want %q", state.Confirmation, tt.form)
				}
				if !tt.confirms && !strings.Contains(state.Remedy, "zerobus.confirm to lenient") {
					t.Errorf("remedy is %q, want it to name zerobus.confirm", state.Remedy)
				}
				if err := <-done; err != nil {
					t.Errorf("Write: %v", err)
				}
				if once := arrived() == 1; once != tt.confirms {
					t.Errorf("%d requests, want one: %v", arrived(), tt.confirms)
				}
			})
		})
	}
}

// An error in an answer of success is that error.
func TestAnErrorInAnAnswerOfSuccess(t *testing.T) {
	for _, tt := range []struct {
		name, body, state, remedy string
	}{
		{"grants", `{"error_code":"PERMISSION_DENIED","message":"no"}`, zerobus.Blocked, "GRANT SELECT, MODIFY ON TABLE"},
		{"grants, with a count", `{"error_code":"PERMISSION_DENIED","records_ingested":2}`, zerobus.Blocked, "GRANT"},
		{"grants, as a number", `{"error_code":403}`, zerobus.Blocked, "GRANT"},
		{"grants, under error", `{"error":"PERMISSION_DENIED"}`, zerobus.Blocked, "GRANT"},
		{"grants, in an object", `{"error":{"code":403,"status":"PERMISSION_DENIED","message":"no"}}`, zerobus.Blocked, "GRANT"},
		{"grants, as a status", `{"status":"PERMISSION_DENIED"}`, zerobus.Blocked, "GRANT"},
		{"grants, as a status code", `{"statusCode":403}`, zerobus.Blocked, "GRANT"},
		{"no table", `{"error_code":"TABLE_DOES_NOT_EXIST"}`, zerobus.Blocked, "bridge ddl"},
		{"kind of table", `{"error_code":"NOT_IMPLEMENTED"}`, zerobus.Blocked, "managed Delta table"},
		{"throttled", `{"error_code":"REQUEST_LIMIT_EXCEEDED"}`, zerobus.Retrying, "zerobus.rate_limit"},
		{"busy", `{"error_code":"TEMPORARILY_UNAVAILABLE"}`, zerobus.Retrying, "status page"},
	} {
		for _, transport := range []string{zerobus.TransportWorkspace, zerobus.TransportREST} {
			t.Run(tt.name+"/"+transport, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var right atomic.Bool
					b, arrived := confirming(t, transport, body(200, tt.body, func() bool { return !right.Load() }))
					done := inBackground(t.Context(), b, rows(2))
					synctest.Wait()
					got := b.State()
					if got.Name != tt.state || !strings.Contains(got.Remedy, tt.remedy) || !strings.Contains(got.Reason, "HTTP 200") {
						t.Errorf("state is %+v, want %s with HTTP 200 and %q", got, tt.state, tt.remedy)
					}
					before := arrived()
					right.Store(true)
					if err := <-done; err != nil {
						t.Errorf("Write: %v", err)
					}
					if got := arrived(); got != before+1 {
						t.Errorf("%d requests after the fault, want 1", got-before)
					}
				})
			})
		}
	}
	t.Run("token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := virtual(t, nil)
			b.space.onIngest = body(200, `{"error_code":"UNAUTHENTICATED"}`, times(1))
			write(t, b, rows(2))
			if got := b.space.mints(); got != 2 {
				t.Errorf("%d tokens, want a fresh one", got)
			}
		})
	})
	t.Run("row", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := virtual(t, nil)
			b.space.onIngest = body(200, `{"error_code":"INVALID_PARAMETER_VALUE","message":"column 'n' takes an integer"}`, times(9))
			var no *zerobus.RefusedError
			if err := b.WriteLatest(t.Context(), rows(2)); !errors.As(err, &no) {
				t.Errorf("Write: %v, want a refusal", err)
			}
		})
	})
}

// gateways are refusals that the service did not write.
var gateways = []struct {
	name   string
	status int
	kind   string
	body   string
}{
	{"a page", 400, "text/html", "<html>400 Bad Request</html>"},
	{"empty", 400, "", ""},
	{"another shape", 400, "application/json", `{"message":"Bad Request","statusCode":400}`},
	{"a code that is empty", 400, "application/json", `{"error_code":"","message":"no"}`},
	{"a code that is null", 400, "application/json", `{"error_code":null}`},
	{"cut off", 400, "application/json", `{"error_code":"INVALID_PARAMETER_VALUE","mess`},
	{"the shape and more", 400, "application/json", `{"error_code":"INVALID_PARAMETER_VALUE"}<html>`},
	{"422", 422, "text/plain", "unprocessable"},
	{"413", 413, "text/html", "<center>nginx</center>"},
}

func TestARefusalOfAGatewayGivesNoRowUp(t *testing.T) {
	for _, tt := range gateways {
		for _, transport := range []string{zerobus.TransportWorkspace, zerobus.TransportREST} {
			if tt.body == "" && transport == zerobus.TransportREST {
				continue // the answer of the edge for the host of another workspace: blocked
			}
			t.Run(tt.name+"/"+transport, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var right atomic.Bool
					b, _ := confirming(t, transport, func(w http.ResponseWriter, r *http.Request, rows []json.RawMessage) bool {
						w.Header().Set("Content-Type", tt.kind)
						return body(tt.status, tt.body, func() bool { return !right.Load() })(w, r, rows)
					})
					done := inBackground(t.Context(), b, rows(1))
					after(10 * time.Minute)
					got := b.State()
					if got.Name != zerobus.Retrying || !strings.Contains(got.Reason, fmt.Sprintf("%d with", tt.status)) || !strings.Contains(got.Reason, tt.kind) ||
						!strings.Contains(got.Remedy, "what stands between") {
						t.Errorf("state is %+v, want retrying with address, status, content type and what may stand between", got)
					}
					if limit := strings.Contains(got.Remedy, "client_max_body_size"); limit != (tt.status == 413) {
						t.Errorf("remedy is %q, want the proxy's body limit: %v", got.Remedy, tt.status == 413)
					}
					if err := b.Reachable(t.Context()); err == nil || zerobus.IsPermanent(err) {
						t.Errorf("Reachable: %v, want a passing fault", err)
					}
					right.Store(true)
					if err := <-done; err != nil {
						t.Errorf("Write: %v, want the row written once the gateway is out of the way", err)
					}
				})
			})
		}
	}
}

// A gateway that passes a refusal on with a status of its own is read by the
// service's code.
func TestA400WithAnotherCodeIsThatError(t *testing.T) {
	for code, want := range map[string]string{"PERMISSION_DENIED": zerobus.Blocked, "TEMPORARILY_UNAVAILABLE": zerobus.Retrying, "REQUEST_LIMIT_EXCEEDED": zerobus.Retrying} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var right atomic.Bool
				b, _ := confirming(t, zerobus.TransportWorkspace, body(400, `{"error_code":"`+code+`"}`, func() bool { return !right.Load() }))
				done := inBackground(t.Context(), b, rows(1))
				synctest.Wait()
				if got := b.State().Name; got != want {
					t.Errorf("state is %s, want %s", got, want)
				}
				right.Store(true)
				if err := <-done; err != nil {
					t.Errorf("Write: %v", err)
				}
			})
		})
	}
}

// The number in the message means that the kind of table is at fault, over
// REST as over a stream.
func TestATableInDefaultStorageIsNoFaultOfARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := confirming(t, zerobus.TransportREST,
			body(400, `{"error_code":"INVALID_PARAMETER_VALUE","message":"Unsupported table kind. Error Code: 4024, Error State: 0."}`, times(1)))
		done := inBackground(t.Context(), b, rows(1))
		synctest.Wait()
		if got := b.State(); got.Name != zerobus.Blocked || !strings.Contains(got.Remedy, "not every one takes tables in default storage yet") {
			t.Errorf("state is %+v, want blocked with what is not offered everywhere", got)
		}
		if err := <-done; err != nil {
			t.Errorf("Write: %v", err)
		}
	})
}
