package databricks_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/databricks"
)

const principal = "00000000-0000-0000-0000-000000000001"

// workspace answers each "METHOD path?query" with a body; "403 {…}" is another status. It
// returns the requests it got.
func workspace(t *testing.T, answers map[string]string) (c *databricks.Client, got *[]string) {
	t.Helper()
	got = new([]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		call := r.Method + " " + r.URL.RequestURI()
		*got = append(*got, strings.TrimSpace(call+" "+string(body)))
		if r.Header.Get("Authorization") != "Bearer token-of-the-test" {
			t.Errorf("%s: got Authorization %q", call, r.Header.Get("Authorization"))
		}
		answer, ok := answers[call]
		if !ok {
			answer = `404 {"error_code":"NOT_FOUND","message":"it does not exist"}`
		}
		var status int
		if n, _ := fmt.Sscanf(answer, "%d ", &status); n == 1 {
			w.WriteHeader(status)
			_, answer, _ = strings.Cut(answer, " ")
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	return &databricks.Client{URL: server.URL, HTTP: server.Client(), Token: func(context.Context) (string, error) { return "token-of-the-test", nil }}, got
}

func TestEffective(t *testing.T) {
	const at = "GET /api/2.1/unity-catalog/effective-permissions/table/a.b%20%2Fc.t?max_results=0&principal=" + principal
	for name, tc := range map[string]struct {
		answers map[string]string
		want    []databricks.Privilege
		err     string
	}{
		"own and inherited": {map[string]string{at: `{"privilege_assignments":[
				{"principal":"` + principal + `","privileges":[{"privilege":"SELECT"},{"privilege":"MODIFY","inherited_from_type":"SCHEMA","inherited_from_name":"a.b /c"},
				{"privilege":"ALL_PRIVILEGES","inherited_from_type":"CATALOG","inherited_from_name":"a"}]},
				{"principal":"somebody else","privileges":[{"privilege":"MODIFY"}]}]}`},
			[]databricks.Privilege{{Name: "SELECT"}, {Name: "MODIFY", InheritedFrom: "schema a.b /c"}, {Name: "ALL PRIVILEGES", InheritedFrom: "catalog a"}}, ""},
		"none":       {map[string]string{at: `{}`}, nil, ""},
		"other case": {map[string]string{at: `{"privilege_assignments":[{"principal":"` + strings.ToUpper(principal) + `","privileges":[{"privilege":"select"}]}]}`}, []databricks.Privilege{{Name: "SELECT"}}, ""},
		"pages, one of them empty": {map[string]string{
			at: `{"next_page_token":"2&"}`,
			strings.Replace(at, "&principal", "&page_token=2%26&principal", 1): `{"privilege_assignments":[{"principal":"` + principal + `","privileges":[{"privilege":"MODIFY"}]}]}`,
		}, []databricks.Privilege{{Name: "MODIFY"}}, ""},
		"pages without end": {map[string]string{
			at: `{"next_page_token":"x"}`,
			strings.Replace(at, "&principal", "&page_token=x&principal", 1): `{"next_page_token":"x"}`,
		}, nil, "over 100 pages"},
		"denied":          {map[string]string{at: `403 {"error_code":"PERMISSION_DENIED","message":"no"}`}, nil, `HTTP 403 PERMISSION_DENIED "no"`},
		"does not exist":  {nil, nil, "HTTP 404 NOT_FOUND"},
		"not of its form": {map[string]string{at: `[]`}, nil, "not of the workspace's form"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := workspace(t, tc.answers)
			got, err := c.Effective(t.Context(), databricks.Table, "a.b /c.t", principal)
			if !reflect.DeepEqual(got, tc.want) || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %+v, %v, want %+v, %q", got, err, tc.want, tc.err)
			}
		})
	}
}

func TestGrant(t *testing.T) {
	const at = "PATCH /api/2.1/unity-catalog/permissions/schema/a.b"
	c, got := workspace(t, map[string]string{at: `{"privilege_assignments":[]}`})
	if err := c.Grant(t.Context(), databricks.Schema, "a.b", principal, "USE SCHEMA", "SELECT"); err != nil {
		t.Fatal(err)
	}
	want := []string{at + ` {"changes":[{"principal":"` + principal + `","add":["USE_SCHEMA","SELECT"]}]}`}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got %q, want %q", *got, want)
	}
	for name, answer := range map[string]string{"denied": `403 {"error_code":"PERMISSION_DENIED"}`, "a login page": "<html>"} {
		c, _ := workspace(t, map[string]string{at: answer})
		if _, ok := errors.AsType[*databricks.Error](c.Grant(t.Context(), databricks.Schema, "a.b", principal, "USE SCHEMA")); !ok {
			t.Errorf("%s: got no *Error", name)
		}
	}
}

func TestSecurable(t *testing.T) {
	const root = "GET /api/2.1/unity-catalog/"
	c, _ := workspace(t, map[string]string{
		root + "catalogs/a?include_browse=true":    `{"name":"a","owner":"admin@example.com","catalog_type":"MANAGED_CATALOG","properties":null}`,
		root + "schemas/a.b?include_browse=true":   `{"full_name":"a.b","owner":"admins","browse_only":true}`,
		root + "schemas/a.c?include_browse=true":   `403 {"error_code":"PERMISSION_DENIED"}`,
		root + "tables/a.b.t?include_browse=true":  `{"owner":"x","table_type":"MANAGED","data_source_format":"delta","securable_kind":"TABLE_DELTA","columns":[{"name":"day","partition_index":0},{"name":"id"}],"properties":{"delta.minReaderVersion":"1"}}`,
		root + "tables/a.b.d?include_browse=true":  `{"table_type":"MANAGED","securable_kind":"TABLE_DB_STORAGE"}`,
		root + "tables/a.b.d2?include_browse=true": `{"table_type":"MANAGED","securable_kind_manifest":{"securable_kind":"TABLE_DB_STORAGE"}}`,
	})
	for _, tc := range []struct {
		kind   databricks.Kind
		name   string
		want   databricks.Securable
		status int // of the error
	}{
		{databricks.Catalog, "a", databricks.Securable{Owner: "admin@example.com"}, 0},
		{databricks.Schema, "a.b", databricks.Securable{Owner: "admins", BrowseOnly: true}, 0},
		{databricks.Table, "a.b.t", databricks.Securable{Owner: "x", Type: "MANAGED", Format: "DELTA", Partitions: []string{"day"}, Properties: map[string]string{"delta.minReaderVersion": "1"}}, 0},
		{databricks.Table, "a.b.d", databricks.Securable{Type: "MANAGED", DefaultStorage: true}, 0},
		{databricks.Table, "a.b.d2", databricks.Securable{Type: "MANAGED", DefaultStorage: true}, 0},
		{databricks.Table, "a.b.none", databricks.Securable{}, 404},
		{databricks.Schema, "a.c", databricks.Securable{}, 403},
	} {
		got, err := c.Securable(t.Context(), tc.kind, tc.name)
		e, _ := errors.AsType[*databricks.Error](err)
		if !reflect.DeepEqual(got, tc.want) || (e == nil) != (tc.status == 0) || e != nil && e.Status != tc.status {
			t.Errorf("%s %s: got %+v, %v, want %+v, status %d", tc.kind, tc.name, got, err, tc.want, tc.status)
		}
		exists, err := c.Exists(t.Context(), tc.kind, tc.name)
		if exists != (tc.status == 0) || (err == nil) != (tc.status == 0 || tc.status == 404) {
			t.Errorf("%s %s exists: got %v, %v", tc.kind, tc.name, exists, err)
		}
	}
}

// FuzzPermissions decodes arbitrary answers: nothing of them may panic or carry control
// characters into names.
func FuzzPermissions(f *testing.F) {
	f.Add([]byte(`{"privilege_assignments":[{"principal":"p","privileges":[{"privilege":"SELECT\u0007","inherited_from_type":"SCHEMA","inherited_from_name":"a\n.b"}]}]}`))
	f.Add([]byte(`{"owner":"o","columns":[{"name":"c","partition_index":0}],"properties":{"a":"b"}}`))
	f.Add([]byte(`{"columns":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var names []string
		for _, p := range databricks.DecodeEffective(body, "p") {
			names = append(names, p.Name, p.InheritedFrom)
		}
		s := databricks.DecodeSecurable(body)
		for _, name := range append(append(names, s.Owner, s.Type, s.Format), s.Partitions...) {
			if name != databricks.Clean(name, len(name)) {
				t.Errorf("got %q", name)
			}
		}
	})
}
