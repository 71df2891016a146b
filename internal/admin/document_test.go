package admin

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/setup"
)

var update = flag.Bool("update", false, "write openapi.json")

// TestDocument holds openapi.json to the routes and the Go types.
func TestDocument(t *testing.T) {
	want := newDocument(t).text
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(document, want) {
		t.Error("openapi.json is not that of the routes and types; run go test ./internal/admin -run TestDocument -update")
	}
}

type object = map[string]any

// documentOf is the OpenAPI document, and the schemas to validate answers with.
type documentOf struct {
	text    []byte
	schemas map[string]*jsonschema.Schema // by name
	names   map[reflect.Type]string
	inlined map[reflect.Type]bool // embedded in others: these have a copy
	roots   map[reflect.Type]bool // bodies and answers

	mu       sync.Mutex // guards resolved
	resolved map[string]*jsonschema.Resolved
}

var named = map[reflect.Type]string{
	reflect.TypeFor[problem](): "Problem", reflect.TypeFor[problemError](): "ProblemError", reflect.TypeFor[checked](): "CheckResult", reflect.TypeFor[diff](): "RevisionDiff",
	reflect.TypeFor[manage.Prepared](): "Preparation", reflect.TypeFor[setup.Item](): "Statement", reflect.TypeFor[session](): "Session", reflect.TypeFor[manage.Request](): "InstallRequest", reflect.TypeFor[manage.Patch](): "IntegrationPatch",
}

// newDocument derives the document from the routes.
func newDocument(t *testing.T) *documentOf {
	t.Helper()
	d := &documentOf{schemas: map[string]*jsonschema.Schema{}, names: map[reflect.Type]string{}, inlined: map[reflect.Type]bool{}, roots: map[reflect.Type]bool{}, resolved: map[string]*jsonschema.Resolved{}}
	d.find(reflect.TypeFor[problem](), false)
	for _, r := range routes {
		for _, v := range []any{r.body, r.answer} {
			if v != nil {
				d.find(reflect.TypeOf(v), false)
				d.roots[reflect.TypeOf(v)] = true
			}
		}
	}
	count := map[string]int{}
	for _, name := range d.names {
		count[name]++
	}
	for of, name := range d.names {
		if count[name] > 1 { // in several packages
			d.names[of] = strings.Title(path.Base(of.PkgPath())) + name //nolint:staticcheck // names of packages are ASCII
		}
	}
	for of, name := range d.names {
		if d.inlined[of] && !d.roots[of] {
			continue
		}
		s, err := jsonschema.ForType(of, &jsonschema.ForOptions{TypeSchemas: d.known(of)})
		if err != nil {
			t.Fatal(err)
		}
		visit(s, func(s *jsonschema.Schema) {
			if s.Ref != "" {
				s.Types = nil // a pointer that is nil is left out
			}
			for name, p := range s.Properties {
				if len(p.Types) == 2 && p.Types[1] == "array" && !slices.Contains(s.Required, name) {
					p.Type, p.Types = "array", nil // so is an empty list
				}
			}
		})
		d.schemas[name] = s
	}
	refine(d.schemas)
	for _, r := range routes {
		if r.body != nil {
			nullable(d.schemas[d.names[reflect.TypeOf(r.body)]])
		}
	}
	paths := object{}
	for _, r := range routes {
		at := Prefix + r.pattern
		if paths[at] == nil {
			paths[at] = object{}
		}
		paths[at].(object)[strings.ToLower(r.method)] = d.operation(r)
	}
	text, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{"title": "bridge install API", "version": "1", "description": "Installs, changes and removes integrations of the bridge.",
			"license": object{"name": "Apache 2.0", "identifier": "Apache-2.0"}},
		"servers":  []any{object{"url": "http://localhost:8084"}},
		"security": []any{object{"token": []any{}}},
		"paths":    paths,
		"components": object{
			"schemas":         d.schemas,
			"responses":       refusals(),
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "A token of admin.token_file, or a JSON Web Token."}},
		},
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	d.text = append(text, '\n')
	return d
}

// find names the structs that a type consists of.
func (d *documentOf) find(t reflect.Type, embedded bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		d.find(t.Elem(), false)
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return
		}
		d.inlined[t] = d.inlined[t] || embedded
		if d.names[t] != "" {
			return
		}
		name := regexp.MustCompile(`^page\[.*\.(\w+)\]$`).ReplaceAllString(t.Name(), "${1}Page")
		if d.names[t] = name; named[t] != "" {
			d.names[t] = named[t]
		}
		for i := range t.NumField() {
			if f := t.Field(i); f.Tag.Get("json") != "-" && (f.IsExported() || f.Anonymous) {
				d.find(f.Type, f.Anonymous)
			}
		}
	default:
	}
}

// anything is not the schema true, which generators of clients do not know.
var anything = &jsonschema.Schema{Description: "Any JSON value."}

// known are the schemas of types that a schema refers to.
func (d *documentOf) known(without reflect.Type) map[reflect.Type]*jsonschema.Schema {
	schemas := map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[time.Time]():        {Type: "string", Format: "date-time"},
		reflect.TypeFor[json.RawMessage]():  anything,
		reflect.TypeFor[any]():              anything,
		reflect.TypeFor[consumer.Seconds](): {Type: "number"},
		reflect.TypeFor[consumer.Events]():  {Type: "string"},
		reflect.TypeFor[[]byte]():           {Type: "string", ContentEncoding: "base64"},
	}
	for t, name := range d.names {
		if t != without && !d.inlined[t] {
			schemas[t] = reference(name)
		}
	}
	return schemas
}

func reference(name string) *jsonschema.Schema {
	return &jsonschema.Schema{Ref: "#/components/schemas/" + name}
}

// of is the schema of a value.
func (d *documentOf) of(v any) *jsonschema.Schema {
	if name := d.names[reflect.TypeOf(v)]; name != "" {
		return reference(name)
	}
	return &jsonschema.Schema{Type: "object"}
}

// visit calls f with a schema and those below it.
func visit(s *jsonschema.Schema, f func(*jsonschema.Schema)) {
	if s == nil {
		return
	}
	f(s)
	for _, p := range s.Properties {
		visit(p, f)
	}
	visit(s.Items, f)
	visit(s.AdditionalProperties, f)
}

// nullable lets the properties of a body that may be missing be null, which is the same.
func nullable(s *jsonschema.Schema) {
	for name, p := range s.Properties {
		if p.Type != "" && !slices.Contains(s.Required, name) {
			if p.Type, p.Types = "", []string{"null", p.Type}; p.Enum != nil {
				p.Enum = append(p.Enum, nil)
			}
		}
	}
}

// printable is the pattern of text without control characters.
const printable = `^[^\x00-\x1f\x7f-\x9f]*$`

// refine adds what Go types cannot say.
func refine(schemas map[string]*jsonschema.Schema) {
	text := func(of *jsonschema.Schema, least, most int, pattern string) {
		if of.MaxLength, of.Pattern = &most, pattern; least > 0 {
			of.MinLength = &least
		}
	}
	enum := func(of *jsonschema.Schema, values ...string) {
		for _, v := range values {
			of.Enum = append(of.Enum, v)
		}
	}
	text(schemas["IntegrationPatch"].Properties["name"], 1, 100, printable)
	for _, install := range []*jsonschema.Schema{schemas["InstallRequest"], schemas["PrepareRequest"]} {
		text(install.Properties["name"], 1, 100, printable)
		text(install.Properties["slug"], 0, 40, `^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$`)
		enum(install.Properties["delivery_mode"], "server_side")
		install.Required = requiredOf(install, "name", "config")
		config := install.Properties["config"]
		config.Properties = map[string]*jsonschema.Schema{}
		for _, key := range []string{"workspace_url", "client_id", "client_secret", "catalog", "schema", "table"} {
			config.Properties[key] = &jsonschema.Schema{Type: "string"}
			text(config.Properties[key], 1, 4096, "")
			config.PropertyOrder = append(config.PropertyOrder, key)
		}
		config.Required = []string{"workspace_url", "client_id", "client_secret", "table"} // the table may be a full name
		config.Properties["client_secret"].WriteOnly = true
		config.Properties["workspace_url"].Examples = []any{"https://abc-12345.cloud.databricks.com"}
	}
	prepare := schemas["PrepareRequest"]
	text(prepare.Properties["warehouse_id"], 0, 500, printable)
	text(prepare.Properties["token"], 0, 4096, printable)
	prepare.Properties["token"].WriteOnly = true
	enum(schemas["Statement"].Properties["state"], setup.Exists, setup.WillRun, setup.Unseen, setup.Started, setup.Done, setup.Refused, setup.Failed)
	enum(schemas["CheckStep"].Properties["status"], pipeline.StepOK, pipeline.StepWarning, pipeline.StepFailed, pipeline.StepSkipped)
	enum(schemas["Session"].Properties["role"], "viewer", "editor", "admin")
	enum(schemas["Integration"].Properties["managed_by"], "store", "file")
	enum(schemas["Field"].Properties["type"], "string", "secret", "list")
	enum(schemas["Vendor"].Properties["status"], "ga", "beta")
	enum(schemas["TryResult"].Properties["outcome"], "row", "reject", "filter")
	text(schemas["ReplayRequest"].Properties["to"], 1, 100, "")
	for _, name := range []string{"ReplayRequest", "RedriveRequest"} {
		text(schemas[name].Properties["reason"], 0, maxReason, printable)
		least := 0.0
		schemas[name].Properties["partitions"].Items.Minimum = &least
		if limit := schemas[name].Properties["limit"]; limit != nil {
			limit.Minimum = &least
		}
	}
}

func requiredOf(s *jsonschema.Schema, names ...string) []string {
	for _, name := range names {
		if s.Properties[name] == nil {
			panic(name)
		}
	}
	return names
}

// descriptions of the statuses that are errors.
var descriptions = map[int]string{
	400: "The request is malformed.", 401: "A valid token is required.", 403: "The role does not allow this, or the request comes from another site.",
	404: "There is nothing of this name.", 409: "The present state does not allow this.", 412: "The integration has another revision.",
	413: "The body is too large.", 415: "The body is not JSON.", 421: "The Host header does not name this server.", 422: "Fields of the body are wrong.",
	429: "Too many requests.", 500: "The bridge failed.", 503: "Kafka, the table or the store does not answer, or the bridge is stopping.",
}

// statusesOf are the statuses of errors of a route.
func statusesOf(r *route) []int {
	all := []int{400, 401, 403, 421, 429, 500, 503}
	if strings.Contains(r.pattern, "{") || slices.Contains([]string{"listAudit", "validateBlueprint", "tryBlueprint"}, r.id) { // the entry of the cursor, the integration of the body
		all = append(all, 404)
	}
	if r.conflict || r.operation {
		all = append(all, 409)
	}
	if r.match {
		all = append(all, 412)
	}
	if r.body != nil {
		all = append(all, 413, 415)
	}
	if r.body != nil || r.match || r.operation {
		all = append(all, 422)
	}
	return all
}

var requestHeader = object{"description": "Identifies the request in logs and in the audit log.", "schema": object{"type": "string"}}

// refusals are the answers that are errors.
func refusals() object {
	all := object{}
	for status, about := range descriptions {
		headers := object{"X-Request-Id": requestHeader}
		if status == 429 || status == 503 {
			headers["Retry-After"] = object{"description": "Seconds to wait.", "schema": object{"type": "integer", "minimum": 1}}
		}
		all[strconv.Itoa(status)] = object{"description": about, "headers": headers, "content": object{"application/json": object{"schema": reference("Problem")}}}
	}
	return all
}

func (d *documentOf) operation(r *route) object {
	var params []any
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(r.pattern, -1) {
		schema, about := object{"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, map[string]string{"id": "The id or the slug of the integration.", "key": "The key of the vendor.", "n": "The revision."}[m[1]]
		switch m[1] {
		case "n":
			schema = object{"type": "integer", "minimum": 1}
		case "key":
			schema = object{"type": "string", "enum": []any{catalog.Key}}
		}
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": schema, "description": about})
	}
	for _, p := range r.params {
		schema := object{"type": "string", "maxLength": maxText[p.kind], "pattern": printable}
		switch p.kind {
		case "boolean":
			schema = object{"type": "boolean", "default": p.def == "true"}
		case "integer":
			n, _ := strconv.Atoi(p.def)
			schema = object{"type": "integer", "minimum": 1, "maximum": maxLimit, "default": n}
		case "cursor":
			schema["pattern"] = `^([0-9a-f]{2})*$`
		case "time":
			schema = object{"type": "string", "format": "date-time"}
		case "list":
			if p.name == "partitions" {
				schema["pattern"] = `^([0-9]{1,9}(,[0-9]{1,9})*)?$`
			}
		}
		params = append(params, object{"name": p.name, "in": "query", "schema": schema, "description": p.description})
	}
	if r.match {
		params = append(params, object{"name": "If-Match", "in": "header", "schema": object{"type": "string", "pattern": `^(\*|"[1-9][0-9]{0,17}")$`, "minLength": 1, "maxLength": 20}, "description": "The ETag of the integration; the call is refused at another revision."})
	}
	if r.method != "GET" {
		params = append(params, object{"name": "Idempotency-Key", "in": "header", "schema": object{"type": "string", "pattern": safeID.String()}, "description": "Identifies the request: one that is repeated is done once."})
	}
	responses := object{}
	for _, status := range statusesOf(r) {
		responses[strconv.Itoa(status)] = object{"$ref": fmt.Sprintf("#/components/responses/%d", status)}
	}
	id := object{"X-Request-Id": requestHeader}
	content := object{}
	if r.answer != nil {
		content["application/json"] = object{"schema": d.of(r.answer)}
	}
	if r.stream {
		content["text/event-stream"] = object{}
	}
	responses["200"] = object{"description": "Done.", "headers": id, "content": content}
	if r.created {
		responses["200"].(object)["description"] = "What would be created: the call was a dry run."
		responses["201"] = object{"description": "Created.", "content": content, "headers": object{"X-Request-Id": requestHeader,
			"Location": object{"description": "Of the integration.", "schema": object{"type": "string"}}}}
	}
	op := object{"operationId": r.id, "summary": r.summary, "description": "Requires the role " + r.role + ".", "responses": responses}
	if params != nil {
		op["parameters"] = params
	}
	if r.body != nil {
		op["requestBody"] = object{"required": !r.optional, "content": object{"application/json": object{"schema": d.of(r.body)}}}
	}
	return op
}

// validate returns what the document does not say of an answer.
func (d *documentOf) validate(r *route, status int, contentType string, body []byte) error {
	if !slices.Contains(statusesOf(r), status) && status != http.StatusOK && !(r.created && status == http.StatusCreated) {
		return fmt.Errorf("status %d is not documented", status)
	}
	if contentType == "text/event-stream" && r.stream && status == http.StatusOK {
		return nil
	}
	if contentType != "application/json" {
		return fmt.Errorf("Content-Type is %q", contentType)
	}
	of := any(problem{})
	if status < 300 {
		of = r.answer
	}
	return d.fits(of, body)
}

// fits returns how JSON differs from the schema of a type.
func (d *documentOf) fits(of any, body []byte) error {
	resolved, err := d.resolve(of)
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return err
	}
	return resolved.Validate(value)
}

// resolve returns the schema of a type, ready to validate with.
func (d *documentOf) resolve(of any) (*jsonschema.Resolved, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	schema := d.of(of)
	if found := d.resolved[schema.Ref]; found != nil {
		return found, nil
	}
	text, err := json.Marshal(object{"allOf": []any{schema}, "$defs": d.schemas})
	if err != nil {
		return nil, err
	}
	var root jsonschema.Schema
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte("#/components/schemas/"), []byte("#/$defs/")), &root); err != nil {
		return nil, err
	}
	d.resolved[schema.Ref], err = root.Resolve(nil)
	return d.resolved[schema.Ref], err
}

// The page's call, and the bodies that the schemas must refuse.
func TestSchemasAreStrict(t *testing.T) {
	d := newDocument(t)
	if err := d.fits(manage.Request{}, []byte(pageBody)); err != nil {
		t.Errorf("the page's body: %v", err)
	}
	for _, body := range []string{`{}`, `{"name":"a"}`, strings.Replace(pageBody, `"name"`, `"nome"`, 1), strings.Replace(pageBody, "server_side", "browser", 1), strings.Replace(pageBody, `"stream"`, `7`, 1)} {
		if d.fits(manage.Request{}, []byte(body)) == nil {
			t.Errorf("accepted %s", body)
		}
	}
	if d.fits(catalog.Vendor{}, []byte(`{"key":"a"}`)) == nil {
		t.Error("a vendor without a name is accepted")
	}
}
