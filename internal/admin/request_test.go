package admin

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/integrations/manage"
)

// Bodies that are not JSON of the right form.
func TestMalformedBodies(t *testing.T) {
	r := newRig(t)
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for _, tt := range []struct {
		name, body, code string
		status           int
		says             string
	}{
		{"not JSON", `name=x`, "MALFORMED_JSON", 400, "line 1, column"},
		{"cut off", `{"name":"x",`, "MALFORMED_JSON", 400, "too early"},
		{"a comma too many", "{\n  \"name\": \"x\",\n}", "MALFORMED_JSON", 400, "line 2, column 14"},
		{"a name twice", "{\n\"name\":\"x\",\n\"name\":\"y\"}", "MALFORMED_JSON", 400, "line 3"},
		{"a nested name twice", `{"config":{"table":"a","table":"b"}}`, "MALFORMED_JSON", 400, "twice"},
		{"two values", pageBody + `{}`, "MALFORMED_JSON", 400, "more follows"},
		{"deep", `{"config":` + deep + `}`, "MALFORMED_JSON", 400, "deeper than 32"},
		{"invalid UTF-8", "{\"name\":\"\xff\"}", "MALFORMED_JSON", 400, "UTF-8"},
		{"blank", " ", "MALFORMED_JSON", 400, "too early"},
		{"a list", `[]`, "VALIDATION_FAILED", 422, "body must be an object, and is a list"},
		{"null", ` null`, "VALIDATION_FAILED", 422, "body must be an object, and is null"},
		{"an unknown field", `{"nome":"x"}`, "VALIDATION_FAILED", 422, "nome is not a field"},
		{"a name in capitals", `{"Name":"x"}`, "VALIDATION_FAILED", 422, "Name is not a field"},
		{"a number for a name", `{"name":7}`, "VALIDATION_FAILED", 422, "name must be a string, and is a number"},
		{"a list for a name", `{"name":["x"]}`, "VALIDATION_FAILED", 422, "name must be a string, and is a list"},
		{"a string for config", `{"name":"x","config":"y"}`, "VALIDATION_FAILED", 422, "config must be an object, and is a string"},
		{"a string for enabled", `{"name":"x","enabled":"true"}`, "VALIDATION_FAILED", 422, "enabled must be a boolean, and is a string"},
		{"nothing for a category", `{"name":"x","consent_categories":["a",null]}`, "VALIDATION_FAILED", 422, "must be a string, and is null"},
		{"numbers for categories", `{"name":"x","consent_categories":[7]}`, "VALIDATION_FAILED", 422, "consent_categories.0 must be a string"},
		{"huge", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, "BODY_TOO_LARGE", 413, "1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := r.expect(t, tt.status, tt.code, "POST", installPath, tt.body)
			if !strings.Contains(got.Error.Message, tt.says) || tt.status == 422 && len(got.Fields) == 0 {
				t.Errorf("got %+v, want %q", got, tt.says)
			}
		})
	}
	for name, headers := range map[string][]string{
		"as a form": {"Content-Type", "application/x-www-form-urlencoded"}, "as text": {"Content-Type", "text/plain"}, "of no type": {"Content-Type", ""},
		"in UTF-16": {"Content-Type", "application/json; charset=utf-16"}, "compressed": {"Content-Encoding", "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			r.expect(t, 415, "UNSUPPORTED_MEDIA_TYPE", "POST", installPath, pageBody, headers...)
		})
	}
	r.expect(t, 201, "", "POST", installPath, pageBody, "Content-Type", "application/json; charset=UTF-8")
	if all, err := r.manager.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("got %d integrations %v, want one", len(all), err)
	}
}

// Each field of the page's body: missing, empty, of another type, too long, with control
// characters, and unknown ones. Each is refused with the field named.
func TestFieldsOfAnInstall(t *testing.T) {
	r := newRig(t)
	send := func(t *testing.T, field string, change func(body, config map[string]any)) {
		t.Helper()
		body := map[string]any{}
		if err := json.Unmarshal([]byte(pageBody), &body); err != nil {
			t.Fatal(err)
		}
		change(body, body["config"].(map[string]any))
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		got := r.expect(t, 422, "VALIDATION_FAILED", "POST", installPath, string(text))
		if !slices.ContainsFunc(got.Fields, func(f manage.FieldError) bool { return f.Field == field && f.Message != "" && f.Remedy != "" }) {
			t.Errorf("got the fields %+v, want %s with a remedy", got.Fields, field)
		}
	}
	long := strings.Repeat("x", 5000)
	for _, field := range []string{"workspace_url", "client_id", "client_secret", "table", "catalog", "schema"} {
		for name, value := range map[string]any{"empty": "", "a number": 7, "a list": []string{}, "an object": map[string]any{}, "long": long, "a control character": "a\x00b", "a line break": "a\nb"} {
			if name == "a number" && field != "client_secret" && field != "workspace_url" {
				continue // 7 is a name
			}
			if name == "empty" && (field == "catalog" || field == "schema") {
				continue // reported with the table, which may be a full name
			}
			t.Run(field+"/"+name, func(t *testing.T) {
				send(t, "config."+field, func(_, config map[string]any) { config[field] = value })
			})
		}
	}
	for _, field := range []string{"workspace_url", "client_id", "client_secret", "table"} {
		t.Run(field+"/missing", func(t *testing.T) { send(t, "config."+field, func(_, config map[string]any) { delete(config, field) }) })
	}
	for name, value := range map[string]any{"empty": "", "blank": " ", "a number": 7, "null": nil, "long": long, "a control character": "a\x01"} {
		t.Run("name/"+name, func(t *testing.T) { send(t, "name", func(body, _ map[string]any) { body["name"] = value }) })
	}
	t.Run("name/missing", func(t *testing.T) { send(t, "name", func(body, _ map[string]any) { delete(body, "name") }) })
	for field, value := range map[string]any{"variant": "other", "delivery_mode": "browser", "config": "x", "enabled": "x", "slug": "A B", "nome": "x", "blueprint": "x: [", "consent_categories": 7} {
		t.Run(field, func(t *testing.T) { send(t, field, func(body, _ map[string]any) { body[field] = value }) })
	}
	t.Run("unknown", func(t *testing.T) { send(t, "config.tabel", func(_, config map[string]any) { config["tabel"] = "x" }) })
	t.Run("host", func(t *testing.T) {
		send(t, "config.workspace_url", func(_, config map[string]any) { config["workspace_url"] = "https://evil.example" })
	})
	t.Run("user", func(t *testing.T) {
		send(t, "config.workspace_url", func(_, config map[string]any) { config["workspace_url"] = "https://a:b@" + pageHost })
	})
	t.Run("mask", func(t *testing.T) {
		send(t, "config.client_secret", func(_, config map[string]any) { config["client_secret"] = "***" })
	})
	if all, err := r.manager.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("got %d integrations %v, want none", len(all), err)
	}
}

func FuzzBody(f *testing.F) {
	for _, body := range bodies {
		f.Add(body)
	}
	f.Add("{\"name\":\"\xff\",\"name\":1}x")
	r := newRig(f)
	f.Fuzz(func(t *testing.T, body string) {
		for _, x := range routes {
			if x.body == nil {
				continue
			}
			if w := r.send(t, x.method, pathOf(x), body, "Content-Type", "application/json"); w.Code >= 500 && (x.id != "prepare" || w.Code != 503) { // another host of Databricks does not answer
				t.Errorf("%s: got %d %s", x.id, w.Code, w.Body)
			}
		}
	})
}

func TestUnknownCallsAndMethods(t *testing.T) {
	r := newRig(t, withTokens(t))
	token := []string{"Authorization", "Bearer admin"}
	for _, path := range []string{"", "/", "/nothing", "/integrations/", "/integrations/web/nothing", "/integrations//web", "/integrations/../session", "/integrations/%2e%2e/web", "/Integrations"} {
		r.expect(t, 404, "NOT_FOUND", "GET", Prefix+path, "", token...)
	}
	for _, path := range []string{"/", "/nothing", "/v1", "/v1/administration"} {
		r.expect(t, 404, "NOT_FOUND", "GET", path, "")
	}
	for target, allow := range map[string]string{"/integrations": "GET, HEAD", "/integrations/web": "DELETE, GET, HEAD, PATCH", "/integrations/web/enable": "POST"} {
		for _, method := range []string{"PUT", "OPTIONS", "TRACE", "QUERY"} {
			w := r.send(t, method, Prefix+target, "", token...)
			if w.Code != 405 || w.Header().Get("Allow") != allow {
				t.Errorf("%s %s: got %d, Allow: %s, want 405 and %s", method, target, w.Code, w.Header().Get("Allow"), allow)
			}
		}
	}
	r.expect(t, 401, "UNAUTHORIZED", "GET", Prefix+"/nothing", "")
	r.expect(t, 404, "NOT_FOUND", "POST", Prefix+"/integration-catalog/other/install", pageBody, token...)
	r.expect(t, 404, "NOT_FOUND", "GET", Prefix+"/integration-catalog/other", "", token...)
	for _, path := range []string{"", "/revisions", "/revisions/1/diff", "/status", "/dead-letters", "/events", "/recent-events"} {
		r.expect(t, 404, "NOT_FOUND", "GET", Prefix+"/integrations/none"+path, "", token...)
	}
}

func TestParameters(t *testing.T) {
	r := newRig(t)
	r.install(t, "web")
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "limit=1&limit=2", "cursor=%ff%ff", "cursor=!", "cursor=abc", "other=1", "%zz", "limit="} {
		r.expect(t, 400, "INVALID_PARAMETER", "GET", Prefix+"/integrations?"+query, "")
	}
	for _, query := range []string{"dryrun=true", "dry_run=yes", "dry_run=", "dry_run=true&dry_run=false", "reason=" + strings.Repeat("x", 501), "reason=a%0ab"} {
		r.expect(t, 400, "INVALID_PARAMETER", "DELETE", Prefix+"/integrations/web?"+query, "")
	}
	for _, query := range []string{"from=yesterday", "partitions=a", "partitions=-1", "partitions=1,99999999999", "column=" + strings.Repeat("x", 501)} {
		r.expect(t, 400, "INVALID_PARAMETER", "GET", Prefix+"/integrations/web/dead-letters?"+query, "")
	}
	r.expect(t, 200, "", "GET", Prefix+"/integrations/web/dead-letters?codes=a,b&column=c&from=2026-01-31T12:00:00Z&partitions=0,3", "")
	if f := r.ops.filter; !slices.Equal(f.Codes, []string{"a", "b"}) || f.Column != "c" || f.From.IsZero() || !f.To.IsZero() || !slices.Equal(f.Partitions, []int32{0, 3}) {
		t.Errorf("got %+v", f)
	}
	for _, header := range []string{"", "3", `W/"1"`, `"0"`, `"x"`, `"1", "2"`, `"99999999999999999999"`} {
		r.expect(t, 400, "INVALID_HEADER", "PATCH", Prefix+"/integrations/web", `{"name":"b"}`, "If-Match", header)
	}
	if _, err := r.manager.Get(t.Context(), "web"); err != nil {
		t.Errorf("a refused request changed something: %v", err)
	}
}
