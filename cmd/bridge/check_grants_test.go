package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus/emulator"
)

// unity changes what the emulator shows of a table.
type unity struct {
	em        *emulator.Emulator
	hidden    int    // status of every permission; 0: they may be read
	owner     string // of the table
	storage   string // securable_kind of the table
	partition string // a column of the table
}

func (u *unity) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if u.hidden != 0 && strings.Contains(r.URL.Path, "/effective-permissions/") {
		w.WriteHeader(u.hidden)
		_, _ = io.WriteString(w, `{"error_code":"PERMISSION_DENIED","message":"no"}`)
		return
	}
	if !strings.Contains(r.URL.Path, "/unity-catalog/tables/") {
		u.em.Handler().ServeHTTP(w, r)
		return
	}
	rec := httptest.NewRecorder()
	u.em.Handler().ServeHTTP(rec, r)
	var doc map[string]any
	if rec.Code != http.StatusOK || json.Unmarshal(rec.Body.Bytes(), &doc) != nil {
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
		return
	}
	if u.owner != "" {
		doc["owner"] = u.owner
	}
	doc["securable_kind"] = u.storage
	for _, c := range doc["columns"].([]any) {
		if column := c.(map[string]any); column["name"] == u.partition {
			column["partition_index"] = 0
		}
	}
	_ = json.NewEncoder(w).Encode(doc)
}

// checked runs bridge check and returns its steps by name.
func checked(t *testing.T, args ...string) (map[string]pipeline.CheckStep, said) {
	t.Helper()
	got := command(append([]string{"check", "--output", "json"}, args...)...)
	var report struct{ Steps []pipeline.CheckStep }
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		t.Fatalf("%v in %s%s", err, got.stdout, got.stderr)
	}
	steps := map[string]pipeline.CheckStep{}
	for _, s := range report.Steps {
		steps[s.Step] = s
	}
	return steps, got
}

// transports returns flags for each transport of one workspace.
func transports(t *testing.T) (map[string][]string, *unity) {
	t.Helper()
	flags, em := settingsAnd(t)
	if err := em.StartZerobus("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	u := &unity{em: em}
	front := httptest.NewServer(u)
	t.Cleanup(front.Close)
	flags = append(flags, "--set", "zerobus.workspace_url="+front.URL)
	native := append(slices.Clone(flags), "--set", "zerobus.endpoint="+em.ZerobusURL(), "--set", "zerobus.workspace_id="+emulator.DefaultWorkspaceID)
	return map[string][]string{
		"workspace": append(slices.Clone(flags), "--set", "zerobus.transport=workspace"),
		"auto":      flags, // finds workspace
		"grpc":      append(slices.Clone(native), "--set", "zerobus.transport=grpc"),
		"rest":      append(slices.Clone(native), "--set", "zerobus.transport=rest"),
	}, u
}

var grantStatements = map[string]string{
	"USE CATALOG": "GRANT USE CATALOG ON CATALOG `datafly` TO `" + emulator.DefaultClientID + "`;",
	"USE SCHEMA":  "GRANT USE SCHEMA ON SCHEMA `datafly`.`events` TO `" + emulator.DefaultClientID + "`;",
	"SELECT":      "GRANT SELECT ON TABLE `datafly`.`events`.`stream` TO `" + emulator.DefaultClientID + "`;",
	"MODIFY":      "GRANT MODIFY ON TABLE `datafly`.`events`.`stream` TO `" + emulator.DefaultClientID + "`;",
}

var grantedOn = map[string]string{"USE CATALOG": "datafly", "USE SCHEMA": "datafly.events", "SELECT": "datafly.events.stream", "MODIFY": "datafly.events.stream"}

var inheritedFrom = map[string]string{"USE SCHEMA": "datafly", "SELECT": "datafly.events", "MODIFY": "datafly"}

// wantOnly fails unless the answer has the wanted GRANT statement and no other.
func wantOnly(t *testing.T, name, answer, want string) {
	t.Helper()
	for privilege, statement := range grantStatements {
		if has := strings.Contains(answer, statement); has != (statement == want) {
			t.Errorf("%s: the statement that grants %s: got %v in\n%s", name, privilege, has, answer)
		}
	}
	if strings.Contains(answer, "SELECT, MODIFY") {
		t.Errorf("%s: got a statement for both privileges of the table in\n%s", name, answer)
	}
}

// judges are the steps in which the service refuses a principal that lacks a grant.
var judges = map[string]string{"workspace": "ingest", "auto": "transport", "grpc": "token", "rest": "token"}

// Each missing grant alone, under each transport: check names exactly that one and its
// statement.
func TestCheckNamesTheMissingGrant(t *testing.T) {
	all, u := transports(t)
	for transport, flags := range all {
		steps, got := checked(t, flags...)
		for name, s := range steps {
			if s.Status != pipeline.StepOK {
				t.Errorf("%s with every grant: got %+v, want ok", transport, s)
			}
			if strings.HasPrefix(name, "grant ") && !strings.HasSuffix(s.Detail, ", granted") {
				t.Errorf("%s: got %+v", transport, s)
			}
		}
		if got.code != exitFine || len(steps) != 15 {
			t.Errorf("%s with every grant: got exit code %d and %d steps:\n%s", transport, got.code, len(steps), got.stdout)
		}
		for privilege, statement := range grantStatements {
			name := transport + " without " + privilege
			if err := u.em.Revoke(privilege, grantedOn[privilege]); err != nil {
				t.Fatal(err)
			}
			steps, got := checked(t, flags...)
			for step, s := range steps {
				if strings.HasPrefix(step, "grant ") && (s.Status == pipeline.StepOK) != (step != "grant "+privilege) {
					t.Errorf("%s: got %+v", name, s)
				}
			}
			// Under workspace the service asks for MODIFY alone: SELECT is for the columns.
			want, code := pipeline.StepFailed, exitFailed
			if judges[transport] != "token" && privilege == "SELECT" {
				want, code = pipeline.StepWarning, exitFine
			}
			one := steps["grant "+privilege]
			if one.Status != want || got.code != code || !strings.HasSuffix(one.Error+one.Warning, "run: "+statement) {
				t.Errorf("%s: got exit code %d and %+v, want %s and %s", name, got.code, one, want, statement)
			}
			judge := judges[transport]
			if s := steps[judge]; (s.Status == pipeline.StepFailed) != (code == exitFailed) || s.Error != "" && !strings.HasSuffix(s.Error, "run: "+statement) {
				t.Errorf("%s: got %+v, want failed with %s", name, s, statement)
			}
			wantOnly(t, name, got.stdout, statement)
			if code == exitFailed && !strings.Contains(got.stderr, "bridge ddl --config ") {
				t.Errorf("%s: got %s, want the next command", name, got.stderr)
			}

			if above := inheritedFrom[privilege]; above != "" { // which neither Zerobus nor the page's path takes here
				if err := u.em.Grant(privilege, above); err != nil {
					t.Fatal(err)
				}
				steps, got = checked(t, flags...)
				if s := steps["grant "+privilege]; s.Status != pipeline.StepWarning || !strings.Contains(s.Warning, " only by a grant on ") || !strings.HasSuffix(s.Warning, "run: "+statement) {
					t.Errorf("%s, inherited: got %+v", name, s)
				}
				wantOnly(t, name+", inherited", got.stdout, statement)
				if s := steps[judge]; (s.Status == pipeline.StepFailed) != (code == exitFailed) || s.Error != "" && !strings.HasSuffix(s.Error, "run: "+statement) {
					t.Errorf("%s, inherited: got %+v, want failed with %s", name, s, statement)
				}
				if err := u.em.Revoke(privilege, above); err != nil {
					t.Fatal(err)
				}
			}
			if err := u.em.Grant(privilege, grantedOn[privilege]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Grants that may not be read are a warning each, and the token and the rows decide.
func TestGrantsThatCannotBeRead(t *testing.T) {
	all, u := transports(t)
	flags := all["grpc"]
	for _, u.hidden = range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound} {
		steps, got := checked(t, flags...)
		for step, s := range steps {
			if hidden := strings.HasPrefix(step, "grant "); hidden != (s.Status == pipeline.StepWarning) || hidden && !strings.Contains(s.Warning, fmt.Sprintf("cannot be read, so the steps token and ingest alone show whether they suffice: GET /api/2.1/unity-catalog/effective-permissions/%s", strings.Fields(s.Warning)[3])) {
				t.Errorf("%d: got %+v", u.hidden, s)
			}
		}
		if got.code != exitFine {
			t.Errorf("%d: got exit code %d, want %d", u.hidden, got.code, exitFine)
		}
	}
	if err := u.em.Revoke("MODIFY", "datafly.events.stream"); err != nil {
		t.Fatal(err)
	}
	steps, got := checked(t, flags...)
	if s := steps["token"]; got.code != exitFailed || !strings.Contains(s.Error, "GRANT SELECT, MODIFY ON TABLE") || steps["grant MODIFY"].Status != pipeline.StepWarning {
		t.Errorf("without MODIFY: got exit code %d and %s", got.code, got.stdout)
	}
	// Owning the table may not suffice.
	u.hidden, u.owner = 0, emulator.DefaultClientID
	steps, got = checked(t, flags...)
	if s := steps["grant MODIFY"]; !strings.Contains(s.Warning, "only by owning it, and Zerobus may ask for a grant on the table itself; run: "+grantStatements["MODIFY"]) {
		t.Errorf("the owner: got %+v", s)
	}
	wantOnly(t, "the owner", got.stdout, grantStatements["MODIFY"])
	if err := u.em.Grant("ALL PRIVILEGES", "datafly.events.stream"); err != nil {
		t.Fatal(err)
	}
	if steps, got := checked(t, flags...); got.code != exitFine || !strings.HasSuffix(steps["grant MODIFY"].Detail, "granted by ALL PRIVILEGES") {
		t.Errorf("ALL PRIVILEGES: got exit code %d and %+v", got.code, steps["grant MODIFY"])
	}
}

// Each wrong field alone: check names its key.
func TestCheckNamesTheWrongField(t *testing.T) {
	all, u := transports(t)
	const rotated = "the client secret"
	away := httptest.NewServer(nil)
	away.Close()
	for transport, flags := range all {
		for _, tc := range []struct{ set, step, want, next string }{
			{"zerobus.workspace_url=" + away.URL, "token", "check that the bridge reaches ", "zerobus.workspace_url"},
			{"zerobus.client_id=wrong", "token", "the client id or the client secret is wrong", "zerobus.client"},
			{rotated, "token", "the client id or the client secret is wrong", "zerobus.client"},
			{"zerobus.table=wrong.events.stream", "table", "catalog wrong does not exist, or service principal " + emulator.DefaultClientID + " may not see it; correct zerobus.catalog, or create the catalog: bridge ddl prints", "bridge ddl"},
			{"zerobus.table=datafly.wrong.stream", "table", "schema datafly.wrong does not exist, or service principal " + emulator.DefaultClientID + " may not see it; correct zerobus.schema, or create the schema: bridge ddl prints", "bridge ddl"},
			{"zerobus.table=datafly.events.wrong", "table", "table datafly.events.wrong does not exist, or service principal " + emulator.DefaultClientID + " may not see it; correct zerobus.table, or create the table: bridge ddl prints", "bridge ddl"},
		} {
			args := append(slices.Clone(flags), "--set", tc.set)
			if tc.set == rotated {
				args = flags
				u.em.RotateSecret("another secret")
			}
			steps, got := checked(t, args...)
			u.em.RotateSecret(emulator.DefaultClientSecret)
			if s := steps[tc.step]; s.Status != pipeline.StepFailed || !strings.Contains(s.Error, tc.want) || got.code != exitFailed || !strings.Contains(got.stderr, tc.next) {
				t.Errorf("%s, %s: got exit code %d, %+v and %s, want %q and %q", transport, tc.set, got.code, s, got.stderr, tc.want, tc.next)
			}
			if strings.Contains(got.stdout, "GRANT ") {
				t.Errorf("%s, %s: got a GRANT statement in\n%s", transport, tc.set, got.stdout)
			}
			skipped := 0
			for step, s := range steps {
				if strings.HasPrefix(step, "grant ") && s.Status == pipeline.StepSkipped {
					skipped++
				}
			}
			if want := map[string]int{"wrong.events.stream": 4, "datafly.wrong.stream": 3, "datafly.events.wrong": 2}[strings.TrimPrefix(tc.set, "zerobus.table=")]; tc.step == "table" && skipped != want {
				t.Errorf("%s, %s: got %d grants that were not tried, want %d:\n%s", transport, tc.set, skipped, want, got.stdout)
			}
		}
	}
}

// What limits writing to a table is a warning of its own step.
func TestCheckDescribesTheTable(t *testing.T) {
	all, u := transports(t)
	is := func(name string, flags []string, status, want string) {
		t.Helper()
		steps, got := checked(t, flags...)
		if s := steps["table"]; s.Status != status || !strings.Contains(s.Detail+"\n"+s.Warning, want) || got.code != exitFine {
			t.Errorf("%s: got exit code %d and %+v, want %s and %q", name, got.code, s, status, want)
		}
	}
	is("as it is", all["grpc"], pipeline.StepOK, "MANAGED DELTA")
	u.partition = "event_name"
	is("partitioned", all["grpc"], pipeline.StepWarning, "it is partitioned by event_name, and Zerobus writes to at most 1,000 partitions in any 5 seconds")
	u.partition, u.storage = "", "TABLE_DB_STORAGE"
	is("in default storage", all["grpc"], pipeline.StepWarning, "it is in default storage")
	u.storage = "TABLE_DELTA"
	if err := u.em.Table("datafly.events.stream").AddColumn(emulator.Column{Name: "rescue", Type: "VARIANT"}); err != nil {
		t.Fatal(err)
	}
	is("a VARIANT without the tag", all["grpc"], pipeline.StepOK, "MANAGED DELTA")
	if err := u.em.Table("datafly.events.stream").SetColumnTags("rescue", "zerobus-rescue"); err != nil {
		t.Fatal(err)
	}
	const rescued = "rows go as JSON, and the rescue column rescue takes fields that do not fit"
	for transport, flags := range all {
		is("a rescue column, "+transport, flags, pipeline.StepOK, rescued)
	}
	is("rows in JSON by choice", append(slices.Clone(all["grpc"]), "--set", "zerobus.record_format=json"), pipeline.StepOK, rescued)
	is("rows in protobuf by choice", append(slices.Clone(all["grpc"]), "--set", "zerobus.record_format=protobuf"), pipeline.StepWarning,
		"its rescue column rescue takes nothing from protobuf rows, so fields that do not fit the table are refused; set zerobus.record_format to auto")
}
