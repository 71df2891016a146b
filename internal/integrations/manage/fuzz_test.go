package manage_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/manage"
)

// Whatever JSON a client sends, a request ends with an *Error whose fields have a message and
// a remedy, or is valid.
func FuzzRequest(f *testing.F) {
	s := newSite(f)
	s.configure("kafka.topics: [events]\n")
	s.put("web", nil)
	for _, seed := range []string{
		`{}`, `{"name":"Databricks (Zerobus Ingest)","variant":"default","config":{"workspace_url":"https://abc-12345.cloud.databricks.com","client_id":"00000000-0000-0000-0000-000000000000",` +
			`"client_secret":"YOUR_CLIENT_SECRET","catalog":"datafly","schema":"events","table":"stream"},"delivery_mode":"server_side"}`,
		`{"name":"x","config":{"token_exchange":{"policy":"account","a":{"b":{"c":{"d":1}}}},"streams":1e300,"gzip":"maybe"},"source":{"topics":[null,[],{}]},"mapping":{"":{"":null}}}`,
		`{"name":"x","blueprint":"version: 2\nextends: default\nglobal: {mappings: [{source: 'a', target: b}]}","rejects":{"topic":"\u0000"},"delivery":{"max_rows":-1},"enabled":null}`,
		`{"name":"x","slug":"y","config":{"table":"a.b.c","catalog":"z","endpoint":"[::1","token_url":"//x"},"consent_categories":["a","a"]}`,
		`{"config":{"client_secret":null,"workspace_url":null,"table":null},"name":null,"variant":null,"blueprint":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r manage.Request
		if json.Unmarshal(data, &r) == nil {
			got, err := s.Validate(t.Context(), r)
			judge(t, got, err)
		}
		var p manage.Patch
		if json.Unmarshal(data, &p) == nil {
			got, err := s.Update(t.Context(), "web", p, 0, who("x"), true)
			judge(t, got.Integration, err)
		}
	})
}

func judge(t *testing.T, i manage.Integration, err error) {
	t.Helper()
	var e *manage.Error
	switch {
	case err == nil:
		if i.Slug == "" || i.Group == "" || i.Table == "" || i.Config["client_secret"] == nil || i.Config["ca_file"] != nil {
			t.Fatalf("got %+v", i)
		}
	case !errors.As(err, &e) || e.Message == "":
		t.Fatalf("got %v", err)
	case e.Code == manage.ValidationFailed && len(e.Fields) == 0:
		t.Fatalf("got %+v, want fields", e)
	}
	if e != nil {
		for _, f := range e.Fields {
			if f.Field == "" || f.Message == "" || f.Remedy == "" {
				t.Fatalf("got %+v", f)
			}
		}
	}
}

// Each key of the configuration, and each field of a request, with values of every kind.
func TestValuesOfEveryKind(t *testing.T) {
	s := newSite(t)
	s.configure("kafka.topics: [events]\n")
	s.put("web", nil)
	values := []string{`null`, `"\u0000"`, `{"a":{"b":{"c":{"d":{"e":1}}}}}`, `-1`, `["a",["b"],null,{}]`, `"` + strings.Repeat("x", 5000) + `"`, `true`, `""`, `"***"`}
	try := func(body string, update bool) {
		t.Helper()
		var r manage.Request
		var p manage.Patch
		if json.Unmarshal([]byte(body), &r) == nil {
			if r.Name == "" {
				r.Name = "x"
			}
			whole := s.request("x").Config
			maps.Copy(whole, r.Config)
			r.Config = whole
			got, err := s.Validate(t.Context(), r)
			judge(t, got, err)
		}
		if update && json.Unmarshal([]byte(body), &p) == nil {
			got, err := s.Update(t.Context(), "web", p, 0, who("x"), true)
			judge(t, got.Integration, err)
		}
	}
	fields := []string{"name", "variant", "config", "delivery_mode", "enabled", "slug", "source", "blueprint", "mapping", "rejects", "delivery", "consent_categories"}
	for _, k := range config.Keys() {
		section, path, _ := strings.Cut(k.Path, ".")
		if field := map[string]string{"zerobus": "config", "kafka": "source", "mapping": "mapping", "rejects": "rejects", "delivery": "delivery"}[section]; field != "" {
			fields = append(fields, field+"."+path)
		}
	}
	for _, field := range fields {
		for n, value := range values {
			body := value
			for _, name := range slices.Backward(strings.Split(field, ".")) {
				body = fmt.Sprintf("{%q: %s}", name, body)
			}
			try(body, n < 3)
		}
	}
}
