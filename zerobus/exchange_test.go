package zerobus_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
)

const tokenFile = "/var/run/secrets/databricks/token"

// jwtOf returns a JWT with these claims and a signature that nobody checks.
func jwtOf(t *testing.T, claims map[string]any) string {
	t.Helper()
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return "eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString(text) + ".c2lnbmF0dXJl"
}

// claims are those of a Kubernetes service account token that expires in an hour.
func claims(more ...any) map[string]any {
	c := map[string]any{"iss": "https://oidc.cluster.example/id", "sub": "system:serviceaccount:datafly:bridge",
		"aud": []string{"databricks"}, "exp": time.Now().Add(time.Hour).Unix()}
	for i := 0; i < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	return c
}

// granted answers with a token for an hour.
func granted(w http.ResponseWriter) bool {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"access_token":"good","expires_in":3600}`)
	return true
}

// exchanging is a configuration that exchanges what read returns.
func exchanging(read func() (string, error)) func(*zerobus.Config) {
	return func(c *zerobus.Config) {
		c.TokenExchange.TokenFile, c.ReadCredential = tokenFile, read
	}
}

func TestTokenExchangeRequest(t *testing.T) {
	for _, tt := range []struct {
		name, transport, policy string
	}{
		{"service principal", zerobus.TransportWorkspace, ""},
		{"account", zerobus.TransportWorkspace, "account"},
		{"for the endpoint", zerobus.TransportREST, "service_principal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				jwt := jwtOf(t, claims())
				b := virtual(t, func(c *zerobus.Config) {
					exchanging(func() (string, error) { return jwt, nil })(c)
					c.TokenExchange.Policy, c.Transport = tt.policy, tt.transport
					c.Endpoint, c.OmitOperations = "1234.zerobus.us-west-2.cloud.databricks.com", true
				})
				var form url.Values
				var authorization string
				b.space.onToken = func(w http.ResponseWriter, r *http.Request) bool {
					_ = r.ParseForm()
					form, authorization = r.PostForm, r.Header.Get("Authorization")
					return granted(w)
				}
				if err := b.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
				want := map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": jwt,
					"subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "scope": "all-apis"}
				if tt.policy != "account" {
					want["client_id"] = principal
				}
				if tt.transport == zerobus.TransportREST {
					want["resource"] = "api://databricks/workspaces/1234/zerobusDirectWriteApi"
					want["authorization_details"] = form.Get("authorization_details")
					if !strings.Contains(want["authorization_details"], `"object_full_path":"datafly.events.stream"`) {
						t.Errorf("authorization_details are %q, want those of the table", want["authorization_details"])
					}
				}
				for name, value := range want {
					if got := form.Get(name); got != value || value == "" {
						t.Errorf("%s is %q, want %q", name, got, value)
					}
				}
				if len(form) != len(want) || authorization != "" {
					t.Errorf("sent %d fields %v and Authorization %q, want %d and none", len(form), form, authorization, len(want))
				}
			})
		})
	}
}

// A token lives no longer than the one it was exchanged for.
func TestAnExchangedTokenEndsWithItsSubject(t *testing.T) {
	for _, tt := range []struct {
		name string
		exp  any
		want time.Duration
	}{
		{"sooner", 20 * time.Minute, 20 * time.Minute},
		{"later", 2 * time.Hour, time.Hour},
		{"a fraction", 600.5, 10 * time.Minute},
		{"never", nil, time.Hour},
		{"far away", 1e300, time.Hour},
		{"past, by this clock", -time.Minute, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, exp := time.Now(), tt.exp
				switch in := exp.(type) {
				case time.Duration:
					exp = start.Add(in).Unix()
				case float64:
					exp = float64(start.Unix()) + in
				}
				b := virtual(t, exchanging(func() (string, error) { return jwtOf(t, claims("exp", exp)), nil }))
				b.space.onToken = func(w http.ResponseWriter, _ *http.Request) bool {
					return granted(w)
				}
				if err := b.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := b.State().TokenExpiresAt.Sub(start); got != tt.want {
					t.Errorf("the token expires after %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestRefusedExchanges(t *testing.T) {
	invalid := func(message string) string {
		return `{"error":"invalid_grant","error_description":"Failed to process token: ` + message + `"}`
	}
	const create = `databricks account service-principal-federation-policy create ID --json '{"oidc_policy":{"issuer":"https://oidc.cluster.example/id",` +
		`"audiences":["databricks"],"subject":"system:serviceaccount:datafly:bridge"}}'`
	for _, tt := range []struct {
		name, policy string
		credential   any // claims, or text that is no JWT, or an error of reading it
		status       int
		body         string
		want         []string // in the error
		permanent    bool
	}{
		{"no policy", "", claims(), 400, invalid("TOKEN_INVALID (Ensure a valid federation policy has been configured)"),
			[]string{"TOKEN_INVALID", "no federation policy of service principal " + principal + " trusts the token in " + tokenFile, create}, true},
		{"no account policy", "account", claims("aud", "databricks"), 401, invalid("TOKEN_INVALID"),
			[]string{"no account federation policy trusts", `databricks account federation-policy create --json '{"oidc_policy":{"issuer":"https://oidc.cluster.example/id","audiences":["databricks"],"subject_claim":"sub"}}'`}, true},
		{"subject", "", claims("sub", "it's me"), 400, invalid("TOKEN_SUBJECT_INVALID"), []string{"no federation policy", `"subject":"it\u0027s me"}}'`}, true},
		{"audience", "", claims("aud", []string{"kubernetes", "other"}), 400, invalid("TOKEN_AUDIENCE_INVALID (Token audience 'kubernetes' invalid)"),
			[]string{`for the audience "kubernetes, other", which the federation policy of service principal ` + principal + " does not name", "serviceAccountToken volume"}, true},
		{"expired", "", claims("exp", time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC).Unix()), 400, invalid("TOKEN_EXPIRED"),
			[]string{"the token in " + tokenFile + " expired at 1999-12-31T00:00:00Z", "have it replaced"}, true},
		{"no claims", "", map[string]any{}, 400, `{"error":"invalid_request"}`, []string{"no federation policy", "--json"}, true},
		{"grants", "", claims(), 401, `{"error":"invalid_authorization_details"}`, []string{"GRANT USE SCHEMA ON SCHEMA"}, true},
		{"no exchange served", "", claims(), 400, `{"error":"unsupported_grant_type"}`, []string{"does not serve this grant", "zerobus.client_secret"}, true},
		{"outside the network", "", claims(), 403, `blocked`, []string{"IP access lists"}, true},
		{"busy", "", claims(), 503, `{}`, []string{"HTTP 503"}, false},
		{"no JWT", "", "root:x:0:0", 0, "", []string{"holds no JWT", "zerobus.token_exchange.token_file"}, true},
		{"no JSON inside", "", "e30.e.e30", 0, "", []string{"holds no JWT"}, true},
		{"empty", "", "", 0, "", []string{"it is empty", "no token to exchange in " + tokenFile}, true},
		{"unreadable", "", errors.New("open token: no such file"), 0, "", []string{"no such file", "zerobus.token_exchange.token_file"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				credential, fault := "", error(nil)
				switch in := tt.credential.(type) {
				case map[string]any:
					credential = jwtOf(t, in)
				case string:
					credential = in
				case error:
					fault = in
				}
				b := virtual(t, func(c *zerobus.Config) {
					exchanging(func() (string, error) { return credential, fault })(c)
					c.TokenExchange.Policy = tt.policy
				})
				asked := false
				b.space.onToken = func(w http.ResponseWriter, r *http.Request) bool {
					asked = true
					w.WriteHeader(tt.status)
					// A service may repeat what it was sent.
					fmt.Fprint(w, strings.Replace(tt.body, "Failed", r.FormValue("subject_token")+" Failed", 1))
					return true
				}
				err := b.Token(t.Context())
				if err == nil {
					t.Fatal("a token came, want an error")
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("got %q, want %q in it", err, want)
					}
				}
				if zerobus.IsPermanent(err) != tt.permanent {
					t.Errorf("permanent is %v, want %v: %v", !tt.permanent, tt.permanent, err)
				}
				if asked != (tt.status != 0) {
					t.Errorf("the endpoint was asked: %v", asked)
				}
				if credential != "" && strings.Contains(err.Error()+text(t, b.logs), credential) {
					t.Errorf("the token is shown: %v", err)
				}
			})
		})
	}
}

// Kubernetes replaces the file: the next request has the new token, and a blocked client
// does not wait for its next probe.
func TestAReplacedTokenFileIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var credential atomic.Value
		use := func(id string, life time.Duration) string {
			jwt := jwtOf(t, claims("jti", id, "exp", time.Now().Add(life).Unix()))
			credential.Store(jwt)
			return jwt
		}
		b := virtual(t, exchanging(func() (string, error) { return credential.Load().(string), nil }))
		var sent []string
		b.space.onToken = func(w http.ResponseWriter, r *http.Request) bool {
			jwt := r.FormValue("subject_token")
			sent = append(sent, jwt)
			text, _ := base64.RawURLEncoding.DecodeString(strings.Split(jwt, ".")[1])
			var c struct{ Exp int64 }
			if json.Unmarshal(text, &c); c.Exp <= time.Now().Unix() {
				w.WriteHeader(400)
				fmt.Fprint(w, `{"error":"invalid_grant","error_description":"expired"}`)
				return true
			}
			b.space.tokens["good"] = true
			return granted(w)
		}
		first := use("1", 10*time.Minute)
		write(t, b, rows(1))
		second := use("2", 30*time.Minute)
		after(6 * time.Minute) // past half of the first token's life
		write(t, b, rows(1))
		if len(sent) != 2 || sent[0] != first || sent[1] != second {
			t.Errorf("%d requests, want one with each token", len(sent))
		}
		after(time.Hour)
		done := inBackground(t.Context(), b, rows(1))
		synctest.Wait()
		if got := b.State(); got.Name != zerobus.Blocked || !strings.Contains(got.Reason, "expired at") {
			t.Errorf("state is %+v, want blocked by the expired token", got)
		}
		third := use("3", time.Hour)
		at := time.Now()
		if err := <-done; err != nil || sent[len(sent)-1] != third {
			t.Errorf("Write: %v, want it done with the new token", err)
		}
		if got := time.Since(at); got > time.Second {
			t.Errorf("the new token was used after %v, want within a second", got)
		}
		if shown := text(t, b.logs); strings.Contains(shown, first) || strings.Contains(shown, second) {
			t.Error("a token is in the log")
		}
	})
}
