package zerobus

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/setting"
)

// TokenExchange authenticates the service principal without a client secret: by a token
// of the platform's identity provider, such as the service account token that Kubernetes
// writes into a file. Databricks exchanges it for a token of its own (RFC 8693) where a
// federation policy trusts its issuer, subject and audience.
type TokenExchange struct {
	// TokenFile holds the JWT to exchange. It is read for each token request, so the
	// platform may replace it at any time.
	TokenFile string `yaml:"token_file"`
	// Policy is whose federation policy trusts the token: service_principal, that of
	// ClientID, or account, one of the whole account. The latter maps the token's
	// subject to a user or service principal by name.
	Policy string `yaml:"policy" default:"service_principal" choices:"service_principal,account" when:"token_file"`
}

const policyAccount = "account"

// CredentialSource returns where the client secret comes from, or the token to exchange.
func (s Settings) CredentialSource() setting.SecretSource {
	if file := s.TokenExchange.TokenFile; file != "" {
		return setting.SecretSource{Key: "zerobus.token_exchange.token", File: file}
	}
	return setting.SecretSource{Key: "zerobus.client_secret", Value: s.ClientSecret, File: s.ClientSecretFile}
}

// exchange makes a token request one for the exchange of a JWT. The form is that of
// Databricks' own clients: default_token_factory.rs in the Zerobus SDK for Rust, and
// the package config/experimental/auth/oidc in the SDK for Go. No HTTP Basic, client_id only with the policy of a service principal, and for the rest the fields of a request
// with a client secret. See
// https://docs.databricks.com/aws/en/dev-tools/auth/oauth-federation-exchange.
func (t TokenExchange) exchange(config *clientcredentials.Config, jwt string) {
	config.AuthStyle, config.ClientSecret = oauth2.AuthStyleInParams, ""
	if t.Policy == policyAccount {
		config.ClientID = ""
	}
	params := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {jwt},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
	}
	maps.Copy(params, config.EndpointParams)
	config.EndpointParams = params
}

// subject holds the claims of a JWT. Its signature is checked by the token endpoint only.
type subject struct {
	Issuer   string          `json:"iss"`
	Subject  string          `json:"sub"`
	Audience json.RawMessage `json:"aud"` // a text or a list
	Expiry   float64         `json:"exp"` // seconds since the epoch, perhaps with a fraction
}

// parseSubject reads the claims of a JWT. What is none is sent nowhere: it may be another
// file's content. No error holds any part of it.
func parseSubject(jwt string) (s subject, err error) {
	parts := strings.Split(jwt, ".")
	if len(parts) == 3 {
		// The standard has no padding, some issuers have.
		text, bad := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
		if bad == nil && json.Unmarshal(text, &s) == nil {
			return s, nil
		}
	}
	return subject{}, errors.New("the file holds no JWT")
}

// expires returns the time at which the JWT expires; zero if it names none.
func (s subject) expires() time.Time {
	const most = 1 << 40 // seconds
	if s.Expiry <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(min(s.Expiry, most)), 0).UTC()
}

func (s subject) audiences() []string {
	var one string
	if json.Unmarshal(s.Audience, &one) == nil && one != "" {
		return []string{one}
	}
	var all []string
	_ = json.Unmarshal(s.Audience, &all) // else it names none
	return all
}

// command returns the command that makes Databricks trust the JWT, by a policy of the
// service principal or an account policy. clean makes the claims fit for a line.
func (s subject) command(policyOf string, clean func(string) string) string {
	type oidc struct {
		Issuer    string   `json:"issuer"`
		Audiences []string `json:"audiences,omitempty"`
		Subject   string   `json:"subject,omitempty"`
		Claim     string   `json:"subject_claim,omitempty"`
	}
	policy := oidc{Issuer: clean(s.Issuer)}
	for _, audience := range s.audiences() {
		policy.Audiences = append(policy.Audiences, clean(audience))
	}
	command := "service-principal-federation-policy create ID"
	if policyOf == policyAccount {
		command, policy.Claim = "federation-policy create", "sub"
	} else {
		policy.Subject = clean(s.Subject)
	}
	text, _ := json.Marshal(map[string]oidc{"oidc_policy": policy}) // texts can be marshalled
	return "databricks account " + command + " --json '" + strings.ReplaceAll(string(text), "'", `\u0027`) + "'"
}

// refusedExchange explains the refusal of a JWT. Databricks answers each with
// invalid_grant, and names the cause in the message only (seen by others on live
// accounts): TOKEN_AUDIENCE_INVALID, TOKEN_SUBJECT_INVALID, or TOKEN_INVALID where no
// policy fits or the client id is of another service principal.
func (s *tokenSource) refusedExchange(e *Error, jwt subject) *Error {
	switch e.Code {
	case "invalid_authorization_details", "invalid_scope", "invalid_target", "unsupported_grant_type":
		return e // not about the JWT
	}
	if e.Status != http.StatusBadRequest && e.Status != http.StatusUnauthorized {
		return e
	}
	clean := func(text string) string { return databricks.Clean(text, 200, s.secrets()...) }
	policy := "federation policy of service principal {principal}"
	admin := "an account admin can create the policy, ID being the numeric id of the service principal: "
	if s.c.set.TokenExchange.Policy == policyAccount {
		policy, admin = "account federation policy", "the token's subject must be the name of a user or service principal, and an account admin can create the policy: "
	}
	why := cause{"no " + policy + " trusts the token in {token_file}", admin + jwt.command(s.c.set.TokenExchange.Policy, clean)}
	if expires := jwt.expires(); !expires.IsZero() && expires.Before(time.Now()) {
		why = cause{"the token in {token_file} expired at " + expires.Format(time.RFC3339), "have it replaced: the kubelet does so for a serviceAccountToken volume, " +
			"elsewhere it is the work of what wrote the file; the bridge reads the file again"}
	} else if strings.Contains(e.Message, "TOKEN_AUDIENCE_INVALID") {
		why = cause{fmt.Sprintf("the token in {token_file} is for the audience %q, which the %s does not name", clean(strings.Join(jwt.audiences(), ", ")), policy),
			"request a token for an audience of the policy (in Kubernetes it is set in the serviceAccountToken volume), or add this one to the policy"}
	}
	return s.c.rem.byCause(e, why)
}
