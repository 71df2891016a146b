package emulator

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Federation is a federation policy: which JWTs of an identity provider the token
// endpoint exchanges for tokens of the service principal (RFC 8693). A JWT must have
// this issuer and subject, this audience among its own, and an expiry that has not
// passed. Its signature is not checked, as the emulator has no keys of the provider:
// whoever reaches the emulator can make such a JWT. The zero value is no policy.
type Federation struct {
	Issuer   string `json:"issuer"`
	Audience string `json:"audience"`
	Subject  string `json:"subject"`
	// Account makes it an account federation policy. Requests must then name no client_id;
	// otherwise they must name that of the service principal.
	Account bool `json:"account,omitzero"`
}

// String returns the form that Set reads; nothing for the zero value.
func (f *Federation) String() string {
	if *f == (Federation{}) {
		return ""
	}
	account := ""
	if f.Account {
		account = ",account"
	}
	return "issuer=" + f.Issuer + ",audience=" + f.Audience + ",subject=" + f.Subject + account
}

// Type is the kind of a flag's value, for help.
func (f *Federation) Type() string { return "policy" }

// Set reads issuer=URL,audience=NAME,subject=NAME, and account behind it.
func (f *Federation) Set(text string) error {
	var out Federation
	to := map[string]*string{"issuer": &out.Issuer, "audience": &out.Audience, "subject": &out.Subject}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch field := to[name]; {
		case part == "account":
			out.Account = true
		case field == nil || *field != "":
			return fmt.Errorf("%q is unknown or given twice; write issuer=URL,audience=NAME,subject=NAME", printable(part))
		default:
			*field = value
		}
	}
	if err := out.validate(); err != nil {
		return err
	}
	*f = out
	return nil
}

func (f Federation) validate() error {
	if f != (Federation{}) && (f.Issuer == "" || f.Audience == "" || f.Subject == "") {
		return errors.New("a federation policy needs an issuer, an audience and a subject")
	}
	return nil
}

// SetFederation replaces the federation policy. Tokens issued before stay valid until
// they expire.
func (e *Emulator) SetFederation(f Federation) error {
	if err := f.validate(); err != nil {
		return err
	}
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	e.tokens.federation = f
	return nil
}

const (
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	subjectJWT    = "urn:ietf:params:oauth:token-type:jwt"
)

// checkExchange checks the JWT of a token request against the federation policy. The
// answers are those that others have seen of the service. That of an expired JWT, and
// which of several faults is reported, are assumptions.
func (e *Emulator) checkExchange(form url.Values) *apiError {
	refuse := func(code, message string) *apiError {
		return &apiError{status: http.StatusBadRequest, code: code, message: message}
	}
	if form.Get("subject_token_type") != subjectJWT {
		return refuse("invalid_request", "subject_token_type must be "+subjectJWT)
	}
	var jwt struct {
		Issuer   string         `json:"iss"`
		Subject  string         `json:"sub"`
		Audience jsontext.Value `json:"aud"` // a text or a list
		Expiry   float64        `json:"exp"`
	}
	parts := strings.Split(form.Get("subject_token"), ".")
	if len(parts) != 3 {
		return refuse("invalid_request", "subject_token is no JWT")
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil || json.Unmarshal(text, &jwt) != nil {
		return refuse("invalid_request", "subject_token is no JWT")
	}
	var audiences []string
	if json.Unmarshal(jwt.Audience, &audiences) != nil {
		audiences = []string{""}
		_ = json.Unmarshal(jwt.Audience, &audiences[0]) // else it names none
	}
	e.tokens.mu.Lock()
	policy := e.tokens.federation
	e.tokens.mu.Unlock()
	client := e.cfg.ClientID
	if policy.Account {
		client = ""
	}
	invalid := func(word, why string, of Federation) *apiError {
		return refuse("invalid_grant", fmt.Sprintf("Failed to process token: %s (%s). Valid federation policy for provided token: {issuer: '%s', subject: '%s', audience: '%s'}",
			word, why, printable(of.Issuer), printable(of.Subject), printable(of.Audience)))
	}
	presented := Federation{Issuer: jwt.Issuer, Subject: jwt.Subject, Audience: strings.Join(audiences, ", ")}
	switch {
	case policy == (Federation{}), form.Get("client_id") != client, jwt.Issuer != policy.Issuer:
		return invalid("TOKEN_INVALID", "Ensure a valid federation policy has been configured", presented)
	case !slices.Contains(audiences, policy.Audience):
		return invalid("TOKEN_AUDIENCE_INVALID", "Token audience '"+printable(presented.Audience)+"' invalid", policy)
	case jwt.Subject != policy.Subject:
		return invalid("TOKEN_SUBJECT_INVALID", "Token subject '"+printable(jwt.Subject)+"' invalid", policy)
	case float64(time.Now().Unix()) >= jwt.Expiry:
		return invalid("TOKEN_EXPIRED", "Token has expired", policy)
	}
	return nil
}
