package emulator_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

func (z *endpoint) tryInsert(table, body string, header ...string) (response, error) {
	z.t.Helper()
	req, err := http.NewRequest("POST", z.ZerobusURL()+emulator.InsertPath(table), strings.NewReader(body))
	if err != nil {
		z.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if req.Header.Get("Authorization") == "" {
		req.Header.Set("Authorization", z.grant(table))
	}
	res, err := z.workspace.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, string(b)}, err
}

func (z *endpoint) insert(table, body string, header ...string) response {
	z.t.Helper()
	r, err := z.tryInsert(table, body, header...)
	if err != nil {
		z.t.Fatalf("insert: %v", err)
	}
	return r
}

func TestInsertKeepsRows(t *testing.T) {
	for _, tls := range []bool{false, true} { // with TLS the client offers h2, too
		z := startZerobus(t, emulator.Config{TLS: tls})
		r := z.insert(stream, ` [{"message_id":"a"},{"message_id":"b","event_timestamp":1}] `, "X-Request-Id", "r-1", emulator.TableHeader, stream)
		if r.status != 200 || r.body != "{}" {
			t.Fatalf("got %d %s, want 200 {}", r.status, r.body)
		}
		if r := z.insert(stream, `[]`); r.status != 200 {
			t.Errorf("no rows: got %d %s, want 200", r.status, r.body)
		}
		rows := z.Table(stream).Rows(nil)
		if len(rows) != 2 || rows[1].Transport != "rest" || rows[1].RequestID != "r-1" || string(rows[0].JSON) != `{"message_id":"a"}` {
			t.Errorf("rows: got %+v", rows)
		}
	}
}

func TestInsertsThatAreRefused(t *testing.T) {
	const other = "datafly.events.other"
	z := startZerobus(t, emulator.Config{MaxRequestBytes: 1 << 16, DDL: emulator.DefaultDDL + "; CREATE TABLE " + other + " (id STRING)"})
	good := z.grant(stream)
	for _, c := range []struct {
		name, table, body, authorization, contentType string
		status                                        int
		code, message                                 string
	}{
		{"no token", stream, `[]`, "Bearer", "", 401, "UNAUTHENTICATED", "Missing"},
		{"workspace token", stream, `[]`, z.bearer(), "", 401, "UNAUTHENTICATED", "Invalid token audience"},
		{"token of another table", other, `[]`, good, "", 403, "PERMISSION_DENIED", "Error Code: 3"},
		{"an object", stream, `{}`, "", "", 400, "INVALID_PARAMETER_VALUE", "invalid JSON at line 1 column 1"},
		{"not a column", stream, `[{},{"ip":1}]`, "", "", 400, "INVALID_PARAMETER_VALUE", "Record decoder/encoder error: unrecognized field name 'ip' at line 1 column 10. Error Code: 4044, Error State: 3."},
		{"text for a time", stream, `[{"event_timestamp":"2026"}]`, "", "", 400, "INVALID_PARAMETER_VALUE", "invalid digit found in string at line 1 column"},
		{"text behind", stream, `[] x`, "", "", 400, "INVALID_PARAMETER_VALUE", "trailing characters"},
		{"cut short", stream, `[{"a`, "", "", 400, "INVALID_PARAMETER_VALUE", "unexpected end"},
		{"no JSON", stream, `[]`, "", "text/plain", 400, "INVALID_PARAMETER_VALUE", "Content-Type"},
		{"too large", stream, strings.Repeat(" ", 1<<17), "", "", 413, "REQUEST_TOO_LARGE", "65536"},
	} {
		authorization, contentType := c.authorization, c.contentType
		if authorization == "" {
			authorization = good
		}
		if contentType == "" {
			contentType = "application/json"
		}
		z.t = t
		z.insert(c.table, c.body, "Authorization", authorization, "Content-Type", contentType).wantError(t, c.status, c.code, c.message)
	}
	z.insert(stream, `[]`, emulator.TableHeader, other).wantError(t, 400, "INVALID_PARAMETER_VALUE", emulator.TableHeader)
	if err := z.DropTable(stream); err != nil {
		t.Fatal(err)
	}
	z.insert(stream, `[]`).wantError(t, 404, "NOT_FOUND", `Table "`+stream+`" cannot be found.`)
	if got := z.Table(other).Count(); got != 0 {
		t.Errorf("rows: got %d, want none", got)
	}
	if got := z.Stats().Rejects; got["INVALID_PARAMETER_VALUE"] != 7 || got["NOT_FOUND"] != 1 {
		t.Errorf("rejects: got %v", got)
	}
}

func TestInsertFaults(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	for _, c := range []struct {
		fault  emulator.Fault
		status int
		body   string
		header string
	}{
		{emulator.Fault{Status: 400, Body: ptr("")}, 400, "", ""},
		{emulator.Fault{Status: 429, RetryAfter: 3}, 429, `{"error_code":"REQUEST_LIMIT_EXCEEDED","message":"scripted fault: Too Many Requests"}`, "3"},
		{emulator.Fault{Status: 503}, 503, `{"error_code":"TEMPORARILY_UNAVAILABLE","message":"scripted fault: Service Unavailable"}`, ""},
		{emulator.Fault{Status: 401, NumericCode: 401, Message: "no"}, 401, `{"error_code":401,"message":"no"}`, ""},
	} {
		c.fault.Endpoint, c.fault.Effect, c.fault.Count = "insert", "status", 1
		z.add(c.fault)
		if r := z.insert(stream, `[{}]`); r.status != c.status || r.body != c.body || r.header.Get("Retry-After") != c.header {
			t.Errorf("%+v: got %d %s", c.fault, r.status, r.body)
		}
	}
	z.add(emulator.Fault{Endpoint: "insert", Effect: "refuse", Rows: &emulator.RowMatch{MessageIDs: []string{"x"}}})
	z.insert(stream, `[{},{"message_id":"x"}]`).wantError(t, 400, "INVALID_PARAMETER_VALUE", "row 1")
	z.add(emulator.Fault{Endpoint: "insert", Effect: "lose_ack", Count: 1})
	if r, err := z.tryInsert(stream, `[{}]`); err == nil {
		t.Errorf("lost ack: got %d %s, want a cut connection", r.status, r.body)
	}
	if got := z.Table(stream).Count(); got != 1 {
		t.Errorf("rows: got %d, want the one whose ack was lost", got)
	}
}

func TestTokensForTheEndpoint(t *testing.T) {
	z := startZerobus(t, emulator.Config{WorkspaceID: "77"})
	ask := func(resource, details string) response {
		return z.do("POST", emulator.TokenPath, form, url.Values{
			"grant_type": {"client_credentials"}, "scope": {"all-apis"}, "resource": {resource}, "authorization_details": {details},
			"client_id": {emulator.DefaultClientID}, "client_secret": {emulator.DefaultClientSecret},
		}.Encode())
	}
	if got, want := z.Resource(), "api://databricks/workspaces/77/zerobusDirectWriteApi"; got != want {
		t.Errorf("resource: got %s, want %s", got, want)
	}
	r := ask(z.Resource(), details(stream))
	if r.status != 200 || len(r.body) < 4<<10 {
		t.Errorf("got %d and %d bytes, want a token of the size of the service's", r.status, len(r.body))
	}
	token := "Bearer " + r.json(t)["access_token"].(string)
	z.do("GET", emulator.ColumnsPath+stream, "", "", "Authorization", token).wantError(t, 401, "UNAUTHENTICATED", "Invalid token audience")
	one := func(privilege, kind, path string) string {
		return `[{"type":"unity_catalog_privileges","privileges":["` + privilege + `"],"object_type":"` + kind + `","object_full_path":"` + path + `"}]`
	}
	for name, c := range map[string]struct {
		r             response
		status        int
		code, message string
	}{
		"other workspace":  {ask(strings.Replace(z.Resource(), "77", "78", 1), details(stream)), 400, "invalid_target", z.Resource()},
		"no details":       {ask(z.Resource(), ""), 400, "invalid_authorization_details", "JSON array"},
		"an empty list":    {ask(z.Resource(), "[]"), 400, "invalid_authorization_details", "JSON array"},
		"another type":     {ask(z.Resource(), `[{"type":"x"}]`), 400, "invalid_authorization_details", "unity_catalog_privileges"},
		"a path too short": {ask(z.Resource(), one("SELECT", "TABLE", "stream")), 400, "invalid_authorization_details", "unity_catalog_privileges"},
		"no such table":    {ask(z.Resource(), details("datafly.events.nope")), 401, "invalid_authorization_details", "User is not authorized to the requested authorizations"},
		"no such catalog":  {ask(z.Resource(), one("USE CATALOG", "CATALOG", "nope")), 401, "invalid_authorization_details", "not authorized"},
		"wrong privilege":  {ask(z.Resource(), one("OWN", "TABLE", stream)), 401, "invalid_authorization_details", "not authorized"},
	} {
		t.Run(name, func(t *testing.T) { c.r.wantError(t, c.status, c.code, c.message) })
	}
	// A token that may only read writes nothing.
	read := ask(z.Resource(), one("SELECT", "TABLE", stream)).json(t)["access_token"].(string)
	z.insert(stream, `[{}]`, "Authorization", "Bearer "+read).wantError(t, 403, "PERMISSION_DENIED", "MODIFY")
	for _, c := range [][2]string{{"MODIFY", stream}, {"SELECT", stream}, {"USE SCHEMA", "datafly.events"}, {"USE CATALOG", "datafly"}} {
		if err := z.Revoke(c[0], c[1]); err != nil {
			t.Fatal(err)
		}
		z.askGrant(stream).wantError(t, 401, "invalid_authorization_details", "not authorized")
		if err := z.Grant(c[0], c[1]); err != nil {
			t.Fatal(err)
		}
	}
}
