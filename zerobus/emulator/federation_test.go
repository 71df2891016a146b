package emulator_test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

var policy = emulator.Federation{Issuer: "https://oidc.example", Audience: "databricks", Subject: "system:serviceaccount:datafly:bridge"}

// jwtOf returns a JWT with the claims of the policy, changed by those given in pairs.
func jwtOf(t *testing.T, changes ...any) string {
	t.Helper()
	claims := map[string]any{"iss": policy.Issuer, "aud": policy.Audience, "sub": policy.Subject, "exp": time.Now().Add(time.Hour).Unix()}
	for i := 0; i < len(changes); i += 2 {
		claims[changes[i].(string)] = changes[i+1]
	}
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return "e30." + base64.RawURLEncoding.EncodeToString(text) + ".signature"
}

func exchangeOf(jwt string, changes ...string) string {
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "scope": {"all-apis"}, "client_id": {emulator.DefaultClientID},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}, "subject_token": {jwt}}
	for i := 0; i < len(changes); i += 2 {
		form.Set(changes[i], changes[i+1])
	}
	return form.Encode()
}

func TestTokenExchange(t *testing.T) {
	account := policy
	account.Account = true
	none := emulator.Federation{}
	for _, c := range []struct {
		name, body    string
		policy        emulator.Federation
		code, message string // "" is a token
	}{
		{"taken", exchangeOf(jwtOf(t)), policy, "", ""},
		{"several audiences", exchangeOf(jwtOf(t, "aud", []string{"other", "databricks"})), policy, "", ""},
		{"account policy", exchangeOf(jwtOf(t), "client_id", ""), account, "", ""},
		{"no policy", exchangeOf(jwtOf(t)), none, "invalid_grant",
			"TOKEN_INVALID (Ensure a valid federation policy has been configured). Valid federation policy for provided token: {issuer: 'https://oidc.example', subject: '" + policy.Subject + "', audience: 'databricks'}"},
		{"issuer", exchangeOf(jwtOf(t, "iss", "https://other.example")), policy, "invalid_grant", "TOKEN_INVALID"},
		{"audience", exchangeOf(jwtOf(t, "aud", []string{"kubernetes"})), policy, "invalid_grant", "TOKEN_AUDIENCE_INVALID (Token audience 'kubernetes' invalid)"},
		{"no audience", exchangeOf(jwtOf(t, "aud", nil)), policy, "invalid_grant", "TOKEN_AUDIENCE_INVALID"},
		{"subject", exchangeOf(jwtOf(t, "sub", "system:serviceaccount:datafly:default")), policy, "invalid_grant", "TOKEN_SUBJECT_INVALID"},
		{"expired", exchangeOf(jwtOf(t, "exp", time.Now().Add(-time.Minute).Unix())), policy, "invalid_grant", "TOKEN_EXPIRED"},
		{"no expiry", exchangeOf(jwtOf(t, "exp", nil)), policy, "invalid_grant", "TOKEN_EXPIRED"},
		{"another service principal", exchangeOf(jwtOf(t), "client_id", "other"), policy, "invalid_grant", "TOKEN_INVALID"},
		{"no client id", exchangeOf(jwtOf(t), "client_id", ""), policy, "invalid_grant", "TOKEN_INVALID"},
		{"client id with an account policy", exchangeOf(jwtOf(t)), account, "invalid_grant", "TOKEN_INVALID"},
		{"kind of token", exchangeOf(jwtOf(t), "subject_token_type", "urn:ietf:params:oauth:token-type:access_token"), policy, "invalid_request", "subject_token_type"},
		{"no JWT", exchangeOf("e30.e30"), policy, "invalid_request", "no JWT"},
		{"no JSON", exchangeOf("e30.e.e30"), policy, "invalid_request", "no JWT"},
		{"scope", exchangeOf(jwtOf(t), "scope", "sql"), policy, "invalid_scope", "all-apis"},
		{"resource", exchangeOf(jwtOf(t), "resource", "x"), policy, "invalid_target", "resource"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, emulator.Config{Federation: c.policy})
			r := w.do("POST", emulator.TokenPath, form, c.body)
			if c.code != "" {
				r.wantError(t, 400, c.code, c.message)
				return
			}
			token, _ := r.json(t)["access_token"].(string)
			if got := w.do("POST", emulator.IngestPath, "application/json", envelope(), "Authorization", "Bearer "+token); got.status != 200 {
				t.Errorf("with the token: got %d %s, want 200", got.status, got.body)
			}
		})
	}
}

// A policy can be created, changed and removed while clients run.
func TestSetFederation(t *testing.T) {
	w := start(t, emulator.Config{})
	w.do("POST", emulator.TokenPath, form, exchangeOf(jwtOf(t))).wantError(t, 400, "invalid_grant", "TOKEN_INVALID")
	body := `{"issuer":"https://oidc.example","audience":"databricks","subject":"` + policy.Subject + `"}`
	if r := w.do("POST", "/emulator/federation", "application/json", body); r.status != 204 {
		t.Fatalf("setting the policy: got %d %s", r.status, r.body)
	}
	if r := w.do("POST", emulator.TokenPath, form, exchangeOf(jwtOf(t))); r.status != 200 {
		t.Errorf("with the policy: got %d %s, want a token", r.status, r.body)
	}
	if r := w.do("POST", "/emulator/federation", "application/json", `{"issuer":"x"}`); r.status != 400 || !strings.Contains(r.body, "needs an issuer, an audience and a subject") {
		t.Errorf("half a policy: got %d %s, want it refused", r.status, r.body)
	}
	if r := w.do("POST", "/emulator/federation", "application/json", `{}`); r.status != 204 {
		t.Fatalf("removing the policy: got %d %s", r.status, r.body)
	}
	w.do("POST", emulator.TokenPath, form, exchangeOf(jwtOf(t))).wantError(t, 400, "invalid_grant", "TOKEN_INVALID")
}

func TestFederationText(t *testing.T) {
	for text, want := range map[string]string{
		"issuer=https://oidc.example,audience=databricks,subject=a:b":         "",
		"issuer=https://oidc.example,audience=databricks,subject=a=b,account": "",
		"issuer=x,audience=y": "needs an issuer, an audience and a subject",
		"issuer=x,issuer=y":   "given twice",
		"isuer=x":             "unknown",
		"":                    "unknown",
	} {
		var f emulator.Federation
		err := f.Set(text)
		if again := f.String(); want == "" && (err != nil || again != text) {
			t.Errorf("%s: got %v and %s back", text, err, again)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || f != (emulator.Federation{})) {
			t.Errorf("%s: got %v and %+v, want an error with %q", text, err, f, want)
		}
	}
	if _, err := emulator.New(emulator.Config{Federation: emulator.Federation{Issuer: "x"}}); err == nil {
		t.Error("half a policy in the Config: got no error")
	}
}
