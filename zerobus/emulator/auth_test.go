package emulator_test

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

const form = "application/x-www-form-urlencoded"

func TestTokenEndpoint(t *testing.T) {
	w := start(t, emulator.Config{ClientID: "id", ClientSecret: "s%cret +&", TokenLifetime: 90 * time.Second})
	basic := func(id, secret string) string {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth(id, secret)
		return r.Header.Get("Authorization")
	}
	grant := url.Values{"grant_type": {"client_credentials"}, "scope": {"all-apis"}}.Encode()
	inForm := func(secret string) string { return grant + "&client_id=id&client_secret=" + url.QueryEscape(secret) }
	for _, c := range []struct {
		name, contentType, body, authorization string
		status                                 int
		code, message                          string
	}{
		{"basic, encoded", form, grant, basic("id", url.QueryEscape("s%cret +&")), 200, "", ""},
		{"form", form + "; charset=utf-8", inForm("s%cret +&"), "", 200, "", ""},
		{"several scopes", form, strings.Replace(grant, "all-apis", "offline_access+all-apis", 1), basic("id", url.QueryEscape("s%cret +&")), 200, "", ""},
		{"wrong secret", form, grant, basic("id", "wrong"), 401, "invalid_client", "failed"},
		{"wrong id", form, grant, basic("other", url.QueryEscape("s%cret +&")), 401, "invalid_client", "failed"},
		{"wrong secret in the form", form, inForm("wrong"), "", 401, "invalid_client", "failed"},
		{"no credentials", form, grant, "", 401, "invalid_client", "failed"},
		{"credentials twice", form, inForm("s%cret +&"), basic("id", "x"), 400, "invalid_request", "both"},
		{"no grant type", form, "scope=all-apis&client_id=id&client_secret=s%25cret%20%2B%26", "", 400, "unsupported_grant_type", "client_credentials"},
		{"other scope", form, strings.Replace(inForm("s%cret +&"), "all-apis", "sql", 1), "", 400, "invalid_scope", "all-apis"},
		{"no scope", form, strings.Replace(inForm("s%cret +&"), "scope", "skope", 1), "", 400, "invalid_scope", "all-apis"},
		{"field twice", form, grant + "&scope=all-apis", "", 400, "invalid_request", "twice"},
		{"resource", form, inForm("s%cret +&") + "&resource=x", "", 400, "invalid_target", "resource"},
		{"no form", "application/json", "{}", "", 400, "invalid_request", "Content-Type"},
		{"broken form", form, "a=%zz", "", 400, "invalid_request", "form"},
		{"too large", form, strings.Repeat("a", 1<<17), "", 413, "REQUEST_TOO_LARGE", "65536"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.do("POST", emulator.TokenPath, c.contentType, c.body, "Authorization", c.authorization)
			if c.status != 200 {
				r.wantError(t, c.status, c.code, c.message)
				return
			}
			got := r.json(t)
			if r.status != 200 || got["token_type"] != "Bearer" || got["expires_in"] != 90.0 || got["scope"] != "all-apis" || len(got["access_token"].(string)) < 20 {
				t.Errorf("got %d %s, want a token for 90 s", r.status, r.body)
			}
			if got := r.header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control: got %q, want no-store", got)
			}
		})
	}
	if got := w.Stats().Tokens; got != 3 {
		t.Errorf("tokens minted: got %d, want 3", got)
	}
}

func TestRequestsWithoutAValidToken(t *testing.T) {
	w := start(t, emulator.Config{})
	for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer nope", "Basic " + w.bearer()[7:], w.bearer()[7:]} {
		w.do("POST", emulator.IngestPath, "application/json", envelope(), "Authorization", authorization).
			wantError(t, 401, "UNAUTHENTICATED", "token")
		r := w.do("GET", emulator.ColumnsPath+stream, "", "", "Authorization", authorization)
		r.wantError(t, 401, "UNAUTHENTICATED", "token")
		if got := r.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
			t.Errorf("WWW-Authenticate: got %q, want Bearer", got)
		}
	}
}

func TestSecretsRotateAndTokensAreRevoked(t *testing.T) {
	w := start(t, emulator.Config{})
	w.bearer()
	w.RotateSecret("fresh")
	if r := w.ingest(envelope()); r.status != 200 {
		t.Errorf("token of the old secret: got %d %s, want it to stay good", r.status, r.body)
	}
	w.mint(emulator.DefaultClientID, emulator.DefaultClientSecret).wantError(t, 401, "invalid_client", "failed")
	if r := w.mint(emulator.DefaultClientID, "fresh"); r.status != 200 {
		t.Errorf("new secret: got %d %s, want 200", r.status, r.body)
	}
	w.RevokeTokens()
	w.ingest(envelope()).wantError(t, 401, "UNAUTHENTICATED", "token")
}

// An issued token is valid until it expires, whichever process with
// the same credentials it is shown to.
func TestTokensOutliveTheProcess(t *testing.T) {
	cfg := emulator.Config{ClientSecret: emulator.DefaultClientSecret}
	z := startZerobus(t, cfg)
	plain, scoped := z.bearer(), z.grant(stream)
	stop(t, z.workspace)

	use := func(z *endpoint, plain, scoped string) (onWorkspace, onEndpoint int) {
		onWorkspace = z.do("POST", emulator.IngestPath, "application/json", envelope(), "Authorization", plain).status
		s := z.dialStream(stream, "authorization", scoped, emulator.TableHeader, stream)
		s.send(createRequest(jsonCreate(stream)))
		if _, err := s.Recv(); err != nil {
			return onWorkspace, 401
		}
		s.cancel()
		return onWorkspace, 200
	}
	again := startZerobus(t, cfg)
	if a, b := use(again, plain, scoped); a != 200 || b != 200 {
		t.Errorf("tokens of the process before: got %d and %d, want both taken", a, b)
	}
	if a, b := use(again, scoped, plain); a != 401 || b != 401 {
		t.Errorf("each where the other belongs: got %d and %d, want 401", a, b)
	}
	for _, part := range []int{7, len(scoped) / 2, len(scoped) - 1} { // claims, filling, signature
		forged := []byte(scoped)
		forged[part] ^= 1
		if _, b := use(again, plain, string(forged)); b != 401 {
			t.Errorf("a token with byte %d changed: got %d, want 401", part, b)
		}
	}
	again.AgeTokens(time.Minute) // of an hour
	if a, b := use(again, plain, scoped); a != 200 || b != 200 {
		t.Errorf("a minute older: got %d and %d, want both taken", a, b)
	}
	again.AgeTokens(time.Hour)
	if a, b := use(again, plain, scoped); a != 401 || b != 401 {
		t.Errorf("an hour older: got %d and %d, want 401", a, b)
	}
	if a, b := use(again, again.bearer(), again.grant(stream)); a != 200 || b != 200 {
		t.Errorf("minted after that: got %d and %d, want both taken", a, b)
	}

	third := startZerobus(t, cfg)
	third.RevokeTokens()
	if a, b := use(third, plain, scoped); a != 401 || b != 401 {
		t.Errorf("revoked: got %d and %d, want 401", a, b)
	}
	if a, b := use(third, third.bearer(), third.grant(stream)); a != 200 || b != 200 {
		t.Errorf("minted after the revocation: got %d and %d, want both taken", a, b)
	}
	for name, other := range map[string]emulator.Config{"another secret": {ClientSecret: "other"}, "another id": {ClientID: "other"}} {
		if a, b := use(startZerobus(t, other), plain, scoped); a != 401 || b != 401 {
			t.Errorf("%s: got %d and %d, want 401", name, a, b)
		}
	}
}

func TestTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := emulator.New(emulator.Config{TokenLifetime: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		serve := func(method, path, contentType, body, authorization string) response {
			req := httptest.NewRequest(method, path, strings.NewReader(body))
			req.Header.Set("Content-Type", contentType)
			req.Header.Set("Authorization", authorization)
			rec := httptest.NewRecorder()
			e.Handler().ServeHTTP(rec, req)
			return response{rec.Code, rec.Header(), rec.Body.String()}
		}
		r := serve("POST", emulator.TokenPath, form, "grant_type=client_credentials&scope=all-apis&client_id=emulator&client_secret=emulator-secret", "")
		token := "Bearer " + r.json(t)["access_token"].(string)
		<-time.After(59 * time.Second) // virtual
		if r := serve("POST", emulator.IngestPath, "application/json", envelope(), token); r.status != 200 {
			t.Errorf("after 59 s: got %d %s, want 200", r.status, r.body)
		}
		<-time.After(time.Second)
		serve("POST", emulator.IngestPath, "application/json", envelope(), token).wantError(t, 401, "UNAUTHENTICATED", "expired")
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if e, err = emulator.New(emulator.Config{TokenLifetime: time.Hour}); err != nil {
			t.Fatal(err)
		}
		serve("POST", emulator.IngestPath, "application/json", envelope(), token).wantError(t, 401, "UNAUTHENTICATED", "expired") // after a restart, too
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestPrivileges(t *testing.T) {
	w := start(t, emulator.Config{})
	columns := func() response { return w.do("GET", emulator.ColumnsPath+stream, "", "", "Authorization", w.bearer()) }
	for _, c := range []struct{ privilege, on, endpoint string }{
		{"MODIFY", stream, "ingest"},
		{"SELECT", stream, "columns"},
		{"use schema", "datafly.events", "ingest columns"},
		{"USE CATALOG", "DATAFLY", "ingest columns"},
	} {
		if err := w.Revoke(c.privilege, c.on); err != nil {
			t.Fatal(err)
		}
		for name, r := range map[string]response{"ingest": w.ingest(envelope(`{}`)), "columns": columns()} {
			if strings.Contains(c.endpoint, name) {
				r.wantError(t, 403, "PERMISSION_DENIED", strings.ToUpper(c.privilege))
			} else if r.status != 200 {
				t.Errorf("%s without %s: got %d %s, want 200", name, c.privilege, r.status, r.body)
			}
		}
		if got := w.Revoked(); len(got) != 1 || !strings.HasPrefix(got[0], strings.ToUpper(c.privilege)) {
			t.Errorf("revoked: got %q, want %s", got, c.privilege)
		}
		if err := w.Grant(c.privilege, c.on); err != nil {
			t.Fatal(err)
		}
		if r := w.ingest(envelope(`{}`)); r.status != 200 {
			t.Errorf("%s granted again: got %d %s, want 200", c.privilege, r.status, r.body)
		}
	}
	for _, c := range [][2]string{{"OWN", stream}, {"MODIFY", "stream"}, {"USE CATALOG", "a.b"}, {"USE SCHEMA", ""}} {
		if err := w.Revoke(c[0], c[1]); err == nil {
			t.Errorf("Revoke(%q, %q): got no error", c[0], c[1])
		}
	}
	w.SetIngestAPI(false)
	w.ingest(envelope()).wantError(t, 404, "ENDPOINT_NOT_FOUND", emulator.IngestPath)
	w.SetIngestAPI(true)
	if r := w.ingest(envelope()); r.status != 200 {
		t.Errorf("switched on again: got %d %s, want 200", r.status, r.body)
	}
}

func TestColumnsEndpoint(t *testing.T) {
	w := start(t, emulator.Config{DDL: everyType + `; CREATE TABLE a.b.C (id STRING NOT NULL COMMENT 'the "id"', ` + "`n` INT)"})
	get := func(name string) response {
		return w.do("GET", emulator.ColumnsPath+name, "", "", "Authorization", w.bearer())
	}
	got := get("A.b.c").json(t)
	if got["full_name"] != "a.b.c" || got["catalog_name"] != "a" || got["schema_name"] != "b" || got["name"] != "c" || got["data_source_format"] != "DELTA" {
		t.Errorf("table: got %v", got)
	}
	id := got["columns"].([]any)[0].(map[string]any)
	want := `{"metadata":{"comment":"the \"id\""},"name":"id","nullable":false,"type":"string"}`
	if id["name"] != "id" || id["nullable"] != false || id["position"] != 0.0 || id["type_name"] != "STRING" || id["type_json"] != want || id["comment"] != `the "id"` {
		t.Errorf("column: got %v, want type_json %s", id, want)
	}
	texts := map[string]string{}
	for _, c := range get("t.s.types").json(t)["columns"].([]any) {
		c := c.(map[string]any)
		texts[c["name"].(string)] = c["type_name"].(string) + " " + c["type_text"].(string)
		if c["name"] == "dec" && (c["type_precision"] != 5.0 || c["type_scale"] != 2.0) {
			t.Errorf("decimal: got %v, want precision 5 and scale 2", c)
		}
		if c["name"] == "deep" {
			const want = `{"metadata":{},"name":"deep","nullable":true,"type":{"containsNull":true,"elementType":{"fields":[{"metadata":{},"name":"m","nullable":true,"type":{"keyType":"string","type":"map","valueContainsNull":true,"valueType":{"containsNull":true,"elementType":"long","type":"array"}}}],"type":"struct"},"type":"array"}}`
			if c["type_json"] != want {
				t.Errorf("type_json: got %s, want %s", c["type_json"], want)
			}
		}
	}
	for name, want := range map[string]string{
		"vc": "STRING varchar(3)", "i8": "BYTE tinyint", "i16": "SHORT smallint", "i32": "INT int", "i64": "LONG bigint", "ts": "TIMESTAMP timestamp",
		"ntz": "TIMESTAMP_NTZ timestamp_ntz", "dec": "DECIMAL decimal(5,2)", "v": "VARIANT variant", "m": "MAP map<int,string>",
		"st": "STRUCT struct<ip:string,port:int not null>",
	} {
		if texts[name] != want {
			t.Errorf("column %s: got %q, want %q", name, texts[name], want)
		}
	}
	get("a.b.nope").wantError(t, 404, "TABLE_DOES_NOT_EXIST", "a.b.nope")
}
