package emulator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

func (r response) want(t testing.TB, status int, pieces ...string) {
	t.Helper()
	for _, p := range append(pieces, "") {
		if r.status != status || !strings.Contains(r.body, p) {
			t.Errorf("got %d %s, want %d with %s", r.status, r.body, status, p)
			return
		}
	}
}

func TestAdminReadsRows(t *testing.T) {
	w := start(t, emulator.Config{})
	w.ingest(envelope(`{"message_id":"a","user_id":"1"}`, `{"message_id":"b","user_id":"2"}`, `{"message_id":"a","user_id":"2"}`))
	const tab = "tables/" + stream
	w.admin("GET", "tables", "").want(t, 200, `{"tables":["`+stream+`"]}`)
	w.admin("GET", tab, "").want(t, 200, `"rows":3`, `{"name":"event_timestamp","type":"TIMESTAMP"}`, "CREATE TABLE `datafly`.`events`.`stream`")
	w.admin("GET", tab+"/count", "").want(t, 200, `{"rows":3}`)
	w.admin("GET", tab+"/distinct", "").want(t, 200, `{"column":"message_id","distinct":2}`)
	w.admin("GET", tab+"/distinct?column=user_id", "").want(t, 200, `"distinct":2`)
	w.admin("GET", tab+"/duplicates", "").want(t, 200, `{"by":"message_id","duplicates":[{"value":"a","count":2}],"extra_rows":1,"values":1}`)
	w.admin("GET", tab+"/duplicates?by=user_id", "").want(t, 200, `[{"value":"2","count":2}]`)
	r := w.admin("GET", tab+"/rows?limit=2", "")
	r.want(t, 200, `"row":{"message_id":"a","user_id":"2"}},{"seq":2`)
	if strings.Contains(r.body, `"seq":1`) {
		t.Errorf("limit=2: got %s, want rows 3 and 2", r.body)
	}
	r = w.admin("GET", tab+"/rows?column=user_id&equals=2&limit=1", "")
	r.want(t, 200, `{"rows":[{"seq":3`)
	if strings.Contains(r.body, `"seq":2`) {
		t.Errorf("limit=1: got %s, want row 3 alone", r.body)
	}
	w.admin("GET", tab+"/rows?column=user_id&equals=3", "").want(t, 200, `{"rows":[]}`)
	w.admin("GET", tab+"/rows?limit=0", "").want(t, 400, "limit")
	w.admin("GET", tab+"/rows?equals=3", "").want(t, 400, "column")
	w.admin("GET", tab+"/duplicates?limit=x", "").want(t, 400, "limit")
	w.admin("GET", "tables/a.b.c/rows", "").want(t, 404, "GET /emulator/tables")
	w.do("GET", "/healthz", "", "").want(t, 200, `{"status":"ok"}`)
	if r := w.admin("GET", "nothing", ""); r.status != 404 {
		t.Errorf("unknown path: got %d, want 404", r.status)
	}
}

func TestAdminAltersTables(t *testing.T) {
	w := start(t, emulator.Config{})
	w.admin("POST", "tables", "CREATE TABLE a.b.c (id STRING)").want(t, 200, `{"created":["a.b.c"]}`)
	w.admin("POST", "tables", "CREATE TABLE a.b.c (id STRING)").want(t, 400, "exists already")
	w.admin("POST", "tables", "CREATE TABLE IF NOT EXISTS a.b.c (id STRING)").want(t, 200, `{"created":[]}`)
	w.admin("POST", "tables", "SELECT 1").want(t, 400, "ddl line 1")
	w.admin("POST", "tables", strings.Repeat(" ", 2<<20)).want(t, 400, "too large")
	w.admin("POST", "tables/a.b.c/columns", `{"name":"n","type":"int","not_null":true}`).want(t, 200, `{"name":"n","type":"INT","not_null":true}`)
	w.admin("POST", "tables/a.b.c/columns", `{"name":"n","type":"int"}`).want(t, 400, "has it already")
	w.admin("POST", "tables/a.b.c/columns", `{"nmae":"n"}`).want(t, 400, "nmae")
	w.admin("DELETE", "tables/a.b.c/columns/n", "").want(t, 204)
	w.admin("DELETE", "tables/a.b.c/columns/n", "").want(t, 400, "no such column")
	w.admin("DELETE", "tables/a.b.c/columns/id", "").want(t, 400, "only one")
	w.admin("DELETE", "tables/a.b.c", "").want(t, 204)
	w.admin("DELETE", "tables/a.b.c", "").want(t, 404, "no table")
}

func TestAdminFaultsAndSwitches(t *testing.T) {
	w := start(t, emulator.Config{})
	const fault = `{"endpoint":"ingest","effect":"status","status":429,"retry_after":3,"count":2,"latency":"1ms","rows":{"column":"user_id","equals":"1"}}`
	w.admin("POST", "faults", fault).want(t, 200, `{"id":"fault-1","endpoint":"ingest","rows":{"column":"user_id","equals":"1"},"count":2,"effect":"status","latency":"1ms","status":429,"retry_after":3}`)
	if r := w.ingest(envelope(`{"user_id":"1"}`)); r.status != 429 || r.header.Get("Retry-After") != "3" {
		t.Errorf("got %d %s, want 429", r.status, r.body)
	}
	w.admin("GET", "faults", "").want(t, 200, `"hits":1`)
	w.admin("DELETE", "faults/fault-1", "").want(t, 204)
	w.admin("DELETE", "faults/fault-1", "").want(t, 404, "fault-1")
	w.admin("POST", "faults", `{"effect":"status"}`).want(t, 400, "status 0")
	w.admin("POST", "faults", `{"effect":"cut","latency":"soon"}`).want(t, 400, "p50=150ms")
	w.admin("POST", "faults", `{"efect":"cut"}`).want(t, 400, "efect")
	w.admin("POST", "faults", `{"effect":"cut"} {}`).want(t, 400, "after top-level value")
	w.admin("POST", "faults", `{"effect":"cut","endpoint":"token"}`).want(t, 200, "fault-2")
	w.admin("DELETE", "faults", "").want(t, 204)
	w.admin("GET", "faults", "").want(t, 200, `{"faults":[]}`)

	w.admin("POST", "revoke", `{"privilege":"MODIFY","on":"`+stream+`"}`).want(t, 204)
	w.ingest(envelope()).wantError(t, 403, "PERMISSION_DENIED", "MODIFY")
	w.admin("GET", "revoked", "").want(t, 200, `{"revoked":["MODIFY on `+stream+`"]}`)
	w.admin("POST", "grant", `{"privilege":"MODIFY","on":"`+stream+`"}`).want(t, 204)
	w.admin("POST", "grant", `{"privilege":"ALL","on":"`+stream+`"}`).want(t, 400, "ALL")
	w.admin("POST", "ingest-api", `{"enabled":false}`).want(t, 204)
	w.ingest(envelope()).wantError(t, 404, "ENDPOINT_NOT_FOUND", "")
	w.admin("POST", "ingest-api", `{}`).want(t, 400, "enabled")
	w.admin("POST", "ingest-api", `{"enabled":true}`).want(t, 204)
	w.admin("POST", "rotate-secret", `{"client_secret":"new"}`).want(t, 204)
	w.admin("POST", "rotate-secret", `{}`).want(t, 400, "client_secret")
	w.mint("emulator", "emulator-secret").wantError(t, 401, "invalid_client", "")
	w.admin("POST", "revoke-tokens", "").want(t, 204)
	w.ingest(envelope()).wantError(t, 401, "UNAUTHENTICATED", "")
}

func TestAdminStatsAndReset(t *testing.T) {
	w := start(t, emulator.Config{})
	body := envelope(`{"message_id":"a"}`, `{"message_id":"b"}`)
	w.ingest(body)
	w.ingest(envelope(`{"nope":1}`))
	s := w.Stats()
	if s.Requests["ingest"] != 2 || s.Requests["token"] != 1 || s.Rows != 2 || s.Tokens != 1 || s.Responses["ingest"]["400"] != 1 || s.Rejects["INVALID_PARAMETER_VALUE"] != 1 {
		t.Errorf("stats: got %+v", s)
	}
	w.admin("GET", "stats", "").want(t, 200, `"in_flight":1`, `"rows":2`, `"rejects":{"INVALID_PARAMETER_VALUE":1}`)
	for _, hide := range []string{w.token, emulator.DefaultClientSecret} {
		if r := w.admin("GET", "stats", ""); strings.Contains(r.body, hide) {
			t.Errorf("stats hold a secret: %s", r.body)
		}
	}
	w.add(emulator.Fault{Effect: "cut"})
	w.admin("POST", "reset", "").want(t, 204)
	if got := w.Table(stream).Count() + w.Table(stream).Distinct("message_id") + len(w.Faults()) + int(w.Stats().Rows); got != 0 {
		t.Errorf("after the reset: got %d rows, ids, faults and figures, want none", got)
	}
	w.ingest(body)
	if got := fmt.Sprint(w.Table(stream).Newest(1)[0].Seq); got != "2" {
		t.Errorf("seq after the reset: got %s, want 2", got)
	}
}

func TestAdminRefusesOtherOrigins(t *testing.T) {
	w := start(t, emulator.Config{})
	w.do("POST", "/emulator/reset", "", "", "Origin", "https://elsewhere.example").want(t, 403)
	w.do("POST", "/emulator/reset", "", "", "Sec-Fetch-Site", "cross-site").want(t, 403)
	w.do("POST", "/emulator/reset", "", "", "Origin", w.URL()).want(t, 204)
}
